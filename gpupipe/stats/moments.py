"""Exact counts, sums, sums of squares and of cross-products of floating-point numbers.

A float64 is written in signed digits of base 2^32 on one fixed grid: rounding it to a
multiple of 2^g, for falling g, takes one digit at a time (pre-rounded summation: Demmel and
Nguyen, "Parallel reproducible summation", IEEE Trans. Computers 64, 2015). A digit is a
function of the value alone, digits of a kind add up as integers, and the digits' sums are
put together once, when the total is asked for: exact, and free of order. The square of a
float64 is the exact sum of two float64s, the product and its rounding error (Dekker, "A
floating-point technique for extending the available precision", Numer. Math. 18, 1971), so
sums of squares and of products are exact in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

import numpy as np

from gpupipe.engine.frames import Array, Column, Frames, PandasFrames
from gpupipe.stats.state import Rows, State, added, count_cells

BASE_BITS = 32
"""Bits of a digit. With 2^20 rows at a time a sum of digits stays below 2^52, so exact."""
LOWEST = -1088
"""Exponent of the lowest grid: a multiple of the base at or below the least float64's, -1074."""
DIGITS = 70
"""Digits from there up to past the greatest float64."""
LIFT = 704
"""Numbers too great or too small to be multiplied in float64 are first moved by 2^+-704."""
PRODUCT_DIGITS = DIGITS + 4 * LIFT // BASE_BITS
_CHUNK = 32_768
"""Rows at a time: what the temporaries of a chunk hold stays in the cache."""


@dataclass(frozen=True)
class MomentState(State):
    """Counts ``[b]`` and exact sums: int64 digits ``[b, DIGITS]``.

    ``squares`` is ``[b, PRODUCT_DIGITS]``, or ``[b, 0]`` where none were asked for.
    """

    count: np.ndarray = added()
    missing: np.ndarray = added()
    infinite: np.ndarray = added()
    zeros: np.ndarray = added()
    sums: np.ndarray = added()
    squares: np.ndarray = added()

    def total(self, bucket: int = 0) -> Fraction:
        """The exact sum of a bucket's finite values."""
        return exact_total(self.sums[bucket])

    def total_of_squares(self, bucket: int = 0) -> Fraction:
        """The exact sum of squares of a bucket's finite values."""
        return exact_total(self.squares[bucket])

    def mean(self, bucket: int = 0) -> float:
        """The mean, rounded once; NaN where there is no value."""
        n = int(self.count[bucket])
        return float(self.total(bucket) / n) if n else float("nan")

    def variance(self, bucket: int = 0, ddof: int = 0) -> float:
        """The variance with ``ddof`` as in NumPy, rounded once; NaN where n <= ddof."""
        exact = self._variance(bucket, ddof)
        return float("nan") if exact is None else float(exact)

    def std(self, bucket: int = 0, ddof: int = 0) -> float:
        """The standard deviation with ``ddof`` as in NumPy; it exists where the variance
        is too great or too small for a float. NaN where n <= ddof."""
        exact = self._variance(bucket, ddof)
        if not exact:
            return float("nan") if exact is None else 0.0
        # Scaled by 4^k to some 128 bits before the integer root: far finer than a float.
        k = 64 - (exact.numerator.bit_length() - exact.denominator.bit_length()) // 2
        return float(Fraction(math.isqrt(int(exact * Fraction(4) ** k))) / Fraction(2) ** k)

    def filled(self, value: float) -> Self:
        """The state of the column after ``value`` was put where none was, or an infinity."""
        holes = self.missing + self.infinite
        one = Moments(self.squares.shape[1] > 0).partial(
            [Column("float64", np.array([value]))], Rows(np.zeros(1, np.int64), 1), PandasFrames()
        )
        return replace(
            self, count=self.count + holes, missing=0 * holes, infinite=0 * holes,
            zeros=self.zeros + holes * one.zeros, sums=self.sums + holes[:, None] * one.sums,
            squares=self.squares + holes[:, None] * one.squares,
        )

    def _variance(self, bucket: int, ddof: int) -> Fraction | None:
        n = int(self.count[bucket])
        if n <= ddof:
            return None
        total = self.total(bucket)
        return (self.total_of_squares(bucket) - total * total / n) / (n - ddof)


@dataclass(frozen=True)
class Moments:
    """Counts and exact sums of one column; with ``squares`` also its exact squares."""

    squares: bool = False

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> MomentState:
        (column,) = columns
        xp, b = fx.xp, rows.buckets
        bucket = rows.bucket
        missing = fx.is_missing(column)
        if column.levels is not None:
            return self._of_text(missing, bucket, b, fx)
        values = fx.numbers(column)
        finite = xp.isfinite(values)
        x, where = (values, bucket) if bool(finite.all()) else (values[finite], bucket[finite])
        return MomentState(
            count=count_cells(where, b, fx),
            missing=count_cells(bucket[missing], b, fx),
            infinite=count_cells(bucket[~finite & ~missing], b, fx),
            zeros=count_cells(where[x == 0], b, fx),
            sums=exact_sums(x, where, b, fx),
            squares=exact_products(x, x, where, b, fx) if self.squares
            else np.zeros((b, 0), np.int64),
        )

    def _of_text(self, missing: Array, bucket: Array, b: int, fx: Frames) -> MomentState:
        """Text has no sums; what there is and what is missing is counted all the same."""
        nothing = np.zeros(b, np.int64)
        return MomentState(
            count_cells(bucket[~missing], b, fx), count_cells(bucket[missing], b, fx), nothing,
            nothing, np.zeros((b, DIGITS), np.int64), np.zeros((b, 0), np.int64),
        )


@dataclass(frozen=True)
class ProductState(State):
    """Exact sums over the rows where both columns are finite.

    ``count`` is ``[b]``, ``left`` and ``right`` are ``[b, DIGITS]`` and ``products`` is
    ``[b, PRODUCT_DIGITS]``.
    """

    count: np.ndarray = added()
    left: np.ndarray = added()
    right: np.ndarray = added()
    products: np.ndarray = added()

    def total_of_products(self, bucket: int = 0) -> Fraction:
        """The exact sum of the products of a bucket's rows."""
        return exact_total(self.products[bucket])

    def covariance(self, bucket: int = 0, ddof: int = 0) -> float:
        """The covariance, rounded once; NaN where n <= ddof."""
        n = int(self.count[bucket])
        if n <= ddof:
            return float("nan")
        x, y = exact_total(self.left[bucket]), exact_total(self.right[bucket])
        return float((self.total_of_products(bucket) - x * y / n) / (n - ddof))


@dataclass(frozen=True)
class CrossProducts:
    """Exact sums of the products of two columns, over the rows where both have a value."""

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> ProductState:
        left, right = (fx.numbers(c) for c in columns)
        both = fx.xp.isfinite(left) & fx.xp.isfinite(right)
        x, y, bucket = left[both], right[both], rows.bucket[both]
        b = rows.buckets
        return ProductState(
            count=count_cells(bucket, b, fx),
            left=exact_sums(x, bucket, b, fx),
            right=exact_sums(y, bucket, b, fx),
            products=exact_products(x, y, bucket, b, fx),
        )


def exact_sums(x: Array, bucket: Array, buckets: int, fx: Frames) -> np.ndarray:
    """Digit sums of finite float64 values: int64 ``[buckets, DIGITS]``."""
    sums = np.zeros((buckets, DIGITS), np.int64)
    for start in range(0, int(x.shape[0]), _CHUNK):
        piece = slice(start, start + _CHUNK)
        _add(sums, x[piece], bucket[piece], 0, fx)
    return sums


def exact_products(x: Array, y: Array, bucket: Array, buckets: int, fx: Frames) -> np.ndarray:
    """Digit sums of ``x * y``: int64 ``[buckets, PRODUCT_DIGITS]``, without rounding."""
    sums = np.zeros((buckets, PRODUCT_DIGITS), np.int64)
    for start in range(0, int(x.shape[0]), _CHUNK):
        piece = slice(start, start + _CHUNK)
        left = _moved(x[piece], fx)
        right = left if y is x else _moved(y[piece], fx)
        for a, lift_a, rows_a in left:
            for b, lift_b, rows_b in right:
                u, v, where = _meeting(a, rows_a, b, rows_b, bucket[piece], fx)
                product = u * v
                place = 2 * LIFT - lift_a - lift_b
                _add(sums, product, where, place, fx)
                _add(sums, _product_error(u, v, product), where, place, fx)
    return sums


Moved = tuple[Array, int, Array | None]
"""Values times 2^lift, the lift, and which rows of the chunk they are (None: all)."""


def _moved(x: Array, fx: Frames) -> list[Moved]:
    """The values in up to three groups, each moved to where products neither over- nor
    underflow: that is a function of the value alone. Zeros go along with any."""
    size = fx.xp.abs(x)
    great, small = size > 2.0**400, (size < 2.0**-400) & (size > 0)
    if not bool((great | small).any()):
        return [(x, 0, None)]
    groups = ((great, -LIFT), (small, LIFT), (~(great | small), 0))
    return [(x[rows] * 2.0**lift, lift, rows) for rows, lift in groups if bool(rows.any())]


def _meeting(
    a: Array, rows_a: Array | None, b: Array, rows_b: Array | None, bucket: Array, fx: Frames
) -> tuple[Array, Array, Array]:
    """The values of both groups in the rows that they share, and those rows' buckets."""
    if rows_a is None and rows_b is None:
        return a, b, bucket
    every = fx.xp.ones(bucket.shape, dtype=bool)
    rows_a, rows_b = every if rows_a is None else rows_a, every if rows_b is None else rows_b
    both = rows_a & rows_b
    return a[both[rows_a]], b[both[rows_b]], bucket[both]


def _product_error(x: Array, y: Array, product: Array) -> Array:
    """``x * y - product`` exactly (Dekker), for factors that do not over- or underflow."""
    split = float((1 << 27) + 1)
    a = x * split
    x_high = a - (a - x)
    x_low = x - x_high
    c = y * split
    y_high = c - (c - y)
    y_low = y - y_high
    return ((x_high * y_high - product) + x_high * y_low + x_low * y_high) + x_low * y_low


def _add(sums: np.ndarray, x: Array, bucket: Array, lift: int, fx: Frames) -> None:
    """Add the digits of ``x * 2^lift`` to the sums, in place. ``lift`` is a multiple of 32."""
    if not x.shape[0]:
        return
    xp, buckets = fx.xp, sums.shape[0]
    size = float(xp.abs(x).max())
    if size >= 2.0**900:
        # The rounding constant of such a digit would overflow: take these down by 2^256.
        great = xp.abs(x) >= 2.0**900
        _add(sums, x[great] * 2.0**-256, bucket[great], lift + 256, fx)
        x, bucket = x[~great], bucket[~great]
        size = float(xp.abs(x).max()) if x.shape[0] else 0.0
    rest = x
    digit = (int(np.frexp(size)[1]) - LOWEST) // BASE_BITS if size else -1
    while digit >= 0:
        grid = LOWEST + BASE_BITS * digit
        # Adding and taking away 1.5 * 2^(grid + 52) rounds to a multiple of 2^grid.
        anchor = float(np.ldexp(1.5, grid + 52))
        part = (rest + anchor) - anchor if grid > -1074 else rest
        # Digits add up without rounding, so a plain sum is as good where it is enough.
        total = fx.to_host(part.sum(keepdims=True) if buckets == 1 else
                           xp.bincount(bucket, weights=part, minlength=buckets))
        sums[:, digit + lift // BASE_BITS] += np.ldexp(total, -grid).astype(np.int64)
        rest = rest - part
        if not bool(rest.any()):
            return
        digit -= 1


def exact_total(digits: np.ndarray) -> Fraction:
    """The number that digit sums stand for, without rounding."""
    lowest = LOWEST - (2 * LIFT if len(digits) == PRODUCT_DIGITS else 0)
    total = sum(int(digits[d]) << (BASE_BITS * int(d)) for d in np.flatnonzero(digits))
    return Fraction(total) * Fraction(2) ** lowest
