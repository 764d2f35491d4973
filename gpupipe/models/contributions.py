"""What each feature adds to a prediction: SHAP values, where a family can say them exactly.

A fitted model may have a method ``contributions(chunk, rounds=None) -> Contributions``. It is
optional: `contributions_of` asks for it, and says why there is none where there is none.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpupipe.engine.arrays import to_host
from gpupipe.engine.frames import Array

LOGISTIC = ("binary:logistic", "binary:logitraw", "multi:softprob", "multi:softmax",
            "reg:logistic")
PREDICTED = {"regression": "target", "survival": "time", "hazard": "relative risk"}
"""What is predicted, by task; else it is a probability."""
WORK = 4e7
"""Leaves times levels that a second or two are enough for (some 60 ns each, on one core)."""
NODE_BYTES = 35
"""What a node takes in XGBoost's UBJ format."""
LOGARITHMIC = {"count:poisson": "log target", "reg:gamma": "log target",
               "reg:tweedie": "log target", "survival:aft": "log time",
               "survival:cox": "log relative risk"}


@dataclass(frozen=True)
class Contributions:
    """SHAP values of some rows. ``values.sum(axis=1) + base`` is the model's margin.

    Attributes
    ----------
    values : float64 ``[n, features]``; ``[n, features, outputs]`` where there are several
        (one a class).
    base : float64 ``[n]`` or ``[n, outputs]``: the margin of knowing nothing.
    scale : what the margin is in: "log-odds", "probability", "target", "log target", "log time",
        "log relative risk"; with
        "uncalibrated" before it where predictions are calibrated after it.
    additive : whether a feature's part depends on that feature alone, so that it may be
        measured from any reference (see `centred`).
    """

    values: np.ndarray
    base: np.ndarray
    scale: str
    additive: bool = False

    def centred(self) -> Contributions:
        """Of an additive model: the same, measured from the mean of these rows.

        What a linear model's feature adds is ``w x``; its SHAP value is ``w (x - E[x])``
        (Lundberg & Lee 2017, A unified approach to interpreting model predictions, cor. 1).
        """
        if not self.additive:
            return self
        means = self.values.mean(axis=0)
        return replace(self, values=self.values - means, base=self.base + means.sum(axis=0))


class Unexplained(Exception):  # noqa: N818 - an answer, not an error
    """There are no exact contributions, and why."""


def contributions_of(model: Any, chunk: Array, rounds: int | None = None) -> Contributions:
    """The contributions of a model's features. `Unexplained` where it has none."""
    asked = getattr(model, "contributions", None)
    if asked is None:
        raise Unexplained(f"model {model.kind!r} has no exact contributions")
    found: Contributions = asked(chunk, rounds)
    return found


def affordable_rows(model: Any, rows: int, least: int) -> int:
    """How many of so many rows are explained in a second or two; ``least`` at any rate.

    A fitted model may say in ``contribution_work()`` what a row takes, in leaves times levels.
    `Unexplained` where not even ``least`` rows are done in half a minute.
    """
    work = work_of(model)
    if work * least > 20 * WORK:
        raise Unexplained(f"the trees have too many leaves to explain {least} rows in half a "
                          "minute")
    return rows if not work else min(rows, max(least, int(WORK / work)))


def work_of(model: Any) -> float:
    """What a row's contributions take, in leaves times levels; 0 where it is next to nothing."""
    asked = getattr(model, "contribution_work", None)
    return 0.0 if asked is None else float(asked())


def tree_work(booster: Any, rounds: int | None) -> float:
    """What TreeSHAP does for a row of the first ``rounds`` rounds: leaves times levels, about."""
    whole = max(booster.num_boosted_rounds(), 1)
    nodes = len(booster.save_raw("ubj")) / NODE_BYTES
    return (rounds or whole) / whole * nodes / 2 * math.log2(max(nodes / whole, 2.0))


def tree_contributions(
    xgboost: Any, booster: Any, chunk: Array, task: str, rounds: int
) -> Contributions:
    """TreeSHAP by XGBoost itself, where ``booster`` is: on the CPU, or on a GPU.

    Lundberg, Erion & Lee (2018), Consistent individualized feature attribution for tree
    ensembles; on a GPU Mitchell, Frank & Holmes (2022), GPUTreeShap, PeerJ CS 8.
    """
    matrix = xgboost.DMatrix(chunk, feature_types=booster.feature_types, enable_categorical=True)
    try:
        found = booster.predict(matrix, pred_contribs=True, iteration_range=(0, rounds),
                                validate_features=False, strict_shape=True)
    except xgboost.core.XGBoostError as error:
        raise Unexplained(f"XGBoost has no contributions for this booster: "
                          f"{str(error).splitlines()[-1][:200]}") from error
    # [n, outputs, features + 1], the base last.
    parts = np.moveaxis(to_host(found).astype(np.float64), 1, 2)
    if parts.shape[2] == 1:
        parts = parts[:, :, 0]
    return Contributions(parts[:, :-1], parts[:, -1], _scale(booster, task))


def _scale(booster: Any, task: str) -> str:
    objective = str(json.loads(booster.save_config())["learner"]["objective"]["name"])
    if objective in LOGISTIC:
        return "log-odds"
    if objective in LOGARITHMIC:
        return LOGARITHMIC[objective]
    return PREDICTED.get(task, "probability")


def linear_contributions(
    coefficients: np.ndarray, intercept: np.ndarray, chunk: Array, task: str
) -> Contributions:
    """Of a linear model: each feature's value times its coefficient; exact, and additive."""
    if not np.isfinite(intercept).all():
        raise Unexplained("the training rows lacked a class, whose intercept is infinite")
    x = to_host(chunk).astype(np.float64)
    scale = "target" if task == "regression" else "log-odds"
    if len(intercept) == 1:
        return Contributions(x * coefficients[0], np.full(len(x), intercept[0]), scale, True)
    values = x[:, :, None] * coefficients.T[None, :, :]
    return Contributions(values, np.tile(intercept, (len(x), 1)), scale, True)
