"""Model families: one file each, all behind `base.Model`."""

from gpupipe.models import constant, linear, xgboost
from gpupipe.models.base import MODELS, FittedModel, Matrix, Model, Training, load_ahead, model_of

__all__ = ["MODELS", "FittedModel", "Matrix", "Model", "Training", "constant", "linear",
           "load_ahead", "model_of", "xgboost"]
