"""Model families: one file each, all behind `base.Model`."""

from gpupipe.models import (
    catboost,
    constant,
    ensemble,
    forest,
    lightgbm,
    linear,
    selected,
    xgboost,
)
from gpupipe.models.base import (
    MODELS,
    FittedModel,
    Matrix,
    Model,
    OneOf,
    Range,
    Space,
    Task,
    Training,
    load_ahead,
    model_of,
    packed,
    restored,
)

__all__ = ["MODELS", "FittedModel", "Matrix", "Model", "OneOf", "Range", "Space", "Task",
           "Training", "catboost", "constant", "ensemble", "forest", "lightgbm", "linear",
           "load_ahead", "model_of", "packed", "restored", "selected", "xgboost"]
