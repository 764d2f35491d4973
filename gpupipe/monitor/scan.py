"""The one scan: counts of every column, by window and slice, batch by batch.

A part of a piece is worked on by one thread or worker; what parts give is merged in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.scoring import Bundle
from gpupipe.engine.base import Engine
from gpupipe.engine.frames import Array, Column, Frames
from gpupipe.monitor.cells import ABOVE, BELOW, FIRST, UNFIT, Levels
from gpupipe.monitor.counts import Counts, Groups, Names, counted, together
from gpupipe.monitor.reference import PREDICTION, Known, Reference
from gpupipe.monitor.sources import Piece, conforming
from gpupipe.monitor.windows import Windows
from gpupipe.steps.passes import stage

ROWS = "(rows)"
"""Under what name rows are counted, whatever is in them."""
SLICE_LEVELS = 20
"""Levels of a column that have a slice of their own; the rest are one."""


@dataclass(frozen=True)
class Slicing:
    """The slices of one column: ``levels`` have one each, from ``first`` on, then the others."""

    column: str
    levels: pa.Array
    first: int

    @property
    def names(self) -> list[str]:
        """What the slices are called."""
        return [f"{self.column}={v}" for v in [*self.levels.to_pylist(), "(other)", "(missing)"]]

    def of(self, column: Column, fx: Frames) -> Array:
        """The slice of each row: int64 ``[n]``."""
        place, n = fx.lookup(column, self.levels), len(self.levels)
        return self.first + fx.xp.where(place >= 0, place, fx.xp.where(place == -1, n + 1, n))


@dataclass(frozen=True)
class Observed:
    """What a scan has counted: counts by column, and unseen values by column."""

    counts: Mapping[str, Counts] = field(default_factory=dict)
    names: Mapping[str, Names] = field(default_factory=dict)

    def merge(self, other: Observed) -> Observed:
        """What both sets of rows have together."""
        counts = {c: together([s.counts[c] for s in (self, other) if c in s.counts])
                  for c in dict.fromkeys([*self.counts, *other.counts])}
        names = {c: self.names.get(c, Names()).merge(other.names.get(c, Names()))
                 for c in dict.fromkeys([*self.names, *other.names])}
        return Observed(counts, names)

    def recut(self, factor: int) -> Observed:
        """The same in windows ``factor`` times as long."""
        if factor == 1:
            return self
        return Observed({c: k.recut(factor) for c, k in self.counts.items()},
                        {c: n.recut(factor) for c, n in self.names.items()})

    def windows(self) -> list[int]:
        """The windows that have rows, ascending."""
        return [int(w) for w in self.counts.get(ROWS, Counts()).windows()]


def slicings_of(columns: Sequence[str], reference: Reference) -> list[Slicing]:
    """How rows are sliced by the most frequent values of each of some columns."""
    found, first = [], 1
    for column in columns:
        known = reference.columns[column]
        if isinstance(known.coder, Levels):
            levels = known.coder.levels.slice(0, SLICE_LEVELS)
        else:
            assert known.cells is not None and known.counts is not None
            order = np.argsort(-known.counts, kind="stable")[:SLICE_LEVELS]
            held = np.sort(known.cells[order])
            levels = pa.array(known.coder.middles(held).astype(np.int64))
        found.append(Slicing(column, levels, first))
        first += len(levels) + 2
    return found


@dataclass(frozen=True)
class Scan:
    """What is counted of each part; ``part`` is (piece, part within it)."""

    bundle: Bundle
    reference: Reference
    pieces: Sequence[Piece]
    windows: Windows
    slicings: Sequence[Slicing]
    engine: Engine

    def __call__(self, part: tuple[int, int]) -> Observed:
        piece, fx = self.pieces[part[0]], self.engine.fx
        wanted = [*piece.names.values()]
        wanted += [piece.time] if piece.time and piece.time not in wanted else []
        wanted += [c for c in ("score", "prediction") if piece.log and piece.has(c)]
        first = piece.first + sum(p.rows for p in piece.dataset.parts[: part[1]])
        counts: dict[str, list[Counts]] = {}
        names: dict[str, Names] = {}
        for batch, table in piece.read(part[1], wanted, self.engine.batch_rows, fx):
            n = table.num_rows
            columns, unfit = conforming(piece, batch, self.bundle, fx)
            window, known = self._windows(piece, batch, first, n, fx)
            first += n
            slices = [s.of(columns[s.column], fx) if s.column in columns
                      else fx.xp.full(n, s.first + len(s.levels) + 1) for s in self.slicings]
            prediction = self._prediction(piece, batch, columns, n, fx)
            if prediction is not None:
                columns[PREDICTION] = prediction
            if known is not None:
                columns = {c: _taken(v, known) for c, v in columns.items()}
                unfit = {c: v[known] for c, v in unfit.items()}
                slices, window = [s[known] for s in slices], window[known]
            if not window.shape[0]:
                continue
            groups = Groups.of(window, slices)
            ones = fx.xp.full(window.shape[0], FIRST)
            _add(counts, ROWS, counted(ones, FIRST + 1, groups, fx))
            for name, column in columns.items():
                own = self.reference.columns[name]
                _add(counts, name, _counted(own, column, unfit.get(name), groups, fx))
                unseen = _unseen(own, column, window, fx)
                if unseen is not None:
                    names[name] = names.get(name, Names()).merge(unseen)
        return Observed({c: together(k) for c, k in counts.items()}, names)

    def _windows(
        self, piece: Piece, batch: Mapping[str, Column], first: int, n: int, fx: Frames
    ) -> tuple[Array, Array | None]:
        """The window of each row; and which rows have one, where some have no time."""
        if self.windows.by == "rows":
            return fx.to_device(self.windows.of_rows(first, n)), None
        assert piece.time is not None
        column = batch[piece.time]
        window = self.windows.of_times(column.values)
        if column.missing is None or not bool(column.missing.any()):
            return window, None
        return window, ~column.missing

    def _prediction(
        self, piece: Piece, batch: Mapping[str, Column], columns: Mapping[str, Column], n: int,
        fx: Frames,
    ) -> Column | None:
        """The model's output: as logged, or made now where all its columns are there."""
        labels = len(self.bundle.classes) > 2
        if piece.log:
            return batch.get("prediction" if labels else "score")
        if self.bundle.outputs or not n or any(c not in columns for c in self.bundle.schema.names):
            return None
        scores = self.bundle.scores(arrow_table(columns, self.bundle, fx))
        if not labels:
            return Column("float64", fx.to_device(np.asarray(scores, np.float64)))
        codes = fx.to_device(np.asarray(scores).argmax(axis=1))
        return Column("string", codes, None, pa.array(self.bundle.classes, pa.string()))


def arrow_table(columns: Mapping[str, Column], bundle: Bundle, fx: Frames) -> pa.Table:
    """Columns in the bundle's types as an Arrow table, which it scores."""
    made = []
    for f in bundle.schema:
        column = columns[f.name]
        values = fx.to_host(column.values)
        if column.levels is not None:
            index = pa.array(values.astype(np.int32), mask=values < 0)
            made.append(pa.DictionaryArray.from_arrays(index, column.levels))
        else:
            mask = None if column.missing is None else fx.to_host(column.missing)
            array = pa.array(values, mask=mask)
            made.append(array.cast(pa.timestamp("us")) if f.dtype == "timestamp" else array)
    return pa.Table.from_arrays(made, names=bundle.schema.names)


def observe(scan: Scan, todo: Sequence[int], progress: Any = None) -> Observed:
    """One pass over the pieces with these numbers."""
    parts = [(i, p) for i in todo for p in range(len(scan.pieces[i].dataset.parts))]
    rows = {p: scan.pieces[p[0]].dataset.parts[p[1]].rows for p in parts}
    with stage(progress, "monitor", sum(rows.values())) as advance:
        found = scan.engine.fold(scan, Observed.merge, parts, lambda p: advance(rows[p]))
    return found or Observed()


def _add(counts: dict[str, list[Counts]], name: str, found: list[Counts]) -> None:
    counts.setdefault(name, []).extend(found)


def _counted(
    own: Known, column: Column, unfit: Array | None, groups: Groups, fx: Frames
) -> list[Counts]:
    cell = own.coder.cells(column, fx)
    if unfit is not None:
        cell = fx.xp.where(unfit, UNFIT, cell)
    found = counted(cell, own.coder.width, groups, fx)
    beyond = own.coder.beyond(column, fx)
    for which, mask in zip((BELOW, ABOVE), beyond or (), strict=False):
        if bool(mask.any()):
            found += counted(fx.xp.full(mask.shape, which), FIRST, groups, fx, mask)
    return found


def _unseen(own: Known, column: Column, window: Array, fx: Frames) -> Names | None:
    """The names of text that the reference has not."""
    if not isinstance(own.coder, Levels) or column.levels is None:
        return None
    place = fx.lookup(column, own.coder.levels)
    new = place == -2
    if not bool(new.any()):
        return None
    return Names.found(fx.to_host(column.values[new]), column.levels, fx.to_host(window[new]))


def _taken(column: Column, rows: Array) -> Column:
    return replace(column, values=column.values[rows],
                   missing=None if column.missing is None else column.missing[rows])


