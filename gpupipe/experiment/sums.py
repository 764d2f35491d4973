"""What an analysis needs of any number of rows: counts, sums and sums of products, exact.

A `Sums` is kept for every metric, arm and slice. Its numbers are fractions made of the exact digit
sums of `stats.moments`, so that merging is addition without rounding: the same for any
partitioning and any order of the rows, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement

import numpy as np

from gpupipe.engine.frames import Array, Frames
from gpupipe.stats.moments import exact_products, exact_sums, exact_total
from gpupipe.stats.state import Rows, count_cells

_MOST_BUCKETS = 256
"""Buckets that are summed at once: `Rows` sorts them as bytes."""


@dataclass(frozen=True)
class Sums:
    """Sums of ``k`` variables over ``n`` units.

    Attributes
    ----------
    n : how many units.
    first : the sum of each variable.
    second : the sums of products of variables i <= j, in the order (0,0), (0,1), ... (1,1), ...
    """

    n: int
    first: tuple[Fraction, ...]
    second: tuple[Fraction, ...]

    @classmethod
    def nothing(cls, k: int) -> Sums:
        """The sums of ``k`` variables over no unit."""
        return cls(0, (Fraction(0),) * k, (Fraction(0),) * (k * (k + 1) // 2))

    def merge(self, other: Sums) -> Sums:
        """The sums over both sets of units."""
        return Sums(
            self.n + other.n,
            tuple(a + b for a, b in zip(self.first, other.first, strict=True)),
            tuple(a + b for a, b in zip(self.second, other.second, strict=True)),
        )

    def moments(self) -> Moments:
        """Means and covariances, each rounded once. Of fewer than two units the latter are NaN."""
        k, n = len(self.first), self.n
        covariance = np.full((k, k), np.nan)
        if n > 1:
            for (i, j), total in zip(pairs(k), self.second, strict=True):
                exact = (total - self.first[i] * self.first[j] / n) / (n - 1)
                covariance[i, j] = covariance[j, i] = float(exact)
        mean = np.array([float(s / n) for s in self.first]) if n else np.full(k, np.nan)
        return Moments(n, mean, covariance)


@dataclass(frozen=True)
class Moments:
    """Of ``n`` units: float64 means ``[k]`` and covariances ``[k, k]``, with ddof 1."""

    n: int
    mean: np.ndarray
    covariance: np.ndarray

    def mapped(self, matrix: np.ndarray, offset: np.ndarray) -> Moments:
        """The moments of ``matrix @ x + offset``."""
        return Moments(self.n, matrix @ self.mean + offset, matrix @ self.covariance @ matrix.T)


def pairs(k: int) -> list[tuple[int, int]]:
    """The pairs i <= j of ``k`` variables, in the order of `Sums.second`."""
    return list(combinations_with_replacement(range(k), 2))


def sums_of(
    variables: Sequence[Array], bucket: Array, buckets: int, fx: Frames
) -> list[Sums]:
    """The sums of each bucket's rows.

    Parameters
    ----------
    variables : finite float64 ``[n]`` each, on the device.
    bucket : int64 ``[n]``, the bucket of each row; -1 is of none.
    """
    made: list[Sums] = []
    for start in range(0, buckets, _MOST_BUCKETS):
        size = min(_MOST_BUCKETS, buckets - start)
        mine = (bucket >= start) & (bucket < start + size)
        everything = bool(mine.all())
        rows = Rows((bucket if everything else bucket[mine]) - start, size)
        own = list(variables) if everything else [v[mine] for v in variables]
        counts = count_cells(rows.bucket, size, fx)
        first = [exact_sums(v, rows, fx) for v in own]
        second = [exact_products(own[i], own[j], rows, fx) for i, j in pairs(len(own))]
        made += [
            Sums(int(counts[b]), tuple(exact_total(s[b]) for s in first),
                 tuple(exact_total(s[b]) for s in second))
            for b in range(size)
        ]
    return made
