"""Support vector machines by scikit-learn, or cuML on a GPU, and probabilities by Platt scaling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError, DataError
from gpupipe.models import cuml, platt
from gpupipe.models.base import (
    LIBRARIES,
    TASKS,
    FittedModel,
    Matrix,
    Needs,
    OneOf,
    Payload,
    Plain,
    Range,
    Space,
    Task,
    Training,
    check_params,
    register,
)
from gpupipe.models.cuda import device_of
from gpupipe.models.dense import (
    check_choice,
    check_number,
    dense,
    logistic,
    ranked,
    with_class_weights,
)
from gpupipe.models.machines import KernelMachine, LinearMachine, Machine, restored_machine
from gpupipe.transforms.base import Target

DEFAULTS: dict[str, Any] = {
    "C": 1.0, "kernel": "rbf", "gamma": "scale", "degree": 3, "coef0": 0.0, "epsilon": 0.1,
    "tol": 1e-3, "max_iter": -1, "class_weight": None, "scale_target": True, "cv": 5,
    "max_rows": 10_000,
}
LINEAR_ROUNDS = 1_000
"""``max_iter`` of the linear kernel's solver where none is set: it is liblinear's own."""


@register("svm")
class SVM:
    """SVC and SVR with ``kernel`` ``rbf`` or ``poly``; LinearSVC and LinearSVR with ``linear``.

    ``C``, ``gamma``, ``degree``, ``coef0``, ``epsilon``, ``tol``, ``max_iter`` and ``class_weight``
    are scikit-learn's. Probabilities are those of ``CalibratedClassifierCV(ensemble=False)``:
    Platt scaling of the margins that ``cv`` machines give to the rows they have not seen. Values
    are learned with mean 0 and deviation 1, unless ``scale_target`` is false. A kernel learns
    from at most ``max_rows`` rows; the linear one from any number.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = TASKS
    needs: ClassVar[Needs] = "numbers"
    space: ClassVar[Space] = {
        "C": Range(1e-2, 1e3, log=True), "kernel": OneOf(("rbf", "linear")),
        "gamma": Range(1e-4, 1e1, log=True), "epsilon": Range(1e-3, 1.0, log=True),
    }
    streams: ClassVar[bool] = False
    spreads: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("svm", params, set(DEFAULTS))
        self.params = {**DEFAULTS, **params}
        check_choice("svm", self.params, "kernel", ("rbf", "poly", "linear"))
        if self.params["gamma"] not in ("scale", "auto"):
            check_number("svm", self.params, "gamma", 0.0, above=True)
        for name in ("cv", "degree", "max_rows"):
            least = 2 if name == "cv" else 1
            check_number("svm", self.params, name, least)
            if not isinstance(self.params[name], int):
                raise ConfigError(f"{name} of model 'svm' is {self.params[name]!r}",
                                  hint="it is a whole number")

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Train on the rows of ``train`` that have a weight; ``valid`` is not used.

        Raises DataError for missing values, codes, and more rows than a kernel can learn from.
        """
        y, weight = np.asarray(train.target), train.weight
        used = np.ones(len(y), bool) if weight is None else np.asarray(weight) > 0
        self._check_rows(int(used.sum()))
        x = dense("svm", train)
        if not used.all():
            x, y, weight = x[namespace(x).asarray(used)], y[used], np.asarray(weight)[used]
        x = x.astype("float64")
        if target.task == "regression":
            return self._values(x, y, weight, train.names, how.seed)
        pull = with_class_weights(self.params["class_weight"], y, target, weight)
        present, code = np.unique(y, return_inverse=True)
        fitted = FittedSVM("svm", None, np.zeros((0, 2)), present, len(target.classes), train.names,
                           target.task)
        if len(present) == 1:
            return fitted
        rows = _Rows(x, code, pull)
        fitted.machine = self._machine(rows, len(present), how.seed)
        # The weights of classes move the border; how likely a class is beyond it they do not tell.
        fitted.sigmoids = self._sigmoids(rows, len(present), how.seed, weight)
        return fitted

    def _check_rows(self, rows: int) -> None:
        if self.params["kernel"] != "linear" and rows > self.params["max_rows"]:
            raise DataError(
                f"model 'svm' with kernel {self.params['kernel']} has {rows:,} rows to learn from; "
                f"its time grows with their square, and max_rows is {self.params['max_rows']:,}",
                hint="set model.params.kernel to linear, take another model, or set "
                "model.params.max_rows higher and wait")

    def _values(
        self, x: Array, y: np.ndarray, weight: np.ndarray | None, names: tuple[str, ...], seed: int
    ) -> FittedModel:
        centre, spread = 0.0, 1.0
        if self.params["scale_target"]:
            centre = float(np.average(y, weights=weight))
            spread = float(np.sqrt(np.average((y - centre) ** 2, weights=weight))) or 1.0
        machine = self._machine(_Rows(x, (y - centre) / spread, weight), 0, seed)
        return FittedSVM("svm", machine, np.array([[spread, centre]]), np.zeros(0, np.int64), 0,
                         names, "regression")

    def _sigmoids(
        self, rows: _Rows, classes: int, seed: int, weight: np.ndarray | None
    ) -> np.ndarray:
        width = 1 if classes == 2 else classes

        def margins(learned: np.ndarray, judged: np.ndarray) -> np.ndarray:
            part, new = rows.only(learned), rows.only(judged)
            known, code = np.unique(part.y, return_inverse=True)
            found = np.full((len(new.y), width), np.nan)
            if len(known) < min(classes, 2):
                return found
            machine = self._machine(_Rows(part.x, code, part.weight), len(known), seed)
            own = to_host(machine.margins(new.x.astype("float32")))
            if len(known) == classes:
                return own
            if own.shape[1] == 1:  # two of several classes: the later's margin, and the other's
                own = np.hstack([-own, own])
            found[:, known] = own
            return found

        fold = platt.folds_of(rows.y, self.params["cv"], seed)
        return platt.sigmoids(platt.out_of_fold(margins, fold, width), rows.y, weight)

    def _machine(self, rows: _Rows, classes: int, seed: int) -> Machine:
        """A machine for so many classes, numbered from 0; for values where there are none."""
        if self.params["kernel"] == "linear":
            coefficients, intercept = _learned(self._linear(classes, seed), rows)
            return LinearMachine(np.atleast_2d(coefficients).astype(np.float64),
                                 np.atleast_1d(intercept).astype(np.float64))
        kernel = {"name": self.params["kernel"], "gamma": self._gamma(rows.x),
                  "degree": self.params["degree"], "coef0": float(self.params["coef0"])}
        estimator = self._kernel(classes, kernel)
        found = [_learned(estimator, part) for part in rows.pairs(classes)]
        places = [own[support] for own, (support, _, _) in
                  zip(rows.places(classes), found, strict=True)]
        union = np.unique(np.concatenate(places))
        coefficients = np.zeros((len(found), len(union)))
        for line, place, (_, dual, _) in zip(coefficients, places, found, strict=True):
            line[np.searchsorted(union, place)] = dual
        intercept = np.array([b for _, _, b in found])
        return KernelMachine(rows.vectors(union), coefficients, intercept, max(classes, 2), kernel)

    def _gamma(self, x: Array) -> float:
        gamma = self.params["gamma"]
        if gamma == "auto":
            return 1 / int(x.shape[1])
        if gamma == "scale":
            variance = float(x.var())
            return 1 / (int(x.shape[1]) * variance) if variance > 0 else 1.0
        return float(gamma)

    def _linear(self, classes: int, seed: int) -> Any:
        with LIBRARIES:
            from sklearn.svm import LinearSVC, LinearSVR

        p = self.params
        rounds = LINEAR_ROUNDS if p["max_iter"] == -1 else p["max_iter"]
        shared = {"C": p["C"], "tol": p["tol"], "max_iter": rounds, "dual": "auto",
                  "random_state": seed}
        return LinearSVC(**shared) if classes else LinearSVR(epsilon=p["epsilon"], **shared)

    def _kernel(self, classes: int, kernel: Mapping[str, Any]) -> Any:
        with LIBRARIES:
            from sklearn.svm import SVC, SVR

        p = self.params
        shared = {"kernel": kernel["name"], "gamma": kernel["gamma"], "degree": kernel["degree"],
                  "coef0": kernel["coef0"], **{k: p[k] for k in ("C", "tol", "max_iter")}}
        return SVC(**shared) if classes else SVR(epsilon=p["epsilon"], **shared)

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        machine = payload["machine"]
        return FittedSVM("svm", None if machine is None else restored_machine(machine),
                         payload["sigmoids"], payload["present"], payload["classes"],
                         tuple(payload["names"]), payload["task"])


@dataclass(frozen=True)
class _Rows:
    """Float64 ``[n, features]`` where they lie; codes or values and weights on the host."""

    x: Array
    y: np.ndarray
    weight: np.ndarray | None

    def only(self, rows: np.ndarray) -> _Rows:
        """Those of a mask, or of these places."""
        return _Rows(self.x[namespace(self.x).asarray(rows)], self.y[rows],
                     None if self.weight is None else self.weight[rows])

    def places(self, classes: int) -> list[np.ndarray]:
        """For each pair of classes the places of its rows; of all, for two or for values."""
        if classes <= 2:
            return [np.arange(len(self.y))]
        return [np.flatnonzero((self.y == i) | (self.y == j))
                for i in range(classes) for j in range(i + 1, classes)]

    def pairs(self, classes: int) -> list[_Rows]:
        """For each pair of classes its rows: 1 for the later class, 0 for the other."""
        if classes <= 2:
            return [self]
        parts = [self.only(place) for place in self.places(classes)]
        return [_Rows(p.x, (p.y == p.y.max()).astype(np.int64), p.weight) for p in parts]

    def vectors(self, places: np.ndarray) -> np.ndarray:
        """Rows as they came, float32, on the host."""
        return to_host(self.x[namespace(self.x).asarray(places)].astype("float32"))


def _learned(estimator: Any, rows: _Rows) -> tuple[Any, ...]:
    """What the estimator, or its counterpart on the device, learns: see `cuml.learned`."""
    library = "cuML" if device_of(rows.x) == "cuda" else "scikit-learn"
    try:
        if library == "cuML":
            return cuml.learned(estimator, rows.x, rows.y, rows.weight)
        return cuml.attributes(estimator.fit(rows.x, rows.y, sample_weight=rows.weight))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{library} refused to train: {error}",
                          hint="look at model.params") from error


@dataclass
class FittedSVM(Plain):
    """A machine, and what makes predictions of its margins.

    Attributes
    ----------
    machine : None where training rows were of one class alone, which is then certain.
    sigmoids : ``[1 or present, 2]`` (see `platt.sigmoids`); spread and mean of a value, ``[1, 2]``.
    present : codes of the classes that the machine knows.
    classes : how many there are.
    """

    machine: Machine | None
    sigmoids: np.ndarray
    present: np.ndarray
    classes: int
    names: tuple[str, ...]
    task: str

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp, n = namespace(chunk), int(chunk.shape[0])
        if self.machine is None:
            scores = xp.zeros((n, self.classes))
            scores[:, int(self.present[0])] = 1.0
            return scores if self.task == "multiclass" else scores[:, 1]
        margins = self.machine.margins(chunk)
        slope, offset = (xp.asarray(column) for column in self.sigmoids.T)
        if self.task == "regression":
            return margins[:, 0] * slope + offset
        known = logistic(-(margins * slope + offset))
        if self.task == "binary":
            return known[:, 0]
        if known.shape[1] == 1:
            known = xp.concatenate([1 - known, known], axis=1)
        total = xp.zeros(n)
        for column in known.T:
            total += column
        scores = xp.zeros((n, self.classes))
        for at, code in enumerate(self.present.tolist()):
            scores[:, code] = xp.where(total > 0, known[:, at] / xp.where(total > 0, total, 1.0),
                                       1 / len(self.present))
        return scores

    def importances(self) -> list[tuple[str, float]]:
        """Mean absolute coefficients of the linear kernel; a kernel's weigh rows, not features."""
        if not isinstance(self.machine, LinearMachine):
            return []
        return ranked(self.names, np.abs(self.machine.coefficients).mean(axis=0))

    def payload(self) -> Payload:
        return {"machine": None if self.machine is None else self.machine.payload(),
                "sigmoids": self.sigmoids, "present": self.present, "classes": self.classes,
                "names": list(self.names), "task": self.task}
