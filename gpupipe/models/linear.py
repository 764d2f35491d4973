"""Linear models by scikit-learn, or cuML on a GPU: logistic, ridge, lasso, elastic net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError
from gpupipe.models import cuml, sgd
from gpupipe.models.base import (
    LIBRARIES,
    TASKS,
    FittedModel,
    Matrix,
    Needs,
    Payload,
    Plain,
    Range,
    Space,
    Task,
    Training,
    check_params,
    register,
)
from gpupipe.models.contributions import Contributions, linear_contributions
from gpupipe.models.cuda import device_of
from gpupipe.models.dense import (
    check_choice,
    dense,
    linear_margins,
    logistic,
    ranked,
    softmax,
)
from gpupipe.transforms.base import Target

DEFAULTS: dict[str, Any] = {
    "penalty": "l2", "C": 1.0, "alpha": 1.0, "l1_ratio": 0.0, "max_iter": 1_000, "tol": 1e-4,
    "fit_intercept": True, "class_weight": None, "solver": "auto", "eta0": None,
    "n_iter_no_change": 5,
}


@register("linear")
class Linear:
    """Logistic regression for classes (``C``), ridge for values (``alpha``).

    ``penalty`` is ``l2``, ``l1`` (a lasso), ``elasticnet`` or None; ``l1_ratio`` above 0 alone
    makes an elastic net, too. Other parameters are scikit-learn's: ``max_iter``, ``tol``,
    ``fit_intercept``, ``class_weight``. With ``solver`` ``sgd`` the same objective is
    approached chunk by chunk, so that the matrix need not fit into memory (see `models.sgd`).
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    needs: ClassVar[Needs] = "numbers"
    # Not l1_ratio: its solver for classes takes minutes where the one of l2 takes seconds.
    space: ClassVar[Space] = {
        "C": Range(1e-3, 1e2, log=True), "alpha": Range(1e-3, 1e3, log=True),
    }
    streams: bool = False
    spreads: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("linear", params, set(DEFAULTS))
        self.params = {**DEFAULTS, **params}
        check_choice("linear", self.params, "penalty", ("l2", "l1", "elasticnet", None))
        check_choice("linear", self.params, "solver", ("auto", "sgd"))
        self.streams = self.params["solver"] == "sgd"
        self.mix = _mix(params)

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Train on ``train``; ``valid`` is not used.

        Raises DataError naming the features that are missing values or not encoded.
        """
        y = np.asarray(train.target)
        present = np.unique(y) if target.task != "regression" else y
        one_vs_rest = False
        if len(present) == 1 and target.task != "regression":
            # scikit-learn will not learn from one class; what there is to learn is plain.
            coefficients, intercept = np.zeros((1, len(train.names))), np.zeros(1)
        elif self.streams:
            coefficients, intercept = sgd.fit(self.params, self.mix, train, target, how)
            one_vs_rest = len(coefficients) > 1
        else:
            x = dense("linear", train).astype("float64")
            coefficients, intercept = _fit(self._estimator(target.task, how), x, y, train.weight)
        if target.task != "regression" and len(present) < len(target.classes):
            coefficients, intercept = _with_absent(coefficients, intercept, present, target,
                                                   one_vs_rest)
        return FittedLinear("linear", coefficients, intercept, train.names, target.task,
                            one_vs_rest)

    def _estimator(self, task: str, how: Training) -> Any:
        with LIBRARIES:
            from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge

        p, mix = self.params, self.mix or 0.0
        shared = {k: p[k] for k in ("max_iter", "tol", "fit_intercept")}
        if task != "regression":
            return LogisticRegression(
                C=np.inf if self.mix is None else p["C"], l1_ratio=mix,
                solver="saga" if mix > 0 else "lbfgs", class_weight=p["class_weight"],
                random_state=how.seed, **shared,
            )
        if mix > 0:
            return ElasticNet(alpha=p["alpha"], l1_ratio=mix, random_state=how.seed, **shared)
        return Ridge(alpha=0.0 if self.mix is None else p["alpha"], **shared)

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedLinear("linear", payload["coefficients"], payload["intercept"],
                            tuple(payload["names"]), payload["task"],
                            payload.get("one_vs_rest", False))


def _mix(params: Mapping[str, Any]) -> float | None:
    """The share of l1 in the penalty; None for no penalty at all.

    ConfigError where ``penalty`` and ``l1_ratio`` say two things.
    """
    ratio = params.get("l1_ratio")
    if "penalty" not in params:
        return float(ratio or 0.0)
    penalty = params["penalty"]
    if penalty == "elasticnet":
        if ratio is None or not 0 < ratio < 1:
            raise ConfigError(f"penalty elasticnet of model 'linear' has l1_ratio {ratio!r}",
                              hint="set model.params.l1_ratio between 0 and 1, for example 0.5")
        return float(ratio)
    share = {"l2": 0.0, "l1": 1.0, None: None}[penalty]
    if ratio is not None and float(ratio) != (share or 0.0):
        raise ConfigError(f"penalty {penalty} and l1_ratio {ratio} of model 'linear' disagree",
                          hint="leave one of them out, or set penalty to elasticnet")
    return share


def _fit(
    estimator: Any, x: Array, y: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients ``[1 or classes, features]`` and intercepts, on the host.

    Learned where ``x`` lies. ConfigError for what the library refuses.
    """
    library = "cuML" if device_of(x) == "cuda" else "scikit-learn"
    try:
        if library == "cuML":
            coefficients, intercept = cuml.learned(estimator, x, y, weight)
        else:
            coefficients, intercept = cuml.attributes(estimator.fit(x, y, sample_weight=weight))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{library} refused to train: {error}",
                          hint="look at model.params") from error
    return (np.atleast_2d(coefficients).astype(np.float64),
            np.atleast_1d(intercept).astype(np.float64))


def _with_absent(
    coefficients: np.ndarray, intercept: np.ndarray, present: np.ndarray, target: Target,
    one_vs_rest: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """The same model over all classes: those that no training row has are never predicted."""
    if target.task == "binary":
        return coefficients, np.array([np.inf if present[0] == 1 else -np.inf])
    if len(present) == 2 and not one_vs_rest:
        # Two classes have one margin, that of the second against the first.
        coefficients = np.vstack([0 * coefficients, coefficients])
        intercept = np.concatenate([0 * intercept, intercept])
    wide = np.zeros((len(target.classes), coefficients.shape[1]))
    base = np.full(len(target.classes), -np.inf)
    wide[present], base[present] = coefficients, intercept
    return wide, base


@dataclass
class FittedLinear(Plain):
    """Coefficients ``[1 or classes, features]`` and intercepts ``[1 or classes]``.

    ``one_vs_rest``: each class was told from all others, and the probabilities are those of
    the classes by themselves, made to sum to 1; otherwise they are the softmax of the margins.
    """

    coefficients: np.ndarray
    intercept: np.ndarray
    names: tuple[str, ...]
    task: str
    one_vs_rest: bool = False

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        margin = linear_margins(chunk, self.coefficients, self.intercept)
        if self.task == "regression":
            return margin[:, 0]
        if margin.shape[1] == 1:
            return logistic(margin[:, 0])
        if not self.one_vs_rest:
            return softmax(margin)
        each = logistic(margin)
        return each / each.sum(axis=1, keepdims=True)

    def contributions(self, chunk: Array, rounds: int | None = None) -> Contributions:
        return linear_contributions(self.coefficients, self.intercept, chunk, self.task)

    def importances(self) -> list[tuple[str, float]]:
        return ranked(self.names, np.abs(self.coefficients).mean(axis=0))

    def payload(self) -> Payload:
        return {"coefficients": self.coefficients, "intercept": self.intercept,
                "names": list(self.names), "task": self.task, "one_vs_rest": self.one_vs_rest}
