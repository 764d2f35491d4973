"""Which columns an experiment reads, and what its arms and metrics are as the data have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpupipe.data.dataset import Dataset
from gpupipe.data.schema import Schema
from gpupipe.errors import ConfigError, DataError, did_you_mean
from gpupipe.experiment.config import ExperimentConfig, MetricConfig, level_text
from gpupipe.experiment.scan import MISSING, Scanned, Wanted
from gpupipe.experiment.sources import LOG

BEFORE = "before:"
"""What a covariate's name begins with where it stands in the table of the time before."""
CONTROLS = ("control", "champion", "baseline")
"""The arm that the others are held against, where nothing is said; else the first by name."""


def named(config: ExperimentConfig, on: str | None = None) -> set[str]:
    """All columns that an experiment names, in whatever table they stand."""
    columns = {c for m in config.metrics for c in m.columns()}
    return columns | {config.arm, *config.slices, *config.where} | {
        c for c in (config.unit, on) if c is not None}


def as_log(config: ExperimentConfig, schema: Schema) -> tuple[ExperimentConfig, tuple[str, ...]]:
    """Where the table is a prediction log, its own columns, and no shadow predictions."""
    if not all(name in schema for name in LOG):
        return config, ()
    changes: dict[str, Any] = {}
    if config.unit is None:
        changes["unit"] = "unit_id"
    if "shadow" not in config.where:
        changes["where"] = {**config.where, "shadow": False}
    made = config.model_copy(update=changes)
    what = "a prediction log: its unit is unit_id, shadow predictions do not count"
    return made, (what,) if changes else ()


def columns_of(
    config: ExperimentConfig, table: Dataset, other: Dataset | None, on: str | None,
    arm: bool = True,
) -> tuple[Wanted, Wanted | None, str]:
    """What to read of the table and of the outcomes, and the key that joins them."""
    schema = table.schema
    named = [("unit", config.unit), *([("arm", config.arm)] if arm else ()),
             *(("slices", s) for s in config.slices),
             *(("where", w) for w in config.where)]
    for key, name in named:
        if name is not None and name not in schema:
            raise _no_column(config, key, name, schema, table.source)
    key = on or config.unit or ""
    mine, theirs = [], []
    for metric in config.metrics:
        if config.unit is None and (metric.denominator == "rows" or metric.aggregate != "auto"):
            raise ConfigError(f"{metric.name!r} is of several rows of a unit, and each row is one",
                              hint="name the column of the unit: unit: user_id")
        for name in metric.columns():
            if name.startswith(BEFORE):
                continue
            if name in schema and (other is None or name == key or name not in other.schema):
                _numeric(name, schema, table.source)
                mine.append(name)
            elif other is not None and name in other.schema:
                if name in schema:
                    raise ConfigError(
                        f"both tables have a column {name!r}", where=other.source,
                        hint="rename or drop one of them: which is meant cannot be told",
                    )
                _numeric(name, other.schema, other.source)
                theirs.append(name)
            else:
                raise _no_column(config, f"metric {metric.name!r}", name, schema, table.source)
    arms = None if config.arms is None else tuple(config.arms)
    where = {c: level_text(v) for c, v in config.where.items()}
    wanted = Wanted(config.unit, config.arm if arm else None, arms, tuple(config.slices),
                    tuple(dict.fromkeys(mine)), where, _extremes(config), tuple(config.metrics))
    if other is None:
        return wanted, None, key
    for of in (table, other):
        if not key or key not in of.schema:
            raise ConfigError(
                f"the column {key!r} that names a row of the outcomes is not there"
                if key else "which column names a row of the outcomes in both tables?",
                where=of.source, hint="--on prediction_id, or name the unit",
            )
    values = tuple(dict.fromkeys(theirs))
    extremes = _extremes(config) if key == config.unit else values
    return wanted, Wanted(key, None, None, (), values, {}, extremes), key


def with_before(
    config: ExperimentConfig, before: Dataset
) -> tuple[ExperimentConfig, Wanted]:
    """Covariates as columns of the table of the time before, and what to read of it.

    ConfigError where it has no column of the unit or of a covariate.
    """
    past, _ = as_log(config, before.schema)
    if config.unit is None or config.unit not in before.schema:
        raise ConfigError(
            f"the unit's column {config.unit!r} is not in the table of the time before"
            if config.unit else "covariates from another table are found by the unit",
            where=before.source, hint="name the column that both tables have: unit: user_id",
        )
    values: list[str] = []

    def moved(metric: MetricConfig) -> MetricConfig:
        changes = {}
        for key in ("covariate", "covariate_denominator"):
            name = getattr(metric, key)
            if name is None:
                continue
            if name not in before.schema:
                raise _no_column(config, f"metric {metric.name!r}", name, before.schema,
                                 before.source)
            _numeric(name, before.schema, before.source)
            values.append(name)
            changes[key] = BEFORE + name
        return metric.model_copy(update=changes)

    made = config.model_copy(update={
        k: [moved(m) for m in getattr(config, k)] for k in ("primary", "secondary", "guardrails")
    })
    if not values:
        raise ConfigError("there is a table of the time before, and no metric has a covariate",
                          where=before.source, hint="covariate: score")
    where = {c: level_text(v) for c, v in past.where.items() if c in before.schema}
    return made, Wanted(config.unit, None, None, (), tuple(dict.fromkeys(values)), where)


def _extremes(config: ExperimentConfig) -> tuple[str, ...]:
    """The columns whose least or greatest value may be a unit's own."""
    return tuple(m.source for m in config.metrics if m.aggregate in ("auto", "max", "min"))


def _no_column(
    config: ExperimentConfig, key: str, name: str, schema: Schema, source: str
) -> ConfigError:
    near = did_you_mean(name, schema.names)
    hint = f"did you mean {near!r}?" if near else f"the columns are {', '.join(schema.names)}"
    return ConfigError(f"{key}: there is no column {name!r}", where=source, hint=hint)


def _numeric(name: str, schema: Schema, source: str) -> None:
    dtype = schema[name].dtype
    if dtype in ("string", "timestamp"):
        what = "text" if dtype == "string" else "points in time"
        raise DataError(
            f"column {name!r} holds {what}, and a metric needs numbers, or true and false",
            where=source, hint="write yes and no as 1 and 0, or name another column",
        )


def resolved(
    config: ExperimentConfig, found: Scanned, odd: Mapping[str, int]
) -> ExperimentConfig:
    """The arms and the kinds of metrics as the data have them."""
    there = sorted(set(found.texts.get(config.arm, {}).values()) - {MISSING})
    if config.unit is None:
        there = sorted(a for a, n in found.tally.units.items() if n)
    left = {k: v for k, v in found.counts.items() if not k.startswith("odd:")}
    if config.arms is not None:
        absent = [a for a in config.arms if a not in there]
        if absent:
            raise DataError(
                f"no row is in arm {absent[0]!r}; in {config.arm!r} there are "
                f"{', '.join(there) or 'none of the arms'}", hint=f"rows: {counted(left)}",
            )
        arms = dict(config.arms)
    elif len(there) < 2:
        raise DataError(
            f"an experiment has two arms or more, and in {config.arm!r} there is "
            f"{'only ' + there[0] if there else 'none'}", hint=f"rows: {counted(left)}",
        )
    else:
        there.sort(key=lambda a: a.casefold() not in CONTROLS)
        arms = dict.fromkeys(there, 1 / len(there))
    control = config.control or next(iter(arms))
    if control not in arms:
        near = did_you_mean(control, list(arms))
        raise ConfigError(f"the control {control!r} is none of the arms",
                          hint=f"did you mean {near!r}?" if near else
                          f"the arms are {', '.join(arms)}")

    return with_kinds(config.model_copy(update={"arms": arms, "control": control}), odd)


def with_kinds(config: ExperimentConfig, odd: Mapping[str, int]) -> ExperimentConfig:
    """Every metric that is "auto" as what its values are.

    ``odd`` has "odd:COLUMN" -> values other than 0 and 1. DataError where a proportion has any.
    """
    def of_kind(metric: MetricConfig) -> MetricConfig:
        strange = odd.get(f"odd:{metric.source}", 0)
        if metric.kind == "proportion" and strange:
            raise DataError(
                f"{metric.name!r} is to be a proportion, and {strange:,} values of "
                f"{metric.source!r} are neither 0 nor 1", hint="kind: mean",
            )
        if metric.kind != "auto":
            return metric
        plain = not strange and metric.aggregate in ("auto", "max", "min")
        return metric.model_copy(update={"kind": "proportion" if plain else "mean"})

    return config.model_copy(update={
        k: [of_kind(m) for m in getattr(config, k)] for k in ("primary", "secondary", "guardrails")
    })


def counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {'in all' if what == 'rows' else what}"
                     for what, n in counts.items())
