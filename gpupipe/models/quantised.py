"""A matrix in XGBoost's bins, handed over chunk by chunk, so that it is never copied whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.checkpoints import temporary_name
from gpupipe.data.outcomes import grade_of, query_of, seen_of, time_of
from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array
from gpupipe.engine.memory import PAGE_ROWS
from gpupipe.errors import DataError, EnvironmentFault
from gpupipe.models.base import Matrix
from gpupipe.models.libraries import xgboost_library

if TYPE_CHECKING:
    import xgboost

CUT_ROWS = 65_536
"""Rows, at least, from which the bins of a large matrix are cut."""


Labels = Callable[[Array], dict[str, Array]]
"""What XGBoost is told of some rows' targets: its own names, float32 ``[n]``."""


def as_label(y: Array) -> dict[str, Array]:
    """The target as it is. For ``survival:cox``, too: there a negative time is a censored one."""
    return {"label": y.astype("float32")}


def as_bounds(y: Array) -> dict[str, Array]:
    """The ends that a time lies between: the same where its event was seen, else no upper one."""
    xp, time = namespace(y), time_of(y).astype("float32")
    return {"label_lower_bound": time,
            "label_upper_bound": xp.where(seen_of(y), time, xp.float32("inf"))}


def as_grades(y: Array) -> dict[str, Array]:
    """The grades and the queries, whose rows lie side by side."""
    return {"label": grade_of(y).astype("float32"), "qid": query_of(y)}


def labels_of(objective: str) -> Labels:
    """How an objective is told of the target."""
    if objective.startswith("rank:"):
        return as_grades
    return as_bounds if objective == "survival:aft" else as_label


def by_query(matrix: Matrix) -> tuple[Matrix, np.ndarray]:
    """The matrix with the rows of each query side by side, and which row each one was.

    EnvironmentFault where it is streamed: such rows come in the order of the table. DataError
    where rows have weights.
    """
    if matrix.weight is not None:
        raise DataError("a ranking has no weights of rows: XGBoost weighs whole queries",
                        hint="leave data.weight out")
    if not isinstance(matrix.chunks, (tuple, list)):
        raise EnvironmentFault(
            "a ranking is trained in memory, where the rows of a query can be put side by side, "
            "and this matrix does not fit", hint="set engine.memory to more, or drop columns")
    order = np.argsort(to_host(query_of(matrix.target)), kind="stable")
    chunks = tuple(matrix.chunks)
    if chunks:
        xp = namespace(chunks[0])
        chunks = (xp.concatenate(chunks)[xp.asarray(order)],)
    at = namespace(matrix.target).asarray(order)
    bucket = None if matrix.bucket is None else matrix.bucket[at]
    return replace(matrix, chunks=chunks, target=matrix.target[at], bucket=bucket), order


def in_row_order(values: Array, order: np.ndarray) -> Array:
    """What is known of rows side by side by query, for the rows as they were."""
    found = namespace(values).empty_like(values)
    found[namespace(values).asarray(order)] = values
    return found


def quantised(
    matrix: Matrix, params: dict[str, Any], reference: xgboost.QuantileDMatrix | None,
    spill: Path | None, sampled: bool = False, labels: Labels = as_label,
) -> xgboost.QuantileDMatrix:
    """The matrix in bins: those of ``reference``, else of its own quantiles.

    Of a large matrix every so-manieth row gives the quantiles: sorting all rows takes longer
    than all else here, and 256 bins are no better for it (a bin's share of the rows is 0.4 %,
    off by some 0.02 % with this many). Codes are left out of it: a rare one might be missed.
    """
    step = matrix.rows // CUT_ROWS
    if sampled and step >= 4 and not any(matrix.categorical):
        reference = quantised(matrix.every(step), params, None, None, labels=labels)
    shared = {"max_bin": int(params["max_bin"]), "ref": reference, "nthread": params["nthread"],
              "enable_categorical": True}
    if spill is None:
        return xgboost_library().QuantileDMatrix(_chunks()(matrix, None, labels), **shared)
    prefix = temporary_name(spill / "bins")  # a name for this matrix alone
    prefix.parent.mkdir(parents=True, exist_ok=True)
    return xgboost_library().ExtMemQuantileDMatrix(
        _chunks()(matrix, str(prefix), labels), **shared)


@cache
def _chunks() -> Any:
    """The class of the iterators that hand a matrix over."""

    class Chunks(xgboost_library().DataIter):  # type: ignore[misc]
        """Hands a matrix to XGBoost chunk by chunk."""

        def __init__(self, matrix: Matrix, prefix: str | None, labels: Labels) -> None:
            self.matrix, self.labels = matrix, labels
            self.types = ["c" if c else "q" for c in matrix.categorical]
            self.row = 0
            super().__init__(cache_prefix=prefix)
            self.reset()

        def next(self, input_data: Any) -> bool:
            chunk = next(self.chunks, None)
            if chunk is None:
                return False
            rows = slice(self.row, self.row + int(chunk.shape[0]))
            weight = self.matrix.weight
            input_data(
                data=chunk, **self.labels(self.matrix.target[rows]),
                weight=None if weight is None else weight[rows].astype("float32"),
                feature_types=self.types,
            )
            self.row = rows.stop
            return True

        def reset(self) -> None:
            self.chunks = iter(self.matrix.chunks if self.cache_prefix is None
                               else pages(self.matrix.chunks))
            self.row = 0

    return Chunks


def pages(chunks: Iterable[Array]) -> Iterator[Array]:
    """The same rows in chunks of about `PAGE_ROWS`: what becomes a page of bins in a file."""
    waiting: list[Array] = []
    for chunk in chunks:
        if waiting and sum(len(c) for c in waiting) + len(chunk) > PAGE_ROWS:
            yield namespace(chunk).concatenate(waiting)
            waiting = []
        waiting.append(chunk)
    if waiting:
        yield namespace(waiting[0]).concatenate(waiting)
