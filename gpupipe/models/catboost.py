"""Gradient-boosted oblivious trees by CatBoost, unfolded and kept as an XGBoost model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gpupipe.errors import ConfigError
from gpupipe.models import constraints, objectives
from gpupipe.models.base import (
    TASKS,
    FittedModel,
    Matrix,
    Needs,
    OneOf,
    Payload,
    Range,
    Space,
    Starts,
    Task,
    Training,
    check_params,
    register,
)
from gpupipe.models.boosting import Patience, exact_rounds, schedule
from gpupipe.models.cuda import require_cpu
from gpupipe.models.dense import check_number
from gpupipe.models.libraries import optional_library
from gpupipe.models.trees import (
    LEAST_WEIGHT,
    NEVER,
    FittedTrees,
    Tree,
    above,
    booster_of,
    constant,
    leaf,
    restored_trees,
)
from gpupipe.transforms.base import Target

if TYPE_CHECKING:
    import catboost

DEFAULTS: dict[str, Any] = {"learning_rate": 0.05, "max_depth": 6, "max_bin": 254}
"""Good without tuning; the rest are CatBoost's own."""
NATIVE = {
    "n_estimators": "iterations", "max_depth": "depth", "reg_lambda": "l2_leaf_reg",
    "colsample_bylevel": "rsm", "max_bin": "border_count", "objective": "loss_function",
}
"""CatBoost's own names of parameters that other libraries have too."""
ALIASES = {v: k for k, v in NATIVE.items()} | {
    "num_boost_round": "n_estimators", "num_trees": "n_estimators", "eta": "learning_rate",
    "od_wait": "early_stopping_rounds",
}
PARAMETERS = frozenset({
    *NATIVE, "auto_class_weights", "bagging_temperature", "boosting_type", "bootstrap_type",
    "diffusion_temperature", "early_stopping_rounds", "eval_metric", "feature_border_type",
    "langevin", "leaf_estimation_backtracking", "leaf_estimation_iterations",
    "leaf_estimation_method", "learning_rate", "model_shrink_mode", "model_shrink_rate",
    "monotone_constraints", "mvs_reg", "nan_mode", "random_strength", "sampling_frequency",
    "scale_pos_weight", "score_function", "subsample",
})
"""Those that a pipeline file may set: trees are oblivious, and features numbers."""


@register("catboost")
class CatBoost:
    """Oblivious trees: each level of a tree asks the same question of every node.

    Parameters have CatBoost's names, or those that ``xgboost`` has for the same
    (``n_estimators``, ``max_depth``, ``reg_lambda``, ``colsample_bylevel``, ``max_bin``).
    Rounds and early stopping are those of ``xgboost``. Codes are taken as numbers, and trees
    grow on the CPU alone. ``objective: LogRMSE`` learns the target's logarithm, by ``RMSE``, and
    predicts its mean: the exponential of what it learned, times the mean of the exponentials of
    what is left of the training rows (Duan 1983, Smearing estimate, JASA 78). It needs the
    ``catboost`` extra to train, and nothing to score.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    needs: ClassVar[Needs] = "ordered"
    space: ClassVar[Space] = {
        "learning_rate": Range(0.1, 0.1, log=True), "max_depth": Range(4, 8),
        "reg_lambda": Range(0.5, 30.0, log=True), "random_strength": Range(0.1, 10.0, log=True),
        "bagging_temperature": Range(0.0, 1.0), "colsample_bylevel": Range(0.3, 1.0),
        "max_bin": OneOf((128, 254)),
    }
    starts: ClassVar[Starts] = (
        {"learning_rate": 0.1, "reg_lambda": 3.0, "random_strength": 1.0,
         "bagging_temperature": 1.0, "colsample_bylevel": 1.0},
        {"learning_rate": 0.1, "max_depth": 6, "reg_lambda": 3.0, "random_strength": 1.0,
         "bagging_temperature": 1.0, "colsample_bylevel": 0.5},
        {"learning_rate": 0.1, "max_depth": 8, "reg_lambda": 3.0, "random_strength": 1.0,
         "bagging_temperature": 1.0, "colsample_bylevel": 1.0},
    )
    of_positive: ClassVar[Space] = {"objective": OneOf((None, objectives.LOG_RMSE))}
    streams: ClassVar[bool] = False
    spreads: ClassVar[bool] = False
    requires: ClassVar[str] = "catboost"
    library = staticmethod(partial(optional_library, "catboost", "CatBoost"))

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("catboost", params, {*PARAMETERS, *ALIASES})
        self.given = {ALIASES.get(k, k): v for k, v in params.items() if v is not None}
        self.params = {**DEFAULTS, **self.given}
        check_number("catboost", self.params, "learning_rate", 0, above=True)
        if "objective" in self.given:
            objectives.check_name("catboost", self.given["objective"], objectives.CATBOOST)
        if "monotone_constraints" in self.given:
            constraints.check_monotone("catboost", self.given["monotone_constraints"])

    @property
    def rounds(self) -> int | None:
        """Exactly so many rounds, where the parameters say so."""
        return exact_rounds(self.given)

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Train on ``train``; stop early at ``valid`` where it is given.

        Raises EnvironmentFault without the library, ConfigError with CatBoost's own words where
        it refuses a parameter, or where a constraint or the objective does not suit, and
        DataError where the objective does not suit the target's values.
        """
        library = self.library()
        require_cpu("catboost", how.device)
        given, logged = self.given, self.given.get("objective") == objectives.LOG_RMSE
        params, objective = self._native(train, target, how)
        if (train.target == train.target[0]).all():
            # CatBoost will not learn from one value; what there is to learn is plain.
            rounds = [constant(train.target, objective.link, len(target.classes))]
            return self._fitted(rounds, train, target, objective, how, None)
        if logged:  # from here on it is the default loss of another target
            given = {k: v for k, v in given.items() if k != "objective"}
            train = _logged(train, target)
            valid = None if valid is None else _logged(valid, target)
            params["loss_function"] = "RMSE"
        plan = schedule(given, self.params["learning_rate"], valid, target, how)
        watch = _Watch(library, plan.patience)
        params |= {"iterations": plan.rounds, "learning_rate": plan.learning_rate,
                   "metric_period": plan.patience.every(plan.rounds)}
        model = library.CatBoost(params)
        try:
            model.fit(_pool(library, train), verbose=False,
                      eval_set=None if valid is None else _pool(library, valid),
                      callbacks=[watch] if valid is not None else None)
        except (library.CatBoostError, ValueError, TypeError) as error:
            raise ConfigError(f"CatBoost refused to train: {str(error).splitlines()[0]}",
                              hint="look at model.params") from error
        found = _described(model)
        if logged:
            left = np.exp(train.target - model.predict(_pool(library, train)))
            found["scale_and_bias"][1][0] += float(np.log(np.average(left, weights=train.weight)))
        return self._fitted(
            rounds_of(found, target), train, target, objective, how,
            None if valid is None else _curve(library, model, params["metric_period"]))

    def _fitted(
        self, rounds: list[list[Tree]], train: Matrix, target: Target,
        objective: objectives.Objective, how: Training, curve: dict[str, Any] | None,
    ) -> FittedTrees:
        booster = booster_of(rounds, len(train.names), objective.link, how.threads)
        return FittedTrees("catboost", booster, train.names, target.task, len(rounds), curve)

    def _native(
        self, train: Matrix, target: Target, how: Training
    ) -> tuple[dict[str, Any], objectives.Objective]:
        """The parameters under CatBoost's own names, but for rounds, and the objective."""
        params = {k: v for k, v in self.params.items()
                  if k not in ("early_stopping_rounds", "n_estimators", "learning_rate")}
        params["objective"], objective = objectives.objective_of(
            "catboost", params.get("objective"), objectives.CATBOOST, target, train.target)
        if "monotone_constraints" in params:
            params["monotone_constraints"] = constraints.monotone(
                params["monotone_constraints"], train)
        if target.classes:  # codes stand for them, and those that no row has are classes too
            params["class_names"] = list(range(len(target.classes)))
        return {NATIVE.get(k, k): v for k, v in params.items()} | {
            "random_seed": how.seed, "thread_count": how.threads, "logging_level": "Silent",
            "allow_writing_files": False, "use_best_model": False,
        }, objective

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return restored_trees("catboost", payload)


class _Watch:
    """Told of every round; says whether to go on."""

    def __init__(self, library: Any, patience: Patience) -> None:
        self.library, self.patience, self.seen = library, patience, 0

    def after_iteration(self, info: Any) -> bool:
        metric, losses = list(info.metrics["validation"].items())[-1]
        if len(losses) == self.seen:
            return True  # a round whose loss is not looked at
        self.seen = len(losses)
        return not self.patience.is_over(losses[-1], _is_gain(self.library, metric))


def _logged(matrix: Matrix, target: Target) -> Matrix:
    """The matrix with the logarithm of its target. DataError where that is not above 0."""
    objectives.objective_of("catboost", objectives.LOG_RMSE, objectives.CATBOOST, target,
                            matrix.target)
    return replace(matrix, target=np.log(np.asarray(matrix.target)))


def _is_gain(library: Any, metric: str) -> bool:
    return bool(library._catboost.is_maximizable_metric(metric))


def _pool(library: Any, matrix: Matrix) -> catboost.Pool:
    return library.Pool(np.concatenate(list(matrix.chunks)), label=np.asarray(matrix.target),
                        weight=matrix.weight)


def _curve(library: Any, model: catboost.CatBoost, every: int) -> dict[str, Any]:
    """The losses on the validation part (see `boosting.boost`)."""
    metric, losses = list(model.get_evals_result()["validation"].items())[-1]
    return {"metric": metric, "every": every, "valid": [float(v) for v in losses],
            "maximise": _is_gain(library, metric)}


def _described(model: catboost.CatBoost) -> dict[str, Any]:
    """A model in CatBoost's own JSON format, which it writes to files alone."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        found: dict[str, Any] = json.loads(path.read_text())
    return found


def rounds_of(model: Mapping[str, Any], target: Target) -> list[list[Tree]]:
    """The trees of a CatBoost model in its JSON format: in each round one for every output.

    The bias is added to the leaves of the first round. Classes that no training row has have
    no leaves; their share is 0.
    """
    many = target.task == "multiclass"
    present = model["model_info"]["class_params"]["class_to_label"] if many else [0]
    scale, bias = model["scale_and_bias"]
    features = {f["feature_index"]: (f["flat_feature_index"], f["nan_value_treatment"])
                for f in model["features_info"].get("float_features", [])}
    rounds = []
    for i, tree in enumerate(model["oblivious_trees"]):
        values = np.array(tree["leaf_values"], np.float64).reshape(-1, len(present)) * scale
        weights = np.array(tree["leaf_weights"], np.float64)
        if i == 0:
            values = values + np.array(bias, np.float64)
        splits = [(*features[s["float_feature_index"]], s["border"])
                  for s in tree.get("splits") or ()]
        made = {int(c): unfolded(splits, v, weights)
                for c, v in zip(present, values.T, strict=True)}
        outputs = range(len(target.classes) if many else 1)
        rounds.append([made.get(o) or leaf(0.0 if i else NEVER) for o in outputs])
    return rounds


def unfolded(
    splits: list[tuple[int, str, float]], values: np.ndarray, weights: np.ndarray
) -> Tree:
    """An oblivious tree as a plain one.

    ``splits`` are feature, what a missing value counts as (``AsTrue``: above the border), and
    border; bit ``d`` of a leaf's number says whether the feature of split ``d`` is above its
    border. The plain tree asks the last split first, so that its leaves are in their order. A
    split's gain is CatBoost's PredictionValuesChange: what the variance of the output would
    lose if leaves that the split alone tells apart were one.
    """
    depth = len(splits)
    nodes, first = 2 ** (depth + 1) - 1, 2**depth - 1
    left = np.arange(nodes) * 2 + 1
    left[first:] = -1
    feature, threshold, missing = (np.zeros(nodes, t) for t in (np.int64, np.float32, bool))
    weight, value, gain = np.empty(nodes), np.zeros(nodes), np.zeros(nodes)
    weight[first:], value[first:] = np.maximum(weights, LEAST_WEIGHT), values
    for level, (index, treatment, border) in enumerate(reversed(splits)):
        here = slice(2**level - 1, 2 ** (level + 1) - 1)
        feature[here], missing[here] = index, treatment != "AsTrue"
        threshold[here] = above(np.array([border]))[0]
        below = weight[first:].reshape(2**level, 2, -1)  # the leaves on either side of each node
        weight[here] = below.sum(axis=(1, 2))
        apart = np.diff(values.reshape(2**level, 2, -1), axis=1)[:, 0]
        gain[here] = (below.prod(axis=1) / below.sum(axis=1) * apart**2).sum(axis=1)
    return Tree(left, np.where(left < 0, -1, left + 1), feature, threshold, missing, value,
                weight, gain)
