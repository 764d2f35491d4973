"""Stochastic gradient descent: a linear model of a matrix that need not fit into memory.

scikit-learn's ``partial_fit`` sees the rows in blocks of one size, in the order of the table, pass
after pass. The objective is that of the other solvers, in their parameters: ``C`` is made
scikit-learn's ``alpha`` of its SGD by ``1 / (C n)``, ridge's ``alpha`` by ``alpha / n``, and a
value is learned with mean 0 and deviation 1. Steps are of a few sizes, from ``eta0`` down, and
what is kept is the mean of the coefficients after each block of the later passes (Bach and
Moulines, "Non-strongly-convex smooth stochastic approximation with convergence rate O(1/n)",
NeurIPS 2013; scikit-learn's own mean goes wrong where there is an l1 penalty).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.errors import ConfigError
from gpupipe.models.base import LIBRARIES, Matrix, Training
from gpupipe.models.dense import blocks, with_class_weights
from gpupipe.transforms.base import Target

BLOCK_ROWS = 1024
"""Rows that are shuffled together, and learned one after the other."""
STEP = 0.5
"""The size of a step, times the mean squared length of a row."""
FIFTHS = 2
"""How often steps are made smaller."""


@dataclass(frozen=True)
class Facts:
    """What the first pass tells: the size of a step, the target's mean and deviation."""

    step: float
    centre: float
    spread: float


def fit(
    params: Mapping[str, Any], mix: float | None, train: Matrix, target: Target, how: Training
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients ``[1 or classes present, features]`` and intercepts, of the original scale.

    ``mix`` is the share of l1 in the penalty, None for no penalty. Raises ConfigError on a GPU,
    and where the steps are too large to come to rest.
    """
    if how.device == "cuda":
        raise ConfigError(
            "solver sgd trains on the CPU: cuML's takes neither weights nor a matrix in chunks",
            hint="leave model.params.solver out, or set engine.device to cpu")
    values = target.task == "regression"
    y, weight = np.asarray(train.target), train.weight
    if not values:
        weight = with_class_weights(params["class_weight"], y, target, weight)
    facts = _facts(train, y, weight, values, params["fit_intercept"])
    code = (y - facts.centre) / facts.spread if values else np.unique(y, return_inverse=True)[1]
    estimator = _estimator(params, mix, facts, len(y), values, how.seed)
    with np.errstate(over="ignore", invalid="ignore"):
        coefficients, intercept = _run(estimator, params, train, code, weight, values)
    if not (np.isfinite(coefficients).all() and np.isfinite(intercept).all()):
        raise _too_large(estimator.eta0)
    return coefficients * facts.spread, intercept * facts.spread + facts.centre


def _facts(
    train: Matrix, y: np.ndarray, weight: np.ndarray | None, values: bool, centred: bool
) -> Facts:
    total = longest = 0.0
    for x, _ in blocks("linear", train, BLOCK_ROWS):
        wide = x.astype(np.float64)
        lengths = (wide * wide).sum(axis=1) + 1  # the intercept's own column is 1
        total, longest = total + float(lengths.sum()), max(longest, float(lengths.max()))
    step = STEP * len(y) / total
    if not values:
        return Facts(step, 0.0, 1.0)
    centre = float(np.average(y, weights=weight)) if centred else 0.0
    spread = float(np.sqrt(np.average((y - centre) ** 2, weights=weight))) or 1.0
    # A squared loss pulls in proportion to the error: the longest row must not overshoot.
    return Facts(min(step, 1 / longest), centre, spread)


def _estimator(
    params: Mapping[str, Any], mix: float | None, facts: Facts, rows: int, values: bool, seed: int
) -> Any:
    with LIBRARIES:
        from sklearn.linear_model import SGDClassifier, SGDRegressor

    share, alpha = mix or 0.0, 0.0
    if mix is not None and not values:
        alpha = 1 / (params["C"] * rows)
    elif mix is not None and mix == 0:
        alpha = params["alpha"] / rows
    elif mix is not None:
        # An elastic net's alpha is over the mean loss already; its l1 part goes with the scale.
        first, second = mix / facts.spread, 1 - mix
        alpha, share = params["alpha"] * (first + second), first / (first + second)
    shared = {
        "penalty": "elasticnet" if mix else None if mix is None else "l2", "alpha": alpha,
        "l1_ratio": share, "fit_intercept": params["fit_intercept"], "learning_rate": "constant",
        "eta0": params["eta0"] or facts.step, "random_state": seed,
    }
    return SGDRegressor(**shared) if values else SGDClassifier(loss="log_loss", **shared)


def _run(
    estimator: Any, params: Mapping[str, Any], train: Matrix, y: np.ndarray,
    weight: np.ndarray | None, values: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Passes until the loss has not sunk by ``tol`` for ``n_iter_no_change`` of them.

    Then steps are made a fifth of what they were, as with scikit-learn's ``adaptive``, `FIFTHS`
    times. Coefficients and intercept are means over at least the later half of the passes with
    the last size of steps.
    """
    classes = {} if values else {"classes": np.unique(y)}
    best, stale, since, seed = np.inf, 0, 0, estimator.random_state
    first, mean = estimator.eta0, _Mean()
    for number in range(params["max_iter"]):
        total = rows = 0.0
        if since & (since - 1) == 0:  # passes 1, 2, 4, 8, ...: what came before is too coarse
            mean = _Mean()
        since += 1
        for x, where in blocks("linear", train, BLOCK_ROWS):
            wide = x.astype(np.float64)
            own = np.ones(len(x)) if weight is None else weight[where]
            if number:
                total += float((own * _losses(estimator, wide, y[where], values)).sum())
                rows += float(own.sum())
            estimator.set_params(random_state=seed)
            seed = (seed + 1) % 2**32  # another order of each block's rows, in each pass
            estimator.partial_fit(wide, y[where], sample_weight=own, **classes)
            mean.add(estimator)
        loss = total / rows if rows else np.inf
        if number and not np.isfinite(loss):
            raise _too_large(first)
        stale = stale + 1 if number > 1 and loss > best - params["tol"] else 0
        best = min(best, loss)
        if stale < params["n_iter_no_change"]:
            continue
        if estimator.eta0 < first / 4.9**FIFTHS:
            break
        estimator.set_params(eta0=estimator.eta0 / 5)
        stale = since = 0
    nothing = 0.5 if values else np.log(2) * len(mean.intercept)
    if np.isfinite(best) and best > 2 * nothing:
        raise _too_large(first)
    return mean.coefficients, mean.intercept


class _Mean:
    """The mean of an estimator's coefficients and intercepts."""

    def __init__(self) -> None:
        self.count = 0
        self.coefficients: Any = 0.0
        self.intercept: Any = 0.0

    def add(self, estimator: Any) -> None:
        self.count += 1
        for name, now in (("coefficients", np.atleast_2d(estimator.coef_)),
                          ("intercept", np.atleast_1d(estimator.intercept_))):
            before = getattr(self, name)
            setattr(self, name, before + (now - before) / self.count)


def _losses(estimator: Any, x: np.ndarray, y: np.ndarray, values: bool) -> np.ndarray:
    """The losses of rows before they are learned from."""
    margin = x @ np.atleast_2d(estimator.coef_).T + estimator.intercept_
    if values:
        return 0.5 * (margin[:, 0] - y) ** 2
    signs = 2.0 * (y[:, None] == (1 if margin.shape[1] == 1 else np.arange(margin.shape[1]))) - 1
    return np.logaddexp(0, -signs * margin).sum(axis=1)


def _too_large(step: float) -> ConfigError:
    return ConfigError(f"solver sgd did not come to rest with steps of eta0 {step:.2g}",
                       hint="scale the features, or set model.params.eta0 lower")
