"""Where a model is worse than elsewhere, and where it is off: slices of one column or two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.evaluate.cells import EPS
from gpupipe.evaluate.explain_search import (
    LEAST,
    PAIRED,
    Cut,
    Found,
    Values,
    distinct,
    search,
    significant,
)
from gpupipe.evaluate.metrics import Task
from gpupipe.evaluate.scores import evaluate

LOSSES: dict[Task, str] = {
    "binary": "log loss", "multiclass": "log loss", "regression": "mean absolute error",
}
Json = dict[str, Any]


def row_losses(task: Task, y: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Each row's loss: minus the logarithm of the truth's probability, or the absolute error."""
    if task == "regression":
        return np.asarray(np.abs(prediction - y))
    own = np.where(y == 1, prediction, 1 - prediction) if task == "binary" else (
        prediction[np.arange(len(y)), y])
    return np.asarray(-np.log(np.clip(own, EPS, 1.0)))


def expected_losses(task: Task, prediction: np.ndarray) -> np.ndarray | None:
    """The log loss that each row would have on average if its probabilities were the truth."""
    if task == "regression":
        return None
    p = np.column_stack([1 - prediction, prediction]) if task == "binary" else prediction
    p = np.clip(p, EPS, 1.0)
    return np.asarray(-(p * np.log(p)).sum(axis=1))


def worst_slices(
    task: Task, y: np.ndarray, prediction: np.ndarray, cuts: Sequence[Cut], *,
    weight: np.ndarray | None = None, metric: str | None = None,
    judged: np.ndarray | None = None, shown: int = 10, least: int = LEAST, paired: int = PAIRED,
    confidence: float = 0.95, seed: int = 0,
) -> Json:
    """The slices whose mean loss is greater than that of all other rows, beyond chance.

    Parameters
    ----------
    cuts : the columns, the most important ones first: pairs are made of the first ``paired``.
    metric : shown beside the loss, with its bootstrap interval.
    judged : what the metric judges in place of the predictions: labels by another threshold.

    Returns
    -------
    ``loss`` (its name), ``whole``, ``rows``, ``tested`` (slices looked at), ``found`` (how many
    are worse at a false discovery rate of 5 %), ``slices``, those first whose difference is
    surest: ``{"parts": [{"column", "level"}], "rows", "share", "value", "rest", "difference",
    "low", "high", "q"}``, and with them ``"metric"`` and, for classes, ``"expected"``: the loss
    if the predicted probabilities were right, which tells a slice that is hard from one that the
    model gets wrong.
    """
    loss, expected = row_losses(task, y, prediction), expected_losses(task, prediction)
    values = Values(loss, weight)
    tested = search(cuts, values, "rest", least, paired)
    found = significant(tested, values)
    slices = []
    for one, q in distinct(found, shown):
        told, where = _described(one, q, len(loss)), one.where
        w = None if weight is None else weight[where]
        if expected is not None:
            told["expected"] = float(np.average(expected[where], weights=w))
        if metric is not None:
            shown_to_it = prediction if judged is None else judged
            told["metric"] = evaluate(
                task, y[where], shown_to_it[where], weight=w, metrics=[metric],
                confidence=confidence, resamples=200, seed=seed)[metric].to_json()
        slices.append(told)
    return {"loss": LOSSES[task], "whole": float(np.average(loss, weights=weight)),
            "rows": len(loss), "tested": len(tested), "found": len(found), "slices": slices}


def biased_slices(
    task: Task, y: np.ndarray, prediction: np.ndarray, cuts: Sequence[Cut], *,
    weight: np.ndarray | None = None, shown: int = 10, least: int = LEAST, paired: int = PAIRED,
) -> Json | None:
    """The slices in which predictions are too high or too low on average, beyond chance.

    Of two classes or values: the mean of prediction less truth against 0. None for more classes.
    The variance of a row of class 1 with probability p is p (1 - p) if the probabilities are
    right, and that is what is tested: a slice without a single positive has none of its own.

    Returns
    -------
    As `worst_slices`; ``value`` is the mean of prediction less truth, and each slice has
    ``target_mean`` and ``prediction_mean``.
    """
    if task == "multiclass":
        return None
    bias = prediction - y
    values = Values(bias, weight, prediction * (1 - prediction) if task == "binary" else None)
    tested = search(cuts, values, "zero", least, paired)
    found = significant(tested, values)
    slices = []
    for one, q in distinct(found, shown):
        where = one.where
        w = None if weight is None else weight[where]
        slices.append(_described(one, q, len(bias)) | {
            "target_mean": float(np.average(y[where], weights=w)),
            "prediction_mean": float(np.average(prediction[where], weights=w)),
        })
    return {"whole": float(np.average(bias, weights=weight)), "rows": len(bias),
            "tested": len(tested), "found": len(found), "slices": slices}


def _described(found: Found, q: float, rows: int) -> Json:
    return {
        "parts": [{"column": c, "level": n} for c, n in found.parts], "rows": found.rows,
        "share": found.rows / rows, "value": found.mean, "rest": found.rest,
        "difference": found.difference, "low": found.low, "high": found.high, "q": q,
    }
