"""The frame layer on cuDF and CuPy, for one GPU.

Most of it is `frames.ArrayFrames`: arithmetic on arrays is the same for both array libraries.
Here is what is not:

- **null and NaN.** A cuDF column has both. Floats get NaN for either; other types get a mask.
- **category codes.** Where pandas numbers values as they come, CuPy sorts. No state keeps a
  batch's own order (`stats.state.Table.canonical`), so nothing learned depends on it.
- **text** is numbered by cuDF on the device; its distinct values then live on the host.
- **time** is microseconds since 1970 everywhere; what pandas' ``.dt`` makes of it is worked out
  in integers here (`calendar`).
- **rounding.** Sums are of integers, products are Dekker's, so they agree to the last bit.
  Logarithms and sines do not: those are NumPy's (`ArrayFrames.on_host`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.engine.arrays import to_host
from gpupipe.engine.calendar import calendar_part
from gpupipe.engine.frames import MISSING, Array, ArrayFrames, Column, Frame
from gpupipe.engine.machine import cuda_devices
from gpupipe.errors import EnvironmentFault

KEPT_BYTES = 1 << 30
"""Freed memory that the allocator holds on to, so that not every batch asks the driver."""


class CudfFrames(ArrayFrames):
    """The frame layer on cuDF and CuPy.

    CuPy is given RMM's memory, so that both libraries share one allocator. Where nobody has
    chosen one for this process, it is CUDA's own asynchronous one, and it keeps no more than
    `KEPT_BYTES` of what is not in use: XGBoost allocates beside it.

    Raises EnvironmentFault where there is no device, or a library cannot be loaded.
    """

    device = "cuda"

    def __init__(self) -> None:
        if not cuda_devices():
            raise EnvironmentFault("there is no CUDA device here",
                                   hint="set engine.device to cpu or auto")
        try:
            import cudf
            import cupy
            import rmm
            from rmm.allocators.cupy import rmm_cupy_allocator
        except ImportError as error:
            raise EnvironmentFault(
                f"this machine has a GPU, but RAPIDS cannot be imported: {error}",
                hint="pip install 'gpupipe[gpu-cu13]' (or gpu-cu12 for a driver of CUDA 12)",
            ) from None
        if type(rmm.mr.get_current_device_resource()) is rmm.mr.CudaMemoryResource:
            rmm.mr.set_current_device_resource(
                rmm.mr.CudaAsyncMemoryResource(release_threshold=KEPT_BYTES))
        cupy.cuda.set_allocator(rmm_cupy_allocator)
        self.xp: Any = cupy
        self.out_of_memory: tuple[type[BaseException], ...] = (
            cupy.cuda.memory.OutOfMemoryError, MemoryError,  # CuPy's, and what RMM's become
        )
        self._cudf: Any = cudf

    def __reduce__(self) -> tuple[type[CudfFrames], tuple[()]]:
        return CudfFrames, ()  # a worker has a device, and an allocator, of its own

    def read_parquet(self, path: str, row_group: int, columns: Sequence[str]) -> Frame:
        """Some columns of a row group, decoded on the device; none of the host's work."""
        return self._cudf.read_parquet(
            path, columns=list(columns), row_groups=[[row_group]], use_pandas_metadata=False,
            # Folders named year=2024 are read elsewhere (`data.tables`).
            dataset_kwargs={"partitioning": None},
        )

    def column(self, frame: Frame, name: str, dtype: str) -> Column:
        """Column ``name`` of an Arrow table, or of a frame that `read_parquet` gave."""
        if isinstance(frame, pa.Table):
            return super().column(frame, name, dtype)
        series = frame[name]
        if dtype == "string":
            codes, levels = series.factorize(use_na_sentinel=True)
            return Column(dtype, codes.astype("int32"), None, levels.to_arrow().cast(pa.string()))
        if dtype in ("float32", "float64"):
            return Column(dtype, series.astype(dtype).fillna(np.nan).values)
        missing = series.isnull().values if series.has_nulls else None
        if dtype == "timestamp":
            series = series.astype("datetime64[us]")
        series = series.astype("bool" if dtype == "bool" else "int64")
        if missing is not None:
            series = series.fillna(False if dtype == "bool" else 0)
        return Column(dtype, series.values, missing)

    def _distinct(self, values: Array, missing: Array | None) -> tuple[Array, pa.Array]:
        xp = self.xp
        if values.dtype.kind == "f":
            missing = xp.isnan(values)
        if missing is None:
            uniques, codes = xp.unique(values, return_inverse=True)
        else:
            known = ~missing
            uniques, of_known = xp.unique(values[known], return_inverse=True)
            codes = xp.full(values.shape, MISSING, dtype="int64")
            codes[known] = of_known
        host = to_host(uniques)
        return codes, pa.array(host.astype("int64") if host.dtype.kind == "i" else host)

    def calendar(self, column: Column, part: str) -> Column:
        """Part ``part`` (one of `CALENDAR_PARTS`) of a timestamp, as an int64 column, in UTC."""
        return Column("int64", calendar_part(column.values, part, self.xp), column.missing)

    def to_host(self, array: Array) -> np.ndarray:
        return to_host(array)

    def to_device(self, array: np.ndarray) -> Array:
        return self.xp.asarray(array)
