"""What an arm's metric is, how far two arms differ, and how sure that is.

Every metric is a function of means, so the delta method gives its variance from the means'
covariances (Deng, Knoblich and Lu, "Applying the delta method in metric analytics", KDD 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gpupipe.experiment.distributions import (
    normal_quantile,
    normal_tail,
    t_quantile,
    t_tail,
)
from gpupipe.experiment.sums import Moments

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """An arm's metric.

    Attributes
    ----------
    n : units.
    value : the metric.
    variance : of one unit's share in it: the squared standard error is ``variance / n``.
    proportion : whether it is a share of units, ``value`` of ``n``.
    """

    n: int
    value: float
    variance: float
    proportion: bool = False

    @property
    def squared_error(self) -> float:
        return self.variance / self.n


@dataclass(frozen=True)
class Difference:
    """How far ``treatment`` is from ``control``: ``value`` with its interval and p-value.

    ``df`` is infinite where the normal distribution is used; ``statistic`` is t or z.
    """

    value: float
    low: float
    high: float
    p: float
    statistic: float
    df: float


def mean_of(moments: Moments) -> Estimate:
    """The mean of the first variable."""
    return Estimate(moments.n, float(moments.mean[0]), float(moments.covariance[0, 0]))


def proportion_of(moments: Moments) -> Estimate:
    """The mean of a variable of 0 and 1, with the binomial's variance p(1 - p)."""
    p = float(moments.mean[0])
    return Estimate(moments.n, p, p * (1 - p), proportion=True)


def ratio_of(moments: Moments) -> Estimate:
    """The mean of the first variable over that of the second."""
    value, slope = _ratio(moments, 0)
    variance = float(slope @ moments.covariance[:2, :2] @ slope)
    return Estimate(moments.n, value, _not_negative(variance))


def adjusted(arm: Moments, pooled: Moments, theta: float) -> Estimate:
    """A metric with what its covariate explains taken away (CUPED).

    Variables are numerator, denominator, and those of the covariate; a mean has the constant
    denominator 1. ``theta`` is `theta_of` all arms together (Deng, Xu, Kohavi and Walker,
    "Improving the sensitivity of online controlled experiments by utilizing pre-experiment data",
    WSDM 2013; for ratios: Deng, Knoblich and Lu 2018, section 5).
    """
    value, slope = _ratio(arm, 0)
    before, before_slope = _ratio(arm, 2)
    influence = np.concatenate([slope, -theta * before_slope])
    return Estimate(
        arm.n, value - theta * (before - _ratio(pooled, 2)[0]),
        _not_negative(float(influence @ arm.covariance @ influence)),
    )


def theta_of(pooled: Moments) -> float:
    """The covariate's coefficient; 0 where it does not vary."""
    slope, before = _ratio(pooled, 0)[1], _ratio(pooled, 2)[1]
    variance = float(before @ pooled.covariance[2:, 2:] @ before)
    return float(slope @ pooled.covariance[:2, 2:] @ before) / variance if variance > 0 else 0.0


def _not_negative(variance: float) -> float:
    """A variance that rounding may have made negative; NaN stays."""
    return 0.0 if variance < 0 else variance


def _ratio(moments: Moments, at: int) -> tuple[float, np.ndarray]:
    """Mean ``at`` over the next one, and its slopes by both; NaN where that is 0."""
    top, bottom = float(moments.mean[at]), float(moments.mean[at + 1]) or math.nan
    return top / bottom, np.array([1 / bottom, -top / bottom**2])


def difference(control: Estimate, treatment: Estimate, alpha: float) -> Difference:
    """Treatment minus control, two-sided at ``alpha``.

    Means and ratios: Welch's t (Welch, Biometrika 34, 1947). Proportions: the z test with the
    pooled share under "no difference"; the interval has each arm's own variance.
    """
    value = treatment.value - control.value
    own = [control.squared_error, treatment.squared_error]
    error = math.sqrt(sum(own))
    if control.proportion and treatment.proportion:
        n = control.n + treatment.n
        share = (control.value * control.n + treatment.value * treatment.n) / n
        pooled = math.sqrt(share * (1 - share) * (1 / control.n + 1 / treatment.n))
        z = value / pooled
        half = normal_quantile(1 - alpha / 2) * error
        return Difference(value, value - half, value + half, 2 * normal_tail(abs(z)), z, math.inf)
    df = welch_df(control, treatment)
    t = value / error
    half = t_quantile(1 - alpha / 2, df) * error
    return Difference(value, value - half, value + half, 2 * t_tail(abs(t), df), t, df)


def welch_df(control: Estimate, treatment: Estimate) -> float:
    """Degrees of freedom by Welch and Satterthwaite; infinite for proportions."""
    if control.proportion and treatment.proportion:
        return math.inf
    a, b = control.squared_error, treatment.squared_error
    return (a + b) ** 2 / (a * a / (control.n - 1) + b * b / (treatment.n - 1))


def relative(control: Estimate, treatment: Estimate) -> Estimate:
    """Treatment over control, minus 1, by the delta method.

    Its ``n`` is that of both arms, and ``variance`` is scaled to it. The control's value is not 0.
    """
    n = control.n + treatment.n
    ratio = treatment.value / control.value
    squared = (treatment.squared_error + ratio**2 * control.squared_error) / control.value**2
    return Estimate(n, ratio - 1, squared * n)


def critical(control: Estimate, treatment: Estimate, alpha: float) -> float:
    """The quantile of t or z by which a two-sided interval's half is so many errors long."""
    return t_quantile(1 - alpha / 2, welch_df(control, treatment))


def fieller(control: Estimate, treatment: Estimate, errors: float) -> Interval | None:
    """The interval of treatment over control, minus 1, by Fieller's theorem.

    The ratios r for which treatment - r control is within ``errors`` standard errors of 0. None
    where it has no ends: the control cannot be told from 0 (Fieller, JRSS B 16, 1954).
    """
    a, b = control.value, treatment.value
    q = errors**2
    curve = a * a - q * control.squared_error
    if curve <= 0:
        return None
    root = math.sqrt(max(0.0, (a * b) ** 2 - curve * (b * b - q * treatment.squared_error)))
    return ((a * b - root) / curve - 1, (a * b + root) / curve - 1)
