"""A loaded bundle: scores tables of any size, lists of records, or one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from dataclasses import field as unshown
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from gpupipe.bundle.golden import golden_table, replay
from gpupipe.bundle.rows import Rows, rows_of
from gpupipe.bundle.store import Contents, read, sound
from gpupipe.bundle.tables import as_table, records_table
from gpupipe.data.normalise import logical_type, normalise
from gpupipe.data.schema import Schema
from gpupipe.engine.collections import is_collection, map_rows
from gpupipe.engine.frames import Column, Frames, NumpyFrames
from gpupipe.engine.machine import cores
from gpupipe.errors import DataError, did_you_mean
from gpupipe.models.unsupervised import typed
from gpupipe.scorer.many import LEAST_ROWS, MOST_CORES
from gpupipe.scorer.rows import Unfit
from gpupipe.transforms.graph import Batch, feature_names, matrix

BATCH_ROWS = 131_072
"""Tables are read in batches of so many rows."""
PIECE_ROWS = 8_192
"""Tables are scored in pieces of so many rows: their features stay in a core's cache."""
PIECES = 8
"""And in so many pieces at least where threads of unlike speed share them."""
FEW_RECORDS = 32
"""So many records are scored one by one; a matrix of more takes less time a row."""
SOME_RECORDS = 1_024
"""The columns of so many records are made value by value; those of a table take less time a row."""
T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """A trained pipeline, ready to score.

    Attributes
    ----------
    contents : schema, features, learned numbers and model.
    path : the folder it came from.
    """

    contents: Contents = unshown(repr=False)
    path: Path

    @property
    def info(self) -> dict[str, Any]:
        """Name, task, target, classes, reader options and provenance."""
        return self.contents.info

    @property
    def task(self) -> str:
        """binary, multiclass, regression or unsupervised."""
        return str(self.info["task"])

    @property
    def classes(self) -> list[str]:
        """Labels in the order of the probabilities; empty for regression."""
        return list(self.info["classes"])

    @property
    def outputs(self) -> list[str]:
        """What a model that learned without a target gives of a row; else empty."""
        return list(getattr(self.contents.model, "outputs", ()))

    @property
    def threshold(self) -> float:
        """A probability above it is a yes (two classes): a half, or what `decide` chose."""
        return float(self.info.get("decision", {}).get("threshold", 0.5))

    @property
    def coverage(self) -> float | None:
        """The share of new rows whose truth intervals or sets hold; None where there are none."""
        found = self.info.get("intervals", {}).get("coverage")
        return None if found is None else float(found)

    @property
    def schema(self) -> Schema:
        """The columns that scoring needs, by name and type."""
        return self.contents.schema

    @property
    def feature_names(self) -> list[str]:
        """The model's features, in order."""
        return [n for n, _ in feature_names(self.contents.graph, self.contents.fitted)]

    def features(self, table: Any) -> Any:
        """The model's features: float32 ``[n, features]``; of a Dask data frame, another one."""
        if is_collection(table):
            names = self.feature_names
            return map_rows(table, self.features, names, np.empty((0, len(names)), np.float32))
        return np.concatenate(self.by_pieces(as_table(table), lambda m: m))

    def predict_proba(self, table: Any) -> Any:
        """Class probabilities, float64 ``[n, classes]`` in the order of `classes`.

        Of a Dask data frame another one, with the classes as columns.
        """
        if not self.classes:
            raise DataError(f"a{'n' * (self.task[0] == 'u')} {self.task} bundle has no "
                            "probabilities", hint="use predict")
        if is_collection(table):
            return map_rows(table, self.predict_proba, self.classes)
        scores = self.scores(table)
        return np.column_stack([1 - scores, scores]) if scores.ndim == 1 else scores

    def predict(self, table: Any) -> Any:
        """Labels (text), or values (float64): ``[n]``; of a Dask data frame a Dask series.

        Of a model that learned without a target the columns of `outputs`: float64
        ``[n, outputs]``, of a Dask data frame another one.
        """
        if is_collection(table):
            labels = np.asarray(self.classes, object) if self.classes else None
            return map_rows(table, self.predict, self.outputs or None, labels)
        scores = self.scores(table)
        return self.labels(scores) if self.classes else scores

    def labels(self, scores: np.ndarray) -> np.ndarray:
        """The classes (text) that scores stand for: above the threshold, or the most probable."""
        codes = (scores > self.threshold).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes, dtype=object)[codes]

    def predict_interval(self, table: Any) -> Any:
        """Lower and upper ends of a regression's intervals, float64 ``[n, 2]``.

        Of a Dask data frame another one. DataError where the bundle has no intervals.
        """
        if self.classes:
            raise DataError("a classifier has no intervals", hint="use predict_set")
        return self._bounds(table, ["prediction_low", "prediction_high"], np.float64)

    def predict_set(self, table: Any) -> Any:
        """Which labels are in each row's set, bool ``[n, classes]`` in the order of `classes`.

        Of a Dask data frame another one. DataError where the bundle has no sets.
        """
        if not self.classes:
            raise DataError(f"a {self.task} has no sets of labels", hint="use predict_interval")
        return self._bounds(table, self.classes, np.bool_)

    def _bounds(self, table: Any, names: list[str], dtype: Any) -> Any:
        if self.coverage is None:
            raise DataError("this bundle was made without intervals",
                            hint="set intervals: {coverage: 0.9} in the pipeline file")
        if is_collection(table):
            whole = self.predict_interval if dtype is np.float64 else self.predict_set
            return map_rows(table, whole, names, np.empty((0, len(names)), dtype))
        return self.scored(table)[1]

    def predict_one(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """One record's prediction: ``{"prediction", "probability" or "probabilities"}``."""
        rows = self._rows
        if rows.plain is not None:
            try:
                return rows.plain(record)
            except Unfit:
                pass
        return self.predict_records([record])[0]

    def predict_records(self, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Predictions of records: mappings from column name to value; null for missing."""
        return self.described(*self.scored_records(records))

    def scored_records(
        self, records: Sequence[Mapping[str, Any]]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Scores and bounds of records, as `scored` gives them for a table of them.

        Raises DataError naming record and column where a value does not fit.
        """
        path = self._rows.path
        if path is not None and 0 < len(records) <= SOME_RECORDS:
            try:
                if len(records) > FEW_RECORDS:
                    return self._judged(path.features(records))
                scores, bounds = zip(*map(path.scored, records), strict=True)
                return np.concatenate(scores), (
                    None if bounds[0] is None else np.concatenate(bounds))
            except Unfit:
                pass
        return self.scored(records_table(records, self.schema))

    def _judged(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Scores and bounds of features ``[n, features]``."""
        model: Any = self.contents.model
        scores = np.asarray(model.predict(features))
        return scores, None if self.coverage is None else np.asarray(model.bounds(features, scores))

    @property
    def row_path(self) -> str:
        """Which way one record goes: ``compiled``, ``library`` or ``batch`` (`scorer.rows.How`)."""
        return self._rows.how

    @property
    def row_path_reason(self) -> str:
        """What keeps rows from being compiled through and through; empty where nothing does."""
        return self._rows.why

    @cached_property
    def _rows(self) -> Rows:
        return rows_of(self)

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled is compiled anew where a bundle is sent.
        return {k: v for k, v in self.__dict__.items() if k != "_rows"}

    def described(
        self, scores: np.ndarray, bounds: np.ndarray | None = None
    ) -> list[dict[str, Any]]:
        """Scores as records, with ``low`` and ``high`` or the ``set`` where there are bounds."""
        if self.outputs:
            columns = typed(self.outputs, scores)
            return [dict(zip(columns, row, strict=True))
                    for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
        if not self.classes:
            found: list[dict[str, Any]] = [{"prediction": float(s)} for s in scores]
        elif scores.ndim == 1:
            found = [{"prediction": label, "probability": float(s)}
                     for label, s in zip(self.labels(scores), scores, strict=True)]
        else:
            found = [{"prediction": label,
                      "probabilities": dict(zip(self.classes, map(float, s), strict=True))}
                     for label, s in zip(self.labels(scores), scores, strict=True)]
        for record, own in zip(found, () if bounds is None else bounds, strict=bounds is not None):
            record |= {"set": [c for c, held in zip(self.classes, own, strict=True) if held]} \
                if self.classes else {"low": float(own[0]), "high": float(own[1])}
        return found

    def scores(self, table: Any) -> np.ndarray:
        """P(positive) ``[n]``, probabilities ``[n, classes]``, values ``[n]``, or `outputs`."""
        predict = self.contents.model.predict
        table = as_table(table)
        # Words take one thread, for their steps are short; XGBoost takes as many as there are.
        few = table.num_rows >= LEAST_ROWS and cores() <= MOST_CORES
        many = self._many if few else None
        return np.concatenate(self.by_pieces(table, lambda m: np.asarray(predict(m)), many))

    def scored(self, table: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Scores, and the bounds around them: ends ``[n, 2]``, sets ``[n, classes]``, or None."""
        if self.coverage is None:
            return self.scores(table), None
        scores, bounds = zip(*self.by_pieces(as_table(table), self._judged), strict=True)
        return np.concatenate(scores), None if bounds[0] is None else np.concatenate(bounds)

    @property
    def _many(self) -> Callable[[Mapping[str, Column], Frames], np.ndarray | None] | None:
        path = self._rows.path
        return None if path is None or path.many is None else path.many.scores

    def by_pieces(
        self, table: pa.Table, work: Callable[[np.ndarray], T],
        first: Callable[[Mapping[str, Column], Frames], T | None] | None = None,
    ) -> list[T]:
        """What ``work`` makes of each piece's features, in order, by as many threads as cores.

        ``first``, if there is one, is asked before, with the piece's columns; it may give None. One
        thread asks it, for it holds Python's lock, and the others work beside it.
        """
        # Text on one dictionary, of which all that a piece finds out holds for the others.
        table = self.typed(table).unify_dictionaries()
        fx, contents = NumpyFrames(), self.contents
        known: dict[str, dict[int, Any]] = {f.name: {} for f in self.schema}

        rows = PIECE_ROWS if first is None else min(
            PIECE_ROWS, max(LEAST_ROWS, table.num_rows // PIECES))
        starts = range(0, max(table.num_rows, 1), rows)

        def one(start: int, asked: bool) -> T:
            frame = fx.frame(table.slice(start, rows))
            columns = {f.name: replace(fx.column(frame, f.name, f.dtype), answers=known[f.name])
                       if f.dtype == "string" else fx.column(frame, f.name, f.dtype)
                       for f in self.schema}
            found = first(columns, fx) if asked and first is not None else None
            return work(np.asarray(matrix(contents.graph, contents.fitted, Batch(
                columns, None, fx)))) if found is None else found

        left = iter(enumerate(starts))
        done: list[Any] = [None] * len(starts)

        def deal(asked: bool) -> None:
            for i, start in left:  # the next piece, for whoever is free
                done[i] = one(start, asked)

        beside = min(cores(), len(starts)) - 1
        with ThreadPoolExecutor(max(1, beside)) as pool:
            others = [pool.submit(deal, False) for _ in range(beside)]
            deal(True)
            for other in others:
                other.result()
        return done

    def typed(self, table: pa.Table) -> pa.Table:
        """The columns that scoring needs, in the bundle's types; others are ignored.

        Raises DataError for a missing column, or a value that does not fit its type.
        """
        missing = [n for n in self.schema.names if n not in table.column_names]
        if missing:
            near = did_you_mean(missing[0], table.column_names)
            raise DataError(
                f"the data lacks {'column' if len(missing) == 1 else 'columns'} "
                f"{', '.join(map(repr, missing))} that the model was trained on",
                hint=f"did you rename {near!r}?" if near else None,
            )
        for field in self.schema:
            found = table.schema.field(field.name).type
            if logical_type(found) is None:
                raise DataError(f"column {field.name!r} is {found}, expected {field.dtype}")
        return normalise(table.select(self.schema.names), self.schema, {}, "the data")


def load(path: str | Path) -> Bundle:
    """The bundle in a folder, verified: hashes, and golden rows replayed.

    ``path`` is a bundle folder, or a run folder that has one. Raises DataError where anything
    is not as it was written.
    """
    folder = Path(path)
    if (folder / "bundle").is_dir():
        folder = folder / "bundle"
    contents, golden = read(folder)
    bundle = Bundle(contents, folder)
    with sound(folder):
        if not 0 <= bundle.threshold <= 1:
            raise ValueError(f"a threshold of {bundle.threshold:g}")
        if bundle.coverage is not None and not hasattr(contents.model, "bounds"):
            raise ValueError("intervals without a model of them")
        replay(bundle, golden)
        bundle.__dict__["_rows"] = rows_of(bundle, golden_table(bundle, golden).to_pylist())
    return bundle
