"""Columns that together give the target away: sums, products, encodings made of the target."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from gpupipe.inspect.findings import Finding
from gpupipe.inspect.leaks_columns import EXACT, certain
from gpupipe.inspect.leaks_power import power_of
from gpupipe.inspect.leaks_sample import Sample
from gpupipe.inspect.relations import Codes, Floats, Side, linear_sum
from gpupipe.inspect.text import drop

PLAIN, WEIGHTED = 0.98, 0.999
"""R squared of a sum with weights of about 1 and -1, and with any weights, that stops a run."""
TIMES, GROUPS, NUMBERS = 4, 20, 60
"""At most so many timestamps, groupings and numbers are held against each other."""
ROUNDING = 2e-3
"""What an encoding may stray, as a share of what the level means do: it may be rounded."""


def function_findings(sample: Sample, told: Sequence[str]) -> Iterator[Finding]:
    """What several features tell together; ``told`` are those that tell it alone."""
    inputs = {n: s for n, s in sample.inputs().items() if n not in told}
    yield from _sums(sample, inputs)
    yield from _encodings(sample, inputs)
    yield from _intervals(sample)


def _sums(sample: Sample, inputs: dict[str, Side]) -> Iterator[Finding]:
    if sample.numbers is None:
        return
    plain = {n: s for n, s in inputs.items()
             if sample.dtypes[n] != "timestamp" and n not in sample.unique}
    found = linear_sum(plain, sample.numbers)
    if found:
        names, share, ones = found
        sure = share >= WEIGHTED or (ones and share >= PLAIN)
        yield Finding("target-sum", tuple(names), "block" if sure else "warn", (
            f"{sample.target!r} is {'a' if ones else 'nearly a weighted'} sum of "
            f"{', '.join(map(repr, names))} (R2 {share:.4f})"),
            {"r2": round(share, 5), "plain": ones, "rows": sample.rows}, drop(names[0]))
        return
    if np.nanmin(sample.numbers) <= 0:
        return
    logs = {n: Side(s.codes, s.distinct, np.log(s.numbers)) for n, s in plain.items()
            if s.numbers is not None and s.distinct > 2 and np.nanmin(s.numbers) > 0}
    found = linear_sum(logs, np.log(sample.numbers))
    if found:
        names, share, _ = found
        yield Finding("target-product", tuple(names), "block" if share >= EXACT else "warn", (
            f"{sample.target!r} is {'' if share >= EXACT else 'nearly '}a product (or ratio) of "
            f"{', '.join(map(repr, names))} (R2 of logarithms {share:.5f})"),
            {"r2": round(share, 6), "rows": sample.rows}, drop(names[0]))


def _encodings(sample: Sample, inputs: dict[str, Side]) -> Iterator[Finding]:
    """Columns made of the target itself: its mean by level, or all but the row's own share."""
    numbers = [n for n, s in inputs.items()
               if sample.dtypes[n].startswith("float") and s.distinct > 4][:NUMBERS]
    groups = [n for n, s in sample.sides.items()
              if sample.dtypes[n] in ("string", "int64", "bool") and n not in sample.unique
              and 2 <= s.distinct <= sample.rows / 2]
    groups = sorted(groups, key=lambda n: -sample.sides[n].distinct)[:GROUPS]
    targets = [sample.numbers] if sample.numbers is not None else [
        (sample.labels == c).astype(np.float64)
        for c in ([1] if len(sample.classes) == 2 else range(min(4, len(sample.classes))))
    ]
    inside = {g: within(sample.sides[g].codes, [sample.sides[n] for n in numbers], targets)
              for g in groups}
    for i, name in enumerate(numbers):
        side = sample.sides[name]
        level = next((g for g in (name, *groups) if sample.whole and any(
            level_means(sample.sides[g].codes, side, y) for y in targets)), None)
        if level is not None:
            of = "its own values" if level == name else repr(level)
            yield Finding("target-encoding", (name,), "block", (
                f"{name!r} is the mean of {sample.target!r} by {of}, rows that judge included: "
                "the step target_encode learns it within each fold"),
                {"levels": sample.sides[level].distinct, "rows": sample.rows}, drop(name))
            continue
        best = max(groups, key=lambda g: inside[g][i], default=None)
        if best is not None and inside[best][i] >= 0.999:
            yield Finding("target-encoding", (name,), "block", (
                f"within each value of {best!r}, {name!r} gives {sample.target!r} away "
                f"(R2 {inside[best][i]:.4f}): was it made of the target?"),
                {"r2": round(float(inside[best][i]), 5), "by": best, "rows": sample.rows},
                drop(name))


def level_means(codes: Codes, side: Side, target: Floats) -> bool:
    """Whether a column is the target's mean in each level, smoothed or not.

    With n rows and the sum s in a level, and m rows' worth of a prior p, the column is
    x = (s + m p) / (n + m); so s - n x = m (x - p), a straight line in x over all levels
    (m = 0: nothing). Sums over all rows, so that nothing but such a mean fits.
    """
    assert side.numbers is not None
    known = (codes >= 0) & np.isfinite(side.numbers)
    codes, x, y = codes[known], side.numbers[known], target[known]
    size = int(codes.max(initial=-1)) + 1
    rows = np.bincount(codes, minlength=size).astype(np.float64)
    held = rows > 0
    mean = np.bincount(codes, x, size)[held] / rows[held]
    if held.sum() < 5 or rows[held].mean() < 1.2 or np.abs(x - mean[np.cumsum(held)[codes] - 1]
                                                           ).max() > 1e-9 + 1e-6 * np.ptp(x):
        return False
    sums = np.bincount(codes, y, size)[held]
    strays = sums - rows[held] * y.mean()
    left = sums - rows[held] * mean
    design = np.column_stack([np.ones(len(mean)), mean])
    left = left - design @ np.linalg.lstsq(design, left, rcond=None)[0]
    spread = float((strays**2).sum())
    return spread > 0 and float((left**2).sum()) <= ROUNDING**2 * spread


def within(codes: Codes, sides: Sequence[Side], targets: Sequence[Floats]) -> Floats:
    """For each column the mean R squared ``[k]`` of its line to the target within a group, over
    groups of five rows and more in which the target varies; the best of the targets."""
    best = np.zeros(len(sides))
    if not sides:
        return best
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] >= 0]
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    rows = np.diff(np.append(starts, len(order)))
    if not len(rows):
        return best
    x = np.column_stack([np.nan_to_num(s.numbers[order]) for s in sides])  # type: ignore[index]
    place = np.repeat(np.arange(len(rows)), rows)
    x -= (np.add.reduceat(x, starts) / rows[:, None])[place]
    xx = np.add.reduceat(x**2, starts)
    for target in targets:
        y = target[order]
        y = y - (np.add.reduceat(y, starts) / rows)[place]
        yy = np.add.reduceat(y**2, starts)
        told = (rows >= 5) & (yy > 1e-9 * max(float(target.var()), 1e-300))
        # A group says more the more it varies beyond what a line through few points fits.
        if rows[told].sum() < 0.3 * len(codes):
            continue
        xy = np.add.reduceat(x * y[:, None], starts)[told]
        share = xy**2 / np.maximum(xx[told] * yy[told][:, None], 1e-300)
        best = np.maximum(best, (share * rows[told][:, None]).sum(axis=0) / rows[told].sum())
    return best


def _intervals(sample: Sample) -> Iterator[Finding]:
    """Timestamps whose distance tells the target, and those that come after the first one."""
    times = [n for n in sample.sides if sample.dtypes[n] == "timestamp"][:TIMES]
    for first, second in itertools.combinations(times, 2):
        if not {first, second} & set(sample.features):
            continue
        a, b = sample.sides[first].numbers, sample.sides[second].numbers
        assert a is not None and b is not None
        apart = b - a
        power = power_of(sample, side_of(apart))
        if certain(power, sample.regression):
            names = tuple(n for n in (first, second) if n in sample.features)
            yield Finding("target-function", (first, second), "block", (
                f"the time between {first!r} and {second!r} tells {sample.target!r} "
                f"({power.text(sample.regression)})"),
                power.numbers(sample.regression) | {"rows": sample.rows}, drop(names[-1]))
    begin = sample.time if sample.time in times else times[0] if times else None
    for name in times:
        if name == begin or begin is None or name not in sample.features:
            continue
        gap = sample.sides[name].numbers - sample.sides[begin].numbers  # type: ignore[operator]
        gap = gap[~np.isnan(gap)]
        if len(gap) >= 30 and (gap >= 0).mean() >= 0.99 and (gap > 0).mean() >= 0.5:
            yield Finding("later", (name,), "warn", (
                f"{name!r} is later than {begin!r} in {(gap > 0).mean():.1%} of rows: is it known "
                "at the time of predicting?"),
                {"later": round(float((gap > 0).mean()), 4), "than": begin}, drop(name))


def side_of(numbers: Floats) -> Side:
    """Numbers as a column."""
    known = ~np.isnan(numbers)
    values, place = np.unique(numbers[known], return_inverse=True)
    codes = np.full(len(numbers), -1, np.int64)
    codes[known] = place
    return Side(codes, len(values), numbers)
