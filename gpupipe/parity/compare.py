"""How far two values are from each other: equal to the bit, or so many ulps apart.

An ulp is the step from a floating-point number to the next one. Distances are counted in them, for
they mean the same at every magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

APART = 2**64 - 1
"""The distance of a number from a missing one."""


@dataclass(frozen=True)
class Difference:
    """What differs between two values.

    Attributes
    ----------
    found : in words.
    ulps : the largest distance; None where the values are not both floating-point numbers.
    """

    found: str
    ulps: int | None = None


def ulps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances, uint64, of two arrays of one shape and dtype, float32 or float64.

    Two missing values are 0 apart, and so are 0.0 and -0.0.
    """
    signed = np.int32 if a.dtype == np.float32 else np.int64
    places = []
    for values in (a, b):
        bits = np.ascontiguousarray(values).view(signed).astype(np.int64)
        # Negative numbers count downwards from zero, so that the order is that of the numbers.
        places.append(np.where(bits < 0, int(np.iinfo(signed).min) - bits, bits))
    low, high = np.minimum(*places), np.maximum(*places)
    with np.errstate(over="ignore"):
        apart: np.ndarray = high.astype(np.uint64) - low.astype(np.uint64)
    missing = np.isnan(a).astype(np.int8) + np.isnan(b).astype(np.int8)
    return np.where(missing == 0, apart, np.where(missing == 2, 0, APART).astype(np.uint64))


def differs(a: Any, b: Any) -> Difference | None:
    """What differs between two learned values (numbers, text, lists, NumPy or Arrow arrays).

    None where they are equal to the bit.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return _mappings(a, b)
    if type(a) is not type(b):
        return Difference(f"{_short(a)} against {_short(b)}")
    if isinstance(a, float):
        return _arrays(np.array([a]), np.array([b]))
    if isinstance(a, np.ndarray):
        return _arrays(a, b)
    if isinstance(a, pa.Array):
        return _arrow(a, b)
    if isinstance(a, (list, tuple)):
        return _sequences(a, b)
    return None if a == b else Difference(f"{_short(a)} against {_short(b)}")


def _mappings(a: Mapping[str, Any], b: Mapping[str, Any]) -> Difference | None:
    """The worst of what differs under the same names."""
    if set(a) != set(b):
        return Difference(f"{sorted(a)} against {sorted(b)}")
    found = [(name, d) for name in sorted(a) if (d := differs(a[name], b[name])) is not None]
    return _worst([Difference(f"{name}: {d.found}", d.ulps) for name, d in found])


def _sequences(a: Sequence[Any], b: Sequence[Any]) -> Difference | None:
    if len(a) != len(b):
        return Difference(f"{len(a)} values against {len(b)}")
    if a and all(isinstance(v, float) for v in (*a, *b)):
        return _arrays(np.array(a), np.array(b))
    found = [(i, d) for i, (x, y) in enumerate(zip(a, b, strict=True))
             if (d := differs(x, y)) is not None]
    return _worst([Difference(f"[{i}]: {d.found}", d.ulps) for i, d in found])


def _arrays(a: np.ndarray, b: np.ndarray) -> Difference | None:
    if a.dtype != b.dtype or a.shape != b.shape:
        return Difference(f"{a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}")
    if a.tobytes() == b.tobytes():
        return None
    if a.dtype.kind != "f":
        unequal = np.flatnonzero(a.ravel() != b.ravel())
        first = unequal[0]
        return Difference(f"{len(unequal):,} of {a.size:,} values; the first is "
                          f"{_short(a.ravel()[first])} against {_short(b.ravel()[first])}")
    apart = ulps(a, b).ravel()
    worst = int(apart.argmax())
    return Difference(f"{_short(a.ravel()[worst])} against {_short(b.ravel()[worst])}",
                      int(apart[worst]))


def _arrow(a: pa.Array, b: pa.Array) -> Difference | None:
    if a.type != b.type or len(a) != len(b):
        return Difference(f"{len(a):,} values of {a.type} against {len(b):,} of {b.type}")
    if a.equals(b):
        return None
    unequal = [i for i, (x, y) in enumerate(zip(a.to_pylist(), b.to_pylist(), strict=True))
               if x != y]
    first = unequal[0] if unequal else 0
    return Difference(f"{len(unequal):,} of {len(a):,} values; the first is "
                      f"{_short(a[first].as_py())} against {_short(b[first].as_py())}")


def _worst(found: Sequence[Difference]) -> Difference | None:
    """The greatest difference; what has no distance is greater than what has."""
    return max(found, key=lambda d: APART + 1 if d.ulps is None else d.ulps, default=None)


def _short(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def ulps_text(distance: int | None) -> str:
    """A distance in words."""
    if distance is None:
        return "differs"
    if distance == APART:
        return "a number against a missing one"
    return f"{distance:,} ulp" + ("" if distance == 1 else "s")
