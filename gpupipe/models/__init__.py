"""Model families: one file each, all behind `base.Model`."""

from gpupipe.models import constant, linear, naive_bayes, neighbours, svm, xgboost
from gpupipe.models.base import (
    MODELS,
    FittedModel,
    Matrix,
    Model,
    OneOf,
    Range,
    Training,
    load_ahead,
    model_of,
    packed,
    restored,
)

__all__ = ["MODELS", "FittedModel", "Matrix", "Model", "OneOf", "Range", "Training", "constant",
           "linear", "load_ahead", "model_of", "naive_bayes", "neighbours", "packed",
           "restored", "svm", "xgboost"]
