"""Boosted trees by bit masks: a row goes through all of them with an AND for each column.

QuickScorer (Lucchese, Nardini, Orlando, Perego, Tonellotto and Venturini, "QuickScorer: A Fast
Algorithm to Rank Documents with Additive Ensembles of Regression Trees", SIGIR 2015, sect. 3): the
leaves of a tree are the bits of a word, from the left. A node whose test fails rules out the leaves
under its left child; once all that fail have been ruled out, the lowest bit that is left is the
row's leaf, whatever the order. Which nodes fail at a value of a feature is known beforehand: so for
each of a feature's intervals there is a row of words, one a tree, that are to be ANDed.

Sums are XGBoost's own: float32, tree after tree, from the base score on.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.models.forests import Forest

BITS = 64
"""The most leaves of a tree."""
BUDGET = 64 << 20
"""The most bytes that the tables of one model may take."""
ONES = np.uint64(2**64 - 1)


class Untabled(Exception):  # noqa: N818 - an answer, not an error
    """Why there are no tables of these trees."""


@dataclass(frozen=True)
class Splits:
    """What one feature does to all trees.

    Attributes
    ----------
    cuts : float64, rising: how many of them a value reaches is the number of its row.
    words : ``[cuts + 2, trees]``; the last row is that of a missing value.
    """

    cuts: list[float]
    words: np.ndarray

    def at(self, value: float) -> np.ndarray:
        """The words of a value; NaN is missing. It need not be a float32: it is cut like one."""
        if value != value:
            return self.words[-1]
        return self.words[bisect_right(self.cuts, value)]


class Quick:
    """The tables of a forest's trees, the first so many of them.

    Raises `Untabled` where a tree has more than 64 leaves or the tables would not fit.
    """

    def __init__(self, forest: Forest, trees: int, base: np.ndarray) -> None:
        kept = [level[forest.tree[level] < trees] for level in forest.levels]
        nodes = len(forest.left)
        count, first = np.ones(nodes, np.int64), np.zeros(nodes, np.int64)
        for level in reversed(kept):
            inner = level[forest.left[level] >= 0]
            count[inner] = count[forest.left[inner]] + count[forest.left[inner] + 1]
        roots = forest.root[:trees]
        if count[roots].max() > BITS:
            raise Untabled(f"a tree has {count[roots].max()} leaves, more than {BITS}")
        for level in kept:
            inner = level[forest.left[level] >= 0]
            left = forest.left[inner]
            first[left], first[left + 1] = first[inner], first[inner] + count[left]
        every = np.concatenate(kept)
        inner = every[forest.left[every] >= 0]
        under = count[forest.left[inner]].astype(np.uint64)  # never 64: the right side has leaves
        ruled_out = ((np.uint64(1) << under) - np.uint64(1)) << first[inner].astype(np.uint64)
        self.trees, self.features = trees, forest.features
        self.splits = self._splits(forest, inner, ~ruled_out)
        self._leaves(forest, every, first, trees, base)
        self._own = threading.local()

    def _splits(self, forest: Forest, inner: np.ndarray, words: np.ndarray) -> dict[int, Splits]:
        feature = forest.feature[inner]
        coded = np.isin(inner, np.fromiter(forest.codes, np.int64, len(forest.codes)))
        cuts = {int(f): np.unique(np.concatenate([
            _cuts(forest.threshold[inner[mine & ~coded]]),
            *(_around(forest.codes[int(n)]) for n in inner[mine & coded])]))
            for f in np.unique(feature) for mine in [feature == f]}
        size = sum(len(c) + 2 for c in cuts.values()) * self.trees * 8
        if size > BUDGET:
            raise Untabled(f"its tables would take {size >> 20} MiB, more than {BUDGET >> 20}")
        return {f: self._of_feature(forest, inner[mine], words[mine], coded[mine], cuts[f])
                for f in cuts for mine in [feature == f]}

    def _of_feature(
        self, forest: Forest, nodes: np.ndarray, words: np.ndarray, coded: np.ndarray,
        cuts: np.ndarray,
    ) -> Splits:
        tree = forest.tree[nodes]
        table = np.full((len(cuts) + 2, self.trees), ONES)
        rows, missing = table[:-1], table[-1]
        plain = ~coded
        if plain.any() and coded.any():
            raise Untabled("a feature has codes in one tree and numbers in another")
        reached = np.searchsorted(cuts, _cuts(forest.threshold[nodes[plain]])) + 1
        np.bitwise_and.at(rows, (reached, tree[plain]), words[plain])
        np.bitwise_and.accumulate(rows, axis=0, out=rows)
        for node, word in zip(nodes[coded].tolist(), words[coded], strict=True):
            # Between a code and the next one a value is that code: the library cuts off fractions.
            at = np.searchsorted(cuts, forest.codes[node].astype(np.float64)) + 1
            rows[at, forest.tree[node]] &= word
        right = ~forest.missing_left[nodes]
        np.bitwise_and.at(missing, tree[right], words[right])
        return Splits(cuts.tolist(), table)

    def _leaves(self, forest: Forest, every: np.ndarray, first: np.ndarray, trees: int,
                base: np.ndarray) -> None:
        """Leaf values in one array, where each tree's begin, and the trees of each output."""
        leaves = every[forest.left[every] < 0]
        start = np.zeros(trees, np.int64)
        number = np.bincount(forest.tree[leaves], minlength=trees)
        start[1:] = np.cumsum(number)[:-1]
        self.values = np.empty(len(leaves), np.float32)
        self.values[start[forest.tree[leaves]] + first[leaves]] = forest.value[leaves]
        self.start = start - 1  # the lowest bit is counted from 1
        group = forest.group[:trees]
        self.groups = [(np.flatnonzero(group == g), np.float32(base[g]))
                       for g in range(forest.groups)]

    def row_of(self, values: Sequence[float], features: Sequence[int]) -> np.ndarray:
        """The words ``[trees]`` of some features' values together; they are all in `splits`."""
        words = [self.splits[f].at(v) for f, v in zip(features, values, strict=True)]
        return np.bitwise_and.reduce(words)

    def margins(self, words: list[np.ndarray]) -> np.ndarray:
        """The margin of each output, float32 ``[groups]``, from all words of a row."""
        own = self._own
        try:
            mask, less, bits, place, leaves, sums = own.arrays
        except AttributeError:
            n = self.trees
            own.arrays = (np.empty(n, np.uint64), np.empty(n, np.uint64), np.empty(n, np.uint8),
                          np.empty(n, np.int64), np.empty(n, np.float32),
                          np.empty(n + 1, np.float32))
            mask, less, bits, place, leaves, sums = own.arrays
        both = np.bitwise_and
        if len(words) > 1:
            both(words[0], words[1], mask)
            for row in words[2:]:
                both(mask, row, mask)
        else:
            mask[:] = words[0] if words else ONES
        np.subtract(mask, _ONE, less)
        np.bitwise_xor(mask, less, less)  # the lowest bit and all below it
        np.bitwise_count(less, bits)
        np.add(bits, self.start, place)
        if len(self.groups) == 1:
            sums[0] = self.groups[0][1]
            self.values.take(place, None, sums[1:], "clip")
            np.add.accumulate(sums, 0, None, sums)
            return sums[-1:]
        self.values.take(place, None, leaves, "clip")
        return np.array([np.add.accumulate(np.append(base, leaves[mine]), dtype=np.float32)[-1]
                         for mine, base in self.groups], np.float32)


_ONE = np.uint64(1)


def _cuts(thresholds: np.ndarray) -> np.ndarray:
    """The least float64 that becomes a float32 at or above each threshold.

    A float64 is rounded to the nearest float32, of two that are as near to the even one. The
    middle between a threshold and the float32 below it is exact in float64.
    """
    end = 2.0**128  # where float32 would go on, had it more exponents: an infinity stands for it
    below = np.nextafter(thresholds, np.float32(-np.inf)).astype(np.float64).clip(-end, end)
    above = thresholds.astype(np.float64).clip(-end, end)
    middle = below + (above - below) / 2
    with np.errstate(over="ignore"):
        reaches = middle.astype(np.float32) >= thresholds
    cuts = np.where(reaches, middle, np.nextafter(middle, np.inf))
    return np.where(thresholds == -np.inf, -np.inf, cuts)


def _around(codes: np.ndarray) -> np.ndarray:
    """Where each code begins and the next one does."""
    return np.concatenate([codes, codes + 1]).astype(np.float64)
