"""A matrix in XGBoost's bins, handed over chunk by chunk, so that it is never copied whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpupipe.checkpoints import temporary_name
from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array
from gpupipe.engine.memory import PAGE_ROWS
from gpupipe.models.base import Matrix
from gpupipe.models.libraries import xgboost_library

if TYPE_CHECKING:
    import xgboost

CUT_ROWS = 65_536
"""Rows, at least, from which the bins of a large matrix are cut."""


def quantised(
    matrix: Matrix, params: dict[str, Any], reference: xgboost.QuantileDMatrix | None,
    spill: Path | None, sampled: bool = False,
) -> xgboost.QuantileDMatrix:
    """The matrix in bins: those of ``reference``, else of its own quantiles.

    Of a large matrix every so-manieth row gives the quantiles: sorting all rows takes longer
    than all else here, and 256 bins are no better for it (a bin's share of the rows is 0.4 %,
    off by some 0.02 % with this many). Codes are left out of it: a rare one might be missed.
    """
    step = matrix.rows // CUT_ROWS
    if sampled and step >= 4 and not any(matrix.categorical):
        reference = quantised(matrix.every(step), params, None, None)
    shared = {"max_bin": int(params["max_bin"]), "ref": reference, "nthread": params["nthread"],
              "enable_categorical": True}
    if spill is None:
        return xgboost_library().QuantileDMatrix(_chunks()(matrix, None), **shared)
    prefix = temporary_name(spill / "bins")  # a name for this matrix alone
    prefix.parent.mkdir(parents=True, exist_ok=True)
    return xgboost_library().ExtMemQuantileDMatrix(_chunks()(matrix, str(prefix)), **shared)


@cache
def _chunks() -> Any:
    """The class of the iterators that hand a matrix over."""

    class Chunks(xgboost_library().DataIter):  # type: ignore[misc]
        """Hands a matrix to XGBoost chunk by chunk."""

        def __init__(self, matrix: Matrix, prefix: str | None) -> None:
            self.matrix = matrix
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
                data=chunk, label=self.matrix.target[rows].astype("float32"),
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
