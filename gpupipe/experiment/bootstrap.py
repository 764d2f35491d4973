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
    values: dict[tuple[str, str], np.ndarray] = {}
    for arm in gathered.arms:
        mine = rows.arms.codes == list(rows.arms.names).index(arm)
        values |= {(name, arm): made for name, made in _values(
            rows, mine, hashes, readings, resamples, seed).items()}
    for metric in metrics:
        for effect in metric["effects"]:
            control, treatment = (values[metric["name"], a]
                                  for a in (gathered.arms[0], effect["arm"]))
            effect["bootstrap"] = None if effect["why"] is not None else {
                "difference": _ends(treatment - control, gathered.config.alpha),
                "relative": _ends(treatment / control - 1, gathered.config.alpha)
                if effect["relative"] else None,
            }


def _values(
    rows: UnitRows, mine: np.ndarray, hashes: np.ndarray, readings: Mapping[str, Reading],
    resamples: int, seed: int,
) -> dict[str, np.ndarray]:
    """Every metric of an arm in each resample: float64 ``[resamples]``."""
    variables = {name: _variables(rows, mine, reading) for name, reading in readings.items()}
    made: dict[str, list[np.ndarray]] = {name: [] for name in readings}
    for weights in _weights(hashes[mine], resamples, seed):
        for name, reading in readings.items():
            # Sums in the units' one order, not by a library that orders them by its threads.
            sums = [np.einsum("ij,j->i", weights, v) for v in variables[name]]
            with np.errstate(invalid="ignore", divide="ignore"):
                value = sums[0] / sums[1]
                if reading.pooled is not None:
                    mean = reading.pooled.mean
                    value = value - reading.theta * (sums[2] / sums[3] - mean[2] / mean[3])
            made[name].append(value)
    return {name: np.concatenate(parts)[:resamples] for name, parts in made.items()}


def _variables(rows: UnitRows, mine: np.ndarray, reading: Reading) -> list[np.ndarray]:
    """Numerator and denominator, and those of the covariate, for each unit of an arm.

    A unit without the metric has 0 in all of them.
    """
    metric = reading.metric
    columns = [rows.values[key][mine] for key in needed(metric)]
    own = 1 if metric.denominator is None else 2
    known = np.isfinite(np.stack(columns[:own])).all(axis=0)
    counts = np.ones_like(known) if metric.missing == "zero" else known
    made = [np.where(known, c, 0.0) for c in columns[:own]]
    made += [counts.astype(np.float64)] * (2 - own)
    if columns[own:]:
        there = np.isfinite(np.stack(columns[own:])).all(axis=0)
        filled = [np.where(there, c, f) for c, f in zip(columns[own:], reading.fill, strict=True)]
        filled += [np.ones(len(known))] * (2 - len(filled))
        made += [np.where(counts, c, 0.0) for c in filled]
    return made


def _weights(hashes: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Poisson counts ``[some, units]`` for all resamples (or up to three more), some at a time.

    Each 16 bits of a hash are one count, so that a hash serves four resamples; probabilities are
    kept to a 65,536th.
    """
    bounds = np.cumsum([math.exp(-1) / math.factorial(k) for k in range(18)])
    counts = np.searchsorted(bounds, (np.arange(1 << 16) + 0.5) / (1 << 16), side="right")
    table = counts.astype(np.float64)
    fours = np.arange(-(-resamples // 4), dtype=np.uint64)
    own = mix64(fours + np.uint64(seed) * np.uint64(1 << 32), np)
    step = max(1, _CELLS // (4 * max(1, len(hashes))))
    for start in range(0, len(own), step):
        mixed = mix64(hashes[None, :] ^ own[start : start + step, None], np)
        parts = mixed.astype("<u8").view("<u2").reshape(*mixed.shape, 4)
        yield table[parts.transpose(0, 2, 1)].reshape(-1, len(hashes))


def _ends(values: np.ndarray, alpha: float) -> dict[str, float] | None:
    """The percentile interval; None where a resample has no value."""
    if not np.isfinite(values).all():
        return None
    low, high = np.quantile(values, [alpha / 2, 1 - alpha / 2])
    return {"low": float(low), "high": float(high)}
