"""XGBoost by its C interface, without its Python package: what scoring a bundle needs of it.

The package imports pandas and scikit-learn where they are installed, which takes a second; the
library itself is there in a few milliseconds. Source of the calls:
https://xgboost.readthedocs.io/en/stable/dev/c__api_8h.html.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import threading
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array
from gpupipe.errors import EnvironmentFault
from gpupipe.models.forests import forest_of
from gpupipe.models.libraries import quiet_threads, xgboost_library

INSTALL = "pip install xgboost"


@cache
def xgboost_c() -> ctypes.CDLL:
    """The library. EnvironmentFault where XGBoost is not installed, or its library is not there."""
    package = importlib.util.find_spec("xgboost")
    if package is None or not package.submodule_search_locations:
        raise EnvironmentFault("the model is one of trees, and XGBoost is not installed here",
                               hint=INSTALL)
    quiet_threads()
    try:
        library = ctypes.CDLL(_path(Path(package.submodule_search_locations[0])))
    except Exception as error:
        raise EnvironmentFault(f"XGBoost is installed, but its library cannot be loaded: {error}",
                               hint=f"{INSTALL} --force-reinstall") from error
    library.XGBGetLastError.restype = ctypes.c_char_p
    return library


def _path(package: Path) -> str:
    """Where the library is, by the package's own search; that one file imports nothing else."""
    spec = importlib.util.spec_from_file_location("_xgboost_libpath", package / "libpath.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: list[str] = module.find_lib_path()
    return found[0]


def _checked(code: int) -> None:
    if code != 0:
        told = xgboost_c().XGBGetLastError().decode(errors="replace")
        lines = [line for line in told.splitlines() if line.strip()]
        raise ValueError(f"XGBoost: {(lines or ['no reason given'])[0][:300]}")


@cache
def _settings(first: int, last: int, kind: int) -> bytes:
    return json.dumps({
        "type": kind, "training": False, "iteration_begin": first, "iteration_end": last,
        "strict_shape": False, "missing": float("nan"), "cache_id": 0,
    }).encode()


class StoredBooster:
    """A booster read from the bytes that ``save_raw("ubj")`` gave.

    It predicts through the C interface, in as many threads at once as call it. Whatever else it is
    asked for is asked of an `xgboost.Booster`, for which the Python package is imported then.
    ValueError for bytes that are no model of so many features.
    """

    def __init__(self, raw: bytes, features: int, threads: int = 1) -> None:
        self.forest = forest_of(raw, features)  # looked through before the library sees it
        self.raw, self.threads = raw, threads
        self._lock, self._whole = threading.Lock(), None
        self._handle = ctypes.c_void_p()
        library = xgboost_c()
        _checked(library.XGBoosterCreate(None, ctypes.c_uint64(0), ctypes.byref(self._handle)))
        weakref.finalize(self, library.XGBoosterFree, self._handle)
        _checked(library.XGBoosterSetParam(self._handle, b"nthread", str(threads).encode()))
        _checked(library.XGBoosterLoadModelFromBuffer(
            self._handle, raw, ctypes.c_uint64(len(raw))))

    def __reduce__(self) -> tuple[Any, ...]:
        return StoredBooster, (self.raw, self.forest.features, self.threads)

    @property
    def whole(self) -> Any:
        """The `xgboost.Booster`, made when it is first asked for."""
        with self._lock:
            if self._whole is None:
                booster = xgboost_library().Booster({"nthread": self.threads})
                booster.load_model(bytearray(self.raw))
                self._whole = booster
        return self._whole

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.whole, name)

    def __getitem__(self, rounds: Any) -> Any:
        return self.whole[rounds]

    def save_raw(self, raw_format: str = "ubj") -> bytes:
        """The bytes that it was read from."""
        return self.raw if raw_format == "ubj" else bytes(self.whole.save_raw(raw_format))

    def inplace_predict(
        self, data: Array, iteration_range: tuple[int, int] = (0, 0),
        predict_type: str = "value", validate_features: bool = False,
    ) -> Array:
        """As `xgboost.Booster.inplace_predict`, NaN being missing: float32."""
        if namespace(data) is not np:
            return self.whole.inplace_predict(data, iteration_range, predict_type,
                                              validate_features=validate_features)
        if not len(data):  # the library says (0, 0) then, whatever the model
            one = np.full((1, data.shape[1]), np.nan, np.float32)
            return self.inplace_predict(one, iteration_range, predict_type)[:0]
        shape, out = ctypes.POINTER(ctypes.c_uint64)(), ctypes.POINTER(ctypes.c_float)()
        dimensions = ctypes.c_uint64()
        interface = json.dumps(
            {k: v for k, v in data.__array_interface__.items() if k != "descr"}).encode()
        _checked(xgboost_c().XGBoosterPredictFromDense(
            self._handle, interface, _settings(*iteration_range, int(predict_type == "margin")),
            None, ctypes.byref(shape), ctypes.byref(dimensions), ctypes.byref(out)))
        sizes = tuple(shape[i] for i in range(dimensions.value))
        # The library's own memory, good until this thread's next prediction.
        return np.ctypeslib.as_array(out, sizes).copy()
