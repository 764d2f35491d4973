"""Isolation forests (Liu, Ting and Zhou 2008): random cuts soon leave an anomaly alone.

scikit-learn grows the trees, or cuML on a GPU. What is kept is arrays of nodes, which are walked
through with NumPy or CuPy, so a bundle scores without the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError
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
from gpupipe.models.unsupervised import UNSUPERVISED, Finds, Found, no_weight, whole
from gpupipe.transforms.base import Target

DEFAULTS: dict[str, Any] = {
    "n_estimators": 100, "max_samples": "auto", "contamination": "auto", "max_features": 1.0,
    "bootstrap": False,
}
BLOCK = 8_192
"""Rows that walk through a tree together: their features stay in the cache."""


@register("isolation_forest")
class IsolationForest:
    """The anomaly score of equation 2 of the paper, ``2 ** (-E(h(x)) / c(n))``, and a flag.

    Parameters are scikit-learn's. ``contamination: auto`` flags scores above 0.5; a share flags
    as many of the training rows.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = UNSUPERVISED
    finds: ClassVar[Finds] = "anomalies"
    needs: ClassVar[Needs] = "numbers"
    space: ClassVar[Space] = {}
    streams: ClassVar[bool] = False
    spreads: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("isolation_forest", params, set(DEFAULTS))
        self.params = {**DEFAULTS, **params}
        share = self.params["contamination"]
        if share != "auto" and not (isinstance(share, float) and 0 < share <= 0.5):
            raise ConfigError(f"model 'isolation_forest': contamination is {share!r}, expected "
                              "auto or a share of at most 0.5")

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Learn from ``train``; ``valid`` is not used."""
        no_weight("isolation_forest", train)
        with LIBRARIES:
            from sklearn import ensemble

        x = whole("isolation_forest", train).astype("float32")
        own = {k: v for k, v in self.params.items() if k != "contamination"}
        estimator = ensemble.IsolationForest(**own, n_jobs=how.threads, random_state=how.seed)
        try:
            grown = (cuml.isolated(estimator, x) if device_of(x) == "cuda"
                     else estimator.fit(x))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"scikit-learn refused to train: {error}",
                              hint="look at model.params") from error
        model = FittedIsolationForest(
            "isolation_forest", **_nodes(grown), threshold=0.5,
            length_of_sample=float(path_length(np.array([grown.max_samples_]))[0]),
            names=train.names,
        )
        share = self.params["contamination"]
        if share != "auto":
            scores = to_host(model.predict(x)[:, 0])
            model.threshold = float(np.percentile(scores, 100.0 * (1.0 - share)))
        return model

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedIsolationForest("isolation_forest",
                                     **{**payload, "names": tuple(payload["names"])})


def path_length(rows: np.ndarray) -> np.ndarray:
    """The mean depth at which a search among so many rows fails: c(n), equation 1 of the paper,
    with harmonic numbers by Euler's constant as in scikit-learn."""
    n = np.maximum(np.asarray(rows, np.float64), 2.0)
    found = 2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n
    return np.where(rows <= 1, 0.0, np.where(rows == 2, 1.0, found))


def _nodes(forest: Any) -> dict[str, Any]:
    """A forest's nodes, tree after tree: a leaf is its own child, and has a path length."""
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("feature", "cut", "children", "length")
    }
    roots, at, depth = [], 0, 0
    for estimator, features in zip(forest.estimators_, forest.estimators_features_, strict=True):
        tree = estimator.tree_
        left, right = tree.children_left.astype(np.int64), tree.children_right.astype(np.int64)
        leaf, own = left < 0, np.arange(len(left))
        level = np.zeros(len(left), np.int64)
        for node in np.flatnonzero(~leaf):  # parents come before their children
            level[[left[node], right[node]]] = level[node] + 1
        children = np.where(leaf[:, None], own[:, None], np.stack([left, right], axis=1))
        parts["children"].append((children + at).astype(np.int32))
        parts["feature"].append(np.where(leaf, 0, np.asarray(features)[np.maximum(tree.feature, 0)])
                                .astype(np.int32))
        parts["cut"].append(np.where(leaf, np.inf, tree.threshold))
        parts["length"].append(np.where(leaf, level + path_length(tree.n_node_samples), 0.0))
        roots.append(at)
        at += len(left)
        depth = max(depth, int(level.max()))
    return {**{name: np.concatenate(arrays) for name, arrays in parts.items()},
            "roots": np.array(roots, np.int64), "depth": depth}


@dataclass
class FittedIsolationForest(Found):
    """Nodes of all trees: which ``feature`` is cut, where, the two ``children`` (at most the cut,
    above it), and a leaf's path ``length``. ``depth`` is the greatest of all trees."""

    feature: np.ndarray
    cut: np.ndarray
    children: np.ndarray
    length: np.ndarray
    roots: np.ndarray
    depth: int
    threshold: float
    length_of_sample: float
    names: tuple[str, ...]

    @property
    def finds(self) -> Finds:
        return "anomalies"

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp = namespace(chunk)
        feature, cut, length = (xp.asarray(a) for a in (self.feature, self.cut, self.length))
        children = xp.asarray(self.children.reshape(-1))
        out = xp.empty((chunk.shape[0], 2))
        for start in range(0, int(chunk.shape[0]), BLOCK):
            x = chunk[start : start + BLOCK]
            rows, total = xp.arange(x.shape[0]), xp.zeros(x.shape[0])
            for root in self.roots.tolist():
                node = xp.full(x.shape[0], root, dtype="int64")
                for _ in range(self.depth):
                    above = x[rows, feature[node]] > cut[node]
                    node = children[2 * node + above]
                total += length[node]
            score = 2.0 ** (-total / (len(self.roots) * self.length_of_sample))
            out[start : start + BLOCK, 0] = score
            out[start : start + BLOCK, 1] = score > self.threshold
        return out

    def facts(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def payload(self) -> Payload:
        return {"feature": self.feature, "cut": self.cut, "children": self.children,
                "length": self.length, "roots": self.roots, "depth": self.depth,
                "threshold": self.threshold, "length_of_sample": self.length_of_sample,
                "names": list(self.names)}
