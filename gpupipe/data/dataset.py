"""A typed table in parts that can be read again and again, in any order, by many threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from gpupipe.data.normalise import normalise, with_sound_dictionaries
from gpupipe.data.schema import Schema
from gpupipe.data.sources import reading


class Part(Protocol):
    """A piece of a table: a Parquet row group, or a slice of a table in memory."""

    @property
    def rows(self) -> int: ...

    def stream(self, columns: Sequence[str], batch_rows: int) -> Iterator[pa.Table]:
        """Yield tables of at most ``batch_rows`` rows, in order, holding ``columns``."""
        ...


@dataclass(frozen=True)
class ParquetPart:
    """Row group ``row_group`` of the Parquet file at ``path``.

    ``constants`` are the Hive partition values that the path spells (``year=2024/``).
    """

    path: str
    row_group: int
    rows: int
    schema: Schema
    constants: tuple[tuple[str, object], ...] = ()

    def stream(self, columns: Sequence[str], batch_rows: int) -> Iterator[pa.Table]:
        constants = dict(self.constants)
        stored = [c for c in columns if c not in constants]
        strings = [f.name for f in self.schema.select(stored) if f.dtype == "string"]

        def typed(batch: pa.RecordBatch) -> pa.Table:
            table = pa.Table.from_batches([batch])
            return normalise(table, self.schema.select(columns), constants, where=self.path)

        with (
            reading(Path(self.path)),
            pq.ParquetFile(self.path, read_dictionary=strings, pre_buffer=False) as file,
        ):
            batches = file.iter_batches(
                batch_size=batch_rows, row_groups=[self.row_group], columns=stored,
                use_threads=False,
            )
            # map() keeps no batch alive while the caller works on what became of it.
            yield from map(typed, batches)


@dataclass(frozen=True)
class MemoryPart:
    """Rows ``[start, start + rows)`` of an Arrow table."""

    table: pa.Table
    start: int
    rows: int
    schema: Schema

    def stream(self, columns: Sequence[str], batch_rows: int) -> Iterator[pa.Table]:
        for offset in range(self.start, self.start + self.rows, batch_rows):
            size = min(batch_rows, self.start + self.rows - offset)
            piece = self.table.slice(offset, size).select(list(columns))
            yield normalise(piece, self.schema.select(columns), {}, where="the table")


@dataclass(frozen=True)
class Quarantine:
    """Rows that could not be parsed: how many, why, and the file that holds them.

    The file is JSON lines of ``{"file", "line", "reason", "text"}``.
    """

    path: str | None = None
    count: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """What ingest makes of any source.

    Attributes
    ----------
    schema : names and logical types, in source order.
    parts : pieces to stream; their order is the source's row order.
    fingerprint : hex digest of the content and of how it was read.
    source : what the user named, for messages.
    notes : what was decided on the way and the user should know.
    quarantine : rows left out because they could not be parsed.
    left_out : columns that were dropped before they were read.
    """

    schema: Schema
    parts: tuple[Part, ...]
    fingerprint: str
    source: str
    notes: tuple[str, ...] = ()
    quarantine: Quarantine = Quarantine()
    left_out: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def stream(
        self, columns: Sequence[str] | None = None, batch_rows: int = 131_072
    ) -> Iterator[pa.Table]:
        """All parts in order, as tables of at most ``batch_rows`` rows."""
        names = self.schema.names if columns is None else list(columns)
        for part in self.parts:
            yield from part.stream(names, batch_rows)

    def to_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Everything at once: for small tables and tests."""
        names = self.schema.names if columns is None else list(columns)
        tables = [t.unify_dictionaries() for t in self.stream(names)]
        if not tables:
            return self.schema.select(names).to_arrow().empty_table()
        return pa.concat_tables(tables, promote_options="permissive")


def memory_dataset(
    table: pa.Table, schema: Schema, fingerprint: str, source: str, notes: tuple[str, ...] = (),
    part_rows: int = 131_072,
) -> Dataset:
    """A dataset over a table that is already in memory and typed as ``schema`` says."""
    table = with_sound_dictionaries(table)
    parts = tuple(
        MemoryPart(table, start, min(part_rows, table.num_rows - start), schema)
        for start in range(0, table.num_rows, part_rows)
    )
    return Dataset(schema, parts, fingerprint, source, notes)


def parquet_dataset(
    paths: Sequence[Path], schema: Schema, fingerprint: str, source: str,
    notes: tuple[str, ...] = (), quarantine: Quarantine | None = None,
    constants: Sequence[dict[str, object]] | None = None,
) -> Dataset:
    """A dataset over the row groups of Parquet files; only their footers are read here."""
    parts: list[Part] = []
    for i, path in enumerate(paths):
        fixed = tuple((constants[i] if constants else {}).items())
        metadata = pq.read_metadata(path)
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            if rows:
                parts.append(ParquetPart(str(path), group, rows, schema, fixed))
    return Dataset(schema, tuple(parts), fingerprint, source, notes, quarantine or Quarantine())


def on_disk(dataset: Dataset, folder: Path) -> Dataset:
    """The same dataset in Parquet files, each part one, so that other processes can read it.

    Itself where it lies in files already.
    """
    if not any(isinstance(part, MemoryPart) for part in dataset.parts):
        return replace(dataset, parts=tuple(
            replace(p, path=str(Path(p.path).absolute())) if isinstance(p, ParquetPart) else p
            for p in dataset.parts
        ))
    parts: list[Part] = []
    for number, part in enumerate(dataset.parts):
        path = folder.absolute() / f"part-{number:05}.parquet"
        tables = [t.unify_dictionaries() for t in part.stream(dataset.schema.names, part.rows)]
        table = pa.concat_tables(tables, promote_options="permissive")
        pq.write_table(table, path, row_group_size=part.rows, compression="lz4")
        parts.append(ParquetPart(str(path), 0, part.rows, dataset.schema))
    return replace(dataset, parts=tuple(parts))
