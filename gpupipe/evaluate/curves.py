"""What the report draws of a model's predictions: curves and tables with a bounded size.

Every function takes columns (NumPy or CuPy) and returns plain lists for JSON, a few hundred
numbers at most, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.engine.arrays import Array, namespace, to_host
from gpupipe.evaluate.cells import scored
from gpupipe.evaluate.metrics import Task
from gpupipe.evaluate.samples import checked

POINTS = 200
CLASSES = 30
OVERLAID = 8
Json = dict[str, Any]


def curves(
    task: Task, y: Array, prediction: Array, *, weight: Array | None = None,
    classes: Sequence[str] | None = None, threshold: float = 0.5,
) -> Json:
    """All curves of a task, by name, as the report's ``curves`` section wants them.

    binary: ``roc``, ``precision_recall``, ``calibration``, ``score_histogram``, ``gain``,
    ``confusion``; multiclass: ``roc`` (one-vs-rest, the 8 largest classes), ``calibration`` and
    ``score_histogram`` of the predicted class's probability, ``confusion``; regression:
    ``predicted_actual`` and ``residual_predicted`` (2-D densities), ``residual_histogram``,
    ``deciles``; none of times with an event. Above ``threshold`` a binary row is predicted
    positive. A curve that is not defined (one class only) is left out.
    """
    y, (p,), weight = checked(task, y, [prediction], weight)
    if task == "binary":
        return _binary(y, p, weight, list(classes or ["0", "1"]), threshold)
    if task == "multiclass":
        return _multiclass(y, p, weight, list(classes or map(str, range(p.shape[1]))))
    return _regression(y, p, weight) if task == "regression" else {}


def _binary(y: Array, p: Array, weight: Array, classes: list[str], threshold: float) -> Json:
    found: Json = {}
    table, _, _ = scored(y, p, weight)
    neg, pos = to_host(table.neg[0])[::-1], to_host(table.pos[0])[::-1]
    if neg.sum() > 0 and pos.sum() > 0:
        found["roc"] = [{"name": classes[1], **roc(neg, pos)}]
        found["precision_recall"] = precision_recall(neg, pos)
        found["gain"] = gain(neg, pos)
    found["calibration"] = calibration(y, p, weight)
    found["score_histogram"] = score_histogram(p, [y == 0, y == 1], weight, classes)
    predicted = (p > threshold).astype(y.dtype)
    found["confusion"] = confusion(y, predicted, weight, classes)
    return found


def _multiclass(y: Array, p: Array, weight: Array, classes: list[str]) -> Json:
    xp = namespace(p)
    rows = to_host(xp.bincount(y, weights=weight, minlength=len(classes)))
    best = p.argmax(axis=1)
    found: Json = {"roc": []}
    for c in np.argsort(-rows, kind="stable")[:OVERLAID].tolist():
        table, _, _ = scored(y == c, p[:, c], weight)
        neg, pos = to_host(table.neg[0])[::-1], to_host(table.pos[0])[::-1]
        if neg.sum() > 0 and pos.sum() > 0:
            found["roc"].append({"name": classes[c], **roc(neg, pos)})
    sure, right = p.max(axis=1), best == y
    found["calibration"] = calibration(right, sure, weight)
    found["score_histogram"] = score_histogram(sure, [~right, right], weight, ["wrong", "right"])
    found["confusion"] = confusion(y, best, weight, classes)
    return found


def _regression(y: Array, p: Array, weight: Array) -> Json:
    residual = p - y
    return {
        "predicted_actual": density(p, y, weight, square=True),
        "residual_predicted": density(p, residual, weight),
        "residual_histogram": histogram(residual, weight),
        "deciles": deciles(y, p, weight),
    }


def roc(neg: np.ndarray, pos: np.ndarray) -> Json:
    """False and true positive rates from weights at falling scores, with the area."""
    fpr = np.concatenate([[0], np.cumsum(neg) / neg.sum()])
    tpr = np.concatenate([[0], np.cumsum(pos) / pos.sum()])
    kept = _spread(fpr + tpr)
    return {"fpr": _list(fpr[kept]), "tpr": _list(tpr[kept]),
            "auc": float(np.trapezoid(tpr, fpr))}


def precision_recall(neg: np.ndarray, pos: np.ndarray) -> Json:
    """Recall, precision, and the precision of a coin (``base_rate``)."""
    hits = np.cumsum(pos)
    precision, recall = hits / (hits + np.cumsum(neg)), hits / pos.sum()
    steps = np.flatnonzero(pos > 0)
    precision, recall = precision[steps], recall[steps]
    # Evenly along the curve: precision moves fast where recall is small.
    fall = np.abs(np.diff(precision, prepend=precision[0]))
    kept = _spread(np.cumsum(fall + np.diff(recall, prepend=0)))
    return {"recall": _list(recall[kept]), "precision": _list(precision[kept]),
            "base_rate": float(pos.sum() / (pos.sum() + neg.sum()))}


def gain(neg: np.ndarray, pos: np.ndarray) -> Json:
    """Share of the positives found in the top share of the rows, at each percent.

    ``lift`` is the share found over the share looked at.
    """
    seen = np.concatenate([[0], np.cumsum(neg + pos)]) / (neg + pos).sum()
    found = np.concatenate([[0], np.cumsum(pos)]) / pos.sum()
    at = np.linspace(0, 1, 101)
    share = np.interp(at, seen, found)
    return {"share": _list(at), "found": _list(share),
            "lift": [None, *_list(share[1:] / at[1:])],
            "base_rate": float(pos.sum() / (pos.sum() + neg.sum()))}


def calibration(y: Array, p: Array, weight: Array, bins: int = 10) -> Json:
    """Mean prediction and observed share in quantile bins, with 95 % Wilson intervals.

    Wilson, E. B. (1927), Probable inference, JASA 22; with weights, rows are counted as Kish's
    effective number. ``ece`` is the expected calibration error, the mean gap by weight.
    """
    xp = namespace(p)
    order = xp.argsort(p)
    share = xp.cumsum(weight[order]) / weight.sum()
    edges = xp.unique(p[order][xp.searchsorted(share, xp.linspace(0, 1, bins + 1)[1:-1])])
    which = xp.searchsorted(edges, p, side="right")
    size = len(edges) + 1

    def total(values: Array) -> np.ndarray:
        return to_host(xp.bincount(which, weights=values, minlength=size))

    mass, second = total(weight), total(weight**2)
    used = mass > 0
    mass, second = mass[used], second[used]
    predicted, observed = total(weight * p)[used] / mass, total(weight * y)[used] / mass
    rows = to_host(xp.bincount(which, minlength=size))[used]
    n, z2 = mass**2 / second, 1.959964**2
    centre = (observed + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (observed * (1 - observed) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    table = zip(predicted, observed, centre - half, centre + half, rows, strict=True)
    return {
        "bins": [
            {"predicted": float(a), "observed": float(b), "low": float(max(lo, 0)),
             "high": float(min(hi, 1)), "rows": int(r)} for a, b, lo, hi, r in table
        ],
        "ece": float(np.sum(mass * np.abs(predicted - observed)) / mass.sum()),
    }


def score_histogram(
    p: Array, groups: Sequence[Array], weight: Array, names: Sequence[str], bins: int = 40
) -> Json:
    """Weight by score on [0, 1], for each group of rows."""
    xp = namespace(p)
    which = xp.minimum((p * bins).astype(xp.int64), bins - 1)
    counts = [to_host(xp.bincount(which, weights=weight * g, minlength=bins)) for g in groups]
    return {"edges": _list(np.linspace(0, 1, bins + 1)),
            "series": [{"name": str(n), "counts": _list(c)}
                       for n, c in zip(names, counts, strict=True)]}


def confusion(y: Array, predicted: Array, weight: Array, classes: list[str]) -> Json:
    """Weight by true class (rows) and predicted class; past 30 classes the smallest are one."""
    xp, k = namespace(y), len(classes)
    flat = xp.bincount(y * k + predicted, weights=weight, minlength=k * k)
    counts = to_host(flat).reshape(k, k)
    names = [str(c) for c in classes]
    if k > CLASSES:
        order = np.argsort(-counts.sum(1), kind="stable")
        kept = np.sort(order[: CLASSES - 1])
        fold = np.full(k, CLASSES - 1)
        fold[kept] = np.arange(CLASSES - 1)
        small = np.zeros((CLASSES, CLASSES))
        np.add.at(small, (fold[:, None], fold[None, :]), counts)
        counts = small
        names = [names[c] for c in kept.tolist()] + [f"other ({k - CLASSES + 1})"]
    return {"classes": names, "counts": counts.tolist()}


def density(x: Array, y: Array, weight: Array, bins: int = 44, square: bool = False) -> Json:
    """A 2-D histogram within the middle 99.8 % of each axis; ``outside`` is the share left out."""
    xp = namespace(x)
    x_low, x_high = _middle(x)
    y_low, y_high = _middle(y)
    if square:
        x_low = y_low = min(x_low, y_low)
        x_high = y_high = max(x_high, y_high)
    i = xp.floor((x - x_low) / (x_high - x_low) * bins).astype(xp.int64)
    j = xp.floor((y - y_low) / (y_high - y_low) * bins).astype(xp.int64)
    i, j = xp.where(x == x_high, bins - 1, i), xp.where(y == y_high, bins - 1, j)
    inside = (i >= 0) & (i < bins) & (j >= 0) & (j < bins)
    flat = xp.bincount((i * bins + j)[inside], weights=weight[inside], minlength=bins * bins)
    return {
        "x": [x_low, x_high], "y": [y_low, y_high],
        "counts": to_host(flat).reshape(bins, bins).tolist(),
        "outside": float(1 - weight[inside].sum() / weight.sum()),
    }


def histogram(values: Array, weight: Array, bins: int = 60) -> Json:
    """Counts within the middle 99.8 %; ``outside`` is the share left out."""
    xp = namespace(values)
    low, high = _middle(values)
    which = xp.floor((values - low) / (high - low) * bins).astype(xp.int64)
    which = xp.where(values == high, bins - 1, which)
    inside = (which >= 0) & (which < bins)
    counts = to_host(xp.bincount(which[inside], weights=weight[inside], minlength=bins))
    return {"edges": _list(np.linspace(low, high, bins + 1)), "counts": _list(counts),
            "outside": float(1 - weight[inside].sum() / weight.sum())}


def deciles(y: Array, p: Array, weight: Array, bins: int = 10) -> list[Json]:
    """By tenth of the predictions: rows, mean prediction, mean target, bias and mean error."""
    xp = namespace(p)
    order = xp.argsort(p)
    which = xp.empty(len(p), dtype=xp.int64)
    share = (xp.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    which[order] = xp.minimum((share * bins).astype(xp.int64), bins - 1)

    def total(values: Array) -> np.ndarray:
        return to_host(xp.bincount(which, weights=values, minlength=bins))

    mass = total(weight)
    rows = to_host(xp.bincount(which, minlength=bins))
    sums = [total(weight * values) for values in (p, y, p - y, abs(p - y))]
    return [
        {"decile": b + 1, "rows": int(rows[b]),
         **{name: float(s[b] / mass[b]) for name, s in
            zip(("predicted", "actual", "bias", "absolute_error"), sums, strict=True)}}
        for b in range(bins) if mass[b] > 0
    ]


def _middle(values: Array) -> tuple[float, float]:
    xp = namespace(values)
    low, high = (float(v) for v in xp.quantile(values, xp.asarray([0.001, 0.999])))
    if high <= low:  # nearly constant: a range of some width around it
        room = abs(low) * 1e-6 or 1.0
        low, high = low - room, high + room
    return low, high


def _spread(position: np.ndarray, points: int = POINTS) -> np.ndarray:
    """Indices of at most ``points`` entries, even along a rising ``position``, ends included."""
    if len(position) <= points:
        return np.arange(len(position))
    wanted = np.linspace(position[0], position[-1], points)
    return np.unique(np.append(np.searchsorted(position, wanted).clip(max=len(position) - 1),
                               [0, len(position) - 1]))


def _list(values: np.ndarray) -> list[float]:
    """Plain floats, to six significant digits: what a plot can show."""
    return [float(f"{v:.6g}") for v in values.tolist()]
