"""Histograms of bit patterns, and exact quantiles in two looks.

A float32 whose bits are put in numeric order and shifted right by 16 falls into one of
65,536 log-spaced bins of relative width 2^-7. Counts of bins merge, subtract and compare
exactly, and need no range beforehand. A second look counts the distinct values inside the
few bins where a quantile lies, and so finds it exactly, for every fold at once. Where those bins
hold a great many rows (all values near 1,000, say), a look between cuts them into pieces first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from gpupipe.engine.frames import Array, Column, Frames
from gpupipe.stats.state import Rows, State, Table, added, count_cells, greatest, least

BINS = 65_536
PIECES = 4_096
"""Into so many pieces of equal width a crowded span of bins is cut."""
CROWDED = 500_000
"""Rows in a window from which on its distinct values would take much memory."""


def bin_of(values: Array, fx: Frames) -> Array:
    """The bin (int32, 0..65535) of each float64: non-decreasing in the value. NaN: undefined."""
    with np.errstate(over="ignore", invalid="ignore"):
        high = (values + 0.0).astype("float32").view("int32") >> 16
    # Below zero a greater bit pattern is a lesser number, so those are turned around.
    return fx.xp.where(high < 0, ~high, high + BINS // 2)


@cache
def bin_edges() -> np.ndarray:
    """The lower edge of each bin: float64 ``[BINS]``, -inf and inf for the bins of NaNs.

    Made once, and not to be written to.
    """
    signed = (np.arange(BINS, dtype=np.int64) - BINS // 2) << 16
    bits = np.where(signed < 0, (-(signed + 1)) | 0x80000000, signed).astype(np.uint32)
    with np.errstate(invalid="ignore"):
        edges = bits.view(np.float32).astype(np.float64)
    edges = np.where(np.isnan(edges), np.where(signed < 0, -np.inf, np.inf), edges)
    edges.flags.writeable = False
    return edges


@dataclass(frozen=True)
class HistogramState(State):
    """``counts`` is int64 ``[b, BINS]``: finite values in each bin."""

    counts: np.ndarray = added()

    def take_in(self, other: Self) -> Self:
        np.add(self.counts, other.counts, out=self.counts)
        return replace(self)  # a new one, which has not worked anything out of the old counts

    @cached_property
    def below(self) -> np.ndarray:
        """How many values of all buckets lie before each bin, and in all: ``[BINS + 1]``."""
        return np.concatenate([[0], np.cumsum(self.counts.sum(axis=0))])

    def quantile(self, q: float) -> float:
        """A quantile of all buckets' values to a bin's width (2^-7 of it): the lower edge of the
        bin that holds it; NaN where there is no value."""
        total = int(self.below[-1])
        at = int(np.searchsorted(self.below, q * max(total - 1, 0), side="right")) - 1
        return float(bin_edges()[at]) if total else float("nan")


@dataclass(frozen=True)
class Histogram:
    """The bit-pattern histogram of one column."""

    state: ClassVar[type[State]] = HistogramState

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> HistogramState:
        values = fx.numbers(columns[0])
        finite = fx.xp.isfinite(values)
        key = rows.bucket * BINS + bin_of(values, fx)
        counts = count_cells(key[finite], rows.buckets * BINS, fx)
        return HistogramState(counts.reshape(rows.buckets, BINS))


@dataclass(frozen=True)
class ExtremeState(State):
    """``low`` and ``high`` are float64 ``[b]``: +inf and -inf where a bucket has no value."""

    low: np.ndarray = least()
    high: np.ndarray = greatest()


@dataclass(frozen=True)
class Extremes:
    """The least and the greatest finite value of one column."""

    state: ClassVar[type[State]] = ExtremeState

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> ExtremeState:
        values = fx.numbers(columns[0])
        xp = fx.xp
        finite = xp.isfinite(values)
        low, high = np.full(rows.buckets, np.inf), np.full(rows.buckets, -np.inf)
        for b in range(rows.buckets):
            mine = values[finite & (rows.bucket == b)]
            if mine.shape[0]:
                # Adding zero makes -0.0 and 0.0 one value, so that order cannot show.
                low[b], high[b] = float(mine.min()) + 0.0, float(mine.max()) + 0.0
        return ExtremeState(low, high)


def piece_of(values: Array, span: tuple[int, int], fx: Frames) -> Array:
    """Which piece of a span of bins each float64 falls into (int32, 0..PIECES-1).

    Non-decreasing in the value, and the same everywhere: each operation is rounded once.
    """
    edges = bin_edges()
    low = edges[span[0]]
    high = edges[span[1] + 1] if span[1] + 1 < BINS else np.inf
    if not (np.isfinite(low) and np.isfinite(high)):
        return fx.xp.zeros(values.shape, dtype="int32")
    share = (fx.xp.clip(values, low, high) - low) / (high - low)
    return fx.xp.minimum(share * PIECES, PIECES - 1).astype("int32")


@dataclass(frozen=True)
class ZoomState(State):
    """``counts`` is int64 ``[b, spans, PIECES]``."""

    counts: np.ndarray = added()


@dataclass(frozen=True)
class Zoom:
    """How many values fall into each piece of the ``spans`` of bins (first, last)."""

    state: ClassVar[type[State]] = ZoomState

    spans: tuple[tuple[int, int], ...]

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> ZoomState:
        values = fx.numbers(columns[0])
        finite = fx.xp.isfinite(values)
        values, bucket = values[finite] + 0.0, rows.bucket[finite]
        bins, counts = bin_of(values, fx), []
        for first, last in self.spans:
            mine = (bins >= first) & (bins <= last)
            key = bucket[mine] * PIECES + piece_of(values[mine], (first, last), fx)
            counts.append(count_cells(key, rows.buckets * PIECES, fx))
        found = np.array(counts, np.int64).reshape(len(self.spans), rows.buckets, PIECES)
        return ZoomState(found.transpose(1, 0, 2))


@dataclass(frozen=True)
class WindowState(Table):
    """Counts ``[b, levels]`` of the distinct values inside a window's bins.

    The values between two spans are counted too, under one level for the whole gap, so the
    cumulative counts are true ranks.
    """

    counts: np.ndarray = added()


@dataclass(frozen=True)
class Window:
    """How often each distinct value inside the bins ``spans`` (first, last) occurs.

    Spans ascend and do not touch. ``pieces``, where there are any, say for each span which of
    its pieces (first, last) count.
    """

    state: ClassVar[type[State]] = WindowState

    spans: tuple[tuple[int, int], ...]
    pieces: tuple[tuple[int, int], ...] = ()

    def gaps(self) -> np.ndarray:
        """The level that stands for each gap: ``[len(spans) + 1]``, outside every span."""
        edges = bin_edges()
        before = [edges[first - 1] if first > 0 else -np.inf for first, _ in self.spans]
        last = self.spans[-1][1] if self.spans else 0
        return np.array([*before, edges[last + 1] if last + 1 < BINS else np.inf])

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> WindowState:
        xp = fx.xp
        values = fx.numbers(columns[0])
        finite = xp.isfinite(values)
        values, bucket = values[finite] + 0.0, rows.bucket[finite]
        bins = bin_of(values, fx)
        span = xp.zeros(bins.shape, dtype="int64")
        inside = xp.zeros(bins.shape, dtype=bool)
        for i, (first, last) in enumerate(self.spans):
            reached, mine = bins >= first, (bins >= first) & (bins <= last)
            if self.pieces:
                piece = piece_of(values, (first, last), fx)
                low, high = self.pieces[i]
                reached &= ~(mine & (piece < low))
                mine &= (piece >= low) & (piece <= high)
            span += reached
            inside |= mine
        levels, codes = xp.unique(values[inside], return_inverse=True)
        n, g = int(levels.shape[0]), len(self.spans) + 1
        # A value past the end of span i lies in gap i; one before the first span in gap 0.
        outside = count_cells(bucket[~inside] * g + span[~inside], rows.buckets * g, fx)
        counts = count_cells(bucket[inside] * n + codes, rows.buckets * n, fx)
        return WindowState(
            pa.array(np.concatenate([fx.to_host(levels), self.gaps()]), pa.float64()),
            np.hstack([counts.reshape(rows.buckets, n), outside.reshape(rows.buckets, g)]),
        )


def quantile_ranks(n: int, q: float) -> tuple[int, int, float]:
    """The two 0-based ranks around quantile ``q`` of n values, and the weight of the upper.

    NumPy's default ("linear") definition: Hyndman and Fan (1996), type 7.
    """
    position = q * (n - 1)
    low = int(np.floor(position))
    return low, min(low + 1, n - 1), position - low


def window_for(histogram: HistogramState, quantiles: Iterable[float], slack: float = 6.0) -> Window:
    """The bins in which each quantile of *any* training part should lie.

    ``histogram`` counts all rows. A part's quantile strays from the whole's by about
    sqrt(n)/2 ranks; ``slack`` standard deviations (and a little) are allowed for, and
    `exact_quantile` notices if that was too narrow.
    """
    cumulative = histogram.below[1:]
    n = int(cumulative[-1])
    margin = slack * np.sqrt(max(n, 1)) / 2 + 3
    spans: list[tuple[int, int]] = []
    for q in sorted(quantiles):
        low, high, _ = quantile_ranks(max(n, 1), q)
        first = int(np.searchsorted(cumulative, max(low - margin, 0), side="right"))
        last = int(np.searchsorted(cumulative, min(high + margin, n - 1), side="right"))
        last = min(last, BINS - 1)
        if spans and first <= spans[-1][1] + 2:
            spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
        else:
            spans.append((min(first, last), last))
    return Window(tuple(spans))


def crowded(window: Window, histogram: HistogramState) -> bool:
    """Whether so many rows lie in a window that it is worth a look between."""
    below = histogram.below
    return sum(int(below[b + 1] - below[a]) for a, b in window.spans) >= CROWDED


def narrowed(
    window: Window, zoom: ZoomState, histogram: HistogramState, quantiles: Iterable[float],
    slack: float = 6.0,
) -> Window:
    """The pieces of a window's spans in which each quantile of any training part should lie."""
    before = histogram.below
    n = int(before[-1])
    margin = slack * np.sqrt(max(n, 1)) / 2 + 3
    wanted = [quantile_ranks(max(n, 1), q) for q in quantiles]
    pieces = []
    for i, (first, last) in enumerate(window.spans):
        ranks = before[first] + np.cumsum(zoom.counts.sum(axis=0)[i])
        start, end = before[first], before[last + 1]
        mine = [(low, high) for low, high, _ in wanted
                if high + margin >= start and low - margin < end] or [(start, end - 1)]
        a = int(np.searchsorted(ranks, max(min(m[0] for m in mine) - margin, start), side="right"))
        b = int(np.searchsorted(ranks, min(max(m[1] for m in mine) + margin, end - 1),
                                side="right"))
        pieces.append((min(a, PIECES - 1), min(b, PIECES - 1)))
    return Window(window.spans, tuple(pieces))


def exact_quantile(window: Window, state: WindowState, q: float) -> float | None:
    """Quantile ``q`` of a training part, as NumPy's ``quantile`` gives it.

    ``state`` (of one bucket, canonical) counts the part's own rows. None where the window
    is too narrow for this part; NaN where the part has no values.
    """
    cumulative = np.cumsum(state.counts[0])
    n = int(cumulative[-1]) if len(cumulative) else 0
    if n == 0:
        return float("nan")
    levels, gaps = state.levels.to_numpy(), window.gaps()
    low, high, weight = quantile_ranks(n, q)
    a, b = (float(levels[np.searchsorted(cumulative, rank, side="right")]) for rank in (low, high))
    if a in gaps or b in gaps:
        return None
    # NumPy's own way of interpolating, which is exact at both ends.
    return b - (b - a) * (1 - weight) if weight >= 0.5 else a + (b - a) * weight
