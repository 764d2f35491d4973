"""A model, compiled for one row: from the cells of its columns to what `predict` gives.

Trees are looked up by `quick.Quick`. A model that holds others (calibrated, an ensemble) does on
their answers what it does to a batch's. Any other model predicts a matrix of one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.models.ensemble import FittedEnsemble
from gpupipe.models.native import StoredBooster
from gpupipe.models.trees import FittedTrees
from gpupipe.models.wrappers import Calibrated, Picked, WithInterval, WithSets
from gpupipe.scorer.columns import Compiled, Tabled
from gpupipe.scorer.links import Unlinked, link_of, margins_of
from gpupipe.scorer.quick import BUDGET, Quick, Untabled

Cells = list[Any]
"""What the columns made of a record: an entry's number, or features."""
Predict = Callable[[Cells], np.ndarray]
"""What the model's `predict` gives for one row: ``[1]`` or ``[1, k]`` float64."""


@dataclass(frozen=True)
class Words:
    """Where a model of trees looks at the columns.

    Attributes
    ----------
    tables : of a tabled column (its number), the words of its entries, ``[entries, trees]``.
    cuts : of other columns: the number, the place among its features, and the model's feature.
    """

    quick: Quick
    objective: str
    tables: list[tuple[int, np.ndarray]]
    cuts: list[tuple[int, int, int]]

    def margins(self) -> Callable[[Cells], np.ndarray]:
        """The function from cells to margins, float32 ``[groups]``."""
        quick, tables = self.quick, [(c, list(rows)) for c, rows in self.tables]
        cuts = [(c, i, quick.splits[f].at) for c, i, f in self.cuts]

        def margins(cells: Cells) -> np.ndarray:
            words = [rows[cells[c]] for c, rows in tables]
            words += [at(cells[c][i]) for c, i, at in cuts]
            return quick.margins(words)
        return margins


@dataclass
class Compiler:
    """Compiles the models of one bundle.

    Attributes
    ----------
    reasons : why parts of it are not by tables.
    words : those of the models of trees that are, in the order in which they were met.
    """

    columns: Sequence[Compiled]
    reasons: list[str] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)

    def model(self, model: Any, features: np.ndarray) -> Predict:
        """A model that sees these features of the matrix, ``[its features]``, in its order."""
        if isinstance(model, FittedTrees):
            return self._trees(model, features)
        if isinstance(model, Picked):
            return self.model(model.inner, features[model.columns])
        if isinstance(model, Calibrated):
            inner, calibrator = self.model(model.inner, features), model.calibrator
            return lambda cells: calibrator(inner(cells))
        if isinstance(model, (WithInterval, WithSets)):
            return self.model(model.inner, features)
        if isinstance(model, FittedEnsemble):
            members = [self.model(m, features[c])
                       for m, c in zip(model.members, model.columns, strict=True)]
            combine = model.rule.combine
            return lambda cells: combine([np.asarray(m(cells), np.float64) for m in members])
        self.reasons.append(f"a model {model.kind!r} predicts a matrix of one row")
        return self._filled(model.predict, features)

    def bounds(self, model: Any, features: np.ndarray) -> Callable[[Cells, Any], Any]:
        """The model's `bounds` for one row, from the cells and what `model` gave."""
        filled = self._matrix(features)
        return lambda cells, scores: np.asarray(model.bounds(filled(cells), scores))

    def _trees(self, model: FittedTrees, features: np.ndarray) -> Predict:
        try:
            words = self._words(model, features)
            link = link_of(words.objective)
        except (Untabled, Unlinked) as why:
            self.reasons.append(str(why))
            return self._filled(model.predict, features)
        self.words.append(words)
        margins, finished = words.margins(), model.finished
        if model.task == "binary":
            def share(cells: Cells) -> np.ndarray:
                # As `outputs_of`, whose clip takes longer than all of the trees.
                return np.array([min(max(float(link(margins(cells))[0]), 0.0), 1.0)])
            return share
        return lambda cells: finished(link(margins(cells)))

    def _words(self, model: FittedTrees, features: np.ndarray) -> Words:
        booster = model.booster
        forest = booster.forest if isinstance(booster, StoredBooster) else None
        if forest is None or forest.weighted:
            raise Untabled("trees that have weights of their own" if forest else
                           "trees that were not read from a bundle")
        base = np.broadcast_to(margins_of(forest.objective, forest.base), forest.groups)
        rounds = min(model.rounds or len(forest.ends) - 1, len(forest.ends) - 1)
        quick = Quick(forest, int(forest.ends[rounds]), base)
        if len(set(features.tolist())) < len(features):
            raise Untabled("a model that sees a feature twice")
        place = {int(f): i for i, f in enumerate(features) if i in quick.splits}
        tables: list[tuple[int, np.ndarray]] = []
        cuts: list[tuple[int, int, int]] = []
        left = BUDGET
        for c, column in enumerate(self.columns):
            seen = [(i, place[f]) for i, f in enumerate(range(*column.at)) if f in place]
            if not seen:
                continue
            at = [i for i, _ in seen]
            if isinstance(column, Tabled):
                size = len(column.features) * quick.trees * 8
                left -= size
                if left < 0:
                    raise Untabled(f"the tables of column {column.name!r} would take "
                                   f"{size >> 20} MiB")
                tables.append((c, np.array([quick.row_of(row, [f for _, f in seen])
                                            for row in column.features[:, at].tolist()])))
            else:
                cuts += [(c, i, f) for i, f in seen]
        return Words(quick, forest.objective, tables, cuts)

    def _filled(self, predict: Any, features: np.ndarray) -> Predict:
        filled = self._matrix(features)
        return lambda cells: np.asarray(predict(filled(cells)))

    def _matrix(self, features: np.ndarray) -> Callable[[Cells], np.ndarray]:
        """The matrix of one row, float32 ``[1, features]``."""
        parts = [(column.at[0], column.at[1],
                  column.features if isinstance(column, Tabled) else None)
                 for column in self.columns]
        wide = parts[-1][1] if parts else 0
        every = np.array_equal(features, np.arange(wide))

        def matrix(cells: Cells) -> np.ndarray:
            out = np.empty((1, wide), np.float32)
            row = out[0]
            with np.errstate(over="ignore"):
                for cell, (start, end, table) in zip(cells, parts, strict=True):
                    row[start:end] = cell if table is None else table[cell]
            return out if every else np.ascontiguousarray(out[:, features])
        return matrix
