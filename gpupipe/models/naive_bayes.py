"""Naive Bayes: each feature's distribution in each class, as if features had nothing in common.

What is learned are sums by class, and they are exact (`stats.moments`): chunks of the rows, in any
order and on either device, add up to the same model to the last bit, and the matrix is never
held. Neither scikit-learn nor cuML takes part; parameters and results are scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar

import numpy as np

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array, Frames, NumpyFrames
from gpupipe.errors import DataError
from gpupipe.models.base import (
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
    check_task,
    register,
)
from gpupipe.models.cuda import device_of
from gpupipe.models.dense import (
    check_choice,
    check_number,
    check_numbers,
    linear_margins,
    softmax,
)
from gpupipe.stats.moments import DIGITS, exact_sums, exact_total
from gpupipe.stats.state import Rows
from gpupipe.transforms.base import Target

DISTRIBUTIONS = ("gaussian", "bernoulli", "multinomial", "complement")
DEFAULTS: dict[str, Any] = {
    "distribution": "gaussian", "var_smoothing": 1e-9, "alpha": 1.0, "binarize": 0.0,
    "norm": False, "fit_prior": True,
}
CLASSES_AT_ONCE = 256
"""So many groups of rows the exact sums tell apart in one go."""


@register("naive_bayes")
class NaiveBayes:
    """scikit-learn's GaussianNB, BernoulliNB, MultinomialNB and ComplementNB, by ``distribution``.

    ``var_smoothing`` is the first one's; ``alpha`` the others'; ``binarize`` (features above it
    count as there) bernoulli's, ``norm`` complement's. Without ``fit_prior`` all classes are as
    likely beforehand.
    """

    kind: ClassVar[str]
    tasks: ClassVar[tuple[Task, ...]] = ("binary", "multiclass")
    needs: ClassVar[Needs] = "numbers"
    space: ClassVar[Space] = {
        "distribution": OneOf(("gaussian", "bernoulli")),
        "var_smoothing": Range(1e-12, 1.0, log=True), "alpha": Range(1e-3, 1e2, log=True),
    }
    streams: ClassVar[bool] = True
    spreads: ClassVar[bool] = False

    def __init__(self, params: Mapping[str, Any]) -> None:
        check_params("naive_bayes", params, set(DEFAULTS))
        self.params = {**DEFAULTS, **params}
        check_choice("naive_bayes", self.params, "distribution", DISTRIBUTIONS)
        for name in ("var_smoothing", "alpha"):
            check_number("naive_bayes", self.params, name, 0.0)

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Train on ``train``, chunk by chunk; ``valid`` is not used.

        Raises DataError for missing values, codes, and counts below 0; ConfigError for a target
        that has no classes.
        """
        check_task("naive_bayes", target.task)
        sums = Sums(len(target.classes), len(train.names))
        weight = None if train.weight is None else np.asarray(train.weight, np.float64)
        start = 0
        for chunk in train.chunks:
            check_numbers("naive_bayes", chunk, train)
            rows = slice(start, start + int(chunk.shape[0]))
            start = rows.stop
            sums.add(self._counted(chunk, train.names), np.asarray(train.target)[rows],
                     None if weight is None else weight[rows], self._is_gaussian)
        finish = _gaussian if self._is_gaussian else _discrete
        learned = finish(sums, self.params)
        return FittedNaiveBayes("naive_bayes", *learned, self.params["distribution"],
                                self.params["binarize"], target.task)

    @property
    def _is_gaussian(self) -> bool:
        return self.params["distribution"] == "gaussian"

    def _counted(self, chunk: Array, names: tuple[str, ...]) -> Array:
        if self.params["distribution"] == "bernoulli":
            return chunk > self.params["binarize"]
        if not self._is_gaussian:
            below = to_host((chunk < 0).any(axis=0))
            if below.any():
                told = [n for n, bad in zip(names, below, strict=True) if bad]
                raise DataError(
                    f"distribution {self.params['distribution']} is of counts, and some are below "
                    f"0 in {', '.join(told[:5])}",
                    hint="use scale: {method: min_max}, or distribution: gaussian")
        return chunk

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedNaiveBayes("naive_bayes", **payload)


@dataclass
class Sums:
    """Exact sums by class: of weights, of features, and of their squares.

    Digits (see `stats.moments`): int64 ``[classes, DIGITS]`` and ``[features, classes, DIGITS]``.
    Those of other rows are added to them as they are.
    """

    classes: int
    features: int
    weight: np.ndarray = field(init=False)
    first: np.ndarray = field(init=False)
    second: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.weight = np.zeros((self.classes, DIGITS), np.int64)
        self.first = np.zeros((self.features, self.classes, DIGITS), np.int64)
        self.second = np.zeros_like(self.first)

    def add(self, x: Array, y: np.ndarray, weight: np.ndarray | None, squares: bool) -> None:
        """Take in rows ``x`` of codes ``y``."""
        xp, fx = namespace(x), _frames(x)
        for low in range(0, self.classes, CLASSES_AT_ONCE):
            many = slice(low, min(low + CLASSES_AT_ONCE, self.classes))
            mine = np.flatnonzero((y >= many.start) & (y < many.stop))
            if not len(mine):
                continue
            part = x if len(mine) == len(y) else x[xp.asarray(mine)]
            rows = Rows(xp.asarray(y[mine] - low), many.stop - low)
            own = xp.asarray(np.ones(len(mine)) if weight is None else weight[mine])
            self.weight[many] += exact_sums(own, rows, fx)
            for at, column in enumerate(xp.ascontiguousarray(part.T).astype("float64")):
                self.first[at, many] += exact_sums(own * column, rows, fx)
                if squares:
                    self.second[at, many] += exact_sums(own * (column * column), rows, fx)

    def merge(self, other: Sums) -> None:
        """Take in the sums of other rows."""
        self.weight += other.weight
        self.first += other.first
        self.second += other.second


def _frames(x: Array) -> Frames:
    if device_of(x) == "cpu":
        return NumpyFrames()
    from gpupipe.engine.cudf import CudfFrames

    return CudfFrames()


def _numbers(digits: np.ndarray) -> np.ndarray:
    """Digit sums as numbers, each rounded once: float64, without the last axis."""
    flat = [float(exact_total(d)) for d in digits.reshape(-1, digits.shape[-1])]
    return np.array(flat).reshape(digits.shape[:-1])


def _moments(weight: Fraction, first: Fraction, second: Fraction) -> tuple[float, float]:
    """Mean and variance, each rounded once; 0 where there is no row."""
    if not weight:
        return 0.0, 0.0
    mean = first / weight
    return float(mean), float(second / weight - mean * mean)


def _priors(weight: np.ndarray, fit_prior: bool) -> np.ndarray:
    """Logarithms of the classes' shares; of equal ones among those that there are."""
    shares = weight / weight.sum() if fit_prior else (weight > 0) / (weight > 0).sum()
    with np.errstate(divide="ignore"):
        return np.log(shares)


Learned = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Offsets ``[classes]``; slopes or means ``[classes, features]``; variances, or None."""


def _gaussian(sums: Sums, params: Mapping[str, Any]) -> Learned:
    weight = [exact_total(d) for d in sums.weight]
    mean, variance = np.zeros((2, sums.classes, sums.features))
    spread = 0.0
    for f in range(sums.features):
        first = [exact_total(d) for d in sums.first[f]]
        second = [exact_total(d) for d in sums.second[f]]
        for c in range(sums.classes):
            mean[c, f], variance[c, f] = _moments(weight[c], first[c], second[c])
        spread = max(spread, _moments(*(sum(s, Fraction(0)) for s in (weight, first, second)))[1])
    # Weights round products, so that a variance of 0 may come out below it.
    variance = np.maximum(variance, 0.0) + params["var_smoothing"] * spread
    variance[variance == 0] = 1.0  # nothing varies, so nothing is far from the mean
    prior = _priors(np.array([float(w) for w in weight]), params["fit_prior"])
    return prior - 0.5 * np.log(2 * np.pi * variance).sum(axis=1), mean, variance


def _discrete(sums: Sums, params: Mapping[str, Any]) -> Learned:
    weight, counts = _numbers(sums.weight), _numbers(sums.first).T
    alpha, kind = max(params["alpha"], 1e-10), params["distribution"]  # scikit-learn's least alpha
    prior = _priors(weight, params["fit_prior"])
    if kind == "bernoulli":
        share = (counts + alpha) / (weight[:, None] + 2 * alpha)
        absent = np.log1p(-np.minimum(share, 1 - 1e-16))
        return prior + absent.sum(axis=1), np.log(share) - absent, None
    if kind == "multinomial":
        smooth = counts + alpha
        return prior, np.log(smooth / smooth.sum(axis=1, keepdims=True)), None
    others = counts.sum(axis=0) + alpha - counts
    logs = np.log(others / others.sum(axis=1, keepdims=True))
    slope = logs / logs.sum(axis=1, keepdims=True) if params["norm"] else -logs
    # The complement's rule leaves the prior out; a class without rows is never predicted.
    return np.where(weight > 0, 0.0, -np.inf), slope, None


@dataclass
class FittedNaiveBayes(Plain):
    """Offsets ``[classes]``; slopes, or means with their variances, ``[classes, features]``."""

    offset: np.ndarray
    slope: np.ndarray
    variance: np.ndarray | None
    distribution: str
    binarize: float
    task: str

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp = namespace(chunk)
        if self.distribution == "bernoulli":
            chunk = (chunk > self.binarize).astype("float32")
        if self.variance is None:
            margin = linear_margins(chunk, self.slope, self.offset)
        else:
            margin = xp.zeros((int(chunk.shape[0]), len(self.offset))) + xp.asarray(self.offset)
            means, halves = xp.asarray(self.slope).T, xp.asarray(0.5 / self.variance).T
            columns = xp.ascontiguousarray(chunk.T).astype("float64")
            for column, mean, half in zip(columns, means, halves, strict=True):
                apart = column[:, None] - mean
                margin -= apart * apart * half
        scores = softmax(margin)
        return scores if self.task == "multiclass" else scores[:, 1]

    def importances(self) -> list[tuple[str, float]]:
        return []

    def payload(self) -> Payload:
        return {"offset": self.offset, "slope": self.slope, "variance": self.variance,
                "distribution": self.distribution, "binarize": self.binarize, "task": self.task}
