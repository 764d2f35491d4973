"""Scoring data that lies in files: `predict` streams, `evaluate` judges against labels."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from gpupipe.bundle.contributions import contribution_columns
from gpupipe.bundle.scoring import BATCH_ROWS, Bundle, load
from gpupipe.checkpoints import temporary_name
from gpupipe.config import EngineConfig
from gpupipe.data.dataset import Dataset, on_disk
from gpupipe.data.ingest import ingest_plain
from gpupipe.data.outcomes import RANKING
from gpupipe.decide.intervals import on_new_data
from gpupipe.engine.choose import Choice, choose
from gpupipe.errors import ConfigError, DataError, did_you_mean
from gpupipe.evaluate.scores import evaluate as score
from gpupipe.models.unsupervised import typed
from gpupipe.outcomes import ranked_columns, signed_column
from gpupipe.rows import label_of
from gpupipe.steps.passes import Advance, stage


def predict(
    target: Path, source: object, output: Path, *, engine: EngineConfig | None = None,
    contributions: bool = False, progress: Any = None,
) -> dict[str, Any]:
    """Score a source of any size, batch by batch, to ``output``.

    The columns are the bundle's key (or ``row``, from 0), ``prediction``, and ``probability``
    or one ``probability_<class>`` a class; where the bundle has intervals, ``prediction_low``
    and ``prediction_high``, or for classes one ``in_set_<class>`` each; of a model that learned
    without a target, its outputs. A name that ends in .parquet or .csv is one file; one without an
    ending is a folder with a Parquet file for each part of the source, which are scored side by
    side, by the workers of a Dask cluster where ``engine`` says so. Either appears when it is
    whole, in place of what was there by its name.
    With ``contributions`` there are ``base`` and a ``contribution_<column>`` for each column.
    """
    output, engine = Path(output), engine or EngineConfig()
    if output.suffix not in (".parquet", ".csv", ""):
        raise ConfigError("expected a name that ends in .parquet or .csv, or a folder's",
                          where=str(output), hint="give --output such a name")
    if not output.absolute().parent.is_dir():
        raise ConfigError("there is no such folder", where=str(output.parent),
                          hint="make it, or give --output another name")
    choice = choose(engine.model_copy(update={"device": "cpu"}))  # bundles score on the CPU
    if choice.remote and output.suffix:
        raise ConfigError("a cluster's workers write a folder, not a file", where=str(output),
                          hint="give --output a name without an ending")
    bundle = load(target)
    with _opened(bundle, source) as dataset:
        if not dataset.rows:
            raise DataError("there is no row to score")
        keys = [k for k in bundle.info["key"] if k in dataset.schema]
        with stage(progress, "predict", dataset.rows) as advance:
            if output.suffix:
                tables = dataset.stream(_columns(bundle, keys), BATCH_ROWS)
                _write_file(bundle, tables, keys, output, contributions, advance=advance)
            else:
                _write_folder(bundle, dataset, keys, output, contributions, advance, choice)
        return {"output": str(output), "rows": dataset.rows,
                "quarantined": dataset.quarantine.count,
                "quarantine": dataset.quarantine.reasons, "notes": list(dataset.notes),
                "bundle": str(bundle.path)}


def _write_file(
    bundle: Bundle, tables: Iterable[pa.Table], keys: list[str], path: Path,
    contributions: bool = False, first_row: int = 0, advance: Advance = lambda n: None,
) -> int:
    """Score tables to one file, which appears when it is whole. How many rows."""
    temporary, writer, rows = temporary_name(path), None, 0
    try:
        for table in tables:
            scored = scored_table(bundle, table, keys, first_row + rows, contributions)
            writer = writer or _writer(temporary, path.suffix, scored.schema)
            writer.write_table(scored)
            rows += table.num_rows
            advance(table.num_rows)
        assert writer is not None
        writer.close()
        temporary.replace(path)
    finally:
        if writer is not None:
            writer.close()
        temporary.unlink(missing_ok=True)
    return rows


def _write_folder(
    bundle: Bundle, dataset: Dataset, keys: list[str], output: Path, contributions: bool,
    advance: Advance, choice: Choice,
) -> None:
    """A file for each part, in a folder that takes the place of the one that is there."""
    strange = [p.name for p in sorted(output.glob("*")) if not FILE.fullmatch(p.name)]
    if output.exists() and (strange or not output.is_dir()):
        raise ConfigError(
            f"this is there already, and holds {strange[0]!r}" if strange else
            "this is there already, and is no folder", where=str(output),
            hint="give --output another name",
        )
    temporary = temporary_name(output.absolute())
    temporary.mkdir()
    try:
        with choice.opened() as (engine, _):
            if choice.remote:
                (temporary / ".source").mkdir()
                dataset = on_disk(dataset, temporary / ".source")
            starts = np.cumsum([0, *(p.rows for p in dataset.parts)]).tolist()
            engine.pin(bundle)
            part = _ScorePart(bundle, dataset, tuple(keys), tuple(starts), temporary,
                              contributions)
            for index, written in enumerate(engine.ordered(part, range(len(dataset.parts)))):
                if written != dataset.parts[index].rows:
                    raise DataError(f"part {index} changed while it was scored: "
                                    f"{written} of {dataset.parts[index].rows} rows")
                advance(written)
        shutil.rmtree(temporary / ".source", ignore_errors=True)
        for left in temporary.glob(".*"):  # what a worker was writing when it was killed
            left.unlink()
        if output.exists():
            old = temporary_name(output.absolute())
            output.rename(old)
            temporary.rename(output)
            shutil.rmtree(old)
        else:
            temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class _ScorePart:
    """Scores one part to a file, whose name is the part's: written twice, it is there once."""

    bundle: Bundle
    dataset: Dataset
    keys: tuple[str, ...]
    starts: tuple[int, ...]
    folder: Path
    contributions: bool

    def __call__(self, index: int) -> int:
        tables = self.dataset.parts[index].stream(_columns(self.bundle, list(self.keys)),
                                                  BATCH_ROWS)
        return _write_file(self.bundle, tables, list(self.keys),
                           self.folder / f"part-{index:05}.parquet", self.contributions,
                           self.starts[index])


FILE = re.compile(r"part-\d{5,}\.parquet")
"""What the files of a folder of predictions are called."""


def _columns(bundle: Bundle, keys: list[str]) -> list[str]:
    return list(dict.fromkeys([*bundle.schema.names, *keys]))


def scored_table(
    bundle: Bundle, table: pa.Table, keys: list[str], first_row: int, contributions: bool = False,
) -> pa.Table:
    """Keys and predictions of a table, as `predict` writes them."""
    scores, bounds = bundle.scored(table)
    columns: dict[str, Any] = {k: _plain(table.column(k)) for k in keys}
    if not keys:
        columns["row"] = np.arange(first_row, first_row + table.num_rows)
    classes = bundle.classes
    if bundle.outputs:
        columns |= typed(bundle.outputs, scores)
    elif not classes:
        columns["prediction"] = scores
    elif scores.ndim == 1:
        columns["prediction"] = pa.array(bundle.labels(scores))
        columns["probability"] = scores
    else:
        columns["prediction"] = pa.array(bundle.labels(scores))
        columns |= {f"probability_{c}": scores[:, i] for i, c in enumerate(classes)}
    columns |= bounds_columns(bounds, classes)
    if contributions:
        columns |= contribution_columns(bundle, table, scores)
    return pa.table(columns)


def bounds_columns(bounds: np.ndarray | None, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Intervals or sets under the names of their columns; nothing where there are none."""
    if bounds is None:
        return {}
    names = [f"in_set_{c}" for c in classes] or ["prediction_low", "prediction_high"]
    return {name: bounds[:, i] for i, name in enumerate(names)}


@dataclass(frozen=True)
class Labelled:
    """The rows of a source that have a label, as a bundle scores them.

    Attributes
    ----------
    y : class codes int ``[n]``, or values float64 ``[n]`` (see `data.outcomes`).
    prediction : as `evaluate.scores.evaluate` takes it.
    weight, bounds : sample weights or None; what `Bundle.scored` gives around the scores, or None.
    at : the rows' numbers in the source, from 0, int64 ``[n]``.
    more : further columns of these rows, as they were asked for.
    """

    y: np.ndarray
    prediction: np.ndarray
    weight: np.ndarray | None
    bounds: np.ndarray | None
    at: np.ndarray
    more: pa.Table
    quarantined: int
    notes: list[str]


def labelled(
    bundle: Bundle, source: object, more: Sequence[str] = (), *, progress: Any = None
) -> Labelled:
    """Score a source's rows that have a label, with their labels, weights and ``more`` columns.

    Raises DataError for labels that training never saw, for columns that are not there, and where
    no row has a label.
    """
    if bundle.task == "unsupervised":
        raise ConfigError("this model learned without a target: there are no labels to judge it by",
                          hint="`gpupipe show` has its metrics, `gpupipe predict` scores new rows")
    name, notes = bundle.info["target"], []
    weight_name = bundle.info["weight"]
    event, events = bundle.info.get("event"), []
    scores, bounds, targets, weights, others = [], [], [], [], []
    judging = {name: bundle.info["target_dtype"]}
    judging |= {event["column"]: event["dtype"]} if event else {}
    group = bundle.info["group"] if bundle.task == RANKING else []
    queries: list[pa.Table] = []
    with _opened(bundle, source, judging) as dataset:
        extra = [*judging] + ([weight_name] if weight_name else [])
        if weight_name and weight_name not in dataset.schema:
            raise DataError(f"there is no column {weight_name!r} of weights",
                            where=dataset.source)
        for column in group:
            if column not in dataset.schema:
                raise DataError(f"there is no column {column!r} of queries", where=dataset.source)
        for column in more:
            if column not in dataset.schema:
                near = did_you_mean(column, dataset.schema.names)
                raise DataError(f"there is no column {column!r}", where=dataset.source,
                                hint=f"did you mean {near!r}?" if near else None)
        columns = list(dict.fromkeys([*bundle.schema.names, *extra, *group, *more]))
        with stage(progress, "evaluate", dataset.rows) as advance:
            for table in dataset.stream(columns, BATCH_ROWS):
                predicted, around = bundle.scored(table)
                scores.append(predicted)
                bounds += [] if around is None else [around]
                targets.append(_plain(table.column(name)))
                others.append(pa.table({n: _plain(table.column(n)) for n in more}))
                if group:
                    queries.append(pa.table({n: _plain(table.column(n)) for n in group}))
                if event:
                    events.append(_plain(table.column(event["column"])))
                if weight_name:
                    weights.append(_plain(table.column(weight_name)).cast(pa.float64()))
                advance(table.num_rows)
        notes += list(dataset.notes)
        quarantined = dataset.quarantine.count
    if not scores:
        raise DataError("there is no row to judge")
    labels = pa.chunked_array([c for t in targets for c in t.chunks] or targets)
    if event:
        seen = pa.chunked_array([c for e in events for c in e.chunks])
        y = signed_column(labels, seen, (name, event["column"]), event["seen"])
    elif group:
        y = ranked_columns(labels, pa.concat_tables(queries, promote_options="permissive"), name)
    else:
        y, remarks = _encoded(bundle, labels)
        notes += remarks
    known = y >= 0 if bundle.classes else np.isfinite(y)
    if not known.any():
        raise DataError(f"no row has a value of {name!r} to judge by")
    if not known.all():
        notes.append(f"{int((~known).sum()):,} rows without {name!r} were left out")
    at = np.flatnonzero(known)
    return Labelled(
        y[known], np.concatenate(scores)[known],
        np.concatenate([w.to_numpy() for w in weights])[known] if weights else None,
        np.concatenate(bounds)[known] if bounds else None, at,
        pa.concat_tables(others, promote_options="permissive").take(at) if more else pa.table({}),
        quarantined, notes)


def evaluate(target: Path, source: object, *, progress: Any = None) -> dict[str, Any]:
    """Judge a trained pipeline on labelled data: each metric with its interval.

    Rows without a label are left out and counted. Raises DataError for labels that training
    never saw, and where there is no labelled row.
    """
    bundle = load(target)
    rows = labelled(bundle, source, progress=progress)
    p = rows.prediction
    found = score(
        bundle.task, rows.y, p, weight=rows.weight,  # type: ignore[arg-type]
        metrics=bundle.info["metrics"], classes=bundle.classes,
        labels=(p > bundle.threshold).astype(np.float64) if bundle.task == "binary" else None,
    )
    answer: dict[str, Any] = {
        "metrics": {n: s.to_json() for n, s in found.items()}, "rows": len(rows.y),
        "quarantined": rows.quarantined, "notes": rows.notes, "bundle": str(bundle.path),
    }
    if rows.bounds is not None:
        held = on_new_data(bundle.info["intervals"], rows.y, p, rows.bounds, rows.weight)
        answer["intervals"] = held
        answer["notes"].append(held["text"])
    return answer


def _encoded(bundle: Bundle, labels: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Class codes (-1 for no label) or values (NaN for none), and what was noticed.

    Labels are compared as text. Where none of a file's labels is known as it stands, blanks
    around them and a full stop after them are ignored, and that is said.
    """
    if not bundle.classes:
        return labels.cast(pa.float64()).to_numpy(), []
    encoded = labels.combine_chunks().dictionary_encode()
    found = [label_of(v) for v in encoded.dictionary.to_pylist()]
    place = {c: i for i, c in enumerate(bundle.classes)}
    notes = []
    if found and not set(found) & set(place):
        trimmed = [f.strip().removesuffix(".") for f in found]
        if set(trimmed) <= set(place):
            notes.append(f"labels such as {found[0]!r} were read as {trimmed[0]!r}")
            found = trimmed
    unknown = sorted(set(found) - set(place))
    if unknown:
        near = did_you_mean(unknown[0], bundle.classes)
        raise DataError(
            f"the labels {', '.join(map(repr, unknown[:5]))} are none of the model's classes, "
            f"{', '.join(map(repr, bundle.classes))}",
            hint=f"did you mean {near!r}?" if near else None,
        )
    codes = encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    return np.array([*(place[f] for f in found), -1], np.int64)[codes], notes


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


@contextmanager
def _opened(
    bundle: Bundle, source: object, judging: Mapping[str, str] | None = None
) -> Iterator[Dataset]:
    """The source read as the training data was: same types, same tokens for missing.

    ``judging`` are the types of the columns that the model is judged by.
    """
    types: dict[str, str] = {f.name: f.dtype for f in bundle.schema}
    types |= judging or {}
    with tempfile.TemporaryDirectory(prefix="gpupipe-") as cache:
        try:
            dataset = read_as(bundle.info, source, types, Path(cache), types)
        except ConfigError:
            # A pinned column that is not there: say so as scoring would.
            dataset = read_as(bundle.info, source, types, Path(cache))
            _check_columns(bundle, dataset, judging or ())
            raise
        _check_columns(bundle, dataset, judging or ())
        yield dataset


def read_as(
    info: Mapping[str, Any], source: object, needed: Collection[str], cache: Path,
    types: Mapping[str, str] | None = None,
) -> Dataset:
    """A source read with the options of a bundle's training data (``info``), in these types.

    Columns that cannot be read and are not ``needed`` are left out.
    """
    reader = info["reader"]
    return ingest_plain(
        source, needed, cache=cache, types=dict(types or {}), missing=info["missing"],
        delimiter=reader["delimiter"], encoding=reader["encoding"], header=reader["header"],
        max_bad_share=reader["max_bad_share"])


def _check_columns(bundle: Bundle, dataset: Dataset, judging: Iterable[str]) -> None:
    """DataError where the file lacks a column of the model, or one to judge by."""
    try:
        bundle.typed(dataset.schema.select(
            [n for n in bundle.schema.names if n in dataset.schema]).to_arrow().empty_table())
    except DataError as error:
        raise DataError(error.message, hint=error.hint, where=dataset.source) from None
    for name in judging:
        if name not in dataset.schema:
            near = did_you_mean(name, dataset.schema.names)
            raise DataError(
                f"there is no column {name!r} to judge by", where=dataset.source,
                hint=f"did you mean {near!r}?" if near else
                "evaluate needs the target; predict scores data without it",
            )


def _writer(path: Path, suffix: str, schema: pa.Schema) -> Any:
    path.touch()  # Arrow's own error would not carry the file's name
    return (pyarrow.csv.CSVWriter if suffix == ".csv" else pq.ParquetWriter)(path, schema)
