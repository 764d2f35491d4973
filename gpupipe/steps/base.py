"""What a step is: a frozen, typed config; what it learns is plain data kept elsewhere.

To add a step, write a class in one of the files of this folder, and what it does to a batch in
`gpupipe.transforms`, by the same name:

    @register("double")
    class Double(Step):
        accepts = NUMERIC

    @transform("double")
    def double(settings, column, params, rows, fx):
        return (Column("float64", fx.numbers(column) * 2),)

A step that learns also says which statistics it `needs` and how to `finalize` them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, field_validator

from gpupipe.engine.frames import Column, Frames
from gpupipe.errors import ConfigError, DataError, did_you_mean
from gpupipe.stats.state import Rows, Statistic
from gpupipe.stats.tables import VOCABULARY_LIMIT, Vocabulary, VocabularyState
from gpupipe.transforms.base import TRANSFORMS, Feature, Output, Params, Target

__all__ = [
    "CATEGORICAL", "NUMERIC", "ROLES", "STEPS", "Evidence", "Feature", "NoEvidence", "Output",
    "Params", "Step", "Target", "known_vocabulary", "register", "select",
]

NUMERIC = ("float64", "float32", "int64", "bool")
CATEGORICAL = ("string", "int64", "bool")
ROLES: dict[str, tuple[str, ...]] = {
    "all": ("float64", "float32", "int64", "bool", "string", "timestamp"),
    "numeric": ("float64", "float32", "int64"),
    "categorical": ("string",),
    "boolean": ("bool",),
    "datetime": ("timestamp",),
}
"""What the role selectors select, by type."""
Combination = tuple[Feature, Feature]
"""Columns that a step takes together, in its order."""


class Evidence(Protocol):
    """The statistics of a step's column that scans have gathered so far."""

    @property
    def train(self) -> tuple[int, ...]:
        """The buckets that this view trains on."""
        ...

    def training(self, statistic: Statistic) -> Any:
        """Over the training rows: a state of one bucket, canonical. None: not yet known."""

    def folds(self, statistic: Statistic) -> Any:
        """By bucket, canonical. None: not yet known."""

    def everything(self, statistic: Statistic) -> Any:
        """Over all rows: fit for hints alone. None: not yet known."""


class NoEvidence:
    """`Evidence` before any scan: nothing is known."""

    train: tuple[int, ...] = ()

    def training(self, statistic: Statistic) -> None: ...

    def folds(self, statistic: Statistic) -> None: ...

    def everything(self, statistic: Statistic) -> None: ...


class Step(BaseModel):
    """Base class of all steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str] = ""
    accepts: ClassVar[tuple[str, ...]] = ROLES["all"]

    columns: str | tuple[str, ...] = "all"
    """Which columns: names, globs, roles (numeric, categorical, ...) or types."""

    @field_validator("columns", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        """The exact names and types that `transform` will give, before any data."""
        return (feature,)

    def combined(self, features: Sequence[Feature]) -> Sequence[tuple[Combination, Feature]] | None:
        """Of a step that takes columns together: which, and the feature that each combination
        gives, beside those that are there. None (the default): it takes each alone."""
        return None

    def needs(self, target: Target, evidence: Evidence) -> tuple[Statistic, ...]:
        """The statistics still wanted; asked again after each scan until there are none."""
        return ()

    def finalize(self, target: Target, evidence: Evidence) -> Params:
        """What the step learned."""
        return {}

    def transform(
        self, column: Column, params: Params, rows: Rows | None, fx: Frames, *others: Column
    ) -> tuple[Output, ...]:
        """The outputs for one batch: what `gpupipe.transforms` has by the step's name.

        ``rows`` is None when scoring new data; ``others`` are the columns after the first, of a
        step that takes several.
        """
        return TRANSFORMS[self.name].apply(vars(self), column, params, rows, fx, *others)

    def stored(self) -> dict[str, Any]:
        """The settings as JSON data, without the columns: what a bundle keeps."""
        return self.model_dump(mode="json", exclude={"columns"})

    @property
    def key(self) -> str:
        """Name and settings in one text: equal for steps that do the same to a column."""
        return self.name + self.model_dump_json(exclude={"columns"})

    def derived_from(self, statistic: Statistic) -> Statistic | None:
        """The statistic of the input from which `derive` makes ``statistic`` of the output.

        None (the default) where the output has to be scanned.
        """
        return None

    def derive(self, statistic: Statistic, state: Any, params: Params) -> Any:
        """``statistic`` of the output, to the bit what a scan would find, from the input's."""
        raise TypeError(f"step {self.name!r} derives nothing")

    def export(self, params: Params) -> Params:
        """The part of the params that scoring new data needs."""
        return params

    @property
    def looks(self) -> int:
        """Scans that learning takes: 0 for a step that learns nothing."""
        return 0


STEPS: dict[str, type[Step]] = {}
S = TypeVar("S", bound=type[Step])


def register(name: str) -> Callable[[S], S]:
    """Make a step known under ``name``, in pipeline files and bundles."""

    def decorate(cls: S) -> S:
        cls.name = name
        STEPS[name] = cls
        return cls

    return decorate


def select(columns: str | Sequence[str], features: Sequence[Feature]) -> list[Feature]:
    """The features that a selector names, in their own order.

    Raises ConfigError for a name, glob or role that selects nothing by mistake: a role may
    select nothing (a table without dates is no error), a name or a glob may not.
    """
    chosen: set[str] = set()
    for pattern in [columns] if isinstance(columns, str) else columns:
        found = [f.name for f in features if f.name == pattern]
        if not found and pattern in ROLES:
            found = [f.name for f in features if f.dtype in ROLES[pattern]]
        elif not found and pattern in ROLES["all"]:
            found = [f.name for f in features if f.dtype == pattern]
        elif not found:
            found = [f.name for f in features if fnmatch.fnmatchcase(f.name, pattern)]
            if not found:
                names = [f.name for f in features]
                near = did_you_mean(pattern, [*names, *ROLES])
                raise ConfigError(
                    f"{pattern!r} selects no column here; there are {', '.join(names) or 'none'}",
                    hint=f"did you mean {near!r}?" if near else None,
                )
        chosen.update(found)
    return [f for f in features if f.name in chosen]


def known_vocabulary(evidence: Evidence, step: str) -> VocabularyState:
    """The training rows' vocabulary. DataError where the column has too many levels."""
    state: VocabularyState = evidence.training(Vocabulary())
    if state.overflowed:
        raise DataError(
            f"step {step!r}: a column has more than {VOCABULARY_LIMIT:,} distinct values",
            hint="drop the column, or use the 'hash' step on it",
        )
    return state
