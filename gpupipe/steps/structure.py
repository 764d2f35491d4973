"""Steps that choose, retype or take apart columns: select, drop, drop_constant, cast, datetime."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pyarrow as pa

from gpupipe.data.schema import ARROW_TYPES
from gpupipe.engine.frames import CALENDAR_PARTS, Column, Frames
from gpupipe.errors import ConfigError, DataError
from gpupipe.stats.state import Rows
from gpupipe.steps.base import ROLES, Feature, Output, Params, Step, Target, register

ANY = (*ROLES["all"], "block")


@register("select")
class Select(Step):
    """Keep these columns and no others."""

    accepts = ANY

    def keeps(self, name: str, chosen: bool, constant: bool) -> bool:
        return chosen


@register("drop")
class Drop(Step):
    """Leave these columns out."""

    accepts = ANY
    columns: str | tuple[str, ...] = ()

    def keeps(self, name: str, chosen: bool, constant: bool) -> bool:
        return not chosen


@register("drop_constant")
class DropConstant(Step):
    """Leave out source columns that have one value, or none, in the whole table."""

    accepts = ANY

    def keeps(self, name: str, chosen: bool, constant: bool) -> bool:
        return not (chosen and constant)


@register("cast")
class Cast(Step):
    """Change the type: text to numbers, numbers to text, and so on.

    What does not parse, and what would lose its fraction as an ``int64``, is refused. Any
    number but 0 is true.
    """

    to: Literal["float64", "string", "int64", "bool"]

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        if feature.dtype == "timestamp" and self.to in ("string", "bool"):
            raise ConfigError(
                f"step 'cast' cannot turn timestamp {feature.name!r} into {self.to}",
                hint="the datetime step takes a timestamp apart",
            )
        return (Feature(feature.name, self.to),)

    def transform(
        self, column: Column, params: Params, rows: Rows | None, fx: Frames
    ) -> tuple[Output, ...]:
        codes, levels = fx.factorize(column)
        # A dictionary may name values that no row has, and that need not parse.
        used = fx.to_host(fx.xp.unique(codes)).astype(np.int64)
        used = used[used >= 0]
        levels = _cast(levels.take(pa.array(used)), self.to)
        place = np.full(int(used.max()) + 2 if len(used) else 1, -1)
        place[used] = np.arange(len(used))
        codes = fx.to_device(place)[codes]
        if self.to == "string":
            return (Column("string", codes.astype("int32"), None, levels),)
        # A missing code is -1, and so takes the entry that is added at the end.
        blank = np.nan if self.to == "float64" else 0
        table = np.append(levels.to_numpy(zero_copy_only=False), blank).astype(self.to)
        values = fx.to_device(table)[codes]
        missing = codes < 0
        mask = missing if self.to != "float64" and bool(missing.any()) else None
        return (Column(self.to, values, mask),)


def _cast(levels: pa.Array, to: str) -> pa.Array:
    try:
        # Integers past 2^53 round to the nearest float, as NumPy does.
        return levels.cast(ARROW_TYPES[to], safe=to != "float64")  # type: ignore[index]
    except pa.ArrowInvalid as error:
        raise DataError(
            f"step 'cast': {error}", hint="list such values under data.missing, or keep the text",
        ) from None


PERIODS = {
    "quarter": 4, "month": 12, "day": 31, "day_of_week": 7, "day_of_year": 366, "hour": 24,
    "minute": 60, "second": 60,
}
"""The period of each part that comes round again; months and the like start at 1."""
Part = Literal[
    "year", "quarter", "month", "day", "day_of_week", "day_of_year", "hour", "minute", "second",
    "timestamp",
]


@register("datetime")
class DateTime(Step):
    """Take timestamps apart (in UTC) into ``<name>_<part>`` columns.

    Parts are pandas' ``.dt`` names, and ``timestamp``: seconds since 1970. With ``cyclic``
    a part that comes round again becomes its sine and cosine, so that December and January
    are neighbours.
    """

    accepts = ("timestamp",)
    columns: str | tuple[str, ...] = "datetime"
    parts: tuple[Part, ...] = ("year", "month", "day", "day_of_week", "hour")
    cyclic: bool = False

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        names: list[str] = []
        for part in self.parts:
            turns = self.cyclic and part in PERIODS
            names += [f"{part}_sin", f"{part}_cos"] if turns else [part]
        return tuple(Feature(f"{feature.name}_{n}", "float64") for n in names)

    def transform(
        self, column: Column, params: Params, rows: Rows | None, fx: Frames
    ) -> tuple[Output, ...]:
        out = []
        for part in self.parts:
            if part == "timestamp":
                values = fx.numbers(column) / 1e6
            else:
                assert part in CALENDAR_PARTS
                values = fx.numbers(fx.calendar(column, part))
            if self.cyclic and part in PERIODS:
                angle = values * (2 * math.pi / PERIODS[part])
                out += [Column("float64", fx.on_host(turn, angle)) for turn in (np.sin, np.cos)]
            else:
                out.append(Column("float64", values))
        return tuple(out)
