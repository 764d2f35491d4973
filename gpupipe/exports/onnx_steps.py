"""What steps do to a batch, as ONNX operators.

A number is a double ``[rows, 1]`` with NaN for missing, a text is a string ``[rows, 1]`` with
`MISSING` for missing. All arithmetic is in double, as in gpupipe, and becomes float32 at the very
end: so the features are the same, but for the last bit of a logarithm.

A step that looks levels up is a table with a row a level, one for missing values and one for
unknown ones: the rows are what the step itself gives for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.data.schema import ARROW_TYPES
from gpupipe.engine.calendar import calendar_part
from gpupipe.engine.frames import Block, NumpyFrames
from gpupipe.errors import ConfigError
from gpupipe.exports.graph import ML, Builder, Whole, WholeNumbers
from gpupipe.transforms.graph import Bound, Fitted, Graph, Node
from gpupipe.transforms.pairs import LARGEST
from gpupipe.transforms.structure import PARTS, PERIODS

MISSING = "<missing>"
"""The text that stands for a missing one: ONNX knows no null."""
MOST_FLOATS = 4_096
"""The most levels that numbers with fractions may have."""
EXACT = 1 << 53
"""Whole numbers come as doubles, which hold no larger ones exactly."""
Give = Callable[..., tuple[str, ...]]
"""From a builder, a bound step, what it learned and its columns' values to its outputs."""
STEPS: dict[str, Give] = {}


def features(build: Builder, graph: Graph, fitted: Fitted) -> str:
    """The matrix: float ``[rows, features]``. The inputs are there already, by their names.

    ConfigError for a step without an equivalent.
    """
    made: dict[str, tuple[str, ...]] = {}
    for bound in graph.bound:
        name = bound.step.name
        if name not in STEPS:
            raise ConfigError(
                f"ONNX has no equivalent of the step {name!r} (on column "
                f"{bound.column!r}); it has of {', '.join(sorted(STEPS))}",
                hint="export with --format mlflow, which takes every bundle, or drop the column")
        made[bound.key] = STEPS[name](build, bound, fitted.params[bound.key],
                                      *(_of(build, node, made) for node in bound.inputs))
    parts = []
    for node in graph.outputs:
        if node.feature.dtype == "string":
            raise ConfigError(f"the text {node.feature.name!r} is a feature itself: ONNX trees "
                              "take numbers", hint="encode it: one_hot, ordinal, target_encode")
        value = _of(build, node, made)
        value = value if node.feature.dtype == "block" else finite(build, value)
        parts.append(build.cast(value, "FLOAT"))
    return build.op("Concat", *parts, axis=1)


def _of(build: Builder, node: Node, made: dict[str, tuple[str, ...]]) -> str:
    """A node's value. A float32 column, which comes as doubles, is rounded as a bundle does."""
    if node.made_by is not None:
        return made[node.made_by.key][node.slot]
    if node.feature.dtype != "float32":
        return node.feature.name
    if node.key not in made:
        made[node.key] = (build.cast(build.cast(node.feature.name, "FLOAT"), "DOUBLE"),)
    return made[node.key][0]


def finite(build: Builder, value: str) -> str:
    """A number, NaN where it is infinite: as `Frames.numbers` has it."""
    return build.where(build.op("IsInf", value), build.constant(np.nan, np.float64), value)


def step(name: str) -> Callable[[Give], Give]:
    """Make a function known as the equivalent of a step."""

    def decorate(function: Give) -> Give:
        STEPS[name] = function
        return function

    return decorate


def _number(build: Builder, value: float) -> str:
    return build.constant(value, np.float64)


@step("impute")
def impute(build: Builder, bound: Bound, params: dict[str, Any], value: str) -> tuple[str, ...]:
    fill = params["fill"]
    if bound.input.feature.dtype == "string":
        missing = build.op("Equal", value, build.constant([MISSING]))
        filled = build.where(missing, build.constant([fill or ""]), value)
    else:
        value = finite(build, value)
        missing = build.op("IsNaN", value)
        filled = build.where(missing, _number(build, float(fill or 0.0)), value)
    if not bound.step.stored().get("indicator"):
        return (filled,)
    return filled, build.cast(missing, "DOUBLE")


@step("copy")
def copy(build: Builder, bound: Bound, params: dict[str, Any], value: str) -> tuple[str, ...]:
    return (value, value)


@step("scale")
def scale(build: Builder, bound: Bound, params: dict[str, Any], value: str) -> tuple[str, ...]:
    centred = build.op("Sub", finite(build, value), _number(build, params["centre"]))
    return (build.op("Div", centred, _number(build, params["spread"])),)


@step("clip")
def clip(build: Builder, bound: Bound, params: dict[str, Any], value: str) -> tuple[str, ...]:
    value = finite(build, value)  # a comparison with NaN is false: NaN stays
    for end, beyond in (("lower", "Less"), ("upper", "Greater")):
        if params[end] is not None:
            bound_ = _number(build, float(params[end]))
            value = build.where(build.op(beyond, value, bound_), bound_, value)
    return (value,)


@step("log")
def log(build: Builder, bound: Bound, params: dict[str, Any], value: str) -> tuple[str, ...]:
    """``sign(x) * log1p(|x|)``; log1p(a) = a * log(u) / (u - 1) with u = 1 + a, and a where u is 1:
    the rounding of u cancels (Goldberg 1991, ACM Computing Surveys 23(1), theorem 4)."""
    value = finite(build, value)
    size, one = build.op("Abs", value), _number(build, 1.0)
    u = build.op("Add", size, one)
    less = build.op("Sub", u, one)
    none = build.op("Equal", less, _number(build, 0.0))
    safe = build.where(none, one, less)
    ratio = build.op("Div", build.op("Mul", size, build.op("Log", u)), safe)
    return (build.op("Mul", build.op("Sign", value), build.where(none, size, ratio)),)


@step("bin")
def bin_(build: Builder, bound: Bound, params: dict[str, Any], value: str) -> tuple[str, ...]:
    value = finite(build, value)
    edges = np.asarray(params["edges"], np.float64)
    missing, nan = build.op("IsNaN", value), _number(build, np.nan)
    if not len(edges):
        return (build.where(missing, nan, _number(build, 0.0)),)
    past = build.cast(build.op("GreaterOrEqual", value, build.constant(edges[None])), "DOUBLE")
    code = build.op("ReduceSum", past, build.constant([1], np.int64), keepdims=1)
    return (build.where(missing, nan, code),)


@step("ratio")
def ratio(
    build: Builder, bound: Bound, params: dict[str, Any], value: str, other: str
) -> tuple[str, ...]:
    """By 0 it is infinite, or NaN, and so is not at most the largest."""
    found = build.op("Div", finite(build, value), finite(build, other))
    fits = build.op("LessOrEqual", build.op("Abs", found), _number(build, LARGEST))
    return (build.where(fits, found, _number(build, math.nan)),)


@step("datetime")
def datetime(build: Builder, bound: Bound, params: dict[str, Any], value: str) -> tuple[str, ...]:
    settings, missing = bound.step.stored(), build.op("IsNaN", value)
    ticks = Whole(build, build.cast(build.where(missing, _number(build, 0.0), value), "INT64"))
    given = []
    for part in settings.get("parts", PARTS):
        if part == "timestamp":
            given.append(build.op("Div", value, _number(build, 1e6)))
            continue
        found = calendar_part(ticks, part, WholeNumbers).name
        if settings.get("cyclic") and part in PERIODS:
            # Tables, for a runtime's own sine may differ in a last bit at which a tree splits.
            angles = np.arange(PERIODS[part] + 1) * (2 * math.pi / PERIODS[part])
            made = [build.op("Gather", build.constant(turn(angles)), found)
                    for turn in (np.sin, np.cos)]
        else:
            made = [build.cast(found, "DOUBLE")]
        given += [build.where(missing, _number(build, math.nan), m) for m in made]
    return tuple(given)


@step("one_hot")
@step("ordinal")
@step("count")
@step("target_encode")
def looked_up(build: Builder, bound: Bound, params: dict[str, Any], value: str) -> tuple[str, ...]:
    levels, dtype = params["levels"], bound.input.feature.dtype
    codes = _codes(build, levels, dtype, value)
    fx = NumpyFrames()
    probe = pa.array([*levels.to_pylist(), None, _unknown(levels, dtype)], ARROW_TYPES[dtype])
    probe = probe.dictionary_encode() if dtype == "string" else probe
    column = fx.column(fx.frame(pa.table({"x": probe})), "x", dtype)
    given = []
    for output in bound.step.transform(column, params, None, fx):
        table = output.values if isinstance(output, Block) else fx.numbers(output)[:, None]
        given.append(build.op("Gather", build.constant(table, np.float64), codes, axis=0))
    return tuple(given)


def _codes(build: Builder, levels: pa.Array, dtype: str, value: str) -> str:
    """The row of a level's table for each value: int64 ``[rows]``."""
    known, count = levels.to_pylist(), len(levels)
    if dtype.startswith("float"):
        return _codes_of_floats(build, known, value)
    flat = build.op("Reshape", value, build.constant([-1], np.int64))
    if dtype == "string":
        if MISSING in known:
            raise ConfigError(f"a level is called {MISSING!r}, which stands for a missing text in "
                              "an ONNX model", hint="rename the level in the data")
        return build.op("LabelEncoder", flat, domain=ML, keys_strings=[*known, MISSING],
                        values_int64s=list(range(count + 1)), default_int64=count + 1)
    if any(abs(int(level)) > EXACT for level in known):
        raise ConfigError("a level is a whole number above 2^53, which a double does not hold",
                          hint="keep such codes as text: data.types: {COLUMN: string}")
    missing = build.op("IsNaN", flat)
    whole = build.cast(build.where(missing, _number(build, 0.0), flat), "INT64")
    if known:
        found = build.op("LabelEncoder", whole, domain=ML, keys_int64s=[int(k) for k in known],
                         values_int64s=list(range(count)), default_int64=count + 1)
    else:
        found = build.op("Add", build.op("Sub", whole, whole),
                         build.constant(count + 1, np.int64))
    return build.where(missing, build.constant(count, np.int64), found)


def _codes_of_floats(build: Builder, known: list[float], value: str) -> str:
    """The same of numbers with fractions: each row is held against every level."""
    count = len(known)
    if count > MOST_FLOATS:
        raise ConfigError(f"a column of numbers has {count:,} levels, and an ONNX model holds each "
                          f"row against all of them: {MOST_FLOATS:,} at most",
                          hint="round or bin the numbers before they are taken as levels")
    value = build.op("Reshape", finite(build, value), build.constant([-1, 1], np.int64))
    missing = build.op("IsNaN", value)
    # Which level it is, from 1, for one at most is equal; 0 for none. NaN is equal to nothing.
    levels = build.constant(np.array([[*known, np.nan]], np.float64))
    same = build.cast(build.op("Equal", value, levels), "DOUBLE")
    place = build.op("Mul", same, build.constant(np.arange(1.0, count + 2)[None]))
    place = build.op("ReduceSum", place, build.constant([1], np.int64), keepdims=1)
    none = build.op("Equal", place, _number(build, 0.0))
    found = build.where(none, _number(build, count + 1.0),
                        build.op("Sub", place, _number(build, 1.0)))
    found = build.where(missing, _number(build, float(count)), found)
    return build.cast(build.op("Reshape", found, build.constant([-1], np.int64)), "INT64")


def _unknown(levels: pa.Array, dtype: str) -> Any:
    """A value that is no level; missing where every value is one."""
    known = set(levels.to_pylist())
    if dtype == "string":
        return "?" * (1 + max((len(k) for k in known), default=0))
    if dtype == "bool":
        return next((v for v in (False, True) if v not in known), None)
    return next(i for i in range(len(known) + 1) if i not in known)
