"""What XGBoost makes of margins, to the last bit: its formulas, in float32, by the same libm.

Sources: XGBoost's src/common/math.h (Sigmoid, Softmax) and the objectives' PredTransform and
ProbToMargin under src/objective.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable
from functools import cache

import numpy as np

Link = Callable[[np.ndarray], np.ndarray]
"""From margins float32 ``[groups]`` to a row's predictions float32, ``[1]`` or ``[1, groups]``."""

IDENTITY = ("reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror",
            "reg:squaredlogerror", "reg:quantileerror", "rank:ndcg", "rank:pairwise", "rank:map")
LOGARITHMIC = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft")
LOGISTIC = ("binary:logistic", "reg:logistic")
ONE = np.float32(1)
LARGEST = np.float32(88.7)
"""XGBoost's bound of an exponent."""
LEAST = np.float32(1e-16)


class Unlinked(Exception):  # noqa: N818 - an answer, not an error
    """Why margins cannot be made predictions here."""


@cache
def _libm() -> tuple[Callable[[float], float], Callable[[float], float]]:
    """The C library's ``expf`` and ``logf``."""
    try:
        library = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6")
        functions = library.expf, library.logf
    except (OSError, AttributeError) as error:
        raise Unlinked(f"the C library's mathematics cannot be called: {error}") from None
    for function in functions:
        function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
    return functions


def link_of(objective: str) -> Link:
    """The link of an objective. `Unlinked` where there is none here."""
    if objective in IDENTITY:
        return lambda margins: margins if len(margins) == 1 else margins[None]
    exp = _libm()[0]
    if objective in LOGARITHMIC:
        return lambda margins: np.array([exp(margins[0])], np.float32)
    if objective in LOGISTIC:
        def sigmoid(margins: np.ndarray) -> np.ndarray:
            power = np.float32(exp(min(-margins[0], LARGEST)))
            return np.array([ONE / (power + ONE + LEAST)])
        return sigmoid
    if objective == "multi:softprob":
        def softmax(margins: np.ndarray) -> np.ndarray:
            raised = np.array([exp(m) for m in margins - margins.max()], np.float32)
            total = 0.0
            for one in raised.tolist():
                total += one
            return (raised / np.float32(total))[None]
        return softmax
    raise Unlinked(f"objective {objective!r} has no link of its own here")


def many_of(objective: str) -> Callable[[np.ndarray], np.ndarray]:
    """The same for one output of many rows, ``[n]`` to ``[n]``. `Unlinked` where there is none."""
    if objective in IDENTITY:
        return lambda margins: margins
    exp = _libm()[0]

    def raised(margins: np.ndarray) -> np.ndarray:
        return np.fromiter(map(exp, margins.tolist()), np.float32, len(margins))

    if objective in LOGARITHMIC:
        return raised
    if objective in LOGISTIC:
        return lambda margins: ONE / (raised(np.minimum(-margins, LARGEST)) + ONE + LEAST)
    raise Unlinked(f"objective {objective!r} has no link for many rows")


def margins_of(objective: str, base: np.ndarray) -> np.ndarray:
    """Base scores as margins, float32: the inverse of the link."""
    base = base.astype(np.float32)
    if objective in LOGISTIC:
        log = _libm()[1]
        return np.array([-log(ONE / b - ONE) for b in base], np.float32)
    if objective in LOGARITHMIC:
        log = _libm()[1]
        return np.array([log(b) for b in base], np.float32)
    return base
