"""The state of a mergeable statistic: integer arrays with one row a bucket.

A bucket is a set of rows that is never split again: a fold, or the holdout. Because the
first axis of every array is the bucket, one scan yields the statistic of every fold, and
what fold k trains on is the merge of the other rows of the same array (`State.only`).
Everything that is added up is an integer, so merging is associative and commutative to the
last bit: any partitioning of the rows, in any order, gives the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array, Column, Frames


@dataclass(frozen=True)
class Rows:
    """What a statistic may know of a batch's rows besides its columns.

    Attributes
    ----------
    bucket : int64 ``[n]``, the bucket of each row, below ``buckets``.
    buckets : how many buckets there are.
    target : None, class codes (int64 ``[n]``) or values (float64 ``[n]``).
    """

    bucket: Array
    buckets: int
    target: Array | None = None

    @cached_property
    def by_bucket(self) -> tuple[Array | None, list[slice]]:
        """The order that puts rows of a bucket side by side, and where each bucket then lies.

        The order is None where the rows lie so already.
        """
        if self.buckets == 1:
            return None, [slice(0, int(self.bucket.shape[0]))]
        xp = namespace(self.bucket)
        ends = to_host(xp.cumsum(xp.bincount(self.bucket, minlength=self.buckets))).tolist()
        # A byte sorts many times faster, and there are at most 256 buckets.
        order = xp.argsort(self.bucket.astype("uint8"), kind="stable")
        return order, [slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def added() -> Any:
    """A state array whose merge is the sum, and which subtracts."""
    return field(metadata={"merge": np.add, "reduce": np.sum})


def least() -> Any:
    """A state array whose merge is the minimum; it cannot be subtracted."""
    return field(metadata={"merge": np.minimum, "reduce": np.min})


def greatest() -> Any:
    """A state array whose merge is the maximum; it cannot be subtracted."""
    return field(metadata={"merge": np.maximum, "reduce": np.max})


@dataclass(frozen=True)
class State:
    """Arrays with the bucket as first axis, and how each of them merges."""

    def merge(self, other: Self) -> Self:
        """The state of both sets of rows together."""
        return self._pairwise(other, lambda f: f.metadata["merge"])

    def take_in(self, other: Self) -> Self:
        """`merge`, where neither state is needed any more: in place if that can be."""
        return self.merge(other)

    def subtract(self, other: Self) -> Self:
        """The state without the rows of ``other``. TypeError where an extreme is kept."""
        for f in fields(self):
            if f.metadata["merge"] is not np.add:
                raise TypeError(f"{type(self).__name__}.{f.name} is an extreme: use only()")
        return self._pairwise(other, lambda f: np.subtract)

    def only(self, buckets: Sequence[int]) -> Self:
        """The merge of the named buckets, as a state of one bucket."""
        index = list(buckets)
        return replace(
            self,
            **{
                f.name: f.metadata["reduce"](getattr(self, f.name)[index], axis=0, keepdims=True)
                for f in fields(self)
            },
        )

    def canonical(self) -> Self:
        """The same state in its one canonical order."""
        return self

    def arrays(self) -> dict[str, Any]:
        """Plain data: what a bundle stores."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def _pairwise(self, other: Self, operation: Callable[[Any], Any]) -> Self:
        return replace(
            self,
            **{
                f.name: operation(f)(getattr(self, f.name), getattr(other, f.name))
                for f in fields(self)
            },
        )


@dataclass(frozen=True)
class Table(State):
    """A state with a key: arrays are ``[buckets, levels, ...]``, keyed by distinct values.

    ``levels`` is an Arrow array of distinct values, in any order until `canonical` sorts it;
    a null among them is the level of the rows without a value.
    """

    levels: pa.Array

    def merge(self, other: Self) -> Self:
        return self._with(other, np.add)

    def subtract(self, other: Self) -> Self:
        return self._with(other, np.subtract)

    def take_in(self, other: Self) -> Self:
        if not self._same_levels(other):
            return self.merge(other)
        for f in keyed(self):
            mine = getattr(self, f.name)
            np.add(mine, getattr(other, f.name), out=mine)
        return self

    def _same_levels(self, other: Self) -> bool:
        return len(self.levels) == len(other.levels) and self.levels.equals(other.levels)

    def _with(self, other: Self, operation: Callable[[Any, Any], Any]) -> Self:
        """Both tables over the union of their levels; a level that one lacks counts 0 there."""
        if self._same_levels(other):
            return replace(self, **{f.name: operation(getattr(self, f.name),
                                                      getattr(other, f.name))
                                    for f in keyed(self)})
        levels, index = union(self.levels, other.levels)
        arrays = {}
        for f in keyed(self):
            mine = getattr(self, f.name)
            wide = np.zeros((mine.shape[0], len(levels), *mine.shape[2:]), mine.dtype)
            wide[:, : mine.shape[1]] = mine
            wide[:, index] = operation(wide[:, index], getattr(other, f.name))
            arrays[f.name] = wide
        return replace(self, levels=levels, **arrays)

    def only(self, buckets: Sequence[int]) -> Self:
        index = list(buckets)
        return replace(self, **{f.name: getattr(self, f.name)[index].sum(axis=0, keepdims=True)
                                for f in keyed(self)})

    def canonical(self) -> Self:
        """Levels in ascending order (text by code point, false before true, null last).

        Levels that no row has are left out: a batch's dictionary may hold values of others.
        """
        keys = self.levels.cast(pa.int8()) if pa.types.is_boolean(self.levels.type) else self.levels
        order = pc.sort_indices(keys).to_numpy()
        return self.take(order[self.occurring()[order]])

    def occurring(self) -> np.ndarray:
        """Which levels any row has: bool ``[levels]``."""
        arrays = (getattr(self, f.name) for f in keyed(self))
        seen = [a.any(axis=(0, *range(2, a.ndim))) for a in arrays]
        return np.logical_or.reduce(seen)

    def take(self, index: np.ndarray) -> Self:
        """The levels at ``index``, in that order."""
        return replace(
            self, levels=self.levels.take(pa.array(index)),
            **{f.name: getattr(self, f.name)[:, index] for f in keyed(self)},
        )


def keyed(table: Table) -> list[Any]:
    """The array fields of a table, which its levels index."""
    return [f for f in fields(table) if "merge" in f.metadata]


def union(a: pa.Array, b: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The levels of ``a`` followed by the new ones of ``b``, and where each of ``b`` stands."""
    found = pc.index_in(b, value_set=a)
    new = b.filter(pc.is_null(found))
    index = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    index[index < 0] = len(a) + np.arange(len(new))
    return pa.concat_arrays([a, new]) if len(new) else a, index


class Statistic(Protocol):
    """What a scan can compute: frozen, hashable, and blind to where the rows come from.

    ``state`` is the class of what it computes; its `State.arrays` make it again.
    """

    @property
    def state(self) -> type[State]: ...

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> State:
        """The state of one batch of rows, on the host."""
        ...


def count_cells(key: Array, cells: int, fx: Frames) -> np.ndarray:
    """How often each of ``0..cells-1`` occurs in ``key``: int64 ``[cells]`` on the host."""
    return fx.to_host(fx.xp.bincount(key, minlength=cells)).astype(np.int64, copy=False)


def sum_cells(key: Array, weights: Array, cells: int, fx: Frames) -> np.ndarray:
    """Sums of integer-valued ``weights`` a cell: exact below 2^53, so free of order."""
    sums = fx.xp.bincount(key, weights=weights, minlength=cells)
    return fx.to_host(sums).astype(np.int64)
