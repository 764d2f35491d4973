"""Steps that choose, retype or take apart columns: select, drop, drop_constant, cast, datetime."""

from __future__ import annotations

import math
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.engine.frames import CALENDAR_PARTS, Column, Frames
from gpupipe.errors import ConfigError
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
    """Change the type: text to numbers (what does not parse is refused), numbers to text."""

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
        xp = fx.xp
        codes, levels = fx.factorize(column)
        missing = codes < 0
        if self.to == "string":
            if not pa.types.is_string(levels.type):
                levels = pc.cast(levels, pa.string())
            return (Column("string", codes.astype("int32"), None, levels),)
        values = _parse(levels)
        table = xp.concatenate([fx.to_device(values), xp.asarray([xp.nan])])
        numbers = table[codes]
        if self.to == "float64":
            return (Column("float64", numbers),)
        mask = missing if bool(missing.any()) else None
        whole = xp.where(missing, 0.0, numbers)
        return (Column(self.to, whole.astype("int64" if self.to == "int64" else "bool"), mask),)


def _parse(levels: pa.Array) -> object:
    from gpupipe.errors import DataError

    try:
        if pa.types.is_boolean(levels.type):
            levels = levels.cast(pa.int8())
        return levels.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
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
        names = []
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
                out += [Column("float64", fx.xp.sin(angle)), Column("float64", fx.xp.cos(angle))]
            else:
                out.append(Column("float64", values))
        return tuple(out)
