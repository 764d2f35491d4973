"""What the steps that retype or take apart columns do: copy, cast and datetime."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.data.schema import ARROW_TYPES
from gpupipe.engine.frames import CALENDAR_PARTS, Column, Frames
from gpupipe.errors import DataError
from gpupipe.stats.state import Rows
from gpupipe.transforms.base import FLAG, Check, Output, Params, Settings, one_of, transform

PERIODS = {
    "quarter": 4, "month": 12, "day": 31, "day_of_week": 7, "day_of_year": 366, "hour": 24,
    "minute": 60, "second": 60,
}
"""The period of each part that comes round again; months and the like start at 1."""
PARTS = ("year", "month", "day", "day_of_week", "hour")
"""The parts that a datetime step makes, unless it is told others."""


@transform("copy", suffix=Check("a text", lambda value: isinstance(value, str) and value != ""))
def copy(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """The column, twice."""
    return (column, column)


@transform("cast", to=one_of("float64", "string", "int64", "bool"))
def cast(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """The column in the type ``to``. DataError for a value that does not fit."""
    to = settings["to"]
    codes, levels = fx.factorize(column)
    # A dictionary may name values that no row has, and that need not parse.
    used = fx.to_host(fx.xp.unique(codes)).astype(np.int64)
    used = used[used >= 0]
    levels = _cast(levels.take(pa.array(used)), to)
    place = np.full(int(used.max()) + 2 if len(used) else 1, -1)
    place[used] = np.arange(len(used))
    codes = fx.to_device(place)[codes]
    if to == "string":
        return (Column("string", codes.astype("int32"), None, levels),)
    # A missing code is -1, and so takes the entry that is added at the end.
    blank = np.nan if to == "float64" else 0
    table = np.append(levels.to_numpy(zero_copy_only=False), blank).astype(to)
    values = fx.to_device(table)[codes]
    missing = codes < 0
    mask = missing if to != "float64" and bool(missing.any()) else None
    return (Column(to, values, mask),)


def _cast(levels: pa.Array, to: str) -> pa.Array:
    try:
        # Integers past 2^53 round to the nearest float, as NumPy does.
        return levels.cast(ARROW_TYPES[to], safe=to != "float64")
    except pa.ArrowInvalid as error:
        raise DataError(
            f"step 'cast': {error}", hint="list such values under data.missing, or keep the text",
        ) from None


def _are_parts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(v, str) and v in (*CALENDAR_PARTS, "timestamp") for v in value)


@transform("datetime", parts=Check("a list of parts of a date", _are_parts), cyclic=FLAG)
def datetime(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """A column for each of ``parts``, or two (sine and cosine) with ``cyclic``."""
    out = []
    for part in settings.get("parts", PARTS):
        if part == "timestamp":
            values = fx.numbers(column) / 1e6
        else:
            values = fx.numbers(fx.calendar(column, part))
        if settings.get("cyclic") and part in PERIODS:
            angle = values * (2 * math.pi / PERIODS[part])
            out += [Column("float64", fx.on_host(turn, angle)) for turn in (np.sin, np.cos)]
        else:
            out.append(Column("float64", values))
    return tuple(out)
