"""Gradient-boosted trees by XGBoost: histograms, native categories, early stopping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from gpupipe.errors import ConfigError, EnvironmentFault
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
from gpupipe.models.boosting import boost, exact_rounds, schedule
from gpupipe.models.cuda import is_full, no_room, require_device
from gpupipe.models.dense import check_number
from gpupipe.models.libraries import xgboost_library
from gpupipe.models.quantised import by_query, in_row_order, labels_of, quantised
from gpupipe.models.ring import joined, ring
from gpupipe.models.trees import FittedTrees, outputs_of, restored_trees
from gpupipe.transforms.base import Target

if TYPE_CHECKING:
    pass

DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.05, "max_depth": 6, "min_child_weight": 1.0, "subsample": 0.8,
    "colsample_bytree": 0.8, "tree_method": "hist", "max_bin": 256, "max_cat_to_onehot": 8,
}
"""Good without tuning: a small step, many rounds, and early stopping that ends them."""
FEW_FEATURES = 10
"""Below this many features every tree sees all of them: four fifths of two would be one."""

PARAMETERS = frozenset({
    "base_score", "booster", "callbacks", "colsample_bylevel", "colsample_bynode",
    "colsample_bytree", "device", "early_stopping_rounds", "enable_categorical", "eval_metric",
    "feature_types", "feature_weights", "gamma", "grow_policy", "importance_type",
    "interaction_constraints", "learning_rate", "max_bin", "max_cat_threshold",
    "max_cat_to_onehot", "max_delta_step", "max_depth", "max_leaves", "min_child_weight",
    "missing", "monotone_constraints", "multi_strategy", "n_estimators", "n_jobs",
    "num_parallel_tree", "objective", "random_state", "reg_alpha", "reg_lambda",
    "sampling_method", "scale_pos_weight", "subsample", "tree_method", "validate_parameters",
    "verbosity",
})
"""Those of `xgboost.XGBModel`, written out so that a file is checked without the library."""
LOSSES = {
    "quantile_alpha": "reg:quantileerror", "tweedie_variance_power": "reg:tweedie",
    "huber_slope": "reg:pseudohubererror", "aft_loss_distribution": "survival:aft",
    "aft_loss_distribution_scale": "survival:aft",
}
"""Parameters of an objective, and the objective."""
PAIRS = {"lambdarank_pair_method", "lambdarank_num_pair_per_sample", "lambdarank_normalization",
         "lambdarank_score_normalization", "ndcg_exp_gain"}
"""Parameters of the objectives that rank."""
DART = {"sample_type", "normalize_type", "rate_drop", "one_drop", "skip_drop"}
"""Parameters of ``booster: dart``."""
REFUSED = {
    "n_jobs": "set engine.workers", "nthread": "set engine.workers",
    "random_state": "set seed", "seed": "set seed", "device": "set engine.device",
    "missing": "NaN is always missing", "enable_categorical": "it is always on",
    "callbacks": "a pipeline file holds data only", "kwargs": "",
    "feature_types": "steps decide them", "importance_type": "the report shows gain",
}
ALIASES = {"eta": "learning_rate", "lambda": "reg_lambda", "alpha": "reg_alpha",
           "min_split_loss": "gamma", "num_boost_round": "n_estimators"}
NATIVE = {"reg_lambda": "lambda", "reg_alpha": "alpha", "learning_rate": "eta"}


@register("xgboost")
class XGBoost:
    """Trees under the parameter names of `xgboost.XGBModel` (or XGBoost's own aliases).

    Without ``n_estimators`` rounds go on while the validation part improves
    (``early_stopping_rounds``, 50 by default); with it, there are exactly so many. With
    ``booster: dart`` there always are: later rounds change the weights of earlier trees, so the
    first of them are not the model of fewer rounds.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = (*TASKS, "survival", "hazard", "ranking")
    needs: ClassVar[Needs] = "anything"
    space: ClassVar[Space] = {
        "learning_rate": Range(0.1, 0.1, log=True), "max_depth": Range(3, 10),
        "min_child_weight": Range(0.5, 50.0, log=True), "subsample": Range(0.5, 1.0),
        "colsample_bytree": Range(0.3, 1.0), "reg_lambda": Range(0.01, 50.0, log=True),
        "reg_alpha": Range(0.001, 20.0, log=True), "max_bin": OneOf((256, 512)),
        "max_cat_to_onehot": OneOf((1, 8, 32)),
    }
    starts: ClassVar[Starts] = (
        {"learning_rate": 0.1, "reg_alpha": 0.001},
        {"learning_rate": 0.1, "max_depth": 4, "subsample": 0.8, "colsample_bytree": 0.5,
         "reg_lambda": 5.0, "reg_alpha": 0.001},
        {"learning_rate": 0.1, "max_depth": 9, "min_child_weight": 5.0, "subsample": 0.7,
         "colsample_bytree": 0.6, "reg_lambda": 5.0, "reg_alpha": 0.001},
    )
    of_positive: ClassVar[Space] = {"objective": OneOf((None, "reg:tweedie"))}
    library = staticmethod(xgboost_library)
    ring = staticmethod(ring)
    joined = staticmethod(joined)

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("xgboost", params, {*PARAMETERS, *LOSSES, *PAIRS, *DART, *ALIASES})
        named = {ALIASES.get(k, k): v for k, v in params.items()}
        for name in named:
            if name in REFUSED:
                raise ConfigError(
                    f"model 'xgboost' does not take {name!r} here", hint=REFUSED[name] or None
                )
        self.given = {k: v for k, v in named.items() if v is not None}
        self.params = {**DEFAULTS, **self.given}
        check_number("xgboost", self.params, "learning_rate", 0, above=True)
        self._check()

    def _check(self) -> None:
        """ConfigError for parameters that do not go together."""
        given, objective = self.given, self.given.get("objective")
        if objective is not None:
            objectives.check_name("xgboost", objective, objectives.XGBOOST)
        if objective == "reg:quantileerror" and not _is_share(given.get("quantile_alpha")):
            raise ConfigError("objective 'reg:quantileerror' predicts one quantile, which is "
                              "between 0 and 1", hint="set quantile_alpha: 0.9, say; several "
                              "need a model each")
        for name in LOSSES.keys() & given.keys():
            if objective != LOSSES[name]:
                raise ConfigError(f"{name} belongs to objective {LOSSES[name]!r}",
                                  hint=f"set objective: {LOSSES[name]}, or leave {name} out")
        if PAIRS & given.keys() and not self.ranks:
            raise ConfigError(f"{min(PAIRS & given.keys())} belongs to an objective that ranks",
                              hint="set objective: rank:ndcg, or leave it out")
        booster = given.get("booster", "gbtree")
        if booster not in ("gbtree", "dart"):
            raise ConfigError(f"model 'xgboost' grows trees, found booster: {booster!r}",
                              hint="booster is gbtree or dart; for weights of features, set "
                              "kind: linear")
        if booster != "dart" and DART & given.keys():
            raise ConfigError(f"{min(DART & given.keys())} is a parameter of booster: dart",
                              hint="set booster: dart, or leave it out")
        if booster == "dart" and "early_stopping_rounds" in given:
            raise ConfigError("booster: dart cannot stop early: later rounds change the weights of "
                              "earlier trees", hint="set n_estimators instead")
        if "monotone_constraints" in given:
            constraints.check_monotone("xgboost", given["monotone_constraints"])
        if "interaction_constraints" in given:
            constraints.check_interaction("xgboost", given["interaction_constraints"])

    @property
    def ranks(self) -> bool:
        """Whether it ranks the rows of queries, which then have to lie side by side."""
        return str(self.given.get("objective")).startswith("rank:")

    @property
    def streams(self) -> bool:
        return not self.ranks

    @property
    def spreads(self) -> bool:
        """Not where a row's loss is of its whole query, or of all rows that were at risk: one
        process has them all."""
        return not self.ranks and self.given.get("objective") != "survival:cox"

    @property
    def rounds(self) -> int | None:
        """Exactly so many rounds, where the parameters say so."""
        return exact_rounds(self.given, dart=self.given.get("booster") == "dart")

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Train on ``train``; stop early at ``valid`` where it is given.

        Raises ConfigError with XGBoost's own words where it refuses a parameter, or where a
        constraint or the objective does not suit the features and the task; DataError where the
        objective does not suit the target's values; and EnvironmentFault where a GPU has no
        room even for pages of the bins.
        """
        xgboost = xgboost_library()
        _check_whole(str(self.given.get("objective")), self.spreads, how)
        order = None
        if self.ranks:
            train, _ = by_query(train)
            valid, order = (None, None) if valid is None else by_query(valid)
        if how.device == "cuda":
            require_device(xgboost)
        plan = schedule(self.given, self.params["learning_rate"], valid, target, how,
                        dart=self.given.get("booster") == "dart")
        native = self._native(train, target, how) | {"eta": plan.learning_rate}
        try:
            sampled = how.processes == 1  # together they take all rows: each has few
            labels = labels_of(native["objective"])
            data = quantised(train, native, None, how.spill, sampled, labels)
            watched = None if valid is None else quantised(valid, native, data, how.spill,
                                                           labels=labels)
            booster, curve, judged = boost(native, data, watched, plan.rounds, plan.patience,
                                           how.checkpoints)
        except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
            if is_full(error):
                if how.spill is None and how.scratch is not None:
                    # The device has no room for all bins: their pages lie on the host, then.
                    return self.fit(train, valid, target, replace(how, spill=how.scratch))
                raise no_room(train.rows, len(train.names)) from error
            raise ConfigError(
                f"XGBoost refused to train: {_first_line(error)}", hint="look at model.params",
            ) from error
        if judged is not None and order is not None:
            judged = in_row_order(judged, order)
        return FittedTrees("xgboost", booster, train.names, target.task,
                           booster.num_boosted_rounds(), None if valid is None else curve,
                           None if judged is None else outputs_of(judged, target.task), how.device)

    def _native(self, train: Matrix, target: Target, how: Training) -> dict[str, Any]:
        """The parameters under XGBoost's own names, but for rounds."""
        params = {k: v for k, v in self.params.items()
                  if k not in ("early_stopping_rounds", "n_estimators", "learning_rate")}
        if len(train.names) < FEW_FEATURES and "colsample_bytree" not in self.given:
            params["colsample_bytree"] = 1.0
        if "monotone_constraints" in params:
            signs = constraints.monotone(params["monotone_constraints"], train)
            params["monotone_constraints"] = f"({','.join(map(str, signs))})"
        if "interaction_constraints" in params:
            groups = constraints.interaction(params["interaction_constraints"], train)
            params["interaction_constraints"] = str(groups)
        params["objective"], _ = objectives.objective_of(
            "xgboost", params.get("objective"), objectives.XGBOOST, target, train.target)
        if target.task == "multiclass":
            params["num_class"] = len(target.classes)
        return {NATIVE.get(k, k): v for k, v in params.items()} | {
            "seed": how.seed, "nthread": how.threads, "verbosity": 0, "seed_per_iteration": True,
            "device": how.device,
        }

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return restored_trees("xgboost", payload)


def _check_whole(objective: str, spreads: bool, how: Training) -> None:
    """EnvironmentFault where processes would each train on a part of what counts as a whole."""
    if how.processes > 1 and not spreads:
        raise EnvironmentFault(
            f"{objective} compares rows with each other, and {how.processes} processes have some "
            "of them each", hint="set engine.kind: local")


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 1


def _first_line(error: Exception) -> str:
    """The telling line of an XGBoost error, without its C++ file names and stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Stack trace" not in line and not line.startswith("[bt]")]
    text = (telling or [type(error).__name__])[0]
    return text.split(": ", 1)[-1] if ".cc:" in text or ".h:" in text else text
