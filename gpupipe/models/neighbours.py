"""Nearest neighbours: the training rows themselves, and votes of those nearest to a new row.

Neither scikit-learn nor cuML takes part: there is nothing to fit, and what is searched is exact on
either device. A product of float32 matrices tells which rows may be near, with a bound on its
rounding error; the distances of those few are then worked out value by value in float64. So the
neighbours of a row, and their distances to the last bit, do not depend on the batch, on
the number of threads or on the device; of equal distances the earlier training row is nearer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError, DataError
from gpupipe.models.base import (
    TASKS,
    FittedModel,
    Matrix,
    Needs,
    OneOf,
    Payload,
    Plain,
    Range,
    Space,
    Task,
    Training,
    check_params,
    register,
)
from gpupipe.models.dense import check_choice, dense
from gpupipe.transforms.base import Target

DEFAULTS: dict[str, Any] = {"n_neighbors": 5, "weights": "uniform", "metric": "euclidean"}
PAIRS_AT_ONCE = 1 << 22
"""New rows x training rows in one block: its distances stay near a processor's cache."""
GROUP = 64
"""Training rows of which only the nearest is looked at in the first round."""
LOPSIDED = 1000.0
"""Where the farthest training row is so many times the mean's distance (squared) from the centre,
float32 is too coarse to tell who is near, and float64 does it."""


@register("neighbours")
class Neighbours:
    """Votes, or the mean, of the ``n_neighbors`` nearest training rows.

    ``weights`` is ``uniform``, or ``distance`` for votes in inverse proportion to it; ``metric`` is
    ``euclidean`` or ``manhattan``. A row's sample weight multiplies its vote.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    needs: ClassVar[Needs] = "numbers"
    space: ClassVar[Space] = {
        "n_neighbors": Range(1, 100, log=True), "weights": OneOf(("uniform", "distance")),
    }
    streams: ClassVar[bool] = False
    spreads: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("neighbours", params, set(DEFAULTS))
        self.params = {**DEFAULTS, **params}
        check_choice("neighbours", self.params, "weights", ("uniform", "distance"))
        check_choice("neighbours", self.params, "metric", ("euclidean", "manhattan"))
        k = self.params["n_neighbors"]
        if not isinstance(k, int) or isinstance(k, bool) or k < 1:
            raise ConfigError(f"n_neighbors of model 'neighbours' is {k!r}",
                              hint="it is a whole number of at least 1")

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Keep the rows of ``train`` that have a weight; ``valid`` is not used.

        Raises DataError for missing values, codes, and fewer rows than neighbours.
        """
        rows, y = to_host(dense("neighbours", train)), np.asarray(train.target)
        weight = None if train.weight is None else np.asarray(train.weight, np.float64)
        if weight is not None and not weight.all():
            rows, y, weight = rows[weight > 0], y[weight > 0], weight[weight > 0]
        if len(rows) < self.params["n_neighbors"]:
            raise DataError(
                f"there are {len(rows):,} training rows, fewer than {self.params['n_neighbors']:,} "
                "neighbours", hint="set model.params.n_neighbors lower")
        return FittedNeighbours("neighbours", rows, y, weight, dict(self.params), target.task,
                                len(target.classes))

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedNeighbours("neighbours", **payload)


@dataclass
class FittedNeighbours(Plain):
    """Training rows float32 ``[m, features]``, their codes or values and weights ``[m]``."""

    rows: np.ndarray
    target: np.ndarray
    weight: np.ndarray | None
    params: dict[str, Any]
    task: str
    classes: int
    _index: Index | None = field(default=None, init=False, repr=False)

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp = namespace(chunk)
        if self._index is None or namespace(self._index.rows) is not xp:
            self._index = Index.of(xp.asarray(self.rows), self.params["metric"])
        block = max(1, PAIRS_AT_ONCE // len(self.rows))
        starts = range(0, max(1, int(chunk.shape[0])), block)
        return xp.concatenate([self._votes(self._index, chunk[s : s + block]) for s in starts])

    def _votes(self, index: Index, chunk: Array) -> Array:
        xp = namespace(chunk)
        k = self.params["n_neighbors"]
        near, distance = index.nearest(chunk, k)
        vote = _shares(distance) if self.params["weights"] == "distance" else xp.ones(near.shape)
        if self.weight is not None:
            vote = vote * xp.asarray(self.weight)[near]
        told = xp.asarray(self.target)[near]
        width = 1 if self.task == "regression" else self.classes
        sums, total = xp.zeros((len(chunk), width)), xp.zeros(len(chunk))
        row = xp.arange(len(chunk))
        for j in range(k):  # one neighbour after the other: sums in one order, on any device
            total += vote[:, j]
            if self.task == "regression":
                sums[:, 0] += vote[:, j] * told[:, j]
            else:
                sums[row, told[:, j]] += vote[:, j]
        scores = sums / total[:, None]
        return scores if self.task == "multiclass" else scores[:, -1]

    def importances(self) -> list[tuple[str, float]]:
        return []

    def payload(self) -> Payload:
        return {"rows": self.rows, "target": self.target, "weight": self.weight,
                "params": self.params, "task": self.task, "classes": self.classes}


def _shares(distance: Array) -> Array:
    """Votes ``1 / distance``; where a neighbour is at distance 0, those at 0 alone vote."""
    xp = namespace(distance)
    same = distance == 0
    inverse = 1 / xp.where(same, 1.0, distance)
    return xp.where(same.any(axis=1, keepdims=True), same.astype("float64"), inverse)


@dataclass(frozen=True)
class Index:
    """Training rows ready to be searched, where they lie.

    Attributes
    ----------
    rows : float32 ``[m, features]``.
    centre : float64 ``[features]``, taken from rows before their products are.
    moved : the centred rows ``[m, features]``, in the precision that products have.
    squares : their squared lengths ``[m]``.
    reach : the greatest length (euclidean) or sum of absolute values (manhattan) of one.
    """

    rows: Array
    metric: str
    centre: Array
    moved: Array
    squares: Array
    reach: float

    @classmethod
    def of(cls, rows: Array, metric: str) -> Index:
        xp = namespace(rows)
        centre = rows.astype("float64").mean(axis=0)
        moved = rows - centre
        squares = (moved * moved).sum(axis=1)
        lopsided = float(squares.max()) > LOPSIDED * float(squares.mean())
        precision = "float64" if lopsided else "float32"
        reach = xp.abs(moved).sum(axis=1) if metric == "manhattan" else xp.sqrt(squares)
        return cls(rows, metric, centre, moved.astype(precision), squares.astype(precision),
                   float(reach.max()))

    def nearest(self, chunk: Array, k: int) -> tuple[Array, Array]:
        """The ``k`` nearest rows of each, nearest first, and their distances: ``[n, k]``."""
        xp, m = namespace(chunk), int(self.rows.shape[0])
        rough, error = self._rough(chunk)
        size = max(1, min(GROUP, m // (4 * k)))
        even = m - m % size
        least = rough[:, :even].reshape(len(chunk), size, even // size).min(axis=1)
        # k groups have a row as near as the k-th least: no farther one is among the k nearest.
        limit = (xp.partition(least, k - 1, axis=1)[:, k - 1] + 2 * error).astype(rough.dtype)
        # What is not a number is not known to be far.
        row, near = xp.nonzero(~(rough > limit[:, None]))
        distance = self._distance(chunk, row, near)
        order = xp.lexsort(xp.stack([near.astype("float64"), distance, row.astype("float64")]))
        found = xp.bincount(row, minlength=len(chunk))
        first = xp.cumsum(found) - found
        chosen = order[(first[:, None] + xp.arange(k)).ravel()]
        shape = (int(chunk.shape[0]), k)
        return near[chosen].reshape(shape), distance[chosen].reshape(shape)

    def _rough(self, chunk: Array) -> tuple[Array, Array]:
        """What orders the rows of the index by distance ``[n, m]``, and how far it may be off.

        The bound is that of a sum of products in any order (Higham, "Accuracy and stability of
        numerical algorithms", 2002, section 3.5), twice over.
        """
        xp = namespace(chunk)
        moved = (chunk - self.centre).astype(self.moved.dtype)
        unit = float(np.finfo(str(self.moved.dtype)).eps) * (2 * int(chunk.shape[1]) + 16)
        if self.metric == "manhattan":
            rough = xp.zeros((int(chunk.shape[0]), int(self.rows.shape[0])), self.moved.dtype)
            for own, other in zip(moved.T, self.moved.T, strict=True):
                rough += xp.abs(own[:, None] - other)
            length = xp.abs(moved).sum(axis=1).astype("float64")
            return rough, unit * (length + self.reach)
        rough = (-2 * moved) @ self.moved.T
        rough += self.squares
        wide = moved.astype("float64")
        length = xp.sqrt((wide * wide).sum(axis=1))
        return rough, unit * (length + self.reach) ** 2

    def _distance(self, chunk: Array, row: Array, near: Array) -> Array:
        """The distances of pairs, feature by feature: float64 ``[pairs]``."""
        xp = namespace(chunk)
        total = xp.zeros(len(row))
        for own, other in zip(chunk.T, self.rows.T, strict=True):
            apart = own[row].astype("float64") - other[near]
            total += xp.abs(apart) if self.metric == "manhattan" else apart * apart
        return total if self.metric == "manhattan" else xp.sqrt(total)
