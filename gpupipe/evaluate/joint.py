"""One metric of many predictions of the same rows, under the same resamples.

Units of rows are resampled once for all predictions: each row is a unit, or, where there are many
rows, a random group of them (see `samples`). What a metric needs of a unit is a few sums, so that
all resamples of all predictions are one product of matrices. ROC AUC and average precision are
no functions of sums; to first order they are sums of means of one number a row, which give the
exact value on the rows themselves:

- ROC AUC by placement values (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44);
- average precision by the derivative of each positive's precision with respect to the weights of
  the rows at or above it (the infinitesimal jackknife: Efron 1982, The Jackknife, the Bootstrap
  and Other Resampling Plans, ch. 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from gpupipe.engine.arrays import Array, namespace, to_host
from gpupipe.evaluate.cells import binary_losses, scored
from gpupipe.evaluate.draws import multinomial_counts
from gpupipe.evaluate.groups import ClassColumns, Columns, random_groups
from gpupipe.evaluate.metrics import Metric, Task, choose
from gpupipe.evaluate.samples import UNITS, checked, columns_of

WIDTH = 2048  # columns of sums that are multiplied at a time


@dataclass(frozen=True)
class Joint:
    """One metric of M predictions.

    Attributes
    ----------
    value : float64 ``[M]``, on all rows.
    inside : float64 ``[R, M]``, on each of R resamples of the units.
    outside : float64 ``[R, M]``, on the units that a resample left out.
        NaN where the metric is not defined; no resamples (R = 0) where it has no bootstrap.
    """

    value: np.ndarray
    inside: np.ndarray
    outside: np.ndarray


def joint(
    task: Task, metric: str, y: Array, predictions: Sequence[Array], weight: Array | None = None,
    *, resamples: int = 1000, seed: int = 0, units: int = UNITS,
) -> Joint:
    """A metric of each prediction, with resamples that all of them share.

    Predictions are as `scores.evaluate` takes them, of float32 or float64. Raises ConfigError for
    an unknown metric or one of another task, DataError for arrays that do not fit.
    """
    (m,) = choose(task, [metric])
    if m.no_interval:
        resamples = 0
    counts = np.empty((0, 1))
    values, inside, outside = [], [], []
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for block in _blocks(task, m, y, predictions, weight, units):
            sums = np.concatenate([one.sums for one in block], axis=1)
            if not len(counts) and resamples:
                counts = multinomial_counts(np.random.default_rng(seed), resamples, len(sums))
            total = sums.sum(axis=0)[None]
            values.append(_apart(block, total)[0])
            inside.append(_apart(block, counts @ sums if resamples else total[:0]))
            outside.append(_apart(block, (counts == 0) @ sums if resamples else total[:0]))
    return Joint(np.concatenate(values), np.concatenate(inside, axis=1),
                 np.concatenate(outside, axis=1))


def exact(
    task: Task, metric: str, y: Array, prediction: Array, weight: Array | None = None
) -> float:
    """The metric on all rows; NaN where it is not defined."""
    (m,) = choose(task, [metric])
    y, (prediction,), weight = checked(task, y, [prediction], weight)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        one = _units(measure(task, m, y, prediction, weight), namespace(y).zeros(len(y), int), 1)
        return float(one.value(one.sums)[0])


class Measure(Protocol):
    """What a prediction adds up by group of rows, and the metric of such sums."""

    def by_group(self, group: Array, groups: int) -> dict[str, np.ndarray]: ...
    def value(self, sums: dict[str, np.ndarray]) -> np.ndarray: ...


def measure(task: Task, m: Metric, y: Array, p: Array, weight: Array) -> Measure:
    """The `Measure` of a metric of checked arrays."""
    if task != "binary":
        return _Formula(columns_of(task, y, p, weight, [m.name]), m)
    if m.name in MEANS:
        return _Means(y, p, weight, m.name)
    # What a label is enough for, of two classes.
    return _Formula(ClassColumns(y, namespace(p).stack([1 - p, p], axis=1), weight, [m.name]), m)


@dataclass(frozen=True)
class _Formula:
    """A metric's own formula of a table of sums."""

    columns: Columns
    metric: Metric

    def by_group(self, group: Array, groups: int) -> dict[str, np.ndarray]:
        return self.columns.by_group(group, groups)

    def value(self, sums: dict[str, np.ndarray]) -> np.ndarray:
        return np.asarray(to_host(self.metric.compute(self.columns.table(sums))), dtype=float)


class _Means:
    """A binary metric that is a sum of weighted means of one number a row."""

    def __init__(self, y: Array, p: Array, weight: Array, name: str) -> None:
        self.parts = [(values * over, over) for values, over in MEANS[name](y, p, weight)]

    def by_group(self, group: Array, groups: int) -> dict[str, np.ndarray]:
        xp = namespace(group)

        def summed(at: int) -> np.ndarray:
            return np.stack([to_host(xp.bincount(group, weights=part[at], minlength=groups))
                             for part in self.parts], axis=1)

        return {"sum": summed(0), "weight": summed(1)}

    def value(self, sums: dict[str, np.ndarray]) -> np.ndarray:
        return np.asarray((sums["sum"] / sums["weight"]).sum(axis=1))


def _roc_auc(y: Array, p: Array, weight: Array) -> list[tuple[Array, Array]]:
    """Of positives the share of negatives below them; of negatives the centred converse."""
    table, _, code = scored(y, p, weight)
    neg, pos = table.neg[0], table.pos[0]
    below = (neg.cumsum() - neg / 2) / neg.sum()
    above = 1 - (pos.cumsum() - pos / 2) / pos.sum()
    area = (pos * below).sum() / pos.sum()
    return [(below[code], weight * y), (above[code] - area, weight * (1 - y))]


def _average_precision(y: Array, p: Array, weight: Array) -> list[tuple[Array, Array]]:
    """Of positives the precision at their score; of all rows what they do to it."""
    table, _, code = scored(y, p, weight)
    neg, pos = table.neg[0], table.pos[0]
    hits, seen = pos[::-1].cumsum()[::-1], (neg + pos)[::-1].cumsum()[::-1]
    precision = hits / seen
    gain = (pos / seen).cumsum() / pos.sum()
    cost = (pos * precision / seen).cumsum() / pos.sum()
    return [(precision[code], weight * y), ((gain[code] * y - cost[code]) * weight.sum(), weight)]


def _mean_loss(name: str, y: Array, p: Array, weight: Array) -> list[tuple[Array, Array]]:
    return [(binary_losses(y, p)[name], weight)]


MEANS: dict[str, Callable[[Array, Array, Array], list[tuple[Array, Array]]]] = {
    "roc_auc": _roc_auc,
    "average_precision": _average_precision,
    "log_loss": partial(_mean_loss, "log_loss"),
    "brier_score_loss": partial(_mean_loss, "brier_score_loss"),
}
"""Binary metrics as means: for each, numbers by row and the weights that they are averaged with."""


@dataclass(frozen=True)
class _Summed:
    """A prediction's sums by unit ``[units, columns]``, and the metric of rows of such sums."""

    measure: Measure
    sums: np.ndarray
    layout: tuple[tuple[str, int], ...]

    def value(self, sums: np.ndarray) -> np.ndarray:
        named, at = {}, 0
        for name, width in self.layout:
            named[name] = sums[:, at : at + width]
            at += width
        return self.measure.value(named)


def _units(measured: Measure, group: Array, groups: int) -> _Summed:
    parts = measured.by_group(group, groups)
    return _Summed(measured, np.concatenate(list(parts.values()), axis=1),
                   tuple((name, part.shape[1]) for name, part in parts.items()))


def _blocks(
    task: Task, m: Metric, y: Array, predictions: Sequence[Array], weight: Array | None, units: int
) -> Iterator[list[_Summed]]:
    """The predictions' sums by unit, some predictions at a time."""
    block: list[_Summed] = []
    width, group, groups = 0, None, 0
    for prediction in predictions:
        own_y, (p,), w = checked(task, y, [prediction], weight)
        if group is None:
            rows, xp = len(own_y), namespace(own_y)
            groups = min(rows, units)
            group = xp.arange(rows) if rows <= units else random_groups(xp, rows, groups)
        one = _units(measure(task, m, own_y, p, w), group, groups)
        if block and width + one.sums.shape[1] > WIDTH:
            yield block
            block, width = [], 0
        block.append(one)
        width += one.sums.shape[1]
    yield block


def _apart(block: list[_Summed], sums: np.ndarray) -> np.ndarray:
    """The metric of each prediction of a block, ``[R, predictions]``."""
    ends = np.cumsum([one.sums.shape[1] for one in block])[:-1]
    return np.stack([one.value(own) for one, own in
                     zip(block, np.split(sums, ends, axis=1), strict=True)], axis=1)
