"""A part's columns, batch by batch, as arrays on the device.

A GPU decodes Parquet many times faster than the host, so what needs no work of ours goes to it
straight from the file. A type that `normalise` has a rule for (a decimal, an unsigned 64-bit
integer, a time zone) is read by the host, as everything is for a CPU; `read_by_host` says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gpupipe.data.dataset import Dataset, ParquetPart, Part
from gpupipe.data.schema import Schema
from gpupipe.data.sources import reading
from gpupipe.engine.frames import Column, Frames

Columns = Mapping[str, Column]
"""One batch: its columns by name."""


def batches(
    part: Part, columns: Sequence[str], schema: Schema, batch_rows: int, fx: Frames
) -> Iterator[Columns]:
    """The batches of a part, in order; at most ``batch_rows`` rows each."""
    direct = [c for c in columns if fx.read_parquet and why_host(part, c, schema) is None]
    ready = _read(part, direct, schema, fx) if direct else {}
    start = 0
    for rows, decoded in _decoded(part, [c for c in columns if c not in ready], schema,
                                  batch_rows, fx):
        where = slice(start, start + rows)
        start = where.stop
        yield {c: _cut(ready[c], where) if c in ready else decoded[c] for c in columns}


def read_by_host(dataset: Dataset, columns: Sequence[str]) -> dict[str, str]:
    """The columns that a GPU does not read by itself, and why not."""
    found: dict[str, str] = {}
    for part in dataset.parts:
        for column in columns:
            why = why_host(part, column, dataset.schema)
            if why is not None:
                found.setdefault(column, why)
    return found


def why_host(part: Part, column: str, schema: Schema) -> str | None:
    """Why a column has to be read by the host; None where a GPU may read it."""
    if not isinstance(part, ParquetPart):
        return "it is in memory"
    if column in dict(part.constants):
        return "it is a folder's name"
    with reading(Path(part.path)):
        stored = _stored(part.path, Path(part.path).stat().st_mtime_ns)[column]
    dtype = schema[column].dtype
    return None if _plain(stored, dtype) else f"{stored} has to become {dtype}"


@lru_cache(1_024)
def _stored(path: str, modified: int) -> dict[str, pa.DataType]:
    """The Arrow types of a file's columns; ``modified`` is when it was written."""
    return {field.name: field.type for field in pq.read_schema(path)}


def _plain(stored: pa.DataType, dtype: str) -> bool:
    """Whether cuDF's own reading of a type is what `normalise` would make of it."""
    t = pa.types
    if t.is_dictionary(stored):
        stored = stored.value_type if t.is_string(stored.value_type) else pa.null()
    if dtype == "string":
        return t.is_string(stored) or t.is_large_string(stored)
    if dtype == "int64":
        return t.is_integer(stored) and stored != pa.uint64()
    if dtype == "timestamp":
        # Finer units are cut, and rounding before 1970 is not for two libraries to agree on.
        return t.is_timestamp(stored) and stored.tz is None and stored.unit in ("ms", "us")
    return str(stored) == {"float32": "float", "float64": "double"}.get(dtype, dtype)


def _read(part: Part, columns: Sequence[str], schema: Schema, fx: Frames) -> dict[str, Column]:
    """Columns of a whole row group, decoded on the device."""
    assert isinstance(part, ParquetPart)
    assert fx.read_parquet is not None
    with reading(Path(part.path)):
        frame = fx.read_parquet(part.path, part.row_group, columns)
    read = {c: fx.column(frame, c, schema[c].dtype) for c in columns}
    # Its batches share a dictionary, and what is found out about it.
    return {n: c if c.levels is None else replace(c, answers={}) for n, c in read.items()}


def _decoded(
    part: Part, columns: Sequence[str], schema: Schema, batch_rows: int, fx: Frames
) -> Iterator[tuple[int, Columns]]:
    """Each batch's rows, and the columns that the host reads."""
    if not columns:
        for start in range(0, part.rows, batch_rows):
            yield min(batch_rows, part.rows - start), {}
        return
    for table in part.stream(columns, batch_rows):
        frame, rows = fx.frame(table), table.num_rows
        del table  # or both would be in memory while the caller works
        yield rows, {c: fx.column(frame, c, schema[c].dtype) for c in columns}


def _cut(column: Column, where: slice) -> Column:
    """Some rows of a column."""
    return replace(column, values=column.values[where],
                   missing=None if column.missing is None else column.missing[where])
