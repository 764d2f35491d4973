"""64-bit hashes by integer arithmetic on bit patterns: the same on every library and device.

The mixer is SplitMix64's finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014; constants of variant 13 by Stafford).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

Array = Any

GOLDEN = 0x9E3779B97F4A7C15
MISSING_HASH = 0xA0761D6478BD642F
_LARGE_INTEGER = 0xD6E8FEB86659FD93


def mix64(x: Array, xp: Any) -> Array:
    """SplitMix64's finaliser over a uint64 array: every input bit moves every output bit."""
    u = xp.uint64
    with np.errstate(over="ignore"):
        x = x + u(GOLDEN)
        # In place: this runs over every value of every column, and memory is what it waits for.
        shifted = x >> u(30)
        for multiplier, shift in ((0xBF58476D1CE4E5B9, 27), (0x94D049BB133111EB, 31)):
            x ^= shifted
            x *= u(multiplier)
            xp.right_shift(x, u(shift), out=shifted)
        x ^= shifted
        return x


def combine64(a: Array, b: Array, xp: Any) -> Array:
    """The hash of the ordered pair ``(a, b)`` of uint64 hashes."""
    with np.errstate(over="ignore"):
        return mix64(a * xp.uint64(3) ^ b, xp)


def hash_numbers(values: Array, xp: Any) -> Array:
    """uint64 hashes of numbers by value: ``5``, ``5.0`` and a boolean 1 and ``1`` agree.

    A number hashes as the bits of its float64, with -0.0 as 0.0 and every NaN alike; an
    integer past 2^53, which a float64 might not hold, hashes as its own bits.
    """
    with np.errstate(invalid="ignore"):  # of a signalling NaN
        floats = values.astype("float64") + 0.0
    bits = xp.where(xp.isnan(floats), xp.float64("nan"), floats).view("uint64")
    hashed = mix64(bits, xp)
    if values.dtype == "int64":  # no narrower integer is past 2^53
        large = (values > (1 << 53)) | (values < -(1 << 53))
        if bool(large.any()):
            own = mix64(values.astype("int64").view("uint64") ^ xp.uint64(_LARGE_INTEGER), xp)
            hashed = xp.where(large, own, hashed)
    return hashed


def text_parts(strings: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The UTF-8 bytes of an Arrow string array on end, uint8, and where each text ends and
    the next begins: int64 ``[n + 1]`` from 0. A null has no bytes."""
    strings = strings.cast(pa.large_string())
    if len(strings) == 0:
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    _, offset_buffer, data_buffer = strings.buffers()
    first = strings.offset
    offsets = np.frombuffer(offset_buffer, np.int64)[first : first + len(strings) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer else np.empty(0, np.uint8)
    return data[offsets[0] : offsets[-1]], offsets - offsets[0]


def hash_strings(strings: pa.Array) -> np.ndarray:
    """uint64 hashes ``[n]`` of the UTF-8 bytes of an Arrow string array without nulls.

    Works on whole 8-byte words of all strings at once: one round for each eight bytes of
    the longest string, over the strings that still have bytes left.
    """
    if len(strings) == 0:
        return np.empty(0, dtype=np.uint64)
    data, offsets = text_parts(strings)
    data = np.concatenate([data, np.zeros(8, np.uint8)])
    starts, lengths = offsets[:-1], np.diff(offsets)
    hashed = mix64(lengths.astype(np.uint64), np)
    alive = np.flatnonzero(lengths > 0)
    done = 0
    byte = np.arange(8)
    while alive.size:
        words = data[(starts[alive] + done)[:, None] + byte]
        left = lengths[alive] - done
        words = np.where(byte < left[:, None], words, 0).astype(np.uint8)
        word = np.ascontiguousarray(words).view("<u8").ravel()
        hashed[alive] = combine64(hashed[alive], word, np)
        done += 8
        alive = alive[left > 8]
    return hashed
