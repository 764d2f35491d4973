"""k-means (Lloyd 1982) from exact sums, chunk by chunk.

The first centres are drawn, and moved, on a sample of the rows (all of them where there are
few); from there Lloyd's iterations go over all rows. A cluster's sums are integers (`exact`),
so the centres are the same for any chunks. Parameters are those of scikit-learn's KMeans, and so
is the way that first centres are drawn: k-means++ (Arthur and Vassilvitskii 2007) with
``2 + log k`` trials for each. NumPy and CuPy run the same code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError, DataError
from gpupipe.models.base import (
    FittedModel,
    Matrix,
    Needs,
    Payload,
    Space,
    Task,
    Training,
    check_params,
    register,
)
from gpupipe.models.exact import ROWS, Grid, Total, joined
from gpupipe.models.nearest import SMALL, assign, nearest, squared_distances
from gpupipe.models.unsupervised import (
    UNSUPERVISED,
    Finds,
    Found,
    numbers,
)
from gpupipe.transforms.base import Target

SAMPLE_ROWS = 50_000
"""First centres come from about so many rows, evenly spaced."""
DEFAULTS: dict[str, Any] = {
    "n_clusters": 8, "init": "k-means++", "n_init": "auto", "max_iter": 300, "tol": 1e-4,
}
Pieces = Callable[[], Iterable[tuple[Array, np.ndarray]]]
"""Gives rows (float64) and their weights, in pieces, whenever it is asked."""


@register("kmeans")
class KMeans:
    """``n_clusters`` centres, each the mean of the rows that are nearest to it.

    ``init`` is ``k-means++``, ``random`` or a list of centres; ``n_init`` first sets of centres
    are tried (auto: 1, or 10 of random ones) and the best is kept. Iterations end after
    ``max_iter``, or when the centres move less than ``tol`` times the mean variance of the
    columns. Cluster 0 is the largest, unless ``init`` gave the centres an order.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = UNSUPERVISED
    finds: ClassVar[Finds] = "clusters"
    needs: ClassVar[Needs] = "numbers"
    space: ClassVar[Space] = {}
    streams: ClassVar[bool] = True
    spreads: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("kmeans", params, set(DEFAULTS))
        self.params = {**DEFAULTS, **params}
        p = self.params
        for name in ("n_clusters", "max_iter", "n_init"):
            if p[name] != "auto" and not (isinstance(p[name], int) and p[name] >= 1):
                raise ConfigError(f"model 'kmeans': {name} is {p[name]!r}, expected a whole "
                                  "number of at least 1")
        if isinstance(p["init"], str) and p["init"] not in ("k-means++", "random"):
            raise ConfigError(f"model 'kmeans': init is {p['init']!r}, expected k-means++, "
                              "random or a list of centres")

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Learn from ``train``; ``valid`` is not used.

        Raises DataError where there are fewer distinct rows than clusters.
        """
        p = self.params
        everything: Pieces = lambda: _pieces(numbers("kmeans", train), _weights(train),
                                             p["n_clusters"])
        grid = Grid.of(x for x, _ in everything())
        step = max(1, math.ceil(train.rows / SAMPLE_ROWS))
        some = train.every(step) if step > 1 else train
        x = np.concatenate([to_host(c) for c in numbers("kmeans", some)])
        w = _weights(some)
        sample: Pieces = lambda: _pieces([x], w, p["n_clusters"])
        least = float(p["tol"]) * float(np.mean(np.var(x, axis=0)))
        best: tuple[float, np.ndarray, np.ndarray] | None = None
        for draw in self._draws(how.seed):
            first = self._first(x, w, draw)
            centres, weights = _lloyd(sample, first, grid, p["max_iter"], least)
            loss = math.fsum(w * nearest(x, centres)[1][:, 0])
            if best is None or loss < best[0]:
                best = loss, centres, weights
        assert best is not None
        centres, weights = best[1:]
        if step > 1:
            centres, weights = _lloyd(everything, centres, grid, p["max_iter"], least)
        if isinstance(p["init"], str):
            centres = centres[np.argsort(-weights, kind="stable")]
        return FittedKMeans("kmeans", centres, train.names)

    def _draws(self, seed: int) -> list[np.random.Generator]:
        """A generator for each set of first centres."""
        init, times = self.params["init"], self.params["n_init"]
        if not isinstance(init, str):
            times = 1
        elif times == "auto":
            times = 10 if init == "random" else 1
        return [np.random.default_rng([seed, i]) for i in range(times)]

    def _first(self, x: np.ndarray, weight: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """First centres ``[k, features]``."""
        k, init = self.params["n_clusters"], self.params["init"]
        if not isinstance(init, str):
            centres = np.asarray(init, np.float64)
            if centres.shape != (k, x.shape[1]):
                raise ConfigError(f"model 'kmeans': init has centres of shape {centres.shape}, "
                                  f"expected {(k, x.shape[1])}: n_clusters x features")
            return centres
        if int((weight > 0).sum()) < k:
            raise _too_few(k)
        if init == "random":
            return x[draw.choice(len(x), k, replace=False, p=weight / weight.sum())]
        return _plus_plus(x, weight, k, draw)

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedKMeans("kmeans", payload["centres"], tuple(payload["names"]))


def _pieces(
    chunks: Iterable[Array], weight: np.ndarray, k: int
) -> Iterator[tuple[Array, np.ndarray]]:
    """The rows with their weights, so many at a time that products with ``k`` centres are small."""
    row = 0
    for chunk in chunks:
        step = min(ROWS, max(256, SMALL // (k * int(chunk.shape[1]))))
        for start in range(0, int(chunk.shape[0]), step):
            piece = chunk[start : start + step]
            yield piece, weight[row : row + int(piece.shape[0])]
            row += int(piece.shape[0])


def _weights(rows: Matrix) -> np.ndarray:
    return np.ones(rows.rows) if rows.weight is None else np.asarray(rows.weight, np.float64)


def _too_few(k: int) -> DataError:
    return DataError(f"model 'kmeans': there are fewer than {k} distinct rows to make clusters of",
                     hint="lower n_clusters")


def _plus_plus(
    x: np.ndarray, weight: np.ndarray, k: int, draw: np.random.Generator
) -> np.ndarray:
    """First centres by k-means++: each of a few rows drawn by squared distance, the best kept."""
    chosen = [int(draw.choice(len(x), p=weight / weight.sum()))]
    apart = squared_distances(x, x[chosen])[:, 0]
    for _ in range(1, k):
        cumulative = np.cumsum(weight * apart)
        if cumulative[-1] == 0:
            raise _too_few(k)
        places = draw.random(2 + int(math.log(k))) * cumulative[-1]
        rows = np.minimum(np.searchsorted(cumulative, places, side="right"), len(x) - 1)
        closer = np.minimum(apart[:, None], squared_distances(x, x[rows]))
        best = int((weight @ closer).argmin())
        chosen.append(int(rows[best]))
        apart = closer[:, best]
    return x[chosen]


def _lloyd(
    pieces: Pieces, centres: np.ndarray, grid: Grid, most: int, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Centres after Lloyd's iterations, and the weight of the rows nearest to each."""
    weights = np.zeros(len(centres))
    for _ in range(most):
        moved, weights = _means(pieces, centres, grid)
        empty = np.flatnonzero(weights == 0)
        if len(empty):
            moved[empty] = _farthest(pieces, centres, len(empty))
        shift = float(((moved - centres) ** 2).sum())
        centres = moved
        if shift <= least:
            break
    return centres, weights


def _means(pieces: Pieces, centres: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the rows nearest to each centre ``[k, features]``, and their weight ``[k]``.

    Sums are over the digits of values and weights, so they are exact. A cluster without rows
    keeps its centre.
    """
    k = len(centres)
    scale = Grid.of(w[:, None] for _, w in pieces())
    weights = (Total((k,)), Total((k,)))
    sums = {pair: Total(centres.shape) for pair in ((0, 0), (0, 1), (1, 0), (1, 1))}
    for x, weight in pieces():
        xp = namespace(x)
        mine = assign(x, xp.asarray(centres))[:, None] == xp.arange(k)
        values = grid.digits(x)
        for i, digit in enumerate(scale.digits(xp.asarray(weight)[:, None])):
            if not digit.any():
                continue  # weights of 1 have no lower digit
            share = mine * digit
            weights[i].add(share.sum(axis=0))
            for j, value in enumerate(values):
                sums[i, j].add(share.T @ value)
    weight_units = joined(*(w.units() for w in weights))
    high, left, right, low = (sums[pair].units() for pair in sums)
    total = joined(joined(high, left + right), low)
    full = np.flatnonzero(weight_units != 0)
    found = centres.copy()
    found[full] = grid.values(total[full] / weight_units[full, None])
    return found, scale.values(weight_units)


def _farthest(pieces: Pieces, centres: np.ndarray, number: int) -> np.ndarray:
    """The ``number`` rows that are farthest from their centres: where empty clusters begin anew."""
    apart, rows = [], []
    for x, weight in pieces():
        xp = namespace(x)
        distance = to_host(nearest(x, xp.asarray(centres))[1][:, 0]) * (weight > 0)
        first = np.argsort(-distance, kind="stable")[:number]
        apart.append(distance[first])
        rows.append(to_host(x[xp.asarray(first)]))
    order = np.argsort(-np.concatenate(apart), kind="stable")[:number]
    return np.concatenate(rows)[order]


@dataclass
class FittedKMeans(Found):
    """Centres ``[clusters, features]``. A row is of the nearest one's cluster."""

    centres: np.ndarray
    names: tuple[str, ...]

    @property
    def finds(self) -> Finds:
        return "clusters"

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp = namespace(chunk)
        cluster, squares = nearest(chunk.astype("float64"), xp.asarray(self.centres))
        return xp.concatenate([cluster.astype("float64"), xp.sqrt(squares)], axis=1)

    def payload(self) -> Payload:
        return {"centres": self.centres, "names": list(self.names)}
