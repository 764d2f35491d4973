"""Dask and dask-cuDF data frames at the door: taken as sources, and given back."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa


def is_collection(thing: object) -> bool:
    """Whether this is a Dask data frame, of pandas or of cuDF partitions."""
    return hasattr(thing, "__dask_graph__") and hasattr(thing, "map_partitions")


def written(collection: Any, folder: Path, temporary: Path) -> Path:
    """A folder under ``folder``, at first by the name ``temporary``, with the collection as
    Parquet, a file for each partition.

    It has the name of what Dask would compute: the same collection is computed once.
    """
    from dask.base import tokenize

    whole = folder.absolute() / f"collection-{tokenize(collection)}"
    temporary = temporary.absolute()
    if not whole.exists():
        # Dask writes a partition again if its worker was lost: by the same name, and nothing
        # is seen by the folder's own name until all of them are there.
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            collection.to_parquet(str(temporary), write_index=False)
            temporary.rename(whole)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return whole


def map_rows(
    collection: Any, function: Callable[[Any], np.ndarray], names: Sequence[str] | None,
    example: np.ndarray | None = None,
) -> Any:
    """A collection of what ``function`` gives for the rows of each partition, in order.

    Parameters
    ----------
    function : from a table (Arrow) to an array ``[n]`` or ``[n, len(names)]``.
    names : of the columns; None for a series.
    example : an array of the type that ``function`` gives; float64 where there is none.
    """
    if example is None:
        example = np.empty(0) if names is None else np.empty((0, len(names)))

    def one(frame: Any) -> Any:
        return _like(frame, frame.index, function(_arrow(frame)), names)

    # The type of text shows in a value alone, so the example has some where it is text.
    meta = _like(collection._meta, None, example, names).iloc[:0]
    meta.index = collection._meta.index
    return collection.map_partitions(one, meta=meta)


def gathered(collection: Any) -> Any:
    """The rows of a collection as an Arrow table, or of a series or array as an array."""
    frame = collection.compute()
    return _arrow(frame) if hasattr(frame, "columns") else np.asarray(
        frame.to_pandas() if hasattr(frame, "to_pandas") else frame)


def _arrow(frame: Any) -> pa.Table:
    if hasattr(frame, "to_arrow"):  # cuDF's
        return frame.to_arrow(preserve_index=False)
    return pa.Table.from_pandas(frame, preserve_index=False)


def _like(frame: Any, index: Any, values: np.ndarray, names: Sequence[str] | None) -> Any:
    """A frame or series of the library that ``frame`` is of."""
    columns = {"prediction": values} if names is None else {
        name: values[:, i] if values.ndim == 2 else values for i, name in enumerate(names)
    }
    made = type(frame)(columns, index=index)
    return made["prediction"] if names is None else made
