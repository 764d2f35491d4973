"""Extremely randomised trees by scikit-learn, kept as an XGBoost model.

Geurts, Ernst & Wehenkel (2006), Extremely randomized trees, Machine Learning 63.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from gpupipe.models import forest
from gpupipe.models.base import (
    LIBRARIES,
    FittedModel,
    Matrix,
    OneOf,
    Range,
    Space,
    Training,
    register,
)
from gpupipe.models.cuda import require_cpu
from gpupipe.transforms.base import Target


@register("extra_trees")
class ExtraTrees(forest.Forest):
    """A forest that draws the cuts of its nodes at random, and takes the best of these.

    A tree of it is worse than one of ``forest``, and their mean is smoother: it is as good as a
    forest's where what is to be learned has no steps, and wrong elsewhere. Parameters are
    scikit-learn's. Trees see all rows (above 100,000 a sample of so many, as those of ``forest``),
    and for values all features. They grow on the CPU alone.
    """

    kind: ClassVar[str]
    space: ClassVar[Space] = {
        "max_features": OneOf((0.5, 0.8, 1.0)), "min_samples_leaf": Range(1, 50, log=True),
    }
    defaults: ClassVar[Mapping[str, Any]] = forest.DEFAULTS | {"bootstrap": None}
    features: ClassVar[Mapping[str, str | float]] = {**forest.FEATURES, "regression": 1.0}

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Train on ``train``; ``valid`` is not used.

        Raises ConfigError on a GPU, and with scikit-learn's own words where it refuses a
        parameter.
        """
        require_cpu(self.kind, how.device)
        return super().fit(train, valid, target, how)

    def _library(self, task: str) -> Any:
        with LIBRARIES:
            from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

        return ExtraTreesRegressor if task == "regression" else ExtraTreesClassifier
