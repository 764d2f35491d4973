"""The rows that a model is most wrong about, with what it was told and what moved it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.evaluate.explain_search import label_of
from gpupipe.evaluate.explain_slices import row_losses
from gpupipe.evaluate.metrics import Task

REASONS = 3
"""Columns named as reasons for a row, at most."""
WORTH = 0.05
"""A reason has at least this share of the strongest one's effect."""
Json = dict[str, Any]


def most_wrong(
    task: Task, y: np.ndarray, prediction: np.ndarray, count: int,
    weight: np.ndarray | None = None, order: np.ndarray | None = None, threshold: float = 0.5,
) -> np.ndarray:
    """Positions of the rows with the greatest loss, the worst first.

    For classes only rows whose label is wrong count, and the truth's probability ranks them; for
    values the absolute error. Rows of weight 0 do not count. ``order`` (a number a row that
    does not depend on its place) settles ties. The label is positive above ``threshold``.
    """
    loss = row_losses(task, y, prediction)
    if task == "binary":
        wrong = (prediction > threshold) != (y == 1)
    elif task == "multiclass":
        wrong = prediction.argmax(axis=1) != y
    else:
        wrong = loss > 0
    if weight is not None:
        wrong = wrong & (weight > 0)
    places = np.flatnonzero(wrong)
    ties = places if order is None else order[places]
    return np.asarray(places[np.lexsort((ties, -loss[places]))][:count])


def described(
    task: Task, table: pa.Table, y: np.ndarray, prediction: np.ndarray, classes: Sequence[str],
    columns: Sequence[str], shap: np.ndarray | None, threshold: float = 0.5,
) -> Json:
    """The rows as the report shows them.

    Parameters
    ----------
    table : their source columns, as they came.
    columns : of ``shap``, float64 ``[n, columns]`` or ``[n, columns, classes]``.

    Returns
    -------
    ``columns`` and ``rows``: ``{"values": {column: text or number}, "truth", "prediction",
    "probability" (of the prediction), "truth_probability" or "residual", "reasons"}``, a reason
    being ``{"column", "value", "effect"}``: a column that moved the row towards the predicted
    class, or, for values, away from the truth; the strongest first.
    """
    names = table.column_names
    rows = []
    for i, record in enumerate(table.to_pylist()):
        values = {n: plain(record[n]) for n in names}
        row: Json = {"values": values}
        if task == "regression":
            row |= {"truth": float(y[i]), "prediction": float(prediction[i]),
                    "residual": float(prediction[i] - y[i])}
            sign = np.sign(prediction[i] - y[i])
            effect = None if shap is None else sign * shap[i]
        else:
            shares = np.array([1 - prediction[i], prediction[i]]) if task == "binary" else (
                prediction[i])
            best = int(prediction[i] > threshold) if task == "binary" else int(shares.argmax())
            row |= {"truth": classes[int(y[i])], "prediction": classes[best],
                    "probability": float(shares[best]),
                    "truth_probability": float(shares[int(y[i])])}
            sign = 1.0 if task == "multiclass" or best == 1 else -1.0
            effect = None if shap is None else (
                shap[i, :, best] if shap.ndim == 3 else sign * shap[i])
        row["reasons"] = [] if effect is None else [
            {"column": columns[c], "value": values.get(columns[c]),
             "effect": float(sign * effect[c])}
            for c in np.argsort(-effect, kind="stable")[:REASONS].tolist()
            if effect[c] > WORTH * max(effect.max(), 0.0)
        ]
        rows.append(row)
    return {"columns": names, "rows": rows}


def plain(value: Any) -> Any:
    """A raw value for JSON: numbers as they are, else text; None for missing."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return label_of(value)
