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


def _as_liblinear(strength: float) -> dict[str, Any]:
    """liblinear's penalty is on the squares, those of the intercepts among them."""
    return {"C": strength, "penalty": "l2", "penalized_intercept": True}


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
    "SVC": _unchanged("C", "kernel", "gamma", "degree", "coef0", "tol", "max_iter"),
    "SVR": _unchanged("C", "kernel", "gamma", "degree", "coef0", "epsilon", "tol", "max_iter"),
    "LinearSVC": {
        **_unchanged("tol", "max_iter"),
        "C": _as_liblinear,
        "dual": _nothing, "random_state": _nothing,  # cuML solves the primal, and draws nothing
    },
    "LinearSVR": {
        **_unchanged("epsilon", "tol", "max_iter"),
        "C": _as_liblinear, "dual": _nothing, "random_state": _nothing,
    },
}
"""For each estimator: what becomes of the parameters that may differ from their default."""
MEAN_LOSS = ("LogisticRegression", "LinearSVC", "LinearSVR")
"""Those that are solved by cuML's quasi-Newton, which takes the mean of the losses."""


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


def learned(
    estimator: Any, x: Array, y: np.ndarray, weight: np.ndarray | None
) -> tuple[Any, ...]:
    """Fit the estimator's counterpart: its `attributes`, on the host.

    ``x`` is float64 ``[n, features]`` on the device, ``y`` and ``weight`` are on the host.
    """
    kind, arguments = arguments_of(estimator)
    if kind in MEAN_LOSS:
        classes = getattr(estimator, "class_weight", None)
        arguments["C"], weight = _rescaled(arguments["C"], classes, y, weight)
    with LIBRARIES:
        import cuml.linear_model as linear_model
        import cuml.svm as svm

    xp = namespace(x)
    library = svm if "SV" in kind else linear_model
    made = getattr(library, kind)(**arguments, output_type="numpy")
    made.fit(x, xp.asarray(y), sample_weight=None if weight is None else xp.asarray(weight))
    return attributes(made)


def attributes(made: Any) -> tuple[Any, ...]:
    """What a fitted estimator, of either library, has learned: coefficients and intercept.

    Of a kernel machine: places of the support vectors, their coefficients, the intercept.
    """
    if type(made).__name__ in ("SVC", "SVR"):
        dual = np.asarray(made.dual_coef_, np.float64).ravel()
        (intercept,) = np.atleast_1d(made.intercept_)
        return np.asarray(made.support_), dual, float(intercept)
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
