"""p-values that stand beside others, and arms whose sizes do not fit their shares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gpupipe.experiment.distributions import chi2_tail


def corrected(ps: Sequence[float], how: str) -> list[float]:
    """The p-values corrected for there being several, in the same order.

    ``holm``: no false find at all (Holm, Scand. J. Statist. 6, 1979). ``benjamini-hochberg``: the
    share of false finds (Benjamini and Hochberg, JRSS B 57, 1995). ``none``: as they are.
    """
    if how == "none" or not ps:
        return list(ps)
    m = len(ps)
    order = sorted(range(m), key=ps.__getitem__)
    made = [1.0] * m
    if how == "holm":
        reached = 0.0
        for rank, i in enumerate(order):
            reached = max(reached, (m - rank) * ps[i])
            made[i] = min(1.0, reached)
    else:
        reached = 1.0
        for rank, i in reversed(list(enumerate(order, 1))):
            reached = min(reached, m / rank * ps[i])
            made[i] = reached
    return made


PRIOR_UNITS = 1_000.0
"""How closely the alternative of the sequential test lies around the planned shares: like so many
units that were seen before. The more, the smaller the gaps that it is best at."""


@dataclass(frozen=True)
class SampleRatio:
    """Whether the arms' units fit their shares.

    ``statistic`` and ``p`` are chi-squared's, or the always-valid p-value where ``sequential``.
    ``ok`` is None where there are too few units to tell (fewer than 5 expected in an arm).
    Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019.
    """

    statistic: float
    p: float
    alpha: float
    ok: bool | None
    sequential: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def sample_ratio(
    units: Mapping[str, int], shares: Mapping[str, float], alpha: float, sequential: bool = False
) -> SampleRatio:
    """The test of the arms' ``units`` against their planned ``shares``.

    By chi-squared with arms - 1 degrees of freedom; where it is looked at again and again, by the
    mixture of multinomials of Lindon and Malek ("Anytime-valid inference for multinomial count
    data", NeurIPS 2022): p is the likelihood under the shares over that under a Dirichlet mixture
    around them, and is below alpha at any look with probability alpha at most.
    """
    total, of_shares = sum(units.get(a, 0) for a in shares), sum(shares.values())
    expected = {a: total * s / of_shares for a, s in shares.items()}
    statistic = sum((units.get(a, 0) - e) ** 2 / e for a, e in expected.items()) if total else 0.0
    p = chi2_tail(statistic, len(shares) - 1)
    if sequential:
        log = math.lgamma(PRIOR_UNITS + total) - math.lgamma(PRIOR_UNITS)
        for arm, share in shares.items():
            n, prior = units.get(arm, 0), PRIOR_UNITS * share / of_shares
            log += n * math.log(share / of_shares) + math.lgamma(prior) - math.lgamma(prior + n)
        p = math.exp(min(0.0, log))
    enough = min(expected.values()) >= 5
    return SampleRatio(statistic, p, alpha, p >= alpha if enough else None, sequential)
