"""The whole pipeline as a function of raw rows: the final model, or each row's own fold's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.contributions import by_column, owners
from gpupipe.bundle.scoring import Bundle
from gpupipe.bundle.store import Contents
from gpupipe.models import FittedModel
from gpupipe.models.contributions import Contributions, contributions_of
from gpupipe.select import pruned
from gpupipe.steps.graph import feature_names
from gpupipe.training import Trained

USUAL = 20_000
"""Numbers that a model may hold and still be scored as fast as any."""


@dataclass(frozen=True)
class Scorer:
    """Bundles by fold; the final model's is that of fold -1."""

    bundles: dict[int, Bundle]
    rounds: dict[int, int | None]
    place: Callable[[np.ndarray], Any] = np.asarray
    """Takes features to where contributions are worked out."""

    @property
    def columns(self) -> list[str]:
        """The source columns that any of the models needs, those of the final one first."""
        return list(dict.fromkeys(n for b in self.bundles.values() for n in b.schema.names))

    def knows(self, fold: np.ndarray) -> bool:
        """Whether the models of all these folds are there: a search keeps no fold's model."""
        return set(np.unique(fold).tolist()) <= set(self.bundles)

    def scores(self, table: pa.Table, fold: np.ndarray) -> np.ndarray:
        """Each row's score by the model of its fold."""
        return self._by_fold(table, fold, lambda k, rows: self._scores(k, rows))

    def contributions(
        self, table: pa.Table, fold: np.ndarray, columns: Sequence[str]
    ) -> np.ndarray:
        """What the source columns add to each row's margin by the model of its fold.

        `Unexplained` where a model has none.
        """
        return self._by_fold(table, fold, lambda k, rows: by_column(
            self.explained(k, rows).values, owners(self.bundles[k]), columns))

    def explained(self, k: int, table: pa.Table) -> Contributions:
        """Contributions by the model of one fold."""
        bundle = self.bundles[k]
        return contributions_of(bundle.contents.model, self.place(bundle.features(table)),
                                self.rounds[k]).centred()

    def _scores(self, k: int, table: pa.Table) -> np.ndarray:
        bundle, rounds = self.bundles[k], self.rounds[k]
        if rounds is None:
            return bundle.scores(table)
        return np.asarray(bundle.contents.model.predict(bundle.features(table), rounds))

    def _by_fold(
        self, table: pa.Table, fold: np.ndarray, function: Callable[[int, pa.Table], np.ndarray]
    ) -> np.ndarray:
        folds = np.unique(fold).tolist()
        if len(folds) == 1:
            return function(folds[0], table)
        out: np.ndarray | None = None
        for k in folds:
            mine = np.flatnonzero(fold == k)
            found = function(k, table.take(pa.array(mine)))
            if out is None:
                out = np.empty((len(fold), *found.shape[1:]))
            out[mine] = found
        assert out is not None
        return out


def scorer_of(trained: Trained, contents: Contents) -> Scorer:
    """The scorer of the final model; with those of the folds where these judge the rows."""
    bundles: dict[int, Any] = {-1: Bundle(contents, Path())}
    rounds: dict[int, int | None] = {-1: None}
    outcome = trained.model
    for k, judge in enumerate(outcome.models):
        # A fold may have chosen other features than the final model.
        fitted = outcome.views[k + 1]
        graph, model = pruned(outcome.candidate.graph, fitted, judge)
        schema = trained.dataset.schema.select(
            [f.name for f in trained.dataset.schema if f.name in set(graph.raw)])
        bundles[k] = Bundle(Contents(contents.info, schema, graph, fitted, model), Path())
        rounds[k] = outcome.rounds if _has_rounds(model) else None
    engine = trained.rowed.engine
    return Scorer(bundles, rounds, np.asarray if engine.remote else engine.fx.to_device)


def _has_rounds(model: FittedModel) -> bool:
    return model.rounds is not None


def slowness_of(model: FittedModel) -> float:
    """How many times longer than usual a row takes to score; at least 1.

    By the numbers that the model holds: one that keeps its training rows goes through them all
    for each row. (Trees are bytes here, and do not count: a row goes through few of them.)
    """
    return max(1.0, _numbers(model.payload()) / USUAL)


def _numbers(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, dict):
        return sum(_numbers(v) for v in value.values())
    return sum(_numbers(v) for v in value) if isinstance(value, (list, tuple)) else 0


def codes_of(bundle: Bundle) -> Sequence[bool]:
    """Which features are unordered codes."""
    return [c for _, c in feature_names(bundle.contents.graph, bundle.contents.fitted)]
