"""What the families that learn without a target share.

Their fitted models give float64 ``[n, outputs]``: a named column for each thing that was found
of a row. `typed` makes a cluster a whole number and a flag a boolean again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError, DataError
from gpupipe.models.base import Matrix, Payload, Plain, Task

Finds = Literal["clusters", "anomalies", "components"]
"""What a family finds: which output columns there are, and how they are judged."""
UNSUPERVISED: tuple[Task, ...] = ("unsupervised",)
TYPES = {"cluster": "int64", "is_anomaly": "bool"}
"""The output columns that are not float64."""


class Found(Plain, ABC):
    """A fitted model that learned without a target."""

    @abstractmethod
    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        """The `outputs` of each row: float64 ``[n, outputs]``."""

    @abstractmethod
    def payload(self) -> Payload: ...

    @property
    @abstractmethod
    def finds(self) -> Finds: ...

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the columns that `predict` gives."""
        return {"clusters": ("cluster", "distance"),
                "anomalies": ("anomaly_score", "is_anomaly")}[self.finds]

    def importances(self) -> list[tuple[str, float]]:
        return []

    def facts(self) -> dict[str, Any]:
        """What the report shows of the model: plain JSON data."""
        return {}


def components(number: int) -> tuple[str, ...]:
    return tuple(f"component_{i}" for i in range(number))


def typed(outputs: Sequence[str], scores: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of ``[n, outputs]`` scores, each in its own type."""
    return {name: scores[:, i].astype(TYPES.get(name, "float64"))
            for i, name in enumerate(outputs)}


def numbers(kind: str, train: Matrix) -> Iterator[Array]:
    """The chunks of a matrix as float64.

    Raises ConfigError for a weight that the family has no use for, DataError naming the
    features that are missing values or not encoded.
    """
    codes = [n for n, c in zip(train.names, train.categorical, strict=True) if c]
    if codes:
        raise DataError(f"model {kind!r} cannot use category codes: {', '.join(codes[:5])}",
                        hint="encode them: one_hot or count")
    for chunk in train.chunks:
        finite = to_host(namespace(chunk).isfinite(chunk).all(axis=0))
        holes = [n for n, fine in zip(train.names, finite, strict=True) if not fine]
        if holes:
            raise DataError(
                f"model {kind!r} cannot use missing values, found in {', '.join(holes[:5])}"
                + (f" and {len(holes) - 5} more" if len(holes) > 5 else ""),
                hint="add an impute step: - impute: {columns: numeric, strategy: median}",
            )
        yield chunk.astype("float64")


def whole(kind: str, train: Matrix) -> Array:
    """The matrix in one piece, float64 ``[n, features]``; errors as of `numbers`."""
    chunks = list(numbers(kind, train))
    return namespace(chunks[0]).concatenate(chunks)


def no_weight(kind: str, train: Matrix) -> None:
    """ConfigError where the rows have weights, which the family cannot honour."""
    if train.weight is not None:
        raise ConfigError(f"model {kind!r} takes no weights of rows",
                          hint="leave data.weight out; kmeans and dbscan take weights")
