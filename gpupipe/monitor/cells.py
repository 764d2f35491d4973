"""How a column's values become cells: whole numbers that can be counted, merged and compared.

A row lies in exactly one cell of each column. The first cells are the same for all columns
(missing, unfit, infinite, unseen); from `FIRST` on they are the column's own:

- `Bins`: the bit-pattern bins of `stats.quantiles`, for floats and for integers of many values.
- `Values`: whole numbers and booleans whose values the reference knows one by one. Known values
  have odd places and what lies between them even ones, so that order is kept.
- `Levels`: text, by its place among the reference's values, the most frequent first.
- `Present`: where values cannot be compared (moments in time, text of too many values), that
  there is one.

Where training values crowd in few bit-pattern bins (all near 1,000, say) `Pieces` cut the span
that they lie in into equal parts instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa

from gpupipe.engine.frames import Array, Column, Frames
from gpupipe.stats.quantiles import BINS, PIECES, bin_edges, bin_of

MISSING, UNFIT, INFINITE, UNSEEN, BELOW, ABOVE = range(6)
"""Cells that every column has. A row BELOW or ABOVE the reference's range also lies in a cell of
its value: these two are counted beside the others."""
FIRST = 8
"""The first cell of a value."""
CELLS = 1 << 20
"""There are fewer cells than this."""


class Coder(Protocol):
    """What makes cells of a column's values.

    Attributes
    ----------
    width : cells are below it.
    ordered : whether cells ascend with the values.
    """

    @property
    def width(self) -> int: ...

    @property
    def ordered(self) -> bool: ...

    def cells(self, column: Column, fx: Frames) -> Array:
        """The cell of each row: int64 ``[n]``."""
        ...

    def beyond(self, column: Column, fx: Frames) -> tuple[Array, Array] | None:
        """Which rows lie below and above the reference's range: bool ``[n]`` each."""
        ...

    def middles(self, cells: np.ndarray) -> np.ndarray:
        """A number for each cell of a value: float64; NaN where the order has no numbers."""
        ...

    def name(self, cell: int) -> str:
        """What a cell of a value is called."""
        ...


@dataclass(frozen=True)
class Bins:
    """The bit-pattern bins of numbers; ``low`` and ``high`` are the reference's extremes."""

    low: float
    high: float
    ordered = True

    @property
    def width(self) -> int:
        return FIRST + BINS

    def cells(self, column: Column, fx: Frames) -> Array:
        values = fx.numbers(column)
        return _special(column, values, FIRST + bin_of(values, fx), fx)

    def beyond(self, column: Column, fx: Frames) -> tuple[Array, Array] | None:
        values = fx.numbers(column)
        return values < self.low, values > self.high

    def middles(self, cells: np.ndarray) -> np.ndarray:
        held = np.asarray(cells) - FIRST
        with np.errstate(invalid="ignore", over="ignore"):
            middle = (_EDGES[held] + _EDGES[held + 1]) / 2
        # The bin of zero begins with it, and is there for it.
        return np.clip(np.where(held == BINS // 2, 0.0, middle), self.low, self.high)

    def name(self, cell: int) -> str:
        return f"{_EDGES[cell - FIRST]:.4g} to {_EDGES[cell - FIRST + 1]:.4g}"


_EDGES = np.append(bin_edges(), np.inf)


@dataclass(frozen=True)
class Values:
    """Whole numbers that are known one by one: ``known`` is int64, ascending."""

    known: np.ndarray
    ordered = True

    @property
    def width(self) -> int:
        return FIRST + 2 * len(self.known) + 1

    def cells(self, column: Column, fx: Frames) -> Array:
        xp = fx.xp
        if column.dtype in ("float32", "float64"):
            values = fx.numbers(column)
            known = fx.to_device(self.known)
            place = xp.searchsorted(known, values)
            same = known[xp.minimum(place, len(self.known) - 1)] == values
            return _special(column, values, FIRST + 2 * place + same, fx)
        values = column.values.astype("int64", copy=False)
        low, table = self._table
        if table is not None:
            found = fx.to_device(table)[xp.clip(values - low, -1, len(table) - 2) + 1]
        else:
            known = fx.to_device(self.known)
            place = xp.searchsorted(known, values)
            found = FIRST + 2 * place + (known[xp.minimum(place, len(self.known) - 1)] == values)
        return found if column.missing is None else xp.where(column.missing, MISSING, found)

    @cached_property
    def _table(self) -> tuple[int, np.ndarray | None]:
        """The cell of every whole number from one before the least to one after the greatest."""
        low, high = int(self.known[0]), int(self.known[-1])
        if high - low >= CELLS:
            return low, None
        values = np.arange(low - 1, high + 2)
        place = np.searchsorted(self.known, values)
        same = self.known[np.minimum(place, len(self.known) - 1)] == values
        return low, FIRST + 2 * place + same

    def beyond(self, column: Column, fx: Frames) -> tuple[Array, Array] | None:
        """Nothing apart: the first cell and the last are those beyond the range."""
        return None

    def middles(self, cells: np.ndarray) -> np.ndarray:
        place, same = np.divmod(np.asarray(cells) - FIRST, 2)
        known = self.known.astype(np.float64)
        left = known[np.clip(place - 1, 0, len(known) - 1)]
        right = known[np.clip(place, 0, len(known) - 1)]
        return np.where(same == 1, right, (left + right) / 2)

    def name(self, cell: int) -> str:
        place, same = divmod(int(cell) - FIRST, 2)
        if same:
            return str(self.known[place])
        if place == 0:
            return f"below {self.known[0]}"
        if place == len(self.known):
            return f"above {self.known[-1]}"
        return f"between {self.known[place - 1]} and {self.known[place]}"


@dataclass(frozen=True)
class Levels:
    """Text by its place among ``levels``, the reference's values, the most frequent first."""

    levels: pa.Array
    ordered = False

    @property
    def width(self) -> int:
        return FIRST + len(self.levels)

    def cells(self, column: Column, fx: Frames) -> Array:
        place = fx.lookup(column, self.levels)
        return fx.xp.where(place >= 0, FIRST + place,
                           fx.xp.where(place == -1, MISSING, UNSEEN))

    def beyond(self, column: Column, fx: Frames) -> tuple[Array, Array] | None:
        return None

    def middles(self, cells: np.ndarray) -> np.ndarray:
        return np.full(len(cells), np.nan)

    def name(self, cell: int) -> str:
        return str(self.levels[int(cell) - FIRST])


@dataclass(frozen=True)
class Present:
    """Whether there is a value."""

    ordered = False

    @property
    def width(self) -> int:
        return FIRST + 1

    def cells(self, column: Column, fx: Frames) -> Array:
        return fx.xp.where(fx.is_missing(column), MISSING, FIRST)

    def beyond(self, column: Column, fx: Frames) -> tuple[Array, Array] | None:
        return None

    def middles(self, cells: np.ndarray) -> np.ndarray:
        return np.full(len(cells), np.nan)

    def name(self, cell: int) -> str:
        return "a value"


@dataclass(frozen=True)
class Pieces:
    """A span of numbers in ``count`` parts of equal width; what lies outside is at either end.

    ``least`` and ``greatest`` are the reference's extremes.
    """

    low: float
    high: float
    least: float
    greatest: float
    count: int = PIECES
    ordered = True

    @property
    def width(self) -> int:
        return FIRST + self.count + 2

    def cells(self, column: Column, fx: Frames) -> Array:
        values = fx.numbers(column)
        share = (values - self.low) / (self.high - self.low)
        # As `quantiles.piece_of` has it; each operation is rounded once.
        place = fx.xp.clip(fx.xp.floor(share * self.count), -1, self.count)
        place = fx.xp.where(fx.xp.isnan(place), 0, place).astype("int64")
        return _special(column, values, FIRST + 1 + place, fx)

    def beyond(self, column: Column, fx: Frames) -> tuple[Array, Array] | None:
        values = fx.numbers(column)
        return values < self.least, values > self.greatest

    def middles(self, cells: np.ndarray) -> np.ndarray:
        place = np.asarray(cells) - FIRST - 1
        step = (self.high - self.low) / self.count
        return np.clip(self.low + (place + 0.5) * step, self.low, self.high)

    def name(self, cell: int) -> str:
        step = (self.high - self.low) / self.count
        start = self.low + (cell - FIRST - 1) * step
        return f"{start:.6g} to {start + step:.6g}"


def _special(column: Column, values: Array, found: Array, fx: Frames) -> Array:
    """The cells of numbers, where missing and infinite ones have theirs."""
    xp = fx.xp
    gap = xp.isnan(values)
    if not bool(gap.any()):
        return found
    return xp.where(gap, xp.where(fx.is_missing(column), MISSING, INFINITE), found)


def fitted(column: Column, dtype: str, fx: Frames) -> tuple[Column, Array | None]:
    """A column in the type that the bundle's contract names, and which rows do not fit it.

    Text is read as numbers where it is one; whole numbers as text; a float as a whole number
    where it is whole. Rows that do not fit are missing from the column; None where all fit.
    """
    own, xp = column.dtype, fx.xp
    number = ("float32", "float64", "int64", "bool")
    if own == dtype or (own in number and dtype in ("float32", "float64")):
        return column, None
    missing = fx.is_missing(column)
    if own == "string":
        return _parsed(column, dtype, missing, fx)
    if dtype == "string" and own != "timestamp":
        codes, levels = fx.factorize(column)
        text = pa.array([_text(v) for v in levels.to_pylist()], pa.string())
        return Column("string", codes, None, text), None
    if own in number and dtype in ("int64", "bool"):
        values = fx.numbers(column)
        whole = values == xp.floor(values)
        if dtype == "bool":
            whole &= (values == 0) | (values == 1)
        unfit = ~whole & ~missing
        out = xp.where(whole, values, 0).astype(dtype)
        return Column(dtype, out, missing | unfit), unfit if bool(unfit.any()) else None
    unfit = ~missing
    empty = Column("float64", xp.full(len(column), xp.nan))
    return (empty if dtype != "string" else
            Column("string", xp.full(len(column), -1), None, pa.array([], pa.string()))), unfit


_TRUTHS = {"true": 1.0, "false": 0.0, "1": 1.0, "0": 0.0, "yes": 1.0, "no": 0.0}


def _parsed(
    column: Column, dtype: str, missing: Array, fx: Frames
) -> tuple[Column, Array | None]:
    """Text read as what ``dtype`` says, level by level."""
    xp, levels = fx.xp, column.levels
    assert levels is not None
    numbers = np.full(len(levels) + 1, np.nan)
    for i, text in enumerate(levels.to_pylist()):
        numbers[i] = _number(text, dtype)
    values = fx.to_device(numbers)[column.values]
    unfit = xp.isnan(values) & ~missing
    found = Column("float64", values)
    if dtype in ("int64", "bool", "timestamp"):
        found = Column(dtype, xp.where(xp.isnan(values), 0, values).astype(
            "bool" if dtype == "bool" else "int64"), missing | unfit)
    return found, unfit if bool(unfit.any()) else None


def _number(text: str, dtype: str) -> float:
    text = text.strip()
    try:
        if dtype == "bool":
            return _TRUTHS[text.lower()]
        if dtype == "timestamp":
            return float(np.datetime64(text, "us").astype(np.int64))
        value = float(text)
    except (KeyError, ValueError):
        return float("nan")
    return float("nan") if dtype == "int64" and value != np.floor(value) else value


def _text(value: object) -> str:
    """A number as text, as a reader of text would have met it."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


