"""On a machine without a device nothing trains on "the GPU", and no CPU model passes for one."""

from __future__ import annotations

import numpy as np
import pytest

from gpupipe.engine import machine
from gpupipe.errors import EnvironmentFault
from gpupipe.models import Matrix, Training, model_of
from gpupipe.models.cuda import device_of, require_device
from gpupipe.steps import Target

CHUNK = np.zeros((4, 1), np.float32)


class BuiltWithout:
    """An XGBoost of the CPU alone."""

    __version__ = "3.4"

    @staticmethod
    def build_info() -> dict[str, bool]:
        return {"USE_CUDA": False}


def test_xgboost_does_not_train_on_the_cpu_in_silence(monkeypatch):
    monkeypatch.setattr(machine, "cuda_devices", lambda: 0)
    rows = Matrix((CHUNK,), np.array([0, 1, 0, 1]), None, ("x",), (False,))
    with pytest.raises(EnvironmentFault, match="no CUDA device"):
        model_of("xgboost", {"n_estimators": 1}).fit(
            rows, None, Target("binary", ("no", "yes")), Training(device="cuda"))


def test_an_xgboost_without_cuda_is_named(monkeypatch):
    monkeypatch.setattr(machine, "cuda_devices", lambda: 1)
    with pytest.raises(EnvironmentFault, match=r"XGBoost 3\.4 here was built without CUDA"):
        require_device(BuiltWithout)


def test_an_array_of_numpy_lies_on_the_cpu():
    assert device_of(CHUNK) == "cpu"
