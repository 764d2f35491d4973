"""The plan: how many units it takes, and a file that says what is to be believed, with a hash."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpupipe.checkpoints import temporary_name
from gpupipe.config.source import read
from gpupipe.errors import ConfigError
from gpupipe.experiment.cells import EVERYONE, Reading, Tally
from gpupipe.experiment.config import ExperimentConfig, MetricConfig, configured
from gpupipe.experiment.power import (
    Design,
    detectable,
    detectable_share,
    sequential_size,
    size_of_means,
    size_of_proportions,
)

FORMAT = "gpupipe-experiment-plan/1"


def load_experiment(path: Path) -> tuple[ExperimentConfig, dict[str, Any]]:
    """An experiment's file, or a registered plan, and what is known of the plan.

    Returns
    -------
    config : what the file says.
    plan : "status" (none: it was never registered; registered; changed), "hash" as registered,
        "found" now, and "registered", when.
    """
    raw, origin = read(Path(path))
    if not str(raw.get("format", "")).startswith("gpupipe-experiment-plan/"):
        config = configured(raw, origin)
        return config, {"status": "none", "hash": None, "found": None, "registered": None}
    if raw["format"] != FORMAT or not isinstance(raw.get("plan"), dict):
        raise ConfigError(f"expected a plan of the format {FORMAT}, found {raw['format']!r}",
                          where=str(path), hint="`gpupipe experiment plan` writes one")
    said, found = str(raw.get("hash")), plan_hash(raw["plan"])
    config = configured(raw["plan"])
    return config, {"status": "registered" if said == found else "changed", "hash": said,
                    "found": found, "registered": raw.get("registered")}


def plan_hash(plan: Mapping[str, Any]) -> str:
    """SHA-256 of the plan in canonical JSON: keys in order, no blanks, UTF-8."""
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def register(config: ExperimentConfig, sizes: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Write the plan to ``path`` (.json, .yaml or .yml), whole or not at all; what was written.

    ConfigError where it is there already: a plan is registered once.
    """
    path = Path(path)
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise ConfigError("a plan is written as .json or .yaml", where=str(path))
    if path.exists():
        raise ConfigError("this plan is there already", where=str(path),
                          hint="a plan is registered once: give a changed one another name")
    if not path.absolute().parent.is_dir():
        raise ConfigError("there is no such folder", where=str(path.parent))
    plan = config.model_dump(mode="json")
    made = {"format": FORMAT, "hash": plan_hash(plan),
            "registered": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "plan": plan, "sizes": dict(sizes)}
    text = json.dumps(made, indent=2, ensure_ascii=False) + "\n" if path.suffix == ".json" else (
        yaml.safe_dump(made, sort_keys=False, allow_unicode=True))
    temporary = temporary_name(path.absolute())
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return made


@dataclass(frozen=True)
class Basis:
    """What a metric is without the experiment: its value, a unit's variance, and from where.

    ``reduction`` is the share of the variance that the covariate takes away.
    """

    value: float
    variance: float
    units: int | None = None
    reduction: float = 0.0


def bases(config: ExperimentConfig, past: Tally | None) -> dict[str, Basis]:
    """What is known of the metrics: from the past, or else from the file itself."""
    found: dict[str, Basis] = {}
    for metric in config.metrics:
        sums = None if past is None else past.cells.get((metric.name, *EVERYONE, ""))
        if sums is not None and sums.n > 1:
            reading = Reading.of(metric, sums)
            plain, estimate = reading.plain(sums), reading.estimate(sums)
            reduction = 1 - estimate.variance / plain.variance if plain.variance > 0 else 0.0
            found[metric.name] = Basis(plain.value, estimate.variance, sums.n, reduction)
        elif metric.baseline is not None:
            if metric.deviation is not None:
                found[metric.name] = Basis(metric.baseline, metric.deviation**2)
            elif metric.kind in ("proportion", "auto") and 0 < metric.baseline < 1:
                found[metric.name] = Basis(metric.baseline, metric.baseline * (1 - metric.baseline))
    return found


def sized(
    config: ExperimentConfig, known: Mapping[str, Basis], per_day: float | None = None
) -> tuple[ExperimentConfig, dict[str, Any]]:
    """The plan with its horizon filled in, and the sizes behind it, as plain data.

    Of several primary metrics or arms each is planned at alpha divided by their number where they
    are corrected (Bonferroni's bound: Holm needs no more). Guardrails are planned so that each
    is shown to hold where there is no loss.
    """
    if config.arms is None:
        raise ConfigError("a plan names its arms", hint="arms: {control: 0.5, treatment: 0.5}")
    control = config.control or next(iter(config.arms))
    treatments = [a for a in config.arms if a != control]
    family = len(config.primary) * len(treatments) if config.corrections.primary != "none" else 1
    rows: list[dict[str, Any]] = []
    for role, metrics in (("primary", config.primary), ("guardrail", config.guardrails)):
        alpha = config.alpha / family if role == "primary" else config.alpha
        for metric in metrics:
            for arm in treatments:
                shares = config.arms[control], config.arms[arm]
                rows.append({"metric": metric.name, "role": role, "arm": arm, **_size(
                    metric, role, known.get(metric.name), shares,
                    Design(alpha, config.power, shares[1] / shares[0]), config)})
    totals = [r["units"] for r in rows if r["units"] is not None]
    units = config.horizon.units or (max(totals) if totals else None)
    changes: dict[str, Any] = {"control": control}
    if units is not None:
        changes["horizon"] = config.horizon.model_copy(update={"units": units})
    if config.look == "sequential" and config.tuning is None:
        # The sequence counts the units of the two arms that it compares.
        fixed = [r["fixed_units"] * (config.arms[control] + config.arms[r["arm"]])
                 for r in rows if r["fixed_units"] is not None]
        changes["tuning"] = float(round(max(fixed))) if fixed else None
    days = None
    if per_day is not None and units is not None:
        taken = per_day * config.exposure
        if not taken > 0:
            raise ConfigError("no unit comes in a day", hint="--per-day and exposure are above 0")
        days = math.ceil(units / taken)
    for row, metric in zip(rows, [m for ms in (config.primary, config.guardrails)
                                  for m in ms for _ in treatments], strict=True):
        row["detectable"] = _detectable(row, metric, units, config, control)
    return config.model_copy(update=changes), {
        "units": units, "days": days, "family": family, "metrics": rows,
        "given": config.horizon.units is not None,
    }


def _size(
    metric: MetricConfig, role: str, basis: Basis | None, shares: tuple[float, float],
    design: Design, config: ExperimentConfig,
) -> dict[str, Any]:
    """The units of all arms that one metric takes in one arm, or why that is not known."""
    found: dict[str, Any] = {
        "effect": None, "units": None, "fixed_units": None, "expected_units": None, "why": None,
        "alpha": design.alpha, "baseline": None if basis is None else basis.value,
        "deviation": None if basis is None else math.sqrt(basis.variance),
        "variance_reduction": None if basis is None else basis.reduction,
    }
    if basis is None:
        return {**found, "why": "its variance is not known: give data, or baseline and deviation"}
    absolute, share = (metric.effect, metric.relative_effect) if role == "primary" else (
        metric.margin, metric.relative_margin)
    effect = absolute if absolute is not None else None if share is None else (
        share * abs(basis.value))
    if not effect:
        return {**found, "why": "no effect is given: effect or relative_effect"
                if share is None else "its baseline is 0, and the effect is a share of it"}
    signed = effect if (metric.better == "higher") == (role == "primary") else -effect
    plain_share = metric.kind == "proportion" and not basis.reduction and role == "primary"
    if plain_share:
        n = size_of_proportions(basis.value, basis.value + signed, design)
    else:
        slope = 1.0
        if role == "guardrail" and share is not None:
            sign = 1 if metric.better == "higher" else -1
            slope = -sign + share * math.copysign(1.0, basis.value)
        n = size_of_means(effect, slope**2 * basis.variance, design, treated=basis.variance)
    # ``n`` is the control's: by its share that makes the units of all arms.
    fixed = n / shares[0]
    found |= {"effect": signed, "fixed_units": math.ceil(fixed), "units": math.ceil(fixed)}
    if config.look == "sequential":
        # Cohen's h has variance 1: what the fixed size says of effect over deviation.
        pair = n * (1 + design.ratio)
        variance = effect**2 * n / (design.errors**2 * (1 + 1 / design.ratio))
        size = sequential_size(effect, variance, design, config.tuning or pair)
        scale = 1 / (shares[0] + shares[1])
        found |= {"units": math.ceil(size.maximal * scale),
                  "expected_units": math.ceil(size.expected * scale)}
    return found


def _detectable(
    row: Mapping[str, Any], metric: MetricConfig, units: int | None, config: ExperimentConfig,
    control: str,
) -> float | None:
    """The least effect that is found with the planned units, at the end, once."""
    if units is None or row["deviation"] is None or config.arms is None:
        return None
    shares = config.arms[control], config.arms[row["arm"]]
    design = Design(row["alpha"], config.power, shares[1] / shares[0])
    n = units * shares[0]
    if metric.kind == "proportion" and not row["variance_reduction"]:
        found = detectable_share(row["baseline"], n, design)
        return found if math.isfinite(found) else None
    return detectable(row["deviation"] ** 2, n, design)


