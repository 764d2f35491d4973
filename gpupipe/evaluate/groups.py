"""Multiclass and regression samples: sums over random groups of rows, multinomial counts.

See `samples` for the method and its sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from gpupipe.engine.arrays import Array, namespace, to_host
from gpupipe.evaluate.cells import EPS, scored
from gpupipe.evaluate.draws import Table, blocks, multinomial_counts
from gpupipe.evaluate.metrics import Classified, Summed


class GroupSample:
    """Random groups of rows, or single rows where they are few; sums by group and column."""

    def __init__(self, predictions: list[Columns], weight: Array, units: int) -> None:
        xp, rows = namespace(weight), len(weight)
        groups = min(rows, units)
        group = xp.arange(rows) if rows <= units else random_groups(xp, rows, groups)
        self.groups, self.predictions = groups, predictions
        parts = [p.by_group(group, groups) for p in predictions]
        self.layout = [{name: a.shape[1] for name, a in part.items()} for part in parts]
        self.sums = np.concatenate([a for part in parts for a in part.values()], axis=1)
        self.exact = self.coarse = self._tables(self.sums.sum(axis=0)[None])

    def resampled(self, resamples: int, seed: int) -> Iterator[list[Table]]:
        rng = np.random.default_rng(seed)
        for size in blocks(resamples, self.groups):
            yield self._tables(multinomial_counts(rng, size, self.groups) @ self.sums)

    def _tables(self, sums: np.ndarray) -> list[Table]:
        tables, at = [], 0
        for prediction, layout in zip(self.predictions, self.layout, strict=True):
            named = {}
            for name, width in layout.items():
                named[name] = sums[:, at : at + width]
                at += width
            tables.append(prediction.table(named))
        return tables


class Columns(Protocol):
    """What one prediction adds up, by group, and the table that those sums make."""

    def by_group(self, group: Array, groups: int) -> dict[str, np.ndarray]: ...
    def table(self, sums: dict[str, np.ndarray]) -> Table: ...


class ClassColumns:
    def __init__(self, y: Array, p: Array, weight: Array, names: Sequence[str]) -> None:
        xp = namespace(p)
        self.y, self.p, self.weight, self.classes = y, p, weight, p.shape[1]
        own = xp.take_along_axis(p, y[:, None], axis=1)
        later = xp.arange(self.classes)[None, :] > y[:, None]
        # scikit-learn's order: among equal scores the later class comes first.
        ahead = ((p > own) | ((p == own) & later)).sum(1)
        self.losses = {
            "log_loss": -xp.log(xp.clip(own[:, 0], EPS, 1 - EPS)),
            "brier_score_loss": (p**2).sum(1) - 2 * own[:, 0] + 1,
            "top_2": ahead < 2, "top_3": ahead < 3, "top_5": ahead < 5,
        }
        ranked = any(name.startswith("roc_auc") for name in names)
        self.placed = placements(y, p, weight) if ranked else None

    def by_group(self, group: Array, groups: int) -> dict[str, np.ndarray]:
        xp, best, k = namespace(self.p), self.p.argmax(axis=1), self.classes

        def cross(code: Array, weight: Array) -> np.ndarray:
            flat = xp.bincount(group * k + code, weights=weight, minlength=groups * k)
            return to_host(flat).reshape(groups, k)

        sums = {
            "hit": cross(self.y, self.weight * (best == self.y)),
            "true": cross(self.y, self.weight),
            "predicted": cross(best, self.weight),
        }
        for name, loss in self.losses.items():
            sums[name] = _group_sum(xp, group, groups, self.weight * loss)
        if self.placed is not None:
            own, rest = self.placed
            sums["own"] = cross(self.y, self.weight * own)
            columns = [_group_sum(xp, group, groups, self.weight * rest[:, c]) for c in range(k)]
            sums["rest"] = np.concatenate(columns, axis=1)
        return sums

    def table(self, sums: dict[str, np.ndarray]) -> Classified:
        placed = np.stack([sums["own"], sums["rest"]], axis=2) if "own" in sums else None
        losses = {name: sums[name][:, 0] for name in self.losses}
        return Classified(sums["hit"], sums["true"], sums["predicted"], losses, placed)


def placements(y: Array, p: Array, weight: Array) -> tuple[Array, Array]:
    """Placement values, whose means by class make the one-vs-rest ROC AUCs and vary as they do.

    ``own`` float64[n]: for a row of class c, the share of other classes' rows scored below it on
    c (ties half). ``rest`` float64[n, C]: for a row not of class c, the share of c's rows scored
    above it, less c's AUC; 0 for c's own rows. The mean of ``own`` over c plus the mean of
    ``rest[:, c]`` over the others is c's AUC, and to first order its bootstrap (DeLong, DeLong &
    Clarke-Pearson 1988, Biometrics 44).
    """
    xp = namespace(p)
    own, rest = xp.zeros(len(y)), xp.zeros(p.shape)
    for c in range(p.shape[1]):
        mine = y == c
        table, _, code = scored(mine, p[:, c], weight)
        neg, pos = table.neg[0], table.pos[0]
        if float(neg.sum()) <= 0 or float(pos.sum()) <= 0:
            continue
        below = ((neg.cumsum() - neg / 2) / neg.sum())[code]
        above = (1 - (pos.cumsum() - pos / 2) / pos.sum())[code]
        own = xp.where(mine, below, own)
        auc = (weight * mine * below).sum() / pos.sum()
        rest[:, c] = xp.where(mine, 0.0, above - auc)
    return own, rest


class ValueColumns:
    def __init__(self, y: Array, p: Array, weight: Array, names: Sequence[str]) -> None:
        xp = namespace(p)
        error = p - y
        self.weight, self.absolute = weight, abs(error)
        centred = y - (weight * y).sum() / weight.sum()
        self.losses = {
            "error": error, "squared": error**2, "absolute": self.absolute,
            "target": centred, "target_squared": centred**2, "scale": y**2 + xp.zeros(len(y)),
            "percentage": self.absolute / abs(y) if bool((y != 0).all()) else xp.nan * y,
        }
        if "root_mean_squared_log_error" in names:
            fits = bool((y > -1).all()) and bool((p > -1).all())
            self.losses["squared_log"] = (
                (xp.log1p(p) - xp.log1p(y)) ** 2 if fits else xp.full(len(y), xp.nan)
            )
        self.largest = float(self.absolute.max())
        asked = "median_absolute_error" in names
        self.grid = median_grid(self.absolute, weight) if asked else xp.empty(0)

    def by_group(self, group: Array, groups: int) -> dict[str, np.ndarray]:
        xp, k = namespace(self.weight), len(self.grid) + 1
        bucket = xp.searchsorted(self.grid, self.absolute)
        flat = xp.bincount(group * k + bucket, weights=self.weight, minlength=groups * k)
        sums = {
            "weight": _group_sum(xp, group, groups, self.weight),
            "below": np.cumsum(to_host(flat).reshape(groups, k), axis=1)[:, :-1],
        }
        for name, loss in self.losses.items():
            sums[name] = _group_sum(xp, group, groups, self.weight * loss)
        return sums

    def table(self, sums: dict[str, np.ndarray]) -> Summed:
        losses = {name: sums[name][:, 0] for name in self.losses}
        grid = to_host(self.grid)
        return Summed(sums["weight"][:, 0], losses, grid, sums["below"], self.largest)


def median_grid(values: Array, weight: Array, points: int = 257) -> Array:
    """Order statistics within 6 standard errors of the weighted median, the middle included."""
    xp = namespace(values)
    order = xp.argsort(values)
    ordered, share = values[order], xp.cumsum(weight[order]) / weight.sum()
    error = float((weight**2).sum()) ** 0.5 / (2 * float(weight.sum()))
    edges = xp.searchsorted(share, xp.asarray([0.5 - 6 * error, 0.5 - 1e-12, 0.5 + 6 * error]))
    low, middle, high = (min(int(e), len(values) - 1) for e in to_host(edges))
    ranks = xp.linspace(low, high, points).round().astype(xp.int64)
    middles = xp.clip(xp.arange(middle - 1, middle + 3), 0, len(values) - 1)
    return ordered[xp.unique(xp.concatenate([ranks, middles]))]


def _group_sum(xp: Array, group: Array, groups: int, values: Array) -> np.ndarray:
    return to_host(xp.bincount(group, weights=values, minlength=groups))[:, None]


def random_groups(xp: Array, rows: int, groups: int) -> Array:
    """A group for each row by its position's hash (SplitMix64, Steele et al. 2014).

    Hashed, because taking every G-th row of sorted data would balance the groups and make the
    intervals too narrow.
    """
    z = (xp.arange(rows, dtype=xp.uint64) + xp.uint64(1)) * xp.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> xp.uint64(30))) * xp.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> xp.uint64(27))) * xp.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> xp.uint64(31))) % xp.uint64(groups)).astype(xp.int64)
