"""Plan, assign, analyse: each a few calls into this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpupipe.config import EngineConfig
from gpupipe.errors import ConfigError
from gpupipe.experiment.analyse import NO_PLAN
from gpupipe.experiment.analyse import analyse as analysed
from gpupipe.experiment.assign import assign
from gpupipe.experiment.config import ExperimentConfig, configured
from gpupipe.experiment.deal import deal
from gpupipe.experiment.gather import gather, gather_past
from gpupipe.experiment.judge import LEAST_OF_MEANS
from gpupipe.experiment.page import write_page
from gpupipe.experiment.plan import bases, load_experiment, register, sized
from gpupipe.experiment.power import (
    Design,
    detectable,
    detectable_share,
    sequential_size,
    size_of_means,
    size_of_proportions,
)


def plan(
    file: Path | None = None, data: object = None, output: Path | None = None, *,
    per_day: float | None = None, quick: Mapping[str, Any] | None = None, progress: Any = None,
) -> dict[str, Any]:
    """How many units an experiment takes; with ``output`` the plan is registered there.

    Parameters
    ----------
    file : the experiment's file; None for ``quick``, which has "baseline", "effect", "deviation",
        "units", "share", "alpha", "power" and "sequential".
    data : a table of the past, from which baselines and variances come.
    """
    quick = quick or {}
    asked = [k for k in ("baseline", "effect", "deviation", "units") if quick.get(k) is not None]
    if file is None:
        if data is not None or output is not None:
            raise ConfigError("--data and --output need the experiment's file",
                              hint="gpupipe experiment plan new-ranker.yaml --data past.parquet")
        return _quick(quick)
    if asked:
        raise ConfigError(f"--{asked[0]} is for a plan without a file",
                          hint="write effect, baseline and deviation beside the metric in the file")
    config, known = load_experiment(file)
    if known["status"] != "none":
        raise ConfigError("this plan is registered already", where=str(file),
                          hint="plan from the experiment's own file")
    past = None
    if data is not None:
        config, past = gather_past(config, data, progress=progress)
    config, sizes = sized(config, bases(config, past), per_day)
    registered = None if output is None else register(config, sizes, output)
    return {"name": config.name, "look": config.look, "alpha": config.alpha,
            "power": config.power, "tuning": config.tuning, **sizes,
            "hash": None if registered is None else registered["hash"],
            "output": None if output is None else str(output)}


def _quick(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Two arms and one metric, from its baseline and the effect, or from units alone."""
    baseline, effect, deviation = (asked.get(k) for k in ("baseline", "effect", "deviation"))
    units, share = asked.get("units"), asked.get("share", 0.5)
    if (effect is None) == (units is None) or (baseline is None and deviation is None):
        raise ConfigError(
            "a plan needs an experiment's file, or a baseline and an effect",
            hint="gpupipe experiment plan --baseline 0.10 --effect 0.01 (a share), or with "
            "--deviation (a mean), or --units 30000 instead of the effect: what can be found",
        )
    if deviation is not None and not deviation > 0:
        raise ConfigError(f"a standard deviation is above 0, and not {deviation}")
    if units is not None and units < 2 * LEAST_OF_MEANS:
        raise ConfigError(f"with {units} units nothing is told", hint=f"it takes "
                          f"{2 * LEAST_OF_MEANS} at the very least")
    if not 0 < share < 1:
        raise ConfigError(f"the treatment's share has to lie between 0 and 1, and is {share}")
    design = Design(asked.get("alpha", 0.05), asked.get("power", 0.8), share / (1 - share))
    found: dict[str, Any] = {
        "baseline": baseline, "effect": effect, "deviation": deviation, "share": share,
        "alpha": design.alpha, "power": design.power, "control_units": None,
        "treatment_units": None, "units": units, "maximal_units": None, "expected_units": None,
        "detectable": None,
    }
    if deviation is None and not 0 < (baseline or 0) < 1:
        raise ConfigError(f"a share lies between 0 and 1, and the baseline is {baseline}",
                          hint="for a mean give --deviation, too")
    if units is not None:
        n = units * (1 - share)
        least = detectable_share(baseline, n, design) if deviation is None and baseline else (
            detectable((deviation or 0) ** 2, n, design))
        return {**found, "detectable": least}
    assert effect is not None
    if deviation is None and baseline is not None:
        n = size_of_proportions(baseline, baseline + effect, design)
    else:
        n = size_of_means(effect, (deviation or 0) ** 2, design)
    found |= {"control_units": n, "treatment_units": n * design.ratio,
              "units": n * (1 + design.ratio)}
    if asked.get("sequential"):
        variance = effect**2 * n / (design.errors**2 * (1 + 1 / design.ratio))
        size = sequential_size(effect, variance, design)
        found |= {"maximal_units": size.maximal, "expected_units": size.expected}
    return found


def assign_units(
    file: Path, source: object = None, ids: Sequence[str] = (), output: Path = Path("arms.parquet"),
    progress: Any = None,
) -> dict[str, Any]:
    """The arms of some ``ids``, or of all rows of a table, which are written to ``output``."""
    config, _ = load_experiment(file)
    split = config.split()
    if (source is None) == (not ids):
        raise ConfigError("whose arm? give a table, or --id", where=str(file),
                          hint="gpupipe experiment assign plan.json users.parquet")
    if source is None:
        units = [{"unit": u, "arm": a.arm, "why": a.why} for u in ids for a in [assign(u, split)]]
        return {"name": config.name, "units": units}
    if config.unit is None:
        raise ConfigError("the plan does not name the unit's column", where=str(file),
                          hint="unit: user_id")
    return {"name": config.name, **deal(split, source, config.unit, output, progress)}


def analyse(
    source: object, plan: Path | None = None, *, given: Mapping[str, Any] | None = None,
    outcomes: object = None, on: str | None = None, before: object = None,
    acknowledged: bool = False,
    resamples: int = 0, seed: int = 0, page: Path | None = None,
    engine: EngineConfig | None = None, progress: Any = None,
) -> dict[str, Any]:
    """What an experiment found (see `analyse.analyse`), and whether that is "blocked".

    Parameters
    ----------
    plan : a registered plan or an experiment's file; None for ``given``, which has "unit", "arm",
        "control", "shares", "metrics", "guardrails", "covariate", "slices", "sequential" and
        "alpha".
    outcomes, on, before : other tables, see `gather.gather`.
    page : the HTML page to write, whole or not at all.
    """
    given = {k: v for k, v in (given or {}).items() if v}
    if plan is not None and given:
        raise ConfigError(f"the plan says what --{_option(next(iter(given)))} would say",
                          hint="leave it out, or leave out --plan")
    if page is not None and not page.absolute().parent.is_dir():
        raise ConfigError("there is no such folder", where=str(page.parent))
    config, known = load_experiment(plan) if plan is not None else (_given(given), dict(NO_PLAN))
    found = analysed(
        gather(config, source, outcomes=outcomes, on=on, before=before, engine=engine,
               progress=progress),
        plan=known, acknowledged=acknowledged, resamples=resamples, seed=seed,
    )
    found["blocked"] = any(v["state"] == "blocked" for v in found["verdicts"].values())
    if page is not None:
        write_page(found, page)
    return found


def _option(name: str) -> str:
    return {"metrics": "metric", "guardrails": "guardrail", "slices": "slice",
            "shares": "share"}.get(name, name)


def _given(given: Mapping[str, Any]) -> ExperimentConfig:
    """An experiment from options alone."""
    metrics = list(given.get("metrics", ()))
    if not metrics:
        raise ConfigError("which metric decides?",
                          hint="--metric COLUMN, or a plan: --plan plan.json")

    def metric(name: str, **more: Any) -> dict[str, Any]:
        covariate = given.get("covariate")
        return {"name": name, **({"covariate": covariate} if covariate else {}), **more}

    guardrails = [
        metric(name if name not in metrics else f"{name}, guardrail", column=name,
               relative_margin=margin)
        for name, margin in _pairs("guardrail", given.get("guardrails", ()), "sessions=0.02 rules "
                                   "a loss of 2 % out")
    ]
    arms = dict(_pairs("share", given.get("shares", ()), "champion=0.9 and challenger=0.1"))
    raw = {
        "name": _name(metrics[0]), "primary": [metric(metrics[0])],
        "secondary": [metric(m) for m in metrics[1:]], "guardrails": guardrails,
        "look": "sequential" if given.get("sequential") else "fixed",
        **{k: given[k] for k in ("unit", "arm", "control", "alpha") if k in given},
        **({"slices": list(given["slices"])} if "slices" in given else {}),
        **({"arms": arms} if arms else {}),
    }
    return configured(raw)


def _pairs(option: str, texts: Sequence[str], example: str) -> list[tuple[str, float]]:
    """NAME=SHARE as pairs. ConfigError where one is none."""
    made = []
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            share = float(number)
        except ValueError:
            share = -1.0
        if not name or not 0 < share < 1:
            raise ConfigError(f"--{option} {text!r} is no name with a share",
                              hint=f"--{option} {example}")
        made.append((name, share))
    return made


def _name(metric: str) -> str:
    """A name for an experiment that has none: its first metric's, as far as a name may be so."""
    import re

    return re.sub(r"[^\w .-]", "_", f"effect on {metric}")[:80]
