"""What is monitored: a prediction log, a table, or files of either, one after the other.

Each file is a `Piece` of its own: it is recognised by its content, so that a file that a history
holds already is not read again, and a column that one file lacks is missing from that one alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpupipe.bundle.scoring import Bundle
from gpupipe.data.dataset import Dataset, ParquetPart
from gpupipe.data.ingest import ingest_plain
from gpupipe.data.sources import SourceFile, resolve
from gpupipe.engine.frames import Column, Frames
from gpupipe.errors import DataError, did_you_mean
from gpupipe.monitor.cells import fitted

PREFIX = "feature:"
"""What the raw columns of a prediction log are called by."""
LOG = ("prediction_id", "time", "model")
"""The columns by which a prediction log is recognised."""


@dataclass(frozen=True)
class Piece:
    """One file, or one table in memory.

    Attributes
    ----------
    names : the bundle's columns that it has, and what they are called in it.
    log : whether it is a prediction log.
    time : the column that says when; None where there is none.
    first : how many rows the pieces before it have.
    constants : columns that its folder's name spells, still text.
    """

    dataset: Dataset
    names: Mapping[str, str]
    log: bool
    time: str | None
    first: int
    constants: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """What it holds: the same for the same content under any name."""
        return self.dataset.fingerprint

    def has(self, column: str) -> bool:
        """Whether it has a column of its own of this name."""
        return column in self.dataset.schema

    def read(
        self, part: int, columns: Sequence[str], batch_rows: int, fx: Frames
    ) -> Iterator[tuple[dict[str, Column], int]]:
        """The batches of a part: the columns by their own names, and how many rows."""
        here = [c for c in columns if c in self.dataset.schema]
        schema = self.dataset.schema
        for table in self.dataset.parts[part].stream(here, batch_rows):
            frame = fx.frame(table)
            found = {c: fx.column(frame, c, schema[c].dtype) for c in here}
            for name in columns:
                if name in self.constants and name not in found:
                    found[name] = _repeated(self.constants[name], table.num_rows)
            yield found, table.num_rows


def _repeated(value: str | None, n: int) -> Column:
    return Column("string", np.full(n, -1 if value is None else 0, np.int32), None,
                  pa.array([] if value is None else [value], pa.string()))


def pieces_of(
    source: object, bundle: Bundle, cache: Path, time: str | None = None,
) -> list[Piece]:
    """The pieces of a source, in order.

    ``time`` is the column that says when; a prediction log's own is ``time``.
    """
    found: list[Piece] = []
    first = 0
    for one, constants in _files(source):
        dataset = _opened(one, bundle, cache, [time] if time else [])
        found.append(_piece(dataset, bundle, time, first, dict(constants)))
        first += dataset.rows
    return found


def _files(source: object) -> list[tuple[object, Sequence[tuple[str, str | None]]]]:
    if hasattr(source, "__arrow_c_stream__"):
        return [(source, ())]
    files: list[SourceFile] = resolve(source)
    return [(str(f.path), f.constants) for f in files]


def _opened(source: object, bundle: Bundle, cache: Path, needed: Sequence[str]) -> Dataset:
    """A file as its own types have it: what does not fit the contract is to be counted."""
    reader = bundle.info["reader"]
    # A list of probabilities, say, is left out: no feature is nested.
    return ingest_plain(
        source, needed, cache=cache, missing=bundle.info["missing"],
        delimiter=reader["delimiter"], encoding=reader["encoding"], header=reader["header"],
        max_bad_share=reader["max_bad_share"])


def _piece(
    dataset: Dataset, bundle: Bundle, time: str | None, first: int,
    constants: Mapping[str, str | None],
) -> Piece:
    schema = dataset.schema
    log = all(c in schema for c in LOG)
    name = time or ("time" if log else None)
    if name is not None:
        if name not in schema:
            near = did_you_mean(name, schema.names)
            raise DataError(f"there is no column {name!r} that says when", where=dataset.source,
                            hint=f"did you mean {near!r}?" if near else "see --time")
        if schema[name].dtype != "timestamp":
            raise DataError(f"column {name!r} is {schema[name].dtype}, expected a timestamp",
                            where=dataset.source, hint="name another column, or --window 10000rows")
    prefix = PREFIX if log else ""
    names = {c: prefix + c for c in bundle.schema.names
             if prefix + c in schema or (not log and c in constants)}
    return Piece(dataset, names, log, name, first, constants)


def probabilities(piece: Piece, part: int, batch_rows: int) -> Iterator[np.ndarray]:
    """A log's probabilities of more than two classes: float64 ``[n, classes]`` a batch.

    NaN where a row has none. They are lists, which no feature is, so they are read here.
    """
    source = piece.dataset.parts[part]
    if not isinstance(source, ParquetPart):
        raise DataError("a log in memory has no probabilities", where=piece.dataset.source)
    with pq.ParquetFile(source.path) as file:
        if "probabilities" not in file.schema_arrow.names:
            return
        for batch in file.iter_batches(batch_rows, [source.row_group], ["probabilities"]):
            lists = batch.column(0)
            yield _matrix(lists)


def _matrix(lists: Any) -> np.ndarray:
    lengths = np.diff(lists.offsets.to_numpy()) if len(lists) else np.zeros(0, int)
    width = int(lengths.max()) if len(lengths) else 0
    found = np.full((len(lists), width), np.nan)
    valid = lists.is_valid().to_numpy(zero_copy_only=False) & (lengths == width)
    flat = lists.filter(pa.array(valid)).flatten().to_numpy(zero_copy_only=False)
    found[valid] = flat.reshape(-1, width) if width else found[valid]
    return found


def conforming(
    piece: Piece, batch: Mapping[str, Column], bundle: Bundle, fx: Frames
) -> tuple[dict[str, Column], dict[str, Any]]:
    """The bundle's columns in the types of its contract, and which rows do not fit, by column."""
    columns: dict[str, Column] = {}
    unfit: dict[str, Any] = {}
    for f in bundle.schema:
        if f.name in piece.names:
            columns[f.name], bad = fitted(batch[piece.names[f.name]], f.dtype, fx)
            if bad is not None:
                unfit[f.name] = bad
    return columns, unfit
