"""Intervals that hold at every look: a test that may be peeked at, and stopped at any time.

The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas
("Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52,
2024, arXiv 2103.06476v7), theorem 2.2: the normal mixture of Robbins (Howard, Ramdas, McAuliffe
and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics
49, 2021, section 3.2) with the estimated variance. It is the interval of the mixture SPRT (Johari,
Koomen, Pekelis and Walsh, "Always valid inference", Operations Research 70, 2022) and of GAVI,
whose nu is 1 / rho^2.
"""

from __future__ import annotations

import math

LEAST_UNITS = 100
"""Units an arm below which no look is taken: the variance is an estimate, and the sequence is
valid for large samples."""


def rho_of(tuning: float, alpha: float) -> float:
    """The mixture's parameter for which the interval is about tightest at ``tuning`` units.

    Waudby-Smith et al. 2024, appendix B.2 (equation 161 of the preprint's seventh version).
    """
    log = -2 * math.log(alpha)
    return math.sqrt((log + math.log(log + 1)) / tuning)


def nu_of(tuning: float, alpha: float) -> float:
    """The same tuning as GAVI writes it: nu = 1 / rho^2."""
    return rho_of(tuning, alpha) ** -2


def always_valid_errors(n: float, alpha: float, tuning: float) -> float:
    """Half the interval's width after ``n`` units, in standard errors (theorem 2.2)."""
    spread = n * rho_of(tuning, alpha) ** 2
    return math.sqrt(2 * (spread + 1) / spread * math.log(math.sqrt(spread + 1) / alpha))


def always_valid_p(statistic: float, n: float, alpha: float, tuning: float) -> float:
    """The least level at which the sequence of this tuning leaves 0 out after ``n`` units."""
    spread = n * rho_of(tuning, alpha) ** 2
    log = math.log(spread + 1) / 2 - statistic**2 / 2 * spread / (spread + 1)
    return math.exp(min(0.0, log))
