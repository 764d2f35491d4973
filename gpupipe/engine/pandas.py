"""The frame layer on pandas: the reference that the others are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from gpupipe.engine.frames import MISSING, Array, ArrayFrames, Column, Frame


class PandasFrames(ArrayFrames):
    """The frame layer on pandas and NumPy."""

    xp: Any = np
    device = "cpu"
    out_of_memory: tuple[type[BaseException], ...] = ()
    read_parquet: Callable[[str, int, Sequence[str]], Frame] | None = None

    def _distinct(self, values: Array, missing: Array | None) -> tuple[Array, pa.Array]:
        # By a hash table: in the order in which values come. On a GPU sorting is faster.
        codes, uniques = pd.factorize(values, use_na_sentinel=True)
        if values.dtype.kind == "i":
            uniques = uniques.astype("int64", copy=False)
        if missing is not None:
            codes = np.where(missing, MISSING, codes)
        return codes, pa.array(uniques)

    def calendar(self, column: Column, part: str) -> Column:
        """Part ``part`` (one of `CALENDAR_PARTS`) of a timestamp, as an int64 column, in UTC."""
        times = pd.Series(column.values.view("datetime64[us]"))
        values = getattr(times.dt, part).to_numpy().astype("int64")
        return Column("int64", values, column.missing)
