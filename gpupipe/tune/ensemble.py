"""Ensembles of trials, made of out-of-fold predictions alone.

A blend is the greedy selection of Caruana, Niculescu-Mizil, Crew and Ksikes ("Ensemble selection
from libraries of models", ICML 2004, section 2): beginning with the best model, the one that
lowers the loss of the mean most is added, again and again, with replacement. A stack is a linear
model of the same members' predictions (Wolpert 1992; Breiman 1996). What either of them brings
is judged honestly: the weights that a fold's rows are judged by were found on the other folds, and
so was the single trial that they are held against. (The best of many trials on all rows owes some
of its score to luck on these very rows: against that one nothing looks better.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.evaluate.metrics import Metric
from gpupipe.evaluate.scores import Score, paired_difference
from gpupipe.models import FittedModel
from gpupipe.models.ensemble import FittedEnsemble, How, Rule, log_odds, log_of
from gpupipe.steps.graph import Fitted, Graph, Node, feature_names
from gpupipe.tune.search import Found
from gpupipe.tune.trial import Trial
from gpupipe.tune.workshop import Truth

STEPS = 40
"""Greedy steps of a blend: weights are multiples of one fortieth."""
LEAST = 1e-15
RIDGE = 1e-3
"""Of a stack: the penalty on its weights' squared distance from an equal mean, a row."""

ENSEMBLED = ("binary", "multiclass", "regression")
"""Tasks whose predictions are put together; times and risks of several models are not."""


@dataclass(frozen=True)
class Ensemble:
    """Trials put together.

    Attributes
    ----------
    members : of the final rule, greatest weight first.
    oof : its predictions for the out-of-fold rows, by weights found on the other folds.
    gain : how much better it is than the best single trial, both chosen on the other folds: the
        paired difference of the metric, so oriented that more is better.
    """

    rule: Rule
    members: list[Trial]
    oof: np.ndarray
    gain: Score
    metric: str

    def better(self, *, beyond_chance: bool) -> bool:
        """Whether it is better than the best single trial: most likely, or ``beyond_chance``."""
        gain = self.gain.low if beyond_chance else self.gain.value
        return gain is not None and gain > 0

    def to_json(self) -> dict[str, Any]:
        """For the record of the run."""
        return {"kind": self.rule.how, "metric": self.metric, "gain": self.gain.to_json(),
                "members": [{"trial": t.number, "kind": t.kind, "weight": float(w)}
                            for t, w in zip(self.members, self.rule.weights, strict=True)]}


def ensemble(
    how: How, found: Found, truth: Truth, task: str, *, size: int, confidence: float,
    resamples: int, seed: int,
) -> Ensemble | None:
    """The ensemble of a search's kept trials; None where there is but one.

    Parameters
    ----------
    size : members at most.
    confidence, resamples, seed : of the gain's interval.
    """
    library = found.kept
    if len(library) < 2:
        return None
    predictions = [np.asarray(t.oof, dtype=float) for t in library]
    oof, alone = np.empty_like(predictions[0]), np.empty_like(predictions[0])
    for k in np.unique(truth.fold):
        inside = truth.fold == k
        best = _best(found.metric, predictions, truth, ~inside, task)
        alone[inside] = predictions[best][inside]
        rule, chosen = _rule(how, [p[~inside] for p in predictions], truth.target[~inside],
                             None if truth.weight is None else truth.weight[~inside], task, size)
        oof[inside] = rule.combine([predictions[i][inside] for i in chosen])
    rule, chosen = _rule(how, predictions, truth.target, truth.weight, task, size)
    sign = 1 if found.metric.greater_is_better else -1
    gain = paired_difference(
        task, found.metric.name, truth.target, oof, alone,  # type: ignore[arg-type]
        weight=truth.weight, confidence=confidence, resamples=resamples, seed=seed)
    if sign < 0 and gain.value is not None:
        gain = Score(-gain.value, None if gain.high is None else -gain.high,
                     None if gain.low is None else -gain.low, gain.note)
    return Ensemble(rule, [library[i] for i in chosen], oof, gain, found.metric.name)


def _best(
    metric: Metric, predictions: Sequence[np.ndarray], truth: Truth, rows: np.ndarray, task: str
) -> int:
    """Which prediction is best on some of the rows; of equal ones the first."""
    sign = 1 if metric.greater_is_better else -1
    values = np.array([sign * truth.score(task, metric, p[rows], rows) for p in predictions])
    return int(np.argmax(np.where(np.isnan(values), -np.inf, values)))


def _rule(
    how: How, predictions: Sequence[np.ndarray], y: np.ndarray, weight: np.ndarray | None,
    task: str, size: int,
) -> tuple[Rule, list[int]]:
    """The rule, and which predictions it takes, the greatest weight first."""
    counts = caruana(predictions, y, weight, task, size)
    chosen = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    if how == "blend":
        bias = np.zeros(1)
        return Rule("blend", counts[chosen] / counts.sum(), bias, task), chosen
    return stack([predictions[i] for i in chosen], y, weight, task), chosen


def caruana(
    predictions: Sequence[np.ndarray], y: np.ndarray, weight: np.ndarray | None, task: str,
    size: int, steps: int = STEPS,
) -> np.ndarray:
    """How often each prediction is taken: int64 ``[predictions]``, first the best one.

    The loss is the log loss, or the squared error of a regression.
    """
    parts = [_telling(p, y, task) for p in predictions]
    loss = _squared(y, weight) if task == "regression" else _log(weight)
    counts = np.zeros(len(parts), np.int64)
    total = np.zeros_like(parts[0])
    best, kept = np.inf, counts.copy()
    for step in range(1, steps + 1):
        open_ = np.flatnonzero(counts) if np.count_nonzero(counts) >= size else range(len(parts))
        losses = {int(i): loss((total + parts[i]) / step) for i in open_}
        taken = min(losses, key=lambda i: (losses[i], i))
        counts[taken] += 1
        total += parts[taken]
        if losses[taken] < best:
            best, kept = losses[taken], counts.copy()
    return kept


def _telling(p: np.ndarray, y: np.ndarray, task: str) -> np.ndarray:
    """The part of a prediction that its loss is made of, which averages as predictions do."""
    if task == "regression":
        return p
    if task == "binary":
        return np.where(y == 1, p, 1 - p)
    return p[np.arange(len(y)), y]


def _squared(y: np.ndarray, weight: np.ndarray | None) -> Any:
    return lambda p: float(np.average((p - y) ** 2, weights=weight))


def _log(weight: np.ndarray | None) -> Any:
    return lambda p: float(np.average(-np.log(np.maximum(p, LEAST)), weights=weight))


def stack(
    predictions: Sequence[np.ndarray], y: np.ndarray, weight: np.ndarray | None, task: str
) -> Rule:
    """The linear model of the predictions: one weight a member, none below 0, and a bias.

    Weights below 0 would bet on one member being wrong wherever another is right (Breiman 1996,
    "Stacked regressions", section 2).
    """
    from scipy.optimize import minimize

    members, n = len(predictions), len(y)
    w = np.ones(n) if weight is None else weight
    w = w / w.sum()
    equal = np.full(members, 1 / members)
    if task == "regression":
        x = np.stack(predictions, axis=1)
        scale = float(np.sqrt(np.average((y - np.average(y, weights=w)) ** 2, weights=w))) or 1.0
        x, t = x / scale, y / scale
        biases = 1

        def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
            rest = x @ v[:members] + v[members] - t
            return float(w @ rest**2), 2 * np.append(x.T @ (w * rest), w @ rest)
    elif task == "binary":
        x = np.stack([log_odds(p) for p in predictions], axis=1)
        biases = 1

        def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
            z = x @ v[:members] + v[members]
            rest = 1 / (1 + np.exp(-z)) - y
            return float(w @ (np.logaddexp(0, z) - y * z)), np.append(x.T @ (w * rest), w @ rest)
    else:
        x = np.stack([log_of(p) for p in predictions], axis=2)
        biases = x.shape[1]
        own = np.eye(biases)[y]

        def loss(v: np.ndarray) -> tuple[float, np.ndarray]:
            z = x @ v[:members] + v[members:]
            z = z - z.max(axis=1, keepdims=True)
            p = np.exp(z)
            total = p.sum(axis=1)
            rest = (p / total[:, None] - own) * w[:, None]
            value = float(w @ (np.log(total) - z[np.arange(n), y]))
            return value, np.append(np.einsum("nc,ncm->m", rest, x), rest.sum(axis=0))

    def penalised(v: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(v)
        off = v[:members] - equal
        slope[:members] += 2 * RIDGE * off
        return value + RIDGE * float(off @ off), slope

    start = np.append(equal, np.zeros(biases))
    bounds = [(0.0, None)] * members + [(None, None)] * biases
    found = minimize(penalised, start, jac=True, method="L-BFGS-B", bounds=bounds,
                     options={"maxiter": 500}).x
    bias = found[members:] * (scale if task == "regression" else 1.0)
    return Rule("stack", found[:members], bias, task)


def united(graphs: Sequence[Graph], fitted: Sequence[Fitted]) -> tuple[Graph, Fitted]:
    """One graph with the outputs of several, each once, and what their steps learned."""
    outputs: dict[str, Node] = {}
    params: dict[str, Any] = {}
    stages: dict[str, Any] = {}
    for graph, own in zip(graphs, fitted, strict=True):
        outputs |= {node.key: node for node in graph.outputs if node.key not in outputs}
        params |= own.params
        stages |= {repr(s): s for s in graph.stages}
    return Graph(tuple(outputs.values()), graphs[0].target, tuple(stages.values())), Fitted(params)


def columns_of(graph: Graph, whole: Graph, fitted: Fitted) -> np.ndarray:
    """Which columns of the whole graph's matrix are those of one of its parts: int64."""
    at, places = 0, {}
    for node in whole.outputs:
        width = len(feature_names(Graph((node,), whole.target), fitted))
        places[node.key] = np.arange(at, at + width)
        at += width
    return np.concatenate([places[node.key] for node in graph.outputs])


def fitted_ensemble(
    rule: Rule, models: Sequence[FittedModel], graphs: Sequence[Graph], whole: Graph,
    fitted: Fitted,
) -> FittedEnsemble:
    """The members' final models as one, on the features of all of them."""
    names = tuple(n for n, _ in feature_names(whole, fitted))
    return FittedEnsemble(list(models), [columns_of(g, whole, fitted) for g in graphs], rule,
                          names)
