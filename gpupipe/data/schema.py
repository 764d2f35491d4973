"""The six column types that a pipeline knows, and the schema made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import pyarrow as pa

from gpupipe.errors import DataError, did_you_mean

DType = Literal["float32", "float64", "int64", "bool", "string", "timestamp"]
"""Every source type becomes one of these: integers of any width are ``int64``; dates and
timestamps are microseconds since 1970 in UTC; decimals are ``float64``."""

DTYPES: tuple[str, ...] = get_args(DType)

ARROW_TYPES: dict[str, pa.DataType] = {
    "float32": pa.float32(),
    "float64": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "timestamp": pa.timestamp("us"),
}


@dataclass(frozen=True)
class Field:
    """One column: its name and its logical type."""

    name: str
    dtype: DType


@dataclass(frozen=True)
class Schema:
    """The ordered columns of a table. Iterates over its fields; ``schema[name]`` finds one."""

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, columns: dict[str, DType]) -> Schema:
        return cls(tuple(Field(name, dtype) for name, dtype in columns.items()))

    @property
    def names(self) -> list[str]:
        return [f.name for f in self.fields]

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __contains__(self, name: object) -> bool:
        return any(f.name == name for f in self.fields)

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        near = did_you_mean(name, self.names)
        raise DataError(
            f"there is no column {name!r}; the columns are {', '.join(map(repr, self.names))}",
            hint=f"did you mean {near!r}?" if near else None,
        )

    def select(self, names: Iterable[str]) -> Schema:
        return Schema(tuple(self[n] for n in names))

    def to_json(self) -> list[dict[str, str]]:
        return [{"name": f.name, "dtype": f.dtype} for f in self.fields]

    @classmethod
    def from_json(cls, data: list[dict[str, str]]) -> Schema:
        for d in data:
            if d["dtype"] not in DTYPES:
                raise DataError(f"column {d['name']!r} has the unknown type {d['dtype']!r}")
        return cls(tuple(Field(d["name"], d["dtype"]) for d in data))  # type: ignore[arg-type]

    def to_arrow(self) -> pa.Schema:
        return pa.schema([pa.field(f.name, ARROW_TYPES[f.dtype]) for f in self.fields])
