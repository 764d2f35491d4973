"""Principal components and truncated singular values, from exact sums.

Both follow from the sums of the columns' products (`exact.Gram`), which one pass over the data
gives after one for the columns' ranges: nothing needs the whole matrix in memory, and the
components are the same for any chunks, order of rows and device. Names and conventions are
scikit-learn's PCA and TruncatedSVD; a component's sign makes its greatest loading positive
(their ``svd_flip`` on the rows of V).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.engine.arrays import namespace
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
from gpupipe.models.exact import Gram
from gpupipe.models.unsupervised import (
    UNSUPERVISED,
    Finds,
    Found,
    components,
    no_weight,
    numbers,
)
from gpupipe.transforms.base import Target


class _Decomposition:
    """What the two families share."""

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = UNSUPERVISED
    finds: ClassVar[Finds] = "components"
    needs: ClassVar[Needs] = "numbers"
    space: ClassVar[Space] = {}
    streams: ClassVar[bool] = True
    spreads: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]]

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params(self.kind, params, set(self.defaults))
        self.params = {**self.defaults, **params}

    def sums(self, train: Matrix) -> Gram:
        no_weight(self.kind, train)
        return Gram.of(lambda: numbers(self.kind, train))

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedComponents(cls.kind, **{**payload, "names": tuple(payload["names"])})


@register("pca")
class PCA(_Decomposition):
    """Principal components: the directions of greatest variance, of the centred columns.

    ``n_components`` is their number, a share of the variance to be explained (between 0 and 1),
    or all (None). ``whiten`` gives each component variance 1.
    """

    defaults: ClassVar[dict[str, Any]] = {"n_components": None, "whiten": False}

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Learn from ``train``; ``valid`` is not used. DataError for fewer than two rows."""
        sums = self.sums(train)
        if sums.rows < 2:
            raise DataError("model 'pca' needs at least two rows")
        variance, axes = _eigen(sums.covariance(ddof=1))
        ratio = variance / (variance.sum() or 1.0)
        kept = self._number(min(sums.rows, len(variance)), ratio)
        scale = np.sqrt(variance[:kept]) if self.params["whiten"] else np.ones(kept)
        scale[scale == 0] = 1.0
        return FittedComponents("pca", sums.mean(), axes[:kept], scale, variance[:kept],
                                ratio[:kept], np.sqrt(variance[:kept] * (sums.rows - 1)),
                                train.names)

    def _number(self, most: int, ratio: np.ndarray) -> int:
        wanted = self.params["n_components"]
        if wanted is None:
            return most
        if isinstance(wanted, float) and 0 < wanted < 1:
            return min(int(np.searchsorted(np.cumsum(ratio), wanted, side="right")) + 1, most)
        return _count(self.kind, wanted, most, ", or a share of the variance between 0 and 1")


@register("truncated_svd")
class TruncatedSVD(_Decomposition):
    """The ``n_components`` greatest singular values and vectors, of the columns as they are."""

    defaults: ClassVar[dict[str, Any]] = {"n_components": 2}

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Learn from ``train``; ``valid`` is not used."""
        sums = self.sums(train)
        squares, axes = _eigen(sums.products())
        kept = _count(self.kind, self.params["n_components"], min(sums.rows, len(squares)))
        covariance = sums.covariance(ddof=0)
        variance = np.einsum("ij,jk,ik->i", axes[:kept], covariance, axes[:kept])
        return FittedComponents(
            "truncated_svd", np.zeros(len(squares)), axes[:kept], np.ones(kept), variance,
            variance / (np.trace(covariance) or 1.0), np.sqrt(squares[:kept]), train.names,
        )


def _count(kind: str, wanted: Any, most: int, other: str = "") -> int:
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= most:
        raise ConfigError(
            f"model {kind!r}: n_components is {wanted!r}, expected a whole number from 1 to "
            f"{most:,}{other}", hint="there are no more components than features or rows",
        )
    return wanted


def _eigen(symmetric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues ``[p]``, greatest first and at least 0, and eigenvectors in rows."""
    values, vectors = np.linalg.eigh(symmetric)
    axes = np.ascontiguousarray(vectors.T[::-1])
    places = np.abs(axes).argmax(axis=1)
    signs = np.sign(axes[np.arange(len(axes)), places])
    return np.maximum(values[::-1], 0.0), axes * signs[:, None]


@dataclass
class FittedComponents(Found):
    """Axes ``[k, features]`` in rows; scores are divided by ``scale`` ``[k]``."""

    mean: np.ndarray
    axes: np.ndarray
    scale: np.ndarray
    explained_variance: np.ndarray
    explained_variance_ratio: np.ndarray
    singular_values: np.ndarray
    names: tuple[str, ...]

    @property
    def finds(self) -> Finds:
        return "components"

    @property
    def outputs(self) -> tuple[str, ...]:
        return components(len(self.axes))

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp = namespace(chunk)
        out = xp.zeros((chunk.shape[0], len(self.axes)))
        columns = xp.ascontiguousarray(chunk.T).astype("float64")
        # Feature by feature, not as a matrix product: BLAS adds in an order that depends on how
        # many rows there are, and one record must score as it does in a table.
        for column, mean, loadings in zip(columns, self.mean, self.axes.T, strict=True):
            out += (column - float(mean))[:, None] * xp.asarray(loadings)
        return out / xp.asarray(self.scale)

    def inverse(self, scores: np.ndarray) -> np.ndarray:
        """The features ``[n, p]`` that the scores stand for."""
        return self.mean + (scores * self.scale) @ self.axes

    def facts(self) -> dict[str, Any]:
        return {"explained_variance_ratio": self.explained_variance_ratio.tolist()}

    def payload(self) -> Payload:
        return {"mean": self.mean, "axes": self.axes, "scale": self.scale,
                "explained_variance": self.explained_variance,
                "explained_variance_ratio": self.explained_variance_ratio,
                "singular_values": self.singular_values, "names": list(self.names)}
