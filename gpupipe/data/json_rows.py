"""JSON tables: one object a line, or one array of objects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.data.delimited import BadRow, TextBlock
from gpupipe.data.infer import Kind
from gpupipe.data.sources import SourceFile, detect_encoding, open_bytes, reading, utf8_chunks
from gpupipe.data.text import TextOptions, TextTable, Tick, check_columns
from gpupipe.errors import DataError

BLOCK_ROWS = 65_536


class _Number(str):
    """A JSON number as it is spelt: exact, whatever its size."""

    __slots__ = ()


_DECODER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_Number)
_SPACE = " \t\r\n"

Rows = Iterator[tuple[int, dict[str, Any] | BadRow]]


def read_json(
    files: Sequence[SourceFile], options: TextOptions, table: TextTable, tick: Tick,
) -> None:
    """Read JSON files into ``table``. A record may lack keys: its cells are missing.

    Raises DataError naming line and column for a value that is an object or an array.
    """
    for file in files:
        where = str(file.path)
        with reading(file.path), open_bytes(file.path) as stream:
            head = stream.read(4096)
            encoding, bom = detect_encoding(file.path, head, options.encoding)
        with reading(file.path), open_bytes(file.path, lambda n: tick(n, "reading")) as stream:
            chunks = utf8_chunks(file.path, stream, encoding, bom)
            if head[bom:].decode(encoding, "ignore").lstrip(_SPACE).startswith("["):
                rows = _array(b"".join(chunks).decode(), where)
            else:
                rows = _lines(chunks, where)
            _collect(rows, file, options, table)
    if not table.rows and not table.bad:
        raise DataError("there is not one record", where=str(files[0].path))
    where = str(files[0].path)
    check_columns(list(table.kinds), options, where)
    if not table.kinds and table.rows:
        raise DataError("the records have no keys", where=where)


def _lines(chunks: Iterator[bytes], where: str) -> Rows:
    number, carry = 0, b""
    for chunk in chain(chunks, [b"\n"]):
        lines = (carry + chunk).split(b"\n")
        carry = lines.pop()
        for line in lines:
            number += 1
            if line.strip():
                yield number, _record(line.decode(), number, where)


def _record(text: str, line: int, where: str) -> dict[str, Any] | BadRow:
    try:
        value = _DECODER.decode(text)
    except ValueError as error:
        return BadRow(where, line, f"not JSON: {str(error).split(':')[0].lower()}", text.strip())
    if not isinstance(value, dict):
        return BadRow(where, line, "not a JSON object", text.strip())
    return value


def _array(text: str, where: str) -> Rows:
    position = text.index("[") + 1
    line, counted = 1, 0

    def skip(at: int) -> int:
        while at < len(text) and text[at] in _SPACE:
            at += 1
        return at

    position = skip(position)
    while text[position:position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise DataError(f"the JSON array breaks off here: {str(error).split(':')[0]}",
                            where=f"{where}:{line}", hint="mend the file") from None
        if isinstance(value, dict):
            yield line, value
        else:
            yield line, BadRow(where, line, "not a JSON object", text[position:end])
        position = skip(end)
        if text[position:position + 1] == ",":
            position = skip(position + 1)
        elif text[position:position + 1] != "]":
            raise DataError("a comma or the array's end was expected after a record",
                            where=f"{where}:{line}", hint="mend the file")
    if text[position + 1:].strip():
        raise DataError("there is more after the end of the JSON array", where=where)


def _collect(rows: Rows, file: SourceFile, options: TextOptions, table: TextTable) -> None:
    where, dropped = str(file.path), frozenset(options.drop)
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    bad: list[BadRow] = []

    def flush() -> None:
        columns = _columns(records, lines, where, dropped, table.kinds)
        for name, value in file.constants:
            if name in columns:
                raise DataError(f"column {name!r} is both in the file and in its folder's name",
                                where=where)
            table.kinds[name] = "text"
            columns[name] = pa.repeat(pa.scalar(value, pa.string()), len(records))
        block = pa.table(columns)
        if records or bad:
            table.add(TextBlock(block, np.array(lines, np.int64), tuple(bad)), where)
        records.clear()
        lines.clear()
        bad.clear()

    for line, row in rows:
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            records.append(row)
            lines.append(line)
        if len(records) >= BLOCK_ROWS:
            flush()
    flush()


def _columns(
    records: list[dict[str, Any]], lines: list[int], where: str, dropped: frozenset[str],
    kinds: dict[str, Kind],
) -> dict[str, pa.Array]:
    """Column by column, every value as text; ``kinds`` learns what kind of values there are."""
    names = dict.fromkeys(key for record in records for key in record)
    columns: dict[str, pa.Array] = {}
    for name in names:
        if name in dropped:
            kinds.setdefault(name, "mixed")
            continue
        values = [record.get(name) for record in records]
        types = set(map(type, values))
        if types & {dict, list}:
            row = next(i for i, v in enumerate(values) if isinstance(v, (dict, list)))
            kind = "an object" if isinstance(values[row], dict) else "an array"
            raise DataError(
                f"column {name!r} holds {kind}, not a plain value",
                where=f"{where}:{lines[row]}", hint=f"list it under data.drop: [{name}]")
        if bool in types:
            values = [str(v).lower() if isinstance(v, bool) else v for v in values]
        columns[name] = pa.array(values, pa.string())
        kinds[name] = _merged(kinds.get(name), types)
    return columns


def _merged(known: Kind | None, types: set[type]) -> Kind:
    found: set[Kind] = set()
    if str in types:
        found.add("string")
    if _Number in types:
        found.add("number")
    if bool in types:
        found.add("bool")
    if known not in (None, "text"):
        found.add(known)  # type: ignore[arg-type]
    return next(iter(found)) if len(found) == 1 else "mixed" if found else "text"
