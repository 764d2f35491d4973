"""What a column holds, in the report's words and pictures; all from the profile's states."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.stats.quantiles import BINS, Extremes, Histogram, bin_edges
from gpupipe.steps.base import ROLES
from gpupipe.steps.profile import DAYS, MOMENTS, Profile

PICTURE_BINS = 40
TOP_LEVELS = 8


def column_of(profile: Profile, name: str) -> dict[str, Any]:
    """One column of the report's data section: `evaluate.report.Column`."""
    dtype = profile.schema[name].dtype
    role = next(r for r, dtypes in ROLES.items() if r != "all" and dtype in dtypes)
    column: dict[str, Any] = {"name": name, "dtype": dtype, "role": role,
                              "missing": profile.missing(name) / profile.rows}
    vocabulary = profile.vocabulary(name)
    if vocabulary is not None and not vocabulary.overflowed:
        ranked = vocabulary.ranked()
        column["distinct"] = len(ranked.levels)
        if dtype in ("string", "bool") or len(ranked.levels) <= TOP_LEVELS:
            shown = ranked.levels.slice(0, TOP_LEVELS).to_pylist()
            column["top"] = [{"value": str(v), "count": int(n)}
                             for v, n in zip(shown, ranked.counts[0], strict=False)]
    histogram = profile.of(name, Histogram())
    if dtype in ("string", "bool") or histogram is None or not histogram.counts.any():
        return column
    values, counts = _values(profile, name)
    extremes, moments = profile.of(name, Extremes()), profile.of(name, MOMENTS)
    low, high = float(extremes.low[0]), float(extremes.high[0])
    values = np.clip(values, low, high)
    middle = float(values[np.searchsorted(np.cumsum(counts), counts.sum() / 2)])
    column |= {"min": _shown(low, dtype), "max": _shown(high, dtype),
               "mean": _shown(moments.mean(), dtype), "median": _shown(middle, dtype)}
    if "top" not in column and high > low:
        column["histogram"] = _picture(values, counts, dtype)
    infinite = int(moments.infinite[0])
    if infinite:
        column["note"] = f"{infinite:,} infinite values count as missing"
    return column


def _values(profile: Profile, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Values (float64, ascending) and how many rows have them, as finely as is known.

    Integers one by one where they were counted, timestamps by the day, and else the middles
    of the bit-pattern bins, each right to a part in 128.
    """
    vocabulary = profile.vocabulary(name) or profile.of(name, DAYS)
    if vocabulary is not None and not vocabulary.overflowed:
        known = vocabulary.levels.drop_null()
        scale = DAYS.microseconds if profile.schema[name].dtype == "timestamp" else 1
        return known.to_numpy().astype(np.float64) * scale, vocabulary.counts[0, : len(known)]
    counts = profile.of(name, Histogram()).counts[0]
    held = np.flatnonzero(counts)
    edges = np.append(bin_edges(), np.inf)
    with np.errstate(invalid="ignore"):
        middles = (edges[held] + edges[held + 1]) / 2
    # The bin of zero begins with it, and is there for it.
    return np.where(held == BINS // 2, 0.0, middles), counts[held]


def _shown(value: float, dtype: str) -> float | str:
    if dtype != "timestamp":
        return value
    text = str(np.datetime64(int(value), "us"))[:19]
    return text.removesuffix("T00:00:00").replace("T", " ")


def _picture(values: np.ndarray, counts: np.ndarray, dtype: str) -> dict[str, Any]:
    """Bins of equal width for a picture; the far tails end in the outer bins."""
    cumulative = np.cumsum(counts) / counts.sum()
    first, last = (float(values[min(int(np.searchsorted(cumulative, q)), len(values) - 1)])
                   for q in (0.002, 0.998))
    if last <= first:
        first, last = float(values[0]), float(values[-1])
    if dtype == "int64":
        # Every bin holds the same number of integers, or the picture would show a comb.
        width = max(1.0, np.ceil((last - first + 1) / PICTURE_BINS))
        edges = np.arange(first, last + width + 0.5, width)
    else:
        edges = np.linspace(first, last, PICTURE_BINS + 1)
    where = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    sums = np.bincount(where, weights=counts, minlength=len(edges) - 1)
    made: dict[str, Any] = {"edges": edges.tolist(), "counts": sums.tolist()}
    if dtype == "timestamp":
        made["ends"] = [str(_shown(v, dtype))[:10] for v in (first, last)]
    return made
