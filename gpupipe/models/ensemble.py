"""A fitted ensemble: several models that each see some of the features, and how they add up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gpupipe.engine.arrays import Array, namespace
from gpupipe.models.base import FittedModel, Payload, packed, restorable, restored

How = Literal["blend", "stack"]
LEAST = 1e-7
"""Probabilities are held this far from 0 and 1 before their logarithm is taken."""


@dataclass(frozen=True)
class Rule:
    """How members' predictions become one.

    Attributes
    ----------
    how : ``blend``, a mean with ``weights`` that add up to 1; ``stack``, a linear model of
        the predictions: of log-odds (two classes), log-probabilities (more) or values.
    weights : ``[members]``.
    bias : ``[1]``, or ``[classes]`` for more than two; zeros for a blend.
    """

    how: How
    weights: np.ndarray
    bias: np.ndarray
    task: str

    def combine(self, predictions: Sequence[Array]) -> Array:
        """The ensemble's prediction: ``[n]`` or ``[n, classes]`` float64, as its members'."""
        xp = namespace(predictions[0])
        if self.how == "blend" or self.task == "regression":
            total = sum(float(w) * p for w, p in zip(self.weights, predictions, strict=True))
            return xp.asarray(total + float(self.bias[0]), dtype="float64")
        if self.task == "binary":
            logit = sum(float(w) * log_odds(p)
                        for w, p in zip(self.weights, predictions, strict=True))
            return 1 / (1 + xp.exp(-(logit + float(self.bias[0]))))
        scores = sum(float(w) * log_of(p) for w, p in zip(self.weights, predictions, strict=True))
        scores = scores + xp.asarray(self.bias)
        scores = xp.exp(scores - scores.max(axis=1, keepdims=True))
        return scores / scores.sum(axis=1, keepdims=True)


def log_of(p: Array) -> Array:
    """Logarithms of probabilities."""
    xp = namespace(p)
    return xp.log(xp.clip(p, LEAST, 1.0))


def log_odds(p: Array) -> Array:
    """Log-odds of probabilities."""
    xp = namespace(p)
    p = xp.clip(p, LEAST, 1 - LEAST)
    return xp.log(p / (1 - p))


@restorable("ensemble")
@dataclass
class FittedEnsemble:
    """Members, the columns of the matrix that each sees (int64), and the rule."""

    members: list[FittedModel]
    columns: list[np.ndarray]
    rule: Rule
    names: tuple[str, ...]
    kind: str = field(default="ensemble", init=False)
    rounds: int | None = field(default=None, init=False)
    curve: dict[str, Any] | None = field(default=None, init=False)
    judged: Array | None = field(default=None, init=False)

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        xp = namespace(chunk)
        return self.rule.combine([
            xp.asarray(m.predict(xp.ascontiguousarray(chunk[:, xp.asarray(c)])), dtype="float64")
            for m, c in zip(self.members, self.columns, strict=True)
        ])

    def importances(self) -> list[tuple[str, float]]:
        """The members' importances, each of them by its share in the sum of weights."""
        total: dict[str, float] = defaultdict(float)
        shares = np.abs(self.rule.weights) / (np.abs(self.rule.weights).sum() or 1.0)
        for member, share in zip(self.members, shares, strict=True):
            for name, value in member.importances():
                total[name] += float(share) * value
        return sorted(total.items(), key=lambda item: (-item[1], item[0]))

    def payload(self) -> Payload:
        return {"members": [packed(m) for m in self.members],
                "columns": [c.astype(np.int64) for c in self.columns],
                "how": self.rule.how, "weights": self.rule.weights, "bias": self.rule.bias,
                "task": self.rule.task, "names": list(self.names)}

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        rule = Rule(payload["how"], payload["weights"], payload["bias"], payload["task"])
        return cls([restored(m) for m in payload["members"]], list(payload["columns"]), rule,
                   tuple(payload["names"]))
