"""What a support vector machine has learned, as arrays: margins of new rows, on either device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array
from gpupipe.models.base import Payload
from gpupipe.models.dense import linear_margins
from gpupipe.models.products import Sliced, product, sliced

VALUES_AT_ONCE = 1 << 20
"""New rows x support vectors in one block."""


class Machine(Protocol):
    """Margins of rows."""

    def margins(self, chunk: Array) -> Array:
        """One a row for two classes, or for values; else one for each class: ``[n, 1 or m]``."""
        ...

    def payload(self) -> Payload: ...


@dataclass(frozen=True)
class LinearMachine:
    """Coefficients ``[m, features]`` and intercepts ``[m]``, one row against the rest each."""

    coefficients: np.ndarray
    intercept: np.ndarray

    def margins(self, chunk: Array) -> Array:
        return linear_margins(chunk, self.coefficients, self.intercept)

    def payload(self) -> Payload:
        return {"coefficients": self.coefficients, "intercept": self.intercept}


@dataclass
class KernelMachine:
    """A machine for each pair of classes (one, for two classes or for values).

    Attributes
    ----------
    vectors : support vectors of all of them, float32 ``[s, features]``.
    coefficients : float64 ``[pairs, s]``, 0 where a vector is none of a pair's.
    intercept : ``[pairs]``. A positive margin speaks for the later class of a pair.
    classes : how many there are; 2 for values.
    kernel : ``name`` (rbf or poly), ``gamma``, ``degree``, ``coef0``.
    """

    vectors: np.ndarray
    coefficients: np.ndarray
    intercept: np.ndarray
    classes: int
    kernel: dict[str, Any]
    _ready: tuple[Any, ...] | None = field(default=None, init=False, repr=False, compare=False)

    def margins(self, chunk: Array) -> Array:
        xp = namespace(chunk)
        if not len(self.vectors):  # every value lies within epsilon of the intercept
            return xp.zeros((int(chunk.shape[0]), 1)) + xp.asarray(self.intercept)
        if self._ready is None or self._ready[0] != xp.__name__:
            vectors = xp.asarray(self.vectors).astype("float64")
            self._ready = (xp.__name__, sliced(vectors), _squares(vectors),
                           sliced(xp.asarray(self.coefficients)), xp.asarray(self.intercept))
        block = max(1, VALUES_AT_ONCE // max(1, len(self.vectors)))
        starts = range(0, max(1, int(chunk.shape[0])), block)
        pairs = xp.concatenate([self._pairs(chunk[s : s + block]) for s in starts])
        return pairs if self.classes == 2 else _by_class(pairs, self.classes)

    def _pairs(self, chunk: Array) -> Array:
        assert self._ready is not None
        _, vectors, squares, coefficients, intercept = self._ready
        values = self._kernel(chunk.astype("float64"), vectors, squares)
        return product(sliced(values), coefficients) + intercept

    def _kernel(self, x: Array, vectors: Sliced, squares: Array) -> Array:
        xp = namespace(x)
        k = self.kernel
        inner = product(sliced(x), vectors)
        if k["name"] == "rbf":
            apart = _squares(x)[:, None] + squares - 2 * inner
            return xp.exp(-k["gamma"] * xp.maximum(apart, 0.0))
        base = k["gamma"] * inner + k["coef0"]
        power = xp.ones(base.shape)
        for _ in range(k["degree"]):  # not **, which rounds otherwise on another device
            power = power * base
        return power

    def payload(self) -> Payload:
        return {"vectors": self.vectors, "coefficients": self.coefficients,
                "intercept": self.intercept, "classes": self.classes, "kernel": self.kernel}


def restored_machine(payload: Payload) -> Machine:
    """The machine of a payload."""
    return KernelMachine(**payload) if "vectors" in payload else LinearMachine(**payload)


def _squares(x: Array) -> Array:
    """Squared lengths of rows, added up column by column: the same for any number of rows."""
    total = namespace(x).zeros(int(x.shape[0]))
    for column in x.T:
        total += column * column
    return total


def _by_class(pairs: Array, classes: int) -> Array:
    """Margins by class: votes of the pairs, and their sum to order equal votes.

    As scikit-learn makes ``decision_function_shape='ovr'`` of pairs.
    """
    xp = namespace(pairs)
    votes, sums = (xp.zeros((int(pairs.shape[0]), classes)) for _ in range(2))
    at = 0
    for i in range(classes):
        for j in range(i + 1, classes):
            later = pairs[:, at] > 0
            votes[:, j] += later
            votes[:, i] += ~later
            sums[:, j] += pairs[:, at]
            sums[:, i] -= pairs[:, at]
            at += 1
    return votes + sums / (3 * (xp.abs(sums) + 1))
