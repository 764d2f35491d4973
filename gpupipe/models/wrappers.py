"""Fitted models that hold another one and say more than it: calibrated, with intervals or sets.

They stand in for the model they hold wherever one is asked for, so a bundle needs to know
nothing of them, and they hold each other: intervals of a blend, sets of a calibrated forest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpupipe.engine.arrays import Array, namespace
from gpupipe.errors import DataError
from gpupipe.models.base import FittedModel, Payload, packed, restorable, restored
from gpupipe.models.calibrators import Calibrator, restored_calibrator
from gpupipe.models.contributions import Contributions, contributions_of, work_of


@dataclass
class Wrapper:
    """What a model that holds another one has from it."""

    inner: FittedModel
    kind: str = field(init=False)
    rounds: int | None = field(init=False)
    curve: dict[str, Any] | None = field(default=None, init=False)
    judged: Array | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.rounds = self.inner.rounds

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        return self.inner.predict(chunk, rounds)

    def importances(self) -> list[tuple[str, float]]:
        return self.inner.importances()

    def contributions(self, chunk: Array, rounds: int | None = None) -> Contributions:
        """Those of the model that it holds."""
        return contributions_of(self.inner, chunk, rounds)

    def contribution_work(self) -> float:
        return work_of(self.inner)


@restorable("picked")
@dataclass
class Picked(Wrapper):
    """A model that sees some columns of the matrix (int64), in their order."""

    columns: np.ndarray
    kind: str = field(default="picked", init=False)

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        return self.inner.predict(taken(chunk, self.columns), rounds)

    def contributions(self, chunk: Array, rounds: int | None = None) -> Contributions:
        """Those of the model that it holds; the columns that it does not see add nothing."""
        found = contributions_of(self.inner, taken(chunk, self.columns), rounds)
        values = np.zeros((found.values.shape[0], chunk.shape[1], *found.values.shape[2:]))
        values[:, self.columns] = found.values
        return replace(found, values=values)

    def payload(self) -> Payload:
        return {"inner": packed(self.inner), "columns": self.columns.astype(np.int64)}

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return cls(restored(payload["inner"]), payload["columns"])


def taken(chunk: Array, columns: np.ndarray) -> Array:
    """Some columns of a chunk, row by row in memory; the chunk itself where they are all."""
    if len(columns) == chunk.shape[1] and (np.diff(columns) == 1).all():
        return chunk
    xp = namespace(chunk)
    return xp.ascontiguousarray(chunk[:, xp.asarray(columns)])


@restorable("calibrated")
@dataclass
class Calibrated(Wrapper):
    """A classifier whose probabilities are mapped by a calibrator."""

    calibrator: Calibrator
    kind: str = field(default="calibrated", init=False)

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        return self.calibrator(self.inner.predict(chunk, rounds))

    def contributions(self, chunk: Array, rounds: int | None = None) -> Contributions:
        """Those of the model that it holds: what its margin was before it was calibrated."""
        found = contributions_of(self.inner, chunk, rounds)
        return replace(found, scale=f"uncalibrated {found.scale}")

    def payload(self) -> Payload:
        return {"inner": packed(self.inner), "calibrator": self.calibrator.payload()}

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return cls(restored(payload["inner"]), restored_calibrator(payload["calibrator"]))


@restorable("with_interval")
@dataclass
class WithInterval(Wrapper):
    """A regression with conformal intervals.

    Attributes
    ----------
    margin : how far an interval reaches beyond the prediction, or beyond the quantiles.
    quantiles : a model of the lower and upper quantile, ``[n, 2]``; None for intervals of one
        width around the prediction.
    """

    margin: float
    quantiles: FittedModel | None = None
    kind: str = field(default="with_interval", init=False)

    def bounds(self, chunk: Array, prediction: Array) -> Array:
        """Lower and upper ends, float64 ``[n, 2]``; ``prediction`` is what `predict` gives."""
        xp = namespace(chunk)
        middle = xp.stack([prediction, prediction], axis=1)
        return widened(middle if self.quantiles is None else self.quantiles.predict(chunk),
                       self.margin)

    def payload(self) -> Payload:
        quantiles = None if self.quantiles is None else packed(self.quantiles)
        return {"inner": packed(self.inner), "margin": self.margin, "quantiles": quantiles}

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        quantiles = payload["quantiles"]
        return cls(restored(payload["inner"]), float(payload["margin"]),
                   None if quantiles is None else restored(quantiles))


def widened(ends: Array, margin: float) -> Array:
    """Ends ``[n, 2]`` moved apart; where a negative margin makes them cross, both the middle."""
    xp = namespace(ends)
    low, high = ends[:, 0] - margin, ends[:, 1] + margin
    middle = (low + high) / 2
    return xp.stack([xp.minimum(low, middle), xp.maximum(high, middle)], axis=1)


@restorable("with_sets")
@dataclass
class WithSets(Wrapper):
    """A classifier with conformal sets of labels: those whose score is at most ``bound``."""

    rule: str
    bound: float
    kind: str = field(default="with_sets", init=False)

    def bounds(self, chunk: Array, prediction: Array) -> Array:
        """Which labels are in each row's set, bool ``[n, classes]``."""
        return set_scores(self.rule, prediction) <= self.bound

    def payload(self) -> Payload:
        return {"inner": packed(self.inner), "rule": self.rule, "bound": self.bound}

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        if payload["rule"] not in SET_RULES:
            raise DataError(f"unknown rule of sets {payload['rule']!r}")
        return cls(restored(payload["inner"]), payload["rule"], float(payload["bound"]))


SET_RULES = ("lac", "aps")


def set_scores(rule: str, p: Array) -> Array:
    """How strange each label would be, ``[n, classes]``; p is P(positive) or ``[n, classes]``.

    lac: 1 - its probability (Sadinle, Lei & Wasserman 2019, JASA 114): the smallest sets. aps:
    the probability of all labels down to it (Romano, Sesia & Candès 2020, Classification with
    Valid and Adaptive Coverage, NeurIPS; without their random tie-break): larger sets where
    rows are hard.
    """
    xp = namespace(p)
    p = xp.stack([1 - p, p], axis=1) if p.ndim == 1 else p
    if rule == "lac":
        return 1 - p
    order = xp.argsort(-p, axis=1)
    down_to = xp.cumsum(xp.take_along_axis(p, order, axis=1), axis=1)
    return xp.take_along_axis(down_to, xp.argsort(order, axis=1), axis=1)
