"""Training and prediction on a GPU: where an array lies, and that there is a device at all."""

from __future__ import annotations

from typing import Any

from gpupipe.engine import machine
from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array
from gpupipe.errors import EnvironmentFault


def device_of(chunk: Array) -> str:
    """``cuda`` for a CuPy array, else ``cpu``."""
    return "cuda" if namespace(chunk).__name__ == "cupy" else "cpu"


def require_device(xgboost: Any) -> None:
    """EnvironmentFault where XGBoost would train on the CPU, which it does without a word."""
    if not machine.cuda_devices():
        raise EnvironmentFault("training on the GPU was asked for, and there is no CUDA device",
                               hint="set engine.device to cpu or auto")
    if not xgboost.build_info()["USE_CUDA"]:
        raise EnvironmentFault(f"XGBoost {xgboost.__version__} here was built without CUDA",
                               hint="pip uninstall xgboost-cpu && pip install xgboost")
