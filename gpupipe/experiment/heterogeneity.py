"""Whether an effect differs between the levels of a slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.experiment.cells import Cell, Reading
from gpupipe.experiment.config import MetricConfig
from gpupipe.experiment.corrections import corrected
from gpupipe.experiment.distributions import chi2_tail
from gpupipe.experiment.judge import INSUFFICIENT, Judge, effect, lacking, settle
from gpupipe.experiment.sums import Sums


def sliced(
    metric: MetricConfig, reading: Reading, column: str, levels: Sequence[str],
    cells: Mapping[Cell, Sums], control: str, arm: str, judge: Judge,
) -> dict[str, Any]:
    """The effect at each level, and the test of whether it is one and the same.

    Cochran's Q (Biometrics 10, 1954): squared distances from the effects' weighted mean, each
    over its variance, are chi-squared with levels - 1 degrees of freedom. ``p`` is None where
    fewer than two levels can be judged. p-values of levels are corrected by Benjamini and Hochberg.
    """
    found: list[dict[str, Any]] = []
    for level in levels:
        pair = {a: cells[metric.name, column, level, a] for a in (control, arm)
                if (metric.name, column, level, a) in cells}
        units = {a: s.n for a, s in pair.items()}
        made: dict[str, Any] = {"level": level, "units": units, "state": INSUFFICIENT,
                                "why": "no units in an arm"}
        both = {a: reading.estimate(s) for a, s in pair.items()
                if s.n > 1 and (metric.denominator is None or s.first[1] != 0)}
        if len(both) == 2:
            made["why"] = lacking(metric, both, judge)
            if made["why"] is None:
                one, other = both.values()
                made |= {"values": {control: one.value, arm: other.value},
                         **effect(metric, one, other, judge)}
        found.append(made)
    known = [m for m in found if m["why"] is None]
    for made, p in zip(known, corrected([m["p"] for m in known], "benjamini-hochberg"),
                       strict=True):
        settle(made, metric, p, judge.alpha)
    q = p_value = None
    if len(known) > 1 and all(m["standard_error"] > 0 for m in known):
        weights = [m["standard_error"] ** -2 for m in known]
        effects = [m["difference"]["value"] for m in known]
        middle = sum(w * e for w, e in zip(weights, effects, strict=True)) / sum(weights)
        q = sum(w * (e - middle) ** 2 for w, e in zip(weights, effects, strict=True))
        p_value = chi2_tail(q, len(known) - 1)
    return {"metric": metric.name, "slice": column, "arm": arm, "q": q, "p": p_value,
            "p_corrected": None, "differs": None, "levels": found}


def settle_slices(found: Sequence[dict[str, Any]], how: str, alpha: float) -> None:
    """Correct the tests of all slices together, and say where the effect differs."""
    known = [f for f in found if f["p"] is not None]
    for one, p in zip(known, corrected([f["p"] for f in known], how), strict=True):
        one["p_corrected"], one["differs"] = p, p < alpha
