"""cuML beside scikit-learn: one table says what each parameter of a CPU model is on the GPU.

A family makes its scikit-learn estimator as ever; on the GPU its counterpart in cuML is fitted
instead. Names are scikit-learn's on both sides. A parameter that is not in the table must have
its default value, or it is refused. Both sides learn in float64 from the float32 matrix, and
what is learned comes back to the host as float64, so a model is scored anywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError
from gpupipe.models.base import LIBRARIES

Rule = Callable[[Any], dict[str, Any]]
"""The cuML parameters that a scikit-learn value means."""


def _penalty(l1_ratio: float) -> dict[str, Any]:
    return {"penalty": "elasticnet", "l1_ratio": l1_ratio} if l1_ratio else {"penalty": "l2"}


def _nothing(value: Any) -> dict[str, Any]:
    return {}


def _same(name: str) -> Rule:
    return lambda value: {name: value}


def _unchanged(*names: str) -> dict[str, Rule]:
    return {name: _same(name) for name in names}


PAIRS: dict[str, Mapping[str, Rule]] = {
    "LogisticRegression": {
        **_unchanged("C", "fit_intercept", "max_iter", "tol"),
        "l1_ratio": _penalty,
        "solver": _nothing,  # cuML has one, quasi-Newton, for every penalty
        "random_state": _nothing,  # nothing in it is drawn
        "class_weight": _nothing,  # they are made weights of rows, for `_rescaled`
    },
    "Ridge": {
        **_unchanged("alpha", "fit_intercept"),
        "max_iter": _nothing, "tol": _nothing,  # both solve directly, at one go
    },
    "ElasticNet": {
        **_unchanged("alpha", "l1_ratio", "fit_intercept", "max_iter", "tol"),
        "random_state": _nothing,  # coordinates are taken in turn, by both
    },
    "DBSCAN": {**_unchanged("eps", "min_samples"), "n_jobs": _nothing},
    "HDBSCAN": {
        **_unchanged("min_cluster_size", "cluster_selection_epsilon", "cluster_selection_method",
                     "allow_single_cluster"),
        # scikit-learn counts the row itself, cuML (as the hdbscan package) its neighbours alone.
        "min_samples": lambda value: {"min_samples": max(1, value - 1)},
        "max_cluster_size": lambda value: {"max_cluster_size": value or 0},
        "n_jobs": _nothing, "copy": _nothing,
    },
    "IsolationForest": {
        **_unchanged("n_estimators", "max_samples", "max_features", "bootstrap", "random_state"),
        "n_jobs": _nothing,
    },
}
"""For each estimator: what becomes of the parameters that may differ from their default."""


def arguments_of(estimator: Any) -> tuple[str, dict[str, Any]]:
    """The cuML class with the estimator's name, and the arguments for it.

    Raises ConfigError where the estimator or a parameter has no counterpart.
    """
    kind, found = type(estimator).__name__, {}
    if kind not in PAIRS:
        raise ConfigError(f"scikit-learn's {kind} has no counterpart on the GPU",
                          hint="set engine.device to cpu")
    defaults = inspect.signature(type(estimator)).parameters
    for name, value in estimator.get_params(deep=False).items():
        rule = PAIRS[kind].get(name)
        if rule is not None:
            found.update(rule(value))
        elif value != defaults[name].default:
            raise ConfigError(f"{name}={value!r} of scikit-learn's {kind} is not to be had on "
                              "the GPU", hint="leave it out, or set engine.device to cpu")
    return kind, found


def fit(
    estimator: Any, x: Array, y: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the estimator's counterpart: coefficients and intercept, on the host.

    ``x`` is float64 ``[n, features]`` on the device, ``y`` and ``weight`` are on the host.
    """
    kind, arguments = arguments_of(estimator)
    if kind == "LogisticRegression":
        arguments["C"], weight = _rescaled(arguments["C"], estimator.class_weight, y, weight)
    with LIBRARIES:
        import cuml.linear_model as library

    xp = namespace(x)
    made = getattr(library, kind)(**arguments, output_type="numpy")
    made.fit(x, xp.asarray(y), sample_weight=None if weight is None else xp.asarray(weight))
    return np.asarray(made.coef_), np.asarray(made.intercept_)


def _rescaled(
    strength: float, classes: Any, y: np.ndarray, weight: np.ndarray | None
) -> tuple[float, np.ndarray | None]:
    """``C`` and the weights of rows, those of their classes among them.

    scikit-learn adds up the weighted losses; cuML takes their weighted mean, and a penalty
    over the number of rows. With weights of mean 1 that is the same.
    """
    if classes is not None:
        from sklearn.utils.class_weight import compute_class_weight

        present, code = np.unique(y, return_inverse=True)
        by_class = compute_class_weight(classes, classes=present, y=y, sample_weight=weight)
        weight = by_class[code] if weight is None else weight * by_class[code]
    return (strength, None) if weight is None else (strength * float(weight.mean()), weight)


def clustered(estimator: Any, x: Array, weight: np.ndarray | None) -> Any:
    """The counterpart of a clustering, fitted to float64 ``[n, features]`` on the device."""
    kind, arguments = arguments_of(estimator)
    with LIBRARIES:
        import cuml.cluster as library

    made = getattr(library, kind)(**arguments, output_type="numpy")
    given = {} if weight is None else {"sample_weight": namespace(x).asarray(weight)}
    made.fit(x, **given)
    return made


def isolated(estimator: Any, x: Array) -> Any:
    """scikit-learn's isolation forest, of trees that cuML has grown from ``x`` on the device."""
    _, arguments = arguments_of(estimator)
    with LIBRARIES:
        import cuml.ensemble as library

    made = library.IsolationForest(**arguments)
    made.fit(x)
    return made.as_sklearn()


def embedded(params: Mapping[str, Any], seed: int, x: Array) -> np.ndarray:
    """The places that cuML's UMAP gives the rows of ``x`` ``[n, n_components]``, on the host."""
    with LIBRARIES:
        import cuml.manifold as library

    made = library.UMAP(**params, random_state=seed, output_type="numpy")
    return np.asarray(made.fit_transform(x.astype("float32")))
