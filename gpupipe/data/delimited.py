"""Delimited text in blocks: records found, bad ones set aside, the rest parsed by Arrow.

A block is a few megabytes that end where a record ends. Arrow parses it; what Arrow is too
lenient or too strict about (unclosed quotes, NUL bytes, blanks beside delimiters) is settled
before, by scans over the whole block; only lines that a scan points at are looked at singly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from gpupipe.data.dialect import Dialect

LONGEST_RECORD = 4 << 20
"""A quoted field still open after this many bytes counts as never closed."""

Lines = npt.NDArray[np.int64]


@dataclass(frozen=True)
class BadRow:
    """A row set aside: where, why, and its text."""

    file: str
    line: int
    reason: str
    text: str
    column: str | None = None


@dataclass(frozen=True)
class TextBlock:
    """Parsed rows, every field still text, and the physical line on which each row starts."""

    table: pa.Table
    lines: Lines
    bad: tuple[BadRow, ...]


@dataclass(frozen=True)
class RawBlock:
    """Whole records as bytes; ``keep`` marks the lines that start a record, or is None for all."""

    data: bytes
    first_line: int
    lines: Lines
    bad: tuple[BadRow, ...]


class RecordPatterns:
    """The regular expressions of one dialect (see RFC 4180)."""

    def __init__(self, dialect: Dialect) -> None:
        d, q = re.escape(dialect.delimiter.encode()), re.escape(dialect.quote.encode())
        self.delimiter, self.quote = dialect.delimiter.encode(), dialect.quote.encode()
        self.blanks = b" \t".replace(self.delimiter, b"")
        b = b"[" + self.blanks + b"]"
        quoted = b + b"*" + q + b"(?:[^" + q + b"]+|" + q + q + b")*+" + q
        plain = b"(?!" + b + b"*" + q + b")[^" + d + b"\n]*"

        def record(after: bytes) -> re.Pattern[bytes]:
            field = b"(?:" + quoted + after + b"|" + plain + b")"
            return re.compile(field + b"(?:" + d + field + b")*(?:\n|\\Z)")

        self.strict = record(b + b"*(?=[" + d + b"\r\n]|\\Z)\r?")
        self.lenient = record(b"[^" + d + b"\n]*")
        self.quoted = re.compile(b"(?:(?<=[" + d + b"\n])|\\A)" + quoted)
        # A quoted field loses the blanks before it and keeps its own; others lose theirs.
        self.strip = re.compile(
            b"(?:(?<=[" + d + b"\n])|\\A)" + b + b"*(" + q + b"(?:[^" + q + b"]+|" + q + q
            + b")*+" + q + b")|" + b + b"+(?=[" + d + b"\r\n]|\\Z)|(?:(?<=[" + d + b"\n])|\\A)"
            + b + b"+"
        )

    def stripped(self, data: bytes) -> bytes:
        """Without the blanks around unquoted fields; the lines stay the same."""
        if not self._has_blank_beside(data):
            return data
        if self.quote in data:
            return self.strip.sub(lambda m: m.group(1) or b"", data)
        for blank in self.blanks:
            one = bytes([blank])
            for edge in (self.delimiter, b"\n", b"\r"):
                while one + edge in data:
                    data = data.replace(one + edge, edge)
                while edge + one in data and edge != b"\r":
                    data = data.replace(edge + one, edge)
        return data.strip(self.blanks)

    def _has_blank_beside(self, data: bytes) -> bool:
        """Whether a blank stands beside a delimiter or a line's end (quotes not looked at)."""
        text = np.frombuffer(data, np.uint8)
        spots = np.flatnonzero(text == 32)
        if b"\t" in self.blanks and b"\t" in data:
            spots = np.flatnonzero((text == 32) | (text == 9))
        if not len(spots):
            return False
        if spots[0] == 0 or spots[-1] == len(text) - 1:
            return True
        edges = np.zeros(256, bool)
        edges[[self.delimiter[0], 10, 13]] = True
        return bool(edges[text[spots - 1]].any() or edges[text[spots + 1]].any())


def raw_blocks(
    chunks: Iterator[bytes], patterns: RecordPatterns, file: str, first_line: int,
) -> Iterator[RawBlock]:
    """Cut chunks of UTF-8 text into blocks of whole records."""
    carry, line = b"", first_line
    for chunk, final in _with_last(chunks):
        data = carry + chunk
        cut = len(data) if final else data.rfind(b"\n") + 1
        if cut:
            block, used = _scan(data[:cut], patterns, file, line, final, len(data))
            if used:
                yield block
            line += data.count(b"\n", 0, used)
            carry = data[used:]
        else:
            carry = data


def _with_last(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    previous = None
    for chunk in chunks:
        if previous is not None:
            yield previous, False
        previous = chunk
    if previous is not None:
        yield previous, True


def _scan(
    data: bytes, patterns: RecordPatterns, file: str, first_line: int, final: bool, have: int,
) -> tuple[RawBlock, int]:
    """Find the records of ``data``: the block made of them, and how many bytes it used up."""
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == 10) + 1
    if not data.endswith(b"\n"):
        ends = np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1]])
    starting = np.ones(len(ends), bool)  # does a record start on this line?
    bad: dict[int, str] = {}
    used_lines = len(ends)
    if patterns.quote in data:
        used_lines = _quotes(data, text, starts, ends, patterns, final, have, starting, bad)
    _stray_bytes(data, starts, ends, patterns, starting, bad)
    used = int(ends[used_lines - 1]) if used_lines else 0
    starting, starts, ends = starting[:used_lines], starts[:used_lines], ends[:used_lines]
    rows: list[BadRow] = []
    clean = data[:used]
    if any(i < used_lines for i in bad):
        pieces, position = [], 0
        for i in sorted(i for i in bad if i < used_lines):
            after = i + 1  # the lines up to here are this record's
            while after < used_lines and not starting[after] and after not in bad:
                after += 1
            start, end = int(starts[i]), int(ends[after - 1])
            rows.append(BadRow(file, first_line + i, bad[i],
                               data[start:end].rstrip(b"\r\n").decode("utf-8", "replace")))
            pieces.append(data[position:start])
            position, starting[i] = end, False
        pieces.append(data[position:used])
        clean = b"".join(pieces)
    blank_first = np.isin(text[starts], np.frombuffer(b"\n\r" + patterns.blanks, np.uint8))
    for spot in np.flatnonzero(blank_first & starting):
        if not data[starts[spot]:ends[spot]].strip(patterns.blanks + b"\r\n"):
            starting[spot] = False
    lines = np.flatnonzero(starting).astype(np.int64) + first_line
    return RawBlock(patterns.stripped(clean), first_line, lines, tuple(rows)), used


def _quotes(
    data: bytes, text: npt.NDArray[np.uint8], starts: npt.NDArray[np.intp],
    ends: npt.NDArray[np.intp], patterns: RecordPatterns, final: bool, have: int,
    starting: npt.NDArray[np.bool_], bad: dict[int, str],
) -> int:
    """Mark lines that continue a quoted field, and lines whose quote is never closed.

    Returns how many lines may be used: a record still open at the end waits for more text.
    """
    position = 0
    unusual: list[int] = _unusual(text, ends, patterns).tolist()
    for i in unusual:
        if i < position:
            continue
        start, end = int(starts[i]), int(ends[i])
        match = patterns.strict.match(data, start)
        if match:
            last = int(np.searchsorted(ends, match.end()))
            starting[i + 1 : last + 1] = False
            position = last + 1
            continue
        loose = patterns.lenient.match(data, start)
        if loose and loose.end() <= end:
            continue
        if loose is None and not final and have - start < LONGEST_RECORD:
            return i
        bad[i] = "a quoted field is not closed"
        position = i + 1
    return len(ends)


def _unusual(
    text: npt.NDArray[np.uint8], ends: npt.NDArray[np.intp], patterns: RecordPatterns,
) -> npt.NDArray[np.intp]:
    """The lines whose quotes do not simply open and close fields, one after the other.

    On all other lines the first, third, ... quote stands at a field's start or after a quote,
    the second, fourth, ... at a field's end or before a quote, and the last one closes.
    """
    quote = ord(patterns.quote)
    marks = np.flatnonzero(text == quote)
    first = np.searchsorted(marks, np.concatenate([[0], ends]))
    counts = np.diff(first)
    line = np.repeat(np.arange(len(ends)), counts)
    closing = ((np.arange(len(marks)) - first[line]) & 1).astype(bool)
    edge, blank = np.zeros(256, bool), np.zeros(256, bool)
    edge[[patterns.delimiter[0], 10, 13]] = True
    blank[list(patterns.blanks)] = True
    padded = np.concatenate([[10, 10], text, [10, 10]]).astype(np.uint8)
    near = np.where(closing, padded[marks + 3], padded[marks + 1])
    beyond = np.where(closing, padded[marks + 4], padded[marks])
    fine = edge[near] | (near == quote) | (blank[near] & edge[beyond])
    unusual = (counts & 1).astype(bool)
    unusual[line[~fine]] = True
    return np.flatnonzero(unusual)


def _stray_bytes(
    data: bytes, starts: npt.NDArray[np.intp], ends: npt.NDArray[np.intp],
    patterns: RecordPatterns, starting: npt.NDArray[np.bool_], bad: dict[int, str],
) -> None:
    """Mark records that hold a NUL byte or a bare carriage return outside quotes."""
    spots = [(m.start(), "a NUL byte") for m in re.finditer(b"\0", data)] if b"\0" in data else []
    if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
        spots += [(m.start(), "a carriage return in the middle of a line")
                  for m in re.finditer(b"\r(?!\n|\\Z)", data)]
    for spot, reason in spots:
        i = int(np.searchsorted(ends, spot, "right"))
        while i and not starting[i] and i not in bad:
            i -= 1  # the record's first line
        record = patterns.strict.match(data, int(starts[i]))
        whole = record.group() if record else data[starts[i]:ends[i]]
        if reason == "a NUL byte" or b"\r" in patterns.quoted.sub(b"", whole.rstrip(b"\r\n")):
            bad.setdefault(i, reason)


def parse_block(
    raw: RawBlock, names: list[str], wanted: list[str], repeated: frozenset[str],
    dialect: Dialect, file: str,
) -> TextBlock:
    """Let Arrow split a block into fields; rows of another length are set aside.

    Columns in ``repeated`` come dictionary-encoded, the others as plain strings.
    """
    wrong: list[tuple[int, int, str]] = []

    def keep(row: pa.csv.InvalidRow) -> str:
        wrong.append((row.number - 1, row.actual_columns, row.text))
        return "skip"

    encoded = pa.dictionary(pa.int32(), pa.string())
    table = pa.csv.read_csv(
        pa.BufferReader(raw.data or b"\n"),
        read_options=pa.csv.ReadOptions(
            column_names=names, use_threads=False, block_size=len(raw.data) + 64),
        parse_options=pa.csv.ParseOptions(
            delimiter=dialect.delimiter, quote_char=dialect.quote, double_quote=True,
            newlines_in_values=True, ignore_empty_lines=True, invalid_row_handler=keep),
        convert_options=pa.csv.ConvertOptions(
            check_utf8=False, strings_can_be_null=False, null_values=[],
            column_types={n: encoded if n in repeated else pa.string() for n in names},
            include_columns=wanted),
    ) if raw.data.strip(b"\r\n") else pa.table({n: pa.array([], pa.string()) for n in wanted})
    lines, bad = raw.lines, raw.bad
    if wrong:
        bad += tuple(
            BadRow(file, int(lines[i]),
                   f"{found} field{'s' * (found != 1)} where {len(names)} are expected", text)
            for i, found, text in wrong
        )
        lines = np.delete(lines, [i for i, _, _ in wrong])
    if len(lines) != table.num_rows:
        raise AssertionError(
            f"{file}: {table.num_rows} rows were parsed where {len(lines)} records were found")
    return TextBlock(table, lines, bad)
