"""The states of predictions that no training saw: what a monitor holds new ones against.

All but the metrics' values are counts, so they merge and compare like the states of columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.engine.frames import Column, NumpyFrames
from gpupipe.evaluate.scores import evaluate
from gpupipe.stats.moments import Moments
from gpupipe.stats.quantiles import BINS, Extremes, Histogram, bin_of
from gpupipe.stats.state import Rows
from gpupipe.stats.tables import Vocabulary

TENTHS = 10
TASKS = ("binary", "multiclass", "regression")


@dataclass(frozen=True)
class Judged:
    """Rows with truth and prediction; ``of`` is out_of_fold or holdout."""

    of: str
    y: np.ndarray
    prediction: np.ndarray


def predicted_states(
    task: str, judged: Judged, shown: Judged, classes: list[str], metrics: list[str] | None,
    threshold: float,
) -> dict[str, Any]:
    """What a bundle keeps of predictions.

    Parameters
    ----------
    judged : the rows that say how good they are; shown : those that say how they are distributed.

    Returns
    -------
    ``output`` : the states of the scores (of the labels, where there are more than two classes),
        as a column's; ``output_of`` says of which rows.
    ``judged`` : how predictions and truths go together, as counts int64: of two classes
        ``counts[k, label]`` at the score's bit-pattern bin ``bins[k]``; of more ``counts[k,
        right]`` at the bin of the greatest probability; of values ``counts[k]`` at the tenth of
        the predictions ``groups[k]``, which begin at ``starts``, and the bin ``bins[k]`` of the
        absolute error.
    ``confidence`` : of more than two classes the counts of the greatest probabilities ``shown``.
    ``metrics`` : the metrics' values; ``of`` says of which rows.
    """
    y, prediction = np.asarray(judged.y), np.asarray(judged.prediction, np.float64)
    labels = (prediction > threshold).astype(np.float64) if task == "binary" else None
    found = evaluate(task, y, prediction, metrics=metrics, classes=classes,  # type: ignore[arg-type]
                     resamples=0, labels=labels)
    output = np.asarray(shown.prediction, np.float64)
    made = {"of": judged.of, "judged": _judged(task, y, prediction),
            "output_of": shown.of, "output": _output(output, classes),
            "metrics": {name: s.value for name, s in found.items()}}
    if output.ndim == 2:
        bins, counts = np.unique(bin_of(output.max(axis=1), NumpyFrames()), return_counts=True)
        made["confidence"] = {"bins": bins, "counts": counts}
    return made


def _output(prediction: np.ndarray, classes: list[str]) -> dict[str, Any]:
    fx, n = NumpyFrames(), len(prediction)
    rows = Rows(np.zeros(n, np.int64), 1)
    if prediction.ndim == 2:
        column = Column("string", prediction.argmax(axis=1), None, pa.array(classes, pa.string()))
        ranked = Vocabulary().partial([column], rows, fx).ranked()
        return {"moments": _moments(column, rows, fx),
                "vocabulary": {"levels": ranked.levels, "counts": ranked.counts}}
    column = Column("float64", prediction)
    counts = Histogram().partial([column], rows, fx).counts[0]
    held = np.flatnonzero(counts)
    return {"moments": _moments(column, rows, fx),
            "histogram": {"bins": held, "counts": counts[held]},
            "extremes": Extremes().partial([column], rows, fx).arrays()}


def _moments(column: Column, rows: Rows, fx: NumpyFrames) -> dict[str, Any]:
    state = Moments().partial([column], rows, fx)
    return {"count": state.count, "missing": state.missing, "infinite": state.infinite,
            "zeros": state.zeros, "sums": state.sums}


def _judged(task: str, y: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    fx = NumpyFrames()
    if task == "regression":
        order = np.sort(prediction)
        starts = np.unique(order[(len(order) * np.arange(1, TENTHS)) // TENTHS])
        group = np.searchsorted(starts, prediction, "right")
        key = group * BINS + bin_of(np.abs(y - prediction), fx)
        held, counts = np.unique(key, return_counts=True)
        groups, bins = np.divmod(held, BINS)
        return {"starts": starts, "groups": groups, "bins": bins, "counts": counts}
    confident = prediction if prediction.ndim == 1 else prediction.max(axis=1)
    right = y if prediction.ndim == 1 else prediction.argmax(axis=1) == y
    counts = np.bincount(bin_of(confident, fx) * 2 + right.astype(np.int64),
                         minlength=2 * BINS).reshape(BINS, 2)
    held = np.flatnonzero(counts.any(axis=1))
    return {"bins": held, "counts": counts[held]}
