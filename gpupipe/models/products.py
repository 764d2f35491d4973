"""Products of matrices that are the same to the last bit in any order of adding.

A library adds up a product in an order that depends on how many rows there are, on the processor
and on its threads. Here each row is first written as two slices of whole numbers, so short
that every sum of their products stays below 2^53: then no addition rounds, and the order is of
no matter (Ozaki, Ogita, Oishi and Rump, "Error-free transformations of matrix multiplication",
Numer. Algorithms 59, 2012). What lies below both slices is dropped: some 2^-44 of a row's
greatest value for a hundred columns, 2^-36 for a hundred thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array

LEAST = 2.0**-1022
"""The least power of two that is not written with fewer bits."""


@dataclass(frozen=True)
class Sliced:
    """Rows ``(high + low / 2^bits) * 2 / 2^bits * scale``: whole float64 ``[n, width]``, ``[n]``.

    A scale is the power of two at or below the row's greatest value.
    """

    high: Array
    low: Array
    scale: Array
    bits: int


def sliced(x: Array) -> Sliced:
    """The rows of a float64 matrix ``[n, width]`` of finite values in two slices."""
    xp = namespace(x)
    bits = (53 - max(1, int(x.shape[1]) - 1).bit_length()) // 2
    exponent = xp.abs(x).max(axis=1).view("int64") >> 52
    scale = xp.maximum((exponent << 52).view("float64"), LEAST)
    lifted = x / scale[:, None] * 2.0 ** (bits - 1)  # powers of two: nothing is rounded
    high = xp.rint(lifted)
    return Sliced(high, xp.rint((lifted - high) * 2.0**bits), scale, bits)


def product(left: Sliced, right: Sliced) -> Array:
    """``left @ right.T``: float64 ``[n, m]``, each a function of its two rows alone."""
    xp = namespace(left.high)
    great = left.high @ right.high.T
    small = xp.concatenate([left.high, left.low], axis=1) @ xp.concatenate(
        [right.low, right.high], axis=1).T
    unit = 2.0 ** (1 - left.bits)
    whole = great + small * 2.0**-left.bits
    return whole * (left.scale[:, None] * unit) * (right.scale * unit)
