"""What an experiment's figures come to: can they be trusted, what happened, what next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gpupipe.experiment.config import ExperimentConfig
from gpupipe.experiment.corrections import SampleRatio
from gpupipe.experiment.judge import INSUFFICIENT

State = Literal[
    "blocked", "insufficient data", "too early", "better", "worse", "guardrail broken",
    "guardrail open", "no effect that matters", "no difference shown",
]


@dataclass(frozen=True)
class Verdict:
    """A state in a word or two, a sentence, why, and what to do next."""

    state: State
    sentence: str
    why: tuple[str, ...]
    next: str

    @property
    def blocks(self) -> bool:
        """Whether the figures may not be used to decide."""
        return self.state == "blocked"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "why": list(self.why)}


def blocked(
    ratio: SampleRatio, acknowledged: bool, plan: Mapping[str, Any], units: Mapping[str, int]
) -> Verdict | None:
    """The verdict where the figures may not be trusted; None where they may."""
    why = []
    if ratio.ok is False and not acknowledged:
        total = sum(units.values())
        sizes = ", ".join(f"{n:,} ({n / total:.2%}) in {a}" for a, n in units.items())
        why.append(f"The arms' sizes do not fit their planned shares: {sizes}; by chance such a "
                   f"gap or a greater one comes about with p = {ratio.p:.2g}, below "
                   f"{ratio.alpha:g}.")
    if plan["status"] == "changed":
        why.append(f"The plan was changed after it was registered: it was {plan['hash'][:12]} "
                   f"and is {plan['found'][:12]} now.")
    if not why:
        return None
    return Verdict(
        "blocked", "The figures cannot be trusted yet, so there is no verdict.", tuple(why),
        "Find out why units are missing in an arm: assignment, redirects, logging, bots or a "
        "filter that the treatment acts on. If the cause cannot bias the metrics, acknowledge it "
        "(--acknowledge-srm)." if ratio.ok is False and not acknowledged else
        "Restore the plan as it was registered, or register the new one and collect new data.",
    )


def verdict_of(
    config: ExperimentConfig, metrics: Sequence[Mapping[str, Any]], arm: str, units: int,
    today: str,
) -> Verdict:
    """What the metrics come to for one arm; ``today`` as 2026-11-30."""
    mine = [(m, next(e for e in m["effects"] if e["arm"] == arm)) for m in metrics]
    primary = [(m, e) for m, e in mine if m["role"] == "primary"]
    guards = [(m, e) for m, e in mine if m["role"] == "guardrail"]
    lacking = [(m, e) for m, e in primary if e["state"] == INSUFFICIENT]
    if lacking:
        return Verdict(
            "insufficient data", f"There are not enough data to judge {arm}.",
            tuple(f"{m['name']}: {e['why']}." for m, e in lacking),
            "Go on collecting, and look again.",
        )
    early = _early(config, units, today)
    if early is not None:
        return Verdict(
            "too early", f"It is too early: {early}.",
            ("A test with a fixed horizon that is read before its end finds effects that are not "
             "there.",), "Wait for the end; to look earlier, plan `look: sequential`.",
        )
    said = tuple(_said(m, e, config) for m, e in primary)
    shown = {m["name"]: (e.get("non_inferiority") or {}).get("state") for m, e in guards}
    broken = [name for name, state in shown.items() if state == "broken"]
    if broken:
        names = ", ".join(broken)
        return Verdict("guardrail broken", f"{arm} breaks a guardrail: {names}.", said,
                       f"Do not ship {arm} as it is.")
    if any(e["state"] == "worse" for _, e in primary):
        return Verdict("worse", f"{arm} is worse than {config.control}.", said,
                       f"Keep {config.control}.")
    if any(e["state"] == "better" for _, e in primary):
        unsure = [name for name, state in shown.items() if state != "holds"]
        if unsure:
            return Verdict(
                "guardrail open",
                f"{arm} is better than {config.control}, but a loss on {', '.join(unsure)} is not "
                "ruled out yet.", said, "Go on until the guardrails are settled.",
            )
        return Verdict("better", f"{arm} is better than {config.control}.", said, f"Ship {arm}.")
    if all(_too_small(m, e, config) for m, e in primary):
        return Verdict(
            "no effect that matters",
            f"If {arm} is better at all, then by less than what would matter.", said,
            f"Keep {config.control}, or choose {arm} on other grounds.",
        )
    return Verdict(
        "no difference shown", f"{arm} is not told apart from {config.control}.", said,
        "That is no proof that they are alike: the interval says which effects are still possible. "
        "Collect more, reduce the variance (covariate), or stop here.",
    )


def _early(config: ExperimentConfig, units: int, today: str) -> str | None:
    """What a fixed horizon still waits for; None where it is reached."""
    if config.look == "sequential":
        return None
    if config.horizon.units is not None and units < config.horizon.units:
        return f"{units:,} of the {config.horizon.units:,} planned units are here"
    if config.horizon.until is not None and today < config.horizon.until:
        return f"it runs until {config.horizon.until}"
    return None


def _said(metric: Mapping[str, Any], effect: Mapping[str, Any], config: ExperimentConfig) -> str:
    """One metric's find in a sentence."""
    change = effect["relative"] or effect["difference"]
    write = percent if effect["relative"] else signed
    level = f"{100 * (1 - config.alpha):g}%"
    return (f"{metric['name']}: {write(change['value'])} ({level} interval {write(change['low'])} "
            f"to {write(change['high'])}, p = {effect['p_corrected']:.2g}): {effect['state']}.")


def percent(value: float) -> str:
    """A relative effect: +3.1%."""
    text = f"{100 * value:+.2f}%"
    return "0.00%" if text in ("-0.00%", "+0.00%") else text.replace("-", "−")


def signed(value: float) -> str:
    """A difference: +0.0031."""
    return f"{value:+.4g}".replace("-", "−")


def _too_small(
    metric: Mapping[str, Any], effect: Mapping[str, Any], config: ExperimentConfig
) -> bool:
    """Whether the least effect that would matter, for the better, is ruled out."""
    planned = next(m for m in config.primary if m.name == metric["name"])
    up = planned.better == "higher"
    if planned.effect is not None:
        change, bound = effect["difference"], planned.effect
    elif planned.relative_effect is not None and effect["relative"]:
        change, bound = effect["relative"], planned.relative_effect
    else:
        return False
    return (change["high"] < bound) if up else (-change["low"] < bound)
