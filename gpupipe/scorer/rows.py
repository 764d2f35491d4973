"""The row path of a bundle: one record, without a table between.

It is made when a bundle is loaded, and held against the batch path there, on the golden rows, on
what else may come, to the last bit: where a bit differs, or something cannot be compiled, rows go
the batch path, and `RowPath.how` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from gpupipe.data.schema import Schema
from gpupipe.models.trees import FittedTrees
from gpupipe.models.wrappers import Calibrated
from gpupipe.scorer.columns import Compiled, Unfit, compiled, plain
from gpupipe.scorer.links import Unlinked
from gpupipe.scorer.many import Many
from gpupipe.scorer.models import Compiler
from gpupipe.transforms.graph import Fitted, Graph

How = Literal["compiled", "library", "batch"]
"""``compiled``: columns and model are tables; ``library``: columns are, and a part of the model
predicts a matrix of one row; ``batch``: a record becomes a table of one row."""
Scored = tuple[np.ndarray, np.ndarray | None]
"""Scores and bounds, as `Bundle.scored` gives them."""


class RowPath:
    """From one record to its scores.

    Attributes
    ----------
    how : which way rows go.
    many : scores tables of many rows; None where the library does that.
    why : what keeps them from being compiled through and through; empty where nothing does.
    """

    def __init__(self, schema: Schema, graph: Graph, fitted: Fitted, model: Any,
                 bounded: bool) -> None:
        columns = compiled(graph, fitted)
        compiler = Compiler(columns)
        features = np.arange(columns[-1].at[1] if columns else 0)
        self._predict = compiler.model(model, features)
        self._bounds = compiler.bounds(model, features) if bounded else None
        self._columns = columns
        self._cells = [(c.name, c.cell) for c in columns if len(c.names) == 1]
        self._together = [(at, c.names, c.cell) for at, c in enumerate(columns)
                          if len(c.names) > 1]
        self._others = [(f.name, plain(f.dtype)) for f in schema
                        if f.name not in {name for c in columns for name in c.names}]
        self.many = _many(graph, fitted, columns, compiler, model)
        self.how: How = "library" if compiler.reasons else "compiled"
        self.why = "; ".join(dict.fromkeys(compiler.reasons))

    def scored(self, record: Mapping[str, Any]) -> Scored:
        """Scores ``[1]`` or ``[1, k]``, and bounds. `Unfit` where the batch path has to look."""
        try:
            for name, take in self._others:
                take(record[name])
            cells = [cell(record[name]) for name, cell in self._cells]
            for at, names, cells_of in self._together:  # from the left, so each finds its place
                cells.insert(at, cells_of(*[record[name] for name in names]))
        except KeyError:
            raise Unfit from None
        scores = self._predict(cells)
        return scores, None if self._bounds is None else self._bounds(cells, scores)

    def features(self, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """The features of some records: float32 ``[n, features]``. `Unfit` as above."""
        try:
            for name, take in self._others:
                for record in records:
                    take(record[name])
            made = [c.made([c.cell(*[record[name] for name in c.names]) for record in records])
                    for c in self._columns]
        except KeyError:
            raise Unfit from None
        return np.concatenate(made, axis=1) if made else np.empty((len(records), 0), np.float32)


def _many(graph: Graph, fitted: Fitted, columns: list[Compiled], compiler: Compiler,
          model: Any) -> Many | None:
    """The tables for many rows: of one model of trees with one output, calibrated or not."""
    inner = model.inner if isinstance(model, Calibrated) else model
    if not isinstance(inner, FittedTrees) or not compiler.words or compiler.reasons:
        return None
    (words,) = compiler.words
    if len(words.quick.groups) > 1 or not (words.tables or words.cuts):
        return None
    try:
        return Many(graph, fitted, columns, words, inner,
                    model.calibrator if isinstance(model, Calibrated) else None)
    except Unlinked:
        return None


def held_against(
    path: RowPath, records: list[dict[str, Any]], batch: Callable[[list[dict[str, Any]]], Scored],
) -> str:
    """What differs between the row path and the batch path on these records; empty if nothing."""
    scores, bounds = batch(records)
    for i, record in enumerate(records):
        own, ends = path.scored(record)
        if not _same(own, scores[i : i + 1]):
            return f"row {i} of those tried scores {own} and not {scores[i : i + 1]}"
        if bounds is not None and not _same(ends, bounds[i : i + 1]):
            return f"row {i} of those tried has bounds {ends} and not {bounds[i : i + 1]}"
    return ""


def _same(a: Any, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


__all__ = ["Compiled", "How", "RowPath", "Unfit", "held_against"]
