"""Sums of a matrix's columns and of their products that are exact, in any order.

A column is put on a grid of its own: 40 bits below the power of two above its greatest absolute
value, in two digits of 20 bits. That is finer than float32 itself wherever a column's numbers
are within a factor of 2^16 of each other. Products of digits over 8,192 rows add up to less than
2^53, so a matrix product of float64 gives them exactly whatever the order in which BLAS or a GPU
adds (Ozaki et al. 2012, section 3, split matrices for that in the same way), and totals over more
rows are integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array

DIGIT = 20
ROWS = 1 << (53 - 2 * DIGIT)
"""Rows whose products of digits add up exactly in float64."""
HALF = 26
"""Bits of the lower half in which totals are kept, so that no int64 runs over."""


@dataclass(frozen=True)
class Grid:
    """The power of two above each column: ``|x| <= 2 ** exponent``."""

    exponent: np.ndarray

    @classmethod
    def of(cls, chunks: Iterable[Array]) -> Grid:
        """The grid of all rows. Maxima merge, so it is the same for any chunks."""
        most: np.ndarray | None = None
        for chunk in chunks:
            if len(chunk):
                mine = to_host(namespace(chunk).abs(chunk).max(axis=0))
                most = mine if most is None else np.maximum(most, mine)
        assert most is not None, "there are no rows"
        return cls(np.frexp(most)[1].astype(np.int64))

    def digits(self, x: Array) -> tuple[Array, Array]:
        """``x`` in units of ``2 ** (exponent - 40)``: upper and lower digit, as float64."""
        xp = namespace(x)
        scaled = x * xp.asarray(np.ldexp(1.0, DIGIT - self.exponent))
        upper = xp.rint(scaled)
        return upper, xp.rint((scaled - upper) * 2.0**DIGIT)

    def values(self, units: np.ndarray) -> np.ndarray:
        """Numbers in units of the grid (Python integers or floats), as float64."""
        return np.ldexp(units.astype(np.float64), self.exponent - 2 * DIGIT)


@dataclass(frozen=True)
class Gram:
    """Sums ``[p]`` and sums of products ``[p, p]`` over ``rows`` rows, in units of the grid.

    They are Python integers, so what follows from them has no rounding error of its own.
    """

    grid: Grid
    rows: int
    first: np.ndarray
    second: np.ndarray

    @classmethod
    def of(cls, chunks: Callable[[], Iterable[Array]]) -> Gram:
        """The sums of all chunks, which are asked for twice."""
        grid = Grid.of(chunks())
        width = len(grid.exponent)
        rows, first = 0, (Total((width,)), Total((width,)))
        second = tuple(Total((width, width)) for _ in range(3))
        for chunk in chunks():
            rows += int(chunk.shape[0])
            for start in range(0, int(chunk.shape[0]), ROWS):
                upper, lower = grid.digits(chunk[start : start + ROWS])
                for total, found in zip(first, (upper.sum(axis=0), lower.sum(axis=0)),
                                        strict=True):
                    total.add(found)
                products = upper.T @ upper, upper.T @ lower, lower.T @ lower
                for total, found in zip(second, products, strict=True):
                    total.add(found)
        high, cross, low = (t.units() for t in second)
        return cls(grid, rows, joined(first[0].units(), first[1].units()),
                   joined(joined(high, cross + cross.T), low))

    def mean(self) -> np.ndarray:
        """The columns' means ``[p]``."""
        return self.grid.values(self.first / self.rows)

    def covariance(self, ddof: int) -> np.ndarray:
        """The covariance matrix ``[p, p]``, with ``ddof`` as in NumPy."""
        apart = self.rows * self.second - np.multiply.outer(self.first, self.first)
        return self._products(apart / (self.rows * (self.rows - ddof)))

    def products(self) -> np.ndarray:
        """The sums of products ``[p, p]``."""
        return self._products(self.second)

    def _products(self, units: np.ndarray) -> np.ndarray:
        """Numbers in units of two columns' grids, as float64."""
        places = self.grid.exponent - 2 * DIGIT
        return np.ldexp(units.astype(np.float64), np.add.outer(places, places))


class Total:
    """A running total of whole numbers below 2^53 that float64 arrays hold."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.halves = np.zeros((2, *shape), np.int64)

    def add(self, values: Array) -> None:
        whole = to_host(values).astype(np.int64)
        self.halves[0] += whole >> HALF
        self.halves[1] += whole & ((1 << HALF) - 1)

    def units(self) -> np.ndarray:
        """The total as Python integers."""
        high, low = self.halves.astype(object)
        return high * 2**HALF + low


def joined(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The number that is made of two digits, or of all digits so far and one more."""
    return upper * 2**DIGIT + lower
