"""What a bundle is given, as an Arrow table: tables of any library, and lists of records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from gpupipe.data.schema import ARROW_TYPES, Schema
from gpupipe.errors import DataError


def as_table(data: Any) -> pa.Table:
    """Anything that speaks Arrow (pandas, Polars, DuckDB, PyArrow) as an Arrow table."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if hasattr(data, "__arrow_c_stream__"):
        try:
            return pa.table(data)
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError) as error:
            raise DataError(f"this {type(data).__name__} is no table that Arrow takes: {error}",
                            hint="pass a pandas, Polars or Arrow table; a row is table[:1], "
                            "or a mapping for predict_one") from None
    raise DataError(f"expected a table, found a {type(data).__name__}",
                    hint="pass a pandas, Polars or Arrow table")


def records_table(records: Sequence[Mapping[str, Any]], schema: Schema) -> pa.Table:
    """Records as a typed table. DataError naming record and column where a value misfits."""
    columns = []
    for field in schema:
        values = []
        for i, record in enumerate(records):
            if field.name not in record:
                raise DataError(f"record {i} lacks column {field.name!r}")
            value = record[field.name]
            if field.dtype == "int64" and isinstance(value, float) and not value.is_integer():
                # Arrow would cut the fraction off without a word.
                raise DataError(f"record {i}: column {field.name!r} takes int64, found {value}")
            values.append(value)
        try:
            columns.append(pa.array(values, ARROW_TYPES[field.dtype]))
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            raise DataError(f"column {field.name!r} takes {field.dtype}: {error}") from None
    return pa.Table.from_arrays(columns, names=schema.names)
