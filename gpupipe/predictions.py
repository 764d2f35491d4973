"""The predictions that a run keeps: of the out-of-fold rows and of the holdout's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpupipe.data.outcomes import SURVIVAL, seen_of, time_of, timed
from gpupipe.errors import DataError
from gpupipe.judging import levels_of, read_column
from gpupipe.scoring import bounds_columns
from gpupipe.training import Trained
from gpupipe.unsupervised import assigned

FILE = "predictions.parquet"
ABOUT = b"gpupipe"
"""Where the file's metadata says which columns are what."""


@dataclass(frozen=True)
class Kept:
    """The predictions of a run's holdout, or of its out-of-fold rows.

    Attributes
    ----------
    names : the rows' keys, one column for each of ``data.key`` (none where there is no key).
    row : their numbers in the source, int64 ``[n]``.
    y, weight : class codes or values, and sample weights or None.
    prediction : as `evaluate.scores.evaluate` takes it.
    slices : the level (text, null for missing) of each row, by column under ``evaluate.slices``.
    """

    names: pa.Table
    row: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    prediction: np.ndarray
    slices: Mapping[str, pa.Array]

    def __len__(self) -> int:
        return len(self.row)


def write(trained: Trained, path: Path) -> None:
    """Write ``path``: key, row, fold (-1: holdout), target (and whether a time's event was seen),
    weight, slices and prediction.

    Without a target, what the final model gives for all rows.
    """
    if trained.target.task == "unsupervised":
        pq.write_table(_found(trained), path)
        return
    tables = []
    sides = [(trained.oof_buckets, trained.model.oof), (trained.split.holdout,
                                                        trained.model.holdout)]
    for buckets, scores in sides:
        if scores is not None:
            tables.append(_side(trained, buckets, scores))
    if tables:
        table = pa.concat_tables(tables)
        about = {"key": list(trained.config.data.key or ()), "task": trained.target.task,
                 "classes": list(trained.target.classes),
                 "slices": list(trained.config.evaluate.slices)}
        pq.write_table(table.replace_schema_metadata({ABOUT: json.dumps(about)}), path)


def _found(trained: Trained) -> pa.Table:
    """What the final model, learned without a target, gives for every row: key, row, whether
    it is of the holdout, and the model's outputs."""
    bucket = np.concatenate([r.bucket for r in trained.rowed.rows])
    known = tuple(range(trained.split.nowhere))
    rows = np.flatnonzero(np.isin(bucket, known))
    columns: dict[str, Any] = {k: read_column(trained, k, known)
                               for k in trained.config.data.key or ()}
    columns |= {"row": rows, "holdout": np.isin(bucket[rows], trained.split.holdout)}
    return pa.table(columns | assigned(trained, known))


def _side(trained: Trained, buckets: tuple[int, ...], scores: np.ndarray) -> pa.Table:
    config, classes = trained.config, trained.target.classes
    y, weight = trained.target_of(buckets)
    judged = buckets == trained.oof_buckets and bool(trained.split.folds)
    fold = trained.fold_of_rows() if judged else np.full(len(y), -1)
    columns: dict[str, Any] = {k: read_column(trained, k, buckets) for k in config.data.key or ()}
    columns |= {"row": _row_numbers(trained, buckets), "fold": fold.astype(np.int8)}
    columns["target"] = y
    if trained.target.task in SURVIVAL:
        columns |= {"target": time_of(y), "event": seen_of(y)}
    if classes:
        columns["target"] = pa.DictionaryArray.from_arrays(
            pa.array(y.astype(np.int32)), pa.array(classes)
        )
    if weight is not None:
        columns["weight"] = weight
    for column in config.evaluate.slices:
        codes, levels = levels_of(trained, column, buckets)
        index = pa.array(codes, mask=codes < 0)
        columns[_slice(column)] = pa.array(levels, pa.string()).take(index)
    if scores.ndim == 1:
        columns["prediction" if not classes else "probability"] = scores
    else:
        columns |= {_probability(c): scores[:, i] for i, c in enumerate(classes)}
    intervals = trained.finished.intervals
    if intervals is not None:
        columns |= bounds_columns(intervals.out_of_fold if judged else intervals.holdout, classes)
    return pa.table(columns)


def read(run: Path) -> tuple[str, list[str], dict[str, Kept]]:
    """Task, classes and the predictions of a run: ``holdout`` and ``cross_validation``.

    Raises DataError where there are none, or the file is not one of this version.
    """
    path = run / FILE
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DataError("this run kept no predictions", where=str(run),
                        hint="it had neither folds nor a holdout, or is not a run") from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"this file is damaged: {error}", where=str(path)) from None
    known = (table.schema.metadata or {}).get(ABOUT)
    if known is None:
        raise DataError("these predictions are of an earlier version of gpupipe",
                        where=str(path), hint="run the pipeline again")
    about = json.loads(known)
    fold = table.column("fold").to_numpy()
    sides = {"holdout": fold < 0, "cross_validation": fold >= 0}
    return about["task"], about["classes"], {
        name: _kept(table.filter(pa.array(mask)), about)
        for name, mask in sides.items() if mask.any()
    }


def _kept(table: pa.Table, about: Mapping[str, Any]) -> Kept:
    table, classes = table.combine_chunks(), about["classes"]
    if not classes:
        y, scores = table.column("target").to_numpy(), table.column("prediction").to_numpy()
        if about["task"] in SURVIVAL:
            y = timed(y, table.column("event").to_numpy(), "target")
    else:
        place = {label: i for i, label in enumerate(classes)}
        y = np.array([place[v] for v in table.column("target").to_pylist()], np.int64)
        names = ["probability"] if about["task"] == "binary" else map(_probability, classes)
        columns = [table.column(name).to_numpy() for name in names]
        scores = columns[0] if about["task"] == "binary" else np.column_stack(columns)
    weight = table.column("weight").to_numpy() if "weight" in table.column_names else None
    return Kept(table.select(about["key"]), table.column("row").to_numpy(), y, weight, scores,
                {c: table.column(_slice(c)).combine_chunks() for c in about["slices"]})


def _probability(label: str) -> str:
    return f"probability_{label}"


def _slice(column: str) -> str:
    return f"slice: {column}"


def _row_numbers(trained: Trained, buckets: tuple[int, ...]) -> np.ndarray:
    bucket = np.concatenate([r.bucket for r in trained.rowed.rows])
    return np.flatnonzero(np.isin(bucket, list(buckets)))
