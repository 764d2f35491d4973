"""Text tables (CSV, JSON) to typed ones: read as strings, decide types from all, then cast."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.data.casts import pinned_type, typed_column
from gpupipe.data.delimited import (
    BadRow,
    Lines,
    RecordPatterns,
    TextBlock,
    parse_block,
    raw_blocks,
)
from gpupipe.data.dialect import HEAD, Dialect, column_names, sniff
from gpupipe.data.infer import Kind, Tally, Verdict
from gpupipe.data.schema import ARROW_TYPES, Schema
from gpupipe.data.sources import SourceFile, detect_encoding, open_bytes, reading, utf8_chunks
from gpupipe.errors import ConfigError, DataError, did_you_mean

HELD = 384 << 20
"""Bytes of parsed text that stay in memory; what comes after goes to a temporary file."""

Tick = Callable[[int, str], None]


@dataclass(frozen=True)
class TextOptions:
    """How text is to be read; see ``ingest`` for each."""

    missing: tuple[str, ...]
    types: dict[str, str]
    drop: tuple[str, ...]
    delimiter: str
    encoding: str
    header: str | bool
    max_bad_share: float


@dataclass(frozen=True)
class StoredBlock:
    """A block's strings, in memory or in an Arrow file, and where its rows came from."""

    table: pa.Table | Path
    rows: int
    file: str
    lines: Lines

    def columns(self) -> dict[str, pa.ChunkedArray]:
        table = self.table
        if isinstance(table, Path):
            with pa.memory_map(str(table)) as file:
                table = pa.ipc.open_stream(file).read_all()
        return dict(zip(table.column_names, table.columns, strict=True))


class TextTable:
    """All the blocks of a source, in order, with the columns that they have between them."""

    def __init__(self, spill: Path, options: TextOptions) -> None:
        self.blocks: list[StoredBlock] = []
        self.kinds: dict[str, Kind] = {}
        self.bad: list[BadRow] = []
        self.notes: list[str] = []
        self.rows = 0
        self._held = 0
        self._spill, self._options = spill, options

    def add(self, block: TextBlock, file: str) -> None:
        table: pa.Table | Path = block.table
        self._held += block.table.nbytes
        if self._held > HELD:
            table = self._spill / f"{len(self.blocks)}.arrows"
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            with reading(table), pa.ipc.new_stream(str(table), block.table.schema,
                                                   options=options) as out:
                out.write_table(block.table)
        self.blocks.append(StoredBlock(table, len(block.lines), file, block.lines))
        self.rows += len(block.lines)
        self.bad += block.bad
        if len(self.bad) > max(1000, self.rows):
            refuse_bad(self.bad, self.rows, self._options.max_bad_share)

    @property
    def limit(self) -> int:
        """How many rows may be bad."""
        return int(self._options.max_bad_share * (self.rows + len(self.bad)))


def refuse_bad(bad: Sequence[BadRow], good: int, share: float) -> None:
    """The DataError of a table with too many bad rows."""
    bad = sorted(bad, key=lambda row: (row.file, row.line))
    shown = "\n".join(
        f"  {row.file}:{row.line}: " + (f"column {row.column!r}: " if row.column else "")
        + row.reason for row in bad[:5]
    )
    total = good + len(bad)
    raise DataError(
        f"{len(bad)} of {total} rows cannot be read ({len(bad) / total:.2%}; at most "
        f"{share:.2%} may be set aside)", where=f"{bad[0].file}:{bad[0].line}", excerpt=shown,
        hint="mend the rows, set data.delimiter or data.header if they were guessed wrongly, or "
        "raise data.max_bad_share",
    )


def check_columns(names: Sequence[str], options: TextOptions, where: str) -> None:
    """ConfigError where a column to pin or to drop is not there."""
    for key, wanted in (("types", list(options.types)), ("drop", list(options.drop))):
        for name in wanted:
            if name not in names:
                near = did_you_mean(name, list(names))
                raise ConfigError(
                    f"data.{key} names the column {name!r}, which is not in the table",
                    where=where, hint=f"did you mean {near!r}?" if near
                    else "the columns are " + ", ".join(map(repr, names)))


def read_delimited(
    files: Sequence[SourceFile], options: TextOptions, table: TextTable, tick: Tick,
) -> None:
    """Read CSV files into ``table``; all must have the columns of the first."""
    names: list[str] | None = None
    for file in files:
        where = str(file.path)
        with reading(file.path), open_bytes(file.path, lambda n: tick(n, "reading")) as stream:
            head = stream.read(HEAD)
            if not head:
                raise DataError("the file is empty", where=where)
            encoding, bom = detect_encoding(file.path, head, options.encoding)
        with reading(file.path), open_bytes(file.path, lambda n: tick(n, "reading")) as stream:
            chunks = utf8_chunks(file.path, stream, encoding, bom)
            first = next(chunks, b"")
            while len(first) < HEAD or not (b"\n" in first or b"\r" in first):
                more = next(chunks, b"")
                if not more:
                    break
                first += more
            if b"\r" in first[:HEAD] and b"\n" not in first[:HEAD]:
                chunks = (c.replace(b"\r", b"\n") for c in chunks)
                first = first.replace(b"\r", b"\n")
            dialect, own, skipped, line, notes = _open(first, options, names, where)
            table.notes += notes if names is None else []
            if names is None:
                names = own
                check_columns([*names, *dict(file.constants)], options, where)
            _same_columns(names, own, files[0], where)
            body = chain([first[skipped:]], chunks)
            wanted = [n for n in names if n not in options.drop]
            _parse(body, dialect, names, wanted, line, file, table)
    if not table.rows and not table.bad:
        raise DataError("there is a header and not one row", where=str(files[0].path))


def _open(first: bytes, options: TextOptions, names: list[str] | None, where: str
          ) -> tuple[Dialect, list[str], int, int, list[str]]:
    """Dialect, names, the bytes and lines that the header takes, and notes on names."""
    position, comments = 0, 0
    while first[position:position + 1] == b"#" and b"\n" in first[position:]:
        position = first.index(b"\n", position) + 1
        comments += 1
    missing = frozenset(options.missing)

    def look(start: int) -> tuple[Dialect, list[list[str]]]:
        head = first[start:]
        if len(head) > HEAD:
            head = head[: head.rfind(b"\n", 0, HEAD) + 1] or head
        return sniff(head.decode("utf-8", "replace"), delimiter=options.delimiter,
                     header=options.header, missing=missing, where=where)

    notes: list[str] = []
    dialect, rows = look(position if first[position:].strip() else 0)
    if comments:
        # A line starting with # is a comment where it is no row: it does not split like one.
        splits = [len(c.split(dialect.delimiter.encode())) for c in first[:position].splitlines()]
        if len(rows[0]) > 1 and all(n != len(rows[0]) for n in splits):
            notes.append(f"{comments} comment line{'s' * (comments > 1)} before the header "
                         f"{'were' if comments > 1 else 'was'} skipped")
        else:
            position = 0
            dialect, rows = look(0)
    while first[position:position + 1] in (b"\n", b"\r", b" "):  # blank lines before
        position += 1
    cells = rows[0]
    header = dialect.header
    if names is not None and options.header == "auto":
        # A later file repeats the header or goes on without one.
        header = header or column_names(cells)[0] == names
        if not header and len(cells) == len(names):
            return dialect, names, position, first.count(b"\n", 0, position) + 1, notes
    if not header:
        own = [f"column_{i}" for i in range(len(cells))]
        notes.append("there is no header: the columns are called column_0, column_1, ...")
        return dialect, own, position, first.count(b"\n", 0, position) + 1, notes
    own, renamed = column_names(cells)
    patterns = RecordPatterns(dialect)
    record = patterns.strict.match(first, position) or patterns.lenient.match(first, position)
    end = record.end() if record else (first.find(b"\n", position) + 1 or len(first))
    return dialect, own, end, first.count(b"\n", 0, end) + 1, notes + renamed


def _same_columns(names: list[str], own: list[str], first: SourceFile, where: str) -> None:
    if own == names:
        return
    for i, (expected, found) in enumerate(zip(names, own, strict=False)):
        if expected != found:
            raise DataError(f"column {i + 1} is called {found!r}, but {expected!r} in "
                            f"{first.path}", where=where,
                            hint="files of one source must have the same columns in one order")
    raise DataError(f"{len(own)} columns were found, but {len(names)} in {first.path}",
                    where=where, hint="files of one source must have the same columns")


def _parse(body: Iterator[bytes], dialect: Dialect, names: list[str], wanted: list[str],
           line: int, file: SourceFile, table: TextTable) -> None:
    """Parse blocks on a few threads, keeping their order."""
    where, patterns = str(file.path), RecordPatterns(dialect)
    blocks = raw_blocks(body, patterns, where, line)
    table.kinds.update(dict.fromkeys([*wanted, *dict(file.constants)], "text"))

    def keep(block: TextBlock) -> None:
        table.add(_with_constants(block, file), where)

    first = next(blocks, None)
    if first is None:
        return
    block = parse_block(first, names, wanted, frozenset(), dialect, where)
    columns = dict(zip(wanted, block.table.columns, strict=True))
    repeated = frozenset(name for name, column in columns.items() if _repeats(column))
    for name in repeated:
        columns[name] = columns[name].dictionary_encode()
    keep(TextBlock(pa.table(columns), block.lines, block.bad))
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[TextBlock]] = []
        for raw in blocks:
            waiting.append(pool.submit(parse_block, raw, names, wanted, repeated, dialect, where))
            if len(waiting) > workers:
                keep(waiting.pop(0).result())
        for future in waiting:
            keep(future.result())


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether a column is worth reading through its distinct values."""
    return len(column) > 0 and pc.count_distinct(column).as_py() <= 0.2 * len(column)


def _with_constants(block: TextBlock, file: SourceFile) -> TextBlock:
    table = block.table
    for name, value in file.constants:
        if name in table.column_names:
            raise DataError(f"column {name!r} is both in the file and in its folder's name",
                            where=str(file.path))
        column = pa.repeat(pa.scalar(value, pa.string()), table.num_rows).dictionary_encode()
        table = table.append_column(name, column)
    return TextBlock(table, block.lines, block.bad)


def decide_types(table: TextTable, options: TextOptions, tick: Tick) -> dict[str, Verdict]:
    """Each column's type, from all its values."""
    missing = pa.array(options.missing, pa.string())
    limit = table.limit - len(table.bad)
    tallies = {name: Tally(kind, limit) for name, kind in table.kinds.items()
               if name not in options.drop and name not in options.types}
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for stored in table.blocks:
            columns = stored.columns()

            def add(name: str, columns: dict[str, pa.ChunkedArray] = columns) -> None:
                if name in columns:
                    tallies[name].add(columns[name].combine_chunks(), missing)

            list(pool.map(add, tallies))
            tick(stored.rows, "deciding types")
    verdicts: dict[str, Verdict] = {}
    for name in table.kinds:
        if name in options.types:
            verdicts[name] = Verdict(pinned_type(options.types[name]))
        elif name in tallies:
            verdicts[name] = tallies[name].verdict(name, limit)
    if sum(v.failing for v in verdicts.values()) > limit:
        # Together they would set aside too many rows: then none of them is a number.
        for name, verdict in verdicts.items():
            if verdict.failing:
                verdicts[name] = Verdict("string", note=f"column {name!r} is text because "
                                         f"{verdict.failing} of its values are not numbers, "
                                         f"{tallies[name].example!r} for one")
    return verdicts


def typed_tables(
    table: TextTable, verdicts: dict[str, Verdict], options: TextOptions, tick: Tick,
) -> Iterator[pa.Table]:
    """The typed blocks; rows with a value that is not of its column's type are set aside.

    Raises DataError at the end where too many rows were.
    """
    missing = pa.array(options.missing, pa.string())
    schema = Schema.of({name: v.dtype for name, v in verdicts.items()}).to_arrow()
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for stored in table.blocks:
            strings = stored.columns()

            def cast(name: str, strings: dict[str, pa.ChunkedArray] = strings,
                     rows: int = stored.rows) -> tuple[pa.Array, pa.Array | None]:
                verdict = verdicts[name]
                if name not in strings:
                    return pa.nulls(rows, ARROW_TYPES[verdict.dtype]), None
                return typed_column(strings[name].combine_chunks(), missing,
                                    verdict.dtype, verdict.form, name in options.types)

            done = list(pool.map(cast, verdicts))
            typed = pa.Table.from_arrays([c for c, _ in done], schema=schema)
            failed = {n: b for n, (_, b) in zip(verdicts, done, strict=True) if b is not None}
            if failed:
                any_bad = np.zeros(stored.rows, bool)
                for name, bad in failed.items():
                    where = np.flatnonzero(pc.fill_null(bad, False).to_numpy(zero_copy_only=False))
                    for i in where[~any_bad[where]]:
                        table.bad.append(_failure(strings, int(i), name, verdicts[name], stored))
                    any_bad[where] = True
                typed = typed.filter(pa.array(~any_bad))
                table.rows -= int(any_bad.sum())
            tick(stored.rows, "writing")
            yield typed
    if len(table.bad) > table.limit:
        refuse_bad(table.bad, table.rows, options.max_bad_share)


def _failure(strings: dict[str, pa.ChunkedArray], row: int, name: str, verdict: Verdict,
             stored: StoredBlock) -> BadRow:
    values = {n: column[row].as_py() for n, column in strings.items()}
    kind = {"int64": "a whole number", "bool": "true or false", "timestamp": "a date or time"}
    expected = kind.get(verdict.dtype, "a number")
    return BadRow(stored.file, int(stored.lines[row]), f"{values[name]!r} is not {expected}",
                  ",".join("" if v is None else str(v) for v in values.values()), name)

