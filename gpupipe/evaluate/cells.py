"""Binary samples: cells of (quantised score, label) under the Poisson bootstrap.

See `samples` for the method and its sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gpupipe.engine.arrays import Array, namespace, to_host
from gpupipe.evaluate.draws import Table, blocks, multinomial_counts
from gpupipe.evaluate.metrics import Scored

EPS = float(np.finfo(np.float64).eps)


def scored(y: Array, p: Array, weight: Array) -> tuple[Scored, Array, Array]:
    """The exact table, the distinct scores, and each row's position among them."""
    xp = namespace(p)
    values, code = xp.unique(p, return_inverse=True)
    total = xp.bincount(code, weights=weight, minlength=len(values))
    pos = xp.bincount(code, weights=weight * y, minlength=len(values))
    losses = {name: (weight * loss).sum()[None] for name, loss in binary_losses(y, p).items()}
    cut = int((values <= 0.5).sum())
    return Scored((total - pos)[None], pos[None], cut, losses), values, code


def binary_losses(y: Array, p: Array) -> dict[str, Array]:
    xp = namespace(p)
    clipped = xp.clip(p, EPS, 1 - EPS)
    return {
        "log_loss": -xp.log(xp.where(y == 1, clipped, 1 - clipped)),
        "brier_score_loss": (p - y) ** 2,
    }


def score_bins(table: Scored, values: Array, bins: int) -> Array:
    """A bin number, ascending from 0, for each distinct score; at most ``bins`` of them.

    A new bin begins with each 4/bins of the rows of either class (what ROC AUC resolves), with
    each step of the logarithm of the rank from the top (what average precision resolves), and
    at 0.5 (so that label metrics are exact).
    """
    xp = namespace(values)
    if len(values) <= bins:
        return xp.arange(len(values))
    neg, pos = table.neg[0], table.pos[0]
    share = pos.cumsum() / max(float(pos.sum()), EPS) + neg.cumsum() / max(float(neg.sum()), EPS)
    from_top = xp.cumsum((neg + pos)[::-1])[::-1]
    depth = xp.log(from_top / from_top[-1])
    keys = [
        xp.floor(share * (bins // 4 - 1)),
        xp.floor(depth * ((bins // 2 - 2) / max(float(depth.max()), EPS))),
        values > 0.5,
    ]
    starts = xp.zeros(len(values), dtype=bool)
    for key in keys:
        starts[1:] |= key[1:] != key[:-1]
    return xp.cumsum(starts)


class BinarySample:
    """Cells of (score bin of each prediction, label), or single rows where they are few."""

    def __init__(self, y: Array, predictions: Sequence[Array], weight: Array, units: int) -> None:
        xp, rows = namespace(y), len(y)
        self.by_row = rows <= units
        bins = units // 2 if len(predictions) == 1 else max(16, int((2 * units) ** 0.5))
        self.exact: list[Table] = []
        self.cuts, codes, widths, losses = [], [], [], []
        for p in predictions:
            table, values, code = scored(y, p, weight)
            binned = xp.arange(len(values)) if self.by_row else score_bins(table, values, bins)
            self.exact.append(table)
            self.cuts.append(int(binned[table.cut - 1]) + 1 if table.cut else 0)
            widths.append(int(binned[-1]) + 1)
            codes.append(binned[code])
            losses.append(binary_losses(y, p))
        self.names = list(losses[0])
        cell, key = self._cells(xp, y, codes, widths)
        count = len(key)
        self.first = to_host(xp.bincount(cell, weights=weight, minlength=count))
        self.second = to_host(xp.bincount(cell, weights=weight**2, minlength=count))
        self.loss, self.noise = _cell_losses(
            xp, [lo[n] for lo in losses for n in self.names], cell, weight, count
        )
        label = np.zeros(count, dtype=np.int64)
        label[to_host(cell)] = to_host(y)
        self.places = []
        for code, width in zip(codes, widths, strict=True):
            of_cell = np.zeros(count, dtype=np.int64)
            of_cell[to_host(cell)] = to_host(code)
            self.places.append(_Place(label * width + of_cell, width))
        self.coarse = self._tables(self.first[None], np.zeros((1, self.loss.shape[1])))

    def _cells(
        self, xp: Array, y: Array, codes: list[Array], widths: list[int]
    ) -> tuple[Array, Array]:
        """Each row's cell, and the cells' keys."""
        if self.by_row:
            return xp.arange(len(y)), xp.arange(len(y))
        key = y
        for code, width in zip(codes, widths, strict=True):
            key = key * width + code
        used = xp.flatnonzero(xp.bincount(key))
        position = xp.zeros(int(used[-1]) + 1, dtype=xp.int64)
        position[used] = xp.arange(len(used))
        return position[key], used

    def resampled(self, resamples: int, seed: int) -> Iterator[list[Table]]:
        rng = np.random.default_rng(seed)
        for size in blocks(resamples, len(self.first)):
            if self.by_row:
                drawn = multinomial_counts(rng, size, len(self.first)) * self.first
            else:
                scale = self.second / self.first
                drawn = rng.poisson(self.first / scale, (size, len(scale))) * scale
            noise = rng.standard_normal((size, self.loss.shape[1])) @ self.noise
            yield self._tables(drawn, noise)

    def _tables(self, drawn: np.ndarray, noise: np.ndarray) -> list[Table]:
        losses = drawn @ self.loss + noise
        width = len(self.names)
        tables: list[Table] = []
        for m, (place, cut) in enumerate(zip(self.places, self.cuts, strict=True)):
            neg, pos = place.spread(drawn)
            named = {n: losses[:, m * width + i] for i, n in enumerate(self.names)}
            tables.append(Scored(neg, pos, cut, named))
        return tables


class _Place:
    """Where each cell's weight goes in the (label, score) columns of one prediction's table."""

    def __init__(self, column: np.ndarray, width: int) -> None:
        self.width = width
        self.order = np.argsort(column, kind="stable")
        self.columns, self.starts = np.unique(column[self.order], return_index=True)
        self.in_order = bool((self.order == np.arange(len(column))).all())

    def spread(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        table = np.zeros((len(drawn), 2 * self.width))
        ordered = drawn if self.in_order else drawn[:, self.order]
        if len(self.starts) < drawn.shape[1]:
            ordered = np.add.reduceat(ordered, self.starts, axis=1)
        table[:, self.columns] = ordered
        return table[:, : self.width], table[:, self.width :]


def _cell_losses(
    xp: Array, losses: list[Array], cell: Array, weight: Array, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean losses by cell [cells, K], and a root [K, K] of their covariance within cells."""
    total = xp.bincount(cell, weights=weight, minlength=count)
    means, rest = [], []
    for loss in losses:
        mean = xp.bincount(cell, weights=weight * loss, minlength=count) / total
        means.append(to_host(mean))
        rest.append(weight * (loss - mean[cell]))
    residual = xp.stack(rest)
    values, vectors = np.linalg.eigh(to_host(residual @ residual.T))
    return np.stack(means, axis=1), (vectors * np.sqrt(np.maximum(values, 0))).T
