"""A source column, compiled: from one value to the features that are made of it.

A column whose steps know some levels and treat all others alike has a table: a value is looked up
once, and its entry's number is all that is passed on. Any other column has a program: its steps
one after another, on one value. So have several columns that features are made of together.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import numpy as np

from gpupipe.scorer.steps import TABLED, RowStep, numbers_of, row_step
from gpupipe.transforms.graph import Bound, Fitted, Graph, Node

NAN = math.nan
MOST_LEVELS = 1 << 17
"""A table with more levels would take long to make."""
EPOCH, MICROSECOND = datetime(1970, 1, 1), timedelta(microseconds=1)
Plain = Callable[[Any], Any]


class Unfit(Exception):  # noqa: N818 - an answer, not an error
    """A value that is not plainly of its column's type: whether it fits, the batch path says."""


@dataclass(frozen=True)
class Tabled:
    """A column of a table: ``cell`` gives the number of an entry of ``features``.

    Attributes
    ----------
    at : the column's features in the matrix, from and to.
    features : float32 ``[entries, features]``.
    """

    name: str
    at: tuple[int, int]
    cell: Callable[[Any], int]
    features: np.ndarray

    def made(self, cells: Sequence[Any]) -> np.ndarray:
        """The features of some rows: float32 ``[n, features]``."""
        found: np.ndarray = self.features[np.array(cells, np.intp)]
        return found

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)


@dataclass(frozen=True)
class Programmed:
    """Columns of a program, most often one: ``cell`` gives their features, float64, NaN for
    missing, from a value of each."""

    names: tuple[str, ...]
    at: tuple[int, int]
    cell: Callable[..., Sequence[float]]

    @property
    def name(self) -> str:
        """For people."""
        return " and ".join(self.names)

    def made(self, cells: Sequence[Any]) -> np.ndarray:
        """The features of some rows: float32 ``[n, features]``."""
        with np.errstate(over="ignore"):
            return np.array(cells, np.float64).astype(np.float32).reshape(
                len(cells), self.at[1] - self.at[0])


Compiled = Tabled | Programmed


def plain(dtype: str) -> Plain:
    """From a record's value to one that steps take (`steps`). The function raises `Unfit`."""
    return {"float64": _float64, "float32": _float32, "int64": _int64, "bool": _bool,
            "string": _string, "timestamp": _timestamp}[dtype]


def _float64(value: Any) -> float:
    if type(value) is float:
        return value
    if value is None:
        return NAN
    if type(value) is int and -(1 << 53) <= value <= 1 << 53:
        return float(value)
    raise Unfit


def _float32(value: Any) -> float:
    if type(value) is int and not -(1 << 24) <= value <= 1 << 24:
        raise Unfit  # a table takes integers that float32 holds exactly, and no others
    try:
        rounded: float = struct.unpack("f", struct.pack("f", _float64(value)))[0]
    except OverflowError:
        raise Unfit from None
    return rounded


def _int64(value: Any) -> int | None:
    if value is None or (type(value) is int and -(1 << 63) <= value < 1 << 63):
        return value
    raise Unfit


def _bool(value: Any) -> bool | None:
    if value is None or value is True or value is False:
        return value
    raise Unfit


def _string(value: Any) -> str | None:
    if value is None:
        return value
    if type(value) is not str:
        raise Unfit
    try:
        value.encode()  # a lone surrogate is no text
    except UnicodeEncodeError:
        raise Unfit from None
    return value


def _timestamp(value: Any) -> int | None:
    if value is None:
        return value
    if type(value) is not datetime or value.tzinfo is not None:
        raise Unfit
    return (value - EPOCH) // MICROSECOND


def compiled(graph: Graph, fitted: Fitted) -> list[Compiled]:
    """Every source column that reaches the model, compiled.

    A source column's features are side by side where one step makes them; where other columns'
    lie between, it is there once for each run of them.
    """
    made, start = [], 0
    for nodes in runs_of(graph):
        column = _compiled(nodes, fitted, start)
        made.append(column)
        start = column.at[1]
    return made


def runs_of(graph: Graph) -> list[list[Node]]:
    """The outputs of a graph, those side by side that are made of the same source columns
    together."""
    return [list(run) for _, run in groupby(graph.outputs, key=lambda node: node.raws)]


def _compiled(nodes: list[Node], fitted: Fitted, start: int) -> Compiled:
    raws, bounds = _way(nodes)
    program, wide = _program(nodes, raws, bounds, fitted)
    at = (start, start + wide)
    if len(raws) > 1:
        takes = [plain(raw.feature.dtype) for raw in raws]
        return Programmed(
            tuple(raw.feature.name for raw in raws), at,
            lambda *values: program(*[of(v) for of, v in zip(takes, values, strict=True)]))
    (raw,) = raws
    take = plain(raw.feature.dtype)
    levels = _levels(raw.feature.dtype, bounds, fitted)
    if levels is None or len(levels) > MOST_LEVELS:
        return Programmed((raw.feature.name,), at, lambda value: program(take(value)))
    other = _other_than(raw.feature.dtype, levels)
    entries = list(dict.fromkeys([*levels, None, other]))
    table = np.array([program(level) for level in entries], np.float64)
    with np.errstate(over="ignore"):
        distinct, code = np.unique(table.astype(np.float32).view(np.int32), axis=0,
                                   return_inverse=True)
    codes = dict(zip(entries, code.ravel().tolist(), strict=True))
    return Tabled(raw.feature.name, at, _cell(raw.feature.dtype, codes, codes[other]),
                  distinct.view(np.float32))


def _cell(dtype: str, codes: dict[Any, int], other: int) -> Callable[[Any], int]:
    """The entry of a value."""
    take, get = plain(dtype), codes.get
    if dtype == "string":
        def of_text(value: Any) -> int:
            try:
                found = get(value)
            except TypeError:  # a list, say
                raise Unfit from None
            # What is found is text or None, so only what is not is looked at again.
            return found if found is not None else get(take(value), other)
        return of_text
    return lambda value: get(take(value), other)


def _way(nodes: list[Node]) -> tuple[list[Node], list[Bound]]:
    """The source columns of some nodes, in the order of `Node.raws`, and the steps on the way,
    inputs before what is made of them."""
    raws: dict[str, Node] = {}
    found: dict[str, Bound] = {}

    def visit(node: Node) -> None:
        if node.made_by is None:
            raws[node.key] = node
        elif node.made_by.key not in found:
            for each in node.made_by.inputs:
                visit(each)
            found[node.made_by.key] = node.made_by

    for node in nodes:
        visit(node)
    return list(raws.values()), list(found.values())


def _program(
    nodes: list[Node], raws: list[Node], bounds: list[Bound], fitted: Fitted
) -> tuple[Callable[..., list[float]], int]:
    """From the source columns' plain values to the nodes' features, and how many these are."""
    place: dict[str, int] = {raw.key: i for i, raw in enumerate(raws)}
    work: list[tuple[RowStep, list[int]]] = []
    width = len(raws)
    for bound in bounds:
        dtypes = [node.feature.dtype for node in bound.inputs]
        step = row_step(bound.step.name, bound.step.stored(), fitted.params[bound.key], *dtypes)
        work.append((step, [place[node.key] for node in bound.inputs]))
        # A one-hot's values are one output of several numbers, other steps' are one each.
        made = len(step(*[NAN if dtype.startswith("float") else None for dtype in dtypes]))
        place |= {f"{bound.key}#{slot}": width + slot for slot in range(made)}
        width += made
    finals: list[tuple[int, Callable[[Any], float] | None]] = []
    for node in nodes:
        at, dtype = place[node.key], node.feature.dtype
        if dtype == "block":
            assert node.made_by is not None
            names = fitted.params[node.made_by.key]["names"]
            finals += [(at + i, None) for i in range(len(names))]
        else:
            finals.append((at, numbers_of(dtype)))

    if not work:
        (of,) = [of for _, of in finals if of is not None]
        return lambda value: [of(value)], 1

    if all(len(sources) == 1 for _, sources in work):  # most, and without a list for each step
        alone = [(step, source) for step, (source,) in work]

        def run(value: Any) -> list[float]:
            values = [value]
            for step, source in alone:
                values += step(values[source])
            return [values[at] if of is None else of(values[at]) for at, of in finals]
        return run, len(finals)

    def run_together(*given: Any) -> list[float]:
        values = list(given)
        for step, sources in work:
            values += step(*[values[source] for source in sources])
        return [values[at] if of is None else of(values[at]) for at, of in finals]
    return run_together, len(finals)


def _levels(dtype: str, bounds: list[Bound], fitted: Fitted) -> list[Hashable] | None:
    """The values that a column's steps tell apart; None where they are without end."""
    if dtype == "bool":
        return [False, True]
    found: dict[Hashable, None] = {}
    for bound in bounds:
        params = fitted.params[bound.key]
        if bound.step.name in TABLED and bound.input.feature.dtype == dtype in (
                "string", "int64"):
            found |= dict.fromkeys(params["levels"].to_pylist())
        elif bound.step.name == "impute" and dtype == "string":
            found[params["fill"] or ""] = None
        else:
            return None
    return list(found) if bounds else None


def _other_than(dtype: str, levels: Sequence[Any]) -> Any:
    """A value that is none of the levels; of truths, which are all there, a missing one."""
    if dtype == "bool":
        return None
    if dtype == "int64":
        known = set(levels)
        return next(i for i in range(len(known) + 1) if i not in known)
    return "\0" * (1 + max((len(level) for level in levels), default=0))
