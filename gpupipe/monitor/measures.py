"""How far a window is from the reference: each measure has an effect size and a p-value.

An effect is what the measure would be without the noise of finite samples: from each squared
distance (for the PSI, from itself) its expectation under no drift is taken off. A p-value is the
chance of so much under no drift. With n rows in the window, m in the reference and
1/N = 1/n + 1/m:

- **psi**, **jensen_shannon**, **chi_squared** look at a few groups of cells: tenths of the
  reference for numbers, levels for text, the rare ones as one. N times the PSI, 8 N times the
  divergence and Pearson's statistic are all chi-squared with B - 1 degrees of freedom in the limit
  (Yurdakul 2018, Statistical properties of the population stability index, Western Michigan
  University; Lin 1991, IEEE Trans. Inf. Theory 37), so they share Pearson's p-value, whose tail is
  the truest of the three where counts are small.
- **kolmogorov_smirnov**: Kolmogorov's distribution, which ties make conservative.
- **wasserstein**: the area between the distribution functions, in standard deviations. N^(1/2)
  times it is the area under |a Brownian bridge| (del Barrio, Gine & Matran 1999, Ann. Probab. 27),
  of which mean and variance are known exactly and a gamma distribution takes the rest. Values
  beyond the quantiles at which `TAIL` rows are expected count as these, or a few of a heavy tail
  would be all that is seen.
- **missing**, **unfit**, **infinite**, **unseen**, **beyond_range**: shares of rows, against
  those of the reference, by the binomial test of two samples. A value never seen, or beyond the
  range, is expected even without drift: as often as the reference's own rows had values that came
  once (Good 1953, Biometrika 40), and as new rows pass the greatest of m.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from gpupipe.monitor.cells import ABOVE, BELOW, INFINITE, MISSING, UNFIT, UNSEEN
from gpupipe.monitor.pairs import Pair

TRIMS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
"""Shares of the reference at either end that the Wasserstein distance may not look into."""
TAIL = 20
"""Rows that are expected in what is trimmed, at least, so that those left vary as sums do."""
KS_SECOND = math.pi**2 / 12
"""The second moment of Kolmogorov's distribution."""


@dataclass(frozen=True)
class Found:
    """What a measure found: its plain value, the effect without noise, and the p-value."""

    value: float
    effect: float
    p: float


@dataclass(frozen=True)
class Measure:
    """A measure with the effects from which it warns and alerts; ``of`` is what it is asked of."""

    name: str
    title: str
    warn: float
    alert: float
    compute: Callable[[Pair], Found | None]


MEASURES: dict[str, Measure] = {}


def measure(
    name: str, title: str, warn: float, alert: float
) -> Callable[[Callable[[Pair], Found | None]], Callable[[Pair], Found | None]]:
    """Register the decorated function; it gives None where the measure does not apply."""

    def register(compute: Callable[[Pair], Found | None]) -> Callable[[Pair], Found | None]:
        MEASURES[name] = Measure(name, title, warn, alert, compute)
        return compute

    return register


# Distributions ---------------------------------------------------------------------------------


@measure("psi", "PSI", 0.1, 0.25)
def psi(pair: Pair) -> Found | None:
    """The population stability index, in nats; half a row is added to each group."""
    if not pair.compared or pair.pearson[1] == 0:
        return None
    r, c = _shares(pair)
    value = float(((c - r) * np.log(c / r)).sum())
    return Found(value, max(value - pair.pearson[1] * pair.noise, 0.0), pair.pearson[2])


@measure("jensen_shannon", "Jensen–Shannon distance", 0.08, 0.2)
def jensen_shannon(pair: Pair) -> Found | None:
    """The square root of the divergence in bits: from 0 to 1."""
    if not pair.compared or pair.pearson[1] == 0:
        return None
    r, c = _shares(pair)
    middle = (r + c) / 2
    value = float((r * np.log2(r / middle) + c * np.log2(c / middle)).sum()) / 2
    noise = pair.pearson[1] * pair.noise / (8 * math.log(2))
    return Found(_root(value), _root(value - noise), pair.pearson[2])


@measure("kolmogorov_smirnov", "Kolmogorov–Smirnov", 0.05, 0.15)
def kolmogorov_smirnov(pair: Pair) -> Found | None:
    """The greatest difference of the two distribution functions. Numbers only."""
    if not pair.compared or not pair.known.coder.ordered:
        return None
    _, f, g = pair.functions
    value = float(np.abs(f - g).max())
    return Found(value, _root(value**2 - KS_SECOND * pair.noise),
                 float(special.kolmogorov(value / math.sqrt(pair.noise))))


@measure("wasserstein", "Wasserstein, in deviations", 0.08, 0.2)
def wasserstein(pair: Pair) -> Found | None:
    """The area between the distribution functions, over the standard deviation. Numbers only."""
    if not pair.compared or not pair.known.coder.ordered:
        return None
    rows = min(pair.values, pair.known.present)
    within = pair.shape.within(next((t for t in TRIMS if t * rows >= TAIL), TRIMS[-1]))
    if within.deviation == 0:
        return None
    cells, f, g = pair.functions
    value = float(np.abs(f - g)[:-1] @ np.diff(within.points(cells))) / within.deviation
    mean, variance = within.area
    scaled = value / math.sqrt(pair.noise)
    p = float(special.gammaincc(mean**2 / variance, scaled * mean / variance))
    return Found(value, _root(value**2 - (mean**2 + variance) * pair.noise), p)


@measure("chi_squared", "chi-squared (Cohen's w)", 0.15, 0.4)
def chi_squared(pair: Pair) -> Found | None:
    """Pearson's test of the levels; the effect is Cohen's w. Text only."""
    if not pair.compared or pair.known.coder.ordered or pair.pearson[1] == 0:
        return None
    statistic, freedom, p = pair.pearson
    return Found(_root(statistic * pair.noise), _root((statistic - freedom) * pair.noise), p)


# The contract ------------------------------------------------------------------------------------


@measure("missing", "missing", 0.01, 0.1)
def missing(pair: Pair) -> Found | None:
    """The share of rows without a value, less the reference's: either way."""
    if not pair.known.rows:
        return None
    n, m = pair.rows, pair.known.rows
    a, b = pair.special.get(MISSING, 0), pair.known.missing
    p = 2 * (greater(a, n, b, m) if a / n >= b / m else greater(b, m, a, n))
    return Found(a / n, abs(a / n - b / m), min(p, 1.0))


@measure("unfit", "does not fit the type", 0.0, 0.01)
def unfit(pair: Pair) -> Found | None:
    """The share of rows whose value is not of the contract's type: the reference has none."""
    a = pair.special.get(UNFIT, 0)
    return Found(a / pair.rows, a / pair.rows, 0.0 if a else 1.0)


@measure("infinite", "infinite", 0.001, 0.01)
def infinite(pair: Pair) -> Found | None:
    """The share of infinite values, more than the reference's."""
    if not pair.known.coder.ordered or not pair.known.rows:
        return None
    return _more(pair.special.get(INFINITE, 0), pair.rows, pair.known.infinite, pair.known.rows)


@measure("unseen", "never seen in training", 0.01, 0.05)
def unseen(pair: Pair) -> Found | None:
    """The share of text that the reference has not, more than is to be expected."""
    if pair.known.cells is None or pair.known.coder.ordered or not pair.known.present:
        return None
    present = pair.values + pair.special.get(UNSEEN, 0)
    if not present:
        return None
    return _more(pair.special.get(UNSEEN, 0), present, pair.known.once, pair.known.present)


@measure("beyond_range", "beyond the range", 0.001, 0.01)
def beyond_range(pair: Pair) -> Found | None:
    """The share of numbers below the least or above the greatest of the reference.

    That the k greatest of n + m rows in no order are all of the window has the chance
    n! (n + m - k)! / ((n - k)! (n + m)!), and k are expected to be above, about n / m.
    """
    if not pair.known.coder.ordered or pair.known.cells is None or not pair.values:
        return None
    n, m = pair.values, pair.known.present
    p, total = 1.0, 0
    for which in (BELOW, ABOVE):
        k = pair.special.get(which, 0)
        total += k
        log = (special.gammaln(n + 1) - special.gammaln(n - k + 1)
               + special.gammaln(n + m - k + 1) - special.gammaln(n + m + 1))
        p = min(p, math.exp(min(float(log), 0.0)))
    return Found(total / n, max(total / n - 2 / (m + 1), 0.0), min(2 * p, 1.0))


# All columns together: of rows, not of counts. `multivariate` computes them -----------------------


@measure("domain_classifier", "AUC of telling the window apart", 0.05, 0.15)
def domain_classifier(pair: Pair) -> Found | None:
    """How well trees tell the window from the rows of ``--against``."""
    return None


@measure("reconstruction", "further from the principal components", 0.05, 0.15)
def reconstruction(pair: Pair) -> Found | None:
    """How often a row lies further from the principal components than one of ``--against``."""
    return None


def greater(a: int, n: int, b: int, m: int) -> float:
    """P(so many of n, or more) where a of n and b of m rows have one chance of what is counted.

    Given a + b, the window's part is hypergeometric. The binomial distribution is wider, so it
    is conservative; the rarer of what is counted and what is not makes it little so.
    """
    both, share = a + b, n / (n + m)
    if a == 0:
        return 1.0
    if 2 * both <= n + m:
        return float(special.bdtrc(a - 1, both, share))
    return float(special.bdtr(n - a, n + m - both, share))


def _more(a: int, n: int, b: int, m: int) -> Found:
    return Found(a / n, max(a / n - b / m, 0.0), greater(a, n, b, m))


def _shares(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    r, c = pair.groups
    return (r + 0.5) / (r.sum() + 0.5 * len(r)), (c + 0.5) / (c.sum() + 0.5 * len(c))


def _root(value: float) -> float:
    return math.sqrt(max(value, 0.0))
