"""Which array library an array belongs to, without importing one that is not in use."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any
"""A NumPy or CuPy array."""


def namespace(array: Array) -> Any:
    """The module whose functions work on ``array``: ``cupy`` for a CuPy array, else ``numpy``."""
    if type(array).__module__.partition(".")[0] == "cupy":
        import cupy

        return cupy
    return np


def to_host(array: Array) -> np.ndarray:
    """``array`` as a NumPy array; copied from the device where it lies on one."""
    return array.get() if namespace(array) is not np else np.asarray(array)
