"""The model that ignores its features: what every other one has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.data.outcomes import seen_of, time_of
from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array
from gpupipe.models.base import (
    TASKS,
    FittedModel,
    Matrix,
    Needs,
    Payload,
    Plain,
    Space,
    Task,
    Training,
    check_params,
    register,
)
from gpupipe.transforms.base import Target


@register("constant")
class Constant:
    """The classes' shares, or the mean, of the training rows (weighted).

    Of times with an event it is the mean time under a constant rate of events (all time at risk
    by the number of events, the exponential distribution's maximum likelihood); a relative risk
    is 1, and so is a score to rank by.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = (*TASKS, "survival", "hazard", "ranking")
    needs: ClassVar[Needs] = "anything"
    space: ClassVar[Space] = {}
    streams: ClassVar[bool] = True
    spreads: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("constant", params, set())

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        y = np.asarray(train.target)
        weight = np.ones(len(y)) if train.weight is None else np.asarray(train.weight)
        if target.task in ("hazard", "ranking"):
            value = np.ones(1)
        elif target.task == "survival":
            events = (weight * seen_of(y)).sum()
            value = np.array([(weight * time_of(y)).sum() / max(events, 1e-9)])
        elif target.task == "regression":
            value = np.array([np.average(y, weights=weight)])
        else:
            shares = np.bincount(y, weights=weight, minlength=len(target.classes)) / weight.sum()
            value = shares[1:] if target.task == "binary" else shares
        return FittedConstant("constant", value.astype(np.float64), target.task)

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedConstant("constant", payload["value"], payload["task"])


@dataclass
class FittedConstant(Plain):
    """``value`` is ``[1]``, or ``[classes]`` for a multiclass target."""

    value: np.ndarray
    task: str

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp = namespace(chunk)
        if self.task == "multiclass":
            return xp.broadcast_to(xp.asarray(self.value), (chunk.shape[0], len(self.value))).copy()
        return xp.full(chunk.shape[0], float(self.value[0]))

    def importances(self) -> list[tuple[str, float]]:
        return []

    def payload(self) -> Payload:
        return {"value": self.value, "task": self.task}
