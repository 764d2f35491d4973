"""The messages of an Arrow IPC stream, looked at before anything is unpacked.

Arrow may compress the buffers of a batch, so that a few bytes become gigabytes, and a batch of
nulls has a length and no bytes at all. So the metadata is read first, as the format lays it out
(Arrow columnar format, "Encapsulated message format"; the tables of Message.fbs).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from gpupipe.serve.faults import misfit, too_many_rows

DICTIONARY_BATCH, RECORD_BATCH = 2, 3
"""Values of ``MessageHeader``."""


class _Batch(NamedTuple):
    rows: int
    compressed: bool


def check_stream(body: bytes, max_rows: int) -> None:
    """Refused (422) where the messages are malformed or compressed, or where they have more
    than ``max_rows`` rows."""
    try:
        rows, at = 0, 0
        while at < len(body):
            marker, size = struct.unpack_from("<Ii", body, at)
            if marker != 0xFFFFFFFF or size < 0:
                raise ValueError("a message does not begin with a marker and its length")
            if size == 0:
                return
            kind, batch, length = _message(body[at + 8 : at + 8 + size])
            if batch is not None:
                if batch.compressed:
                    raise misfit("invalid_arrow", "compressed buffers are not taken",
                                 hint="write the stream without compression")
                if batch.rows < 0 or (kind == DICTIONARY_BATCH and batch.rows > 8 * len(body)):
                    raise ValueError("a batch has an impossible length")
                rows += batch.rows if kind == RECORD_BATCH else 0
                if rows > max_rows:
                    raise too_many_rows(rows, max_rows)
            if length < 0:
                raise ValueError("a message has an impossible length")
            at += 8 + size + length
    except (struct.error, ValueError, IndexError) as error:
        raise misfit("invalid_arrow", f"this is no Arrow stream: {error}") from None


def _message(metadata: bytes) -> tuple[int, _Batch | None, int]:
    """A message's kind, its batch, and the bytes of its body."""
    root = struct.unpack_from("<I", metadata)[0]
    kind = _value(metadata, root, 1, "<B")
    length = _value(metadata, root, 3, "<q")
    header = _table(metadata, root, 2)
    if kind == DICTIONARY_BATCH and header is not None:
        header = _table(metadata, header, 1)
    if kind not in (DICTIONARY_BATCH, RECORD_BATCH) or header is None:
        return kind, None, length
    rows = _value(metadata, header, 0, "<q")
    return kind, _Batch(rows, _table(metadata, header, 3) is not None), length


def _field(data: bytes, table: int, number: int) -> int | None:
    """Where a field of a flatbuffer table lies; None where it is left out."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0:
        raise ValueError("the metadata is malformed")
    size = struct.unpack_from("<H", data, vtable)[0]
    place = 4 + 2 * number
    offset = struct.unpack_from("<H", data, vtable + place)[0] if place + 2 <= size else 0
    return table + offset if offset else None


def _value(data: bytes, table: int, number: int, form: str) -> int:
    at = _field(data, table, number)
    return 0 if at is None else int(struct.unpack_from(form, data, at)[0])


def _table(data: bytes, table: int, number: int) -> int | None:
    at = _field(data, table, number)
    return None if at is None else at + int(struct.unpack_from("<I", data, at)[0])
