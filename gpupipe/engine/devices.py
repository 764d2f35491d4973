"""What the CUDA driver tells of its devices: asked through libcuda, without making a context."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

NAMES = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")
MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


@dataclass(frozen=True)
class Device:
    """A GPU: its name, memory in bytes, and compute capability, such as (9, 0)."""

    name: str
    memory: int
    capability: tuple[int, int]

    def __str__(self) -> str:
        major, minor = self.capability
        return (f"{self.name}, {self.memory / 2**30:.1f} GiB, compute capability "
                f"{major}.{minor}")


@dataclass(frozen=True)
class Driver:
    """The driver's answer.

    Attributes
    ----------
    cuda : the newest CUDA version that it runs; None where libcuda cannot be loaded.
    error : the CUresult with which it refused to name its devices; 0 for none.
    devices : those that this process may use.
    """

    cuda: tuple[int, int] | None
    error: int
    devices: tuple[Device, ...]


def libcuda() -> Any:
    """The driver's library; None where it cannot be loaded."""
    for name in NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def ask_driver() -> Driver:
    """Ask the driver for its version and its devices."""
    library = libcuda()
    if library is None:
        return Driver(None, 0, ())
    version, count = ctypes.c_int(0), ctypes.c_int(0)
    library.cuDriverGetVersion(ctypes.byref(version))
    cuda = version.value // 1000, version.value % 1000 // 10
    error = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if error:
        return Driver(cuda, int(error), ())
    return Driver(cuda, 0, tuple(_device(library, i) for i in range(count.value)))


def _device(library: Any, ordinal: int) -> Device:
    handle, memory = ctypes.c_int(0), ctypes.c_size_t(0)
    major, minor = ctypes.c_int(0), ctypes.c_int(0)
    name = ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(handle), ordinal)
    library.cuDeviceGetName(name, len(name), handle)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    library.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, handle)
    library.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, handle)
    return Device(name.value.decode(errors="replace"), memory.value, (major.value, minor.value))
