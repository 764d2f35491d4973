"""Counts of cells by window and slice: the one state of monitoring, and all of it integers.

A count's key packs window, slice and cell into one int64, so that merging two states is a merge
of sorted keys. Addition of integers is free of order: any partitioning of the rows gives the same
state, and windows can be cut anew, or joined, from the counts alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from gpupipe.engine.arrays import to_host
from gpupipe.engine.frames import Array, Frames
from gpupipe.engine.hashing import hash_strings
from gpupipe.monitor.cells import CELLS

SLICE_BITS, CELL_BITS = 12, 20
SLICES = 1 << SLICE_BITS
"""There are fewer slices than this; slice 0 is all rows."""
DENSE = 1 << 22
"""Up to so many counters a batch is counted into an array; more are found by sorting."""
NAMES = 100
"""Unseen values of a window and column that are kept by name."""


@dataclass(frozen=True)
class Counts:
    """``keys`` are int64, ascending, each once; ``counts`` int64 beside them."""

    keys: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, window: np.ndarray, slices: np.ndarray, cell: np.ndarray,
           count: np.ndarray) -> Counts:
        """Counts of cells that may come more than once, in any order."""
        return _summed(packed(window, slices, cell), count)

    def merge(self, other: Counts) -> Counts:
        """The counts of both sets of rows together."""
        return together([self, other])

    @property
    def window(self) -> np.ndarray:
        return self.keys >> (SLICE_BITS + CELL_BITS)

    @property
    def slice(self) -> np.ndarray:
        return (self.keys >> CELL_BITS) & (SLICES - 1)

    @property
    def cell(self) -> np.ndarray:
        return self.keys & (CELLS - 1)

    def recut(self, factor: int, shift: int = 0) -> Counts:
        """The counts of windows ``factor`` times as long; window 0 moves by ``shift`` first."""
        return Counts.of((self.window + shift) // factor, self.slice, self.cell, self.counts)

    def of_group(self, window: int, slice_: int) -> tuple[np.ndarray, np.ndarray]:
        """The cells of one window and slice, ascending, and their counts."""
        low = (int(window) << (SLICE_BITS + CELL_BITS)) | (slice_ << CELL_BITS)
        a, b = np.searchsorted(self.keys, [low, low + CELLS])
        return self.keys[a:b] & (CELLS - 1), self.counts[a:b]

    def windows(self) -> np.ndarray:
        """The windows that have rows, ascending."""
        return np.unique(self.window)


def packed(window: np.ndarray, slices: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Window, slice and cell as one number that sorts like them."""
    window = np.asarray(window, np.int64)
    return (window << (SLICE_BITS + CELL_BITS)) | (
        np.asarray(slices, np.int64) << CELL_BITS) | np.asarray(cell, np.int64)


def together(parts: Iterable[Counts]) -> Counts:
    """The merge of any number of counts."""
    given = [p for p in parts if len(p.keys)]
    if len(given) <= 1:
        return given[0] if given else Counts()
    return _summed(np.concatenate([p.keys for p in given]),
                   np.concatenate([p.counts for p in given]))


def _summed(keys: np.ndarray, counts: np.ndarray) -> Counts:
    if not len(keys):
        return Counts()
    order = np.argsort(keys, kind="stable")  # few sorted runs: it merges them
    keys, counts = keys[order], np.asarray(counts, np.int64)[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return Counts(keys[starts], np.add.reduceat(counts, starts))


@dataclass(frozen=True)
class Groups:
    """The windows and slices of a batch's rows.

    Attributes
    ----------
    window : the number of each row's window, int64 ``[n]``; None where all are in ``first``.
    first : the least of them.
    span : how many numbers there are from the least to the greatest.
    slices : for each column that is sliced by, the slice of each row, int64 ``[n]``.
    """

    first: int
    span: int
    window: Array | None
    slices: Sequence[Array] = ()

    @classmethod
    def of(cls, window: Array, slices: Sequence[Array] = ()) -> Groups:
        first, last = int(window.min()), int(window.max())
        return cls(first, last - first + 1, None if first == last else window, slices)


def counted(
    cell: Array, width: int, groups: Groups, fx: Frames, where: Array | None = None
) -> list[Counts]:
    """How many rows lie in each cell, by window, and by window and slice.

    ``cell`` int64 ``[n]`` is below ``width``; rows outside the mask ``where`` do not count.
    """
    xp, everywhere = fx.xp, slice(None)
    rows = everywhere if where is None else where
    window = None if groups.window is None else groups.window[rows] - groups.first
    cell = cell[rows]
    found = [_of(cell, width, window, groups, None, xp)]
    found += [_of(cell, width, window, groups, s[rows], xp) for s in groups.slices]
    return found


def _of(
    cell: Array, width: int, window: Array | None, groups: Groups, slices: Array | None, xp: Array
) -> Counts:
    if not cell.shape[0]:
        return Counts()
    low, many = 0, 1
    if slices is not None:
        low = int(slices.min())
        many = int(slices.max()) - low + 1
    group = window
    if slices is not None:
        group = slices - low if window is None else window * many + (slices - low)
    size = groups.span * many * width
    key = cell if group is None else group * width + cell
    if size <= max(DENSE, width):
        dense = to_host(xp.bincount(key, minlength=width))
        at = np.flatnonzero(dense)
        count = dense[at]
    else:
        at, count = (to_host(a) for a in xp.unique(key, return_counts=True))
    group_of, cells = np.divmod(at, width)
    window_of, slice_of = np.divmod(group_of, many)
    keys = packed(groups.first + window_of, slice_of + low, cells)
    return Counts(keys, count.astype(np.int64, copy=False))


@dataclass(frozen=True)
class Names:
    """Values that the reference has not, by window: ``{(window, value): rows}``.

    Of each window those `NAMES` are kept whose hashes are least. That is a function of the
    values alone, and a value that is kept in the end was kept everywhere: its count is exact.
    """

    of: Mapping[tuple[int, str], int] = field(default_factory=dict)

    def merge(self, other: Names) -> Names:
        """The names of both sets of rows together."""
        if not other.of or not self.of:
            return self if self.of else other
        total = dict(self.of)
        for key, n in other.of.items():
            total[key] = total.get(key, 0) + n
        return Names(total)._bounded()

    def recut(self, factor: int, shift: int = 0) -> Names:
        """Those of windows ``factor`` times as long (see `Counts.recut`)."""
        total: dict[tuple[int, str], int] = {}
        for (window, name), n in self.of.items():
            key = ((window + shift) // factor, name)
            total[key] = total.get(key, 0) + n
        return Names(total)._bounded()

    def in_window(self, window: int) -> dict[str, int]:
        """The values of one window, the most frequent first."""
        own = {name: n for (w, name), n in self.of.items() if w == window}
        return dict(sorted(own.items(), key=lambda item: (-item[1], item[0])))

    def _bounded(self) -> Names:
        by_window: dict[int, list[str]] = {}
        for window, name in self.of:
            by_window.setdefault(window, []).append(name)
        kept = {}
        for window, names in by_window.items():
            if len(names) > NAMES:
                least = np.argsort(hash_strings(pa.array(names, pa.string())), kind="stable")
                names = [names[i] for i in least[:NAMES]]
            kept.update({(window, n): self.of[window, n] for n in names})
        return Names(kept)

    @classmethod
    def found(cls, codes: np.ndarray, levels: pa.Array, window: np.ndarray) -> Names:
        """The names of rows (codes into ``levels``) and their windows."""
        total: dict[tuple[int, str], int] = {}
        for own in np.unique(window).tolist():
            counts = np.bincount(codes[window == own], minlength=len(levels))
            held = np.flatnonzero(counts)
            texts = levels.take(pa.array(held)).cast(pa.string())
            if len(held) > NAMES:
                least = np.argsort(hash_strings(texts), kind="stable")[:NAMES]
                held, texts = held[least], texts.take(pa.array(least))
            total.update({(own, text): int(counts[i])
                          for i, text in zip(held, texts.to_pylist(), strict=True)})
        return cls(total)


def equal(a: Counts, b: Counts) -> bool:
    """Whether two states are the same to the last bit."""
    return bool(np.array_equal(a.keys, b.keys) and np.array_equal(a.counts, b.counts))


