"""How many units an experiment takes, what it can see, and how long a sequential one runs.

Large-sample formulas (Chow, Shao and Wang, "Sample size calculations in clinical research",
2nd ed., chapters 3 and 4). ``n`` is units of the control; the treatment has ``ratio`` times as
many. ``effect`` is treatment minus control.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from gpupipe.errors import ConfigError
from gpupipe.experiment.distributions import normal_quantile
from gpupipe.experiment.sequential import LEAST_UNITS, always_valid_errors

_NORMAL = NormalDist()


@dataclass(frozen=True)
class Design:
    """What is asked of a test.

    Attributes
    ----------
    alpha : the probability of finding a difference where there is none (two-sided).
    power : the probability of finding the effect where it is there.
    ratio : units of the treatment for each unit of the control.
    """

    alpha: float = 0.05
    power: float = 0.8
    ratio: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("power", self.power)):
            if not 0 < value < 1:
                raise ConfigError(f"{name} has to lie between 0 and 1, and is {value}")
        if not self.ratio > 0 or math.isinf(self.ratio):
            raise ConfigError(f"the arms' ratio has to be positive, and is {self.ratio}")

    @property
    def errors(self) -> float:
        """How many standard errors the effect has to be, to be found with this power."""
        return normal_quantile(1 - self.alpha / 2) + normal_quantile(self.power)


def size_of_means(
    effect: float, variance: float, design: Design, treated: float | None = None
) -> float:
    """Units of the control for a difference of means (or ratios, with the delta method's
    variance of a unit). ``treated`` is the treatment's variance, where it is another one."""
    _not_zero(effect)
    of_both = variance + (variance if treated is None else treated) / design.ratio
    return of_both * (design.errors / effect) ** 2


def size_of_proportions(control: float, treatment: float, design: Design) -> float:
    """Units of the control for two shares, by Cohen's h: the difference of their arcsines.

    Cohen, "Statistical power analysis for the behavioral sciences", 2nd ed., 1988, section 6.2.
    """
    h = cohens_h(control, treatment)
    _not_zero(h)
    return (1 + 1 / design.ratio) * (design.errors / h) ** 2


def size_of_non_inferiority(margin: float, variance: float, design: Design) -> float:
    """Units of the control to show that a loss is less than ``margin``, where there is none.

    One-sided at alpha / 2: the two-sided interval lies above minus the margin.
    """
    return size_of_means(margin, variance, design)


def cohens_h(control: float, treatment: float) -> float:
    """2 asin sqrt(treatment) - 2 asin sqrt(control)."""
    for share in (control, treatment):
        if not 0 < share < 1:
            raise ConfigError(
                f"a share has to lie between 0 and 1, and is {share:g}",
                hint="the effect is added to the baseline: is it relative?",
            )
    return 2 * (math.asin(math.sqrt(treatment)) - math.asin(math.sqrt(control)))


def power_of(effect: float, variance: float, n: float, design: Design) -> float:
    """The probability of a significant result (of either sign) with ``n`` units of control."""
    error = math.sqrt(variance * (1 + 1 / design.ratio) / n)
    bound, shift = normal_quantile(1 - design.alpha / 2), effect / error
    return _NORMAL.cdf(shift - bound) + _NORMAL.cdf(-shift - bound)


def power_of_proportions(control: float, treatment: float, n: float, design: Design) -> float:
    """`power_of` two shares: Cohen's h has variance 1 a unit."""
    return power_of(cohens_h(control, treatment), 1.0, n, design)


def detectable(variance: float, n: float, design: Design) -> float:
    """The least effect on a mean that is found with the design's power."""
    return design.errors * math.sqrt(variance * (1 + 1 / design.ratio) / n)


def detectable_share(control: float, n: float, design: Design) -> float:
    """The least rise of a share that is found with the design's power; NaN where none is."""
    h = design.errors * math.sqrt((1 + 1 / design.ratio) / n)
    angle = math.asin(math.sqrt(control)) + h / 2
    return math.sin(angle) ** 2 - control if angle < math.pi / 2 else math.nan


@dataclass(frozen=True)
class SequentialSize:
    """Units of all arms together, for a test that is looked at as often as one likes.

    Attributes
    ----------
    maximal : with so many the effect is found with the design's power, at the latest.
    expected : units until it is found or ``maximal`` is reached, on average, if it is there.
    expected_null : the same if there is no effect.
    """

    maximal: float
    expected: float
    expected_null: float


def sequential_size(
    effect: float, variance: float, design: Design, tuning: float | None = None,
    looks: int = 100,
) -> SequentialSize:
    """Sizes of the always-valid test of `sequential`.

    The maximal size is where the interval's half-width leaves room for the effect with the
    design's power at that look alone: earlier looks can only add to it. The expected one is the
    sum over ``looks`` equal steps of the probability that none has found it yet, by the joint
    distribution of the looks (`_survivals`).

    Parameters
    ----------
    variance : of one unit, the same in both arms.
    tuning : units at which the sequence is tightest; left out, the fixed horizon's size.
    """
    _not_zero(effect)
    share = design.ratio / (1 + design.ratio)
    # The squared error of the difference is `spread` / units of both arms.
    spread = variance / (share * (1 - share))
    effect = abs(effect)
    tuning = tuning or spread * (design.errors / effect) ** 2
    beta = normal_quantile(design.power)

    def lacking(n: float) -> float:
        errors = always_valid_errors(n, design.alpha, tuning) + beta
        return errors - effect / math.sqrt(spread / n)

    maximal = _falling_root(lacking, 2.0)
    first = min(2 * LEAST_UNITS, maximal)
    steps = [first + (maximal - first) * i / (looks - 1) for i in range(looks)]
    bounds = [always_valid_errors(n, design.alpha, tuning) for n in steps]
    drift = effect / math.sqrt(spread)

    def expected(of: float) -> float:
        alive = _survivals(steps, bounds, of)
        return steps[0] + sum(
            (b - a) * still for a, b, still in zip(steps, steps[1:], alive, strict=False)
        )

    return SequentialSize(maximal, expected(drift), expected(0.0))


def _survivals(steps: list[float], bounds: list[float], drift: float) -> list[float]:
    """P(no look so far was beyond its bound), after each look.

    The score S = Z sqrt(n) is a Brownian motion with this drift: its density is carried from
    look to look on a grid, without what was beyond (Armitage, McPherson and Rowe, JRSS A 132,
    1969).
    """
    import numpy as np

    cells = 401
    alive: list[float] = []
    grid, density, before = np.zeros(1), np.ones(1), 0.0
    for n, bound in zip(steps, bounds, strict=True):
        reach = bound * math.sqrt(n)
        new = np.linspace(-reach, reach, cells)
        deviation = math.sqrt(n - before)
        z = (new[:, None] - grid[None, :] - drift * (n - before)) / deviation
        kernel = np.exp(-z * z / 2) / (deviation * math.sqrt(2 * math.pi))
        weight = np.full(cells, new[1] - new[0])
        weight[[0, -1]] /= 2
        density = (kernel @ density) * weight
        grid, before = new, n
        alive.append(float(min(density.sum(), alive[-1] if alive else 1.0)))
    return alive


def _falling_root(function: Callable[[float], float], low: float) -> float:
    """Where a function that is positive at first becomes negative."""
    high = low
    while function(high) > 0:
        low, high = high, high * 2
        if high > 1e15:
            raise ConfigError("no number of units would find this effect",
                              hint="plan for a greater effect, or reduce the metric's variance")
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return high


def _not_zero(effect: float) -> None:
    if not effect or not math.isfinite(effect):
        raise ConfigError(f"the effect to be found cannot be {effect:g}",
                          hint="give the least difference that would matter")
