"""Clusters of high density: DBSCAN and HDBSCAN, by scikit-learn, or cuML on a GPU.

Neither library predicts the cluster of a new row with what it has learned alone; here a new row
is placed by a rule that gives every training row what training gave it:

- DBSCAN (Ester et al. 1996, definitions 1 to 5): the cluster of the nearest core sample if that is
  within ``eps``, else noise. A border row that two clusters reach goes to the nearer one, where
  training would take the first.
- HDBSCAN: that of `approximate_predict` of the hdbscan package (McInnes, Healy and Astels 2017):
  the training row that is nearest by mutual reachability distance decides, if that distance is
  no more than the one at which its cluster was born, splitting off from another; else it is noise.

Cluster 0 is the largest, and -1 is noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array
from gpupipe.engine.machine import memory_limit
from gpupipe.errors import ConfigError, DataError, EnvironmentFault
from gpupipe.models import cuml
from gpupipe.models.base import (
    LIBRARIES,
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
from gpupipe.models.cuda import device_of
from gpupipe.models.nearest import nearest, within
from gpupipe.models.unsupervised import UNSUPERVISED, Finds, Found, no_weight, whole
from gpupipe.transforms.base import Target

LOOKED_AT = 500
"""Rows from which it is told how dense the others lie."""


class _Density:
    """What the two families share."""

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = UNSUPERVISED
    finds: ClassVar[Finds] = "clusters"
    needs: ClassVar[Needs] = "numbers"
    space: ClassVar[Space] = {}
    streams: ClassVar[bool] = False
    spreads: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]]

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params(self.kind, params, set(self.defaults))
        self.params = {**self.defaults, **params}

    def learned(self, estimator: Any, x: Array, weight: np.ndarray | None) -> Any:
        """The estimator, or its counterpart in cuML, fitted where ``x`` lies."""
        if device_of(x) == "cuda":
            return cuml.clustered(estimator, x, weight)
        try:
            given = {} if weight is None else {"sample_weight": weight}
            return estimator.fit(x, **given)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"scikit-learn refused to train: {error}",
                              hint="look at model.params") from error


@register("dbscan")
class DBSCAN(_Density):
    """Rows with ``min_samples`` rows (themselves too) within ``eps`` are core samples; core samples
    within ``eps`` of each other are of one cluster. Distances are Euclidean."""

    defaults: ClassVar[dict[str, Any]] = {"eps": 0.5, "min_samples": 5}

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Learn from ``train``; ``valid`` is not used.

        Raises DataError where no row is a core sample, EnvironmentFault where the neighbours of
        all rows would not fit into memory.
        """
        with LIBRARIES:
            from sklearn import cluster

        x, p = whole("dbscan", train), self.params
        estimator = cluster.DBSCAN(eps=p["eps"], min_samples=p["min_samples"], n_jobs=how.threads)
        _check_room(x, p["eps"])
        made = self.learned(estimator, x, train.weight)
        core = to_host(namespace(x).asarray(made.core_sample_indices_)).astype(np.int64)
        if not len(core):
            raise DataError(f"dbscan found no core sample: no row has {p['min_samples']} rows "
                            f"within eps={p['eps']:g}", hint=_usual(x, p["min_samples"]))
        points, first = np.unique(to_host(x)[core], axis=0, return_index=True)
        label = to_host(namespace(x).asarray(made.labels_)).astype(np.int64)
        rank = by_size(label)
        return FittedDBSCAN("dbscan", points.astype(np.float32), rank[label[core][first]],
                            float(p["eps"]), train.names)

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedDBSCAN("dbscan", **{**payload, "names": tuple(payload["names"])})


@register("hdbscan")
class HDBSCAN(_Density):
    """Clusters that outlast others while the density asked for rises: scikit-learn's HDBSCAN,
    with Euclidean distances."""

    defaults: ClassVar[dict[str, Any]] = {
        "min_cluster_size": 5, "min_samples": None, "cluster_selection_epsilon": 0.0,
        "max_cluster_size": None, "cluster_selection_method": "eom",
        "allow_single_cluster": False,
    }

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Learn from ``train``; ``valid`` is not used. DataError where there is no cluster."""
        no_weight("hdbscan", train)
        with LIBRARIES:
            from sklearn import cluster

        x, p = whole("hdbscan", train), dict(self.params)
        p["min_samples"] = p["min_samples"] or p["min_cluster_size"]
        made = self.learned(cluster.HDBSCAN(**p, n_jobs=how.threads, copy=True), x, None)
        label = to_host(namespace(x).asarray(made.labels_)).astype(np.int64)
        if label.max() < 0:
            raise DataError(
                f"hdbscan found no cluster of {p['min_cluster_size']} rows or more among "
                f"{len(label):,}", hint="lower min_cluster_size or min_samples, or set "
                "allow_single_cluster")
        births = born(_merges(made), label)
        rank = by_size(label)
        birth = np.empty(len(births))
        birth[rank[:-1]] = births
        k = min(int(p["min_samples"]), len(label))
        core = np.sqrt(to_host(nearest(x, x, k)[1][:, -1]))
        return FittedHDBSCAN("hdbscan", to_host(x).astype(np.float32), rank[label], core, birth, k,
                             train.names)

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedHDBSCAN("hdbscan", **{**payload, "names": tuple(payload["names"])})


def by_size(label: np.ndarray) -> np.ndarray:
    """What each label is called, the largest cluster 0; the last entry is noise, -1."""
    size = np.bincount(label[label >= 0])
    rank = np.empty(len(size) + 1, np.int64)
    rank[np.argsort(-size, kind="stable")] = np.arange(len(size))
    rank[-1] = -1
    return rank


def _merges(made: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The single linkage tree: what is merged (row i, or merge i - rows), and at which distance."""
    if hasattr(made, "_single_linkage_tree_"):  # scikit-learn's has names
        tree = made._single_linkage_tree_
        return tree["left_node"], tree["right_node"], tree["value"]
    tree = np.asarray(made._single_linkage_tree)
    return tree[:, 0].astype(np.int64), tree[:, 1].astype(np.int64), tree[:, 2]


def born(
    merges: tuple[np.ndarray, np.ndarray, np.ndarray], label: np.ndarray
) -> np.ndarray:
    """The distance at which each cluster joins other rows ``[clusters]``; infinite if never.

    All rows of a cluster are below one merge, and nothing else is (a cluster that is the whole
    table without its outliers apart, which `allow_single_cluster` makes: what joins last was
    noise). The merge above it is where the cluster was born.
    """
    left, right, distance = merges
    n, wanted = len(label), np.bincount(label[label >= 0])
    held: list[dict[int, int] | None] = [{int(c): 1} if c >= 0 else {} for c in label]
    found = np.full(len(wanted), np.inf)
    for a, b, value in zip(left.tolist(), right.tolist(), distance.tolist(), strict=True):
        one, other = held[a], held[b]
        assert one is not None and other is not None
        for side in (one, other):  # whole clusters end here
            for c in [c for c, count in side.items() if count == wanted[c]]:
                found[c] = min(found[c], value)
                del side[c]
        if len(one) < len(other):
            one, other = other, one
        for c, count in other.items():
            one[c] = one.get(c, 0) + count
        held[a] = held[b] = None
        held.append(one)
    assert len(held) == 2 * n - 1
    return found


def _sample(x: Array) -> Array:
    return x[:: max(1, len(x) // LOOKED_AT)]


def _check_room(x: Array, eps: float) -> None:
    """EnvironmentFault where scikit-learn's lists of neighbours would take too much memory."""
    if device_of(x) == "cuda":
        return  # cuML works through them in batches
    needed = float(within(_sample(x), x, eps).mean()) * len(x) * 16
    if needed > memory_limit() / 2:
        raise EnvironmentFault(
            f"dbscan would hold about {needed / 2**30:,.0f} GiB of neighbours: rows have "
            f"{needed / len(x) / 16:,.0f} others within eps={eps:g}",
            hint="lower eps, or take hdbscan or kmeans",
        )


def _usual(x: Array, k: int) -> str:
    """A hint: how far the k-th neighbour usually is."""
    some = _sample(x)
    if len(x) < k:
        return "lower min_samples: there are fewer rows"
    apart = np.sqrt(to_host(nearest(some, x, k)[1][:, -1]))
    return (f"raise eps, or lower min_samples: half of the rows have so many within "
            f"{float(np.median(apart)):.3g}")


@dataclass
class FittedDBSCAN(Found):
    """Core samples ``[m, features]`` (float32) with their clusters ``[m]``."""

    points: np.ndarray
    label: np.ndarray
    eps: float
    names: tuple[str, ...]

    @property
    def finds(self) -> Finds:
        return "clusters"

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp = namespace(chunk)
        index, squares = nearest(chunk.astype("float64"),
                                 xp.asarray(self.points.astype(np.float64)))
        apart = xp.sqrt(squares[:, 0])
        cluster = xp.where(apart <= self.eps, xp.asarray(self.label)[index[:, 0]], -1)
        return xp.stack([cluster.astype("float64"), apart], axis=1)

    def payload(self) -> Payload:
        return {"points": self.points, "label": self.label, "eps": self.eps,
                "names": list(self.names)}


@dataclass
class FittedHDBSCAN(Found):
    """The training rows ``[n, features]`` (float32) with their cluster, the distance to their
    ``min_samples``-th neighbour ``[n]``, and the distance at which each cluster was born."""

    points: np.ndarray
    label: np.ndarray
    core: np.ndarray
    birth: np.ndarray
    min_samples: int
    names: tuple[str, ...]

    @property
    def finds(self) -> Finds:
        return "clusters"

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp = namespace(chunk)
        k = min(2 * self.min_samples, len(self.points))
        index, squares = nearest(chunk.astype("float64"),
                                 xp.asarray(self.points.astype(np.float64)), k)
        apart = xp.sqrt(squares)
        own = apart[:, self.min_samples - 1 : self.min_samples]
        reach = xp.maximum(xp.maximum(own, xp.asarray(self.core)[index]), apart)
        best = reach.argmin(axis=1)  # the first of equals is the nearest
        rows = xp.arange(len(best))
        label = xp.asarray(self.label)[index[rows, best]]
        limit = xp.asarray(np.append(self.birth, -np.inf))[label]
        cluster = xp.where(reach[rows, best] <= limit, label, -1)
        return xp.stack([cluster.astype("float64"), reach[rows, best]], axis=1)

    def payload(self) -> Payload:
        return {"points": self.points, "label": self.label, "core": self.core,
                "birth": self.birth, "min_samples": self.min_samples, "names": list(self.names)}
