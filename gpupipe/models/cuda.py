"""Training and prediction on a GPU: where an array lies, and that there is a device at all."""

from __future__ import annotations

from typing import Any

from gpupipe.engine import machine
from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError, EnvironmentFault


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


def require_cpu(kind: str, device: str) -> None:
    """ConfigError where a family that trains on the CPU alone is asked to train on a GPU."""
    if device != "cpu":
        raise ConfigError(f"model {kind!r} trains on the CPU alone, and the run is on a GPU",
                          hint="set engine.device to cpu, or take model.kind: xgboost")


def is_full(error: BaseException) -> bool:
    """Whether XGBoost says that the device's memory is full."""
    text = str(error).lower()
    return "out of memory" in text or "bad_alloc" in text or "cudaerrormemoryallocation" in text


def no_room(rows: int, features: int) -> EnvironmentFault:
    """What to say where not even pages of the bins fit."""
    needed = rows * 16 / 2**30  # gradients, margins and places in the row lists stay on the device
    return EnvironmentFault(
        f"the GPU has no room to train on {rows:,} rows of {features} features, not even with "
        f"their bins on the host: about {needed:.1f} GiB of its memory must be free",
        hint="free the device for this work (`nvidia-smi` shows who uses it), take several "
        "(engine.kind: dask), or set engine.device to cpu",
    )
