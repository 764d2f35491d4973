"""The analysis: trust first, then every metric, then what it comes to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from gpupipe.experiment.bootstrap import resampled
from gpupipe.experiment.corrections import corrected, sample_ratio
from gpupipe.experiment.distributions import chi2_tail
from gpupipe.experiment.gather import Gathered
from gpupipe.experiment.heterogeneity import settle_slices, sliced
from gpupipe.experiment.judge import Judge, judged, settle
from gpupipe.experiment.verdict import blocked, verdict_of

NO_PLAN: Mapping[str, Any] = {"status": "none", "hash": None, "found": None, "registered": None}
"""Where there is no registered plan: what is found is exploratory."""


def analyse(
    gathered: Gathered, *, plan: Mapping[str, Any] = NO_PLAN, acknowledged: bool = False,
    resamples: int = 0, seed: int = 0,
) -> dict[str, Any]:
    """What happened, as plain JSON data.

    Parameters
    ----------
    plan : "status" (none, registered or changed), "hash" as registered, "found" now.
    acknowledged : whether the user knows of arms whose sizes do not fit, and goes on.
    resamples : of units, for bootstrap intervals beside the others; 0 for none.

    Raises
    ------
    ConfigError : resamples where every row is a unit.
    """
    config, arms = gathered.config, gathered.arms
    assert config.arms is not None
    units = {a: gathered.tally.units.get(a, 0) for a in arms}
    total = sum(units.values())
    judge = Judge.of(config)
    ratio = sample_ratio(units, config.arms, config.srm_alpha, judge.sequential)
    metrics, readings = [], {}
    for role in ("primary", "secondary", "guardrail"):
        for metric in getattr(config, "guardrails" if role == "guardrail" else role):
            found, readings[metric.name] = judged(
                metric, role, gathered.tally.cells, gathered.tally.missing, arms, judge)
            metrics.append(found)
    by_name = {m.name: m for m in config.metrics}
    for role, how in (("primary", config.corrections.primary),
                      ("secondary", config.corrections.secondary), ("guardrail", "none")):
        family = [(m, e) for m in metrics if m["role"] == role for e in m["effects"]
                  if e["why"] is None]
        ps = corrected([e["p"] for _, e in family], how)
        for (found, made), p in zip(family, ps, strict=True):
            settle(made, by_name[found["name"]], p, config.alpha)
    slices = [
        sliced(metric, readings[metric.name], column, gathered.levels[column],
               gathered.tally.cells, arms[0], arm, judge)
        for metric in config.primary for column in config.slices for arm in arms[1:]
    ]
    settle_slices(slices, config.corrections.slices, config.alpha)
    if resamples:
        resampled(gathered, metrics, readings, resamples, seed)
    now = dt.datetime.now(dt.UTC)
    stopped = blocked(ratio, acknowledged, plan, units)
    verdicts = {a: (stopped or verdict_of(
        config, metrics, a, total, now.date().isoformat())).to_json() for a in arms[1:]}
    return {
        "name": config.name, "hypothesis": config.hypothesis,
        "created": now.isoformat(timespec="seconds"),
        "plan": dict(plan), "control": arms[0],
        "arms": [{"name": a, "units": units[a], "planned": config.arms[a] / sum(
            config.arms.values()), "share": units[a] / total if total else None} for a in arms],
        "units": total, "look": config.look, "alpha": config.alpha,
        "tuning": judge.tuning if judge.sequential else None,
        "horizon": config.horizon.model_dump(mode="json"),
        "srm": {**ratio.to_json(), "acknowledged": acknowledged},
        "rows": {k: v for k, v in gathered.rows.items() if not k.startswith("odd:")},
        "crossovers": {"units": gathered.crossovers, "examples": list(gathered.examples)},
        "several_rows": gathered.several_rows, "metrics": metrics, "slices": slices,
        "corrections": config.corrections.model_dump(mode="json"),
        "bootstrap": {"resamples": resamples, "seed": seed} if resamples else None,
        "remarks": _remarks(gathered, metrics, units), "notes": list(gathered.notes),
        "verdicts": verdicts,
    }


def _remarks(
    gathered: Gathered, metrics: list[dict[str, Any]], units: Mapping[str, int]
) -> list[str]:
    """What casts doubt on the figures, without blocking them."""
    found = []
    everyone = sum(units.values()) + gathered.crossovers
    if gathered.crossovers:
        found.append(
            f"{gathered.crossovers:,} units ({gathered.crossovers / everyone:.2%}) were seen in "
            f"several arms and are left out (such as {', '.join(gathered.examples)})"
            + (": that many point to a fault in the assignment" if
               gathered.crossovers > 0.01 * everyone else ""))
    for metric in metrics:
        gaps = {a: metric["arms"][a]["missing"] for a in units}
        p = _independent(gaps, units)
        if p is not None and p < 0.001:
            shares = ", ".join(f"{g / units[a]:.2%} in {a}" for a, g in gaps.items())
            found.append(f"{metric['name']} is missing for unequal shares of units ({shares}, "
                         f"p = {p:.2g}): those that have it may not be comparable")
    return found


def _independent(gaps: Mapping[str, int], units: Mapping[str, int]) -> float | None:
    """p of "as many are missing in every arm"; None where too few are to tell."""
    share = sum(gaps.values()) / max(1, sum(units.values()))
    expected = {a: share * n for a, n in units.items()}
    if not 0 < share < 1 or min(expected.values()) < 5:
        return None
    statistic = sum((gaps[a] - e) ** 2 / (e * (1 - share)) for a, e in expected.items())
    return chi2_tail(statistic, len(units) - 1)
