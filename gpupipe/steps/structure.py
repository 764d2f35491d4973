"""Steps that choose, copy, retype or take apart columns.

They are select, drop, drop_constant, copy, cast and datetime.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from gpupipe.errors import ConfigError
from gpupipe.steps.base import ROLES, Feature, Step, Target, register
from gpupipe.transforms.structure import PERIODS

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


@register("copy")
class Copy(Step):
    """A second column of the same values, so that two things can be made of one: ``age`` stays
    and ``age_copy`` is added."""

    suffix: Annotated[str, Field(min_length=1)] = "copy"

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        return (feature, replace(feature, name=f"{feature.name}_{self.suffix}"))


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
