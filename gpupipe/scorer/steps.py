"""What a step does to one value, with the bits that it gives a column.

Arithmetic is Python's own where it is NumPy's to the bit, and NumPy's where it may not be. What a
table answers is asked of the batch transform, once for every level. A step without a form here is
given a column of one value: slower, and as right.

A value is a float (NaN is missing), or an int, bool, or str (None is missing); a timestamp is its
microseconds.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from gpupipe.data.schema import ARROW_TYPES
from gpupipe.engine.calendar import calendar_part
from gpupipe.engine.frames import Array, Block, Column, NumpyFrames
from gpupipe.transforms.base import TRANSFORMS, Output, Params, Settings
from gpupipe.transforms.pairs import LARGEST
from gpupipe.transforms.structure import PARTS, PERIODS

NAN = math.nan
Values = tuple[Any, ...]
RowStep = Callable[..., Values]
"""From a value of each column that a step takes, most often one, to those of its outputs; of a
one-hot they are its 0s and 1s."""
Make = Callable[..., RowStep | None]
"""The form of a step, by its settings, what it learned and the types it takes; None: it has
none."""
FORMS: dict[str, Make] = {}
TABLED = ("one_hot", "ordinal", "count", "target_encode")
"""Steps that know some levels, and treat all others alike."""
REMEMBERED = 4_096
"""So many values of a column are remembered where each takes long."""
M = TypeVar("M", bound=Make)


def row_step(name: str, settings: Settings, params: Params, *dtypes: str) -> RowStep:
    """The step ``name`` for one value of each of the types."""
    made = FORMS[name](settings, params, *dtypes) if name in FORMS else None
    return made or lru_cache(REMEMBERED)(of_one(name, settings, params, *dtypes))


def form(*names: str) -> Callable[[M], M]:
    """Make a function known as what makes the forms of these steps."""

    def decorate(make: M) -> M:
        FORMS.update(dict.fromkeys(names, make))
        return make

    return decorate


def numbers_of(dtype: str) -> Callable[[Any], float]:
    """`Frames.numbers` of one value."""
    if dtype in ("float32", "float64"):
        return _finite
    return _number


def _finite(value: float) -> float:
    # An infinity less itself is no number, and neither is what is missing.
    return value if value - value == 0.0 else NAN


def _number(value: int | bool | None) -> float:
    return NAN if value is None else float(value)


def column_of(dtype: str, value: Any) -> Column:
    """A column of one value."""
    if dtype == "string":
        levels = pa.array([] if value is None else [value], pa.string())
        return Column(dtype, np.array([-1 if value is None else 0], np.int32), None, levels)
    if dtype in ("float32", "float64"):
        return Column(dtype, np.array([value], dtype))
    kind = "bool" if dtype == "bool" else "int64"
    missing = np.array([True]) if value is None else None
    return Column(dtype, np.array([value or 0], kind), missing)


def value_of(output: Output) -> Values:
    """The one value of a column; the several ones of a block."""
    if isinstance(output, Block):
        return tuple(output.values[0].tolist())
    if output.dtype == "string":
        assert output.levels is not None
        code = int(output.values[0])
        return (None if code < 0 else output.levels[code].as_py(),)
    if output.missing is not None and output.missing[0]:
        return (None,)
    return (output.values[0].item(),)


def of_one(name: str, settings: Settings, params: Params, *dtypes: str) -> RowStep:
    """The batch transform on columns of one value."""
    apply, fx = TRANSFORMS[name].apply, NumpyFrames()

    def step(*values: Any) -> Values:
        first, *others = map(column_of, dtypes, values)
        out = apply(settings, first, params, None, fx, *others)
        return tuple(v for output in out for v in value_of(output))

    return step


class _EveryLevel(NumpyFrames):
    """Frames of a column that has each level once, then one that is unknown, then a missing one."""

    def lookup(self, column: Column, levels: pa.Array) -> Array:
        return np.append(np.arange(len(levels)), [-2, -1])


def _table_of(name: str) -> Make:
    def make(settings: Settings, params: Params, dtype: str) -> RowStep | None:
        levels = params["levels"]
        if levels.type != ARROW_TYPES[dtype]:
            return None
        out = TRANSFORMS[name].apply(settings, Column(dtype, np.empty(0)), params, None,
                                     _EveryLevel())
        rows = list(zip(*(_listed(o) for o in out), strict=True))
        rows = [tuple(v for part in row for v in part) for row in rows]
        answers = dict(zip(levels.to_pylist(), rows, strict=False))
        unknown, missing = rows[-2], rows[-1]
        if dtype in ("float32", "float64"):
            def of_number(value: float) -> Values:
                # As `factorize`: an infinity is missing, and both zeros are one.
                if value - value != 0.0:
                    return missing
                return answers.get(value + 0.0, unknown)
            return of_number
        answers[None] = missing

        def of_level(value: Any) -> Values:
            return answers.get(value, unknown)
        return of_level
    return make


def _listed(output: Output) -> list[Values]:
    """What each row has in an output."""
    if isinstance(output, Block):
        return [tuple(row) for row in output.values.tolist()]
    values: list[Any] = output.values.tolist()
    if output.missing is not None:
        values = [None if m else v for v, m in zip(values, output.missing.tolist(), strict=True)]
    return [(v,) for v in values]


FORMS.update({name: _table_of(name) for name in TABLED})


@form("impute")
def _impute(settings: Settings, params: Params, dtype: str) -> RowStep:
    fill, flagged = params["fill"], bool(settings.get("indicator"))
    if dtype == "string":
        text = fill or ""
        if flagged:
            return lambda v: (text, 1.0) if v is None else (v, 0.0)
        return lambda v: (text,) if v is None else (v,)
    number, of = float(fill or 0.0), numbers_of(dtype)

    def step(value: Any) -> Values:
        value = of(value)
        missing = value != value
        if flagged:
            return (number, 1.0) if missing else (value, 0.0)
        return (number,) if missing else (value,)
    return step


@form("copy")
def _copy(settings: Settings, params: Params, dtype: str) -> RowStep:
    return lambda value: (value, value)


@form("scale")
def _scale(settings: Settings, params: Params, dtype: str) -> RowStep | None:
    centre, spread, of = float(params["centre"]), float(params["spread"]), numbers_of(dtype)
    return (lambda v: ((of(v) - centre) / spread,)) if spread else None


@form("clip")
def _clip(settings: Settings, params: Params, dtype: str) -> RowStep:
    lower, upper, of = params["lower"], params["upper"], numbers_of(dtype)
    low = -math.inf if lower is None else float(lower)
    high = math.inf if upper is None else float(upper)

    def step(value: Any) -> Values:
        value = of(value)
        # Comparisons with NaN do not hold, so it stays.
        if value < low:
            value = low
        return (high if value > high else value,)
    return step


@form("log")
def _log(settings: Settings, params: Params, dtype: str) -> RowStep:
    of, log1p, sign = numbers_of(dtype), np.log1p, math.copysign

    def step(value: Any) -> Values:
        value = of(value)
        return (sign(float(log1p(abs(value))), value) if value else value,)
    return step


@form("bin")
def _bin(settings: Settings, params: Params, dtype: str) -> RowStep:
    edges, of = params["edges"].tolist(), numbers_of(dtype)

    def step(value: Any) -> Values:
        value = of(value)
        return (bisect_right(edges, value) if value == value else None,)
    return step


@form("ratio")
def _ratio(settings: Settings, params: Params, dtype: str, other: str) -> RowStep:
    of, below = numbers_of(dtype), numbers_of(other)

    def step(value: Any, by: Any) -> Values:
        by = below(by)
        found = of(value) / by if by else NAN
        return (found if abs(found) <= LARGEST else NAN,)
    return step


class _Scalar:
    """The one function of an array library that `calendar_part` calls, of a number."""

    @staticmethod
    def where(condition: bool, one: int, other: int) -> int:
        return one if condition else other


@form("datetime")
def _datetime(settings: Settings, params: Params, dtype: str) -> RowStep:
    parts: list[tuple[str, float | None]] = [
        (p, 2 * math.pi / PERIODS[p] if settings.get("cyclic") and p in PERIODS else None)
        for p in settings.get("parts", PARTS)]

    def step(value: int | None) -> Values:
        out: list[float] = []
        for part, turn in parts:
            if value is None:
                number = NAN
            elif part == "timestamp":
                number = float(value) / 1e6
            else:
                number = float(calendar_part(value, part, _Scalar))
            out += [number] if turn is None else [
                float(np.sin(number * turn)), float(np.cos(number * turn))]
        return tuple(out)
    return step
