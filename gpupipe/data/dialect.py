"""How a text table is written: its delimiter, its quotes, its header and its column names."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gpupipe.errors import ConfigError, DataError

DELIMITERS = (",", ";", "\t", "|", "^", "~", ":")
"""What ``delimiter: auto`` tries; the first wins a tie."""

HEAD = 256 << 10
"""Bytes at the start of a file from which its dialect is read."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?inf|nan", re.IGNORECASE)
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ].*)?")
_BOOL = frozenset(("true", "false"))


@dataclass(frozen=True)
class Dialect:
    """Delimiter and quote (one ASCII character each), and whether the first record is a header."""

    delimiter: str
    quote: str
    header: bool


def sniff(head: str, *, delimiter: str, header: str | bool, missing: frozenset[str],
          where: str) -> tuple[Dialect, list[list[str]]]:
    """The dialect of the text that starts with ``head`` (whole lines), and its first records.

    Raises DataError where there is no record at all, ConfigError for an impossible option.
    """
    if delimiter != "auto" and (len(delimiter) != 1 or not delimiter.isascii()
                                or delimiter in "\r\n\"'"):
        raise ConfigError(f"data.delimiter must be one ASCII character, not {delimiter!r}",
                          hint="use one of , ; | or \\t, or leave it at auto")
    if header not in ("auto", True, False, "true", "false"):
        raise ConfigError(f"data.header must be auto, true or false, not {header!r}")
    if not head.strip():
        raise DataError("the file is empty", where=where)
    quote = _quote(head)
    tried = [delimiter] if delimiter != "auto" else list(DELIMITERS)
    parsed = {d: records(head, d, quote, limit=1000) for d in tried}
    best = max(tried, key=lambda d: _evenness(parsed[d])) if len(tried) > 1 else tried[0]
    rows = parsed[best]
    if not rows:
        raise DataError("the file holds nothing but blanks", where=where)
    named = header in (True, "true") or (header == "auto" and looks_like_header(rows, missing))
    return Dialect(best, quote, named), rows


def _quote(head: str) -> str:
    """``'`` where fields are quoted with it throughout and ``"`` quotes none; else ``"``."""
    if re.search(r'(?:^|[,;\t|])[ ]*"', head, re.MULTILINE):
        return '"'
    single = re.findall(r"(?:^|[,;\t|])[ ]*'[^'\n]*'[ ]*(?=[,;\t|\r\n]|$)", head, re.MULTILINE)
    return "'" if single and 2 * len(single) == head.count("'") else '"'


def records(text: str, delimiter: str, quote: str, limit: int) -> list[list[str]]:
    """The first records of a text, blank ones left out, cells stripped."""
    reader = csv.reader(io.StringIO(text.replace("\0", ""), newline=None), delimiter=delimiter,
                        quotechar=quote, skipinitialspace=True)
    found: list[list[str]] = []
    csv.field_size_limit(1 << 30)
    for row in reader:
        if row and not (len(row) == 1 and not row[0].strip()):
            found.append([cell.strip() for cell in row])
        if len(found) >= limit:
            break
    return found


def _evenness(rows: list[list[str]]) -> tuple[bool, float, float]:
    """Whether the first record splits, and the share of records that have its length."""
    if not rows:
        return (False, 0.0, 0.0)
    width = len(rows[0])
    same = sum(len(row) == width for row in rows) / len(rows)
    widths = [len(row) for row in rows]
    most = max(set(widths), key=widths.count)
    # Where the first record does not split (a title, a comment), the rows beneath decide.
    return (width > 1, round(same, 2) if width > 1 else 0.0,
            round(widths.count(most) / len(rows), 2) if most > 1 else 0.0)


def _kind(cell: str) -> str:
    if _NUMBER.fullmatch(cell):
        return "number"
    if cell.lower() in _BOOL:
        return "bool"
    return "date" if _DATE.fullmatch(cell) else "text"


def looks_like_header(rows: list[list[str]], missing: frozenset[str]) -> bool:
    """Whether the first record names the columns.

    Each column votes: for, where the cells beneath are (nine in ten) numbers, dates or truth
    values and the first is not of their kind; against, where the first is of their kind too,
    or comes again beneath. Most votes win; without a majority, a first record whose cells are
    all words is a header.
    """
    first, beneath = rows[0], rows[1:]
    votes = 0
    for i, name in enumerate(first):
        cells = [r[i] for r in beneath if len(r) == len(first) and r[i] not in missing]
        if not cells:
            continue
        kinds = [_kind(c) for c in cells]
        common = max(sorted(set(kinds)), key=kinds.count)
        if common != "text" and kinds.count(common) >= 0.9 * len(kinds):
            votes += 1 if _kind(name) != common and name not in missing - {""} else -1
        elif name and name in cells:
            votes -= 1
    if votes:
        return votes > 0
    return all(_kind(c) == "text" for c in first) and any(first)


def column_names(cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """Unique names, by pandas' rules, from a header's cells; and notes on what was renamed.

    >>> column_names(["a", "", "a", "a.1"])[0]
    ['a', 'Unnamed: 1', 'a.2', 'a.1']
    """
    stripped = [cell.strip() or f"Unnamed: {i}" for i, cell in enumerate(cells)]
    taken, names, notes = set(stripped), [], []
    seen: set[str] = set()
    for i, name in enumerate(stripped):
        new, count = name, 0
        while new in seen or (new != name and new in taken):
            count += 1
            new = f"{name}.{count}"
        if new != name:
            notes.append(f"column {i + 1} has the name {name!r} again: it is called {new!r}")
        seen.add(new)
        names.append(new)
    return names, notes
