"""cuML beside scikit-learn: one table says what each parameter of a CPU model is on the GPU.

A family makes its scikit-learn estimator as ever; on the GPU its counterpart in cuML is fitted
instead. Names are scikit-learn's on both sides. A parameter that is not in the table must have
its default value, or it is refused. Linear models learn in float64 from the float32 matrix on
both sides, forests from the matrix as it is; what is learned comes back to the host, so a model
is scored anywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError, EnvironmentFault
from gpupipe.models.base import LIBRARIES
from gpupipe.models.trees import LEAST_WEIGHT, Tree, above

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


def _leaves(value: int | None) -> dict[str, Any]:
    return {"max_leaves": -1 if value is None else value}


CRITERIA = {"gini": "gini", "entropy": "entropy", "log_loss": "entropy", "squared_error": "mse",
            "poisson": "poisson"}


def _criterion(value: str) -> dict[str, Any]:
    if value not in CRITERIA:
        raise ConfigError(f"criterion {value!r} of a forest is not to be had on the GPU",
                          hint=f"there are {', '.join(CRITERIA)}; or set engine.device to cpu")
    return {"split_criterion": CRITERIA[value]}


FOREST: Mapping[str, Rule] = {
    **_unchanged("n_estimators", "max_depth", "min_samples_split", "min_samples_leaf",
                 "max_features", "min_impurity_decrease", "bootstrap", "random_state"),
    "max_samples": lambda value: {} if value is None else {"max_samples": value},
    "max_leaf_nodes": _leaves, "criterion": _criterion, "n_jobs": _nothing,
}
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
    "RandomForestClassifier": {**FOREST, **_unchanged("class_weight")},
    "RandomForestRegressor": FOREST,
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


LOWEST = float(np.finfo(np.float32).min)
LESS_OR_EQUAL = 3
"""treelite's `Operator::kLE` (include/treelite/enum/operator.h): the one that cuML writes."""


def fit_forest(
    estimator: Any, x: Array, y: np.ndarray, weight: np.ndarray | None
) -> Iterator[tuple[Tree, np.ndarray]]:
    """Fit the forest's counterpart: its trees, and their leaves' values, on the host.

    ``x`` is float32 ``[n, features]`` on the device. cuML knows no missing values; they are
    less than every number here, so they go left wherever a feature is looked at.
    """
    kind, arguments = arguments_of(estimator)
    if arguments.get("class_weight") == "balanced_subsample":
        raise ConfigError("class_weight='balanced_subsample' is not to be had on the GPU",
                          hint="set it to balanced, or set engine.device to cpu")
    with LIBRARIES:
        import cuml.ensemble as library

    xp = namespace(x)
    # One stream: with several the trees depend on which of them is first.
    made = getattr(library, kind)(**arguments, n_streams=1, output_type="numpy")
    made.fit(xp.where(xp.isnan(x), xp.float32(LOWEST), x),
             xp.asarray(y.astype("int32" if "Classifier" in kind else "float32")),
             sample_weight=None if weight is None else xp.asarray(weight))
    return trees_of(made.as_treelite())


def trees_of(model: Any) -> Iterator[tuple[Tree, np.ndarray]]:
    """The trees of a treelite model, and their leaves' values ``[nodes, outputs]``.

    Its gain is the weighted variance of leaves' values that a split takes away, for cuML keeps
    none. Fields: https://treelite.readthedocs.io/en/latest/serialization/v4.html.
    """
    for i in range(model.num_tree):
        read = model.get_tree_accessor(i).get_field
        left, right = (read(n).astype(np.int64) for n in ("cleft", "cright"))
        is_leaf = left < 0
        if not (read("cmp")[~is_leaf] == LESS_OR_EQUAL).all():
            raise EnvironmentFault("the forest has splits of a kind that cuML did not have",
                                   hint="install the versions of RAPIDS that gpupipe names")
        begin, end = (read(f"leaf_vector_{n}").astype(np.int64) for n in ("begin", "end"))
        size = max(int((end - begin).max()), 1)
        value = np.zeros((len(left), size))
        vector = end > begin
        value[vector] = read("leaf_vector").reshape(-1, size)
        value[is_leaf & ~vector, 0] = read("leaf_value")[is_leaf & ~vector]
        weight = np.maximum(read("data_count").astype(np.float64), LEAST_WEIGHT)
        yield Tree(left, right, read("split_index").astype(np.int64),
                   above(read("threshold").astype(np.float64)), read("default_left") != 0,
                   np.zeros(len(left)), weight, _variance_taken(left, right, value, weight)
                   ), value


def _variance_taken(
    left: np.ndarray, right: np.ndarray, value: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """For each node ``w_l w_r / (w_l + w_r) |m_l - m_r|^2``, with the weights and the mean leaf
    of both sides; they add up to 1. A node's children come after it."""
    mean, gain = value.copy(), np.zeros(len(left))
    for node in np.flatnonzero(left >= 0)[::-1]:
        sides = [left[node], right[node]]
        w = weight[sides]
        mean[node] = w @ mean[sides] / w.sum()
        gain[node] = w.prod() / w.sum() * ((mean[sides[0]] - mean[sides[1]]) ** 2).sum()
    return gain / (gain.sum() or 1.0)


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
        import cuml.ensemble as forests

    made = forests.IsolationForest(**arguments)
    made.fit(x)
    return made.as_sklearn()


def embedded(params: Mapping[str, Any], seed: int, x: Array) -> np.ndarray:
    """The places that cuML's UMAP gives the rows of ``x`` ``[n, n_components]``, on the host."""
    with LIBRARIES:
        import cuml.manifold as manifold

    made = manifold.UMAP(**params, random_state=seed, output_type="numpy")
    return np.asarray(made.fit_transform(x.astype("float32")))
