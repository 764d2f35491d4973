"""Metrics with confidence intervals: of one model, of two compared, and by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.engine.arrays import Array, namespace, to_host
from gpupipe.evaluate.draws import Table
from gpupipe.evaluate.metrics import Metric, Task, choose
from gpupipe.evaluate.samples import UNITS, Sample, sample

SMALL_SLICE = 30
SLICE_METRICS: dict[Task, list[str]] = {
    "binary": ["roc_auc", "log_loss", "accuracy"],
    "multiclass": ["accuracy", "f1_macro", "log_loss"],
    "regression": ["root_mean_squared_error", "mean_absolute_error", "r2"],
    "survival": ["concordance_index"], "hazard": ["concordance_index"],
}


@dataclass(frozen=True)
class Score:
    """A metric's value on all rows, its confidence interval, and a note where one is due.

    ``value`` is None, and ``note`` says "undefined: ...", where the metric does not exist on the
    data. ``low`` and ``high`` are None where there is no interval; ``note`` says why.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        plain = {"value": self.value, "low": self.low, "high": self.high}
        return plain | ({"note": self.note} if self.note else {})


def evaluate(
    task: Task, y: Array, prediction: Array, *, weight: Array | None = None,
    metrics: list[str] | None = None, classes: Sequence[str] | None = None,
    confidence: float = 0.95, resamples: int = 1000, seed: int = 0, units: int = UNITS,
    labels: Array | None = None,
) -> dict[str, Score]:
    """Each metric's exact value on all rows, with a percentile bootstrap interval.

    Parameters
    ----------
    task : "binary", "multiclass", "regression", "survival" or "hazard".
    y : class codes int[n] (0..C-1), or float64[n]; a censored time is negative.
    prediction : P(positive) float64[n]; class probabilities float64[n, C]; values float64[n].
    weight : sample weights float64[n].
    metrics : names (scikit-learn's); default: the task's own list.
    classes : the classes' names, for notes.
    confidence, resamples, seed : of the interval; no interval where ``resamples`` is 0.
    units : how many units are resampled at most (see `samples` for the method and its sources).
    labels : binary: 1.0 for what is predicted positive and 0.0 for the rest, float64[n], where
        that is not by whether P(positive) is above a half.

    Raises ConfigError for an unknown metric or one of another task, DataError for unfit arrays.
    """
    chosen = choose(task, metrics)
    if labels is not None:
        of_labels = [m.name for m in chosen if m.needs == "label"]
        parts = (of_labels, labels), ([m.name for m in chosen if m.needs != "label"], prediction)
        found = {name: score for names, shown in parts if names for name, score in evaluate(
            task, y, shown, weight=weight, metrics=names, classes=classes, confidence=confidence,
            resamples=resamples, seed=seed, units=units).items()}
        return {m.name: found[m.name] for m in chosen}
    drawn = sample(task, y, [prediction], weight, [m.name for m in chosen], units)
    values = _bootstrap(drawn, chosen, resamples, seed)
    scores = {}
    for m in chosen:
        exact, boot = values[m.name][0]
        # All metrics where more is better end at 1, all others at 0.
        boot = np.minimum(boot, 1.0) if m.greater_is_better else np.maximum(boot, 0.0)
        scores[m.name] = _score(m, exact, boot, confidence, _reason(m, y, prediction, classes))
    return scores


def paired_difference(
    task: Task, metric: str, y: Array, pred_a: Array, pred_b: Array, *,
    weight: Array | None = None, confidence: float = 0.95, resamples: int = 1000, seed: int = 0,
    units: int = UNITS,
) -> Score:
    """How much larger ``metric`` is for ``pred_a`` (the model) than for ``pred_b`` (a baseline).

    Both are computed on the same resamples, so what they share cancels. See `evaluate`.
    """
    return paired_differences(
        task, [metric], y, pred_a, pred_b, weight=weight, confidence=confidence,
        resamples=resamples, seed=seed, units=units,
    )[metric]


def paired_differences(
    task: Task, metrics: list[str] | None, y: Array, pred_a: Array, pred_b: Array, *,
    weight: Array | None = None, confidence: float = 0.95, resamples: int = 1000, seed: int = 0,
    units: int = UNITS,
) -> dict[str, Score]:
    """`paired_difference` of several metrics at once."""
    chosen = choose(task, metrics)
    drawn = sample(task, y, [pred_a, pred_b], weight, [m.name for m in chosen], units)
    values = _bootstrap(drawn, chosen, resamples, seed)
    found = {}
    for m in chosen:
        (a, boot_a), (b, boot_b) = values[m.name]
        found[m.name] = _score(m, a - b, boot_a - boot_b, confidence, m.undefined)
    return found


def slice_scores(
    task: Task, y: Array, prediction: Array, column_codes: Array, levels: Sequence[str], *,
    weight: Array | None = None, metrics: list[str] | None = None, limit: int = 20,
    confidence: float = 0.95, resamples: int = 500, seed: int = 0, labels: Array | None = None,
    means: Mapping[str, Array] | None = None,
) -> list[dict[str, Any]]:
    """The metrics within each level of a column, most rows first.

    ``column_codes`` int[n] are positions in ``levels``; -1 is missing. Past ``limit`` levels the
    rest are one row, "other". Each row is ``{"level", "kind", "rows", "share", "scores": {metric:
    Score JSON}, "small"}``, where kind is "level", "missing" or "other", and ``small`` marks fewer
    than 30 rows; ``"target_mean"`` and ``"prediction_mean"`` are added but for multiclass, and
    the mean of each column in ``means``.
    """
    chosen = [m.name for m in choose(task, metrics or SLICE_METRICS[task])]
    xp = namespace(column_codes)
    counts = to_host(xp.bincount(column_codes + 1, minlength=len(levels) + 1))
    ranked = [int(c) for c in np.argsort(-counts, kind="stable") if counts[c]]
    groups: list[tuple[str, str, Array]] = []
    for c in ranked[:limit]:
        name, kind = ("(missing)", "missing") if c == 0 else (str(levels[c - 1]), "level")
        groups.append((name, kind, column_codes == c - 1))
    if len(ranked) > limit:
        rest = xp.isin(column_codes, xp.asarray(ranked[limit:]) - 1)
        groups.append((f"other ({len(ranked) - limit:,} levels)", "other", rest))
    rows = []
    for name, kind, where in groups:
        w = None if weight is None else weight[where]
        count = int(where.sum())
        row: dict[str, Any] = {"level": name, "kind": kind, "rows": count,
                               "share": count / len(column_codes), "small": count < SMALL_SLICE}
        if w is not None and float(w.sum()) == 0:
            note = "undefined: all rows have weight 0"
            row["scores"] = {m: Score(None, note=note).to_json() for m in chosen}
        else:
            scores = evaluate(
                task, y[where], prediction[where], weight=w, metrics=chosen,
                confidence=confidence, resamples=resamples, seed=seed, units=UNITS // 4,
                labels=None if labels is None else labels[where],
            )
            row["scores"] = {m: s.to_json() for m, s in scores.items()}
            row |= {name: _mean(values[where], w) for name, values in (means or {}).items()}
            if task in ("binary", "regression"):
                row["target_mean"] = _mean(y[where], w)
                row["prediction_mean"] = _mean(prediction[where], w)
        rows.append(row)
    return rows


def _mean(values: Array, weight: Array | None) -> float:
    if weight is None:
        return float(values.mean())
    return float((values * weight).sum() / weight.sum())


def _bootstrap(
    drawn: Sample, chosen: list[Metric], resamples: int, seed: int
) -> dict[str, list[tuple[float, np.ndarray]]]:
    """For each metric and prediction: the value on all rows, and float64[resamples] around it."""

    def compute(m: Metric, table: Table) -> np.ndarray:
        return np.asarray(to_host(m.compute(table)), dtype=float)

    with np.errstate(divide="ignore", invalid="ignore"):
        exact = {m.name: [compute(m, t)[0] for t in drawn.exact] for m in chosen}
        coarse = {m.name: [compute(m, t)[0] for t in drawn.coarse] for m in chosen}
        blocks: dict[str, list[list[np.ndarray]]] = {m.name: [[] for _ in drawn.exact]
                                                     for m in chosen}
        for tables in drawn.resampled(resamples, seed):
            for m in chosen:
                if m.no_interval is None:
                    for kept, table in zip(blocks[m.name], tables, strict=True):
                        kept.append(compute(m, table))
    values = {}
    for name, parts in blocks.items():
        # Cells round scores a little; the shift puts the resamples around the exact value.
        values[name] = [
            (e, np.concatenate(kept) + (e - c) if kept else np.empty(0))
            for e, c, kept in zip(exact[name], coarse[name], parts, strict=True)
        ]
    return values


def _score(m: Metric, value: float, boot: np.ndarray, confidence: float, reason: str) -> Score:
    if not np.isfinite(value):
        return Score(None, note=f"undefined: {reason}")
    value = float(value)
    if not len(boot):
        return Score(value, note=m.no_interval and f"no interval: {m.no_interval}")
    defined = boot[np.isfinite(boot)]
    lost = len(boot) - len(defined)
    if lost > len(boot) / 2:
        return Score(value, note=f"no interval: undefined in most resamples ({m.undefined})")
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    note = f"undefined in {lost} of {len(boot)} resamples ({m.undefined})" if lost else None
    return Score(value, float(low), float(high), note)


def _reason(m: Metric, y: Array, prediction: Array, classes: Sequence[str] | None) -> str:
    """Why ``m`` is not defined, naming the class without rows where that is it."""
    if not m.name.startswith("roc_auc_ovr") or classes is None:
        return m.undefined
    seen = to_host(namespace(y).bincount(y, minlength=prediction.shape[1]))
    absent = [repr(str(classes[c])) for c in np.flatnonzero(seen == 0).tolist()]
    return f"no row is of class {', '.join(absent[:5])}" if absent else m.undefined
