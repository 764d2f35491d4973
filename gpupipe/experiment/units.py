"""Rows to units: what each unit has in any number of rows, in states that merge exactly.

For each unit: rows, the least and greatest hash of its arm and of its slices' levels (so that two
arms are seen), and of each value how many, their exact sum, their least and greatest. A sum is
kept in digits of base 2^32, as in `stats.moments`, but only in those that occur.

Units are known by a 64-bit hash of their id, for numbers sort many times faster than text; the ids
are kept, and two that share a hash are refused (of ten million that happens three times in a
million).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.engine.hashing import hash_numbers, hash_strings
from gpupipe.errors import DataError

_LOWEST = -1152
"""Exponent of digit 0: a multiple of the base below the least float64's."""
_MASK = (1 << 32) - 1
_LOOSE = 1 << 20
"""Units that may lie in loose pieces however few there are in all."""


@dataclass(frozen=True)
class Digits:
    """Exact sums: int64 ``[n, width]`` of digits from ``low`` on."""

    low: int
    sums: np.ndarray

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
    """Units, each once.

    Attributes
    ----------
    key : uint64 ``[n]``, hashes of the ids.
    ids : Arrow array ``[n]`` of distinct ids.
    rows : int64 ``[n]``.
    least, greatest : uint64 ``[n, labels]``, hashes of the arm and of the slices' levels.
    counts : column -> int64 ``[n]``, rows with a value.
    sums : column -> exact sums.
    low, high : column -> float64 ``[n]``, least and greatest values, where they are asked for;
        infinite where there is no value.
    """

    key: np.ndarray
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
        values: Mapping[str, np.ndarray], extremes: Collection[str],
    ) -> Units:
        """The units of one batch.

        Parameters
        ----------
        ids : distinct ids, among them all in use; ``code`` int64 ``[rows]`` points into them.
        labels : uint64 hashes ``[rows]`` each.
        values : float64 ``[rows]`` each, NaN where there is none.
        extremes : of which values the least and greatest are kept.
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
            if name not in extremes:
                continue
            low[name], high[name] = np.full(n, np.inf), np.full(n, -np.inf)
            np.minimum.at(low[name], own, x)
            np.maximum.at(high[name], own, x)
        return cls(hashed_ids(ids), ids, rows, least, greatest, counts, sums, low, high)

    @classmethod
    def together(cls, pieces: Sequence[Units]) -> Units:
        """The units of all pieces, in ascending order of their hashes: the one canonical order.

        Raises DataError where two ids have one hash.
        """
        key = np.concatenate([p.key for p in pieces])
        order = np.argsort(key, kind="stable")
        key = key[order]
        new = np.concatenate([[True], key[1:] != key[:-1]])
        starts = np.flatnonzero(new)
        ids = pa.concat_arrays([p.ids for p in pieces])
        again = np.flatnonzero(~new)
        _same(ids, order[again], order[again - 1])

        def reduced(parts: Iterable[np.ndarray], how: np.ufunc) -> np.ndarray:
            sorted_ = np.concatenate(list(parts))[order]
            return sorted_ if len(starts) == len(order) else how.reduceat(sorted_, starts)

        columns, extremes = list(pieces[0].counts), list(pieces[0].low)
        return cls(
            key[starts], ids.take(pa.array(order[starts])),
            reduced((p.rows for p in pieces), np.add),
            reduced((p.least for p in pieces), np.minimum),
            reduced((p.greatest for p in pieces), np.maximum),
            {c: reduced((p.counts[c] for p in pieces), np.add) for c in columns},
            {c: _summed([p.sums[c] for p in pieces], order, starts) for c in columns},
            {c: reduced((p.low[c] for p in pieces), np.minimum) for c in extremes},
            {c: reduced((p.high[c] for p in pieces), np.maximum) for c in extremes},
        )

    def take(self, index: np.ndarray) -> Units:
        """The units at ``index``, in that order."""
        return Units(
            self.key[index], self.ids.take(pa.array(index)), self.rows[index], self.least[index],
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


def _summed(parts: Sequence[Digits], order: np.ndarray, starts: np.ndarray) -> Digits:
    """The digits of all parts on end, put in order and summed from each start to the next."""
    used = [p for p in parts if p.sums.shape[1]]
    low = min((p.low for p in used), default=36)
    width = max((p.low + p.sums.shape[1] for p in used), default=low) - low
    wide = np.zeros((len(order), width), np.int64)
    at = 0
    for part in parts:
        n, own = part.sums.shape
        wide[at : at + n, part.low - low : part.low - low + own] = part.sums
        at += n
    wide = wide[order]
    return _trimmed(low, wide if len(starts) == len(order) else np.add.reduceat(wide, starts))


def _same(ids: pa.Array, left: np.ndarray, right: np.ndarray) -> None:
    """DataError where an id differs from the one beside it, which has the same hash."""
    alike = pc.equal(ids.take(pa.array(left)), ids.take(pa.array(right)))
    if len(left) and not pc.all(alike).as_py():
        raise DataError("two units' ids have the same 64-bit hash",
                        hint="write the ids in another way: with a prefix, say")


def hashed_ids(ids: pa.Array) -> np.ndarray:
    """uint64 hashes of ids without nulls."""
    if pa.types.is_integer(ids.type):
        return hash_numbers(ids.to_numpy(zero_copy_only=False), np)
    return hash_strings(ids if pa.types.is_string(ids.type) else ids.cast(pa.string()))


@dataclass(frozen=True)
class Pile:
    """Pieces of `Units` that are made one when they are together twice as large as the largest."""

    pieces: tuple[Units, ...]

    def merge(self, other: Pile) -> Pile:
        """All pieces of both."""
        pieces = (*self.pieces, *other.pieces)
        sizes = [len(p) for p in pieces]
        if len(pieces) > 1 and sum(sizes) > 2 * max(sizes) + _LOOSE:
            return Pile((Units.together(pieces),))
        return Pile(pieces)

    def whole(self) -> Units:
        """All of them as one, in canonical order."""
        return Units.together(self.pieces)
