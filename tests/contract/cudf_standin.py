"""Stand-ins for cuDF and RMM on Arrow: the few things of them that the frame layer uses."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from contract.record import Record


def make(record: Record, cupy: Any) -> dict[str, types.ModuleType]:
    """New modules ``cudf`` and ``rmm``, by name, whose uses go to ``record``."""

    def device(array: np.ndarray) -> Any:
        return cupy.ndarray(np.array(array))

    class Index:
        def __init__(self, values: pa.Array) -> None:
            self._values = values

        def to_arrow(self) -> pa.Array:
            record.call("cudf.Index", "to_arrow", 0)
            return self._values.cast(pa.large_string())  # what cuDF gives is not ours to choose

    class Series:
        def __init__(self, values: pa.Array) -> None:
            self._values = values

        @property
        def has_nulls(self) -> bool:
            record.get("cudf.Series", "has_nulls")
            return self._values.null_count > 0

        @property
        def values(self) -> Any:
            record.get("cudf.Series", "values")
            if self._values.null_count:
                raise ValueError(f"Column must have no nulls for dtype={self._values.type}")
            return device(self._values.to_numpy(zero_copy_only=False))

        def isnull(self) -> Series:
            record.call("cudf.Series", "isnull", 0)
            return Series(self._values.is_null())

        def fillna(self, value: Any) -> Series:
            record.call("cudf.Series", "fillna", 1)
            # NaN is a value to Arrow, and a hole like null to cuDF: both are filled.
            return Series(self._values.fill_null(value))

        def astype(self, dtype: str) -> Series:
            record.call("cudf.Series", "astype", 1)
            arrow = {"datetime64[us]": pa.timestamp("us"), "bool": pa.bool_()}.get(dtype)
            return Series(self._values.cast(arrow or pa.from_numpy_dtype(dtype)))

        def factorize(self, *, use_na_sentinel: bool) -> tuple[Any, Index]:
            record.call("cudf.Series", "factorize", 0, ["use_na_sentinel"])
            levels = self._values.drop_null().unique()
            # In the order of a hash table of the device: in none that a caller may count on.
            levels = levels.take(pa.array(np.arange(len(levels))[::-1]))
            codes = pc.index_in(self._values, value_set=levels).fill_null(-1)
            return device(codes.to_numpy(zero_copy_only=False).astype("int64")), Index(levels)

    class DataFrame:
        def __init__(self, table: pa.Table) -> None:
            self._table = table

        def __getitem__(self, name: str) -> Series:
            record.call("cudf.DataFrame", "__getitem__", 1)
            column = self._table.column(name).combine_chunks()
            if isinstance(column, pa.ChunkedArray):
                column = pa.concat_arrays(column.chunks)
            if pa.types.is_dictionary(column.type):
                column = column.dictionary_decode()
            return Series(column)

    def read_parquet(path: str, **options: Any) -> DataFrame:
        record.call("cudf", "read_parquet", 1, options)
        ((group,),) = options["row_groups"]
        with pq.ParquetFile(path) as file:
            return DataFrame(file.read_row_group(group, columns=options["columns"]))

    for made in (Index, Series, DataFrame):
        made.__module__ = "cudf"
    cudf = types.ModuleType("cudf")
    cudf.Index, cudf.Series, cudf.DataFrame = Index, Series, DataFrame
    cudf.read_parquet = read_parquet
    return {"cudf": cudf, **_rmm(record)}


def _rmm(record: Record) -> dict[str, types.ModuleType]:
    class CudaMemoryResource:
        pass

    class CudaAsyncMemoryResource:
        def __init__(self, **options: Any) -> None:
            record.call("rmm.mr.CudaAsyncMemoryResource", "__init__", 0, options)

    current: list[Any] = [CudaMemoryResource()]

    def get_current_device_resource() -> Any:
        record.call("rmm.mr", "get_current_device_resource", 0)
        return current[0]

    def set_current_device_resource(resource: Any) -> None:
        record.call("rmm.mr", "set_current_device_resource", 1)
        current[0] = resource

    rmm, mr = types.ModuleType("rmm"), types.ModuleType("rmm.mr")
    allocators, ours = types.ModuleType("rmm.allocators"), types.ModuleType("rmm.allocators.cupy")
    mr.CudaMemoryResource, mr.CudaAsyncMemoryResource = CudaMemoryResource, CudaAsyncMemoryResource
    mr.get_current_device_resource = get_current_device_resource
    mr.set_current_device_resource = set_current_device_resource
    ours.rmm_cupy_allocator = lambda nbytes: None
    rmm.mr, rmm.allocators, allocators.cupy = mr, allocators, ours
    return {m.__name__: m for m in (rmm, mr, allocators, ours)}
