"""The model that ignores its features: what every other one has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

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
from gpupipe.steps.base import Target


@register("constant")
class Constant:
    """The classes' shares, or the mean, of the training rows (weighted)."""

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = TASKS
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
        if target.task == "regression":
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
