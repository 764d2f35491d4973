"""What this machine has: cores, memory and CUDA devices, as far as this process may use them."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

from gpupipe.engine.devices import libcuda

own_process = False
"""Whether this process is the command's: nothing runs in it but gpupipe."""


def cores() -> int:
    """The cores this process may use: affinity, and the container's share (cgroup)."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()  # cgroup 2: "quota period" or "max period"
    if len(quota) == 2 and quota[0].isdigit():
        count = min(count, max(1, int(quota[0]) // int(quota[1])))
    return count


def memory_limit() -> int:
    """The bytes of memory this process may use: the machine's, or its container's limit."""
    total = 0
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = _read(path)
        if limit.isdigit():
            total = min(total or int(limit), int(limit))
    return total


def peak_memory() -> int:
    """The most bytes of memory that this process has had in use so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def release_memory() -> None:
    """Give freed memory back to the system: Arrow's pool, and the C library's where it can."""
    import pyarrow as pa  # `doctor` must work where it is missing

    pa.default_memory_pool().release_unused()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


def cuda_devices() -> int:
    """How many CUDA devices this process may use; asks the driver, makes no context."""
    library, count = libcuda(), ctypes.c_int(0)
    if library is None or library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
