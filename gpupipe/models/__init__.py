"""Model families: one file each, all behind `base.Model`."""

from gpupipe.models import (
    constant,
    ensemble,
    linear,
    naive_bayes,
    neighbours,
    svm,
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
           "Training", "constant", "ensemble", "linear", "load_ahead", "model_of",
           "naive_bayes", "neighbours", "packed", "restored", "svm", "xgboost"]
