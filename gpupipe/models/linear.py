"""Linear models by scikit-learn, or cuML on a GPU: logistic regression, ridge, elastic net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError, DataError
from gpupipe.models import cuml
from gpupipe.models.base import (
    LIBRARIES,
    TASKS,
    FittedModel,
    Matrix,
    Needs,
    OneOf,
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
from gpupipe.steps.base import Target

DEFAULTS: dict[str, Any] = {
    "C": 1.0, "alpha": 1.0, "l1_ratio": 0.0, "max_iter": 1_000, "tol": 1e-4,
    "fit_intercept": True, "class_weight": None,
}


@register("linear")
class Linear:
    """Logistic regression for classes (``C``), ridge for values (``alpha``).

    ``l1_ratio`` above 0 makes either an elastic net; at 1 it is a lasso. Other parameters are
    scikit-learn's: ``max_iter``, ``tol``, ``fit_intercept``, ``class_weight``.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    needs: ClassVar[Needs] = "numbers"
    space: ClassVar[Space] = {
        "C": Range(1e-3, 1e2, log=True), "alpha": Range(1e-3, 1e3, log=True),
        "l1_ratio": OneOf((0.0, 0.5, 1.0)),
    }
    streams: ClassVar[bool] = False
    spreads: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("linear", params, set(DEFAULTS))
        self.params = {**DEFAULTS, **params}

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Train on ``train``; ``valid`` is not used.

        Raises DataError naming the features that are missing values or not encoded.
        """
        chunks = list(train.chunks)
        x = namespace(chunks[0]).concatenate(chunks).astype("float64")
        _check_numbers(x, train)
        y = np.asarray(train.target)
        present = np.unique(y) if target.task != "regression" else y
        if len(present) == 1 and target.task != "regression":
            # scikit-learn will not learn from one class; what there is to learn is plain.
            coefficients, intercept = np.zeros((1, x.shape[1])), np.zeros(1)
        else:
            estimator = self._estimator(target.task, how)
            try:
                learned = _fit(estimator, x, y, train.weight)
            except (ValueError, TypeError) as error:
                library = "cuML" if device_of(x) == "cuda" else "scikit-learn"
                raise ConfigError(f"{library} refused to train: {error}",
                                  hint="look at model.params") from error
            coefficients = np.atleast_2d(learned[0]).astype(np.float64)
            intercept = np.atleast_1d(learned[1]).astype(np.float64)
        if target.task != "regression" and len(present) < len(target.classes):
            coefficients, intercept = _with_absent(coefficients, intercept, present, target)
        return FittedLinear("linear", coefficients, intercept, train.names, target.task)

    def _estimator(self, task: str, how: Training) -> Any:
        with LIBRARIES:
            from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge

        p = self.params
        shared = {k: p[k] for k in ("max_iter", "tol", "fit_intercept")}
        if task != "regression":
            net = p["l1_ratio"] > 0
            return LogisticRegression(
                C=p["C"], l1_ratio=p["l1_ratio"], solver="saga" if net else "lbfgs",
                class_weight=p["class_weight"], random_state=how.seed, **shared,
            )
        if p["l1_ratio"] > 0:
            return ElasticNet(alpha=p["alpha"], l1_ratio=p["l1_ratio"], random_state=how.seed,
                              **shared)
        return Ridge(alpha=p["alpha"], **shared)

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedLinear("linear", payload["coefficients"], payload["intercept"],
                            tuple(payload["names"]), payload["task"])


def _fit(
    estimator: Any, x: Array, y: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and intercept, on the host, learned where ``x`` lies."""
    if device_of(x) == "cuda":
        return cuml.fit(estimator, x, y, weight)
    estimator.fit(x, y, sample_weight=weight)
    return estimator.coef_, estimator.intercept_


def _with_absent(
    coefficients: np.ndarray, intercept: np.ndarray, present: np.ndarray, target: Target
) -> tuple[np.ndarray, np.ndarray]:
    """The same model over all classes: those that no training row has are never predicted."""
    if target.task == "binary":
        return coefficients, np.array([np.inf if present[0] == 1 else -np.inf])
    if len(present) == 2:
        # Two classes have one margin, that of the second against the first.
        coefficients = np.vstack([0 * coefficients, coefficients])
        intercept = np.concatenate([0 * intercept, intercept])
    wide = np.zeros((len(target.classes), coefficients.shape[1]))
    base = np.full(len(target.classes), -np.inf)
    wide[present], base[present] = coefficients, intercept
    return wide, base


def _check_numbers(x: Array, train: Matrix) -> None:
    codes = [n for n, c in zip(train.names, train.categorical, strict=True) if c]
    if codes:
        raise DataError(
            f"model 'linear' cannot use category codes: {', '.join(codes[:5])}",
            hint="encode them: one_hot, count or target_encode",
        )
    empty = to_host(namespace(x).isnan(x).any(axis=0))
    holes = [n for n, bad in zip(train.names, empty, strict=True) if bad]
    if holes:
        raise DataError(
            f"model 'linear' cannot use missing values, found in {', '.join(holes[:5])}"
            + (f" and {len(holes) - 5} more" if len(holes) > 5 else ""),
            hint="add an impute step: - impute: {columns: numeric, strategy: median}",
        )


@dataclass
class FittedLinear(Plain):
    """Coefficients ``[1 or classes, features]`` and intercepts ``[1 or classes]``."""

    coefficients: np.ndarray
    intercept: np.ndarray
    names: tuple[str, ...]
    task: str

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp = namespace(chunk)
        # Feature by feature, not as a matrix product: BLAS adds in an order that depends on how
        # many rows there are, and one record must score as it does in a table.
        margin = xp.zeros((chunk.shape[0], len(self.intercept))) + xp.asarray(self.intercept)
        columns = xp.ascontiguousarray(chunk.T).astype("float64")
        for column, weights in zip(columns, xp.asarray(self.coefficients).T, strict=True):
            margin += column[:, None] * weights
        if self.task == "regression":
            return margin[:, 0]
        if margin.shape[1] == 1:
            # exp() of a large positive number would overflow; of -|m| it cannot.
            small = xp.exp(-xp.abs(margin[:, 0]))
            return xp.where(margin[:, 0] >= 0, 1 / (1 + small), small / (1 + small))
        odds = xp.exp(margin - margin.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)

    def contributions(self, chunk: Array, rounds: int | None = None) -> Contributions:
        return linear_contributions(self.coefficients, self.intercept, chunk, self.task)

    def importances(self) -> list[tuple[str, float]]:
        size = np.abs(self.coefficients).mean(axis=0)
        total = float(size.sum()) or 1.0
        named = [(n, float(v) / total) for n, v in zip(self.names, size, strict=True)]
        return sorted(named, key=lambda item: (-item[1], item[0]))

    def payload(self) -> Payload:
        return {"coefficients": self.coefficients, "intercept": self.intercept,
                "names": list(self.names), "task": self.task}
