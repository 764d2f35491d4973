"""Rows to units: what each unit has in any number of rows, in states that merge exactly.

For each unit: rows, the least and greatest hash of its arm and of its slices' levels (so that two
arms are seen), and of each value how many, their exact sum, their least and greatest. A sum is
kept in digits of base 2^32, as in `stats.moments`, but only in those that occur.

Pieces of about one size are merged first, as in a log-structured tree: with p pieces every unit
is moved log p times, and no more than about twice the units are held.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.stats.state import union

_LOWEST = -1152
"""Exponent of digit 0: a multiple of the base below the least float64's."""
_MASK = (1 << 32) - 1


@dataclass(frozen=True)
class Digits:
    """Exact sums: int64 ``[n, width]`` of digits from ``low`` on."""

    low: int
    sums: np.ndarray

    def spread(self, n: int, index: np.ndarray, low: int, width: int) -> np.ndarray:
        """The digits of ``n`` units, of which these are at ``index``, from ``low`` on."""
        wide = np.zeros((n, width), np.int64)
        wide[index, self.low - low : self.low - low + self.sums.shape[1]] = self.sums
        return wide

    def values(self) -> np.ndarray:
        """The sums as float64 ``[n]``, to the last unit in the last place; exact where whole
        numbers below 2^53. A function of the sums alone."""
        if not self.sums.shape[1]:
            return np.zeros(len(self.sums))
        # All digits of one sign, or the sum of digits would cancel.
        negative = _carried(self.sums)[:, -1] < 0
        digits = _carried(np.where(negative[:, None], -self.sums, self.sums)).astype(np.float64)
        total = np.zeros(len(digits))
        with np.errstate(over="ignore"):  # a sum past the greatest float is infinite
            for d in range(digits.shape[1]):  # from the least: what is rounded is the least
                total += np.ldexp(digits[:, d], _LOWEST + 32 * (self.low + d))
        return np.where(negative, -total, total)


def _carried(sums: np.ndarray) -> np.ndarray:
    """The same sums in digits of 0 to 2^32 - 1, but for the last, which has the sign."""
    carried = sums.copy()
    for d in range(carried.shape[1] - 1):
        carried[:, d + 1] += carried[:, d] >> 32
        carried[:, d] &= _MASK
    return carried


def digits_of(x: np.ndarray, code: np.ndarray, n: int) -> Digits:
    """The sums of finite float64 ``x`` for each of ``n`` codes; at most 2^20 rows at a time."""
    mantissa, exponent = np.frexp(x)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    place, shift = np.divmod(exponent.astype(np.int64) - 53 - _LOWEST, 32)
    lower = (whole & _MASK) << shift
    upper = (whole >> 32) << shift
    pieces = ((0, lower & _MASK), (1, lower >> 32), (1, upper & _MASK), (2, upper >> 32))
    live = whole != 0
    if not live.any():
        return Digits(36, np.zeros((n, 0), np.int64))
    low, high = int(place[live].min()), int(place[live].max()) + 3
    width = high - low
    sums = np.zeros(n * width, np.int64)
    for step, piece in pieces:
        own = live & (piece != 0)
        key = code[own] * width + (place[own] - low + step)
        # Below 2^33 each, so that 2^20 of them add up exactly in float64.
        sums += np.bincount(key, piece[own].astype(np.float64), n * width).astype(np.int64)
    return _trimmed(low, sums.reshape(n, width))


def _trimmed(low: int, sums: np.ndarray) -> Digits:
    """Without the digits at either end that are 0 in all sums."""
    used = np.flatnonzero(sums.any(axis=0))
    if not used.size:
        return Digits(36, sums[:, :0])
    first, last = int(used[0]), int(used[-1]) + 1
    return Digits(low + first, np.ascontiguousarray(sums[:, first:last]))


@dataclass(frozen=True)
class Units:
    """Units, each once, in any order until `canonical` sorts them.

    Attributes
    ----------
    ids : Arrow array ``[n]`` of distinct ids.
    rows : int64 ``[n]``.
    least, greatest : uint64 ``[n, labels]``, hashes of the arm and of the slices' levels.
    counts : column -> int64 ``[n]``, rows with a value.
    sums : column -> exact sums.
    low, high : column -> float64 ``[n]``, least and greatest values; infinite where there is none.
    """

    ids: pa.Array
    rows: np.ndarray
    least: np.ndarray
    greatest: np.ndarray
    counts: Mapping[str, np.ndarray]
    sums: Mapping[str, Digits]
    low: Mapping[str, np.ndarray]
    high: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(
        cls, ids: pa.Array, code: np.ndarray, labels: Sequence[np.ndarray],
        values: Mapping[str, np.ndarray],
    ) -> Units:
        """The units of one batch.

        Parameters
        ----------
        ids : distinct ids, among them all in use; ``code`` int64 ``[rows]`` points into them.
        labels : uint64 hashes ``[rows]`` each.
        values : float64 ``[rows]`` each, NaN where there is none.
        """
        n = len(ids)
        rows = np.bincount(code, minlength=n)
        used = np.flatnonzero(rows)
        if len(used) < n:
            new = np.zeros(n, np.int64)
            new[used] = np.arange(len(used))
            ids, code, rows, n = ids.take(pa.array(used)), new[code], rows[used], len(used)
        least = np.full((n, len(labels)), np.iinfo(np.uint64).max, np.uint64)
        greatest = np.zeros((n, len(labels)), np.uint64)
        for i, label in enumerate(labels):
            np.minimum.at(least[:, i], code, label)
            np.maximum.at(greatest[:, i], code, label)
        counts, sums, low, high = {}, {}, {}, {}
        for name, value in values.items():
            known = np.isfinite(value)
            x, own = (value, code) if known.all() else (value[known], code[known])
            counts[name] = np.bincount(own, minlength=n)
            sums[name] = digits_of(x, own, n)
            low[name], high[name] = np.full(n, np.inf), np.full(n, -np.inf)
            np.minimum.at(low[name], own, x)
            np.maximum.at(high[name], own, x)
        return cls(ids, rows, least, greatest, counts, sums, low, high)

    def merge(self, other: Units) -> Units:
        """The units of both sets of rows."""
        ids, index = union(self.ids, other.ids)
        n, mine = len(ids), np.arange(len(self))

        def added(a: np.ndarray, b: np.ndarray) -> np.ndarray:
            wide = np.zeros(n, a.dtype)
            wide[mine] = a
            wide[index] += b
            return wide

        def extreme(a: np.ndarray, b: np.ndarray, least: bool) -> np.ndarray:
            top = np.inf if a.dtype.kind == "f" else np.iinfo(np.uint64).max
            bottom = -np.inf if a.dtype.kind == "f" else 0
            wide = np.full((n, *a.shape[1:]), top if least else bottom, a.dtype)
            wide[mine] = a
            wide[index] = (np.minimum if least else np.maximum)(wide[index], b)
            return wide

        return Units(
            ids, added(self.rows, other.rows), extreme(self.least, other.least, True),
            extreme(self.greatest, other.greatest, False),
            {c: added(v, other.counts[c]) for c, v in self.counts.items()},
            {c: _both(v, other.sums[c], n, mine, index) for c, v in self.sums.items()},
            {c: extreme(v, other.low[c], True) for c, v in self.low.items()},
            {c: extreme(v, other.high[c], False) for c, v in self.high.items()},
        )

    def canonical(self) -> Units:
        """The same units in ascending order of their ids."""
        return self.take(pc.sort_indices(self.ids).to_numpy())

    def take(self, index: np.ndarray) -> Units:
        """The units at ``index``, in that order."""
        return Units(
            self.ids.take(pa.array(index)), self.rows[index], self.least[index],
            self.greatest[index], {c: v[index] for c, v in self.counts.items()},
            {c: Digits(v.low, v.sums[index]) for c, v in self.sums.items()},
            {c: v[index] for c, v in self.low.items()},
            {c: v[index] for c, v in self.high.items()},
        )

    def value(self, column: str, aggregate: str) -> np.ndarray:
        """Each unit's value, float64 ``[n]``, NaN where it has none. The count is never missing."""
        count = self.counts[column]
        if aggregate == "count":
            return count.astype(np.float64)
        if aggregate in ("max", "min"):
            found = (self.high if aggregate == "max" else self.low)[column]
        else:
            found = self.sums[column].values()
            if aggregate == "mean":
                found = found / np.maximum(count, 1)
        return np.where(count > 0, found, np.nan)


def _both(a: Digits, b: Digits, n: int, mine: np.ndarray, index: np.ndarray) -> Digits:
    if not a.sums.shape[1] and not b.sums.shape[1]:
        return Digits(36, np.zeros((n, 0), np.int64))
    parts = [p for p in (a, b) if p.sums.shape[1]]
    low = min(p.low for p in parts)
    width = max(p.low + p.sums.shape[1] for p in parts) - low
    wide = [p.spread(n, at, low, width) for p, at in ((a, mine), (b, index))
            if p.sums.shape[1]]
    return _trimmed(low, sum(wide[1:], wide[0]))


@dataclass(frozen=True)
class Pile:
    """Pieces of `Units`, each less than half as large as the one before."""

    pieces: tuple[Units, ...]

    def merge(self, other: Pile) -> Pile:
        """All pieces, those of about one size made one."""
        pile: list[Units] = []
        for piece in sorted((*self.pieces, *other.pieces), key=len, reverse=True):
            pile.append(piece)
            while len(pile) > 1 and len(pile[-2]) < 2 * len(pile[-1]):
                last = pile.pop()
                pile.append(pile.pop().merge(last))
        return Pile(tuple(pile))

    def whole(self) -> Units:
        """All of them as one, in canonical order."""
        pieces = list(self.pieces)
        while len(pieces) > 1:
            last = pieces.pop()
            pieces.append(pieces.pop().merge(last))
        return pieces[0].canonical()
