"""One rule a source type: how Arrow's many types become the six of `schema.DType`."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.data.schema import ARROW_TYPES, DType, Schema
from gpupipe.errors import DataError

ENCODED_TEXT = pa.dictionary(pa.int32(), pa.string())


def logical_type(arrow: pa.DataType) -> DType | None:
    """The logical type of an Arrow type, or None where there is none (nested, binary)."""
    t = pa.types
    if t.is_dictionary(arrow):
        return logical_type(arrow.value_type)
    if t.is_float32(arrow) or t.is_float16(arrow):
        return "float32"
    if t.is_float64(arrow) or t.is_decimal(arrow) or t.is_duration(arrow) or t.is_time(arrow):
        return "float64"
    if t.is_integer(arrow):
        return "int64"
    if t.is_boolean(arrow):
        return "bool"
    if t.is_string(arrow) or t.is_large_string(arrow) or t.is_string_view(arrow):
        return "string"
    if t.is_timestamp(arrow) or t.is_date(arrow):
        return "timestamp"
    if t.is_null(arrow):
        return "float64"
    return None


def normalise(
    table: pa.Table, schema: Schema, constants: Mapping[str, object], where: str
) -> pa.Table:
    """The columns of ``schema`` in its order and types; strings are dictionary-encoded.

    Raises DataError where a value does not fit (an unsigned integer past 2^63 - 1, say).
    """
    columns = []
    for field in schema:
        if field.name in constants:
            value = pa.scalar(constants[field.name], ARROW_TYPES[field.dtype])
            columns.append(_encode(pa.chunked_array([pa.repeat(value, table.num_rows)])))
            continue
        columns.append(_column(table.column(field.name), field.name, field.dtype, where))
    return pa.Table.from_arrays(columns, names=schema.names)


def with_sound_dictionaries(table: pa.Table) -> pa.Table:
    """The table without dictionaries that hold a null, or a value twice: Arrow allows both."""
    for i, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type) and not all(
            chunk.dictionary.null_count == 0
            and len(chunk.dictionary.unique()) == len(chunk.dictionary) for chunk in column.chunks
        ):
            table = table.set_column(i, table.field(i).name, _decode(column))
    return table


def _column(column: pa.ChunkedArray, name: str, dtype: DType, where: str) -> pa.ChunkedArray:
    source, target = column.type, ARROW_TYPES[dtype]
    if dtype == "string":
        if source != ENCODED_TEXT:
            column = _decode(column).cast(target)
        return _encode(column)
    if source == target:
        return column
    column = _decode(column)
    source = column.type
    try:
        if pa.types.is_duration(source):
            ticks = column.cast(pa.int64()).cast(pa.float64())
            return pc.divide(ticks, {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[source.unit])
        if pa.types.is_time(source):
            ticks = column.cast(pa.int32() if source.bit_width == 32 else pa.int64())
            per_second = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[source.unit]
            return pc.divide(ticks.cast(pa.float64()), per_second)
        if pa.types.is_timestamp(source) and dtype == "timestamp":
            # An aware timestamp is stored as UTC ticks; dropping the zone keeps the instant.
            utc = column.cast(pa.timestamp("us", source.tz), safe=False)
            return utc.cast(target, safe=False)
        # Integers past 2^53 round to the nearest float, as NumPy does, and so do floats that get
        # narrower; whatever else would lose something is an error.
        numbers = pa.types.is_integer(source) or pa.types.is_floating(source)
        return column.cast(target, safe=not (numbers and pa.types.is_floating(target)))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"column {name!r}: a value of type {source} does not fit {dtype}: {error}",
            where=where,
            hint=f"set data.types: {{{name}: string}} to keep it as text, or drop the column",
        ) from None


def _decode(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def _encode(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(column.type):
        return column.dictionary_encode()
    return column
