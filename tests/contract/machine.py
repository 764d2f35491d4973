"""A machine that seems to have a GPU: stand-ins in place of RAPIDS, for as long as a test runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from contract import cudf_standin, cupy_standin, models_standin
from contract.record import Record

from gpupipe.engine import cudf as frames
from gpupipe.engine import machine


@contextmanager
def standing_in(models: bool = True) -> Iterator[Record]:
    """Inside, `CudfFrames` can be made, and what is used of the libraries is recorded."""
    record = Record()
    with pytest.MonkeyPatch.context() as patch:
        cupy = cupy_standin.make(record)
        modules: dict[str, Any] = {"cupy": cupy, **cudf_standin.make(record, cupy)}
        if models:
            modules |= models_standin.make_cuml(record, cupy)
            models_standin.patch_xgboost(patch, record, cupy)
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        patch.setattr(machine, "cuda_devices", lambda: 1)
        patch.setattr(frames, "cuda_devices", lambda: 1)
        yield record
