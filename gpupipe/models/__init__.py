"""Model families: one file each, all behind `base.Model`."""

from gpupipe.models import (
    constant,
    decomposition,
    density,
    isolation_forest,
    kmeans,
    linear,
    umap,
    xgboost,
)
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
           "decomposition", "density", "isolation_forest", "kmeans", "linear", "load_ahead",
           "model_of", "packed", "restored", "umap", "xgboost"]
