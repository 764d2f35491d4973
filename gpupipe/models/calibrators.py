"""Maps from a model's probabilities to calibrated ones: isotonic, sigmoid, beta, temperature.

Each is fitted on probabilities of rows that the model did not learn from, and is a few numbers.
A binary one maps P(positive) ``[n]``; of several classes each has one of its own, against the
rest, and the results are divided by their sum (Zadrozny & Elkan 2002, KDD). A temperature maps
all classes together. Rows are brought into one order first, so no result depends on theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from gpupipe.engine.arrays import Array, namespace
from gpupipe.models.base import Payload

EPS = 1e-9
"""Probabilities are kept this far from 0 and 1 before their log odds are taken."""
STEPS = 200
"""Newton steps at most; ten are the rule."""


class Calibrator(Protocol):
    """A fitted map of probabilities, ``[n]`` or ``[n, classes]``, to others of the same shape."""

    method: ClassVar[str]

    def __call__(self, p: Array) -> Array: ...

    def payload(self) -> Payload: ...


CALIBRATORS: dict[str, type[Any]] = {}
C = TypeVar("C", bound=type[Any])


def calibrator(method: str) -> Callable[[C], C]:
    """Make a class known as ``method``, in pipeline files and bundles."""

    def decorate(cls: C) -> C:
        cls.method = method
        CALIBRATORS[method] = cls
        return cls

    return decorate


def fit_calibrator(
    method: str, p: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None
) -> Calibrator:
    """The calibrator ``method`` for probabilities ``p`` of rows with class codes ``y`` ``[n]``.

    ``p`` is P(positive) ``[n]``, or ``[n, classes]``. Weights scale the rows' losses.
    """
    weight = np.ones(len(y)) if weight is None else np.asarray(weight, np.float64)
    kind = CALIBRATORS[method]
    if kind is Temperature:
        fitted: Calibrator = kind.fit(p, y, weight)
        return fitted
    if p.ndim == 1:
        return _one(kind, p, y == 1, weight)
    return OneVsRest(tuple(_one(kind, p[:, c], y == c, weight) for c in range(p.shape[1])))


def restored_calibrator(payload: Payload) -> Calibrator:
    """The calibrator of a payload; KeyError or TypeError where it is none."""
    fields = dict(payload)
    kind = CALIBRATORS[fields.pop("method")]
    if kind is OneVsRest:
        return OneVsRest(tuple(restored_calibrator(p) for p in fields["classes"]))
    made: Calibrator = kind(**fields)
    return made


def _one(kind: type[Any], p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Calibrator:
    order = np.lexsort((weight, y, p))
    fitted: Calibrator = kind.fit(p[order], y[order].astype(np.float64), weight[order])
    return fitted


@calibrator("isotonic")
@dataclass(frozen=True)
class Isotonic:
    """The rising steps that fit best in squares, linear between them (Zadrozny & Elkan 2002).

    scikit-learn's `IsotonicRegression(out_of_bounds="clip")`, but for its zeros and ones: of n
    rows none can tell a probability below 1 / (n + 2), by Laplace's rule, and one new row on
    the wrong side of a 0 would make the log loss infinite.
    """

    method: ClassVar[str]
    at: np.ndarray
    value: np.ndarray

    @classmethod
    def fit(cls, p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Isotonic:
        distinct, code = np.unique(p, return_inverse=True)
        mass = np.bincount(code, weights=weight)
        kept = mass > 0
        level = np.bincount(code, weights=weight * y)[kept] / mass[kept]
        values = pooled(level, mass[kept])
        least = 1 / (len(p) + 2)
        # A step needs its two ends alone.
        same = values[1:] == values[:-1]
        ends = ~(np.append(False, same) & np.append(same, False))
        return cls(distinct[kept][ends], np.clip(values[ends], least, 1 - least))

    def __call__(self, p: Array) -> Array:
        xp = namespace(p)
        return xp.interp(p, xp.asarray(self.at), xp.asarray(self.value))

    def payload(self) -> Payload:
        return {"method": self.method, "at": self.at, "value": self.value}


def pooled(level: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """The rising sequence nearest to ``level`` in weighted squares: pool adjacent violators.

    Ayer, Brunk, Ewing, Reid & Silverman 1955. A falling run is one block in the end, so each
    pass pools all of them at once.
    """
    total, mass, size = level * mass, mass.copy(), np.ones(len(level), np.int64)
    while True:
        mean = total / mass
        starts = np.flatnonzero(np.append(True, mean[1:] > mean[:-1]))
        if len(starts) == len(mean):
            return np.repeat(mean, size)
        total, mass = np.add.reduceat(total, starts), np.add.reduceat(mass, starts)
        size = np.add.reduceat(size, starts)


@calibrator("sigmoid")
@dataclass(frozen=True)
class Sigmoid:
    """``log odds = slope * log odds + shift``, fitted to Platt's smoothed targets.

    Platt 1999, Probabilistic Outputs for Support Vector Machines, section 2.2: a positive row's
    target is (N+ + 1) / (N+ + 2), a negative one's 1 / (N- + 2). What is mapped is the log
    odds, so that probabilities which are right already can stay as they are.
    """

    method: ClassVar[str]
    slope: float
    shift: float

    @classmethod
    def fit(cls, p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Sigmoid:
        columns = [log_odds(p), np.ones(len(p))]
        slope, shift = logistic(columns, smoothed(y, weight), weight, [1.0, 0.0])
        return cls(slope, shift)

    def __call__(self, p: Array) -> Array:
        return expit(self.slope * log_odds(p) + self.shift)

    def payload(self) -> Payload:
        return {"method": self.method, "slope": self.slope, "shift": self.shift}


@calibrator("beta")
@dataclass(frozen=True)
class Beta:
    """``log odds = a ln p - b ln(1 - p) + c`` with a and b not negative.

    Kull, Silva Filho & Flach 2017, Beta calibration, AISTATS, section 3: bent as sigmoids are,
    the other way too, and not at all (a = b = 1, c = 0). As there, a coefficient that comes out
    negative is 0, and the others are fitted again. The targets are Platt's, as in `Sigmoid`, so
    that classes which are told apart without a fault give no infinite coefficients.
    """

    method: ClassVar[str]
    a: float
    b: float
    c: float

    @classmethod
    def fit(cls, p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Beta:
        p = np.clip(p, EPS, 1 - EPS)
        left, right, one = np.log(p), -np.log1p(-p), np.ones(len(p))
        target = smoothed(y, weight)
        a, b, c = logistic([left, right, one], target, weight, [1.0, 1.0, 0.0])
        if a < 0:
            a, (b, c) = 0.0, logistic([right, one], target, weight, [1.0, 0.0])
        elif b < 0:
            b, (a, c) = 0.0, logistic([left, one], target, weight, [1.0, 0.0])
        return cls(max(a, 0.0), max(b, 0.0), c)

    def __call__(self, p: Array) -> Array:
        xp = namespace(p)
        p = xp.clip(p, EPS, 1 - EPS)
        return expit(self.a * xp.log(p) - self.b * xp.log1p(-p) + self.c)

    def payload(self) -> Payload:
        return {"method": self.method, "a": self.a, "b": self.b, "c": self.c}


@calibrator("temperature")
@dataclass(frozen=True)
class Temperature:
    """All log probabilities times one number, and normalised: softmax(sharpness * ln p).

    Guo, Pleiss, Sun & Weinberger 2017, On Calibration of Modern Neural Networks, section 4.2;
    ``sharpness`` is 1 over their temperature. The order of the classes stays as it is.
    """

    method: ClassVar[str]
    sharpness: float

    @classmethod
    def fit(cls, p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> Temperature:
        every = np.column_stack([1 - p, p]) if p.ndim == 1 else p
        order = np.lexsort((weight, y, *every.T))
        logs = np.log(np.clip(every[order], EPS, 1.0))
        y, weight, sharpness = y[order], weight[order], 1.0
        truth = logs[np.arange(len(y)), y]
        for _ in range(STEPS):
            share = _softmax(sharpness * logs)
            mean = (share * logs).sum(axis=1)
            slope = float((weight * (mean - truth)).sum())
            curvature = float((weight * ((share * logs**2).sum(axis=1) - mean**2)).sum())
            if abs(slope) <= 1e-10 * weight.sum() or curvature <= 0:
                break
            # Never past a tenth or tenfold: far away the curvature says little.
            sharpness = float(np.clip(sharpness - slope / curvature, sharpness / 10,
                                      sharpness * 10))
            if not 1e-3 < sharpness < 1e3:
                break
        return cls(sharpness)

    def __call__(self, p: Array) -> Array:
        xp = namespace(p)
        if p.ndim == 1:
            return expit(self.sharpness * log_odds(p))
        return _softmax(self.sharpness * xp.log(xp.clip(p, EPS, 1.0)))

    def payload(self) -> Payload:
        return {"method": self.method, "sharpness": self.sharpness}


@calibrator("one_vs_rest")
@dataclass(frozen=True)
class OneVsRest:
    """A calibrator for each class; what they give is divided by its sum."""

    method: ClassVar[str]
    classes: tuple[Calibrator, ...]

    def __call__(self, p: Array) -> Array:
        xp = namespace(p)
        each = xp.stack([c(p[:, i]) for i, c in enumerate(self.classes)], axis=1)
        return each / each.sum(axis=1, keepdims=True)

    def payload(self) -> Payload:
        return {"method": self.method, "classes": [c.payload() for c in self.classes]}


def smoothed(y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Platt's targets of labels 0 and 1: as if each class had been seen once more."""
    positive = float((weight * y).sum())
    negative = float(weight.sum()) - positive
    return np.where(y > 0, (positive + 1) / (positive + 2), 1 / (negative + 2))


def logistic(
    columns: list[np.ndarray], target: np.ndarray, weight: np.ndarray, start: list[float]
) -> list[float]:
    """Coefficients of the logistic regression of targets in 0..1 on columns, by Newton's steps.

    A step is halved until the loss falls. Sums are NumPy's own, in one order for any number of
    threads, which a matrix product's are not.
    """
    found, z = np.array(start), _total(start, columns)
    loss = _loss(z, target, weight)
    for _ in range(STEPS):
        p = expit(z)
        slope = np.array([(weight * (p - target) * c).sum() for c in columns])
        if np.abs(slope).max() <= 1e-10 * weight.sum():
            break
        bend = weight * p * (1 - p)
        hessian = np.array([[(bend * a * b).sum() for b in columns] for a in columns])
        hessian += np.eye(len(columns)) * (1e-12 * np.trace(hessian) + 1e-300)
        step = np.linalg.solve(hessian, slope)
        for _ in range(40):
            nearer = found - step
            z_nearer = _total(nearer.tolist(), columns)
            lower = _loss(z_nearer, target, weight)
            if lower < loss:
                break
            step = step / 2
        else:  # as near as float64 comes
            break
        found, z, loss = nearer, z_nearer, lower
    return [float(v) for v in found]


def _total(factors: list[float], columns: list[np.ndarray]) -> np.ndarray:
    return np.add.reduce([f * c for f, c in zip(factors, columns, strict=True)])


def _loss(z: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    return float((weight * (np.logaddexp(0, z) - target * z)).sum())


def log_odds(p: Array) -> Array:
    xp = namespace(p)
    p = xp.clip(p, EPS, 1 - EPS)
    return xp.log(p) - xp.log1p(-p)


def expit(z: Array) -> Array:
    """1 / (1 + exp(-z)), without overflow."""
    xp = namespace(z)
    small = xp.exp(-abs(z))
    return xp.where(z >= 0, 1 / (1 + small), small / (1 + small))


def _softmax(z: Array) -> Array:
    xp = namespace(z)
    raised = xp.exp(z - z.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
