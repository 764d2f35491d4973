"""Quality without labels: what the predictions themselves say, if they are as right as ever.

- **Two classes** (confidence-based performance estimation, CBPE: Kivimäki, Białek, Nurminen &
  Kuberski 2024, Confidence-based estimators for predictive performance in model monitoring): of
  the rows with calibrated probability p a share p is expected to be positive, so every metric has
  an expected table of sums, and its own formula over it. Probabilities are calibrated by the
  bundle's predictions out of fold.
- **More classes**: accuracy, by the calibrated greatest probability.
- **Values** (direct loss estimation, by a model of the loss): a row's error is expected to be that
  of the out-of-fold rows of its tenth of predictions.

Such an estimate follows a change of the inputs. It cannot see that the same inputs now mean
something else (concept drift), which is why it is held against labels where there are any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.evaluate.cells import EPS
from gpupipe.evaluate.metrics import Scored, choose
from gpupipe.models.calibrators import pooled
from gpupipe.monitor.cells import FIRST, Bins

DRAWS = 200
ESTIMATED = {"multiclass": ("accuracy",),
             "regression": ("mean_absolute_error", "root_mean_squared_error")}
"""What can be estimated of a task; of two classes every metric."""
NORMAL = 2.5758


@dataclass(frozen=True)
class Estimate:
    """An estimated metric, and the interval of what labels would show if the estimate is right."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Estimator:
    """Estimates metrics from how many rows have which score.

    ``judged`` is what a bundle keeps of its out-of-fold predictions (`decide.predicted`).
    """

    task: str
    judged: Mapping[str, Any]
    threshold: float = 0.5
    seed: int = 0

    def estimate(
        self, cells: np.ndarray, counts: np.ndarray, metrics: Sequence[str]
    ) -> dict[str, Estimate]:
        """Each metric that can be estimated.

        ``cells`` are those of the scores (of the greatest probabilities, for more than two
        classes) as `cells.Bins` makes them, and ``counts`` how many rows lie in each.
        """
        first = int(np.searchsorted(cells, FIRST))
        cells, counts = cells[first:], np.asarray(counts[first:], np.float64)
        if not counts.sum():
            return {}
        if self.task == "binary":
            return self._binary(cells, counts, metrics)
        if self.task == "multiclass":
            return self._accuracy(cells, counts, metrics)
        return self._losses(cells, counts, metrics)

    def calibrated(self, cells: np.ndarray) -> np.ndarray:
        """P(positive), or P(the prediction is right), of scores in some cells."""
        both = np.asarray(self.judged["counts"], np.float64)
        n = both.sum(axis=1)
        order = np.argsort(self.judged["bins"])
        value = pooled(both[order, 1] / n[order], n[order])
        least = 1 / (n.sum() + 2)
        at = _UNIT.middles(FIRST + np.asarray(self.judged["bins"])[order])
        return np.clip(np.interp(_UNIT.middles(cells), at, value), least, 1 - least)

    def _binary(
        self, cells: np.ndarray, counts: np.ndarray, metrics: Sequence[str]
    ) -> dict[str, Estimate]:
        p, score = self.calibrated(cells), np.clip(_UNIT.middles(cells), EPS, 1 - EPS)
        rng = np.random.default_rng(self.seed)
        expected = (counts * p)[None], (counts * (1 - p))[None]
        drawn = rng.poisson(expected[0], (DRAWS, len(p))), rng.poisson(expected[1],
                                                                       (DRAWS, len(p)))
        cut = int((score <= self.threshold).sum())
        tables = [_table(pos, neg, score, cut) for pos, neg in (expected, drawn)]
        found = {}
        for m in choose("binary", list(metrics)):
            with np.errstate(divide="ignore", invalid="ignore"):
                value, spread = (np.asarray(m.compute(t), float) for t in tables)
            spread = spread[np.isfinite(spread)]
            if np.isfinite(value[0]) and len(spread) > DRAWS / 2:
                low, high = np.quantile(spread, [0.005, 0.995])
                found[m.name] = Estimate(float(value[0]), float(low), float(high))
        return found

    def _accuracy(
        self, cells: np.ndarray, counts: np.ndarray, metrics: Sequence[str]
    ) -> dict[str, Estimate]:
        if "accuracy" not in metrics:
            return {}
        right, n = self.calibrated(cells), counts.sum()
        value = float((counts * right).sum() / n)
        error = NORMAL * math.sqrt(float((counts * right * (1 - right)).sum())) / n
        return {"accuracy": Estimate(value, max(value - error, 0.0), min(value + error, 1.0))}

    def _losses(
        self, cells: np.ndarray, counts: np.ndarray, metrics: Sequence[str]
    ) -> dict[str, Estimate]:
        size = _FAR.middles(FIRST + np.asarray(self.judged["bins"]))
        group, weight = self.judged["groups"], np.asarray(self.judged["counts"], np.float64)
        many = len(self.judged["starts"]) + 1
        mass = np.maximum(np.bincount(group, weight, many), 1e-300)
        first, second, fourth = (np.bincount(group, weight * size**k, many) / mass
                                 for k in (1, 2, 4))
        own = np.searchsorted(self.judged["starts"], _FAR.middles(cells), "right")
        share = np.bincount(own, counts, many) / counts.sum()
        n = counts.sum()
        mae, mse, far = (float(share @ v) for v in (first, second, fourth))
        found = {}
        if "mean_absolute_error" in metrics:
            error = NORMAL * math.sqrt(max(mse - mae**2, 0.0) / n)
            found["mean_absolute_error"] = Estimate(mae, max(mae - error, 0.0), mae + error)
        if "root_mean_squared_error" in metrics:
            error = NORMAL * math.sqrt(max(far - mse**2, 0.0) / n)
            found["root_mean_squared_error"] = Estimate(
                math.sqrt(mse), math.sqrt(max(mse - error, 0.0)), math.sqrt(mse + error))
        return found


def _table(pos: np.ndarray, neg: np.ndarray, score: np.ndarray, cut: int) -> Scored:
    """The table of sums of a number of draws: ``[draws, cells]``."""
    losses = {"log_loss": -(pos @ np.log(score) + neg @ np.log1p(-score)),
              "brier_score_loss": pos @ (1 - score) ** 2 + neg @ score**2}
    return Scored(np.asarray(neg, float), np.asarray(pos, float), cut, losses)


def cells_of(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells of scores and how many lie in each: what `Estimator.estimate` takes."""
    from gpupipe.engine.frames import Column, NumpyFrames

    cells = _FAR.cells(Column("float64", scores), NumpyFrames())
    found, counts = np.unique(cells, return_counts=True)
    return found, counts


_UNIT, _FAR = Bins(0.0, 1.0), Bins(-math.inf, math.inf)
