"""Blocks of delimited text: where they are cut never changes what is read."""

from __future__ import annotations

import csv
import io
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.data.delimited import RecordPatterns, parse_block, raw_blocks
from gpupipe.data.dialect import Dialect, column_names

COMMA = Dialect(",", '"', header=False)
PATTERNS = RecordPatterns(COMMA)


def read(chunks: list[bytes], width: int) -> tuple[list[tuple[str, ...]], list[int], set]:
    """Rows, their lines, and the bad rows of text handed over in these chunks."""
    names = [f"c{i}" for i in range(width)]
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    bad = set()
    for raw in raw_blocks(iter(chunks), PATTERNS, "t.csv", 1):
        block = parse_block(raw, names, names, frozenset(), COMMA, "t.csv")
        rows += [tuple(r.values()) for r in block.table.to_pylist()]
        lines += block.lines.tolist()
        bad |= {(b.line, b.reason, b.text) for b in block.bad}
    return rows, lines, bad


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from('ab,,"\n\n\r '), max_size=80),
       cuts=st.lists(st.integers(0, 80), max_size=6), width=st.integers(1, 3))
def test_any_chunks_give_the_same_rows_lines_and_bad_rows(
    text: str, cuts: list[int], width: int
) -> None:
    data = text.encode()
    edges = [0, *sorted(c for c in cuts if c < len(data)), len(data)]
    chunks = [data[a:b] for a, b in pairwise(edges) if b > a]
    assert read(chunks, width) == read([data] if data else [], width)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.lists(st.text(st.sampled_from('ab,"\n '), max_size=6), min_size=2,
                              max_size=2), min_size=1, max_size=8),
       cuts=st.lists(st.integers(0, 80), max_size=4))
def test_whatever_csv_writes_is_read_back_with_its_lines(
    rows: list[list[str]], cuts: list[int]
) -> None:
    out, lines = io.StringIO(newline=""), []
    for row in rows:
        lines.append(out.getvalue().count("\n") + 1)
        csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(row)
    data = out.getvalue().encode()
    edges = [0, *sorted(c for c in cuts if c < len(data)), len(data)]
    chunks = [data[a:b] for a, b in pairwise(edges) if b > a]
    assert read(chunks, 2) == ([tuple(row) for row in rows], lines, set())


def test_after_an_unclosed_quote_reading_goes_on_at_the_next_line() -> None:
    rows, lines, bad = read([b'1,"x\n2,y\n3,"z"\n4,w\n'], 2)
    assert rows == [("2", "y"), ("3", "z"), ("4", "w")] and lines == [2, 3, 4]
    assert bad == {(1, "a quoted field is not closed", '1,"x')}


@pytest.mark.parametrize(("cells", "names"), [
    (["a", "a", "a.1"], ["a", "a.2", "a.1"]),
    (["", "", "a"], ["Unnamed: 0", "Unnamed: 1", "a"]),
    ([" a", "a "], ["a", "a.1"]),
])
def test_names_are_made_unique_as_pandas_does(cells: list[str], names: list[str]) -> None:
    assert column_names(cells)[0] == names
