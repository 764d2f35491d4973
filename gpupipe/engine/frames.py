"""The frame layer: the few verbs through which everything else sees a table.

A batch arrives as an Arrow table. `Frames.frame` hands it to the frame library (pandas here,
cuDF on a GPU) and `Frames.column` takes one column out of it as plain arrays. From there on
work is array arithmetic in ``fx.xp`` (NumPy or CuPy) and reads the same for both. Strings
never enter the arrays: a string column is int32 codes into the batch's distinct values,
which live on the host as an Arrow array, because there are few of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.engine.hashing import MISSING_HASH, hash_numbers, hash_strings

Array = Any
"""A NumPy or CuPy array."""
Frame = Any
"""A pandas or cuDF data frame, as its frame layer keeps it; it has a length."""

MISSING = -1
"""The code of a missing value."""
UNKNOWN = -2
"""The code of a value that a table of levels does not hold."""


@dataclass(frozen=True)
class Column:
    """One column of a batch, ``[n]`` long, as arrays on the device.

    ``values`` are float32/float64 (NaN is missing), int64, bool, int64 microseconds
    (timestamp) or int32 codes into ``levels`` (string; -1 is missing). ``missing`` is a
    boolean mask for int64, bool and timestamp, or None where nothing is missing.
    """

    dtype: str
    values: Array
    missing: Array | None = None
    levels: pa.Array | None = None

    def __len__(self) -> int:
        return int(self.values.shape[0])


@dataclass(frozen=True)
class Block:
    """Several float32 features that one step made from one column: ``values`` is ``[n, k]``."""

    names: tuple[str, ...]
    values: Array


class Frames(Protocol):
    """What an engine must offer; `PandasFrames` is the reference."""

    xp: Any

    def frame(self, table: pa.Table) -> Frame: ...

    def column(self, frame: Frame, name: str, dtype: str) -> Column: ...

    def is_missing(self, column: Column) -> Array: ...

    def numbers(self, column: Column) -> Array: ...

    def factorize(self, column: Column) -> tuple[Array, pa.Array]: ...

    def lookup(self, column: Column, levels: pa.Array) -> Array: ...

    def hash64(self, column: Column) -> Array: ...

    def calendar(self, column: Column, part: str) -> Column: ...

    def to_host(self, array: Array) -> np.ndarray: ...

    def to_device(self, array: np.ndarray) -> Array: ...


CALENDAR_PARTS = (
    "year", "quarter", "month", "day", "day_of_week", "day_of_year", "hour", "minute", "second",
)
"""What `Frames.calendar` knows: the names are those of pandas' ``.dt``."""


@dataclass(frozen=True)
class TextApart:
    """A pandas frame whose text columns are codes into ``levels``."""

    data: pd.DataFrame
    levels: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.data)


class PandasFrames:
    """The frame layer on pandas and NumPy."""

    xp: Any = np

    def frame(self, table: pa.Table) -> Frame:
        """A pandas frame: integers and booleans with real nulls, text as int32 codes.

        The distinct values that the codes point at are kept beside it: as pandas categories
        they would be copied and checked again for every batch.
        """
        levels: dict[str, pa.Array] = {}
        columns = []
        for name, column in zip(table.column_names, table.columns, strict=True):
            if pa.types.is_dictionary(column.type):
                encoded = column.unify_dictionaries().combine_chunks()
                levels[name] = encoded.dictionary
                columns.append(encoded.indices.fill_null(MISSING))
            else:
                columns.append(column)
        plain = pa.Table.from_arrays(columns, names=table.column_names)
        nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
        return TextApart(plain.to_pandas(types_mapper=nullable.get, split_blocks=True), levels)

    def column(self, frame: Frame, name: str, dtype: str) -> Column:
        """Column ``name`` as arrays, of one of the six logical types."""
        series = frame.data[name]
        if dtype in ("float32", "float64"):
            return Column(dtype, series.to_numpy(dtype=dtype))
        if dtype == "string":
            return Column(dtype, series.to_numpy(), None, frame.levels[name])
        missing = series.isna().to_numpy()
        some = bool(missing.any())
        if dtype == "timestamp":
            values = series.to_numpy().astype("datetime64[us]").view("int64")
            values = np.where(missing, 0, values) if some else values
        elif dtype == "int64":
            values = series.to_numpy(dtype="int64", na_value=0)
        else:
            values = series.to_numpy(dtype="bool", na_value=False)
        return Column(dtype, values, missing if some else None)

    def is_missing(self, column: Column) -> Array:
        """A boolean array: NaN, null or no code. An infinite float is not missing here."""
        if column.dtype == "string":
            return column.values < 0
        if column.dtype in ("float32", "float64"):
            return self.xp.isnan(column.values)
        if column.missing is None:
            return self.xp.zeros(len(column), dtype=bool)
        return column.missing

    def numbers(self, column: Column) -> Array:
        """The column as float64, NaN where missing or infinite.

        An infinity is no measurement: models refuse it and means drown in it. It is counted
        in the profile and then treated as missing. Timestamps are microseconds since 1970.
        """
        values = column.values.astype("float64", copy=False)
        if column.dtype in ("float32", "float64"):
            finite = self.xp.isfinite(values)
            return values if bool(finite.all()) else self.xp.where(finite, values, self.xp.nan)
        if column.missing is not None:
            values = self.xp.where(column.missing, self.xp.nan, values)
        return values

    def factorize(self, column: Column) -> tuple[Array, pa.Array]:
        """Codes ``[n]`` (-1 is missing) and values on the host, each once, among them all in use.

        Values of a float column are float64, and infinities are missing, as in `numbers`.
        """
        if column.levels is not None:
            return column.values, column.levels
        values = column.values
        if column.dtype in ("float32", "float64"):
            values = self.numbers(column) + 0.0  # -0.0 and 0.0 are one value
        codes, uniques = pd.factorize(values, use_na_sentinel=True)
        if column.missing is not None:
            codes = np.where(column.missing, MISSING, codes)
        return codes, pa.array(uniques)

    def lookup(self, column: Column, levels: pa.Array) -> Array:
        """Position of each value in ``levels``: int64 ``[n]``; -1 missing, -2 not there.

        Only the batch's distinct values are looked up; rows then take their answer.
        """
        codes, uniques = self.factorize(column)
        found = pc.index_in(uniques.cast(levels.type), value_set=levels)
        table = pc.fill_null(found, UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int64)
        table = np.append(table, MISSING)  # code -1 takes the last entry
        return self.to_device(table)[codes]

    def hash64(self, column: Column) -> Array:
        """A uint64 hash of each value, the same for every width, encoding and library."""
        missing = self.is_missing(column)
        if column.levels is not None:
            table = np.append(hash_strings(column.levels), np.uint64(0))
            hashed = self.to_device(table)[column.values]
        else:
            hashed = hash_numbers(column.values, self.xp)
        return self.xp.where(missing, self.xp.uint64(MISSING_HASH), hashed)

    def calendar(self, column: Column, part: str) -> Column:
        """Part ``part`` (one of `CALENDAR_PARTS`) of a timestamp, as an int64 column, in UTC."""
        times = pd.Series(column.values.view("datetime64[us]"))
        values = getattr(times.dt, part).to_numpy().astype("int64")
        return Column("int64", values, column.missing)

    def to_host(self, array: Array) -> np.ndarray:
        return np.asarray(array)

    def to_device(self, array: np.ndarray) -> Array:
        return array
