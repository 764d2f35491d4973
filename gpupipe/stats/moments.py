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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Self

import numpy as np

from gpupipe.engine.frames import Array, Column, Frames, NumpyFrames
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
_CHUNK = {"cpu": 32_768, "cuda": 1 << 20}
"""Rows at a time: what the temporaries of a chunk hold stays in a CPU's cache, and a GPU is
kept busy. Sums are the same for any."""


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
            [Column("float64", np.array([value]))], Rows(np.zeros(1, np.int64), 1), NumpyFrames()
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

    state: ClassVar[type[State]] = MomentState

    squares: bool = False

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> MomentState:
        (column,) = columns
        xp, b = fx.xp, rows.buckets
        missing = fx.is_missing(column)
        if column.dtype == "string":
            return self._of_text(missing, rows.bucket, b, fx)
        values = fx.numbers(column)
        finite = xp.isfinite(values)
        x = values if bool(finite.all()) else xp.where(finite, values, 0.0)
        # 0: missing, 1: infinite, 2: another number than zero, 3: zero
        kind = xp.where(finite, 2 + (x == 0), ~missing)
        kinds = count_cells(rows.bucket * 4 + kind, b * 4, fx).reshape(b, 4)
        return MomentState(
            count=kinds[:, 2] + kinds[:, 3], missing=kinds[:, 0], infinite=kinds[:, 1],
            zeros=kinds[:, 3], sums=exact_sums(x, rows, fx),
            squares=exact_products(x, x, rows, fx) if self.squares
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

    state: ClassVar[type[State]] = ProductState

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> ProductState:
        xp, b = fx.xp, rows.buckets
        left, right = (fx.numbers(c) for c in columns)
        both = xp.isfinite(left) & xp.isfinite(right)
        x, y = xp.where(both, left, 0.0), xp.where(both, right, 0.0)
        return ProductState(
            count=count_cells(rows.bucket[both], b, fx), left=exact_sums(x, rows, fx),
            right=exact_sums(y, rows, fx), products=exact_products(x, y, rows, fx),
        )


def exact_sums(x: Array, rows: Rows, fx: Frames) -> np.ndarray:
    """Digit sums of finite float64 values: int64 ``[buckets, DIGITS]``."""
    sums = np.zeros((rows.buckets, DIGITS), np.int64)
    for own, (piece,) in _pieces((x,), rows, fx):
        _add(sums[own], piece, 0, fx)
    return sums


def exact_products(x: Array, y: Array, rows: Rows, fx: Frames) -> np.ndarray:
    """Digit sums of ``x * y``: int64 ``[buckets, PRODUCT_DIGITS]``, without rounding."""
    sums = np.zeros((rows.buckets, PRODUCT_DIGITS), np.int64)
    for own, (a, b) in _pieces((x, y), rows, fx):
        left = _moved(a, fx)
        right = left if y is x else _moved(b, fx)
        for u, lift_u in left:
            for v, lift_v in right:
                product = u * v
                place = 2 * LIFT - lift_u - lift_v
                _add(sums[own], product, place, fx)
                _add(sums[own], _product_error(u, v, product), place, fx)
    return sums


def _pieces(
    columns: tuple[Array, ...], rows: Rows, fx: Frames
) -> Iterator[tuple[int, tuple[Array, ...]]]:
    """The rows of each bucket, some at a time: the bucket, and the columns' values."""
    order, places = rows.by_bucket
    if order is not None:
        columns = tuple(c[order] for c in columns) if len(columns) == 1 or (
            columns[0] is not columns[1]) else (columns[0][order],) * 2
    chunk = _CHUNK[fx.device]
    for own, place in enumerate(places):
        for start in range(place.start, place.stop, chunk):
            piece = slice(start, min(start + chunk, place.stop))
            yield own, tuple(c[piece] for c in columns)


def _moved(x: Array, fx: Frames) -> list[tuple[Array, int]]:
    """The values in up to three groups, each moved by 2^lift to where products neither over-
    nor underflow: that is a function of the value alone. A group has 0 for others' values."""
    size = fx.xp.abs(x)
    if float(size.min()) >= 2.0**-400 and float(size.max()) <= 2.0**400:
        return [(x, 0)]
    great, small = size > 2.0**400, (size < 2.0**-400) & (size > 0)
    if not bool((great | small).any()):
        return [(x, 0)]
    groups = ((great, -LIFT), (small, LIFT), (~(great | small), 0))
    return [(fx.xp.where(mine, x, 0.0) * 2.0**lift, lift) for mine, lift in groups
            if bool(mine.any())]


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


def _add(sums: np.ndarray, x: Array, lift: int, fx: Frames) -> None:
    """Add the digits of ``x * 2^lift`` to one bucket's sums, in place. 32 divides ``lift``."""
    xp = fx.xp
    size = float(xp.abs(x).max())
    if size >= 2.0**900:
        # The rounding constant of such a digit would overflow: take these down by 2^256.
        great = xp.abs(x) >= 2.0**900
        _add(sums, xp.where(great, x * 2.0**-256, 0.0), lift + 256, fx)
        x = xp.where(great, 0.0, x)
        size = float(xp.abs(x).max())
    digit = DIGITS
    while size > 0:
        # A digit that rounds to 0 everywhere may be passed over, and none comes twice.
        digit = min(digit - 1, (math.frexp(size)[1] - LOWEST) // BASE_BITS)
        grid = LOWEST + BASE_BITS * digit
        # Adding and taking away 1.5 * 2^(grid + 52) rounds to a multiple of 2^grid.
        anchor = math.ldexp(1.5, grid + 52)
        part = (x + anchor) - anchor if grid > -1074 else x
        # Digits add up without rounding, so a plain sum is as good as any.
        sums[digit + lift // BASE_BITS] += int(math.ldexp(float(part.sum()), -grid))
        x = x - part
        size = float(xp.abs(x).max())


def exact_total(digits: np.ndarray) -> Fraction:
    """The number that digit sums stand for, without rounding."""
    lowest = LOWEST - (2 * LIFT if len(digits) == PRODUCT_DIGITS else 0)
    total = sum(int(digits[d]) << (BASE_BITS * int(d)) for d in np.flatnonzero(digits))
    return Fraction(total) * Fraction(2) ** lowest
