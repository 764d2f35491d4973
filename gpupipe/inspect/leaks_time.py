"""Leaks by time: neighbours in time on both sides of a split, and columns that know the future."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpupipe.inspect.findings import Finding
from gpupipe.inspect.leaks_columns import EXACT, names_rows, renamed
from gpupipe.inspect.leaks_power import Buckets, kappa, neighbours, pairs
from gpupipe.inspect.leaks_sample import Ints, Sample
from gpupipe.inspect.relations import Side
from gpupipe.inspect.text import by_time, drop

SURE, SURE_KAPPA = 0.95, 0.9
LONGEST = 20
"""A gap proposed is at most this part of the rows."""
STICKY = 0.5
"""R squared or kappa of neighbours in time that is worth a warning."""
UNITS = ((604_800_000_000, "w"), (86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"),
         (1_000_000, "s"))


def time_findings(sample: Sample) -> Iterator[Finding]:
    """Leaks by the timestamps of ``sample``, and by the column of its time split."""
    times = [n for n in sample.sides if sample.dtypes[n] == "timestamp" or n == sample.time]
    for name in times:
        yield from _overlap(sample, name)
    if times:
        yield from _future(sample, sample.time or times[0])


def _overlap(sample: Sample, name: str) -> Iterator[Finding]:
    side, measure = sample.sides[name], "R2" if sample.regression else "kappa"
    split = sample.by == "time"
    if side.numbers is None or (split and (name != sample.time or sample.gap)):
        return
    # In a time split, neighbours of one block say what those at a cut would.
    shared = _shared(sample, side, np.arange(sample.rows) if split else sample.bucket)
    if shared < STICKY:
        return
    gap = _memory(sample, side, shared, sample.dtypes[name] == "timestamp")
    text = f"rows next to each other by {name!r} share {sample.target!r} ({measure} {shared:.3f})"
    evidence = {measure.lower(): round(shared, 4), "gap": gap, "rows": sample.rows}
    if split:
        yield Finding("time-gap", (name,), "warn", (
            f"{text}: what is judged first after a cut is told by what was trained on last"),
            evidence, by_time(name, gap))
        return
    sure = shared >= (SURE if sample.regression else SURE_KAPPA) and name in sample.features
    yield Finding("time-overlap", (name,), "block" if sure else "warn", (
        f"{text}, and fall on both sides of the split"), evidence, by_time(name, gap))


def _shared(sample: Sample, side: Side, bucket: Buckets) -> float:
    """How far neighbours in time share the target: R squared of its ranks, or Cohen's kappa."""
    if sample.numbers is not None:
        return neighbours(side, sample.ranks, bucket)
    left, right = pairs(side, bucket)
    return kappa(sample.labels[left], sample.labels[right]) if len(left) else 0.0


def _memory(sample: Sample, side: Side, shared: float, stamps: bool) -> str:
    """How long it takes until rows share less than a quarter of what neighbours do, as a gap."""
    assert side.numbers is not None
    known = np.flatnonzero(~np.isnan(side.numbers))
    order = known[np.argsort(side.numbers[known], kind="stable")]
    lag, apart = 1, 0.0
    while lag < len(order) // LONGEST:
        left, right = order[:-lag], order[lag:]
        apart = float(np.median(side.numbers[right] - side.numbers[left]))
        if sample.numbers is None:
            still = kappa(sample.labels[left], sample.labels[right])
        else:
            still = float(np.corrcoef(sample.ranks[left], sample.ranks[right])[0, 1])
        if still < shared / 4:
            break
        lag = max(lag + 1, lag * 3 // 2)
    return duration(apart) if stamps else f"{apart:.6g}"


def duration(microseconds: float) -> str:
    """As a gap is written: a whole number of weeks, days, hours, minutes or seconds."""
    for size, unit in UNITS:
        if microseconds >= 2 * size or unit == "s":
            return f"{max(1, round(microseconds / size))}{unit}"
    raise AssertionError


def _future(sample: Sample, name: str) -> Iterator[Finding]:
    """Columns that hold the next row's target."""
    side = sample.sides[name]
    if side.numbers is None:
        return
    known = np.flatnonzero(~np.isnan(side.numbers))
    order = known[np.argsort(side.numbers[known], kind="stable")]
    now, after = order[:-1], order[1:]
    if not sample.whole:  # neighbours in the sample are neighbours in the table
        beside = np.abs(sample.row[after] - sample.row[now]) == 1
        now, after = now[beside], after[beside]
    if len(now) < 100:
        return
    for column, other in sample.inputs().items():
        if column == name or names_rows(sample, column):
            continue
        ahead, here = (_agreement(sample, other, now, t) for t in (after, now))
        if ahead >= (EXACT if sample.regression else 0.98) and ahead > here:
            yield Finding("future", (column,), "block", (
                f"{column!r} is the {sample.target!r} of the next row by {name!r}"),
                {"r2" if sample.regression else "kappa": round(ahead, 5), "rows": len(now)},
                drop(column))


def _agreement(sample: Sample, side: Side, rows: Ints, of: Ints) -> float:
    """How far a column in some rows is the target in others."""
    if sample.numbers is not None:
        if side.numbers is None:
            return 0.0
        x, y = side.numbers[rows], sample.numbers[of]
        both = ~np.isnan(x)
        if both.mean() < 0.9 or np.ptp(x[both]) == 0 or np.ptp(y[both]) == 0:
            return 0.0
        return float(np.corrcoef(x[both], y[both])[0, 1] ** 2)
    codes, labels = side.codes[rows], sample.labels[of]
    known = codes >= 0
    if side.distinct != len(sample.classes) or known.mean() < 0.9:
        return 0.0
    return kappa(renamed(codes[known], labels[known]), labels[known])
