"""The rows that explanations are of: a sample by hash, with their source columns as they came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.data.schema import ARROW_TYPES
from gpupipe.engine.frames import Column, Frames
from gpupipe.engine.hashing import mix64
from gpupipe.steps.scan import Rowed
from gpupipe.training import Trained


@dataclass(frozen=True)
class Judged:
    """Rows with what they were judged by.

    Attributes
    ----------
    table : source columns, in the schema's types.
    y, weight : target and weight; ``weight`` None for none.
    fold : the fold that judged each row; -1 for the final model.
    prediction : the predictions that the run reports; None where no model has judged rows that
        it did not see.
    """

    table: pa.Table
    y: np.ndarray
    weight: np.ndarray | None
    fold: np.ndarray
    prediction: np.ndarray | None

    def take(self, at: np.ndarray) -> Judged:
        return Judged(
            self.table.take(pa.array(at)), self.y[at],
            None if self.weight is None else self.weight[at], self.fold[at],
            None if self.prediction is None else self.prediction[at],
        )

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Pool:
    """All rows that may be explained: the holdout's, else those of the folds, else all of them.

    Attributes
    ----------
    basis : "holdout", "cross_validation", or "training" where nothing was held out.
    place : where each row stands in the whole table.
    rank : a number a row that depends on its key, its target and the seed alone.
    """

    trained: Trained
    basis: str
    place: np.ndarray
    rank: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    fold: np.ndarray
    prediction: np.ndarray | None

    def sample(self, rows: int) -> np.ndarray:
        """Positions of at most so many rows: the same ones for every layout of the table."""
        # Rows of one key have one rank; their target tells them apart where it can.
        order = np.lexsort((self.y, self.rank))
        return order[:rows]

    def read(self, at: np.ndarray, columns: Sequence[str]) -> Judged:
        """The rows at some positions, in that order, with some of their source columns."""
        table = read_rows(self.trained.rowed, columns, self.place[at])
        return Judged(table, self.y[at], None if self.weight is None else self.weight[at],
                      self.fold[at], None if self.prediction is None else self.prediction[at])


def pool(trained: Trained) -> Pool:
    """The rows to explain, and what is known of them."""
    outcome, split = trained.model, trained.split
    if split.holdout and outcome.holdout is not None:
        basis, buckets, prediction = "holdout", split.holdout, outcome.holdout
    elif split.folds and outcome.oof is not None:
        basis, buckets, prediction = "cross_validation", trained.oof_buckets, outcome.oof
    else:
        basis, buckets, prediction = "training", split.train, None
    inside = np.concatenate([np.isin(r.bucket, list(buckets)) for r in trained.rowed.rows])
    y, weight = trained.target_of(buckets)
    place = np.flatnonzero(inside)
    fold = trained.fold_of_rows() if basis == "cross_validation" else np.full(len(y), -1)
    keys = np.concatenate([f.key for f in trained.profile.facts])[place]
    salt = mix64(np.array([trained.config.seed], np.uint64), np)[0]
    return Pool(trained, basis, place, mix64(keys ^ salt, np), y, weight, fold, prediction)


def read_rows(rowed: Rowed, columns: Sequence[str], places: np.ndarray) -> pa.Table:
    """Some rows of the table, by their place in it, in the order given."""
    order = np.argsort(places, kind="stable")
    ends = np.cumsum([len(r.bucket) for r in rowed.rows])
    cuts = np.searchsorted(places[order], ends)
    starts = np.concatenate([[0], ends[:-1]])
    wanted = {i: places[order][a:b] - start for i, (a, b, start) in enumerate(
        zip(np.concatenate([[0], cuts[:-1]]), cuts, starts, strict=True)) if b > a}
    part = _ReadRows(rowed, tuple(columns), wanted)
    indices = list(wanted)
    found = dict(rowed.engine.map(part, indices))
    schema = pa.schema([pa.field(c, ARROW_TYPES[rowed.dataset.schema[c].dtype]) for c in columns])
    tables = [found[i] for i in sorted(found)] or [schema.empty_table()]
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_tables(tables).take(pa.array(back))


@dataclass(frozen=True)
class _ReadRows:
    """The wanted rows of one part, as an Arrow table on the host."""

    rowed: Rowed
    columns: tuple[str, ...]
    wanted: dict[int, np.ndarray]

    def __call__(self, index: int) -> pa.Table:
        fx, out = self.rowed.engine.fx, []
        wanted = self.wanted[index]
        for batch, where in self.rowed.batches(index, self.columns):
            inside = wanted[(wanted >= where.start) & (wanted < where.stop)] - where.start
            if len(inside):
                out.append(pa.table({c: _taken(batch.columns[c], inside, fx)
                                     for c in self.columns}))
        return pa.concat_tables(out)


def _taken(column: Column, rows: np.ndarray, fx: Frames) -> pa.Array:
    """Some values of a column, as Arrow has them."""
    at = fx.to_device(rows)

    def host(array: Any) -> np.ndarray:
        return fx.to_host(array[at])

    kind = ARROW_TYPES[column.dtype]
    if column.dtype == "string":
        codes = host(column.values).astype(np.int64)
        assert column.levels is not None
        return pa.DictionaryArray.from_arrays(
            pa.array(codes, mask=codes < 0), column.levels.cast(kind)).dictionary_decode()
    missing = None if column.missing is None else host(column.missing)
    values = host(column.values)
    if column.dtype == "timestamp":
        return pa.array(values.astype(np.int64), pa.int64(), mask=missing).cast(kind)
    # A missing float is NaN on the device, and null in Arrow, as in any other column.
    return pa.array(values.astype(kind.to_pandas_dtype()), kind, mask=missing, from_pandas=True)
