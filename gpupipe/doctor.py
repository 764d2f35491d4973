"""What works on this machine, and the exact command that mends what does not."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gpupipe.engine.machine import cores, memory_limit

State = Literal["ok", "missing", "problem"]

RAPIDS = ("cudf", "cuml", "cupy", "dask_cudf", "dask_cuda")
ALIASES = {"xgboost": ("xgboost-cpu",)}  # the same package, built without CUDA


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what it is, how it stands, what was seen, how to mend it.

    ``missing`` is a lack that only some work needs; ``problem`` is one that all work needs.
    """

    what: str
    state: State
    detail: str
    mend: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and the device and engine that ``auto`` means here."""

    findings: tuple[Finding, ...]
    device: str
    engine: str
    why: str

    @property
    def healthy(self) -> bool:
        return all(f.state != "problem" for f in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "healthy": self.healthy, "device": self.device, "engine": self.engine,
            "why": self.why, "findings": [asdict(f) for f in self.findings],
        }


def diagnose() -> Diagnosis:
    """Look at Python, the machine, the packages and the GPU. Starts no GPU work."""
    driver, cuda_major = _driver()
    devices, seen = _devices()
    rapids = _rapids(cuda_major, devices)
    findings = (
        _python(), _platform(), _cores(), _memory(), *_packages(), driver, seen, rapids,
    )
    return Diagnosis(findings, *_auto())


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
    wsl = " under WSL" if "microsoft" in _read("/proc/version").lower() else ""
    return Finding("Platform", "ok", f"{platform.system()} {platform.machine()}{wsl}")


def _cores() -> Finding:
    usable, present = cores(), os.cpu_count() or 1
    return Finding(
        "Cores", "ok", f"{usable}" + (f" of the machine's {present}" if usable < present else "")
    )


def _memory() -> Finding:
    limit = memory_limit()
    available = re.search(r"MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"))
    free = f", {int(available[1]) / 2**20:.1f} GiB free" if available else ""
    return Finding("Memory", "ok", f"{limit / 2**30:.1f} GiB{free}" if limit else "unknown")


def _packages() -> list[Finding]:
    """Every dependency that gpupipe itself declares, against its bounds."""
    try:
        requirements = importlib.metadata.requires("gpupipe") or []
    except importlib.metadata.PackageNotFoundError:
        return [Finding("gpupipe", "problem", "is not installed", "pip install gpupipe")]
    findings = [Finding("gpupipe", "ok", importlib.metadata.version("gpupipe"))]
    for requirement in requirements:
        if "extra ==" in requirement:
            continue
        match = re.match(r"([A-Za-z0-9._-]+)\s*(.*)", requirement.partition(";")[0].strip())
        assert match is not None
        name, bounds = match[1], match[2].strip("() ")
        mend = f"pip install '{name}{bounds}'"
        version = _installed(name, *ALIASES.get(name, ()))
        if version is None:
            findings.append(Finding(name, "problem", f"is not installed (needs {bounds})", mend))
            continue
        if within(version, bounds):
            findings.append(Finding(name, "ok", f"{version} ({bounds})"))
        else:
            findings.append(Finding(name, "problem", f"{version} is outside {bounds}", mend))
    return findings


def within(version: str, bounds: str) -> bool:
    """Whether a release such as "3.0.6" meets bounds such as ">=3.0,<3.1" or "==26.10.*"."""
    have = _numbers(version)
    for bound in filter(None, (b.strip() for b in bounds.split(","))):
        match = re.match(r"(>=|<=|==|!=|<|>|~=)\s*(.+)", bound)
        if not match:
            return False
        operator, want = match[1], _numbers(match[2])
        width = max(len(have), len(want))
        a, b = (v + (0,) * (width - len(v)) for v in (have, want))
        if match[2].endswith(".*"):
            a, b = a[: len(want)], b[: len(want)]
        passes = {
            ">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, "<": a < b, ">": a > b,
            "~=": a >= b and a[: len(want) - 1] == want[:-1],
        }
        if not passes[operator]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(n) for n in match[0].split(".")) if match else (0,)


def _driver() -> tuple[Finding, int | None]:
    """The NVIDIA driver, and the newest CUDA major version that it runs."""
    kernel = re.search(r"Kernel Module[^\n]*?(\d+\.\d[\d.]*)", _read("/proc/driver/nvidia/version"))
    cuda = _cuda_version()
    tool = shutil.which("nvidia-smi")
    smi = ""
    if tool:
        try:
            answer = subprocess.run(
                [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
                capture_output=True, text=True, timeout=20, check=False,
            )
            smi = " | ".join(answer.stdout.split("\n")).strip(" |") if not answer.returncode else ""
        except (OSError, subprocess.SubprocessError):
            smi = ""
    what = "NVIDIA driver"
    if kernel or smi:
        parts = [kernel[1] if kernel else "", f"CUDA {cuda[0]}.{cuda[1]}" if cuda else "", smi]
        detail = ", ".join(filter(None, parts))
        if cuda is None:
            return Finding(
                what, "missing", f"{detail}; but libcuda cannot be loaded",
                "in a container, start it with `--gpus all` and the NVIDIA Container Toolkit",
            ), None
        return Finding(what, "ok", detail), cuda[0]
    if cuda:
        return Finding(what, "ok", f"libcuda answers for CUDA {cuda[0]}.{cuda[1]}"), cuda[0]
    cards = _nvidia_cards()
    if cards:
        return Finding(
            what, "missing", f"{_count(cards, 'NVIDIA card')} in this machine, but no driver",
            "install NVIDIA's driver (Ubuntu: `sudo ubuntu-drivers install`), then restart",
        ), None
    if platform.system() == "Darwin":
        return Finding(
            what, "missing", "macOS has no CUDA; everything runs on the CPU",
            "for a GPU, use a Linux machine with an NVIDIA card",
        ), None
    mend = (
        "nothing is needed for the CPU. If this machine does have an NVIDIA card: install its "
        "driver; in a container, start it with `--gpus all`; in a virtual machine, pass it through"
    )
    return Finding(what, "missing", "no driver and no NVIDIA card were found", mend), None


def _libcuda() -> ctypes.CDLL | None:
    for name in ("libcuda.so.1", "libcuda.so", "nvcuda.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _cuda_version() -> tuple[int, int] | None:
    library, version = _libcuda(), ctypes.c_int(0)
    if library is None or library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    return version.value // 1000, version.value % 1000 // 10


def _devices() -> tuple[int, Finding]:
    """How many CUDA devices this process may use (asked of libcuda; no context is made)."""
    what, library = "CUDA devices", _libcuda()
    if library is None:
        return 0, Finding(what, "missing", "none: there is no driver to ask")
    error, count = library.cuInit(0), ctypes.c_int(0)
    if error == 0:
        error = library.cuDeviceGetCount(ctypes.byref(count))
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if error == 0 and count.value:
        return count.value, Finding(what, "ok", _count(count.value))
    if hidden is not None:
        return 0, Finding(
            what, "missing", f"none are visible: CUDA_VISIBLE_DEVICES={hidden!r} hides them",
            "unset CUDA_VISIBLE_DEVICES",
        )
    return 0, Finding(
        what, "missing", f"none (CUDA error {error})",
        "check `nvidia-smi`; after a driver update, restart the machine",
    )


def _rapids(cuda_major: int | None, devices: int) -> Finding:
    have = {name: _version_of(name) for name in RAPIDS}
    found = ", ".join(f"{name} {version}" for name, version in have.items() if version)
    lacking = [name for name, version in have.items() if not version]
    extra = "gpu-cu12" if cuda_major == 12 else "gpu-cu13"
    mend: str | None = f"pip install 'gpupipe[{extra}]'"
    if cuda_major is not None and cuda_major < 12:
        mend = "update NVIDIA's driver first: RAPIDS needs one for CUDA 12 or newer"
    if not lacking:
        note = "" if devices else "; installed, but there is no GPU for it to use"
        return Finding("RAPIDS", "ok", found + note)
    detail = f"lacks {', '.join(lacking)}" + (f" (has {found})" if found else "")
    if not devices:
        mend = f"only useful with an NVIDIA GPU; there: {mend}"
    return Finding("RAPIDS", "missing", detail, mend)


def _version_of(name: str) -> str | None:
    """The installed version of a RAPIDS package, whatever CUDA suffix its wheel carries."""
    stem = name.replace("_", "-")
    suffixes = ("", "-cu12", "-cu13", "-cuda12x", "-cuda13x")
    return _installed(*(stem + suffix for suffix in suffixes))


def _installed(*names: str) -> str | None:
    """The version of the first of these distributions that is installed."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _nvidia_cards() -> int:
    """NVIDIA display controllers on the PCI bus (vendor 0x10de, class 0x03....)."""
    cards = 0
    for vendor in Path("/sys/bus/pci/devices").glob("*/vendor"):
        if _read(vendor) == "0x10de" and _read(vendor.with_name("class")).startswith("0x03"):
            cards += 1
    return cards


def _count(n: int, noun: str = "CUDA device") -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
