"""Labels that come late, joined to predictions by their id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.bundle.scoring import Bundle
from gpupipe.data.ingest import ingest
from gpupipe.engine.hashing import hash_strings
from gpupipe.errors import DataError, did_you_mean
from gpupipe.rows import label_of

ID = "prediction_id"
WHEN = ("labelled_at", "label_time", "time")
"""Columns of a table of labels that may say when a label came."""


@dataclass(frozen=True)
class Labels:
    """Labels by the hash of their id, each id once.

    Attributes
    ----------
    ids : uint64, ascending.
    y : class codes or values beside them, float64.
    when : int64 microseconds at which they came; None where that is not told.
    duplicates, conflicts : further rows of an id with the same label; ids with several labels,
        which are left out.
    examples : some ids in conflict.
    """

    ids: np.ndarray
    y: np.ndarray
    when: np.ndarray | None = None
    rows: int = 0
    duplicates: int = 0
    conflicts: int = 0
    examples: tuple[str, ...] = ()
    unlabelled: int = 0

    def of(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The label of each id (NaN for none), and when it came (least int64 for never)."""
        if not len(self.ids):
            return np.full(len(ids), np.nan), None
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        known = self.ids[at] == ids
        when = None if self.when is None else np.where(known, self.when[at],
                                                       np.iinfo(np.int64).min)
        return np.where(known, self.y[at], np.nan), when


def read_labels(source: Any, bundle: Bundle, cache: Path) -> Labels:
    """The labels in a table with `ID` and the target's column.

    The same label again changes nothing; ids with several labels are left out and counted.
    DataError where a column is not there, or a label is none of the model's classes.
    """
    target = bundle.info["target"]
    dataset = ingest(source, cache=cache, missing=bundle.info["missing"])
    for name in (ID, target):
        if name not in dataset.schema:
            near = did_you_mean(name, dataset.schema.names)
            raise DataError(f"the labels have no column {name!r}", where=dataset.source,
                            hint=f"did you mean {near!r}?" if near else
                            f"labels are a table of {ID!r} and {target!r}")
    when = next((w for w in WHEN if w in dataset.schema
                 and dataset.schema[w].dtype == "timestamp"), None)
    columns = [ID, target, *([when] if when else [])]
    ids, ys, times, texts = [], [], [], []
    for table in dataset.stream(columns):
        text = plain(table.column(ID)).cast(pa.string()).combine_chunks()
        ids.append(hash_strings(pc.fill_null(text, "")))
        texts.append(text)
        ys.append(codes_of(plain(table.column(target)), bundle))
        if when:
            times.append(pc.fill_null(table.column(when).cast(pa.int64()), 0).to_numpy())
    every, y = np.concatenate(ids), np.concatenate(ys)
    moments = np.concatenate(times) if times else None
    known = ~np.isnan(y)
    unlabelled = int((~known).sum())
    text = pa.concat_arrays(texts)
    at = np.flatnonzero(known)
    # Of equal labels that which came first is kept, whatever the order of the rows.
    keys = (y[at], every[at]) if moments is None else (moments[at], y[at], every[at])
    at = at[np.lexsort(keys)]
    if not len(at):
        return Labels(every[:0], y[:0], None, len(every), unlabelled=unlabelled)
    starts = np.flatnonzero(np.append(True, every[at][1:] != every[at][:-1]))
    sizes = np.diff(np.append(starts, len(at)))
    agree = np.minimum.reduceat(y[at], starts) == np.maximum.reduceat(y[at], starts)
    kept, torn = at[starts[agree]], at[starts[~agree]]
    examples = tuple(sorted(text.take(pa.array(torn[:5])).to_pylist()))
    return Labels(every[kept], y[kept], None if moments is None else moments[kept], len(every),
                  int((sizes[agree] - 1).sum()), len(torn), examples, unlabelled)


def codes_of(column: pa.ChunkedArray, bundle: Bundle) -> np.ndarray:
    """Class codes or values as float64, NaN for none. DataError for a label of no class."""
    if not bundle.classes:
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    encoded = column.combine_chunks().dictionary_encode()
    place = {c: float(i) for i, c in enumerate(bundle.classes)}
    found = [label_of(v) for v in encoded.dictionary.to_pylist()]
    unknown = [f for f in found if f not in place]
    if unknown:
        near = did_you_mean(unknown[0], bundle.classes)
        raise DataError(f"the label {unknown[0]!r} is none of the model's classes, "
                        f"{', '.join(map(repr, bundle.classes))}",
                        hint=f"did you mean {near!r}?" if near else None)
    codes = encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    return np.array([*(place[f] for f in found), np.nan])[codes]


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without its dictionary."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column
