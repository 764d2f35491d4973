"""Random forests by scikit-learn, or cuML on a GPU, kept as an XGBoost model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from gpupipe.engine.arrays import namespace
from gpupipe.errors import ConfigError
from gpupipe.models import cuml
from gpupipe.models.base import (
    LIBRARIES,
    TASKS,
    FittedModel,
    Matrix,
    Needs,
    OneOf,
    Payload,
    Range,
    Space,
    Task,
    Training,
    check_params,
    register,
)
from gpupipe.models.cuda import device_of
from gpupipe.models.trees import FittedTrees, Tree, above, booster_of, restored_trees
from gpupipe.transforms.base import Target

DEFAULTS: dict[str, Any] = {
    "n_estimators": 100, "max_depth": None, "min_samples_split": 2, "min_samples_leaf": 2,
    "max_features": None, "max_leaf_nodes": None, "min_impurity_decrease": 0.0,
    "bootstrap": True, "max_samples": None, "class_weight": None, "criterion": None,
}
"""scikit-learn's, but for leaves of two rows, which halve a model, and ``max_features`` and
``criterion``, which are the task's."""
MOST_SAMPLES = 100_000
"""A tree learns from a bootstrap sample of at most so many rows, where ``max_samples`` says
nothing: more make trees larger and forests hardly better."""
FEATURES: Mapping[str, str | float] = {"binary": "sqrt", "multiclass": "sqrt", "regression": 0.7}
"""``max_features`` by task: scikit-learn's for classes, and for values a little fewer than all,
which makes trees differ and costs little where one feature tells most."""
Raw = tuple[Tree, np.ndarray]
"""A tree of a forest, and its leaves' values: shares or means, float64 ``[nodes, outputs]``."""


@register("forest")
class Forest:
    """Random forest: the mean of many trees' class shares, or means.

    Parameters are scikit-learn's. Missing values go the way that the split likes best on a CPU,
    and count as less than every number on a GPU; codes are taken as numbers.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    needs: ClassVar[Needs] = "anything"
    # Not the number of trees: more are better and slower (Probst & Boulesteix 2018, JMLR 18).
    space: ClassVar[Space] = {
        "max_features": OneOf(("sqrt", 0.3, 0.5, 0.8)),
        "min_samples_leaf": Range(1, 50, log=True), "max_depth": OneOf((None, 8, 16)),
        "max_samples": OneOf((None, 0.5, 0.8)),
    }
    streams: ClassVar[bool] = False
    spreads: ClassVar[bool] = False
    defaults: ClassVar[Mapping[str, Any]] = DEFAULTS
    features: ClassVar[Mapping[str, str | float]] = FEATURES

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params(self.kind, params, set(self.defaults))
        self.params = {**self.defaults, **params}

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Train on ``train``; ``valid`` is not used.

        Raises ConfigError with the library's own words where it refuses a parameter.
        """
        chunks = list(train.chunks)
        x = namespace(chunks[0]).concatenate(chunks)
        on_gpu, weight = device_of(x) == "cuda", train.weight
        if weight is not None and (weight == weight[0]).all():
            weight = None  # of equal weights scikit-learn would draw other rows than of none
        estimator = self._estimator(target.task, how, train.rows)
        try:
            if on_gpu:
                raws: Iterable[Raw] = cuml.fit_forest(estimator, x, train.target, weight)
            else:
                estimator.fit(x, np.asarray(train.target), sample_weight=weight)
                raws = (_raw(e.tree_) for e in estimator.estimators_)
        except (ValueError, TypeError) as error:
            library = "cuML" if on_gpu else "scikit-learn"
            raise ConfigError(f"{library} refused to train: {error}",
                              hint="look at model.params") from error
        present = np.unique(np.asarray(train.target)) if target.classes else np.zeros(1)
        rounds = rounds_of(raws, target, present, self.params["n_estimators"])
        booster = booster_of(rounds, len(train.names), "identity", how.threads)
        return FittedTrees(self.kind, booster, train.names, target.task, None)

    def _estimator(self, task: str, how: Training, rows: int) -> Any:
        given = {k: v for k, v in self.params.items()
                 if k not in ("class_weight", "criterion") or v is not None}
        if given["max_features"] is None:
            given["max_features"] = self.features[task]
        if given["bootstrap"] is None:
            given["bootstrap"] = given["max_samples"] is not None or rows > MOST_SAMPLES
        if given["bootstrap"] and given["max_samples"] is None and rows > MOST_SAMPLES:
            given["max_samples"] = MOST_SAMPLES / rows  # cuML knows shares alone
        if task == "regression" and "class_weight" in given:
            raise ConfigError("class_weight is for classes, and this target has values",
                              hint="leave it out; data.weight names a column of weights")
        return self._library(task)(**given, random_state=how.seed, n_jobs=how.threads)

    def _library(self, task: str) -> Any:
        with LIBRARIES:
            from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        return RandomForestRegressor if task == "regression" else RandomForestClassifier

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return restored_trees(cls.kind, payload)


def _raw(tree: Any) -> Raw:
    """A tree of scikit-learn's: ``x <= threshold`` goes left.

    Its gain is the impurity that each split takes away, times the rows' weight, and adds up to
    1 in a tree, as for scikit-learn's ``feature_importances_``.
    """
    left, right = tree.children_left, tree.children_right
    weight = tree.weighted_n_node_samples
    total = weight * tree.impurity
    gain = np.where(left < 0, 0.0, total - total[left] - total[right])
    value = tree.value[:, 0, :]
    return Tree(
        left, right, tree.feature, above(tree.threshold), tree.missing_go_to_left.astype(bool),
        np.zeros(len(left)), weight, gain / (gain.sum() or 1.0),
    ), value


def rounds_of(
    raws: Iterable[Raw], target: Target, present: np.ndarray, count: int
) -> list[list[Tree]]:
    """The trees of every output: their leaves' values add up to the forest's mean.

    Classes that no training row has get no share. ``present`` are the codes that rows have,
    in the order of the leaves' values; 0 where there are no classes.
    """
    outputs = {"binary": [1], "regression": [0]}.get(
        target.task, list(range(len(target.classes))))
    where = {int(code): i for i, code in enumerate(present)}
    return [
        [Tree(t.left, t.right, t.feature, t.threshold, t.missing_left,
              value[:, where[o]] / count if o in where else np.zeros(len(value)),
              t.weight, t.gain / len(outputs)) for o in outputs]
        for t, value in raws
    ]
