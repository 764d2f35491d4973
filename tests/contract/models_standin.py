"""Stand-ins for the GPU halves of XGBoost and cuML: the CPU's libraries do the work.

What they are given has to lie where the real ones would want it, and every call is recorded.
"""

from __future__ import annotations

import importlib
import types
from typing import Any

import numpy as np
import xgboost
from contract.record import HostCopy, Record

from gpupipe.engine.arrays import to_host
from gpupipe.models.cuda import device_of


def patch_xgboost(monkeypatch: Any, record: Record, cupy: Any) -> None:
    """Let XGBoost take arrays of the stand-in, and refuse those of the host."""

    devices: dict[int, str] = {}
    """Where each booster works, and where each matrix's chunks lay."""

    def handed_over(iterator: Any) -> list[dict[str, Any]]:
        """What the iterator hands over in one pass, as XGBoost takes it."""
        record.call("xgboost.DataIter", "__init__", 0, ["cache_prefix"])
        pieces: list[dict[str, Any]] = []
        iterator.reset()
        while iterator.next(lambda **piece: pieces.append(piece)):
            record.call("xgboost.QuantileDMatrix", "__init__", 1, set(pieces[-1]) - {"data"})
        return pieces

    def matrix(kind: str, real: Any) -> Any:
        def make(iterator: Any, **options: Any) -> Any:
            record.call(f"xgboost.{kind}", "__init__", 1, options)
            pieces = handed_over(iterator)
            weights = [p["weight"] for p in pieces]
            made = xgboost.core.QuantileDMatrix(
                np.concatenate([to_host(p["data"]) for p in pieces]),
                label=np.concatenate([p["label"] for p in pieces]),
                weight=None if weights[0] is None else np.concatenate(weights),
                feature_types=pieces[0]["feature_types"], **options,
            )
            (devices[id(made)],) = {device_of(p["data"]) for p in pieces}
            return made

        return make

    for kind in ("QuantileDMatrix", "ExtMemQuantileDMatrix"):
        monkeypatch.setattr(xgboost, kind, matrix(kind, getattr(xgboost, kind)))
    for name in ("update", "eval_set", "predict", "save_raw", "save_config", "reset",
                 "num_boosted_rounds", "load_model", "get_score"):
        real = getattr(xgboost.Booster, name)
        monkeypatch.setattr(xgboost.Booster, name, _recorded(record, name, real))

    real_init, real_set = xgboost.Booster.__init__, xgboost.Booster.set_param

    def init(self: Any, params: Any = None, *args: Any, **options: Any) -> None:
        record.call("xgboost.Booster", "__init__", 1 + len(args), options)
        devices[id(self)] = (params or {}).get("device", "cpu")
        for matrix in args[0] if args else ():
            if devices[id(matrix)] != devices[id(self)]:
                raise HostCopy(f"a booster on {devices[id(self)]} was given chunks that lie on "
                               f"{devices[id(matrix)]}")
        real_init(self, _without_device(params), *args, **options)

    def set_param(self: Any, params: Any, *args: Any) -> None:
        record.call("xgboost.Booster", "set_param", 1 + len(args))
        if isinstance(params, dict):
            devices[id(self)] = params.get("device", devices.get(id(self), "cpu"))
        real_set(self, _without_device(params), *args)

    real_predict = xgboost.Booster.inplace_predict

    def inplace_predict(self: Any, data: Any, **options: Any) -> Any:
        record.call("xgboost.Booster", "inplace_predict", 1, options)
        if devices[id(self)] != device_of(data):
            raise HostCopy(f"a booster on {devices[id(self)]} was given a chunk on the other one")
        scores = np.asarray(real_predict(self, to_host(data), **options))
        return cupy.ndarray(scores) if device_of(data) == "cuda" else scores

    monkeypatch.setattr(xgboost.Booster, "__init__", init)
    monkeypatch.setattr(xgboost.Booster, "set_param", set_param)
    monkeypatch.setattr(xgboost.Booster, "inplace_predict", inplace_predict)
    monkeypatch.setattr(xgboost, "build_info", lambda: {"USE_CUDA": True})


def _without_device(params: Any) -> Any:
    if not isinstance(params, dict):
        return params
    return {k: v for k, v in params.items() if k != "device"}


def _recorded(record: Record, name: str, real: Any) -> Any:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        record.call("xgboost.Booster", name, len(args), options)
        return real(self, *args, **options)

    return call


def make_cuml(record: Record, cupy: Any) -> dict[str, types.ModuleType]:
    """New modules ``cuml`` and those in it, with the estimators that are paired."""
    modules = {"cuml": types.ModuleType("cuml")}
    for name, estimators in ESTIMATORS.items():
        modules[f"cuml.{name}"] = module = types.ModuleType(f"cuml.{name}")
        setattr(modules["cuml"], name, module)
        for estimator in estimators:
            setattr(module, estimator, (
                _forest(record, cupy, estimator) if name == "ensemble"
                else _estimator(record, cupy, name, estimator)))
    return modules


ESTIMATORS = {"linear_model": ("LogisticRegression", "Ridge", "ElasticNet"),
              "svm": ("SVC", "SVR", "LinearSVC", "LinearSVR"),
              "ensemble": ("RandomForestClassifier", "RandomForestRegressor")}
LEARNED = dict.fromkeys(("SVC", "SVR"), ("support_", "dual_coef_", "intercept_"))
"""What a kernel machine has learned; of all others it is coefficients and intercept."""


def _estimator(record: Record, cupy: Any, module: str, name: str) -> type:
    owner = f"cuml.{module}.{name}"

    class Estimator:
        def __init__(self, **params: Any) -> None:
            record.call(owner, "__init__", 0, params)
            self.params = params

        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> None:
            record.call(owner, "fit", 2, ["sample_weight"])
            assert all(isinstance(a, cupy.ndarray) for a in (X, y))
            assert X._host.dtype == np.float64
            weight = None if sample_weight is None else sample_weight._host
            made = _on_the_cpu(module, name, self.params, weight)
            made.fit(X._host, y._host, sample_weight=weight)
            for learned in LEARNED.get(name, ("coef_", "intercept_")):
                record.get(owner, learned)
                setattr(self, learned, getattr(made, learned))

    Estimator.__name__ = name
    return Estimator


def _on_the_cpu(module: str, name: str, params: dict[str, Any], weight: np.ndarray | None) -> Any:
    """scikit-learn's estimator with the objective that cuML has for these parameters.

    cuML's quasi-Newton takes the weighted mean of the losses, and penalty ``1 / (C n)``:
    glm_base.cuh, qn.cuh, and svm/linear.cu, which calls it.
    """
    own = {k: v for k, v in params.items()
           if k not in ("output_type", "penalty", "penalized_intercept")}
    if name in ("LogisticRegression", "LinearSVC", "LinearSVR"):
        own["C"] /= 1.0 if weight is None else weight.mean()
    if name in ("LinearSVC", "LinearSVR"):  # liblinear penalises l2, and the intercept with it
        assert (params["penalty"], params["penalized_intercept"]) == ("l2", True)
        own |= {"dual": "auto", "random_state": 0}
    if name == "LogisticRegression":
        own["l1_ratio"] = params.get("l1_ratio", 0.0)
        own["solver"] = "saga" if params["penalty"] == "elasticnet" else "lbfgs"
    return getattr(importlib.import_module(f"sklearn.{module}"), name)(**own)


def _forest(record: Record, cupy: Any, name: str) -> type:
    """cuML's forest: scikit-learn's, in treelite's words. It takes no missing values."""
    owner = f"cuml.ensemble.{name}"
    back = {"gini": "gini", "entropy": "entropy", "mse": "squared_error", "poisson": "poisson"}

    class Forest:
        def __init__(self, **params: Any) -> None:
            record.call(owner, "__init__", 0, params)
            self.params = {k: v for k, v in params.items() if k not in ("n_streams", "output_type")}
            self.params["criterion"] = back[self.params.pop("split_criterion")]
            leaves = self.params.pop("max_leaves")
            self.params["max_leaf_nodes"] = None if leaves == -1 else leaves

        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> None:
            import sklearn.ensemble

            record.call(owner, "fit", 2, ["sample_weight"])
            assert all(isinstance(a, cupy.ndarray) for a in (X, y))
            assert X._host.dtype == np.float32 and np.isfinite(X._host).all()
            weight = None if sample_weight is None else sample_weight._host
            self.made = getattr(sklearn.ensemble, name)(**self.params)
            self.made.fit(X._host, y._host, sample_weight=weight)

        def as_treelite(self) -> Any:
            record.call(owner, "as_treelite", 0)
            return _Treelite(record, self.made.estimators_)

    return Forest


class _Treelite:
    """A treelite model of a forest: as much of it as is read."""

    def __init__(self, record: Record, estimators: Any) -> None:
        self.record, self.estimators = record, estimators

    @property
    def num_tree(self) -> int:
        self.record.get("treelite.Model", "num_tree")
        return len(self.estimators)

    def get_tree_accessor(self, tree_id: int) -> Any:
        self.record.call("treelite.Model", "get_tree_accessor", 1)
        tree, record = self.estimators[tree_id].tree_, self.record
        leaf, classes = tree.children_left < 0, tree.value.shape[2]
        sizes = np.where(leaf, classes, 0) if classes > 1 else np.zeros(len(leaf), int)
        fields = {
            "cleft": tree.children_left, "cright": tree.children_right,
            "split_index": tree.feature, "threshold": tree.threshold,
            "cmp": np.where(leaf, 0, 3), "default_left": ~leaf, "data_count": tree.n_node_samples,
            "leaf_value": tree.value[:, 0, 0],
            "leaf_vector": tree.value[leaf & (sizes > 0), 0].ravel(),
            "leaf_vector_begin": np.cumsum(sizes) - sizes, "leaf_vector_end": np.cumsum(sizes),
        }

        class Accessor:
            def get_field(self, name: str) -> np.ndarray:
                record.call("treelite.model.TreeAccessor", "get_field", 1)
                return np.asarray(fields[name])

        return Accessor()
