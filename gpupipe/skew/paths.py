"""Logged requests scored again by the batch path, beside what was answered and the row path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle import Bundle
from gpupipe.errors import DataError
from gpupipe.scorer.columns import Compiled, Unfit, compiled
from gpupipe.skew.log import FEATURE


@dataclass
class Tally:
    """Differences counted: rows compared, how many differ, and the greatest difference of two
    numbers (None where no two were compared)."""

    rows: int = 0
    differ: int = 0
    greatest: float | None = None

    def add(self, apart: np.ndarray, tolerance: float) -> None:
        """Differences of rows: float64 ``[n]``, infinite where one side alone has a value."""
        self.rows += len(apart)
        self.differ += int((apart > tolerance).sum())
        finite = apart[np.isfinite(apart)]
        if len(finite):
            self.greatest = max(self.greatest or 0.0, float(finite.max()))

    def to_json(self) -> dict[str, Any]:
        return {"rows": self.rows, "differ": self.differ, "greatest": self.greatest}


class Rescored:
    """The rows of one version, scored again."""

    def __init__(self, bundle: Bundle, tolerance: float) -> None:
        self.bundle, self.tolerance = bundle, tolerance
        self.score, self.prediction = Tally(), Tally()
        contents = bundle.contents
        self.compiled = compiled(contents.graph, contents.fitted) \
            if bundle.row_path != "batch" else []
        self.features = {c.name: Tally() for c in self.compiled}
        self.unscored, self.lacking = 0, dict[str, None]()

    def without(self, rows: int, columns: list[str]) -> None:
        """Rows that were logged without these features."""
        self.unscored += rows
        self.lacking |= dict.fromkeys(columns)

    def add(self, rows: pa.Table, where: str) -> None:
        """Rows of the log. DataError where a feature does not fit the bundle's type."""
        names = self.bundle.schema.names
        raw = rows.select([FEATURE + n for n in names]).rename_columns(names)
        try:
            typed = self.bundle.typed(raw)
        except DataError as error:
            raise DataError(error.message, where=where, hint=error.hint) from None
        scores = np.asarray(self.bundle.scores(typed), np.float64)
        self.score.add(_apart(logged_scores(rows, scores), scores), self.tolerance)
        if self.bundle.classes:
            same = self.bundle.labels(scores) == np.array(
                rows.column("prediction").to_pylist(), object)
            self.prediction.add(np.where(same, 0.0, np.inf), self.tolerance)
        if self.compiled:
            batch = self.bundle.features(typed)
            for column, fits, values in row_features(self.compiled, typed):
                own = batch[fits, slice(*column.at)].astype(np.float64)
                self.features[column.name].add(_apart(values.astype(np.float64), own),
                                               self.tolerance)

    def to_json(self) -> dict[str, Any]:
        tallies = [self.score, self.prediction, *self.features.values()]
        return {
            "bundle": str(self.bundle.path), "row_path": self.bundle.row_path,
            "rows": self.score.rows + self.unscored, "without_features": self.unscored,
            "lacking": list(self.lacking), "differs": any(t.differ for t in tallies),
            "score": self.score.to_json(),
            "prediction": self.prediction.to_json() if self.bundle.classes else None,
            "features": [{"name": n, **t.to_json()} for n, t in self.features.items()],
        }


def logged_scores(rows: pa.Table, like: np.ndarray) -> np.ndarray:
    """What was answered, in the shape of ``like``: NaN where the log has none that fits."""
    if like.ndim == 1:
        found: np.ndarray = rows.column("score").to_numpy()
        return found
    empty = [np.nan] * like.shape[1]
    lists = rows.column("probabilities").to_pylist() \
        if "probabilities" in rows.column_names else [None] * len(like)
    return np.array([p if p is not None and len(p) == like.shape[1] else empty for p in lists],
                    np.float64).reshape(like.shape)


def _apart(logged: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The difference of each row, of several numbers the greatest: 0 where neither side has a
    value, infinite where one has."""
    with np.errstate(invalid="ignore"):
        apart = np.where(logged == own, 0.0, np.abs(logged - own))
    apart[np.isnan(logged) & np.isnan(own)] = 0.0
    apart[np.isnan(apart)] = np.inf
    return apart if apart.ndim == 1 else apart.max(axis=1, initial=0.0)


def row_features(
    columns: list[Compiled], table: pa.Table
) -> Iterator[tuple[Compiled, np.ndarray, np.ndarray]]:
    """What the row path makes of each source column, or of several together, value by value.

    Yields the column, which rows went that way (the others are left to the batch path by the
    server, too), and their features: float32 ``[rows, features]``.
    """
    for column in columns:
        values = list(zip(*(table.column(n).to_pylist() for n in column.names), strict=True))
        fits, cells = np.ones(len(values), bool), []
        for i, each in enumerate(values):
            try:
                cells.append(column.cell(*each))
            except Unfit:
                fits[i] = False
        yield column, fits, column.made(cells)
