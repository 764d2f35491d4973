"""The normal, Student's t and chi-squared distributions, by their classical expansions.

Regularised incomplete beta and gamma functions: series and continued fractions by Lentz's method
(Press et al., "Numerical Recipes", 3rd ed., sections 6.2 and 6.4), to 1e-10 of the value or better.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

_TINY = 1e-300
_EPS = 1e-16


def normal_tail(z: float) -> float:
    """P(a standard normal > z), accurate far out."""
    return math.erfc(z / math.sqrt(2)) / 2


def normal_quantile(p: float) -> float:
    """The z that a standard normal is below with probability ``p``, in (0, 1)."""
    return NormalDist().inv_cdf(p)


def t_tail(t: float, df: float) -> float:
    """P(Student's t with ``df`` degrees of freedom > t); the normal's for infinite ``df``."""
    if math.isinf(df):
        return normal_tail(t)
    half = _incomplete_beta(df / 2, 0.5, df / (df + t * t), t * t / (df + t * t)) / 2
    return half if t >= 0 else 1 - half


def t_quantile(p: float, df: float) -> float:
    """The inverse of Student's distribution function at ``p``, in (0, 1)."""
    if math.isinf(df):
        return normal_quantile(p)
    if p < 0.5:
        return -t_quantile(1 - p, df)
    if df >= 100:
        return _newton(p, df)
    high = 1.0
    while t_tail(high, df) > 1 - p:
        high *= 2
    return _root(lambda t: (1 - p) - t_tail(t, df), 0.0, high)


def _newton(p: float, df: float) -> float:
    """The quantile for many degrees of freedom: from the normal's by Cornish and Fisher's
    expansion (Abramowitz and Stegun, 26.7.5), two steps at most."""
    z = normal_quantile(p)
    t = z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
    for _ in range(2):
        density = math.exp(-_log_beta(df / 2, 0.5) - (df + 1) / 2 * math.log1p(t * t / df))
        step = (t_tail(t, df) - (1 - p)) * math.sqrt(df) / density
        t += step
        if abs(step) < 1e-9 * abs(t):
            break
    return t


def chi2_tail(x: float, df: float) -> float:
    """P(chi-squared with ``df`` degrees of freedom > x)."""
    return 1.0 if x <= 0 else _gamma_tail(df / 2, x / 2)


def _incomplete_beta(a: float, b: float, x: float, y: float) -> float:
    """The regularised incomplete beta function I_x(a, b), for ``y`` = 1 - x to full precision."""
    if x <= 0 or y <= 0:
        return float(y <= 0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, y, x)
    front = math.exp(-_log_beta(a, b) + a * _log(x, y) + b * _log(y, x))

    def term(m: int) -> float:
        k, odd = divmod(m, 2)
        if odd:
            return -(a + k) * (a + b + k) * x / ((a + 2 * k) * (a + 2 * k + 1))
        return k * (b - k) * x / ((a + 2 * k - 1) * (a + 2 * k))

    return front / (a * _lentz(1.0, term, lambda m: 1.0))


def _log(x: float, y: float) -> float:
    """log(x), where x = 1 - y."""
    return math.log(x) if x < 0.5 else math.log1p(-y)


def _log_beta(a: float, b: float) -> float:
    """log B(a, b). Of a half and a large number by Stirling's series, for the logarithms of
    two large factorials would cancel."""
    small, large = sorted((a, b))
    if small == 0.5 and large > 1_000:
        step = math.log(large) / 2 - 1 / (8 * large) + 1 / (192 * large**3)
        return math.log(math.pi) / 2 - step
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _gamma_tail(a: float, x: float) -> float:
    """The regularised upper incomplete gamma function Q(a, x)."""
    front = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        total = term = 1 / a
        n = a
        while abs(term) > abs(total) * _EPS:
            n += 1
            term *= x / n
            total += term
        return 1 - front * total
    return front / _lentz(x + 1 - a, lambda m: -m * (m - a), lambda m: x + 2 * m + 1 - a)


def _lentz(first: float, a: Callable[[int], float], b: Callable[[int], float]) -> float:
    """The continued fraction first + a(1)/(b(1) + a(2)/(b(2) + ...))."""
    value = c = first or _TINY
    d = 0.0
    for m in range(1, 100_000):
        d = b(m) + a(m) * d or _TINY
        c = b(m) + a(m) / c or _TINY
        d = 1 / d
        value *= c * d
        if abs(c * d - 1) < _EPS * 4:
            break
    return value


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses 0 between ``low`` and ``high``: the secant, kept within
    a bracket that halves at least every other time (Illinois)."""
    f_low, f_high = rising(low), rising(high)
    side = 0
    for _ in range(200):
        if high - low <= 1e-14 * max(abs(high), 1.0):
            break
        middle = (low * f_high - high * f_low) / (f_high - f_low) if f_high != f_low else low
        f = rising(middle)
        if f == 0:
            return middle
        if f < 0:
            low, f_low = middle, f
            f_high = f_high / 2 if side == -1 else f_high
            side = -1
        else:
            high, f_high = middle, f
            f_low = f_low / 2 if side == 1 else f_low
            side = 1
    return (low + high) / 2
