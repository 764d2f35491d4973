"""Metrics of what was found without a target: clusters, anomalies and components.

Names and values are scikit-learn's where it has the metric. Clusterings are measured without
their noise (cluster -1), whose share is given beside.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gpupipe.errors import ConfigError, did_you_mean
from gpupipe.models.nearest import squared_distances
from gpupipe.models.unsupervised import Finds

METRICS: dict[Finds, dict[str, bool | None]] = {
    "clusters": {
        "silhouette_score": True, "davies_bouldin_score": False,
        "calinski_harabasz_score": True, "noise_share": None, "n_clusters": None,
        "adjusted_rand_score": True,
    },
    "anomalies": {"anomaly_share": None, "mean_anomaly_score": None, "rank_correlation": True},
    "components": {"explained_variance_ratio": True, "trustworthiness": True,
                   "subspace_similarity": True},
}
"""For what is found: its metrics, the headline first, and whether greater is better (None: it
is a fact, neither good nor bad). The last is a stability: it compares the models of the folds."""
TRUST_NEIGHBOURS = 5

Chunks = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]
"""Gives features ``[n_i, p]`` and clusters ``[n_i]``, chunk by chunk, whenever it is asked."""


def choose(finds: Finds, names: Sequence[str] | None) -> list[str]:
    """The metrics called ``names``; default: all. ConfigError for one that there is not."""
    known = list(METRICS[finds])
    for name in names or ():
        if name not in known:
            near = did_you_mean(name, known)
            raise ConfigError(f"there is no metric {name!r} of {finds}",
                              hint=f"did you mean {near!r}?" if near
                              else f"metrics of {finds}: {', '.join(known)}")
    return list(dict.fromkeys(known if names is None else names))


def is_better(name: str) -> bool | None:
    """Whether a greater value is better; None where it is neither, or no metric of this file."""
    return next((known[name] for known in METRICS.values() if name in known), None)


def silhouettes(x: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """The silhouette of each row (Rousseeuw 1987): float64 ``[n]``, 0 alone in its cluster.

    ``x`` is float64 ``[n, p]``; there are at least two clusters. Takes memory for n^2 numbers.
    """
    apart = np.sqrt(squared_distances(x, x))
    levels, code = np.unique(cluster, return_inverse=True)
    size = np.bincount(code)
    total = np.stack([apart[:, code == c].sum(axis=1) for c in range(len(levels))], axis=1)
    rows = np.arange(len(x))
    own = total[rows, code] / np.maximum(size[code] - 1, 1)
    mean = total / size
    mean[rows, code] = np.inf
    other = mean.min(axis=1)
    widest = np.maximum(own, other)
    found = np.where(widest > 0, (other - own) / np.where(widest > 0, widest, 1.0), 0.0)
    return np.where(size[code] == 1, 0.0, found)


def spread(chunks: Chunks) -> dict[str, float]:
    """Davies-Bouldin (1979) and Caliński-Harabasz (1974) over any number of rows, in two looks.

    Empty where fewer than two clusters have rows, or where each row is a cluster.
    """
    sums: dict[int, np.ndarray] = {}
    counts: dict[int, int] = {}
    for x, cluster in chunks():
        for c in np.unique(cluster[cluster >= 0]):
            mine = x[cluster == c]
            sums[int(c)] = sums.get(int(c), 0.0) + mine.sum(axis=0)
            counts[int(c)] = counts.get(int(c), 0) + len(mine)
    names, k = sorted(sums), len(sums)
    n = sum(counts.values())
    if k < 2 or n == k:
        return {}
    size = np.array([counts[c] for c in names])
    centre = np.stack([sums[c] for c in names]) / size[:, None]
    middle = sum(sums.values()) / n
    within, distance = 0.0, np.zeros(k)
    for x, cluster in chunks():
        for i, c in enumerate(names):
            squares = squared_distances(x[cluster == c], centre[i : i + 1])[:, 0]
            within += float(squares.sum())
            distance[i] += float(np.sqrt(squares).sum())
    between = float(size @ ((centre - middle) ** 2).sum(axis=1))
    radius = distance / size
    apart = np.sqrt(squared_distances(centre, centre))
    np.fill_diagonal(apart, np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nan_to_num((radius[:, None] + radius) / apart, nan=0.0)
    return {
        "davies_bouldin_score": float(ratios.max(axis=1).mean()),
        "calinski_harabasz_score": between * (n - k) / (within * (k - 1)) if within else 1.0,
    }


def adjusted_rand(left: np.ndarray, right: np.ndarray) -> float:
    """The adjusted Rand index of two clusterings of the same rows (Hubert and Arabie 1985)."""
    _, a = np.unique(left, return_inverse=True)
    _, b = np.unique(right, return_inverse=True)
    cells = np.bincount(a * (int(b.max()) + 1) + b)

    def pairs(counts: np.ndarray) -> int:
        return int((counts * (counts - 1) // 2).sum())

    both, ours, theirs = pairs(cells), pairs(np.bincount(a)), pairs(np.bincount(b))
    everything = len(a) * (len(a) - 1) // 2
    expected = ours * theirs / everything if everything else 0.0
    most = (ours + theirs) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, the mean rank for equal values."""
    _, code, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[code]


def rank_correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Spearman's correlation of two scores of the same rows; NaN where one is constant."""
    a, b = ranks(left), ranks(right)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else float("nan")


def subspace_similarity(left: np.ndarray, right: np.ndarray) -> float:
    """How far two sets of components of the same rows span one space: 0 to 1.

    The mean squared cosine of the principal angles (Björck and Golub 1973), as many as the
    smaller set has; signs, order and scale of the components do not matter.
    """
    a, b = (np.linalg.qr(z - z.mean(axis=0))[0] for z in (left, right))
    cosines = np.linalg.svd(a.T @ b, compute_uv=False)
    return float(np.mean(np.minimum(cosines, 1.0) ** 2))


def trustworthiness(x: np.ndarray, found: np.ndarray, neighbours: int = TRUST_NEIGHBOURS) -> float:
    """Whether neighbours among the components were neighbours before (Venna and Kaski 2001).

    1 where every one was. NaN for fewer than ``2 * neighbours + 1`` rows. Takes memory for n^2
    numbers.
    """
    n = len(x)
    if n <= 2 * neighbours:
        return float("nan")
    apart, near = squared_distances(x, x), squared_distances(found, found)
    np.fill_diagonal(apart, np.inf)
    np.fill_diagonal(near, np.inf)
    place = np.empty((n, n), np.int64)
    rows = np.arange(n)[:, None]
    place[rows, np.argsort(apart, axis=1, kind="stable")] = np.arange(1, n + 1)
    chosen = np.argsort(near, axis=1, kind="stable")[:, :neighbours]
    excess = place[rows, chosen] - neighbours
    total = int(excess[excess > 0].sum())
    return 1.0 - total * 2.0 / (n * neighbours * (2.0 * n - 3.0 * neighbours - 1.0))


def explained_variance(x: np.ndarray, again: np.ndarray) -> float:
    """The share of the rows' variance that ``again``, made from the components, explains."""
    total = float(((x - x.mean(axis=0)) ** 2).sum())
    return 1.0 - float(((x - again) ** 2).sum()) / total if total else float("nan")


def stability(finds: Finds, found: Sequence[np.ndarray]) -> list[float]:
    """How well each two models agree on the same rows; ``found[i]`` is what model i gives."""
    measure: dict[Finds, Callable[[np.ndarray, np.ndarray], float]] = {
        "clusters": lambda a, b: adjusted_rand(a[:, 0], b[:, 0]),
        "anomalies": lambda a, b: rank_correlation(a[:, 0], b[:, 0]),
        "components": subspace_similarity,
    }
    return [measure[finds](a, b) for a, b in itertools.combinations(found, 2)]


def cluster_sizes(cluster: np.ndarray, distance: np.ndarray) -> list[dict[str, Any]]:
    """Rows, share and mean distance of each cluster; -1 is noise."""
    found = []
    for c in np.unique(cluster):
        mine = cluster == c
        found.append({"cluster": int(c), "rows": int(mine.sum()), "share": float(mine.mean()),
                      "distance": float(distance[mine].mean())})
    return found
