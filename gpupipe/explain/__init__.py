"""Why the model predicts what it does: SHAP, importance, dependence, weak slices, mistakes.

All of it is of a sample of rows that is chosen by their hash, so that it is the same for every
layout of the table; all of it is scored by the pipeline as it goes into the bundle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.store import Contents
from gpupipe.evaluate.explain_dependence import dependence, scatter
from gpupipe.evaluate.explain_mistakes import described, most_wrong
from gpupipe.evaluate.explain_permutation import permutation_importance, related
from gpupipe.evaluate.explain_search import cut_of
from gpupipe.evaluate.explain_slices import LOSSES, biased_slices, worst_slices
from gpupipe.evaluate.metrics import Task, choose
from gpupipe.explain.rows import Judged, Pool, pool
from gpupipe.explain.scorers import Scorer, scorer_of, slowness_of
from gpupipe.explain.shapley import Shap, reasons_of, shap_of
from gpupipe.training import Trained

SLICED_ROWS = 20_000
"""Rows at most among which weak slices are sought."""
CELLS = 4_000_000
"""Values at most that are read of the raw table for it."""
PERMUTED = 30
"""Columns at most that are permuted, the most important ones."""
CURVED_ROWS = 500
"""Rows at most behind a partial dependence."""
LEAST = 50
"""Rows, at least, that are explained, however long one takes to score."""
Json = dict[str, Any]

__all__ = ["explain"]


def explain(trained: Trained, contents: Contents) -> Json:
    """The explanations of a trained pipeline, as `evaluate.report` shows them; {} for none.

    Parameters
    ----------
    contents : what goes into the bundle: the final model, and what its steps learned.
    """
    if not trained.config.explain.rows or trained.target.task == "unsupervised":
        return {}
    return _Explainer(trained, contents).all()


class _Explainer:
    """The sample and the scorer, and one method for each part of the answer."""

    def __init__(self, trained: Trained, contents: Contents) -> None:
        self.trained, self.rules = trained, trained.config.explain
        self.task: Task = trained.target.task  # type: ignore[assignment]
        metric = choose(self.task, trained.config.evaluate.metrics)[0]
        self.metric, self.threshold = metric.name, trained.finished.threshold
        self.labels = metric.needs == "label" and self.task == "binary"
        self.scorer: Scorer = scorer_of(trained, contents)
        self.bundle = self.scorer.bundles[-1]
        self.columns = self.scorer.columns
        self.pool: Pool = pool(trained)
        wide = max(self.rules.rows, min(SLICED_ROWS, CELLS // max(len(self.columns), 1)))
        searched = self.pool.prediction is not None and self.rules.slices > 0
        self.wide: Judged = self.pool.read(
            self.pool.sample(wide if searched else self.rules.rows), self.columns)
        self.slowness = slowness_of(self.bundle.contents.model)
        asked = min(self.rules.rows, len(self.wide))
        rows = min(asked, max(LEAST, int(self.rules.rows / self.slowness)))
        self.rows = self.wide.take(np.arange(rows))
        self.notes: list[str] = []
        if rows < asked:
            self.notes.append(f"{rows} rows are explained, not {asked:,}: scoring a row with this "
                              "model takes long")

    def all(self) -> Json:
        if not len(self.rows):
            return {}
        shap, notes = shap_of(self.scorer, self.rows, self.columns, self.task,
                              self.trained.config.seed, self.slowness)
        self.notes += notes
        ranked = [c["column"] for c in shap.told["columns"]]
        permutation = self._permutation(ranked)
        found: Json = {
            "basis": self.pool.basis, "rows": len(self.rows), "of": len(self.pool.y),
            "task": self.task, "classes": list(self.trained.target.classes),
            "target": self.trained.config.data.target,
        }
        found["shap"] = shap.told
        if permutation is not None:
            found["permutation"] = permutation
            found["related"] = related(self.rows.table, [
                c["column"] for c in permutation["columns"]])
        found["dependence"] = self._dependence(ranked, shap)
        if self.pool.prediction is not None and self.task in LOSSES:
            found["slices"] = self._slices(ranked)
            found["mistakes"] = self._mistakes(shap.told["method"])
        found["notes"] = self.notes
        return {k: v for k, v in found.items() if v or k == "notes"}

    def _permutation(self, columns: list[str]) -> Json | None:
        if self.pool.prediction is None:
            self.notes.append("no row was held out from training: permutation importance, slices "
                              "and mistakes would only say how well it is remembered")
            return None
        if not self.scorer.knows(self.rows.fold):
            self.notes.append("a search keeps no fold's model, and there is no holdout: columns "
                              "cannot be permuted honestly")
            return None
        if len(columns) > PERMUTED:
            self.notes.append(f"of {len(columns):,} columns the first {PERMUTED} by their SHAP "
                              "values were permuted, and looked at for slices")
        fold = self.rows.fold
        return permutation_importance(
            self.task, self.metric, self.rows.table, self.rows.y,
            lambda table, at: self._judged(self.scorer.scores(table, fold[at])),
            columns[:PERMUTED],
            weight=self.rows.weight, repeats=self.rules.repeats, seed=self.trained.config.seed,
        )

    def _judged(self, scores: np.ndarray) -> np.ndarray:
        """Scores as the metric is given them: by the threshold, where it judges labels."""
        return (scores > self.threshold).astype(float) if self.labels else scores

    def _dependence(self, ranked: list[str], shap: Shap) -> list[Json]:
        rows = self.rows.take(np.arange(min(CURVED_ROWS, len(self.rows))))
        found = []
        for column in ranked[: self.rules.columns]:
            told = dependence(
                rows.table, column,
                lambda table: self.scorer.scores(table, np.full(table.num_rows, -1)), rows.weight,
            )
            if told is None:
                continue
            own = shap.columns[:, self.columns.index(column)]
            told["shap"] = scatter(self.rows.table.slice(0, len(own)), column, told["labels"],
                                   told["numeric"], own)
            found.append(told)
        return found

    def _slices(self, ranked: list[str]) -> Json | None:
        if not self.rules.slices:
            return None
        rules, seen = self.rules, self.wide
        cuts = [cut_of(c, seen.table.column(c)) for c in ranked[:PERMUTED]]
        assert seen.prediction is not None
        config = self.trained.config
        worst = worst_slices(
            self.task, seen.y, seen.prediction, cuts, weight=seen.weight, metric=self.metric,
            judged=self._judged(seen.prediction), shown=rules.slices,
            confidence=config.evaluate.confidence, seed=config.seed,
        )
        biased = biased_slices(self.task, seen.y, seen.prediction, cuts, weight=seen.weight,
                               shown=rules.slices)
        return {"worst": worst} | ({"biased": biased} if biased is not None else {})

    def _mistakes(self, method: str) -> Json | None:
        prediction = self.pool.prediction
        if not self.rules.mistakes or prediction is None:
            return None
        at = most_wrong(self.task, self.pool.y, prediction, self.rules.mistakes,
                        self.pool.weight, self.pool.rank, self.threshold)
        if not len(at):
            return None
        rows = self.pool.read(at, self.columns)
        shap = reasons_of(self.scorer, rows, self.rows.table, self.columns, method,
                          self.trained.config.seed)
        keys = [k for k in self.trained.config.data.key or () if k not in self.columns]
        table = rows.table
        if keys:
            named = self.pool.read(at, keys).table
            table = pa.table({**{k: named.column(k) for k in keys},
                              **{c: table.column(c) for c in self.columns}})
        assert rows.prediction is not None
        return described(self.task, table, rows.y, rows.prediction,
                         self.trained.target.classes, self.columns, shap, self.threshold)
