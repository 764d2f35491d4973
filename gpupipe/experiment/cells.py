"""Units to sums: for every metric, arm and slice what an analysis needs, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from gpupipe.engine.frames import Array, Frames
from gpupipe.experiment.config import MetricConfig
from gpupipe.experiment.effects import (
    Estimate,
    adjusted,
    mean_of,
    proportion_of,
    ratio_of,
    theta_of,
)
from gpupipe.experiment.sums import Moments, Sums, sums_of

K = TypeVar("K")

EVERYONE = ("", "")
"""The slice that all units are in."""
Cell = tuple[str, str, str, str]
"""Metric, slice, level, arm."""


@dataclass(frozen=True)
class Labels:
    """Which of ``names`` each unit has: int64 codes ``[n]``, -1 for none."""

    codes: Array
    names: Sequence[str]


@dataclass(frozen=True)
class UnitRows:
    """Units, one a row: arm, slices, and values by (column, aggregate), float64 with NaN."""

    arms: Labels
    slices: Mapping[str, Labels]
    values: Mapping[tuple[str, str], Array]


@dataclass(frozen=True)
class Tally:
    """Sums by cell, units by arm, and units without a value by (metric, arm)."""

    cells: dict[Cell, Sums] = field(default_factory=dict)
    units: dict[str, int] = field(default_factory=dict)
    missing: dict[tuple[str, str], int] = field(default_factory=dict)

    def merge(self, other: Tally) -> Tally:
        """The tally of both sets of units."""
        cells = dict(self.cells)
        for cell, sums in other.cells.items():
            cells[cell] = cells[cell].merge(sums) if cell in cells else sums
        return Tally(cells, added(self.units, other.units), added(self.missing, other.missing))


def added(a: Mapping[K, int], b: Mapping[K, int]) -> dict[K, int]:
    """Counts by key of both."""
    return {k: a.get(k, 0) + b.get(k, 0) for k in {**a, **b}}


def tally(rows: UnitRows, metrics: Sequence[MetricConfig], fx: Frames) -> Tally:
    """The sums of some units."""
    arms = rows.arms
    known = arms.codes >= 0
    per_arm = fx.to_host(fx.xp.bincount(arms.codes[known], minlength=len(arms.names)))
    made = Tally(units={a: int(c) for a, c in zip(arms.names, per_arm, strict=True) if c})
    groups = [(EVERYONE[0], Labels(fx.xp.zeros_like(arms.codes), (EVERYONE[1],))),
              *rows.slices.items()]
    for metric in metrics:
        variables, valid = _variables(metric, rows.values, fx)
        absent = fx.xp.bincount(arms.codes[known & ~valid], minlength=len(arms.names))
        for arm, count in zip(arms.names, fx.to_host(absent), strict=True):
            if count:
                made.missing[metric.name, arm] = int(count)
        for name, labels in groups:
            bucket = arms.codes * len(labels.names) + labels.codes
            bucket = fx.xp.where(valid & known & (labels.codes >= 0), bucket, -1)
            sums = iter(sums_of(variables, bucket, len(arms.names) * len(labels.names), fx))
            for arm in arms.names:
                for level in labels.names:
                    own = next(sums)
                    if own.n:
                        made.cells[metric.name, name, level, arm] = own
    return made


def needed(metric: MetricConfig) -> list[tuple[str, str]]:
    """The columns that a metric is made of, and how a unit's rows become one."""
    aggregate: str = metric.aggregate
    if aggregate == "auto":
        aggregate = "max" if metric.kind == "proportion" else "sum"
    wanted = [(metric.source, aggregate)]
    if metric.denominator is not None:
        rows = metric.denominator == "rows"
        wanted.append((metric.source, "count") if rows else (metric.denominator, "sum"))
    if metric.covariate is not None:
        ratio = metric.covariate_denominator is not None
        wanted.append((metric.covariate, "sum" if ratio else "mean"))
        if ratio:
            wanted.append((metric.covariate_denominator or "", "sum"))
    return wanted


def _variables(
    metric: MetricConfig, values: Mapping[tuple[str, str], Array], fx: Frames
) -> tuple[list[Array], Array]:
    """The variables whose sums are kept, each without gaps, and which units have the metric.

    Those of a covariate are 0 where it is missing, and one more says where it is not.
    """
    xp = fx.xp
    columns = [values[key] for key in needed(metric)]
    own = 1 if metric.denominator is None else 2
    valid = xp.isfinite(columns[0])
    for column in columns[1:own]:
        valid = valid & xp.isfinite(column)
    variables = [xp.where(valid, c, 0.0) for c in columns[:own]]
    if metric.missing == "zero":
        valid = xp.ones_like(valid)
    if columns[own:]:
        there = xp.isfinite(columns[own])
        for column in columns[own + 1 :]:
            there = there & xp.isfinite(column)
        variables += [xp.where(there, c, 0.0) for c in columns[own:]]
        variables.append(there.astype("float64"))
    return variables, valid


@dataclass(frozen=True)
class Reading:
    """How a metric's sums are read, the same for all arms and slices.

    Attributes
    ----------
    fill : what a covariate's variables are where it is missing: their means over all units.
    pooled : the moments of all arms together, where there is a covariate.
    theta : the covariate's coefficient; 0 without one.
    """

    metric: MetricConfig
    fill: np.ndarray
    pooled: Moments | None = None
    theta: float = 0.0

    @classmethod
    def of(cls, metric: MetricConfig, everyone: Sums) -> Reading:
        """From the sums of all arms together."""
        if metric.covariate is None:
            return cls(metric, np.zeros(0))
        own = 1 if metric.denominator is None else 2
        there = everyone.first[-1]
        fill = np.array([float(s / there) if there else 0.0 for s in everyone.first[own:-1]])
        pooled = _moments(metric, everyone, fill)
        return cls(metric, fill, pooled, theta_of(pooled))

    def plain(self, sums: Sums) -> Estimate:
        """The metric as it is."""
        moments = sums.moments() if self.pooled is None else (
            _moments(self.metric, sums, self.fill))
        if self.metric.kind == "ratio":
            return ratio_of(moments)
        return proportion_of(moments) if self.metric.kind == "proportion" else mean_of(moments)

    def estimate(self, sums: Sums) -> Estimate:
        """The metric, without what its covariate explains where it has one."""
        if self.pooled is None:
            return self.plain(sums)
        return adjusted(_moments(self.metric, sums, self.fill), self.pooled, self.theta)


def _moments(metric: MetricConfig, sums: Sums, fill: np.ndarray) -> Moments:
    """Moments of numerator, denominator, and the covariate's, from the variables kept.

    What is not kept is 1; a missing covariate is ``fill``: x = x0 + fill (1 - there).
    """
    k = len(sums.first)
    own = 1 if metric.denominator is None else 2
    matrix, offset = np.zeros((4, k)), np.array([0.0, 1.0, 0.0, 1.0])
    matrix[0, 0] = 1
    if own == 2:
        matrix[1, 1], offset[1] = 1, 0
    for i, value in enumerate(fill):
        matrix[2 + i, own + i], matrix[2 + i, k - 1], offset[2 + i] = 1, -value, value
    return sums.moments().mapped(matrix, offset)
