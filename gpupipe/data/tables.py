"""Sources that carry their own types: Parquet in place, Arrow files, tables in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gpupipe.data.casts import pinned_type, typed_column
from gpupipe.data.dataset import Dataset, memory_dataset, parquet_dataset
from gpupipe.data.infer import Tally, Verdict
from gpupipe.data.normalise import logical_type, normalise, with_sound_dictionaries
from gpupipe.data.schema import ARROW_TYPES, DType, Schema
from gpupipe.data.sources import CHUNK, SourceFile, reading
from gpupipe.data.text import TextOptions, check_columns
from gpupipe.errors import DataError

WHOLE = 1 << 30
"""Up to so many bytes, Parquet files are fingerprinted whole; larger ones by their footers and
the first 64 KiB of each row group."""


class NotPlain(DataError):  # noqa: N818 - a refusal, like DataError itself
    """A nested or binary ``column``, which no step could use."""

    def __init__(self, column: str, kind: pa.DataType, where: str) -> None:
        super().__init__(
            f"column {column!r} is of type {kind}, which is not a column of plain values",
            where=where, hint=f"list it under data.drop: [{column}]",
        )
        self.column = column


def typed_schema(arrow: pa.Schema, options: TextOptions, where: str) -> Schema:
    """The logical schema of an Arrow one: dropped columns left out, pinned ones as pinned.

    Raises DataError for a column that is nested, binary, or there twice.
    """
    check_columns(arrow.names, options, where)
    columns: dict[str, DType] = {}
    for field in arrow:
        if field.name in options.drop or field.name in unnamed_index(arrow):
            continue
        if field.name in columns:
            raise DataError(f"there are two columns called {field.name!r}", where=where,
                            hint="rename one, or list the name under data.drop to leave out both")
        dtype = logical_type(field.type)
        if dtype is None:
            raise NotPlain(field.name, field.type, where)
        columns[field.name] = dtype
    if not columns:
        raise DataError("the table has no columns", where=where)
    for name in columns:
        if name in options.types:
            columns[name] = pinned_type(options.types[name])
    return Schema.of(columns)


def _pandas_index(arrow: pa.Schema) -> list[str]:
    """The columns that pandas wrote for an index that is not a plain range."""
    metadata = (arrow.metadata or {}).get(b"pandas")
    if metadata is None:
        return []
    return [c for c in json.loads(metadata).get("index_columns", []) if isinstance(c, str)]


def unnamed_index(arrow: pa.Schema) -> list[str]:
    """A file's index columns that only pandas named: row labels, no data."""
    return [c for c in _pandas_index(arrow) if c.startswith("__index_level_")]


def _notes(arrow: pa.Schema, schema: Schema) -> tuple[str, ...]:
    index = tuple(f"column {name!r}, a pandas index without a name, is left out"
                  for name in unnamed_index(arrow) if name in arrow.names)
    return index + tuple(f"column {f.name!r} has no values at all" for f in schema
                 if pa.types.is_null(arrow.field(f.name).type))


def read_parquet(
    files: Sequence[SourceFile], options: TextOptions, source: str, tick: Callable[[int], None],
) -> Dataset:
    """A dataset over Parquet files where they lie; only footers are read here.

    Raises DataError naming the file and column where types differ from the first file's.
    """
    schemas: list[pa.Schema] = []
    for file in files:
        with reading(file.path):
            schemas.append(pq.read_schema(file.path))
    keys = _partition_keys(files)
    values = [dict(f.constants) for f in files]
    constants, folder_types, notes = _typed_constants(keys, values, options)
    for key in keys:
        if key in schemas[0].names:
            raise DataError(f"column {key!r} is both in the file and in its folder's name",
                            where=str(files[0].path))
    whole = schemas[0]
    for key, dtype in folder_types.items():
        whole = whole.append(pa.field(key, ARROW_TYPES[dtype]))
    schema = typed_schema(whole, options, str(files[0].path))
    for file, own in zip(files[1:], schemas[1:], strict=True):
        _check_same(schemas[0], own, options, str(file.path), files[0].path)
    kept = [{k: v for k, v in row.items() if k in schema} for row in constants]
    digest = _parquet_digest(files, options, tick)
    dataset = parquet_dataset([f.path for f in files], schema, digest, source,
                              (*_notes(whole, schema), *notes), constants=kept)
    if not dataset.rows:
        raise DataError("the table has no rows", where=str(files[0].path))
    return dataset


def _partition_keys(files: Sequence[SourceFile]) -> list[str]:
    keys = [k for k, _ in files[0].constants]
    for file in files:
        if [k for k, _ in file.constants] != keys:
            raise DataError(
                f"its folders name the partitions {[k for k, _ in file.constants]}, those of the "
                f"first file {keys}", where=str(file.path))
    return keys


def _typed_constants(
    keys: list[str], rows: list[dict[str, str | None]], options: TextOptions,
) -> tuple[list[dict[str, object]], dict[str, DType], list[str]]:
    """Partition values, typed by the rules for text columns; each key's type; and notes."""
    typed: list[dict[str, object]] = [{} for _ in rows]
    dtypes: dict[str, DType] = {}
    notes: list[str] = []
    missing = pa.array(options.missing, pa.string())
    for key in keys:
        texts = pa.array([row[key] for row in rows], pa.string())
        tally = Tally("text", 0)
        tally.add(texts, missing)
        verdict = tally.verdict(key, 0)
        if key in options.types:
            verdict = Verdict(pinned_type(options.types[key]))
        values, bad = typed_column(texts, missing, verdict.dtype, verdict.form,
                                   key in options.types)
        if bad is not None:
            raise DataError(f"the partition {key}={texts.filter(bad)[0]} is no {verdict.dtype}",
                            hint=f"set data.types: {{{key}: string}}")
        dtypes[key] = verdict.dtype
        notes += [verdict.note] if verdict.note and key not in options.drop else []
        for row, value in zip(typed, values.to_pylist(), strict=True):
            row[key] = value
    return typed, dtypes, notes


def _check_same(first: pa.Schema, own: pa.Schema, options: TextOptions, where: str,
                path: Path) -> None:
    for name in first.names:
        if name in options.drop:
            continue
        if name not in own.names:
            raise DataError(f"column {name!r} of {path} is not in this file", where=where,
                            hint="files of one source must have the same columns")
        one, two = first.field(name).type, own.field(name).type
        if logical_type(one) != logical_type(two):
            raise DataError(f"column {name!r} is of type {two}, but {one} in {path}", where=where,
                            hint="write the files with one schema, or drop the column")
    for name in own.names:
        if name not in first.names and name not in options.drop:
            raise DataError(f"column {name!r} is not in {path}", where=where,
                            hint="files of one source must have the same columns")


def _parquet_digest(files: Sequence[SourceFile], options: TextOptions,
                    tick: Callable[[int], None]) -> str:
    digest = hashlib.sha256(json.dumps(["parquet", sorted(options.types.items()),
                                        sorted(options.drop)]).encode())
    sizes = [file.path.stat().st_size for file in files]
    for file, size in zip(files, sizes, strict=True):
        digest.update(json.dumps([file.constants, size]).encode())
        with reading(file.path), file.path.open("rb") as stream:
            if sum(sizes) <= WHOLE:
                while chunk := stream.read(CHUNK):
                    digest.update(chunk)
                    tick(len(chunk))
                continue
            metadata = pq.read_metadata(file.path)
            stream.seek(size - metadata.serialized_size - 8)
            digest.update(stream.read())
            for group in range(metadata.num_row_groups):
                column = metadata.row_group(group).column(0)
                stream.seek(column.dictionary_page_offset or column.data_page_offset)
                digest.update(stream.read(64 << 10))
            tick(size)
    return digest.hexdigest()


def open_arrow(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The schema and batches of an Arrow IPC file, Feather file or stream."""
    with reading(path):
        file = pa.memory_map(str(path))
        if file.read(6) == b"ARROW1":
            reader = pa.ipc.open_file(file)
            return reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
        file.seek(0)
        stream = pa.ipc.open_stream(file)
        return stream.schema, iter(stream)


def arrow_tables(
    files: Sequence[SourceFile], schema: Schema, tick: Callable[[int], None],
) -> Iterator[pa.Table]:
    """The batches of Arrow files in the types of ``schema``."""
    for file in files:
        with reading(file.path):
            for batch in open_arrow(file.path)[1]:
                table = pa.Table.from_batches([batch]).select(
                    [n for n in schema.names if n in batch.schema.names])
                typed = normalise(table, schema, dict(file.constants), where=str(file.path))
                tick(batch.nbytes)
                yield typed.cast(schema.to_arrow())


def read_memory(source: Any, options: TextOptions) -> Dataset:
    """A dataset over a table in memory: pandas (its index is dropped), Polars, Arrow, DuckDB."""
    where = f"the {type(source).__name__}"
    try:
        table = source if isinstance(source, pa.Table) else pa.table(source)
    except (pa.ArrowException, TypeError, ValueError) as error:
        text = str(error).strip().splitlines()[0]
        raise DataError(f"the table cannot be read as Arrow: {text}", where=where,
                        hint="give every column one type and its own name") from None
    index = _pandas_index(table.schema)
    table = table.drop_columns([c for c in index if c in table.column_names])
    schema = typed_schema(table.schema, options, where)
    if not table.num_rows:
        raise DataError("the table has no rows", where=where)
    table = with_sound_dictionaries(table.select(schema.names))
    pinned = [n for n in schema.names if n in options.types]
    if pinned:
        # Now, so that a value that does not fit is an error here and not in some later pass.
        normalise(table.select(pinned), schema.select(pinned), {}, where=where)
    return memory_dataset(table, schema, fingerprint(table, schema, where), where,
                          _notes(table.schema, schema))


def fingerprint(table: pa.Table, schema: Schema, where: str) -> str:
    """SHA-256 over names, types, missing cells and values, however the table is chunked."""
    digest = hashlib.sha256(json.dumps(schema.to_json()).encode())
    for start in range(0, table.num_rows, 131_072):
        piece = normalise(table.slice(start, 131_072), schema, {}, where)
        for field, column in zip(schema, piece.columns, strict=True):
            values = column.combine_chunks()
            if pa.types.is_dictionary(values.type):
                values = values.cast(pa.string())
            digest.update(pc.is_null(values).cast(pa.uint8()).to_numpy().tobytes())
            if field.dtype == "string":
                values = pc.fill_null(values, "")
                digest.update(pc.binary_length(values).to_numpy().tobytes())
                digest.update("".join(values.to_pylist()).encode())
                continue
            if field.dtype == "timestamp":
                values = values.cast(pa.int64())
            if field.dtype == "bool":
                values = values.cast(pa.uint8())
            digest.update(pc.fill_null(values, 0).to_numpy().tobytes())
    return digest.hexdigest()
