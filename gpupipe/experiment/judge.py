"""One metric in one arm against the control: the effect, how sure, and what it means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpupipe.experiment.cells import EVERYONE, Cell, Reading
from gpupipe.experiment.config import ExperimentConfig, MetricConfig
from gpupipe.experiment.distributions import t_tail
from gpupipe.experiment.effects import (
    Estimate,
    critical,
    difference,
    fieller,
    relative,
    welch_df,
)
from gpupipe.experiment.sequential import LEAST_UNITS, always_valid_errors, always_valid_p
from gpupipe.experiment.sums import Sums

LEAST_OF_MEANS = 30
"""Units an arm below which a mean's distribution is not taken to be normal."""
LEAST_OF_SHARES = 5
"""Successes and failures an arm below which a share's is not."""
TUNING = 5_000
"""Units at which sequences are tightest where neither a tuning nor a horizon is given."""
INSUFFICIENT = "insufficient data"


@dataclass(frozen=True)
class Judge:
    """What effects are judged by.

    Attributes
    ----------
    alpha : two-sided.
    sequential : whether intervals and p-values hold at every look.
    tuning : the units of control and treatment at which they are tightest then.
    """

    alpha: float
    sequential: bool
    tuning: float

    @classmethod
    def of(cls, config: ExperimentConfig) -> Judge:
        """By the experiment's file alone: a tuning that went by the units of today would be
        another one at each look, and the sequence would hold no more."""
        of_two = (config.horizon.units or 0) * 2 / len(config.arms or (0, 0))
        tuning = config.tuning or of_two or TUNING
        return cls(config.alpha, config.look == "sequential", float(tuning))

    def errors(self, control: Estimate, treatment: Estimate) -> float:
        """Half an interval's width in standard errors."""
        if self.sequential:
            return always_valid_errors(control.n + treatment.n, self.alpha, self.tuning)
        return critical(control, treatment, self.alpha)


def lacking(metric: MetricConfig, arms: Mapping[str, Estimate], judge: Judge) -> str | None:
    """Why two arms cannot be judged yet; None where they can."""
    least = LEAST_UNITS if judge.sequential else LEAST_OF_MEANS
    for name, arm in arms.items():
        if arm.n < least:
            return f"{arm.n:,} units in {name}, and it takes {least:,}"
        if not (math.isfinite(arm.value) and math.isfinite(arm.variance)):
            return f"the metric has no value in {name}"
        if arm.proportion:
            successes = round(arm.value * arm.n)
            if min(successes, arm.n - successes) < LEAST_OF_SHARES:
                return (f"{successes:,} of {arm.n:,} units in {name}: it takes {LEAST_OF_SHARES} "
                        "with and without")
    if not any(arm.variance > 0 for arm in arms.values()):
        return "the metric is the same for all units"
    return None


def effect(
    metric: MetricConfig, control: Estimate, treatment: Estimate, judge: Judge
) -> dict[str, Any]:
    """Treatment against control as plain data: difference, relative effect, p-value.

    ``relative`` is the difference over the control's size, with an interval by the delta method,
    and ``fieller`` the same by Fieller's theorem; None where the control cannot be told from 0.
    """
    fixed = difference(control, treatment, judge.alpha)
    errors = judge.errors(control, treatment)
    squared = control.squared_error + treatment.squared_error
    low, high, p = fixed.low, fixed.high, fixed.p
    if judge.sequential:
        half = errors * math.sqrt(squared)
        low, high = fixed.value - half, fixed.value + half
        n = control.n + treatment.n
        p = always_valid_p(fixed.value / math.sqrt(squared), n, judge.alpha, judge.tuning)
    found: dict[str, Any] = {
        "difference": {"value": fixed.value, "low": low, "high": high},
        "standard_error": math.sqrt(squared), "statistic": fixed.statistic,
        "df": fixed.df if math.isfinite(fixed.df) else None, "p": p,
        "relative": None, "fieller": None, "fixed": None,
    }
    if judge.sequential:
        found["fixed"] = {"low": fixed.low, "high": fixed.high, "p": fixed.p}
    ends = fieller(control, treatment, errors)
    if ends is not None:
        delta = relative(control, treatment)
        half = errors * math.sqrt(delta.squared_error)
        # Of the control's size: a rise is positive where the control is negative, too.
        sign = math.copysign(1.0, control.value)
        for key, value, low, high in (
            ("relative", delta.value, delta.value - half, delta.value + half),
            ("fieller", delta.value, *ends),
        ):
            low, high = sorted((sign * low, sign * high))
            found[key] = {"value": sign * value, "low": low, "high": high}
    return found


def non_inferiority(
    metric: MetricConfig, control: Estimate, treatment: Estimate, judge: Judge
) -> dict[str, Any]:
    """Whether a loss as great as the margin is ruled out: one-sided at alpha / 2.

    With s = 1 where higher is better, else -1: t = s (treatment - control) + margin, where a
    relative margin is that share of the control's size; so t is linear in both arms, and has an
    exact variance. ``state`` is "holds" where t's interval lies above 0, "broken" where it lies
    below, else "not shown" (ICH E9, section 3.3.2; EMEA, "Choice of the non-inferiority margin",
    2005).
    """
    sign = 1.0 if metric.better == "higher" else -1.0
    slope, margin = -sign, metric.margin
    if margin is None:
        share = metric.relative_margin or 0.0
        slope += share * math.copysign(1.0, control.value)
        margin = share * abs(control.value)
    value = sign * (treatment.value - control.value) + margin
    error = math.sqrt(treatment.squared_error + slope**2 * control.squared_error)
    half = judge.errors(control, treatment) * error
    if judge.sequential:
        n = control.n + treatment.n
        p = always_valid_p(value / error, n, judge.alpha, judge.tuning) if value > 0 else 1.0
    else:
        p = t_tail(value / error, welch_df(control, treatment))
    state = "holds" if value - half > 0 else "broken" if value + half < 0 else "not shown"
    return {"margin": margin, "relative_margin": metric.relative_margin, "p": p, "state": state}


def judged(
    metric: MetricConfig, role: str, cells: Mapping[Cell, Sums], missing: Mapping[Any, int],
    arms: tuple[str, ...], judge: Judge,
) -> tuple[dict[str, Any], Reading]:
    """A metric in all arms, and each against the control, as plain data.

    The control is the first of ``arms``. How sums are read is returned beside, for slices.
    """
    own = {a: cells.get((metric.name, *EVERYONE, a)) for a in arms}
    known = {a: s for a, s in own.items() if s is not None}
    everyone: Sums | None = None
    for sums in known.values():
        everyone = sums if everyone is None else everyone.merge(sums)
    reading = Reading.of(metric, everyone) if everyone is not None else Reading.of(
        metric.model_copy(update={"covariate": None}), Sums.nothing(1))
    estimates = {a: reading.estimate(s) for a, s in known.items() if _readable(metric, s)}
    plain = {a: reading.plain(s) for a, s in known.items() if a in estimates}
    found: dict[str, Any] = {
        "name": metric.name, "role": role, "kind": metric.kind, "better": metric.better,
        "covariate": metric.covariate, "theta": reading.theta if metric.covariate else None,
        "arms": {a: _arm(a, estimates.get(a), known.get(a), missing.get((metric.name, a), 0),
                         judge) for a in arms},
        "effects": [],
    }
    for arm in arms[1:]:
        made: dict[str, Any] = {"arm": arm, "state": INSUFFICIENT, "why": None}
        pair = {a: estimates[a] for a in (arms[0], arm) if a in estimates}
        made["why"] = "the metric has no value in an arm" if len(pair) < 2 else (
            lacking(metric, pair, judge))
        if made["why"] is None:
            control, treatment = pair.values()
            made |= effect(metric, control, treatment, judge)
            if metric.covariate is not None:
                made["cuped"] = _cuped(metric, plain[arms[0]], plain[arm], made, judge)
            if role == "guardrail":
                made["non_inferiority"] = non_inferiority(metric, control, treatment, judge)
        found["effects"].append(made)
    return found, reading


def _readable(metric: MetricConfig, sums: Sums) -> bool:
    """Whether there are variances, and the denominators are not 0."""
    bottom = metric.denominator is None or sums.first[1] != 0
    return sums.n > 1 and bottom


def _arm(
    name: str, estimate: Estimate | None, sums: Sums | None, missing: int, judge: Judge
) -> dict[str, Any]:
    return {
        "units": 0 if sums is None else sums.n, "missing": missing,
        "value": None if estimate is None else estimate.value,
        "deviation": None if estimate is None else math.sqrt(max(0.0, estimate.variance)),
    }


def _cuped(
    metric: MetricConfig, control: Estimate, treatment: Estimate, made: Mapping[str, Any],
    judge: Judge,
) -> dict[str, Any]:
    """The effect without the covariate, and how much of its variance that takes away."""
    before = control.squared_error + treatment.squared_error
    return {"variance_reduction": 1 - made["standard_error"] ** 2 / before if before else 0.0,
            "without": effect(metric, control, treatment, judge)}


def settle(made: dict[str, Any], metric: MetricConfig, p: float, alpha: float) -> None:
    """Say what an effect means, by its corrected p-value: better, worse, or not told apart."""
    made["p_corrected"] = p
    up = made["difference"]["value"] > 0
    made["state"] = "not told apart" if p >= alpha else (
        "better" if up == (metric.better == "higher") else "worse")
