"""Bodies of requests as rows: JSON records or columns, tensors of the Open Inference Protocol,
Arrow streams."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pyarrow as pa

from gpupipe.serve.arrow_messages import check_stream
from gpupipe.serve.faults import Refused, misfit, too_many_rows
from gpupipe.serve.rows import Record, told

ARROW = "application/vnd.apache.arrow.stream"
DATATYPES = {
    "BOOL": bool, "BYTES": str, "FP64": float, "FP32": float, "FP16": float,
    **{f"{sign}INT{bits}": int for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
"""The tensor types that are taken, and the kind of their elements."""
LOOKED_THROUGH = 1 << 20
"""Bodies up to so many bytes are read again to say where a NaN is."""


def loads(body: bytes) -> Any:
    """JSON by RFC 8259. Raises Refused (422); NaN and infinity, which are no JSON, are told
    from other faults, with row and column where they can be found."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_finite(body) or misfit("invalid_json", f"this is no JSON: {error}") from None


def records_of(body: bytes, max_rows: int) -> list[Record]:
    """The rows of ``{"records": [...]}`` or ``{"columns": {...}}``, values as they were sent."""
    data = loads(body)
    if type(data) is dict and len(data) == 1:
        if "records" in data:
            records = data["records"]
            if type(records) is not list:
                raise misfit("invalid_request", f"records: expected a list, found {told(records)}")
            _check_count(len(records), max_rows)
            return records
        if "columns" in data:
            return _from_columns(data["columns"], max_rows)
    found = told(data) if type(data) is not dict else \
        "the keys " + ", ".join(repr(k[:40]) for k in list(data)[:5]) if data else "an empty one"
    raise misfit("invalid_request", 'expected an object with either "records" or "columns", found '
                 + found, hint='{"records": [{"COLUMN": VALUE, ...}]}')


def _check_count(rows: int, most: int) -> None:
    if rows == 0:
        raise misfit("invalid_request", "there is no row to score")
    if rows > most:
        raise too_many_rows(rows, most)


def _from_columns(columns: Any, max_rows: int) -> list[Record]:
    if type(columns) is not dict or not columns:
        raise misfit("invalid_request", "columns: expected an object of column names and lists, "
                     f"found {told(columns) if columns != {} else 'an empty one'}")
    rows: int | None = None
    for name, values in columns.items():
        if type(values) is not list:
            raise misfit("wrong_type", f"column {name[:80]!r}: expected a list, "
                         f"found {told(values)}", column=name[:80])
        rows = len(values) if rows is None else rows
        if len(values) != rows:
            raise misfit("invalid_request", f"column {name[:80]!r} has {len(values):,} values, "
                         f"and others {rows:,}", column=name[:80])
    assert rows is not None
    _check_count(rows, max_rows)
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def tensors_of(body: bytes, max_rows: int) -> tuple[list[Record], dict[str, Any]]:
    """The rows of an inference request of the Open Inference Protocol, and what else it asks:
    ``{"id", "outputs"}``.

    Every column is an input of shape ``[n]`` or ``[n, 1]``; null is a missing value.
    """
    data = loads(body)
    if type(data) is not dict or type(data.get("inputs")) is not list:
        raise misfit("invalid_request", 'expected an object with a list of "inputs"')
    asked = data.get("id")
    if asked is not None and (type(asked) is not str or len(asked) > 128):
        raise misfit("invalid_request", "id: expected text of at most 128 characters")
    outputs = data.get("outputs")
    if outputs is not None:
        if type(outputs) is not list or not all(
                type(o) is dict and type(o.get("name")) is str for o in outputs):
            raise misfit("invalid_request", "outputs: expected a list of objects with a name")
        outputs = [o["name"] for o in outputs]
    for key in ("parameters",):
        if type(data.get(key, {})) is not dict:
            raise misfit("invalid_request", f"{key}: expected an object")
    columns: dict[str, list[Any]] = {}
    for place, tensor in enumerate(data["inputs"]):
        name, values = _tensor(tensor, place)
        if name in columns:
            raise misfit("invalid_request", f"the input {name[:80]!r} is there twice",
                         column=name[:80])
        columns[name] = values
    return _from_columns(columns, max_rows), {"id": asked, "outputs": outputs}


def _tensor(tensor: Any, place: int) -> tuple[str, list[Any]]:
    if type(tensor) is not dict or type(tensor.get("name")) is not str:
        raise misfit("invalid_request", f"input {place}: expected an object with a name")
    name = tensor["name"]
    short = name[:80]
    datatype, shape, values = (tensor.get(k) for k in ("datatype", "shape", "data"))
    kind = DATATYPES.get(datatype) if type(datatype) is str else None
    if kind is None:
        raise misfit("wrong_type", f"input {short!r}: expected a datatype of "
                     f"{', '.join(DATATYPES)}, found {told(datatype)}", column=short)
    if type(shape) is not list or len(shape) not in (1, 2) or not all(
            type(s) is int and s >= 0 for s in shape) or shape[1:] not in ([], [1]):
        raise misfit("invalid_request", f"input {short!r}: expected the shape [n] or [n, 1], "
                     f"found {json.dumps(shape)[:80]}", column=short)
    if type(values) is not list or len(values) != shape[0]:
        found = f"{len(values):,} of them" if type(values) is list else told(values)
        raise misfit("invalid_request", f"input {short!r}: expected data of {shape[0]:,} values, "
                     f"found {found}", column=short)
    if len(shape) == 2 and values and all(type(v) is list and len(v) == 1 for v in values):
        values = [v[0] for v in values]
    for row, value in enumerate(values):
        whole = kind is int and type(value) is float and value.is_integer()
        if value is not None and type(value) is not kind and not whole and not (
                kind is float and type(value) is int):
            raise misfit("wrong_type", f"row {row}, column {short!r}: expected {datatype}, "
                         f"found {told(value)}", row, short)
    return name, values


def table_of(body: bytes, max_rows: int) -> pa.Table:
    """The rows of an Arrow IPC stream. Its buffers are those of the body: nothing is unpacked.

    Raises Refused (422) where it is malformed or compressed, or has too many rows.
    """
    check_stream(body, max_rows)
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            batches = list(_within(reader, max_rows))
            schema = reader.schema
        if len(set(schema.names)) != len(schema.names):
            raise misfit("invalid_arrow", "two columns have the same name")
        table = pa.Table.from_batches(batches, schema)
        # What a client says of offsets and indices is true only after this.
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, UnicodeError, OverflowError) as error:
        told_of = str(error).partition("\n")[0][:200]
        raise misfit("invalid_arrow", f"this is no Arrow stream: {told_of}") from None
    _check_count(table.num_rows, max_rows)
    return table


def _within(reader: Any, max_rows: int) -> Iterator[pa.RecordBatch]:
    rows = 0
    for batch in reader:
        rows += batch.num_rows
        _check_count(rows or 1, max_rows)
        yield batch


class _Odd(float):
    """NaN or an infinity, as a body spelled it."""


def _not_finite(body: bytes) -> Refused | None:
    """The refusal of NaN or infinity in a body, which is no JSON for them alone."""
    if len(body) > LOOKED_THROUGH or not (b"NaN" in body or b"Infinity" in body):
        return None
    try:
        data = json.loads(body, parse_constant=_Odd)
    except (ValueError, RecursionError):
        return None
    found = _find_odd(data)
    if found is None:
        return None
    row, column = found
    where = "" if row is None else f"row {row}, "
    where += "" if column is None else f"column {column!r}: "
    return misfit("not_finite", f"{where}NaN and Infinity are no JSON", row, column,
                  "a missing value is null")


def _find_odd(data: Any) -> tuple[int | None, str | None] | None:
    if not isinstance(data, Mapping):
        return None
    cells: Iterator[tuple[int, Any, Any]] = iter(())
    records, columns, inputs = (data.get(k) for k in ("records", "columns", "inputs"))
    if isinstance(records, list):
        cells = ((i, k, v) for i, r in enumerate(records) if isinstance(r, dict)
                 for k, v in r.items())
    elif isinstance(columns, dict):
        cells = ((i, k, v) for k, c in columns.items() if isinstance(c, list)
                 for i, v in enumerate(c))
    elif isinstance(inputs, list):
        cells = ((i, t.get("name"), v) for t in inputs if isinstance(t, dict)
                 and isinstance(t.get("data"), list) for i, v in enumerate(t["data"]))
    for row, column, value in cells:
        if isinstance(value, _Odd):
            return row, str(column)[:80]
    return None
