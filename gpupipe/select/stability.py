"""How much the choices of several folds agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from gpupipe.models.selected import Selection

Z95 = 1.959963984540054
"""The standard normal's 97.5 % point."""


@dataclass(frozen=True)
class Stability:
    """An index of agreement, 1 where all choices are the same and about 0 where each is random,
    with an approximate 95 % interval; None where it is undefined."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "low": self.low, "high": self.high}


def stability(chosen: np.ndarray) -> Stability:
    """The stability of choices, bool ``[choices, features]``.

    S. Nogueira, K. Sechidis and G. Brown, "On the Stability of Feature Selection Algorithms",
    JMLR 18(174), 2018: the estimator of definition 4, and the variance of theorem 7. It is 1
    for equal choices of all or no features, where the formula is 0 by 0; it needs two choices.
    """
    m, d = chosen.shape
    if m < 2 or d == 0:
        return Stability(None)
    z = chosen.astype(np.float64)
    share, size = z.mean(axis=0), z.sum(axis=1)
    mean = size.mean()
    chance = mean / d * (1 - mean / d)
    if chance == 0:
        return Stability(1.0)
    value = 1 - float((m / (m - 1) * share * (1 - share)).mean() / chance)
    each = np.array([
        ((zi * share).mean() - k * mean / d**2
         + value / 2 * (2 * mean * k / d**2 - k / d - mean / d + 1)) / chance
        for zi, k in zip(z, size, strict=True)
    ])
    error = sqrt(4 / m**2 * float(((each - each.mean()) ** 2).sum()))
    return Stability(value, value - Z95 * error, min(value + Z95 * error, 1.0))


def summary(folds: Sequence[Selection], final: Selection | None) -> dict[str, Any] | None:
    """What a run tells of its choices; None where features were not chosen.

    Returns
    -------
    ``features``: of each its ``name``, in how many ``folds`` it was chosen, that ``share`` and
    whether ``final`` has it, most frequent first; ``stability``; ``methods``: of each the
    features ``in`` and ``out`` and the ``seconds`` by training; ``seconds`` in all; ``in`` and
    ``out`` of the final choice (of the mean fold where there is none).
    """
    every = [*folds, *([final] if final else [])]
    if not every:
        return None
    names = list(dict.fromkeys(n for s in every for n in s.features))
    chosen = np.array([[n in s.kept for n in names] for s in folds], bool).reshape(-1, len(names))
    counts = chosen.sum(axis=0)
    features = [{"name": n, "folds": int(c), "share": int(c) / len(folds) if folds else None,
                 "final": n in final.kept if final else None}
                for n, c in zip(names, counts, strict=True)]
    features.sort(key=lambda f: (-int(f["folds"] or 0), -bool(f["final"])))
    last = final or folds[-1]
    return {
        "features": features, "trainings": len(folds), "stability": stability(chosen).to_json(),
        "in": len(last.features), "out": len(last.kept),
        "out_by_fold": [len(s.kept) for s in folds],
        "seconds": round(sum(s.seconds for s in every), 4), "methods": _methods(every, last),
    }


def _methods(every: Sequence[Selection], last: Selection) -> list[dict[str, Any]]:
    """Each method's part: in the last choice, and its seconds in all of them."""
    return [{**{k: step[k] for k in ("method", "in", "out", "dropped", "threshold", "note")},
             "seconds": round(sum(s.steps[i]["seconds"] for s in every), 4)}
            for i, step in enumerate(last.steps)]
