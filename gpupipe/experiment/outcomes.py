"""Outcomes that stand in another table, found by the unit's id or by a row's own key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.engine.frames import Array, Column, Frames


@dataclass(frozen=True)
class Outcomes:
    """A value of each column for each key.

    Attributes
    ----------
    on : the column that holds the key, in both tables.
    keys : Arrow array ``[n]`` of distinct keys.
    values : column -> float64 ``[n]``, NaN where there is none.
    """

    on: str
    keys: pa.Array
    values: Mapping[str, np.ndarray]

    def of(self, column: Column, fx: Frames) -> dict[str, Array]:
        """Each row's values, NaN where its key is not there."""
        codes, levels = fx.factorize(column)
        place = places(levels, self.keys)
        found = {}
        for name, values in self.values.items():
            of_level = np.append(np.append(values, np.nan)[place], np.nan)
            found[name] = fx.to_device(of_level)[codes]
        return found


def places(wanted: pa.Array, keys: pa.Array) -> np.ndarray:
    """Where each of ``wanted`` stands among ``keys``: int64 ``[n]``; -1 where it does not.

    Keys of two types (numbers here, text there) are compared as text.
    """
    if wanted.type != keys.type:
        wanted, keys = wanted.cast(pa.string()), keys.cast(pa.string())
    found = pc.fill_null(pc.index_in(wanted, value_set=keys), -1)
    return found.to_numpy(zero_copy_only=False).astype(np.int64)
