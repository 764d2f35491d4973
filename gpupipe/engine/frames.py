"""The frame layer: the few verbs through which everything else sees a table.

A batch arrives as an Arrow table. `Frames.frame` hands it to the frame library (pandas here,
cuDF on a GPU) and `Frames.column` takes one column out of it as plain arrays. From there on
work is array arithmetic in ``fx.xp`` (NumPy or CuPy) and reads the same for both. Strings
never enter the arrays: a string column is int32 codes into the batch's distinct values,
which live on the host as an Arrow array, because there are few of them.

What all libraries agree on is written once, in `ArrayFrames`. What they do not agree on is
written for each: in `pandas.PandasFrames` and `cudf.CudfFrames`, which train, with the reason
beside it, and in `NumpyFrames` here, which scores where neither of them is installed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.engine.calendar import calendar_part
from gpupipe.engine.hashing import MISSING_HASH, hash_numbers, hash_strings

Array = Any
"""A NumPy or CuPy array."""
Frame = Any
"""A pandas or cuDF data frame, as its frame layer keeps it; it has a length."""

MISSING = -1
"""The code of a missing value."""
HASHES = -1
"""The place among a dictionary's answers for the hashes of its values; an id is never negative."""
SHARED_LEVELS = 65_536
"""A dictionary up to this size, or that of the longest batch, is worth sharing."""
UNKNOWN = -2
"""The code of a value that a table of levels does not hold."""


@dataclass(frozen=True)
class Column:
    """One column of a batch, ``[n]`` long, as arrays on the device.

    ``values`` are float32/float64 (NaN is missing), int64 or narrower, bool, int64 microseconds
    (timestamp) or codes of 8 to 32 bits into ``levels`` (string; -1 is missing). ``missing``
    is a boolean mask for int64, bool and timestamp, or None where nothing is missing.

    Batches that share a dictionary (`Frames.share`) have the same ``levels``, and in
    ``answers`` what was found out about it, for the batches to come; numbers then have
    ``codes`` into it beside their values.
    """

    dtype: str
    values: Array
    missing: Array | None = None
    levels: pa.Array | None = None
    codes: Array | None = None
    answers: dict[int, tuple[pa.Array, Array]] | None = None

    def __len__(self) -> int:
        return int(self.values.shape[0])


@dataclass(frozen=True)
class Block:
    """Several float32 features that one step made from one column: ``values`` is ``[n, k]``."""

    names: tuple[str, ...]
    values: Array


class Frames(Protocol):
    """What an engine must offer; `pandas.PandasFrames` is the reference.

    Attributes
    ----------
    xp : the array library, NumPy or CuPy.
    device : ``cpu`` or ``cuda``: where arrays of ``xp`` lie.
    out_of_memory : the exceptions that say that the device's memory is full; none for a CPU.
    read_parquet : reads columns of a Parquet row group to the device, as a frame; None where
        files are read by the host.
    """

    xp: Any
    device: str
    out_of_memory: tuple[type[BaseException], ...]

    @property
    def read_parquet(self) -> Callable[[str, int, Sequence[str]], Frame] | None: ...

    def frame(self, table: pa.Table) -> Frame: ...

    def column(self, frame: Frame, name: str, dtype: str) -> Column: ...

    def is_missing(self, column: Column) -> Array: ...

    def numbers(self, column: Column) -> Array: ...

    def factorize(self, column: Column) -> tuple[Array, pa.Array]: ...

    def narrow(self, column: Column) -> Column: ...

    def share(self, batches: Sequence[Column]) -> list[Column]: ...

    def lookup(self, column: Column, levels: pa.Array) -> Array: ...

    def hash64(self, column: Column) -> Array: ...

    def calendar(self, column: Column, part: str) -> Column: ...

    def on_host(self, function: Callable[[np.ndarray], np.ndarray], array: Array) -> Array: ...

    def to_host(self, array: Array) -> np.ndarray: ...

    def to_device(self, array: np.ndarray) -> Array: ...


CALENDAR_PARTS = (
    "year", "quarter", "month", "day", "day_of_week", "day_of_year", "hour", "minute", "second",
)
"""What `Frames.calendar` knows: the names are those of pandas' ``.dt``."""


class ArrayFrames(ABC):
    """The verbs that are the same for NumPy and CuPy: arithmetic on arrays of ``xp``."""

    xp: Any

    def frame(self, table: pa.Table) -> Frame:
        """The Arrow table itself: its columns become arrays one by one, without a copy between."""
        return table

    def column(self, frame: Frame, name: str, dtype: str) -> Column:
        """Column ``name`` as arrays, of one of the six logical types."""
        values = frame.column(name)
        if dtype == "string":
            values = values.unify_dictionaries() if values.num_chunks > 1 else values
            encoded = values.combine_chunks()
            if isinstance(encoded, pa.ChunkedArray):  # of no chunks at all
                encoded = pa.concat_arrays(encoded.chunks)
            codes = encoded.indices.fill_null(MISSING).to_numpy()
            return Column(dtype, self.to_device(codes), None, encoded.dictionary)
        if dtype in ("float32", "float64"):
            return Column(dtype, self.to_device(values.to_numpy().astype(dtype, copy=False)))
        missing = values.is_null().to_numpy() if values.null_count else None
        if missing is not None:
            values = values.fill_null(False if dtype == "bool" else 0)
            missing = self.to_device(missing)
        if dtype == "timestamp":
            values = values.cast(pa.int64())
        return Column(dtype, self.to_device(values.to_numpy()), missing)

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
            return column.values if column.codes is None else column.codes, column.levels
        if column.dtype in ("float32", "float64"):
            return self._distinct(self.numbers(column) + 0.0, None)  # -0.0 and 0.0 are one value
        return self._distinct(column.values, column.missing)

    @abstractmethod
    def _distinct(self, values: Array, missing: Array | None) -> tuple[Array, pa.Array]:
        """Codes, -1 where ``missing`` or NaN, and the distinct values on the host, in any order."""

    def narrow(self, column: Column) -> Column:
        """The same column in less memory: whole numbers in as few bytes as hold them all."""
        values = column.values
        if column.dtype != "int64" or not len(values):
            return column
        return replace(column, values=values.astype(width_of(int(values.min()), int(values.max()))))

    def share(self, batches: Sequence[Column]) -> list[Column]:
        """The batches of one column with one dictionary among them, unless it is very long.

        What is asked of a dictionary (`lookup`) is then worked out once, not once a batch,
        and tables that are keyed by it add up as they are.
        """
        if not batches:
            return []
        coded = [self.factorize(batch) for batch in batches]
        # A dictionary as a column of its own values: united, its indices are the new codes.
        united = pa.chunked_array([
            pa.DictionaryArray.from_arrays(pa.array(np.arange(len(levels), dtype=np.int32)), levels)
            for _, levels in coded
        ]).unify_dictionaries().chunks
        levels = united[0].dictionary
        answers: dict[int, tuple[pa.Array, Array]] = {}
        if len(levels) > max(SHARED_LEVELS, *map(len, batches)):
            return list(batches)  # tables with a row a level would outgrow the batches
        width = width_of(MISSING, len(levels))
        shared = []
        for batch, (codes, _), chunk in zip(batches, coded, united, strict=True):
            # A missing code is -1, and so takes the last entry.
            table = np.append(chunk.indices.to_numpy(), MISSING).astype(width)
            moved = self.to_device(table)[codes]
            own = {"values": moved} if batch.dtype == "string" else {"codes": moved}
            shared.append(replace(batch, levels=levels, answers=answers, **own))
        return shared

    def lookup(self, column: Column, levels: pa.Array) -> Array:
        """Position of each value in ``levels``: int64 ``[n]``; -1 missing, -2 not there.

        Only the batch's distinct values are looked up; rows then take their answer.
        """
        codes, uniques = self.factorize(column)
        answers = {} if column.answers is None else column.answers
        if id(levels) not in answers:
            found = pc.index_in(uniques.cast(levels.type), value_set=levels)
            table = pc.fill_null(found, UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int64)
            table = np.append(table, MISSING)  # code -1 takes the last entry
            # The levels are kept beside their answer, so that their id stays theirs.
            answers[id(levels)] = (levels, self.to_device(table))
        return answers[id(levels)][1][codes]

    def hash64(self, column: Column) -> Array:
        """A uint64 hash of each value, the same for every width, encoding and library."""
        missing = self.is_missing(column)
        if column.dtype == "string":
            answers = {} if column.answers is None else column.answers
            if HASHES not in answers:
                table = np.append(hash_strings(column.levels), np.uint64(0))
                answers[HASHES] = (column.levels, self.to_device(table))
            hashed = answers[HASHES][1][column.values]
        else:
            hashed = hash_numbers(column.values, self.xp)
        return self.xp.where(missing, self.xp.uint64(MISSING_HASH), hashed)

    def on_host(self, function: Callable[[np.ndarray], np.ndarray], array: Array) -> Array:
        """NumPy's ``function`` of an array, wherever the array lies.

        For what libraries round each in its own way (logarithms, sines): what is learned from
        such a column is then the same to the last bit on every device.
        """
        return self.to_device(function(self.to_host(array)))

    def to_host(self, array: Array) -> np.ndarray:
        return np.asarray(array)

    def to_device(self, array: np.ndarray) -> Array:
        return array


class NumpyFrames(ArrayFrames):
    """The frame layer on NumPy and Arrow alone: what scores where there is no pandas."""

    xp: Any = np
    device = "cpu"
    out_of_memory: tuple[type[BaseException], ...] = ()
    read_parquet: Callable[[str, int, Sequence[str]], Frame] | None = None

    def _distinct(self, values: Array, missing: Array | None) -> tuple[Array, pa.Array]:
        # Narrower integers are widened, as pandas' are; NaN is a null, and has no value.
        values = values.astype("int64", copy=False) if values.dtype.kind == "i" else values
        encoded = pa.array(values, mask=missing, from_pandas=True).dictionary_encode()
        return encoded.indices.fill_null(MISSING).to_numpy(), encoded.dictionary

    def calendar(self, column: Column, part: str) -> Column:
        """Part ``part`` (one of `CALENDAR_PARTS`) of a timestamp, as an int64 column, in UTC."""
        return Column("int64", calendar_part(column.values, part, np), column.missing)


def width_of(low: int, high: int) -> str:
    """The narrowest signed integer type that holds both."""
    for name in ("int8", "int16", "int32"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return name
    return "int64"
