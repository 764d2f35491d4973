"""Whose request it is: the id that stays with one model, in a header or a column."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from gpupipe.serve.faults import misfit
from gpupipe.serve.settings import HEADER, ServeConfig

LONGEST = 256
"""Characters of an id that count."""


def unit_header(settings: ServeConfig) -> bytes | None:
    """The header that has the unit's id, in small letters; None where it is no header."""
    unit = settings.unit
    if unit is None or not unit.startswith(HEADER):
        return None
    return unit.removeprefix(HEADER).strip().lower().encode("latin-1", "replace")


def units_of(settings: ServeConfig, rows: Any) -> list[str | None] | str | None:
    """The units of rows by the column that has them: one for one row, a list for more, None
    where there is no such column. Refused (422) where a value is neither text nor whole."""
    column = settings.unit
    if column is None or column.startswith(HEADER):
        return None
    if isinstance(rows, pa.Table):
        values = rows.column(column).to_pylist() if column in rows.column_names \
            else [None] * rows.num_rows
    else:
        values = [r.get(column) if type(r) is dict else None for r in rows]
    units = [_unit(v, row, column) for row, v in enumerate(values)]
    return units[0] if len(units) == 1 else units


def _unit(value: Any, row: int, column: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) or type(value) is int:
        return str(value)[:LONGEST]
    raise misfit("unit", f"row {row}, column {column!r}: a unit's id is text or a whole number",
                 row, column)
