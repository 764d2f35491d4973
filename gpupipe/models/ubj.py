"""Universal Binary JSON, in which XGBoost writes models: written, and read without trust.

Source: https://ubjson.org/type-reference. An array of numbers of one type is a NumPy array here,
and big-endian in the file.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

MARKS = {"float32": b"d", "int32": b"l", "int64": b"L", "uint8": b"U"}
"""The marks of the types of arrays that are written."""
NUMBERS = {ord(mark): np.dtype(kind) for mark, kind in {
    "i": "i1", "U": "u1", "I": ">i2", "l": ">i4", "L": ">i8", "d": ">f4", "D": ">f8"}.items()}
"""The types of numbers, by mark."""
DEPTH = 32
"""How deep a structure may be; XGBoost's are of ten levels or so."""


def written(value: Any) -> bytes:
    """Plain data as UBJ."""
    if isinstance(value, dict):
        return b"{" + b"".join(_sized(k.encode()) + written(v) for k, v in value.items()) + b"}"
    if isinstance(value, str):
        return b"S" + _sized(value.encode())
    if isinstance(value, np.ndarray):
        numbers = value.astype(value.dtype.newbyteorder(">")).tobytes()
        return b"[$" + MARKS[value.dtype.name] + b"#" + _count(len(value)) + numbers
    if isinstance(value, list):
        return b"[#" + _count(len(value)) + b"".join(map(written, value))
    return _count(value)


def _count(number: int) -> bytes:
    return b"L" + number.to_bytes(8, "big", signed=True)


def _sized(text: bytes) -> bytes:
    return _count(len(text)) + text


def read(data: bytes) -> Any:
    """The plain data of UBJ. ValueError where it is not, or goes on after its end."""
    try:
        value, end = _value(data, 0, DEPTH)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ValueError(f"the model's bytes end or break off: {error}") from None
    if end != len(data):
        raise ValueError("the model's bytes go on after its end")
    return value


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """The value whose mark is at ``at``, and where the next one begins."""
    mark = data[at]
    if mark == 0x7B:  # {
        return _object(data, at + 1, depth - 1)
    if mark == 0x5B:  # [
        return _array(data, at + 1, depth - 1)
    if mark == 0x53:  # S
        return _text(data, at + 1)
    if mark in NUMBERS:
        kind = NUMBERS[mark]
        end = at + 1 + kind.itemsize
        if end > len(data):
            raise IndexError("a number is cut off")
        return np.frombuffer(data, kind, 1, at + 1)[0].item(), end
    if mark in b"TFZ":
        return {0x54: True, 0x46: False, 0x5A: None}[mark], at + 1
    raise ValueError(f"the model's bytes have the unknown mark {mark:#04x} at {at}")


def _length(data: bytes, at: int) -> tuple[int, int]:
    if data[at] == 0x4C:  # L, which is what XGBoost writes
        (number,) = struct.unpack_from(">q", data, at + 1)
        end = at + 9
    else:
        number, end = _value(data, at, 0)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= len(data):
        raise ValueError(f"a length of {number!r} at {at} of the model's bytes")
    return number, end


def _text(data: bytes, at: int) -> tuple[str, int]:
    size, at = _length(data, at)
    if at + size > len(data):
        raise IndexError("a text is cut off")
    return data[at : at + size].decode(), at + size


def _object(data: bytes, at: int, depth: int) -> tuple[dict[str, Any], int]:
    if depth < 0:
        raise ValueError("the model's bytes are nested too deep")
    found: dict[str, Any] = {}
    while data[at] != 0x7D:  # }
        key, at = _text(data, at)
        if key in found:
            raise ValueError(f"the model's bytes have {key!r} twice")
        found[key], at = _value(data, at, depth)
    return found, at + 1


def _array(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth < 0:
        raise ValueError("the model's bytes are nested too deep")
    if data[at] == 0x24:  # $: numbers of one type
        kind = NUMBERS.get(data[at + 1])
        if kind is None or data[at + 2] != 0x23:
            raise ValueError(f"the model's bytes have an array of an unknown type at {at}")
        count, at = _length(data, at + 3)
        end = at + count * kind.itemsize
        if end > len(data):
            raise IndexError("an array is cut off")
        return np.frombuffer(data, kind, count, at).astype(kind.newbyteorder("=")), end
    items = []
    if data[at] == 0x23:  # #: so many values
        count, at = _length(data, at + 1)
        for _ in range(count):
            item, at = _value(data, at, depth)
            items.append(item)
        return items, at
    while data[at] != 0x5D:  # ]
        item, at = _value(data, at, depth)
        items.append(item)
    return items, at + 1
