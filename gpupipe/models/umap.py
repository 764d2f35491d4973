"""UMAP (McInnes, Healy and Melville 2018): a map of the rows on which neighbours stay neighbours.

umap-learn makes the map of the training rows, or cuML on a GPU. A new row is put at the mean of its
nearest training rows' places, weighted by UMAP's own membership strengths (section 3.1 of
the paper): where umap-learn's ``transform`` begins, without the random optimisation that it goes on
with, so that a row's place depends on nothing but the row. A row that equals a training row is put
where that one is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array
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
from gpupipe.models.nearest import nearest
from gpupipe.models.unsupervised import UNSUPERVISED, Finds, Found, components, no_weight, whole
from gpupipe.transforms.base import Target

DEFAULTS: dict[str, Any] = {
    "n_neighbors": 15, "n_components": 2, "min_dist": 0.1, "spread": 1.0, "n_epochs": None,
    "learning_rate": 1.0, "init": "spectral",
}
HALVINGS = 64
"""Steps of the search for a row's bandwidth."""


@register("umap")
class UMAP:
    """A map of ``n_components`` dimensions by Euclidean distances, with umap-learn's parameters."""

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = UNSUPERVISED
    finds: ClassVar[Finds] = "components"
    needs: ClassVar[Needs] = "numbers"
    space: ClassVar[Space] = {}
    streams: ClassVar[bool] = False
    spreads: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("umap", params, set(DEFAULTS))
        self.params = {**DEFAULTS, **params}

    @staticmethod
    def library() -> Any:
        """umap-learn. EnvironmentFault where it is not installed."""
        try:
            with LIBRARIES, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that Tensorflow is missing, and the like
                import umap
        except ImportError as error:
            raise EnvironmentFault("model 'umap' needs umap-learn on the CPU, and it cannot be "
                                   f"imported: {error}", hint="pip install 'gpupipe[umap]'"
                                   ) from None
        return umap

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Learn from ``train``; ``valid`` is not used. DataError for too few rows."""
        no_weight("umap", train)
        p = self.params
        if how.device != "cuda":
            library = self.library()
        x = whole("umap", train)
        if len(x) <= p["n_neighbors"]:
            raise DataError(f"model 'umap' has {len(x):,} rows, and needs more than n_neighbors="
                            f"{p['n_neighbors']}", hint="lower n_neighbors")
        try:
            if device_of(x) == "cuda":
                places = cuml.embedded(p, how.seed, x)
            else:
                # A seed makes umap-learn use one thread: only so are its results repeatable.
                places = library.UMAP(**p, random_state=how.seed, n_jobs=1).fit_transform(
                    x.astype("float32"))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"umap refused to train: {error}",
                              hint="look at model.params") from error
        points = to_host(x).astype(np.float32)
        return FittedUMAP("umap", points, np.asarray(places, np.float32), int(p["n_neighbors"]),
                          train.names)

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedUMAP("umap", **{**payload, "names": tuple(payload["names"])})


@dataclass
class FittedUMAP(Found):
    """The training rows ``[n, features]`` and their places on the map ``[n, k]``, float32."""

    points: np.ndarray
    places: np.ndarray
    n_neighbors: int
    names: tuple[str, ...]

    @property
    def finds(self) -> Finds:
        return "components"

    @property
    def outputs(self) -> tuple[str, ...]:
        return components(self.places.shape[1])

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp = namespace(chunk)
        index, squares = nearest(chunk.astype("float64"),
                                 xp.asarray(self.points.astype(np.float64)), self.n_neighbors)
        share = strengths(xp.sqrt(squares))
        places = xp.asarray(self.places.astype(np.float64))
        out, total = xp.zeros((chunk.shape[0], places.shape[1])), xp.zeros(chunk.shape[0])
        for k in range(self.n_neighbors):  # one after the other: sums in one order
            out += share[:, k, None] * places[index[:, k]]
            total += share[:, k]
        return xp.where(squares[:, :1] == 0, places[index[:, 0]], out / total[:, None])

    def payload(self) -> Payload:
        return {"points": self.points, "places": self.places, "n_neighbors": self.n_neighbors,
                "names": list(self.names)}


def strengths(apart: Array) -> Array:
    """Membership strengths ``[n, k]`` of the neighbours at distances ``apart``, nearest first.

    ``exp(-(d - rho) / sigma)``: rho is the distance of the nearest neighbour, and sigma makes
    the strengths add up to ``log2(k)`` (the paper's section 3.1, and algorithm 3).
    """
    xp = namespace(apart)
    beyond = apart - apart[:, :1]
    wanted = float(np.log2(apart.shape[1]))
    low, high = xp.zeros(len(apart)), xp.full(len(apart), xp.inf)
    sigma = xp.ones(len(apart))
    for _ in range(HALVINGS):
        total = xp.zeros(len(apart))
        for k in range(int(apart.shape[1])):
            total += xp.exp(-beyond[:, k] / sigma)
        above = total > wanted
        high, low = xp.where(above, sigma, high), xp.where(above, low, sigma)
        sigma = xp.where(xp.isinf(high), 2.0 * low, (low + high) / 2.0)
        sigma = xp.maximum(sigma, 1e-30)
    return xp.exp(-beyond / sigma[:, None])
