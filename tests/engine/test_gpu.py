"""What stands between this process and a GPU: told from the driver's answers, with the command."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import pytest

from gpupipe.config import EngineConfig
from gpupipe.engine import devices, gpu, packages
from gpupipe.engine.choose import choose
from gpupipe.errors import EnvironmentFault

H100 = ("NVIDIA H100 80GB HBM3", 85_028_765_696, (9, 0))
V100 = ("Tesla V100", 16 << 30, (7, 0))
GTX = ("GeForce GTX 1080", 8 << 30, (6, 1))


@dataclass
class Libcuda:
    """Answers like the driver's library, through the same pointers."""

    version: int = 13_000
    cards: tuple[tuple[str, int, tuple[int, int]], ...] = (H100,)
    error: int = 0

    def cuDriverGetVersion(self, out: Any) -> int:
        return self._put(out, self.version)

    def cuInit(self, flags: int) -> int:
        return self.error

    def cuDeviceGetCount(self, out: Any) -> int:
        return self._put(out, len(self.cards))

    def cuDeviceGet(self, out: Any, ordinal: int) -> int:
        return self._put(out, ordinal)

    def cuDeviceGetName(self, out: Any, size: int, device: ctypes.c_int) -> int:
        out.value = self.cards[device.value][0].encode()[: size - 1]
        return 0

    def cuDeviceTotalMem_v2(self, out: Any, device: ctypes.c_int) -> int:
        return self._put(out, self.cards[device.value][1])

    def cuDeviceGetAttribute(self, out: Any, attribute: int, device: ctypes.c_int) -> int:
        return self._put(out, self.cards[device.value][2][attribute - 75])

    @staticmethod
    def _put(out: Any, value: int) -> int:
        out._obj.value = value
        return 0


@pytest.fixture
def machine(monkeypatch):
    """A function that sets what this machine seems to have."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def seems(library: Libcuda | None, smi: str | None = None, cards: int = 0,
              container: bool = False, wsl: bool = False, have: dict[str, str] | None = None,
              kernel: str = "") -> gpu.Gpu:
        monkeypatch.setattr(devices, "libcuda", lambda: library)
        monkeypatch.setattr(gpu, "nvidia_smi", lambda: smi)
        monkeypatch.setattr(gpu, "nvidia_cards", lambda: cards)
        monkeypatch.setattr(gpu, "in_container", lambda: container)
        monkeypatch.setattr(gpu, "under_wsl", lambda: wsl)
        texts = {"/proc/driver/nvidia/version": kernel, "/etc/os-release": "ID=ubuntu"}
        monkeypatch.setattr(gpu, "read", lambda path: texts.get(str(path), ""))

        def installed(*names: str) -> str | None:
            return next((have[n] for n in names if n in have), None) if have is not None else None

        for module in (gpu, packages):
            monkeypatch.setattr(module, "installed", installed)
        return gpu.look()

    return seems


def rapids(cuda: int) -> dict[str, str]:
    return {f"cudf-cu{cuda}": "26.10.2", f"cuml-cu{cuda}": "26.10.0", "xgboost": "3.4.1",
            f"dask-cudf-cu{cuda}": "26.10.2", "dask-cuda": "26.10.0",
            f"cupy-cuda{cuda}x": "14.2.0"}


def test_a_gpu_with_all_that_it_needs_can_be_used(machine):
    found = machine(Libcuda(), have=rapids(13), kernel="NVRM: Kernel Module  580.65.06  Sun")
    assert found.usable and found.mend is None
    assert found.devices == (devices.Device(*H100),)
    assert found.why == "NVIDIA H100 80GB HBM3, 79.2 GiB, compute capability 9.0"
    assert "580.65.06, CUDA 13.0" in found.findings[0].detail
    assert found.to_json()["devices"][0]["compute_capability"] == "9.0"


@pytest.mark.parametrize(("seen", "what", "mend"), [
    ({"library": None}, "NVIDIA driver", "lspci | grep -i nvidia"),
    ({"library": None, "cards": 2}, "NVIDIA driver", "sudo ubuntu-drivers install"),
    ({"library": None, "container": True}, "NVIDIA driver", "docker run --gpus all"),
    ({"library": None, "kernel": "NVRM: Kernel Module  570.1  x", "container": True},
     "NVIDIA driver", "docker run --gpus all"),
    ({"library": None, "kernel": "NVRM: Kernel Module  570.1  x"}, "NVIDIA driver",
     "sudo apt install libnvidia-compute-570"),
    ({"library": None, "wsl": True}, "NVIDIA driver", "wsl --shutdown"),
    ({"library": Libcuda(11_080)}, "NVIDIA driver", "sudo ubuntu-drivers install"),
    ({"library": Libcuda(cards=(), error=803)}, "CUDA devices", "sudo reboot"),
    ({"library": Libcuda(cards=(), error=802)}, "CUDA devices",
     "sudo systemctl restart nvidia-fabricmanager"),
    ({"library": Libcuda(cards=(GTX,)), "have": rapids(12)}, "CUDA devices", "newer GPU"),
    ({"library": Libcuda(cards=(GTX, H100)), "have": rapids(13)}, "CUDA devices",
     "export CUDA_VISIBLE_DEVICES=1"),
    ({"library": Libcuda()}, "RAPIDS", "pip install 'gpupipe[gpu-cu13]'"),
    ({"library": Libcuda(12_040)}, "RAPIDS", "pip install 'gpupipe[gpu-cu12]'"),
    ({"library": Libcuda(cards=(V100,))}, "RAPIDS", "pip install 'gpupipe[gpu-cu12]'"),
    ({"library": Libcuda(12_040), "have": rapids(13)}, "RAPIDS", "'gpupipe[gpu-cu12]'"),
    ({"library": Libcuda(), "have": {**rapids(13), "cudf-cu13": "26.8.0"}}, "RAPIDS",
     "'gpupipe[gpu-cu13]'"),
    ({"library": Libcuda(), "have": {
        **{k: v for k, v in rapids(13).items() if k != "xgboost"}, "xgboost-cpu": "3.4.1"}},
     "RAPIDS", "pip uninstall -y xgboost-cpu && pip install xgboost"),
])
def test_the_first_thing_in_the_way_is_named_with_the_command_that_mends_it(
    machine, seen, what, mend
):
    found = machine(**seen)
    assert not found.usable
    assert found.blocked is not None and found.blocked.what == what
    assert mend in (found.mend or "")
    assert found.why.startswith(what)


def test_rapids_from_conda_has_no_suffix(machine):
    plain = {"cudf": "26.10.1", "cuml": "26.10.1", "dask-cudf": "26.10.1", "dask-cuda": "26.10.0",
             "cupy": "14.0.1", "xgboost": "3.2.0"}
    assert machine(Libcuda(), have=plain).usable
    assert machine(Libcuda(12_040), have=plain).usable


def test_hidden_devices_are_told_from_none(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    hidden = gpu._devices(devices.Driver((13, 0), 100, ()))
    assert "CUDA_VISIBLE_DEVICES='-1' hides them" in hidden.detail
    assert hidden.mend == "unset CUDA_VISIBLE_DEVICES"
    broken = gpu._devices(devices.Driver((13, 0), 803, ()))
    assert "803" in broken.detail and broken.mend == "sudo reboot"


def test_cuda_without_a_usable_gpu_ends_with_what_doctor_found(machine):
    machine(None, smi="NVIDIA H100, 580.65.06, 81559 MiB", container=True)
    with pytest.raises(EnvironmentFault) as caught:
        choose(EngineConfig(device="cuda"))
    fault = caught.value
    assert fault.exit_code == 5
    assert "engine.device is cuda" in fault.message and "libcuda.so.1" in fault.message
    for part in ("NVIDIA driver", "nvidia-smi", "NVIDIA H100, 580.65.06", "CUDA devices",
                 "compute capability", "RAPIDS", "pip install 'gpupipe[gpu-cu13]'"):
        assert part in (fault.excerpt or "")
    assert "--gpus all" in (fault.hint or "")


def test_a_probe_that_fails_tells_the_last_line_of_the_error(monkeypatch):
    monkeypatch.setattr(gpu, "PROBE", "raise RuntimeError('the device is lost')")
    found = gpu.probe()
    assert found.state == "missing"
    assert found.detail == "RuntimeError: the device is lost"
    monkeypatch.setattr(gpu, "PROBE", "print('devices', 1)")
    assert gpu.probe().state == "ok"
