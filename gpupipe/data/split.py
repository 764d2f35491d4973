"""Splits: a row's bucket is a function of the row, never of its position.

A 64-bit hash of the row's key gives it a place on a line. The line is cut into the holdout
and the folds: at equal shares (random), at equal shares within each class (stratified), or
on the hash of the group's columns (group). A time split cuts at moments instead. The same
rows fall into the same buckets in any order, partitioning or engine, and exact duplicates
stay together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.engine.hashing import mix64
from gpupipe.errors import DataError

RESOLUTION = 65_536
"""Places on the line: shares are right to 2^-16, or to a row where there are fewer."""
CROSSFIT = 5
"""Buckets of the training rows where no cross-validation was asked for."""


@dataclass(frozen=True)
class Fold:
    """One fold: the buckets it trains on and those it is judged on."""

    train: tuple[int, ...]
    valid: tuple[int, ...]


@dataclass(frozen=True)
class Split:
    """A rule that gives each row a bucket.

    Attributes
    ----------
    by : random, stratified, group or time.
    cuts : int64 ``[classes, cuts]`` places (ascending), or float64 ``[1, cuts]`` moments.
        A row's interval is the number of cuts at or below its place.
    folds : of the cross-validation; empty where none was asked for.
    train : the buckets of the final training.
    holdout : the buckets of the holdout; empty for none.
    buckets : how many there are; the last one is of rows that take part in nothing.
    seed : mixed into the hash.
    """

    by: str
    cuts: np.ndarray
    folds: tuple[Fold, ...]
    train: tuple[int, ...]
    holdout: tuple[int, ...]
    buckets: int
    seed: int

    @property
    def nowhere(self) -> int:
        """The bucket of rows that are neither trained on nor judged."""
        return self.buckets - 1

    def assign(self, place: np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
        """Buckets (uint8 ``[n]``) of rows at ``place`` on the line, or at those moments.

        ``group`` is the row's class code (stratified), -1 for a row without a target.
        """
        if len(self.cuts) == 1:
            bucket = np.searchsorted(self.cuts[0], place, side="right").astype(np.uint8)
        else:
            assert group is not None
            bucket = np.empty(len(place), np.uint8)
            for code, cuts in enumerate(self.cuts):
                mine = group == code
                bucket[mine] = np.searchsorted(cuts, place[mine], side="right")
        if group is not None:
            bucket[group < 0] = self.nowhere
        return bucket

    def to_json(self) -> dict[str, Any]:
        return {
            "by": self.by, "seed": self.seed, "cuts": self.cuts.tolist(),
            "buckets": self.buckets, "train": list(self.train), "holdout": list(self.holdout),
            "folds": [{"train": list(f.train), "valid": list(f.valid)} for f in self.folds],
        }


def place_of(key: np.ndarray, seed: int) -> np.ndarray:
    """A row's place on the line, 0 to 65,535 (uint16), from its key hash and the seed."""
    salt = mix64(np.array([seed], np.uint64), np)[0]
    return (mix64(key ^ salt, np) >> np.uint64(48)).astype(np.uint16)


def hash_split(
    by: str, places: Sequence[np.ndarray], groups: Sequence[np.ndarray], classes: int,
    holdout: float, folds: int, seed: int,
) -> Split:
    """Cut the line within each class so that every share of rows comes out right.

    ``places`` and ``groups`` hold one array a part: places, and class codes (all 0 where the
    split is not stratified, -1 where there is no target).
    """
    counts = np.zeros((classes, RESOLUTION), np.int64)
    for place, group in zip(places, groups, strict=True):
        known = group >= 0
        flat = np.bincount(group[known].astype(np.int64) * RESOLUTION + place[known],
                           minlength=classes * RESOLUTION)
        counts += flat.reshape(classes, RESOLUTION)
    inner = folds or CROSSFIT
    shares = holdout + (1 - holdout) * np.arange(inner) / inner
    if not holdout:
        shares = shares[1:]
    cuts = np.stack([_cut(c, shares) for c in counts])
    first = 1 if holdout else 0
    train = tuple(range(first, first + inner))
    split = Split(
        by, cuts, tuple(
            Fold(tuple(b for b in train if b != k), (k,)) for k in train
        ) if folds else (), train, (0,) if holdout else (), first + inner + 1, seed,
    )
    _check_sizes(split, _sizes(split, places, groups), by)
    return split


def _cut(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The places (int64) below which lie the given shares of rows, as nearly as can be."""
    cumulative = np.concatenate([[0], np.cumsum(counts)])
    wanted = shares * cumulative[-1]
    above = np.clip(np.searchsorted(cumulative, wanted), 1, len(cumulative) - 1)
    nearer = wanted - cumulative[above - 1] < cumulative[above] - wanted
    return np.maximum.accumulate(np.where(nearer, above - 1, above)).astype(np.int64)


def time_split(
    times: Sequence[np.ndarray], known: Sequence[np.ndarray], holdout: float, folds: int,
    gap: float, column: str, seed: int,
) -> Split:
    """Cut at moments: each block is judged by what was trained on strictly earlier blocks.

    The newest ``holdout`` share of the rows is the holdout; the rest falls into ``folds`` + 1
    blocks, the first of which only trains. Rows within ``gap`` before a judged block train
    nothing that judges it. ``known`` tells which rows have a target.
    """
    every = np.concatenate(list(times))
    if np.isnan(every).any():
        raise DataError(
            f"split.time: column {column!r} is missing in {int(np.isnan(every).sum()):,} rows",
            hint="a time split needs a moment for every row; drop those rows or split otherwise",
        )
    ordered = np.sort(every[np.concatenate(list(known))])
    n = len(ordered)
    if n == 0:
        raise DataError("no row has a target")
    blocks = (folds or CROSSFIT - 1) + 1
    ends = [(1 - holdout) * i / blocks for i in range(1, blocks + (1 if holdout else 0))]
    starts = [float(ordered[min(round(share * n), n - 1)]) for share in ends]
    edges = np.unique([s for start in starts for s in ({start, start - gap})])
    lows = np.concatenate([[-np.inf], edges])
    highs = np.concatenate([edges, [np.inf]])

    def between(low: float, high: float) -> tuple[int, ...]:
        return tuple(int(i) for i in np.flatnonzero((lows >= low) & (highs <= high)))

    last = starts[-1] if holdout else np.inf
    judged = [*starts[: blocks - 1], last if holdout else np.inf]
    pairs = itertools.pairwise(judged)
    made = tuple(
        Fold(between(-np.inf, low - gap), between(low, high)) for low, high in pairs
    ) if folds else ()
    split = Split(
        "time", edges[None, :], made, between(-np.inf, last - gap if holdout else np.inf),
        between(last, np.inf) if holdout else (), len(lows) + 1, seed,
    )
    if split.buckets > 256:
        raise DataError("a time split has at most 80 folds", hint="lower split.folds")
    groups = [np.where(k, 0, -1) for k in known]
    _check_sizes(split, _sizes(split, times, groups), "time")
    return split


def _sizes(
    split: Split, places: Sequence[np.ndarray], groups: Sequence[np.ndarray]
) -> np.ndarray:
    sizes = np.zeros(split.buckets, np.int64)
    for place, group in zip(places, groups, strict=True):
        sizes += np.bincount(split.assign(place, group), minlength=split.buckets)
    return sizes


def _check_sizes(split: Split, sizes: np.ndarray, by: str) -> None:
    """DataError where a part of the split would be empty."""
    parts = [("the training part", split.train)]
    parts += [("the holdout", split.holdout)] if split.holdout else []
    for i, fold in enumerate(split.folds, 1):
        parts += [(f"fold {i}'s training part", fold.train), (f"fold {i}", fold.valid)]
    for name, buckets in parts:
        if sizes[list(buckets)].sum() == 0:
            total = int(sizes[:-1].sum())
            few = {"group": "groups", "time": "distinct moments"}.get(by, "distinct rows")
            raise DataError(
                f"{name} has no rows: {total:,} rows have too few {few} for this split",
                hint="lower split.folds or split.holdout (0 is none of it)",
            )
