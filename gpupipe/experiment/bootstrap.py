"""Intervals by resampling units: clusters of rows count together, whatever the metric's law.

The Poisson bootstrap: in each resample a unit counts as often as a Poisson variable of mean 1 says
(Chamandy, Muralidharan, Najmi and Naidu, "Estimating uncertainty for massive data streams", 2012).
That number is a hash of the unit's id, the resample's number and the seed, so a resample is the
same whatever the order of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gpupipe.engine.hashing import mix64
from gpupipe.errors import ConfigError
from gpupipe.experiment.cells import Reading, UnitRows, needed
from gpupipe.experiment.gather import Gathered
from gpupipe.experiment.units import hashed_ids

_CELLS = 1 << 22
"""Weights that are in memory at once."""


def resampled(
    gathered: Gathered, metrics: list[dict[str, Any]], readings: Mapping[str, Reading],
    resamples: int, seed: int,
) -> None:
    """Add percentile intervals of differences and relative effects to each metric's effects.

    A covariate's coefficient stays that of all units. ConfigError where units are not known.
    """
    rows, ids = gathered.unit_rows, gathered.ids
    if rows is None or ids is None:
        raise ConfigError("resampling needs the unit's column, and every row is a unit here",
                          hint="--unit user_id")
    if resamples < 100:
        raise ConfigError(f"{resamples} resamples are too few for an interval",
                          hint="--bootstrap 2000")
    hashes = hashed_ids(ids)
    names = list(rows.arms.names)
    for metric in metrics:
        reading = readings[metric["name"]]
        values = {}
        for arm in gathered.arms:
            mine = rows.arms.codes == names.index(arm)
            values[arm] = _values(rows, mine, hashes, reading, resamples, seed)
        for effect in metric["effects"]:
            control, treatment = values[gathered.arms[0]], values[effect["arm"]]
            effect["bootstrap"] = None if effect["why"] is not None else {
                "difference": _ends(treatment - control, gathered.config.alpha),
                "relative": _ends(treatment / control - 1, gathered.config.alpha)
                if effect["relative"] else None,
            }


def _values(
    rows: UnitRows, mine: np.ndarray, hashes: np.ndarray, reading: Reading, resamples: int,
    seed: int,
) -> np.ndarray:
    """The metric of an arm in each resample: float64 ``[resamples]``."""
    metric = reading.metric
    columns = [rows.values[key][mine] for key in needed(metric)]
    own = 1 if metric.denominator is None else 2
    valid = np.isfinite(np.stack(columns[:own])).all(axis=0)
    if metric.missing == "zero":
        columns[:own] = [np.where(valid, c, 0.0) for c in columns[:own]]
        valid = np.ones_like(valid)
    tops = [c[valid] for c in columns[:own]]
    variables = [tops[0], tops[1] if own == 2 else np.ones(int(valid.sum()))]
    if columns[own:]:
        there = np.isfinite(np.stack(columns[own:])).all(axis=0)[valid]
        filled = [np.where(there, c[valid], f)
                  for c, f in zip(columns[own:], reading.fill, strict=True)]
        variables += [filled[0], filled[1] if len(filled) == 2 else np.ones(int(valid.sum()))]
    made = []
    for weights in _weights(hashes[mine][valid], resamples, seed):
        # Sums in the units' one order, not by a library that orders them by its threads.
        sums = [(weights * v).sum(axis=1) for v in variables]
        value = sums[0] / sums[1]
        if reading.pooled is not None and len(sums) == 4:
            mean = reading.pooled.mean
            value = value - reading.theta * (sums[2] / sums[3] - mean[2] / mean[3])
        made.append(value)
    return np.concatenate(made)


def _weights(hashes: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Poisson counts ``[some, units]`` for all resamples, some at a time."""
    bounds = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(18)])
    own = mix64(np.arange(resamples, dtype=np.uint64) + np.uint64(seed) * np.uint64(1 << 32), np)
    step = max(1, _CELLS // max(1, len(hashes)))
    for start in range(0, resamples, step):
        mixed = mix64(hashes[None, :] ^ own[start : start + step, None], np)
        uniform = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
        yield np.searchsorted(bounds, uniform, side="right").astype(np.float64)


def _ends(values: np.ndarray, alpha: float) -> dict[str, float] | None:
    """The percentile interval; None where a resample has no value."""
    if not np.isfinite(values).all():
        return None
    low, high = np.quantile(values, [alpha / 2, 1 - alpha / 2])
    return {"low": float(low), "high": float(high)}
