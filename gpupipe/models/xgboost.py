"""Gradient-boosted trees by XGBoost: histograms, native categories, early stopping."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gpupipe.checkpoints import temporary_name
from gpupipe.engine import machine
from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array
from gpupipe.engine.memory import PAGE_ROWS
from gpupipe.errors import ConfigError
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
from gpupipe.models.boosting import Patience, boost
from gpupipe.models.contributions import Contributions, tree_contributions, tree_work
from gpupipe.models.cuda import device_of, is_full, no_room, require_device
from gpupipe.models.ring import joined, ring
from gpupipe.steps.base import Target

if TYPE_CHECKING:
    import xgboost

DEFAULTS: dict[str, Any] = {
    "learning_rate": 0.05, "max_depth": 6, "min_child_weight": 1.0, "subsample": 0.8,
    "colsample_bytree": 0.8, "tree_method": "hist", "max_bin": 256, "max_cat_to_onehot": 8,
}
"""Good without tuning: a small step, many rounds, and early stopping that ends them."""
MAX_ROUNDS = 3_000
"""Rounds at most where early stopping decides."""
PLAIN_ROUNDS = 400
"""Rounds where there is no validation part to stop at, and no ``n_estimators``."""
PATIENCE = 50
LEAST_GAIN = 1e-4
"""An improvement counts while rounds go on if it is this share of the loss of knowing nothing."""
CUT_ROWS = 65_536
"""Rows, at least, from which the bins of a large matrix are cut."""
MANY_CLASSES = 10
"""A round grows a tree a class. From so many classes on, a step is `LONG_STEP`, and rounds are
as many times fewer: with 23 classes the short steps would take an hour on half a million rows."""
LONG_STEP = 0.2
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
OURS = {"n_estimators", "early_stopping_rounds", "objective", "eval_metric"}
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


@cache
def library() -> Any:
    """XGBoost itself. Imported when it is needed, for it takes most of a second."""
    # OpenMP threads spin while they wait, which makes training several times slower as soon as
    # anything else runs on the machine; a short spin costs nothing where nothing else does.
    # Read once, when the library is loaded.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # XGBoost loads scikit-learn for its own estimators, which takes four times as long as all
    # else in it. They are not used here; a user's process may want them, the command does not.
    with LIBRARIES, _hidden("sklearn") if machine.own_process else nullcontext():
        import xgboost

    return xgboost


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Inside, ``name`` cannot be imported, unless it has been already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


@register("xgboost")
class XGBoost:
    """Trees under the parameter names of `xgboost.XGBModel` (or XGBoost's own aliases).

    Without ``n_estimators`` rounds go on while the validation part improves
    (``early_stopping_rounds``, 50 by default); with it, there are exactly so many.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    needs: ClassVar[Needs] = "anything"
    space: ClassVar[Space] = {
        "learning_rate": Range(0.02, 0.2, log=True), "max_depth": Range(3, 10),
        "min_child_weight": Range(0.5, 50.0, log=True), "subsample": Range(0.5, 1.0),
        "colsample_bytree": Range(0.3, 1.0), "reg_lambda": Range(0.01, 50.0, log=True),
        "reg_alpha": Range(0.001, 20.0, log=True), "max_bin": OneOf((256, 512)),
        "max_cat_to_onehot": OneOf((1, 8, 32)),
    }
    streams: ClassVar[bool] = True
    spreads: ClassVar[bool] = True
    library = staticmethod(library)
    ring = staticmethod(ring)
    joined = staticmethod(joined)

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("xgboost", params, {*PARAMETERS, *OURS, *ALIASES})
        named = {ALIASES.get(k, k): v for k, v in params.items()}
        for name in named:
            if name in REFUSED:
                raise ConfigError(
                    f"model 'xgboost' does not take {name!r} here", hint=REFUSED[name] or None
                )
        self.given = {k: v for k, v in named.items() if v is not None}
        self.params = {**DEFAULTS, **self.given}

    @property
    def rounds(self) -> int | None:
        """Exactly so many rounds, where the parameters say so."""
        stopping = "early_stopping_rounds" in self.given
        return None if stopping else self.given.get("n_estimators")

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Train on ``train``; stop early at ``valid`` where it is given.

        Raises ConfigError with XGBoost's own words where it refuses a parameter, and
        EnvironmentFault where a GPU has no room even for pages of the bins.
        """
        params, xgboost = dict(self.params), library()
        if how.device == "cuda":
            require_device(xgboost)
        if len(train.names) < FEW_FEATURES and "colsample_bytree" not in self.given:
            params["colsample_bytree"] = 1.0
        longer = 1.0
        if len(target.classes) >= MANY_CLASSES and "learning_rate" not in self.given:
            longer = LONG_STEP / params["learning_rate"]
            params["learning_rate"] = LONG_STEP
        patience = params.pop("early_stopping_rounds", None)
        rounds = params.pop("n_estimators", None)
        if valid is None:
            rounds, patience = how.rounds or rounds or int(PLAIN_ROUNDS / longer), None
        elif rounds is None:
            rounds, patience = int(MAX_ROUNDS / longer), patience or int(PATIENCE / longer)
        native = {NATIVE.get(k, k): v for k, v in params.items()}
        native |= {"seed": how.seed, "nthread": how.threads, "verbosity": 0,
                   "seed_per_iteration": True, "device": how.device}
        native.setdefault("objective", OBJECTIVES[target.task])
        if target.task == "multiclass":
            native["num_class"] = len(target.classes)
        try:
            sampled = how.processes == 1  # together they take all rows: each has few
            data = _quantised(train, native, None, how.spill, sampled)
            watched = None if valid is None else _quantised(valid, native, data, how.spill)
            booster, curve, judged = boost(native, data, watched, int(rounds), Patience(
                patience, self._least_gain(valid, target)), how.checkpoints)
        except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
            if is_full(error):
                if how.spill is None and how.scratch is not None:
                    # The device has no room for all bins: their pages lie on the host, then.
                    return self.fit(train, valid, target, replace(how, spill=how.scratch))
                raise no_room(train.rows, len(train.names)) from error
            raise ConfigError(
                f"XGBoost refused to train: {_first_line(error)}", hint="look at model.params",
            ) from error
        return FittedXGBoost(booster, train.names, target.task, booster.num_boosted_rounds(),
                             None if valid is None else curve,
                             None if judged is None else _probabilities(judged), how.device)

    def _least_gain(self, valid: Matrix | None, target: Target) -> float:
        """The least gain that counts while rounds go on, where the loss is the default one."""
        if valid is None or {"objective", "eval_metric"} & set(self.given):
            return 0.0
        return LEAST_GAIN * _loss_of_nothing(valid.target, target)

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        if not payload["booster"]:
            raise ValueError("the booster has no bytes")  # XGBoost would abort the process
        booster = library().Booster({"nthread": payload.get("threads", 1)})
        booster.load_model(bytearray(payload["booster"]))
        return FittedXGBoost(booster, tuple(payload["names"]), payload["task"],
                             payload["rounds"], None)


OBJECTIVES = {
    "binary": "binary:logistic", "multiclass": "multi:softprob", "regression": "reg:squarederror",
}


@dataclass
class FittedXGBoost:
    """A trained booster and the names of its features."""

    booster: xgboost.Booster
    names: tuple[str, ...]
    task: str
    rounds: int | None
    curve: dict[str, Any] | None
    judged: Array | None = None
    device: str = "cpu"
    kind: str = "xgboost"

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        if device_of(chunk) != self.device:  # or XGBoost would copy the chunk to the other one
            self.device = device_of(chunk)
            self.booster.set_param({"device": self.device})
        kept = self.rounds or 0
        scores = self.booster.inplace_predict(
            chunk, iteration_range=(0, min(rounds or kept, kept)), validate_features=False
        )
        return _probabilities(scores)

    def contributions(self, chunk: Array, rounds: int | None = None) -> Contributions:
        """SHAP values, worked out where the chunk lies (see `contributions.Contributions`)."""
        if device_of(chunk) != self.device:
            self.device = device_of(chunk)
            self.booster.set_param({"device": self.device})
        kept = self.rounds or 0
        return tree_contributions(library(), self.booster, chunk, self.task,
                                  min(rounds or kept, kept))

    def contribution_work(self) -> float:
        return tree_work(self.booster, self.rounds or 0)

    def importances(self) -> list[tuple[str, float]]:
        gain = self.booster.get_score(importance_type="total_gain")
        named = [(name, float(gain.get(f"f{i}", 0.0))) for i, name in enumerate(self.names)]
        total = sum(value for _, value in named) or 1.0
        return sorted(((n, v / total) for n, v in named), key=lambda item: (-item[1], item[0]))

    def payload(self) -> Payload:
        booster = self.booster
        if self.rounds and self.rounds < booster.num_boosted_rounds():
            booster = booster[: self.rounds]
        return {"booster": bytes(booster.save_raw("ubj")), "names": list(self.names),
                "task": self.task, "rounds": self.rounds}


@cache
def _chunks() -> Any:
    """The class of the iterators that hand a matrix over."""

    class Chunks(library().DataIter):  # type: ignore[misc]
        """Hands a matrix to XGBoost chunk by chunk, so that it is never copied whole."""

        def __init__(self, matrix: Matrix, prefix: str | None) -> None:
            self.matrix = matrix
            self.types = ["c" if c else "q" for c in matrix.categorical]
            self.row = 0
            super().__init__(cache_prefix=prefix)
            self.reset()

        def next(self, input_data: Any) -> bool:
            chunk = next(self.chunks, None)
            if chunk is None:
                return False
            rows = slice(self.row, self.row + int(chunk.shape[0]))
            weight = self.matrix.weight
            input_data(
                data=chunk, label=self.matrix.target[rows].astype("float32"),
                weight=None if weight is None else weight[rows].astype("float32"),
                feature_types=self.types,
            )
            self.row = rows.stop
            return True

        def reset(self) -> None:
            self.chunks = iter(self.matrix.chunks if self.cache_prefix is None
                               else pages(self.matrix.chunks))
            self.row = 0

    return Chunks


def _quantised(
    matrix: Matrix, params: dict[str, Any], reference: xgboost.QuantileDMatrix | None,
    spill: Path | None, sampled: bool = False,
) -> xgboost.QuantileDMatrix:
    """The matrix in bins: those of ``reference``, else of its own quantiles.

    Of a large matrix every so-manieth row gives the quantiles: sorting all rows takes longer
    than all else here, and 256 bins are no better for it (a bin's share of the rows is 0.4 %,
    off by some 0.02 % with this many). Codes are left out of it: a rare one might be missed.
    """
    step = matrix.rows // CUT_ROWS
    if sampled and step >= 4 and not any(matrix.categorical):
        reference = _quantised(matrix.every(step), params, None, None)
    shared = {"max_bin": int(params["max_bin"]), "ref": reference, "nthread": params["nthread"],
              "enable_categorical": True}
    if spill is None:
        return library().QuantileDMatrix(_chunks()(matrix, None), **shared)
    prefix = temporary_name(spill / "bins")  # a name for this matrix alone
    prefix.parent.mkdir(parents=True, exist_ok=True)
    return library().ExtMemQuantileDMatrix(_chunks()(matrix, str(prefix)), **shared)


def pages(chunks: Iterable[Array]) -> Iterator[Array]:
    """The same rows in chunks of about `PAGE_ROWS`: what becomes a page of bins in a file."""
    waiting: list[Array] = []
    for chunk in chunks:
        if waiting and sum(len(c) for c in waiting) + len(chunk) > PAGE_ROWS:
            yield namespace(chunk).concatenate(waiting)
            waiting = []
        waiting.append(chunk)
    if waiting:
        yield namespace(waiting[0]).concatenate(waiting)


def _probabilities(scores: Array) -> Array:
    """XGBoost's float32 predictions as float64; shares that were rounded add up to 1 again."""
    scores = namespace(scores).asarray(scores, dtype="float64")
    return scores / scores.sum(axis=1, keepdims=True) if scores.ndim == 2 else scores


def _loss_of_nothing(y: Array, target: Target) -> float:
    """The default loss of the best constant: the standard deviation, or the entropy."""
    xp = namespace(y)
    if target.task == "regression":
        return float(xp.std(y))
    shares = xp.bincount(y, minlength=len(target.classes)) / max(len(y), 1)
    return float(-(shares * xp.log(xp.where(shares > 0, shares, 1))).sum())


def _first_line(error: Exception) -> str:
    """The telling line of an XGBoost error, without its C++ file names and stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Stack trace" not in line and not line.startswith("[bt]")]
    text = (telling or [type(error).__name__])[0]
    return text.split(": ", 1)[-1] if ".cc:" in text or ".h:" in text else text


