"""A column in the reference and in a window: what the measures of drift are worked out from.

Cells are put together to a few groups (tenths of the reference for numbers, levels for text, the
rare ones as one), or made the two distribution functions. What only the reference decides is
worked out once for all windows, by `Shape`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import special

from gpupipe.monitor.cells import ABOVE, BELOW, FIRST, INFINITE, MISSING, UNFIT, UNSEEN, Values
from gpupipe.monitor.reference import Known

GROUPS = 10
"""Groups of numbers: tenths of the reference."""
EXPECTED = 5
"""Rows that a group is expected to have at least, in the window and in the reference."""
GRID = 200
"""Points at which the null distribution of the Wasserstein distance is worked out."""


@dataclass(frozen=True)
class Shape:
    """What of a reference column is worked out once, for all windows."""

    known: Known
    _within: dict[float, Within] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def starts(self) -> np.ndarray:
        """The cells at which tenths of the reference's values begin, but for the first."""
        cells, counts = self.known.cells, self.known.counts
        assert cells is not None and counts is not None
        cumulative = np.cumsum(counts)
        wanted = cumulative[-1] * np.arange(1, GROUPS) / GROUPS
        at = np.searchsorted(cumulative, wanted)  # the cell in which each quantile lies
        # A cell of many rows is a group of its own: another begins right after it.
        heavy = np.flatnonzero(counts >= cumulative[-1] / GROUPS)
        edges = np.unique(np.concatenate([at, heavy, heavy + 1]))
        return cells[edges[(edges > 0) & (edges < len(cells))]]

    def within(self, trim: float) -> Within:
        """The reference's numbers within its quantiles ``trim`` and 1 - ``trim``."""
        if trim not in self._within:
            self._within[trim] = Within.of(self.known, trim)
        return self._within[trim]


@dataclass(frozen=True)
class Within:
    """The numbers of a reference, those beyond ``low`` and ``high`` counted as these.

    Attributes
    ----------
    deviation : their standard deviation.
    area : mean and variance of the area under |a Brownian bridge at F|, in deviations.
    """

    known: Known
    low: float
    high: float
    deviation: float
    area: tuple[float, float]

    @classmethod
    def of(cls, known: Known, trim: float) -> Within:
        assert known.cells is not None and known.counts is not None
        middles = known.coder.middles(known.cells)
        weight = known.counts / known.counts.sum()
        below = np.cumsum(weight)
        first, last = np.searchsorted(below, [trim, 1 - trim])
        low, high = float(middles[first]), float(middles[min(last, len(middles) - 1)])
        x = np.clip(middles, low, high)
        mean = float((weight * x).sum())
        deviation = math.sqrt(max(float((weight * (x - mean) ** 2).sum()), 0.0))
        area = _bridge(np.diff(x) / deviation, below[:-1]) if deviation else (0.0, 0.0)
        return cls(known, low, high, deviation, area)

    def points(self, cells: np.ndarray) -> np.ndarray:
        """The number that each cell stands for, within the ends."""
        return np.clip(self.known.coder.middles(cells), self.low, self.high)


def _bridge(widths: np.ndarray, f: np.ndarray) -> tuple[float, float]:
    """Mean and variance of the sum of ``widths`` times |a Brownian bridge at ``f``|."""
    widths, f = widths[widths > 0], f[widths > 0]
    if len(f) > GRID:  # neighbours as one: their widths add up
        piece = np.minimum(np.cumsum(widths) / widths.sum() * GRID, GRID - 1).astype(int)
        total = np.bincount(piece, widths, GRID)
        f = np.bincount(piece, widths * f, GRID)[total > 0] / total[total > 0]
        widths = total[total > 0]
    f = np.clip(f, 1e-12, 1 - 1e-12)
    size = widths * np.sqrt(f * (1 - f))
    odds = f / (1 - f)
    rho = np.sqrt(np.clip(np.minimum.outer(odds, odds) / np.maximum.outer(odds, odds), 0, 1))
    # E|X||Y| of two normal variables of correlation rho.
    both = 2 / math.pi * (np.sqrt(1 - rho**2) + rho * np.arcsin(rho))
    mean = math.sqrt(2 / math.pi) * float(size.sum())
    return mean, max(float(size @ both @ size) - mean**2, 1e-30)


@dataclass(frozen=True)
class Pair:
    """A column in the reference and in a window.

    Attributes
    ----------
    cells, counts : the window's, all cells of the column, ascending.
    """

    shape: Shape
    cells: np.ndarray
    counts: np.ndarray
    least: int = 100
    special: Mapping[int, int] = field(init=False)

    def __post_init__(self) -> None:
        first = int(np.searchsorted(self.cells, FIRST))
        own = dict(zip(self.cells[:first].tolist(), self.counts[:first].tolist(), strict=True))
        coder = self.known.coder
        if isinstance(coder, Values):
            own |= {which: int(self.counts[self.cells == cell].sum())
                    for which, cell in ((BELOW, FIRST), (ABOVE, coder.width - 1))}
        object.__setattr__(self, "special", own)
        object.__setattr__(self, "cells", self.cells[first:])
        object.__setattr__(self, "counts", self.counts[first:])

    @property
    def known(self) -> Known:
        return self.shape.known

    @cached_property
    def values(self) -> int:
        """Rows of the window that have a value that the reference knows how to place."""
        return int(self.counts.sum())

    @cached_property
    def rows(self) -> int:
        """All rows of the window."""
        return self.values + sum(self.special.get(c, 0)
                                 for c in (MISSING, UNFIT, INFINITE, UNSEEN))

    @property
    def compared(self) -> bool:
        """Whether both have the values that a comparison of distributions takes."""
        known = self.known
        return known.cells is not None and min(
            self.values + self.special.get(UNSEEN, 0), known.present) >= self.least

    @cached_property
    def noise(self) -> float:
        """1/n + 1/m."""
        return 1 / (self.values + self.special.get(UNSEEN, 0)) + 1 / self.known.present

    @cached_property
    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the reference and of the window in each group, rare groups as one."""
        known = self.known
        assert known.cells is not None and known.counts is not None
        if known.coder.ordered:
            starts = self.shape.starts
            r, c = (np.bincount(np.searchsorted(starts, cells, "right"), counts,
                                len(starts) + 1).astype(np.float64)
                    for cells, counts in ((known.cells, known.counts), (self.cells, self.counts)))
        else:
            size = int(max(known.cells[-1], self.cells[-1] if len(self.cells) else 0)) - FIRST + 2
            r, c = np.zeros(size), np.zeros(size)
            r[known.cells - FIRST] = known.counts
            c[self.cells - FIRST] = self.counts
            c[-1] = self.special.get(UNSEEN, 0)
        share = (r + c) / (r + c).sum()
        rare = share * min(r.sum(), c.sum()) < EXPECTED
        if rare.any():
            r, c = (np.append(a[~rare], a[rare].sum()) for a in (r, c))
            share = (r + c) / (r + c).sum()
            if len(r) > 1 and share[-1] * min(r.sum(), c.sum()) < EXPECTED:
                # The rest is rare still: it goes with the rarest group that is not.
                least = int(np.argmin(share[:-1]))
                for a in (r, c):
                    a[least] += a[-1]
                r, c = r[:-1], c[:-1]
        return r, c

    @cached_property
    def pearson(self) -> tuple[float, int, float]:
        """Pearson's statistic of the groups, its degrees of freedom, and its p-value."""
        r, c = self.groups
        if len(r) < 2:
            return 0.0, 0, 1.0
        share = (r + c) / (r + c).sum()
        statistic = 0.0
        for a in (r, c):
            statistic += float(((a - a.sum() * share) ** 2 / (a.sum() * share)).sum())
        return statistic, len(r) - 1, float(special.chdtrc(len(r) - 1, statistic))

    @cached_property
    def functions(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The cells of either, and both distribution functions at them."""
        known = self.known
        assert known.cells is not None and known.counts is not None
        cells = np.concatenate([known.cells, self.cells])
        cells.sort(kind="stable")
        cells = cells[np.append(True, cells[1:] != cells[:-1])]
        f, g = np.zeros(len(cells)), np.zeros(len(cells))
        f[np.searchsorted(cells, known.cells)] = known.counts
        g[np.searchsorted(cells, self.cells)] = self.counts
        return cells, np.cumsum(f) / f.sum(), np.cumsum(g) / g.sum()
