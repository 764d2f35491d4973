"""How good a trained model is: metrics with intervals, beside its baselines, and by slices."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe import unsupervised
from gpupipe.engine.frames import Column
from gpupipe.evaluate.curves import curves
from gpupipe.evaluate.leaderboard import Entry, Leaderboard, leaderboard
from gpupipe.evaluate.metrics import choose
from gpupipe.evaluate.scores import evaluate, paired_difference, slice_scores
from gpupipe.rows import label_of
from gpupipe.steps.scan import Rowed
from gpupipe.training import Trained

SLICE_LEVELS = 50
"""A column of numbers with more distinct values than this is sliced at its quintiles."""


def judge(trained: Trained) -> dict[str, Any]:
    """Metrics of every outcome: ``{"holdout": ..., "cross_validation": ..., "folds": [...]}``.

    Each part is ``{"model": scores, "baselines": {name: scores}, "differences": {name: scores},
    "rows": n}``; `report.Metrics` is the shape. ``leaderboard`` where there is more than one.
    """
    if trained.target.task == "unsupervised":
        return unsupervised.judge(trained)
    found: dict[str, Any] = {}
    if trained.split.holdout and trained.model.final is not None:
        y, weight = trained.target_of(trained.split.holdout)
        found["holdout"] = _part(trained, {n: o.holdout for n, o in trained.outcomes.items()},
                                 y, weight, labels_of(trained, out_of_fold=False))
    if trained.split.folds:
        y, weight = trained.target_of(trained.oof_buckets)
        found["cross_validation"] = _part(
            trained, {n: o.oof for n, o in trained.outcomes.items()}, y, weight,
            labels_of(trained, out_of_fold=True),
        )
        found["folds"] = _by_fold(trained, y, weight)
        entries = entries_of(trained)
        if len(entries) > 1:
            found["leaderboard"] = ranked(trained, entries, y, weight).to_json()
    return found | trained.finished.to_json()


def labels_of(trained: Trained, *, out_of_fold: bool) -> np.ndarray | None:
    """What the model says of the rows, 0.0 or 1.0, where a threshold was chosen."""
    decision = trained.finished.decision
    prediction = trained.model.oof if out_of_fold else trained.model.holdout
    if decision is None or prediction is None:
        return None
    if out_of_fold and decision.labels is not None:
        return decision.labels
    return (prediction > decision.threshold).astype(np.float64)


def entries_of(trained: Trained) -> list[Entry]:
    """What the leaderboard ranks: the model, its baselines, and all that a search tried.

    Of a search's trials those count that were trained on all folds; of some a score alone is kept.
    """
    entries = [Entry(name, o.candidate.model.kind, getattr(o.candidate.model, "params", {}), o.oof)
               for name, o in trained.outcomes.items() if o.oof is not None]
    chosen = trained.chosen
    if chosen is None:
        return entries
    made, best = chosen.tried, chosen.found.best
    entries = [e for e in entries if e.name != "model"]  # it is one of those that follow
    if made is not None:
        name = f"{made.rule.how} of {len(made.members)}"
        entries.append(Entry(f"{name}, the model" if chosen.taken else name, made.rule.how,
                             oof=made.oof))
    for trial in chosen.found.trials:
        if trial.state == "complete":
            mine = trial is best and not chosen.taken
            entries.append(Entry(
                f"{trial.name}, the model" if mine else trial.name, trial.kind,
                {**trial.params, **trial.features}, trial.oof, trial.score, trial.seconds,
                trial.units, trial.latency, trial.size,
            ))
    return entries


def ranked(
    trained: Trained, entries: Sequence[Entry], y: np.ndarray, weight: np.ndarray | None,
) -> Leaderboard:
    """The leaderboard of the run's first metric over the out-of-fold rows."""
    task, rules = trained.target.task, trained.config.evaluate
    metric = choose(task, rules.metrics)[0].name  # type: ignore[arg-type]
    return leaderboard(
        task, metric, entries, y, weight, trained.fold_of_rows(),  # type: ignore[arg-type]
        confidence=rules.confidence, resamples=rules.resamples, seed=trained.config.seed,
    )


def headline(metrics: dict[str, Any]) -> dict[str, Any]:
    """The scores that stand for the run: the holdout's, else the out-of-fold ones, else none.

    Without a target there are those of the training rows, where there are no others.
    """
    return metrics.get("holdout") or metrics.get("cross_validation") or metrics.get(
        "training") or {}


def _part(
    trained: Trained, predictions: dict[str, np.ndarray | None], y: np.ndarray,
    weight: np.ndarray | None, labels: np.ndarray | None,
) -> dict[str, Any]:
    rules, task = trained.config.evaluate, trained.target.task
    metrics = choose(task, rules.metrics)  # type: ignore[arg-type]
    names = [m.name for m in metrics]
    shared: dict[str, Any] = {
        "weight": weight, "confidence": rules.confidence, "resamples": rules.resamples,
        "seed": trained.config.seed,
    }
    scores = {
        name: {k: s.to_json() for k, s in evaluate(
            task, y, p, metrics=names, classes=list(trained.target.classes),  # type: ignore[arg-type]
            labels=labels if name == "model" else None, **shared).items()}
        for name, p in predictions.items() if p is not None
    }
    own = predictions["model"] if labels is None or metrics[0].needs != "label" else labels
    differences = {
        name: {m: paired_difference(
            task, m, y, own, p, **shared).to_json()  # type: ignore[arg-type]
            for m in names[:1]}
        for name, p in predictions.items() if p is not None and name != "model"
    }
    return {
        "model": scores["model"], "rows": len(y), "differences": differences,
        "baselines": {n: s for n, s in scores.items() if n != "model"},
    }


def _by_fold(trained: Trained, y: np.ndarray, weight: np.ndarray | None) -> list[dict[str, Any]]:
    """The model's metrics within each fold, without intervals."""
    number, oof = trained.fold_of_rows(), trained.model.oof
    assert oof is not None
    labels, rows = labels_of(trained, out_of_fold=True), []
    for k in range(len(trained.split.folds)):
        mine = number == k
        scores = evaluate(
            trained.target.task, y[mine], oof[mine],  # type: ignore[arg-type]
            weight=None if weight is None else weight[mine],
            metrics=trained.config.evaluate.metrics, resamples=0,
            labels=None if labels is None else labels[mine],
        )
        rows.append({name: s.value for name, s in scores.items()})
    return rows


def judged_rows(trained: Trained) -> tuple[tuple[int, ...], np.ndarray | None]:
    """The buckets that the report's pictures are of, and the model's predictions for them."""
    if trained.split.holdout:
        return trained.split.holdout, trained.model.holdout
    return trained.oof_buckets, trained.model.oof


def pictures(trained: Trained) -> dict[str, Any]:
    """The curves of the report, of the holdout or the out-of-fold predictions."""
    if trained.target.task == "unsupervised":
        return unsupervised.pictures(trained)
    buckets, prediction = judged_rows(trained)
    if prediction is None:
        return {}
    y, weight = trained.target_of(buckets)
    return curves(trained.target.task, y, prediction, weight=weight,  # type: ignore[arg-type]
                  classes=list(trained.target.classes), threshold=trained.finished.threshold)


def slices(trained: Trained) -> list[dict[str, Any]]:
    """The metrics within each level of the columns under ``evaluate.slices``."""
    buckets, prediction = judged_rows(trained)
    rules = trained.config.evaluate
    if prediction is None or not rules.slices:
        return []
    y, weight = trained.target_of(buckets)
    labels = labels_of(trained, out_of_fold=not trained.split.holdout)
    intervals = trained.finished.intervals
    means = {} if intervals is None else {"coverage": intervals.covers(y).astype(np.float64)}
    found = []
    for column in rules.slices:
        codes, levels = levels_of(trained, column, buckets)
        rows = slice_scores(
            trained.target.task, y, prediction, codes, levels,  # type: ignore[arg-type]
            weight=weight, confidence=rules.confidence, seed=trained.config.seed, labels=labels,
            means=means,
        )
        found.append({"column": column, "rows": rows})
    return found


def levels_of(
    trained: Trained, column: str, buckets: Sequence[int]
) -> tuple[np.ndarray, list[str]]:
    """Level codes of the judged rows, and the levels' names; numbers by quintile."""
    return level_codes(read_column(trained, column, buckets), trained.dataset.schema[column].dtype)


def level_codes(values: pa.Array | np.ndarray, dtype: str) -> tuple[np.ndarray, list[str]]:
    """Level codes (-1: missing) and names of a column's values; numbers, float64, by quintile.

    ``dtype`` is the column's: a timestamp's values are microseconds.
    """
    if isinstance(values, pa.Array):
        encoded = values.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return codes, [label_of(v) for v in encoded.dictionary.to_pylist()]
    missing = np.isnan(values)
    distinct = np.unique(values[~missing])
    if len(distinct) <= SLICE_LEVELS:
        codes = np.where(missing, -1, np.searchsorted(distinct, values))
        return codes, [f"{v:g}" for v in distinct]
    edges = np.unique(np.quantile(values[~missing], [0, 0.2, 0.4, 0.6, 0.8, 1]))
    codes = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    names = [_span(low, high, dtype)
             for low, high in itertools.pairwise(edges)]
    return np.where(missing, -1, codes), names


def _span(low: float, high: float, dtype: str) -> str:
    if dtype == "timestamp":
        return " to ".join(str(np.datetime64(int(v), "us"))[:16] for v in (low, high))
    return f"{low:.4g} to {high:.4g}"


def read_column(
    trained: Trained, column: str, buckets: Sequence[int]
) -> pa.Array | np.ndarray:
    """A source column of the rows in some buckets: text and booleans as they are, else float64."""
    rowed, dtype = trained.rowed, trained.dataset.schema[column].dtype
    text = dtype in ("string", "bool")
    part = _ReadColumn(rowed, column, text, tuple(buckets))
    parts = dict(rowed.engine.map(part, range(len(rowed.rows))))
    pieces = [p for i in sorted(parts) for p in parts[i]]
    return pa.concat_arrays(pieces) if text else np.concatenate(pieces)


@dataclass(frozen=True)
class _ReadColumn:
    """A part's values of a column in some buckets, on the host."""

    rowed: Rowed
    column: str
    text: bool
    buckets: tuple[int, ...]

    def __call__(self, index: int) -> list[Any]:
        fx, out = self.rowed.engine.fx, []
        mask = np.isin(self.rowed.rows[index].bucket, list(self.buckets))
        for batch, where in self.rowed.batches(index, [self.column]):
            found = batch.columns[self.column]
            out.append(_plain(found, mask[where], fx) if self.text
                       else fx.to_host(fx.numbers(found))[mask[where]])
        return out


def _plain(column: Column, mask: np.ndarray, fx: Any) -> pa.Array:
    codes, levels = fx.factorize(column)
    host = fx.to_host(codes)[mask].astype(np.int64)
    index = pa.array(host, mask=host < 0)
    return pa.DictionaryArray.from_arrays(index, levels).dictionary_decode()


