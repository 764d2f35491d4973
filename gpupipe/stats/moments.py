"""Exact counts, sums, sums of squares and of cross-products of floating-point numbers.

A float64 is a 53-bit integer times a power of two. Bucketed by exponent, the integers add
up without rounding, so a sum is exact and free of order; it is rounded once, when it is
asked for. The square of a float64 is the exact sum of two float64s (the product and its
rounding error: Dekker, "A floating-point technique for extending the available precision",
Numer. Math. 18, 1971), so sums of squares and of products are exact in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from gpupipe.engine.frames import Array, Column, Frames
from gpupipe.stats.state import Rows, State, added, count_cells, sum_cells

EXPONENTS = 2048
"""Biased exponents of a float64."""
PRODUCT_EXPONENTS = 2 * EXPONENTS + 2048
"""Exponents of a product of two normalised mantissas, with room for its error term."""
_CHUNK = 32_768
"""Rows at a time: what the temporaries of a chunk hold stays in the cache."""


@dataclass(frozen=True)
class MomentState(State):
    """Counts ``[b]`` and exact sums ``[b, 2, EXPONENTS]`` (high and low mantissa halves).

    ``squares`` is ``[b, 2, PRODUCT_EXPONENTS]``, or ``[b, 2, 0]`` where none were asked for.
    """

    count: np.ndarray = added()
    missing: np.ndarray = added()
    infinite: np.ndarray = added()
    zeros: np.ndarray = added()
    sums: np.ndarray = added()
    squares: np.ndarray = added()

    def total(self, bucket: int = 0) -> Fraction:
        """The exact sum of a bucket's finite values."""
        return exact_total(self.sums[bucket], EXPONENT_UNIT)

    def total_of_squares(self, bucket: int = 0) -> Fraction:
        """The exact sum of squares of a bucket's finite values."""
        return exact_total(self.squares[bucket], PRODUCT_UNIT)

    def mean(self, bucket: int = 0) -> float:
        """The mean, rounded once; NaN where there is no value."""
        n = int(self.count[bucket])
        return float(self.total(bucket) / n) if n else float("nan")

    def variance(self, bucket: int = 0, ddof: int = 0) -> float:
        """The variance with ``ddof`` as in NumPy, rounded once; NaN where n <= ddof."""
        n = int(self.count[bucket])
        if n <= ddof:
            return float("nan")
        total = self.total(bucket)
        return float((self.total_of_squares(bucket) - total * total / n) / (n - ddof))


@dataclass(frozen=True)
class Moments:
    """Counts and exact sums of one column; with ``squares`` also its exact squares."""

    squares: bool = False

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> MomentState:
        (column,) = columns
        xp, b = fx.xp, rows.buckets
        missing = fx.is_missing(column)
        if column.levels is not None:
            return self._of_text(missing, rows, fx)
        values = fx.numbers(column)
        finite = xp.isfinite(values)
        bucket = rows.bucket.astype("int64")
        infinite = ~finite & ~missing
        x, where = (values, bucket) if bool(finite.all()) else (values[finite], bucket[finite])
        return MomentState(
            count=count_cells(where, b, fx),
            missing=count_cells(bucket[missing], b, fx),
            infinite=count_cells(bucket[infinite], b, fx),
            zeros=count_cells(where[x == 0], b, fx),
            sums=exact_sums(x, where, b, fx),
            squares=exact_products(x, x, where, b, fx) if self.squares
            else np.zeros((b, 2, 0), np.int64),
        )


    def _of_text(self, missing: Array, rows: Rows, fx: Frames) -> MomentState:
        """Text has no sums; what there is and what is missing is counted all the same."""
        b = rows.buckets
        bucket = rows.bucket.astype("int64")
        nothing = np.zeros(b, np.int64)
        return MomentState(
            count_cells(bucket[~missing], b, fx), count_cells(bucket[missing], b, fx), nothing,
            nothing, np.zeros((b, 2, EXPONENTS), np.int64), np.zeros((b, 2, 0), np.int64),
        )


@dataclass(frozen=True)
class ProductState(State):
    """Exact sums over the rows where both columns are finite.

    ``count`` is ``[b]``, ``left`` and ``right`` are ``[b, 2, EXPONENTS]`` and ``products`` is
    ``[b, 2, PRODUCT_EXPONENTS]``.
    """

    count: np.ndarray = added()
    left: np.ndarray = added()
    right: np.ndarray = added()
    products: np.ndarray = added()

    def covariance(self, bucket: int = 0, ddof: int = 0) -> float:
        """The covariance, rounded once; NaN where n <= ddof."""
        n = int(self.count[bucket])
        if n <= ddof:
            return float("nan")
        x = exact_total(self.left[bucket], EXPONENT_UNIT)
        y = exact_total(self.right[bucket], EXPONENT_UNIT)
        return float((exact_total(self.products[bucket], PRODUCT_UNIT) - x * y / n) / (n - ddof))


@dataclass(frozen=True)
class CrossProducts:
    """Exact sums of the products of two columns, over the rows where both have a value."""

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> ProductState:
        left, right = (fx.numbers(c) for c in columns)
        both = fx.xp.isfinite(left) & fx.xp.isfinite(right)
        x, y, bucket = left[both], right[both], rows.bucket.astype("int64")[both]
        b = rows.buckets
        return ProductState(
            count=count_cells(bucket, b, fx),
            left=exact_sums(x, bucket, b, fx),
            right=exact_sums(y, bucket, b, fx),
            products=exact_products(x, y, bucket, b, fx),
        )


_LOW = 26
"""Bits in the low half of a mantissa; the high half has 27."""
EXPONENT_UNIT = -1075
"""Cell e of a sum counts units of 2^(e - 1075)."""
PRODUCT_UNIT = -1075 - EXPONENTS
"""Cell e of a sum of products counts units of 2^(e - 1075 - 2048)."""


def exact_sums(x: Array, bucket: Array, buckets: int, fx: Frames) -> np.ndarray:
    """Mantissa sums of finite float64 values: int64 ``[buckets, 2, EXPONENTS]``."""
    sums = np.zeros((buckets, 2, EXPONENTS), np.int64)
    for start in range(0, int(x.shape[0]), _CHUNK):
        piece = slice(start, start + _CHUNK)
        _add(sums, x[piece], 0, bucket[piece], fx)
    return sums


def exact_products(x: Array, y: Array, bucket: Array, buckets: int, fx: Frames) -> np.ndarray:
    """Mantissa sums of ``x * y``: int64 ``[buckets, 2, PRODUCT_EXPONENTS]``, without rounding.

    Mantissas are multiplied, not the numbers, so nothing overflows or is lost below.
    """
    xp = fx.xp
    sums = np.zeros((buckets, 2, PRODUCT_EXPONENTS), np.int64)
    for start in range(0, int(x.shape[0]), _CHUNK):
        piece = slice(start, start + _CHUNK)
        mx, ex = xp.frexp(x[piece])
        my, ey = (mx, ex) if y is x else xp.frexp(y[piece])
        shift = ex.astype("int64") + ey + EXPONENTS
        product = mx * my
        _add(sums, product, shift, bucket[piece], fx)
        _add(sums, _product_error(mx, my, product), shift, bucket[piece], fx)
    return sums


def _product_error(x: Array, y: Array, product: Array) -> Array:
    """``x * y - product`` exactly, for mantissas in [0.5, 1): Dekker's product."""
    split = float((1 << 27) + 1)
    a = x * split
    x_high = a - (a - x)
    x_low = x - x_high
    c = y * split
    y_high = c - (c - y)
    y_low = y - y_high
    return ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low


def _add(sums: np.ndarray, x: Array, shift: Array | int, bucket: Array, fx: Frames) -> None:
    """Add the mantissas of ``x * 2^shift`` to the cells of their exponents, in place."""
    xp = fx.xp
    bits = x.view("int64")
    exponent = (bits >> 52) & 0x7FF
    mantissa = bits & ((1 << 52) - 1)
    normal = exponent > 0
    mantissa = xp.where(normal, mantissa | (1 << 52), mantissa)
    mantissa = xp.where(bits < 0, -mantissa, mantissa)
    cell = xp.where(normal, exponent, 1) + shift
    # Zeros add nothing, wherever their cell would be.
    cell = xp.where(mantissa == 0, 0, cell)
    width = sums.shape[2]
    low_cell = int(cell.min()) if cell.size else 0
    span = (int(cell.max()) if cell.size else 0) - low_cell + 1
    key = bucket * span + (cell - low_cell)
    high = mantissa >> _LOW
    for half, part in ((0, high), (1, mantissa - (high << _LOW))):
        cells = sum_cells(key, part.astype("float64"), sums.shape[0] * span, fx)
        sums[:, half, low_cell : low_cell + span] += cells.reshape(-1, span)
    assert low_cell + span <= width


def exact_total(halves: np.ndarray, unit: int) -> Fraction:
    """The number that the mantissa sums ``[2, exponents]`` stand for, without rounding."""
    total = 0
    for cell in np.flatnonzero(halves.any(axis=0)):
        high, low = int(halves[0, cell]), int(halves[1, cell])
        total += ((high << _LOW) + low) << int(cell)
    return Fraction(total) * Fraction(2) ** unit
