"""A loaded bundle: scores tables of any size, lists of records, or one record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from dataclasses import field as unshown
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from gpupipe.bundle.store import Contents, read, sound
from gpupipe.data.normalise import logical_type, normalise
from gpupipe.data.schema import ARROW_TYPES, Schema
from gpupipe.engine.collections import is_collection, map_rows
from gpupipe.engine.frames import NumpyFrames
from gpupipe.engine.machine import cores
from gpupipe.errors import DataError, did_you_mean
from gpupipe.models.unsupervised import typed
from gpupipe.scorer.rows import RowPath, Unfit, held_against
from gpupipe.transforms.graph import Batch, feature_names, matrix

BATCH_ROWS = 131_072
"""Tables are read in batches of so many rows."""
PIECE_ROWS = 8_192
"""Tables are scored in pieces of so many rows: their features stay in a core's cache."""
FEW_RECORDS = 32
"""So many records are scored one by one; a matrix of more takes less time a row."""
SOME_RECORDS = 1_024
"""The columns of so many records are made value by value; those of a table take less time a row."""
T = TypeVar("T")
SCORE_TOLERANCE = 1e-6
"""How far a golden row's score may be off: trees add float32 numbers, in an order that a
processor may choose. Features must agree to the bit."""


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
        return np.concatenate(self._by_pieces(as_table(table), lambda m: m))

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
        return np.concatenate(self._by_pieces(as_table(table), lambda m: np.asarray(predict(m))))

    def scored(self, table: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """Scores, and the bounds around them: ends ``[n, 2]``, sets ``[n, classes]``, or None."""
        scores, bounds = zip(*self._by_pieces(as_table(table), self._judged), strict=True)
        return np.concatenate(scores), None if bounds[0] is None else np.concatenate(bounds)

    def _by_pieces(self, table: pa.Table, work: Callable[[np.ndarray], T]) -> list[T]:
        """What ``work`` makes of each piece's features, in order, by as many threads as cores."""
        # Text on one dictionary, of which all that a piece finds out holds for the others.
        table = self.typed(table).unify_dictionaries()
        fx, contents = NumpyFrames(), self.contents
        known: dict[str, dict[int, Any]] = {f.name: {} for f in self.schema}

        def one(start: int) -> T:
            frame = fx.frame(table.slice(start, PIECE_ROWS))
            columns = {f.name: replace(fx.column(frame, f.name, f.dtype), answers=known[f.name])
                       if f.dtype == "string" else fx.column(frame, f.name, f.dtype)
                       for f in self.schema}
            return work(np.asarray(matrix(contents.graph, contents.fitted,
                                          Batch(columns, None, fx))))

        starts = range(0, max(table.num_rows, 1), PIECE_ROWS)
        if len(starts) == 1:
            return [one(0)]
        with ThreadPoolExecutor(min(cores(), len(starts))) as pool:
            return list(pool.map(one, starts))

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


@dataclass(frozen=True)
class Rows:
    """How a bundle scores one record.

    Attributes
    ----------
    path : the compiled row path; None where rows go the batch path.
    how, why : as of `Bundle.row_path`.
    plain : from a record to its prediction, where that is a label and its probability, or a value.
    """

    path: RowPath | None
    how: str
    why: str
    plain: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


def rows_of(bundle: Bundle, records: Sequence[dict[str, Any]] = ()) -> Rows:
    """The row path of a bundle, if it scores ``records``, and what they become without some of
    their values, to the last bit as the batch path does."""
    contents, bounded = bundle.contents, bundle.coverage is not None
    try:
        path = RowPath(contents.schema, contents.graph, contents.fitted, contents.model, bounded)
        tried = [*records, *_odd(records, bundle.schema)]
        differs = held_against(path, tried, lambda r: bundle.scored(
            records_table(r, bundle.schema))) if tried else ""
        if tried and not differs and not np.array_equal(
                path.features(tried), bundle.features(records_table(tried, bundle.schema)),
                equal_nan=True):
            differs = "features of the rows tried differ"
    except Unfit:
        differs = "a value of the golden rows is not plainly of its type"
    except Exception as error:  # whatever it is, the batch path has no part in it
        differs = f"rows cannot be compiled: {error!r}"[:300]
    if differs:
        return Rows(None, "batch", differs)
    return Rows(path, path.how, path.why, _plain_of(bundle, path))


def _odd(records: Sequence[dict[str, Any]], schema: Schema) -> Iterator[dict[str, Any]]:
    """Records like these without a value, one column after another, and of levels never seen."""
    for i, field in enumerate(schema if records else ()):
        record = dict(records[i % len(records)])
        yield record | {field.name: None}
        if field.dtype == "string":
            yield record | {field.name: "\0 never seen"}
        elif field.dtype in ("float64", "int64"):
            yield record | {field.name: -987_654_321}
    if records:
        yield dict.fromkeys(schema.names)


def _plain_of(bundle: Bundle, path: RowPath) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    classes, threshold, scored = bundle.classes, bundle.threshold, path.scored
    if bundle.outputs or bundle.coverage is not None or len(classes) > 2:
        return lambda record: bundle.described(*scored(record))[0]
    if not classes:
        return lambda record: {"prediction": float(scored(record)[0][0])}

    def two(record: Mapping[str, Any]) -> dict[str, Any]:
        p = float(scored(record)[0][0])
        return {"prediction": classes[p > threshold], "probability": p}
    return two


def golden_rows(bundle: Bundle, table: pa.Table) -> dict[str, Any]:
    """Raw rows with the features and scores that they give."""
    typed = bundle.typed(table)
    inputs = {f.name: _plain(typed.column(f.name), f.dtype) for f in bundle.schema}
    features = bundle.features(table)
    return {
        "inputs": inputs,
        "features": [[_bits(v) for v in row] for row in features],
        "scores": np.asarray(bundle.scores(table)).tolist(),
    }


def golden_table(bundle: Bundle, golden: dict[str, Any]) -> pa.Table:
    """The raw golden rows."""
    columns = [_restored(golden["inputs"][f.name], f.dtype) for f in bundle.schema]
    return pa.Table.from_arrays(columns, names=bundle.schema.names)


def replay(bundle: Bundle, golden: dict[str, Any]) -> None:
    """Score the golden rows again. DataError where features or scores differ."""
    try:
        table = golden_table(bundle, golden)
        expected, wanted = golden["features"], np.array(golden["scores"], np.float64)
        found, scores = bundle.features(table), bundle.scores(table)
        shapes = {(len(row), len(bits)) for row, bits in zip(found, expected, strict=True)}
        if shapes != {(found.shape[1],) * 2} or scores.shape != wanted.shape:
            raise ValueError("rows, features and scores do not go together")
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{bundle.path}: golden.json is malformed: {error}") from None
    for r, (row, bits) in enumerate(zip(found, expected, strict=True)):
        for c, value in enumerate(row):
            if _bits(value) != bits[c]:
                raise DataError(
                    f"{bundle.path}: golden row {r} gives another {bundle.feature_names[c]!r} "
                    "than when the bundle was made",
                    hint="the bundle and this version of gpupipe do not fit together",
                )
    off = np.abs(scores - wanted) / np.maximum(np.abs(wanted), 1.0)
    if not (off <= SCORE_TOLERANCE).all():  # a NaN is not within it
        raise DataError(
            f"{bundle.path}: golden rows score up to {off.max():.2g} off what they scored when "
            "the bundle was made", hint="check the versions in bundle.json",
        )


def _bits(value: Any) -> str | None:
    """A float32 in hexadecimal, exactly; None for NaN, whose bits carry no meaning."""
    return None if np.isnan(value) else float(value).hex()


def _plain(column: pa.ChunkedArray, dtype: str) -> list[Any]:
    if dtype == "timestamp":
        return list(column.cast(pa.int64()).to_pylist())
    if dtype in ("float32", "float64"):
        return [None if v is None or np.isnan(v) else float(v).hex() for v in column.to_pylist()]
    return list(column.to_pylist())


def _restored(values: list[Any], dtype: str) -> pa.Array:
    if dtype == "timestamp":
        return pa.array(values, pa.int64()).cast(pa.timestamp("us"))
    if dtype in ("float32", "float64"):
        values = [None if v is None else float.fromhex(v) for v in values]
    return pa.array(values, ARROW_TYPES[dtype])


def as_table(data: Any) -> pa.Table:
    """Anything that speaks Arrow (pandas, Polars, DuckDB, PyArrow) as an Arrow table."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if hasattr(data, "__arrow_c_stream__"):
        try:
            return pa.table(data)
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError) as error:
            raise DataError(f"this {type(data).__name__} is no table that Arrow takes: {error}",
                            hint="pass a pandas, Polars or Arrow table; a row is table[:1], "
                            "or a mapping for predict_one") from None
    raise DataError(f"expected a table, found a {type(data).__name__}",
                    hint="pass a pandas, Polars or Arrow table")


def records_table(records: Sequence[Mapping[str, Any]], schema: Schema) -> pa.Table:
    """Records as a typed table. DataError naming record and column where a value misfits."""
    columns = []
    for field in schema:
        values = []
        for i, record in enumerate(records):
            if field.name not in record:
                raise DataError(f"record {i} lacks column {field.name!r}")
            value = record[field.name]
            if field.dtype == "int64" and isinstance(value, float) and not value.is_integer():
                # Arrow would cut the fraction off without a word.
                raise DataError(f"record {i}: column {field.name!r} takes int64, found {value}")
            values.append(value)
        try:
            columns.append(pa.array(values, ARROW_TYPES[field.dtype]))
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise DataError(f"column {field.name!r} takes {field.dtype}: {error}") from None
    return pa.Table.from_arrays(columns, names=schema.names)
