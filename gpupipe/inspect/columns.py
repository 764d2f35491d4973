"""One scan over a table: what each column holds, and a sample of rows to relate columns by.

Memory is bounded: distinct values are counted up to `CAP`, the sample holds at most
`SAMPLE_ROWS` rows and `SAMPLE_CELLS` cells, taken at even steps through the whole table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.console import Progress, quiet
from gpupipe.data.dataset import Dataset
from gpupipe.data.schema import DType, Field

CAP = 200_000
SAMPLE_ROWS, SAMPLE_CELLS = 100_000, 5_000_000

Role = Literal["numeric", "categorical", "datetime", "boolean", "text", "id", "constant"]

ID_WORD = re.compile(
    r"(^|[_\-. ])((user|customer|client|account|session|order|item)?ids?|"
    r"uuid|guid|key|index|idx|pk|rowid|rownames|number|no|nr)$", re.IGNORECASE
)
ID_CAMEL = re.compile(r"[a-z](ID|Id|UUID)$")
BOOLEAN_PAIRS = (
    {"0", "1"}, {"yes", "no"}, {"y", "n"}, {"true", "false"}, {"t", "f"}, {"on", "off"},
)


@dataclass(frozen=True)
class Column:
    """What a scan saw of one column. ``distinct`` is None where there are more than `CAP`."""

    name: str
    dtype: DType
    role: Role
    rows: int
    nulls: int
    distinct: int | None
    unique: bool
    ordered: bool
    examples: tuple[str, ...]
    why: str = ""

    @property
    def null_share(self) -> float:
        return self.nulls / self.rows if self.rows else 0.0

    @property
    def distinct_text(self) -> str:
        return f"over {CAP:,}" if self.distinct is None else f"{self.distinct:,}"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "dtype": self.dtype, "role": self.role, "nulls": self.nulls,
            "distinct": self.distinct, "examples": list(self.examples),
        }


def scan(
    dataset: Dataset, progress: Progress | None = None
) -> tuple[tuple[Column, ...], pa.Table]:
    """Every column as a `Column`, and the sample (strings plain, not dictionary-encoded)."""
    fields = list(dataset.schema)
    size = min(SAMPLE_ROWS, max(2_000, SAMPLE_CELLS // max(1, len(fields))))
    step = max(1, -(-dataset.rows // size))
    tallies, seen = [_Tally(f) for f in fields], 0
    sampled: list[pa.Table] = []
    with quiet(progress).stage("look", total=dataset.rows, unit="rows") as stage:
        for table in dataset.stream():
            for tally, column in zip(tallies, table.columns, strict=True):
                tally.add(column)
            rows = np.arange(-seen % step, table.num_rows, step)
            sampled.append(plain_table(table.take(pa.array(rows))))
            seen += table.num_rows
            stage.advance(table.num_rows)
    empty = dataset.schema.to_arrow().empty_table()
    sample = pa.concat_tables(sampled).combine_chunks() if sampled else empty
    return tuple(tally.column(seen) for tally in tallies), sample


def value_counts(dataset: Dataset, name: str) -> list[tuple[Any, int]]:
    """Value and count, most frequent first; for a column of few values. Nulls are left out."""
    counts: dict[Any, int] = {}
    for table in dataset.stream([name]):
        for entry in _plain(table.column(name)).drop_null().value_counts():
            value = entry["values"].as_py()
            counts[value] = counts.get(value, 0) + entry["counts"].as_py()
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))


def looks_like_id(name: str) -> bool:
    """Whether a name says that its column names things: ``customer_id``, ``userId``, ``key``."""
    return bool(ID_WORD.search(name) or ID_CAMEL.search(name))


class _Tally:
    """What one column adds up to, batch by batch."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.nulls = 0
        self.values: pa.Array | None = pa.array([], _value_type(field))
        self.unique = self.ordered = True
        self.low: Any = None
        self.high: Any = None
        self.last: Any = None
        self.first: pa.Array = pa.array([], _value_type(field))

    def add(self, column: pa.ChunkedArray) -> None:
        self.nulls += column.null_count
        values = _plain(column).drop_null().combine_chunks()
        if isinstance(values, pa.ChunkedArray):
            values = pa.concat_arrays(values.chunks) if values.num_chunks else values.chunk(0)
        if not len(values):
            return
        if len(self.first) < 3:
            self.first = pc.unique(pa.concat_arrays([self.first, values[:200]]))
        if self.values is None and not self.unique and not self.ordered:
            return
        distinct = pc.unique(values)
        self.unique = self.unique and len(distinct) == len(values)
        if self.values is not None:
            merged = pc.unique(pa.concat_arrays([self.values, distinct]))
            self.unique = self.unique and len(merged) == len(self.values) + len(distinct)
            self.values = merged if len(merged) <= CAP else None
        self._order(values)

    def _order(self, values: pa.Array) -> None:
        if self.field.dtype == "string" or self.field.dtype == "bool":
            self.ordered = False
            return
        extent = pc.min_max(values)
        low, high = extent["min"].as_py(), extent["max"].as_py()
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        if self.ordered:
            rising = len(values) < 2 or pc.all(pc.greater_equal(values[1:], values[:-1])).as_py()
            self.ordered = rising and (self.last is None or values[0].as_py() >= self.last)
            self.last = values[-1].as_py()

    def column(self, rows: int) -> Column:
        distinct = None if self.values is None else len(self.values)
        filled = rows - self.nulls
        role, why = self._role(rows, filled, distinct)
        examples = tuple(str(v)[:24] for v in self.first[:3].to_pylist())
        return Column(
            self.field.name, self.field.dtype, role, rows, self.nulls, distinct,
            self.unique and filled > 1, self.ordered and filled > 1 and distinct != 1,
            examples, why,
        )

    def _role(self, rows: int, filled: int, distinct: int | None) -> tuple[Role, str]:
        name, dtype = self.field.name, self.field.dtype
        if filled == 0:
            return "constant", "always missing"
        if distinct == 1 and not self.nulls:
            return "constant", f"always {self.first[0].as_py()!r}"
        if dtype == "timestamp":
            return "datetime", ""
        if dtype == "bool":
            return "boolean", ""
        if rows >= 20 and dtype in ("int64", "string"):
            why = self._id(filled, distinct)
            if why:
                return "id", why
        if distinct == 2 and self.values is not None:
            pair = {str(v).strip().lower() for v in self.values.to_pylist()}
            if pair in BOOLEAN_PAIRS:
                return "boolean", ""
        if dtype != "string":
            return "numeric", ""
        share = 1.0 if distinct is None else distinct / filled
        if rows >= 20 and (share > 0.5 or self._words() >= 4) and not looks_like_id(name):
            return "text", "nearly every row has a value of its own" if share > 0.9 else ""
        return "categorical", ""

    def _id(self, filled: int, distinct: int | None) -> str:
        """Why the column names rows; empty where it does not."""
        named = looks_like_id(self.field.name)
        if self.unique and not self.nulls:
            if self.field.dtype == "int64":
                span = self.high - self.low + 1
                if self.ordered and span <= 2 * filled:
                    return "a different number in every row, counting up"
                return "a different number in every row" if named or span <= 2 * filled else ""
            return "a different text in every row" if named or self._words() < 2 else ""
        nearly = distinct is not None and distinct >= 0.9 * filled
        return "nearly every row has a value of its own" if named and nearly else ""

    def _words(self) -> float:
        """The mean number of words in a (distinct) text."""
        texts = self.first if self.values is None else self.values
        return float(pc.mean(pc.add(pc.count_substring(texts, " "), 1)).as_py() or 0)


def _value_type(field: Field) -> pa.DataType:
    from gpupipe.data.schema import ARROW_TYPES

    return ARROW_TYPES[field.dtype]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def plain_table(table: pa.Table) -> pa.Table:
    """The table with text as text, not dictionary-encoded."""
    columns: Sequence[pa.ChunkedArray] = [_plain(c) for c in table.columns]
    return pa.Table.from_arrays(columns, names=table.column_names)
