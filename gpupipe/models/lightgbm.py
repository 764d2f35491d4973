"""Gradient-boosted trees by LightGBM, leaf by leaf; kept as an XGBoost model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
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
from gpupipe.models.boosting import Schedule, exact_rounds, schedule
from gpupipe.models.cuda import require_cpu
from gpupipe.models.dense import check_number
from gpupipe.models.libraries import optional_library
from gpupipe.models.trees import FittedTrees, Tree, above, booster_of, restored_trees
from gpupipe.transforms.base import Target

if TYPE_CHECKING:
    import lightgbm

DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.05, "num_leaves": 31, "min_child_samples": 20, "subsample": 0.8,
    "subsample_freq": 1, "colsample_bytree": 0.8, "max_bin": 255, "cat_smooth": 20.0,
    "min_data_per_group": 50,
}
"""Good without tuning; the rest are LightGBM's own."""
PARAMETERS = frozenset({
    "alpha", "boosting_type", "cat_l2", "cat_smooth", "colsample_bynode", "colsample_bytree",
    "data_sample_strategy", "drop_rate", "early_stopping_rounds", "eval_metric", "extra_trees",
    "interaction_constraints", "is_unbalance", "learning_rate", "max_bin", "max_cat_threshold",
    "max_cat_to_onehot", "max_delta_step", "max_depth", "max_drop", "min_child_samples",
    "min_child_weight", "min_data_in_bin", "min_data_per_group", "min_split_gain",
    "monotone_constraints", "monotone_penalty", "n_estimators", "num_leaves", "objective",
    "other_rate", "path_smooth", "reg_alpha", "reg_lambda", "scale_pos_weight", "skip_drop",
    "subsample", "subsample_for_bin", "subsample_freq", "top_rate", "tweedie_variance_power",
    "uniform_drop",
})
"""Those of `lightgbm.LGBMModel` that a pipeline file may set, and LightGBM's own beside them."""
ALIASES = {
    "num_iterations": "n_estimators", "num_boost_round": "n_estimators",
    "eta": "learning_rate", "shrinkage_rate": "learning_rate", "max_leaves": "num_leaves",
    "max_leaf_nodes": "num_leaves", "min_data_in_leaf": "min_child_samples",
    "min_samples_leaf": "min_child_samples", "min_sum_hessian_in_leaf": "min_child_weight",
    "bagging_fraction": "subsample", "bagging_freq": "subsample_freq",
    "feature_fraction": "colsample_bytree", "feature_fraction_bynode": "colsample_bynode",
    "lambda_l1": "reg_alpha", "lambda_l2": "reg_lambda", "min_gain_to_split": "min_split_gain",
    "boosting": "boosting_type", "metric": "eval_metric",
    "bin_construct_sample_cnt": "subsample_for_bin",
}
CODED, ON_THE_LEFT, MISSING_NAN = 1, 2, 2
"""Of a node's ``decision_type``: bit 0 says that it looks at codes, bit 1 that missing values go
left, bits 2 and 3 how they are told (2: they are NaN) (include/LightGBM/tree.h)."""


@register("lightgbm")
class LightGBM:
    """Trees under the parameter names of `lightgbm.LGBMModel` (or LightGBM's own aliases).

    Rounds and early stopping are those of ``xgboost``. Trees grow on the CPU alone. It needs the
    ``lightgbm`` extra to train, and nothing to score.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    needs: ClassVar[Needs] = "anything"
    space: ClassVar[Space] = {
        "learning_rate": Range(0.1, 0.1, log=True), "num_leaves": Range(7, 255, log=True),
        "min_child_samples": Range(5, 200, log=True), "subsample": Range(0.5, 1.0),
        "colsample_bytree": Range(0.3, 1.0), "reg_lambda": Range(0.001, 50.0, log=True),
        "reg_alpha": Range(0.001, 20.0, log=True), "path_smooth": Range(0.001, 10.0, log=True),
    }
    starts: ClassVar[Starts] = (
        {"learning_rate": 0.1, "reg_lambda": 0.001, "reg_alpha": 0.001, "path_smooth": 0.001},
        {"learning_rate": 0.1, "num_leaves": 15, "colsample_bytree": 0.5, "reg_lambda": 5.0,
         "reg_alpha": 0.001, "path_smooth": 0.001},
        {"learning_rate": 0.1, "num_leaves": 127, "min_child_samples": 5, "subsample": 0.7,
         "colsample_bytree": 0.6, "reg_lambda": 5.0, "reg_alpha": 0.001, "path_smooth": 0.001},
    )
    of_positive: ClassVar[Space] = {"objective": OneOf((None, "tweedie"))}
    streams: ClassVar[bool] = False
    spreads: ClassVar[bool] = False
    requires: ClassVar[str] = "lightgbm"
    library = staticmethod(partial(optional_library, "lightgbm", "LightGBM"))

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("lightgbm", params, {*PARAMETERS, *ALIASES})
        self.given = {ALIASES.get(k, k): v for k, v in params.items() if v is not None}
        self.params = {**DEFAULTS, **self.given}
        check_number("lightgbm", self.params, "learning_rate", 0, above=True)
        if "objective" in self.given:
            objectives.check_name("lightgbm", self.given["objective"], objectives.LIGHTGBM)
        if self._boosting not in ("gbdt", "dart"):
            raise ConfigError(f"model 'lightgbm' boosts trees, found boosting_type: "
                              f"{self._boosting!r}", hint="it is gbdt or dart; for a random "
                              "forest set kind: forest, for goss data_sample_strategy: goss")
        if self._boosting == "dart" and "early_stopping_rounds" in self.given:
            raise ConfigError("boosting_type: dart cannot stop early: later rounds change the "
                              "weights of earlier trees", hint="set n_estimators instead")
        if "monotone_constraints" in self.given:
            constraints.check_monotone("lightgbm", self.given["monotone_constraints"])
        if "interaction_constraints" in self.given:
            constraints.check_interaction("lightgbm", self.given["interaction_constraints"])

    @property
    def _boosting(self) -> str:
        return str(self.given.get("boosting_type", "gbdt"))

    @property
    def rounds(self) -> int | None:
        """Exactly so many rounds, where the parameters say so."""
        return exact_rounds(self.given, dart=self._boosting == "dart")

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Train on ``train``; stop early at ``valid`` where it is given.

        Raises EnvironmentFault without the library, ConfigError with LightGBM's own words where
        it refuses a parameter, or where a constraint or the objective does not suit, and
        DataError where the objective does not suit the target's values.
        """
        library = self.library()
        require_cpu("lightgbm", how.device)
        plan = schedule(self.given, self.params["learning_rate"], valid, target, how,
                        dart=self._boosting == "dart")
        params, objective = self._native(train, target, how)
        params["learning_rate"] = plan.learning_rate
        try:
            data = _dataset(library, train, params, None)
            watched = None if valid is None else _dataset(library, valid, params, data)
            booster, curve = _boost(library, params, data, watched, plan)
        except (library.basic.LightGBMError, ValueError, TypeError) as error:
            raise ConfigError(f"LightGBM refused to train: {error}",
                              hint="look at model.params") from error
        trees = trees_of(booster.model_to_string())
        outputs = booster.num_model_per_iteration()
        rounds = [trees[i : i + outputs] for i in range(0, len(trees), outputs)]
        return FittedTrees(
            "lightgbm", booster_of(rounds, len(train.names), objective.link, how.threads),
            train.names, target.task, len(rounds), None if valid is None else curve)

    def _native(
        self, train: Matrix, target: Target, how: Training
    ) -> tuple[dict[str, Any], objectives.Objective]:
        """The parameters under LightGBM's own names, but for rounds, and the objective."""
        params = {k: v for k, v in self.params.items()
                  if k not in ("early_stopping_rounds", "n_estimators")}
        name, objective = objectives.objective_of(
            "lightgbm", params.get("objective"), objectives.LIGHTGBM, target, train.target)
        if "monotone_constraints" in params:
            params["monotone_constraints"] = constraints.monotone(
                params["monotone_constraints"], train)
        if "interaction_constraints" in params:
            params["interaction_constraints"] = constraints.interaction(
                params["interaction_constraints"], train)
        if "eval_metric" in params:
            params["metric"] = params.pop("eval_metric")
        if target.task == "multiclass":
            params["num_class"] = len(target.classes)
        return {**params, "objective": name, "seed": how.seed, "num_threads": how.threads,
                "deterministic": True, "force_col_wise": True, "verbosity": -1,
                "feature_pre_filter": False}, objective

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return restored_trees("lightgbm", payload)


def _dataset(
    library: Any, matrix: Matrix, params: dict[str, Any], reference: lightgbm.Dataset | None
) -> lightgbm.Dataset:
    return library.Dataset(
        list(matrix.chunks), label=np.asarray(matrix.target), weight=matrix.weight,
        reference=reference, params=params,
        categorical_feature=[i for i, c in enumerate(matrix.categorical) if c],
    )


def _boost(
    library: Any, params: dict[str, Any], data: lightgbm.Dataset,
    watched: lightgbm.Dataset | None, plan: Schedule,
) -> tuple[lightgbm.Booster, dict[str, Any]]:
    """A booster of at most so many rounds, and its curve (see `boosting.boost`)."""
    booster = library.Booster(params, data)
    if watched is not None:
        booster.add_valid(watched, "valid")
    every = plan.patience.every(plan.rounds)
    losses: list[float] = []
    metric, maximise = "", False
    for i in range(plan.rounds):
        finished = booster.update()  # whether no leaf can be split any more
        if watched is not None and ((i + 1) % every == 0 or (finished and not losses)):
            _, metric, loss, maximise = booster.eval_valid()[-1]
            losses.append(float(loss))
            finished = plan.patience.is_over(losses[-1], maximise) or finished
        if finished:
            break
    return booster, {"metric": metric, "every": every, "valid": losses, "maximise": maximise}


def trees_of(model: str) -> list[Tree]:
    """The trees of a LightGBM model in its text format, in order.

    A block a tree, ``name=values`` a line. Inner nodes come first; a child below 0 is the
    leaf ``-1 - child``. ``x <= threshold`` goes left; where a node looks at codes, those of its
    set do, and threshold is the number of the set (src/io/tree.cpp, `Tree::ToString`).
    """
    blocks = model.partition("end of trees")[0].split("\nTree=")[1:]
    return [_tree(dict(line.split("=", 1) for line in block.splitlines() if "=" in line))
            for block in blocks]


def _tree(block: dict[str, str]) -> Tree:
    leaves = _read(block, "leaf_value", np.float64)
    inner = len(leaves) - 1
    left, right = (np.where(c < 0, inner - 1 - c, c) for c in (
        _read(block, "left_child", np.int64), _read(block, "right_child", np.int64)))
    decision = _read(block, "decision_type", np.int64)
    threshold = _read(block, "threshold", np.float64)
    # Where training saw no missing value, one counts as 0.
    missing_left = np.where(decision >> 2 & 3 == MISSING_NAN, decision & ON_THE_LEFT != 0,
                            threshold >= 0)
    coded = decision & CODED != 0
    # XGBoost's codes go right, LightGBM's left: the sides change places. Codes of neither set,
    # and missing ones, go right here, and left there.
    left, right = np.where(coded, right, left), np.where(coded, left, right)
    missing_left |= coded
    none, zeros = np.full(len(leaves), -1), np.zeros(len(leaves))
    weight = [_read(block, n, np.float64) for n in ("internal_count", "leaf_count")]
    return Tree(
        np.concatenate([left, none]), np.concatenate([right, none]),
        np.concatenate([_read(block, "split_feature", np.int64), zeros]),
        np.concatenate([above(threshold), zeros]), np.concatenate([missing_left, zeros != 0]),
        np.concatenate([_read(block, "internal_value", np.float64), leaves]),
        np.concatenate(weight) if inner else np.ones(1),
        np.concatenate([_read(block, "split_gain", np.float64), zeros]),
        _codes(block, np.flatnonzero(coded), threshold),
    )


def _codes(
    block: dict[str, str], nodes: np.ndarray, threshold: np.ndarray
) -> dict[int, np.ndarray]:
    """The sets of codes, by node: bits of words of 32, from ``cat_boundaries`` on."""
    if not len(nodes):
        return {}
    starts, words = (_read(block, n, np.int64) for n in ("cat_boundaries", "cat_threshold"))
    found = {}
    for node in nodes:
        number = int(threshold[node])
        own = words[starts[number] : starts[number + 1]].astype("<u4")
        found[int(node)] = np.flatnonzero(np.unpackbits(own.view(np.uint8), bitorder="little"))
    return found


def _read(block: dict[str, str], name: str, dtype: type) -> np.ndarray:
    return np.array(block.get(name, "").split(), dtype)
