"""The one scan: counts of every column, by window and slice, batch by batch.

A part of a piece is worked on by one thread or worker; what parts give is merged in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.scoring import Bundle
from gpupipe.engine.base import Engine
from gpupipe.engine.frames import Array, Column, Frames
from gpupipe.monitor.cells import ABOVE, BELOW, FIRST, UNFIT, Levels
from gpupipe.monitor.counts import Counts, Groups, Names, counted, together
from gpupipe.monitor.reference import CONFIDENCE, PREDICTION, Known, Reference
from gpupipe.monitor.sources import Piece, conforming, probabilities
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
    variant: str = "champion"

    def __call__(self, part: tuple[int, int]) -> Observed:
        fx = self.engine.fx
        counts: dict[str, list[Counts]] = {}
        names: dict[str, Names] = {}
        for batch in self.batches(part):
            groups = Groups.of(batch.window, batch.slices)
            ones = fx.xp.full(batch.window.shape[0], FIRST)
            _add(counts, ROWS, counted(ones, FIRST + 1, groups, fx))
            for name, column in batch.columns.items():
                own = self.reference.columns[name]
                _add(counts, name, _counted(own, column, batch.unfit.get(name), groups, fx))
                unseen = _unseen(own, column, batch.window, fx)
                if unseen is not None:
                    names[name] = names.get(name, Names()).merge(unseen)
        return Observed({c: together(k) for c, k in counts.items()}, names)

    def batches(self, part: tuple[int, int], also: Sequence[str] = ()) -> Iterator[Rows]:
        """The rows of a part, batch by batch, that are in a window.

        ``also`` are columns of the file's own that are wanted as they are, where they are there.
        """
        piece, fx, size = self.pieces[part[0]], self.engine.fx, self.engine.batch_rows
        wanted = [*piece.names.values(), *(c for c in also if piece.has(c))]
        wanted += [piece.time] if piece.time else []
        wanted += [c for c in ("score", "prediction", "variant") if piece.log and piece.has(c)]
        first = piece.first + sum(p.rows for p in piece.dataset.parts[: part[1]])
        several = len(self.bundle.classes) > 2
        lists = probabilities(piece, part[1], size) if piece.log and several else iter(())
        for batch, n in piece.read(part[1], list(dict.fromkeys(wanted)), size, fx):
            columns, unfit = conforming(piece, batch, self.bundle, fx)
            window, kept = self._windows(piece, batch, first, n, fx)
            order = batch[piece.time].values if piece.time else fx.xp.arange(first, first + n)
            first += n
            slices = [s.of(columns[s.column], fx) if s.column in columns
                      else fx.xp.full(n, s.first + len(s.levels) + 1) for s in self.slicings]
            scores = self._scores(piece, batch, columns, n, next(lists, None), fx)
            columns |= self._predictions(piece, batch, scores, fx)
            rows = Rows(columns, unfit, window, order, slices, scores,
                        {c: batch[c] for c in also if c in batch})
            rows = rows if kept is None else rows.take(kept, fx)
            if rows.window.shape[0]:
                yield rows

    def _windows(
        self, piece: Piece, batch: Mapping[str, Column], first: int, n: int, fx: Frames
    ) -> tuple[Array, Array | None]:
        """The window of each row; and which rows are in one, where some are not: without a time,
        or predicted by another variant of the model."""
        kept = None
        if piece.log and "variant" in batch:
            kept = fx.lookup(batch["variant"], pa.array([self.variant])) == 0
            kept = None if bool(kept.all()) else kept
        if self.windows.by == "rows":
            return fx.to_device(self.windows.of_rows(first, n)), kept
        assert piece.time is not None
        column = batch[piece.time]
        if column.missing is not None and bool(column.missing.any()):
            kept = ~column.missing if kept is None else kept & ~column.missing
        return self.windows.of_times(column.values), kept

    def _scores(
        self, piece: Piece, batch: Mapping[str, Column], columns: Mapping[str, Column], n: int,
        lists: np.ndarray | None, fx: Frames,
    ) -> np.ndarray | None:
        """What the model gave: as logged, or made now where all its columns are there."""
        if piece.log:
            if lists is not None and lists.shape[1] == len(self.bundle.classes):
                return lists
            return fx.to_host(fx.numbers(batch["score"])) if (
                len(self.bundle.classes) <= 2 and "score" in batch) else None
        if self.bundle.outputs or not n or any(c not in columns for c in self.bundle.schema.names):
            return None
        return np.asarray(self.bundle.scores(arrow_table(columns, self.bundle, fx)), np.float64)

    def _predictions(
        self, piece: Piece, batch: Mapping[str, Column], scores: np.ndarray | None, fx: Frames
    ) -> dict[str, Column]:
        """The model's output as columns: the score, or the label and how sure it is."""
        if len(self.bundle.classes) <= 2:
            return {} if scores is None else {PREDICTION: Column("float64", fx.to_device(scores))}
        if scores is None:
            return {PREDICTION: batch["prediction"]} if "prediction" in batch else {}
        known = ~np.isnan(scores).any(axis=1)
        codes = np.where(known, np.where(known[:, None], scores, 0.0).argmax(axis=1), -1)
        labels = pa.array(self.bundle.classes, pa.string())
        return {PREDICTION: Column("string", fx.to_device(codes), None, labels),
                CONFIDENCE: Column("float64", fx.to_device(scores.max(axis=1)))}


@dataclass(frozen=True)
class Rows:
    """Some rows, as a scan sees them: each ``[n]``.

    Attributes
    ----------
    columns : those of the bundle in its types, and the predictions.
    unfit : which rows do not fit a column's type, by column.
    window, order : the window's number; the moment, or the row's number.
    slices : the slice of each row, by slicing.
    scores : P(positive) or values float64 ``[n]``, probabilities ``[n, classes]``, or None.
    also : columns of the file's own.
    """

    columns: Mapping[str, Column]
    unfit: Mapping[str, Array]
    window: Array
    order: Array
    slices: Sequence[Array]
    scores: np.ndarray | None
    also: Mapping[str, Column]

    def take(self, rows: Array, fx: Frames) -> Rows:
        """Those of a mask."""
        return Rows({c: taken(v, rows) for c, v in self.columns.items()},
                    {c: v[rows] for c, v in self.unfit.items()}, self.window[rows],
                    self.order[rows], [s[rows] for s in self.slices],
                    None if self.scores is None else self.scores[fx.to_host(rows)],
                    {c: taken(v, rows) for c, v in self.also.items()})


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


def taken(column: Column, rows: Array) -> Column:
    """Some rows of a column."""
    return replace(column, values=column.values[rows],
                   missing=None if column.missing is None else column.missing[rows])


