"""Whether a GPU can be used here: what was looked at, what was seen, and the command that mends.

The findings are in the order in which things must be right: the first that is not is the reason,
and its command the next one to run. Nothing is imported and no GPU work is started, but for
`probe`, which tries RAPIDS in a process of its own.

Versions that RAPIDS 26.10 needs: https://docs.nvidia.com/datascience/platform-support/
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, Literal

from gpupipe.engine.devices import Device, Driver, ask_driver
from gpupipe.engine.packages import installed, requirements, within
from gpupipe.errors import EnvironmentFault

State = Literal["ok", "missing", "problem"]
MARKS = {"ok": "ok", "missing": "--", "problem": "!!"}

LEAST_CUDA = (12, 2)
LEAST_DRIVER = {12: 535, 13: 580}
"""By the CUDA version of the wheels."""
LEAST_CAPABILITY = {12: (7, 0), 13: (7, 5)}
NO_DEVICE, NOT_READY, MISMATCH, UNKNOWN = 100, 802, 803, 999
"""CUresults that tell something: CUDA_ERROR_NO_DEVICE, _SYSTEM_NOT_READY,
_SYSTEM_DRIVER_MISMATCH and _UNKNOWN."""
PROBE = (
    "import cupy, cudf; n = cupy.cuda.runtime.getDeviceCount(); "
    "assert int(cudf.Series([1, 2]).sum()) == 3; print('devices', n)"
)
PROBE_SECONDS = 120


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
class Gpu:
    """What stands between this process and a GPU.

    Attributes
    ----------
    devices : those that the driver names.
    findings : driver, ``nvidia-smi``, devices, RAPIDS, in the order in which they must be right.
    """

    devices: tuple[Device, ...]
    findings: tuple[Finding, ...]

    @property
    def blocked(self) -> Finding | None:
        """The first thing that must be mended; None where a GPU can be used."""
        return next((f for f in self.findings if f.state != "ok" and f.mend), None)

    @property
    def usable(self) -> bool:
        return self.blocked is None

    @property
    def why(self) -> str:
        """In a few words: the devices, or what is in the way."""
        blocked = self.blocked
        if blocked is None:
            return "; ".join(map(str, self.devices))
        return f"{blocked.what}: {blocked.detail}"

    @property
    def mend(self) -> str | None:
        """The next command; None where a GPU can be used."""
        return self.blocked.mend if self.blocked else None

    def fault(self, wanted: str) -> EnvironmentFault:
        """The error for whoever ``wanted`` a GPU that cannot be used, with all that was found."""
        lines = []
        for f in self.findings:
            lines.append(f"  {MARKS[f.state]}  {f.what:<14}  {f.detail}")
            lines += [f"{'':22}-> {f.mend}"] if f.mend else []
        return EnvironmentFault(
            f"{wanted}, and no GPU can be used here. {self.why}", excerpt="\n".join(lines),
            hint=f"{self.mend}\n      or set engine.device to cpu, which needs no GPU",
        )

    def to_json(self) -> dict[str, Any]:
        return {"usable": self.usable, "why": self.why, "mend": self.mend, "devices": [
            {"name": d.name, "memory_bytes": d.memory,
             "compute_capability": "{}.{}".format(*d.capability)} for d in self.devices]}


def look() -> Gpu:
    """What is here of all that a GPU needs."""
    driver = ask_driver()
    smi = None if driver.devices else nvidia_smi()
    return Gpu(driver.devices, (_driver(driver, smi), *([] if driver.devices else [_smi(smi)]),
                                _devices(driver), _rapids(driver)))


def probe() -> Finding:
    """Whether cuDF and CuPy can be imported and count on the device: tried in another process."""
    what = "RAPIDS at work"
    try:
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True,
                              timeout=PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Finding(what, "missing", f"no answer from the device in {PROBE_SECONDS} seconds",
                       "nvidia-smi")
    if done.returncode == 0:
        return Finding(what, "ok", f"cuDF adds up on the GPU; CuPy sees {done.stdout.strip()}")
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return Finding(what, "missing", last[:300],
                   "pip install --force-reinstall " + _pip_extra(ask_driver()))


def _driver(driver: Driver, smi: str | None) -> Finding:
    """Whether there is a driver that is new enough and that programs can reach."""
    what = "NVIDIA driver"
    match = re.search(r"Kernel Module[^\n]*?(\d+\.\d[\d.]*)", read("/proc/driver/nvidia/version"))
    kernel = match[1] if match else None
    if driver.cuda:
        seen = ", ".join(filter(None, [kernel, "CUDA {}.{}".format(*driver.cuda)]))
        if driver.cuda < LEAST_CUDA:
            return Finding(what, "missing", f"{seen}: RAPIDS needs {LEAST_DRIVER[12]} or newer "
                           f"(CUDA {LEAST_CUDA[0]}.{LEAST_CUDA[1]})", _install_driver())
        return Finding(what, "ok", seen)
    if kernel or smi:
        seen = f"{kernel or 'one'} is loaded, but libcuda.so.1 cannot be loaded by programs"
        if in_container():
            return Finding(what, "missing", f"{seen}: this container was started without the GPU",
                           "on the host, with the NVIDIA Container Toolkit: docker run --gpus all "
                           "...")
        version = (kernel or "580").partition(".")[0]
        return Finding(what, "missing", f"{seen}: its CUDA part is not installed",
                       f"sudo apt install libnvidia-compute-{version}")
    if platform.system() == "Darwin":
        return Finding(what, "missing", "macOS has no CUDA",
                       "use a Linux machine with an NVIDIA card; here everything runs on the CPU")
    cards = nvidia_cards()
    if cards:
        seen = f"not found, but {count(cards, 'NVIDIA card')} on the PCI bus"
        return Finding(what, "missing", seen, _install_driver())
    seen = "not found (no libcuda.so.1, no kernel module, no NVIDIA card on the PCI bus)"
    if in_container():
        return Finding(what, "missing", seen, "on the host: nvidia-smi; if it lists a GPU, start "
                       "this container with: docker run --gpus all ...")
    if under_wsl():
        return Finding(what, "missing", seen, "nvidia-smi.exe (it asks Windows); if that fails, "
                       "install NVIDIA's driver in Windows, then: wsl --shutdown")
    return Finding(what, "missing", seen, "lspci | grep -i nvidia (if it prints nothing, this "
                   "machine has no NVIDIA card, or its host gives it none)")


def _install_driver() -> str:
    """The command that installs or renews the driver."""
    if in_container():
        return "on the host, not in the container: install NVIDIA's driver, then restart"
    if under_wsl():
        return "install NVIDIA's newest driver in Windows, not in WSL; then: wsl --shutdown"
    name = re.search(r"^ID=\"?(\w+)", read("/etc/os-release"), re.MULTILINE)
    commands = {
        "ubuntu": "sudo ubuntu-drivers install && sudo reboot",
        "debian": "sudo apt install nvidia-driver && sudo reboot",
    }
    return commands.get(name[1] if name else "", "install NVIDIA's driver "
                        f"{LEAST_DRIVER[13]} or newer, then restart")


def _smi(answer: str | None) -> Finding:
    if answer:
        return Finding("nvidia-smi", "ok", answer)
    tool = shutil.which("nvidia-smi")
    return Finding("nvidia-smi", "missing", f"{tool} fails" if tool else
                   "is not on the path (it comes with the driver)")


def _devices(driver: Driver) -> Finding:
    """Whether this process may use a device, and whether RAPIDS can."""
    what = "CUDA devices"
    if driver.cuda is None:
        return Finding(what, "missing", "none: there is no driver to ask for their names, memory "
                       "and compute capability")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not driver.devices and driver.error in (0, NO_DEVICE) and hidden is not None:
        return Finding(what, "missing", f"none: CUDA_VISIBLE_DEVICES={hidden!r} hides them",
                       "unset CUDA_VISIBLE_DEVICES")
    if not driver.devices:
        meant, mend = {
            NO_DEVICE: ("the driver sees no card", "lspci | grep -i nvidia"),
            NOT_READY: ("the machine's NVSwitches are not up",
                        "sudo systemctl restart nvidia-fabricmanager"),
            MISMATCH: ("the driver was renewed and the old one is still loaded", "sudo reboot"),
            UNKNOWN: ("often after the machine slept",
                      "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm"),
        }.get(driver.error, ("the driver refuses", "nvidia-smi"))
        return Finding(what, "missing", f"none: CUDA error {driver.error} ({meant})", mend)
    seen = f"{len(driver.devices)}: " + "; ".join(map(str, driver.devices))
    least = LEAST_CAPABILITY[12]
    fit = [i for i, d in enumerate(driver.devices) if d.capability >= least]
    if len(fit) == len(driver.devices):
        return Finding(what, "ok", seen)
    needs = f"{seen}. RAPIDS needs compute capability {least[0]}.{least[1]} (Volta) or newer"
    if not fit:
        return Finding(what, "missing", needs, "use a newer GPU; on this machine set "
                       "engine.device to cpu")
    names = hidden.split(",") if hidden else [str(i) for i in range(len(driver.devices))]
    return Finding(what, "missing", needs, "export CUDA_VISIBLE_DEVICES="
                   + ",".join(names[i] for i in fit))


def _rapids(driver: Driver) -> Finding:
    """Whether RAPIDS is installed in versions that fit together, the driver and the devices."""
    what, mend = "RAPIDS", f"pip install {_pip_extra(driver)}"
    if not driver.devices:
        mend += " (4 GB, and of use only with a GPU)"
    try:
        wanted = [(r, r.version) for r in requirements(_extra(driver))]
    except PackageNotFoundError:
        return Finding(what, "missing", "gpupipe is not installed, which says what fits", mend)
    found = ", ".join(f"{_stem(r.name)} {v}" for r, v in wanted if v)
    lacking = [_stem(r.name) for r, v in wanted if v is None]
    if lacking:
        return Finding(what, "missing", f"lacks {', '.join(lacking)}"
                       + (f" (has {found})" if found else ""), mend)
    unfit = [f"{_stem(r.name)} {v} is outside {r.bounds}" for r, v in wanted
             if v and not within(v, r.bounds)]
    if unfit:
        return Finding(what, "missing", "; ".join(unfit), mend)
    other = installed("cudf-cu13") if _extra(driver) == "gpu-cu12" else installed("cudf-cu12")
    if other and driver.devices:
        return Finding(what, "missing", f"built for another CUDA than this GPU's "
                       f"{'12' if _extra(driver) == 'gpu-cu12' else '13'}: {found}", mend)
    if driver.devices and installed("xgboost-cpu") and not installed("xgboost"):
        return Finding(what, "missing", "xgboost-cpu is installed, which is built without CUDA",
                       "pip uninstall -y xgboost-cpu && pip install xgboost")
    return Finding(what, "ok", found)


def _extra(driver: Driver) -> str:
    """gpupipe's extra with the wheels for this driver and these devices."""
    old = driver.cuda is not None and driver.cuda[0] < 13
    older = any(d.capability < LEAST_CAPABILITY[13] for d in driver.devices)
    return "gpu-cu12" if old or older else "gpu-cu13"


def _pip_extra(driver: Driver) -> str:
    return f"'gpupipe[{_extra(driver)}]'"


def _stem(name: str) -> str:
    """``cudf`` of ``cudf-cu13``, ``cuml`` of ``cuml-cu13[dask]``."""
    return re.sub(r"-cu(da)?\d\dx?$", "", name.partition("[")[0])


def nvidia_smi() -> str | None:
    """What ``nvidia-smi`` says of the cards; None where it is not there, or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    try:
        answer = subprocess.run(
            [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said = " | ".join(answer.stdout.strip().splitlines())
    return said if answer.returncode == 0 and said else None


def nvidia_cards() -> int:
    """NVIDIA display controllers on the PCI bus (vendor 0x10de, class 0x03....)."""
    return sum(
        read(vendor) == "0x10de" and read(vendor.with_name("class")).startswith("0x03")
        for vendor in Path("/sys/bus/pci/devices").glob("*/vendor")
    )


def in_container() -> bool:
    """Whether this process runs in a container."""
    marks = ("/.dockerenv", "/run/.containerenv")
    return bool({"container", "KUBERNETES_SERVICE_HOST"} & set(os.environ)) or any(
        Path(mark).exists() for mark in marks)


def under_wsl() -> bool:
    return "microsoft" in read("/proc/version").lower()


def count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def read(path: str | Path) -> str:
    """A small file's text; empty where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
