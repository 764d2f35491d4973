"""From tables to an experiment's sums: one pass over the rows, then one over the units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.config import EngineConfig
from gpupipe.console import reading
from gpupipe.data.dataset import Dataset, on_disk
from gpupipe.data.ingest import ingest
from gpupipe.data.reader import Reader
from gpupipe.data.schema import Schema
from gpupipe.engine.base import Engine
from gpupipe.engine.choose import choose
from gpupipe.engine.pandas import PandasFrames
from gpupipe.errors import ConfigError, DataError, did_you_mean
from gpupipe.experiment.cells import Labels, Tally, UnitRows, needed, tally
from gpupipe.experiment.config import ExperimentConfig, MetricConfig, level_text
from gpupipe.experiment.outcomes import Outcomes, places
from gpupipe.experiment.scan import (
    MISSING,
    SEVERAL,
    Scanned,
    Wanted,
    scanned,
    text_hash,
)
from gpupipe.experiment.units import Units

LOG = {"prediction_id": "", "unit_id": "unit", "variant": "arm", "shadow": ""}
"""The columns by which a server's prediction log is known."""
CONTROLS = ("control", "champion", "baseline")
"""The arm that the others are held against, where nothing is said; else the first by name."""
EXAMPLES = 5
_CHUNK = 131_072


@dataclass(frozen=True)
class Gathered:
    """All that an analysis is made of.

    Attributes
    ----------
    config : the experiment, with arms and the kinds of its metrics as they were found.
    tally : its sums, by metric, slice, level and arm.
    rows : counts of rows: "rows", and those left out by why (see `Scanned`).
    several_rows : units with more than one row.
    crossovers : units that were seen in several arms: they are in no sum.
    examples : some of them.
    levels : slice -> its levels.
    unit_rows, ids : the units themselves, where a unit may have several rows.
    notes : what was decided on the way and the user should know.
    """

    config: ExperimentConfig
    tally: Tally
    rows: Mapping[str, int]
    several_rows: int
    crossovers: int
    examples: tuple[str, ...]
    levels: Mapping[str, tuple[str, ...]]
    unit_rows: UnitRows | None
    ids: pa.Array | None
    notes: tuple[str, ...]

    @property
    def arms(self) -> tuple[str, ...]:
        """The control first."""
        assert self.config.arms is not None and self.config.control is not None
        control = self.config.control
        return (control, *(a for a in self.config.arms if a != control))


def gather(
    config: ExperimentConfig, source: object, *, outcomes: object = None, on: str | None = None,
    engine: EngineConfig | None = None, progress: Any = None,
) -> Gathered:
    """Read what an experiment left.

    Parameters
    ----------
    source : any source that gpupipe reads, a prediction log among them: who was in which arm.
    outcomes : another one, with metrics' columns; None where ``source`` has them.
    on : the column that names a row in both: the unit, or a row's own key (prediction_id).

    Raises
    ------
    ConfigError : a column that is not there; ``on`` without a table of outcomes.
    DataError : a column that cannot be what it is used as; no rows, or fewer than two arms.
    """
    engine = engine or EngineConfig()
    choose(engine)  # what cannot be is told before any work
    if on is not None and outcomes is None:
        raise ConfigError("`on` names a column of a table of outcomes, and there is none",
                          hint="give the table: --outcomes labels.parquet")
    with TemporaryDirectory(prefix="gpupipe-experiment-") as folder:
        with reading(progress) as report:
            table = ingest(source, cache=Path(folder) / "rows", progress=report)
            other = None if outcomes is None else (
                ingest(outcomes, cache=Path(folder) / "outcomes", progress=report))
        config, notes = _as_log(config, table.schema)
        wanted, theirs, key = _columns(config, table, other, on)
        with choose(engine, table.rows).opened() as (opened, chosen):
            def reader(of: Dataset, name: str) -> Reader:
                place = Path(folder) / name
                place.mkdir()
                return Reader(on_disk(of, place) if chosen.remote else of, opened)

            joined = None
            if theirs is not None and other is not None:
                joined = scanned(reader(other, "o"), theirs, None, progress, "outcomes")
            by_row = None
            if joined is not None and key != config.unit:
                units = whole(joined)
                by_row = Outcomes(key, units.ids, {c: units.value(c, "mean")
                                                   for c in theirs.values} if theirs else {})
                notes += _several_outcomes(units, key)
            found = scanned(reader(table, "r"), wanted, by_row, progress)
            odd = dict(found.counts) | ({} if joined is None else joined.counts)
            config = _resolved(config, found, odd)
            if config.unit is None:
                return _of_rows(config, found, notes)
            beside = whole(joined) if joined is not None and by_row is None else None
            return _of_units(config, found, beside, notes, opened)


def _as_log(config: ExperimentConfig, schema: Schema) -> tuple[ExperimentConfig, tuple[str, ...]]:
    """Where the table is a prediction log, its own columns, and no shadow predictions."""
    if not all(name in schema for name in LOG):
        return config, ()
    said = config.model_fields_set
    changes: dict[str, Any] = {}
    if "unit" not in said:
        changes["unit"] = "unit_id"
    if "shadow" not in config.where:
        changes["where"] = {**config.where, "shadow": False}
    made = config.model_copy(update=changes)
    what = "a prediction log: its unit is unit_id, shadow predictions do not count"
    return made, (what,) if changes else ()


def _columns(
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


def _resolved(
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
                f"{', '.join(there) or 'none of the arms'}", hint=f"rows: {_counted(left)}",
            )
        arms = dict(config.arms)
    elif len(there) < 2:
        raise DataError(
            f"an experiment has two arms or more, and in {config.arm!r} there is "
            f"{'only ' + there[0] if there else 'none'}", hint=f"rows: {_counted(left)}",
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


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {'in all' if what == 'rows' else what}"
                     for what, n in counts.items())


def _of_rows(config: ExperimentConfig, found: Scanned, notes: tuple[str, ...]) -> Gathered:
    """Where every row is a unit: the pass made the sums."""
    levels = {s: tuple(sorted({cell[2] for cell in found.tally.cells if cell[1] == s}))
              for s in config.slices}
    notes += ("every row counts as a unit of its own: name the unit's column to have repeats "
              "and crossovers found",)
    return Gathered(config, found.tally, found.counts, 0, 0, (), levels, None, None, notes)


def _of_units(
    config: ExperimentConfig, found: Scanned, beside: Units | None, notes: tuple[str, ...],
    engine: Engine,
) -> Gathered:
    """Where a unit may have several rows: its own sums are made now."""
    units = whole(found)
    crossed = units.least[:, 0] != units.greatest[:, 0]
    examples = tuple(str(u) for u in
                     units.ids.take(pa.array(np.flatnonzero(crossed)[:EXAMPLES])).to_pylist())
    if crossed.any():
        units = units.take(np.flatnonzero(~crossed))
    if not len(units):
        raise DataError("every unit was seen in several arms", hint="is the unit's column right?")
    assert config.arms is not None
    slices: dict[str, Labels] = {}
    for i, name in enumerate(config.slices, 1):
        levels = sorted(set(found.texts[name].values()) - {MISSING, SEVERAL})
        hashes = np.where(units.least[:, i] == units.greatest[:, i], units.least[:, i],
                          np.uint64(text_hash(SEVERAL)))
        slices[name] = Labels(_codes(hashes, [*levels, MISSING, SEVERAL]),
                              (*levels, MISSING, SEVERAL))
    arms = Labels(_codes(units.least[:, 0], list(config.arms)), tuple(config.arms))
    rows = UnitRows(arms, slices, _values(units, beside, config.metrics))
    made = tallied(rows, len(units), config.metrics, engine)
    several = int((units.rows > 1).sum())
    if several:
        notes += (f"{several:,} of {len(units):,} units have several rows; of these "
                  + _aggregated(config.metrics),)
    there = {(cell[1], cell[2]) for cell in made.cells}
    found_levels = {s: tuple(n for n in labels.names if (s, n) in there)
                    for s, labels in slices.items()}
    return Gathered(config, made, found.counts, several, int(crossed.sum()), examples,
                    found_levels, rows, units.ids, notes)


def _values(
    units: Units, beside: Units | None, metrics: Sequence[MetricConfig]
) -> dict[tuple[str, str], np.ndarray]:
    """What the metrics are made of, for each unit; ``beside`` has outcomes from another table."""
    at = None if beside is None else places(units.ids, beside.ids)
    values: dict[tuple[str, str], np.ndarray] = {}
    for column, aggregate in {key for m in metrics for key in needed(m)}:
        if beside is not None and at is not None and column in beside.counts:
            own = beside.value(column, aggregate)
            values[column, aggregate] = np.append(own, np.nan)[at]
        else:
            values[column, aggregate] = units.value(column, aggregate)
    return values


def tallied(
    rows: UnitRows, n: int, metrics: Sequence[MetricConfig], engine: Engine
) -> Tally:
    """The sums of ``n`` units, some at a time and side by side."""
    made = engine.here.fold(
        lambda start: tally(_some(rows, start), metrics, PandasFrames()), Tally.merge,
        range(0, n, _CHUNK),
    )
    assert made is not None
    return made


def gather_past(
    config: ExperimentConfig, source: object, *, engine: EngineConfig | None = None,
    progress: Any = None,
) -> tuple[ExperimentConfig, Tally]:
    """The sums of all units of a table from before the experiment, in the one arm "".

    Also the configuration, with the kinds of its metrics as the table has them.
    """
    engine = engine or EngineConfig()
    choose(engine)
    with TemporaryDirectory(prefix="gpupipe-experiment-") as folder:
        with reading(progress) as report:
            table = ingest(source, cache=Path(folder) / "rows", progress=report)
        past, _ = _as_log(config, table.schema)
        past = past.model_copy(update={"slices": []})
        wanted, _, _ = _columns(past, table, None, None, arm=False)
        with choose(engine, table.rows).opened() as (opened, chosen):
            place = Path(folder) / "parts"
            place.mkdir()
            reader = Reader(on_disk(table, place) if chosen.remote else table, opened)
            found = scanned(reader, wanted, None, progress)
            kinds = with_kinds(config, found.counts)
            if past.unit is None:
                return kinds, found.tally
            units = whole(found)
            arm = Labels(np.zeros(len(units), np.int64), ("",))
            rows = UnitRows(arm, {}, _values(units, None, kinds.metrics))
            return kinds, tallied(rows, len(units), kinds.metrics, opened)


def _aggregated(metrics: Sequence[MetricConfig]) -> str:
    words = {"sum": "the sum", "mean": "the mean", "max": "the greatest", "min": "the least",
             "count": "the number"}
    return ", ".join(f"{words[how]} of {column!r}" for column, how in
                     dict.fromkeys(key for m in metrics for key in needed(m))) + " is taken"


def whole(found: Scanned) -> Units:
    """All units of a pass, in canonical order. DataError where there is none."""
    if found.pile is None or not sum(map(len, found.pile.pieces)):
        raise DataError("no row is left", hint=f"rows: {_counted(found.counts)}")
    return found.pile.whole()


def _codes(hashes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """int64 codes into ``names`` of hashes of their texts."""
    own = np.array([text_hash(n) for n in names], np.uint64)
    order = np.argsort(own)
    return order[np.searchsorted(own[order], hashes)].astype(np.int64)


def _some(rows: UnitRows, start: int) -> UnitRows:
    """Some of the units, from ``start`` on."""
    piece = slice(start, start + _CHUNK)
    return UnitRows(
        replace(rows.arms, codes=rows.arms.codes[piece]),
        {s: replace(labels, codes=labels.codes[piece]) for s, labels in rows.slices.items()},
        {k: v[piece] for k, v in rows.values.items()},
    )


def _several_outcomes(units: Units, key: str) -> tuple[str, ...]:
    """What to say where a key has several outcomes."""
    several = int((units.rows > 1).sum())
    if not several:
        return ()
    differ = np.zeros(len(units), bool)
    for column in units.counts:
        differ |= (units.counts[column] > 1) & (units.low[column] != units.high[column])
    return (f"{several:,} values of {key!r} have several outcomes, {int(differ.sum()):,} of them "
            "different ones: their mean is taken",)
