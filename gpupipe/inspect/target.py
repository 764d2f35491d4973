"""Which column to predict, and as what kind of task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gpupipe.data.dataset import Dataset
from gpupipe.errors import ConfigError, DataError
from gpupipe.inspect.columns import BOOLEAN_PAIRS, Column, value_counts

NAMES = (
    "target", "label", "labels", "class", "y", "outcome", "churn", "churned", "default", "fraud",
    "is_fraud", "survived", "income", "response", "converted", "clicked",
)
AFFIRMATIVE = ("1", "yes", "y", "true", "t", "on")


@dataclass(frozen=True)
class Proposed:
    """A target: its column, its task, and for two classes the positive label."""

    name: str
    task: Literal["binary", "multiclass", "regression"]
    positive: str | int | float | bool | None
    classes: tuple[tuple[str, int], ...]
    why: str


def propose_target(
    dataset: Dataset, columns: tuple[Column, ...], name: str | None
) -> Proposed:
    """The target called ``name``, or the one that stands out.

    Raises ConfigError where there is no such column or none stands out, DataError where
    the column cannot be a target.
    """
    if name is not None:
        if name not in dataset.schema:
            _unknown(name, dataset)
        return _as_target(dataset, next(c for c in columns if c.name == name), "as you said")
    able = [c for c in columns if c.role not in ("id", "constant", "text", "datetime")]
    named = [c for c in able if c.name.strip().lower() in NAMES]
    if len(named) == 1:
        return _as_target(dataset, named[0], "by its name")
    likely = named or [c for c in able if c.distinct == 2 or c is able[-1]] or able
    raise ConfigError(
        "which column is to be predicted? None stands out; likely ones: "
        + ", ".join(repr(c.name) for c in likely[:12]),
        hint=f"name it: --target {likely[-1].name!r}" if likely else None,
    )


def _unknown(name: str, dataset: Dataset) -> None:
    from gpupipe.errors import did_you_mean

    near = did_you_mean(name, dataset.schema.names)
    raise ConfigError(
        f"there is no column {name!r} in {dataset.source}",
        hint=f"did you mean {near!r}?" if near
        else f"the columns are {', '.join(dataset.schema.names)}",
    )


def _as_target(dataset: Dataset, column: Column, why: str) -> Proposed:
    name, dtype = column.name, column.dtype
    if column.role == "constant":
        raise DataError(f"the target {name!r} is {column.why}: there is nothing to predict")
    if dtype == "timestamp":
        raise ConfigError(
            f"the target {name!r} is a timestamp", hint="choose a column of numbers or labels"
        )
    few = column.distinct is not None and column.distinct <= (2 if dtype != "int64" else 20)
    if dtype != "string" and not few:
        return Proposed(name, "regression", None, (), why)
    if dtype in ("float32", "float64"):
        return Proposed(name, "regression", None, (), why)
    if column.distinct is None or column.distinct > 1_000:
        raise DataError(
            f"the target {name!r} is text with {column.distinct_text} distinct values",
            hint="a target is a number, or one of a few labels",
        )
    counts = value_counts(dataset, name)
    classes = tuple((str(value), count) for value, count in counts)
    if len(counts) > 2:
        return Proposed(name, "multiclass", None, classes, why)
    if len(counts) < 2:
        raise DataError(f"the target {name!r} has one label alone: {classes[0][0]!r}")
    positive = counts[-1][0]  # the rarer one
    if {str(value).strip().lower() for value, _ in counts} in BOOLEAN_PAIRS:
        positive = next(v for v, _ in counts if str(v).strip().lower() in AFFIRMATIVE)
    return Proposed(name, "binary", positive, classes, why)
