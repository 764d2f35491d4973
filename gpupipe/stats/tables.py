"""Counts of values: vocabularies, and what the target does at each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.engine.frames import Array, Column, Frames
from gpupipe.stats.state import Rows, State, Table, added, count_cells, sum_cells

VOCABULARY_LIMIT = 1_000_000
"""Distinct values that a vocabulary keeps; a column with more is text or an ID."""


@dataclass(frozen=True)
class VocabularyState(Table):
    """``counts`` is int64 ``[b, levels]``.

    A vocabulary that outgrows its ``limit`` forgets its levels and stays ``overflowed``:
    whether it does depends on the distinct values alone, not on the order they came in.
    """

    counts: np.ndarray = added()
    limit: int = field(default=VOCABULARY_LIMIT)
    overflowed: bool = False

    def merge(self, other: Self) -> Self:
        if self.overflowed or other.overflowed:
            return self._forget()
        return super().merge(other)._bounded()

    def take_in(self, other: Self) -> Self:
        forgetful = self.overflowed or other.overflowed
        return self.merge(other) if forgetful else super().take_in(other)

    def subtract(self, other: Self) -> Self:
        return self._forget() if self.overflowed else super().subtract(other)

    def ranked(self) -> Self:
        """Levels that occur, by count descending, then by value; without the null level."""
        ordered = self.canonical()
        order = np.argsort(-ordered.counts.sum(axis=0), kind="stable")
        null = pc.is_null(ordered.levels).to_numpy(zero_copy_only=False)
        return ordered.take(order[~null[order]])

    @property
    def missing(self) -> int:
        """Rows without a value."""
        null = pc.is_null(self.levels).to_numpy(zero_copy_only=False)
        return int(self.counts[:, null].sum())

    def _bounded(self) -> Self:
        """The state itself while it holds no more distinct values than its limit.

        A dictionary may name values that no row has: they do not count.
        """
        if len(self.levels) - self.levels.null_count <= self.limit:
            return self
        seen = self.take(np.flatnonzero(self.occurring()))
        return self._forget() if len(seen.levels) - seen.levels.null_count > self.limit else seen

    def _forget(self) -> Self:
        return replace(
            self, levels=self.levels.slice(0, 0), counts=self.counts[:, :0], overflowed=True
        )


class ByLevel:
    """A statistic with a number for every distinct value of its column."""


@dataclass(frozen=True)
class Vocabulary(ByLevel):
    """How often each distinct value of one column occurs; at most ``limit`` of them."""

    state: ClassVar[type[State]] = VocabularyState

    limit: int = VOCABULARY_LIMIT

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> VocabularyState:
        codes, levels = cells_of(columns[0], fx)
        n = len(levels)
        counts = count_cells(rows.bucket * n + codes, rows.buckets * n, fx)
        state = VocabularyState(levels, counts.reshape(rows.buckets, n), self.limit)
        return state._bounded()


@dataclass(frozen=True)
class DayCounts:
    """How many rows fall on each day (counted from 1970) of a timestamp column."""

    state: ClassVar[type[State]] = VocabularyState

    microseconds: int = 86_400_000_000

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> VocabularyState:
        (column,) = columns
        days = Column("int64", column.values // self.microseconds, column.missing)
        return Vocabulary().partial([days], rows, fx)


@dataclass(frozen=True)
class TargetCountState(Table):
    """``counts`` is int64 ``[b, levels, classes]``."""

    counts: np.ndarray = added()


@dataclass(frozen=True)
class TargetCounts(ByLevel):
    """How often each class of the target occurs at each value of one column."""

    state: ClassVar[type[State]] = TargetCountState

    classes: int

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> TargetCountState:
        assert rows.target is not None
        codes, levels = cells_of(columns[0], fx)
        n, c = len(levels), self.classes
        known = rows.target >= 0
        key = (rows.bucket * n + codes) * c + rows.target
        counts = count_cells(key[known], rows.buckets * n * c, fx)
        return TargetCountState(levels, counts.reshape(rows.buckets, n, c))


@dataclass(frozen=True)
class TargetSumState(Table):
    """``count`` is int64 ``[b, levels]``; ``sums`` is int64 ``[b, levels, 4]``.

    The four sums are the high and low halves of the fixed-point target, and of its square.
    """

    count: np.ndarray = added()
    sums: np.ndarray = added()


@dataclass(frozen=True)
class TargetSums(ByLevel):
    """Sums of a numeric target and of its square at each value of one column.

    The target is put on a fixed-point grid of 2^52 steps around ``centre``, as wide as
    ``reach``: a function of the value alone, so that the sums are integers.

    Attributes
    ----------
    centre, reach : the middle and half-width of the target's range.
    timed : whether it is a time that is negative where it is censored: counted is how long it is.
    """

    state: ClassVar[type[State]] = TargetSumState

    centre: float
    reach: float
    timed: bool = False

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> TargetSumState:
        assert rows.target is not None
        xp = fx.xp
        codes, levels = cells_of(columns[0], fx)
        n = len(levels)
        target = abs(rows.target) if self.timed else rows.target
        known = xp.isfinite(target)
        key = (rows.bucket * n + codes)[known]
        unit = (target[known] - self.centre) / self.reach if self.reach else (
            xp.zeros(int(known.sum()))
        )
        cells = rows.buckets * n
        halves = [h for v in (unit, unit * unit) for h in _halves(v, xp)]
        sums = np.stack([sum_cells(key, h, cells, fx) for h in halves], axis=-1)
        return TargetSumState(
            levels, count_cells(key, cells, fx).reshape(rows.buckets, n),
            sums.reshape(rows.buckets, n, 4),
        )

    def moments(self, state: TargetSumState) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count, sum and sum of squares of ``target - centre``: each ``[b, levels]``."""
        parts = state.sums.astype(np.float64)
        first = (parts[..., 0] * 2.0**26 + parts[..., 1]) * (self.reach / 2.0**52)
        second = (parts[..., 2] * 2.0**26 + parts[..., 3]) * (self.reach**2 / 2.0**52)
        return state.count, first, second


def _halves(unit: Array, xp: Any) -> tuple[Array, Array]:
    """A number in [-1, 1] as two integer-valued floats below 2^27: high * 2^26 + low."""
    fixed = xp.rint(unit * 2.0**52)
    high = xp.rint(fixed * 2.0**-26)
    return high, fixed - high * 2.0**26


def cells_of(column: Column, fx: Frames) -> tuple[Array, pa.Array]:
    """Codes ``[n]`` without gaps and their levels, the last of them that of missing values."""
    codes, levels = fx.factorize(column)
    codes = codes.astype("int64")
    # Always, so that batches that share a dictionary share it here, too.
    codes = fx.xp.where(codes < 0, len(levels), codes)
    return codes, pa.concat_arrays([levels, pa.nulls(1, levels.type)])
