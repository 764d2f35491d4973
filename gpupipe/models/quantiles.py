"""Two quantiles of the target by XGBoost, the ends of what conformal intervals start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpupipe.engine.arrays import Array, namespace
from gpupipe.models.base import FittedModel, Matrix, Payload, Training, restorable
from gpupipe.models.trees import FittedTrees
from gpupipe.models.xgboost import XGBoost
from gpupipe.transforms.base import Target

if TYPE_CHECKING:
    from gpupipe.config.model import ModelConfig

OF_THE_MEAN = {"objective", "eval_metric", "early_stopping_rounds", "base_score"}
"""Parameters of a model of the mean that its quantiles do not take over."""


@restorable("quantiles")
class Quantiles(XGBoost):
    """Trees of one pair of quantiles, trained on the pinball loss (``reg:quantileerror``).

    No family of a pipeline file: `intervals` adds it. ``params`` are those of the file's
    xgboost, as far as they are not about its objective.
    """

    kind = "quantiles"

    def __init__(self, params: Mapping[str, Any], levels: tuple[float, float]) -> None:
        super().__init__({k: v for k, v in params.items() if k not in OF_THE_MEAN})
        pinball = {"objective": "reg:quantileerror", "quantile_alpha": list(levels)}
        self.given |= pinball
        self.params |= pinball

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        fitted = super().fit(train, valid, target, how)
        assert isinstance(fitted, FittedTrees)
        return FittedQuantiles("quantiles", fitted.booster, fitted.names, fitted.task,
                               fitted.rounds, fitted.curve, None, fitted.device)

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        fitted = super().restore(payload)
        assert isinstance(fitted, FittedTrees)
        return FittedQuantiles("quantiles", fitted.booster, fitted.names, fitted.task,
                               fitted.rounds)


@dataclass
class FittedQuantiles(FittedTrees):
    """`predict` gives the two quantiles, ``[n, 2]``, the lower one first."""

    def finished(self, raw: Array) -> Array:
        xp = namespace(raw)
        # Trees of two quantiles know nothing of each other, and may cross.
        return xp.sort(xp.asarray(raw, dtype="float64"), axis=1)


def quantiles_for(model: ModelConfig, coverage: float) -> Quantiles:
    """The quantiles that leave out a share of 1 - ``coverage``, half of it on either side.

    They are grown as the pipeline file's xgboost is; beside another family, as by default.
    """
    params = model.params if model.kind == "xgboost" else {}
    return Quantiles(params, ((1 - coverage) / 2, (1 + coverage) / 2))
