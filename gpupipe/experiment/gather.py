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
from gpupipe.data.dataset import Dataset, on_disk
from gpupipe.data.reader import Reader
from gpupipe.engine.base import Engine
from gpupipe.engine.choose import choose
from gpupipe.engine.pandas import PandasFrames
from gpupipe.errors import ConfigError, DataError
from gpupipe.experiment.cells import Labels, Tally, UnitRows, needed, tally
from gpupipe.experiment.columns import (
    BEFORE,
    as_log,
    columns_of,
    counted,
    named,
    resolved,
    with_before,
    with_kinds,
)
from gpupipe.experiment.config import ExperimentConfig, MetricConfig
from gpupipe.experiment.outcomes import Outcomes, places
from gpupipe.experiment.scan import (
    MISSING,
    SEVERAL,
    Scanned,
    scanned,
    text_hash,
)
from gpupipe.experiment.sources import opened
from gpupipe.experiment.units import Units

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
    before: object = None, engine: EngineConfig | None = None, progress: Any = None,
) -> Gathered:
    """Read what an experiment left.

    Parameters
    ----------
    source : any source that gpupipe reads, a prediction log among them: who was in which arm.
    outcomes : another one, with metrics' columns; None where ``source`` has them.
    on : the column that names a row in both: the unit, or a row's own key (prediction_id).
    before : a table or log of the time before the experiment, with the covariates by unit; None
        where they stand beside the metrics.

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
        needed = named(config, on)
        table = opened(source, needed, Path(folder) / "rows", progress)
        other = None if outcomes is None else (
            opened(outcomes, needed, Path(folder) / "outcomes", progress))
        past = None if before is None else (
            opened(before, needed, Path(folder) / "before", progress))
        config, notes = as_log(config, table.schema)
        config, earlier = (config, None) if past is None else with_before(config, past)
        wanted, theirs, key = columns_of(config, table, other, on)
        with choose(engine, table.rows).opened() as (running, chosen):
            def reader(of: Dataset, name: str) -> Reader:
                place = Path(folder) / name
                place.mkdir()
                return Reader(on_disk(of, place) if chosen.remote else of, running)

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
            config = resolved(config, found, odd)
            if config.unit is None:
                return _of_rows(config, found, notes)
            beside = {} if joined is None or by_row is not None else {"": whole(joined)}
            if past is not None and earlier is not None:
                beside[BEFORE] = whole(scanned(reader(past, "b"), earlier, None, progress,
                                               "before"))
            return _of_units(config, found, beside, notes, running)


def _of_rows(config: ExperimentConfig, found: Scanned, notes: tuple[str, ...]) -> Gathered:
    """Where every row is a unit: the pass made the sums."""
    levels = {s: tuple(sorted({cell[2] for cell in found.tally.cells if cell[1] == s}))
              for s in config.slices}
    notes += ("every row counts as a unit of its own: name the unit's column to have repeats "
              "and crossovers found",)
    return Gathered(config, found.tally, found.counts, 0, 0, (), levels, None, None, notes)


def _of_units(
    config: ExperimentConfig, found: Scanned, beside: Mapping[str, Units], notes: tuple[str, ...],
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
    units: Units, beside: Mapping[str, Units], metrics: Sequence[MetricConfig]
) -> dict[tuple[str, str], np.ndarray]:
    """What the metrics are made of, for each unit.

    ``beside`` has units of other tables, by what the names of their columns begin with.
    """
    at = {prefix: places(units.ids, other.ids) for prefix, other in beside.items()}
    values: dict[tuple[str, str], np.ndarray] = {}
    for column, aggregate in {key for m in metrics for key in needed(m)}:
        for prefix, other in beside.items():
            own = column.removeprefix(prefix)
            if column.startswith(prefix) and own in other.counts:
                values[column, aggregate] = np.append(other.value(own, aggregate), np.nan)[
                    at[prefix]]
        if (column, aggregate) not in values:
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
        table = opened(source, named(config), Path(folder) / "rows", progress)
        past, _ = as_log(config, table.schema)
        past = past.model_copy(update={"slices": []})
        wanted, _, _ = columns_of(past, table, None, None, arm=False)
        with choose(engine, table.rows).opened() as (running, chosen):
            place = Path(folder) / "parts"
            place.mkdir()
            reader = Reader(on_disk(table, place) if chosen.remote else table, running)
            found = scanned(reader, wanted, None, progress)
            kinds = with_kinds(config, found.counts)
            if past.unit is None:
                return kinds, found.tally
            units = whole(found)
            arm = Labels(np.zeros(len(units), np.int64), ("",))
            rows = UnitRows(arm, {}, _values(units, {}, kinds.metrics))
            return kinds, tallied(rows, len(units), kinds.metrics, running)


def _aggregated(metrics: Sequence[MetricConfig]) -> str:
    words = {"sum": "the sum", "mean": "the mean", "max": "the greatest", "min": "the least",
             "count": "the number"}
    return ", ".join(f"{words[how]} of {column!r}" for column, how in
                     dict.fromkeys(key for m in metrics for key in needed(m))) + " is taken"


def whole(found: Scanned) -> Units:
    """All units of a pass, in canonical order. DataError where there is none."""
    if found.pile is None or not sum(map(len, found.pile.pieces)):
        raise DataError("no row is left", hint=f"rows: {counted(found.counts)}")
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
