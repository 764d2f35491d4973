"""What every section of a pipeline file is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Section(BaseModel):
    """Base of everything a pipeline file holds: frozen, strict, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False,
        use_attribute_docstrings=True, protected_namespaces=(),
    )


def _name(value: Any) -> Any:
    # `drop: [7]` can only mean the column "7"; 1.50 or true have lost what was written.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, (str, int)) and not isinstance(value, bool) else value


ColumnName = Annotated[
    str, Field(min_length=1), BeforeValidator(_name, json_schema_input_type=str | int)
]
"""A column's name; a whole number is taken as written."""

ColumnNames = Annotated[
    list[ColumnName],
    BeforeValidator(_one_or_many, json_schema_input_type=str | int | list[str | int]),
]
"""Columns; one name may stand without a list."""

Texts = Annotated[
    list[str],
    BeforeValidator(
        lambda v: [v] if isinstance(v, str) else v, json_schema_input_type=str | list[str]
    ),
]


def short(key: str) -> BeforeValidator:
    """A section whose one key may be given without naming it: ``calibrate: isotonic``."""
    return BeforeValidator(lambda v: {key: v} if isinstance(v, (str, list)) else v)
