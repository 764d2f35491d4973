"""The values of a request held to the bundle's types, and counted on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.data.schema import Schema
from gpupipe.errors import did_you_mean
from gpupipe.serve.faults import Refused, misfit

Record = dict[str, Any]

LEAST, MOST = -(2**63), 2**63 - 1
EXACT = 2**53
"""Floats hold every whole number up to it."""
FLOAT32 = 3.4028234663852886e38
"""The largest finite float32."""
EXPECTED = {
    "float32": "a number", "float64": "a number", "int64": "a whole number",
    "bool": "true or false", "string": "text",
    "timestamp": "text such as \"2026-01-31T12:00:00Z\"",
}


@dataclass
class Seen:
    """What was noticed in the rows of one request or batch: counts by column."""

    nulls: dict[str, int]
    unseen: dict[str, int]
    ignored: int = 0


@dataclass(frozen=True)
class Checks:
    """What every row of a model has to keep.

    Attributes
    ----------
    columns : for each column its name, its type and the values that training saw (text columns
        whose values the bundle has kept; else None).
    """

    columns: tuple[tuple[str, str, frozenset[str] | None], ...]

    @classmethod
    def of(cls, schema: Schema, levels: Mapping[str, frozenset[str]]) -> Checks:
        return cls(tuple((f.name, f.dtype, levels.get(f.name)) for f in schema))

    def records(self, records: Sequence[Any], seen: Seen) -> None:
        """Hold records to the types; numbers and times become what the scorer takes, in place.

        Raises Refused (422) for the first value that does not fit, with row and column.
        """
        columns, nulls, unseen = self.columns, seen.nulls, seen.unseen
        wide = len(columns)
        for row, record in enumerate(records):
            if type(record) is not dict:
                raise misfit("invalid_request", f"row {row}: expected an object of column names "
                             f"and values, found {told(record)}", row)
            if len(record) > wide:
                seen.ignored += len(record) - wide
            for name, dtype, levels in columns:
                try:
                    value = record[name]
                except KeyError:
                    raise _missing(row, name, record) from None
                if value is None:
                    nulls[name] = nulls.get(name, 0) + 1
                elif dtype == "string":
                    if type(value) is not str:
                        raise _wrong(row, name, dtype, value)
                    if levels is not None and value not in levels:
                        unseen[name] = unseen.get(name, 0) + 1
                elif dtype == "float64" or dtype == "float32":
                    if type(value) is int:
                        if not -EXACT <= value <= EXACT:  # rounded, as a table's integers are
                            record[name] = float(value)
                    elif type(value) is not float:
                        raise _wrong(row, name, dtype, value)
                    if dtype == "float32" and not -FLOAT32 <= value <= FLOAT32:
                        raise _wrong(row, name, dtype, value)
                else:
                    fitted = FITTED[dtype](value)
                    if fitted is None:
                        raise _wrong(row, name, dtype, value)
                    record[name] = fitted

    def table(self, table: pa.Table, seen: Seen) -> None:
        """Count nulls and unseen values of an Arrow table's columns (those that it has)."""
        for name, dtype, levels in self.columns:
            if name not in table.column_names:
                continue  # the bundle says so, with a name that is near
            column = table.column(name)
            if column.null_count:
                seen.nulls[name] = column.null_count
            if dtype == "string" and levels is not None:
                if pa.types.is_dictionary(column.type):
                    column = column.cast(column.type.value_type)
                counted = pc.value_counts(column).to_pylist()
                new = sum(c["counts"] for c in counted
                          if c["values"] is not None and c["values"] not in levels)
                if new:
                    seen.unseen[name] = new
        seen.ignored += max(0, table.num_columns - len(self.columns))


def _whole(value: Any) -> int | None:
    if type(value) is int:
        return value if LEAST <= value <= MOST else None
    if type(value) is float and value.is_integer() and -EXACT <= value <= EXACT:
        return int(value)
    return None


def _truth(value: Any) -> bool | None:
    return value if type(value) is bool else None


def timestamp(value: Any) -> datetime | None:
    """A moment in UTC, without a zone, of a text by ISO 8601; one without a zone is in UTC."""
    if type(value) is not str:
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except (ValueError, OverflowError):
        return None


FITTED: dict[str, Callable[[Any], Any]] = {
    "int64": _whole, "bool": _truth, "timestamp": timestamp,
}
"""The value that the scorer takes for one that was sent; None where it does not fit."""


def told(value: Any) -> str:
    """A value in an error: its kind, never at length."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {value!r:.40}"
    if isinstance(value, str):
        return f"the text {value if len(value) <= 40 else value[:37] + '...'!r}"
    return "a list" if isinstance(value, list) else "an object"


def _wrong(row: int, name: str, dtype: str, value: Any) -> Refused:
    code = "wrong_type"
    if dtype == "int64" and isinstance(value, (int, float)) and not isinstance(value, bool):
        code = "out_of_range" if abs(value) > EXACT else "wrong_type"
    elif dtype == "float32" and type(value) in (int, float):
        code = "out_of_range"
    hint = {"float32": "write numbers without quotes, up to 3.4e38",
            "float64": "write numbers without quotes",
            "int64": "whole numbers lie between -2^63 and 2^63 - 1",
            "timestamp": "write a time by ISO 8601"}.get(dtype)
    return misfit(code, f"row {row}, column {name!r}: expected {EXPECTED[dtype]}, "
                  f"found {told(value)}", row, name, hint)


def _missing(row: int, name: str, record: Mapping[str, Any]) -> Refused:
    near = did_you_mean(name, [k for k in list(record)[:1000] if len(k) < 200])
    return misfit("missing_column", f"row {row} lacks column {name!r}", row, name,
                  f"did you rename {near!r}?" if near else "a missing value is null")
