"""What works on this machine, and the exact command that mends what does not."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from dataclasses import asdict, dataclass
from typing import Any

from gpupipe.engine import gpu
from gpupipe.engine.gpu import Finding, Gpu
from gpupipe.engine.machine import cores, memory_limit
from gpupipe.engine.packages import ALIASES, installed, requirements, within

__all__ = ["ALIASES", "Diagnosis", "Finding", "diagnose", "within"]


@dataclass(frozen=True)
class Diagnosis:
    """All findings, the GPU among them, and the device and engine that ``auto`` means here."""

    findings: tuple[Finding, ...]
    gpu: Gpu
    device: str
    engine: str
    why: str

    @property
    def healthy(self) -> bool:
        return all(f.state != "problem" for f in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "healthy": self.healthy, "device": self.device, "engine": self.engine,
            "why": self.why, "gpu": self.gpu.to_json(),
            "findings": [asdict(f) for f in self.findings],
        }


def diagnose() -> Diagnosis:
    """Look at Python, the machine, the packages and the GPU.

    RAPIDS is tried at work, in a process of its own, where all that it needs is there.
    """
    found = gpu.look()
    if found.usable:
        found = Gpu(found.devices, (*found.findings, gpu.probe()))
    findings = (
        _python(), _platform(), _cores(), _memory(), *_packages(), _dask(), _dashboard(),
        *found.findings,
    )
    return Diagnosis(findings, found, *_auto())


def _auto() -> tuple[str, str, str]:
    """The device and engine that a run would choose here, and why."""
    try:
        from gpupipe.config import EngineConfig
        from gpupipe.engine.choose import choose
    except ImportError as error:
        return "none", "none", f"nothing can run: {error}"
    choice = choose(EngineConfig())
    return choice.device, choice.kind, choice.why


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def _platform() -> Finding:
    kind = " in a container" if gpu.in_container() else " under WSL" if gpu.under_wsl() else ""
    return Finding("Platform", "ok", f"{platform.system()} {platform.machine()}{kind}")


def _cores() -> Finding:
    usable, present = cores(), os.cpu_count() or 1
    return Finding(
        "Cores", "ok", f"{usable}" + (f" of the machine's {present}" if usable < present else "")
    )


def _memory() -> Finding:
    limit = memory_limit()
    available = re.search(r"MemAvailable:\s+(\d+) kB", gpu.read("/proc/meminfo"))
    free = f", {int(available[1]) / 2**20:.1f} GiB free" if available else ""
    return Finding("Memory", "ok", f"{limit / 2**30:.1f} GiB{free}" if limit else "unknown")


def _packages() -> list[Finding]:
    """Every dependency that gpupipe itself declares, against its bounds."""
    try:
        needed = requirements()
    except importlib.metadata.PackageNotFoundError:
        return [Finding("gpupipe", "problem", "is not installed", "pip install gpupipe")]
    findings = [Finding("gpupipe", "ok", importlib.metadata.version("gpupipe"))]
    for r in needed:
        version = r.version
        if version is None:
            findings.append(Finding(r.name, "problem", f"is not installed (needs {r.bounds})",
                                    r.pip))
        elif within(version, r.bounds):
            findings.append(Finding(r.name, "ok", f"{version} ({r.bounds})"))
        else:
            findings.append(Finding(r.name, "problem", f"{version} is outside {r.bounds}", r.pip))
    return findings


def _dask() -> Finding:
    """What several processes, machines or GPUs need."""
    what, mend = "Dask", "pip install 'gpupipe[dask]'"
    version, cuda = installed("distributed"), installed("dask-cuda")
    if version is None:
        return Finding(what, "missing", "is not installed (for engine.kind: dask alone)", mend)
    try:
        bounds = next(r.bounds for r in requirements("dask") if r.name.startswith("dask"))
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        bounds = ""
    if not within(version, bounds):
        return Finding(what, "missing", f"distributed {version} is outside {bounds}", mend)
    return Finding(what, "ok", f"distributed {version}, "
                   + (f"dask-cuda {cuda}" if cuda else "no dask-cuda (for several GPUs)"))


def _dashboard() -> Finding:
    version = installed("bokeh")
    if version is None:
        return Finding("Dashboard", "missing", "Dask's needs bokeh, which is not installed",
                       "pip install bokeh")
    return Finding("Dashboard", "ok", f"Dask's, with bokeh {version}")
