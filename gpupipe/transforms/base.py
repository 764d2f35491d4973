"""What a transform is: a function from a column, what was learned, and a step's settings.

To add one, write a function in a file of this folder, under the name of its step:

    @transform("double")
    def double(settings, column, params, rows, fx):
        return (Column("float64", fx.numbers(column) * 2),)

Settings are named with what they may be (``@transform("cast", to=one_of("string", "int64"))``),
so that a bundle with others is refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from gpupipe.engine.frames import Block, Column, Frames
from gpupipe.errors import DataError
from gpupipe.stats.state import Rows

Params = dict[str, Any]
"""What a step learned: numbers, strings, lists, NumPy arrays and Arrow arrays by name."""

Output = Column | Block

Settings = Mapping[str, Any]
"""A step's settings by name, as its pipeline file has them."""


@dataclass(frozen=True)
class Feature:
    """A column on its way to the model.

    ``dtype`` is a logical type, or ``block`` for the several columns that a one-hot makes.
    ``categorical`` marks integer codes that have no order.
    """

    name: str
    dtype: str
    categorical: bool = False


@dataclass(frozen=True)
class Target:
    """What a step may know of the target before the data.

    Attributes
    ----------
    task : binary, multiclass, regression, survival or hazard of a time with an event, or
        ranking.
    classes : the labels in code order; empty for numbers.
    centre, reach : middle and half-width of a numeric target's range.
    """

    task: str
    classes: tuple[str, ...] = ()
    centre: float = 0.0
    reach: float = 0.0


class Apply(Protocol):
    """What a step does to one batch of a column.

    ``rows`` is None when scoring new data. The outputs are those that the step promised.
    """

    def __call__(
        self, settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
    ) -> tuple[Output, ...]: ...


class ApplyToTwo(Protocol):
    """What a step that takes columns by twos does to one batch of them."""

    def __call__(
        self, settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames,
        other: Column,
    ) -> tuple[Output, ...]: ...


@dataclass(frozen=True)
class Transform:
    """A registered transform, what each of its step's settings may be, and how many columns it
    takes at once."""

    apply: Callable[..., tuple[Output, ...]]
    settings: Mapping[str, Check]
    columns: int = 1


@dataclass(frozen=True)
class Check:
    """What a setting may be: ``expected`` in words, and the test of it."""

    expected: str
    holds: Callable[[Any], bool]


TRANSFORMS: dict[str, Transform] = {}
"""By the step's name. The only way from a bundle to a step."""


def transform(name: str, **settings: Check) -> Callable[[Apply], Apply]:
    """Make a function known as what the step ``name`` does, with these settings."""

    def decorate(function: Apply) -> Apply:
        TRANSFORMS[name] = Transform(function, settings)
        return function

    return decorate


def transform_of_two(name: str, **settings: Check) -> Callable[[ApplyToTwo], ApplyToTwo]:
    """The same of a step that takes columns by twos: the second one comes last."""

    def decorate(function: ApplyToTwo) -> ApplyToTwo:
        TRANSFORMS[name] = Transform(function, settings, columns=2)
        return function

    return decorate


def one_of(*values: Any) -> Check:
    """One of these values."""
    return Check(f"one of {', '.join(map(repr, values))}",
                 lambda v: not isinstance(v, (list, dict)) and v in values)


def whole(low: int, high: int | None = None) -> Check:
    """A whole number from ``low``, up to ``high``, both included."""
    above = math.inf if high is None else high
    return Check(f"a whole number from {low}",
                 lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= above)


def number(low: float = -math.inf, *others: Any) -> Check:
    """A finite number from ``low``, or one of ``others``."""
    return Check(f"a number{''.join(f' or {o!r}' for o in others)}", lambda v: (
        isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) and v >= low
    ) or (not isinstance(v, (int, float, list, dict)) and v in others))


FLAG = Check("true or false", lambda v: isinstance(v, bool))
VALUE = Check("a number, a text or null",
              lambda v: v is None or isinstance(v, str) or number().holds(v))


@dataclass(frozen=True)
class StoredStep:
    """A step as a bundle has it: its name and settings, which have been checked.

    It transforms, and can be written again; what it was learned by is no concern of it.
    """

    name: str
    settings: Settings = field(hash=False)

    @classmethod
    def of(cls, name: Any, settings: Any) -> StoredStep:
        """DataError where there is no such step, or a setting is not one of its own."""
        if not isinstance(name, str) or name not in TRANSFORMS:
            raise DataError(f"bundle.json has an unknown step {name!r}",
                            hint="install the version of gpupipe that wrote it, or a newer one")
        if not isinstance(settings, dict):
            raise DataError(f"the settings of step {name!r} in bundle.json are malformed: "
                            "expected an object")
        known = TRANSFORMS[name].settings
        for key, value in settings.items():
            if key not in known:
                raise DataError(f"step {name!r} in bundle.json is malformed: it has no {key!r}")
            if not known[key].holds(value):
                raise DataError(f"step {name!r} in bundle.json is malformed: {key} is {value!r}, "
                                f"expected {known[key].expected}")
        return cls(name, settings)

    def stored(self) -> dict[str, Any]:
        """The settings as JSON data."""
        return dict(self.settings)

    @cached_property
    def key(self) -> str:
        """Name and settings in one text: equal for equal steps."""
        return self.name + json.dumps(self.settings, separators=(",", ":"), ensure_ascii=False)

    def transform(
        self, column: Column, params: Params, rows: Rows | None, fx: Frames, *others: Column
    ) -> tuple[Output, ...]:
        """The outputs for one batch."""
        return TRANSFORMS[self.name].apply(self.settings, column, params, rows, fx, *others)

    def export(self, params: Params) -> Params:
        """The part of the params that a bundle keeps: all of what it has been read with."""
        return params
