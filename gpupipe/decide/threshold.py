"""From which probability on the answer is yes: a threshold for a metric, a cost or a demand.

The threshold is chosen on out-of-fold predictions, and what it brings is judged by thresholds
that other folds chose: the best of many thresholds is too good on the rows that it was chosen on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

from gpupipe.config.choosing import DecideConfig
from gpupipe.decide.evidence import Evidence
from gpupipe.errors import ConfigError
from gpupipe.evaluate.cells import scored
from gpupipe.evaluate.metrics import METRICS, Classified, Metric
from gpupipe.evaluate.scores import Score, paired_difference

USUAL = 0.5
"""The threshold without a rule."""
POINTS = 200
"""Points of the curve that the report draws, at most."""


@dataclass(frozen=True)
class Rule:
    """What makes one threshold better than another.

    Attributes
    ----------
    name : the rule in words.
    metrics : by name, what it is about; the first is the one that it names.
    rank : of the values of these (float64 ``[thresholds]`` each), what is to be greatest.
    demand : for a demand, the least value of the first metric.
    prices : for a cost, of a false positive and of a false negative.
    """

    name: str
    metrics: dict[str, Callable[[Classified], np.ndarray]]
    rank: Callable[[list[np.ndarray]], np.ndarray]
    demand: float | None = None
    prices: tuple[float, float] = (0.0, 0.0)

    @property
    def theory(self) -> float | None:
        """The threshold with the least cost if probabilities were exact (Elkan 2001, IJCAI)."""
        return self.prices[0] / sum(self.prices) if any(self.prices) else None

    @property
    def lead(self) -> str:
        return next(iter(self.metrics))


def rule_of(decide: DecideConfig) -> Rule | None:
    """The rule of the section; None where it names a threshold itself, or nothing.

    ConfigError for a metric that no threshold changes.
    """
    if decide.metric is not None:
        metric = _label_metric(decide.metric)
        sign = 1 if metric.greater_is_better else -1
        return Rule(f"best {metric.title}", {metric.name: metric.compute},
                    lambda v: sign * v[0])
    if decide.cost is not None:
        prices = decide.cost.get("false_positive", 0.0), decide.cost.get("false_negative", 0.0)
        return Rule(
            f"least cost at {prices[0]:g} a false positive and {prices[1]:g} a false negative",
            {"cost": _cost(prices)}, lambda v: -v[0], prices=prices)
    for lead, other in (("precision", "recall"), ("recall", "precision")):
        wanted = getattr(decide, lead)
        if wanted is not None:
            both = {m: _label_metric(m).compute for m in (lead, other)}
            return Rule(f"most {other} at a {lead} of {wanted:g} or more", both,
                        _demand(wanted), demand=wanted)
    return None


def _label_metric(name: str) -> Metric:
    labels = sorted(n for (task, n), m in METRICS.items()
                    if task == "binary" and m.needs == "label")
    if name not in labels:
        known = ("binary", name) in METRICS
        raise ConfigError(
            f"no threshold changes the metric {name!r}" if known else f"unknown metric {name!r}",
            hint=f"metrics of decisions: {', '.join(labels)}")
    return METRICS["binary", name]


def _cost(prices: tuple[float, float]) -> Callable[[Classified], np.ndarray]:
    """The mean cost of a row."""
    def cost(t: Classified) -> np.ndarray:
        return ((t.true - t.hit) @ np.array(prices)) / t.weight

    return cost


def _demand(wanted: float) -> Callable[[list[np.ndarray]], np.ndarray]:
    """Above all thresholds that fall short come those that do not, by the other metric.

    A demand that none meets is met as nearly as can be.
    """
    def rank(values: list[np.ndarray]) -> np.ndarray:
        return np.where(values[0] >= wanted, 2 + values[1], values[0])

    return rank


@dataclass(frozen=True)
class Sweep:
    """A rule's values at every threshold that tells rows apart, rising.

    Attributes
    ----------
    at : the thresholds ``[t]``, each in the middle between two scores, or 0 or 1.
    table : what is right at each.
    values : of each metric of the rule, ``[t]``; NaN where it is not defined.
    """

    at: np.ndarray
    table: Classified
    values: dict[str, np.ndarray]
    best: int


def sweep(rule: Rule, rows: Evidence) -> Sweep:
    """The rule at every threshold; of equally good ones the best is the nearest to a half."""
    weight = np.ones(len(rows.y)) if rows.weight is None else rows.weight
    binned, scores, _ = scored(rows.y, rows.prediction, weight)
    at = np.concatenate([[0.0], (scores[1:] + scores[:-1]) / 2, [1.0]])
    below = [np.concatenate([[0.0], np.cumsum(side[0])]) for side in (binned.neg, binned.pos)]
    if scores[0] <= 0:  # rows at 0 are below every threshold
        at, below = at[1:], [b[1:] for b in below]
    true = np.array([below[0][-1], below[1][-1]])
    hit = np.stack([below[0], true[1] - below[1]], axis=1)
    negative = below[0] + below[1]
    predicted = np.stack([negative, true.sum() - negative], axis=1)
    table = Classified(hit, np.broadcast_to(true, hit.shape), predicted, {})
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {name: np.asarray(m(table)) for name, m in rule.metrics.items()}
    rank = rule.rank([np.nan_to_num(v, nan=-np.inf) for v in values.values()])
    top = np.flatnonzero(rank >= rank.max() - 1e-12 * max(1.0, abs(rank.max())))
    return Sweep(at, table, values, int(top[np.abs(at[top] - USUAL).argmin()]))


@dataclass(frozen=True)
class Decision:
    """A threshold, and what it brings.

    Attributes
    ----------
    threshold : a probability above it is a yes.
    text : what was found, in a sentence.
    found : the figures and the curve, as JSON data.
    labels : of the out-of-fold rows, 1.0 or 0.0, by the thresholds that other folds chose; None
        where no fold chose one.
    """

    threshold: float
    text: str
    found: dict[str, Any] = field(repr=False)
    labels: np.ndarray | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        return {"threshold": self.threshold, "text": self.text, **self.found}


def given(threshold: float) -> Decision:
    """A threshold that the pipeline file names."""
    return Decision(threshold, f"a probability above {threshold:g} is a yes, as the pipeline file "
                    "says", {"rule": "the pipeline file's"})


def decide(
    rule: Rule, choosing: Evidence, judging: Evidence, *, confidence: float = 0.95,
    resamples: int = 1000, seed: int = 0,
) -> Decision:
    """The threshold that is best on ``choosing``, and what such a one brings on ``judging``.

    Both are the out-of-fold rows. ``choosing`` has the probabilities that the bundle will give,
    ``judging`` those that each fold gets from what the others taught.
    """
    whole = sweep(rule, choosing)
    threshold = float(whole.at[whole.best])
    best = {name: float(v[whole.best]) for name, v in whole.values.items()}
    if rule.demand is not None and best[rule.lead] < rule.demand:
        raise ConfigError(
            f"no threshold has a {rule.lead} of {rule.demand:g} out of fold; the most is "
            f"{best[rule.lead]:.4g}", where=f"decide.{rule.lead}", hint="ask for less")

    def learn(rows: Evidence) -> Callable[[Evidence], np.ndarray]:
        cut = sweep(rule, rows)
        return lambda judged: (judged.prediction > cut.at[cut.best]).astype(np.float64)

    labels = judging.crossed(learn, (judging.prediction > USUAL).astype(np.float64))
    seen, mine = judging.rows(judging.judged), labels[judging.judged]
    usual = (seen.prediction > USUAL).astype(np.float64)
    brings = {name: _compared(rule, name, seen, mine, usual, confidence, resamples, seed)
              for name in rule.metrics}
    return Decision(threshold, _sentence(rule, threshold, brings), {
        "rule": rule.name, "lead": rule.lead, "theory": rule.theory, "best": best,
        "brings": brings, "rows": len(seen.y), "curve": _drawn(rule, whole),
    }, labels)


def _compared(
    rule: Rule, name: str, rows: Evidence, mine: np.ndarray, usual: np.ndarray,
    confidence: float, resamples: int, seed: int,
) -> dict[str, Any]:
    """A metric of the labels at the chosen thresholds, at a half, and the difference."""
    sides = [value_of(rule.metrics[name], rows, labels) for labels in (mine, usual)]
    if name == "cost":
        difference = _mean_difference(rule, rows, mine, usual, confidence)
    else:
        difference = paired_difference("binary", name, rows.y, mine, usual, weight=rows.weight,
                                       confidence=confidence, resamples=resamples, seed=seed)
    return {"chosen": sides[0], "usual": sides[1], "difference": difference.to_json()}


def value_of(
    metric: Callable[[Classified], np.ndarray], rows: Evidence, labels: np.ndarray
) -> float | None:
    """A metric of labels 0.0 and 1.0; None where it is not defined."""
    weight = np.ones(len(rows.y)) if rows.weight is None else rows.weight
    cells = np.bincount((2 * rows.y + labels).astype(np.int64), weights=weight, minlength=4)
    cells = cells.reshape(2, 2)
    table = Classified(cells.diagonal()[None], cells.sum(1)[None], cells.sum(0)[None], {})
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(np.asarray(metric(table))[0])
    return value if np.isfinite(value) else None


def _mean_difference(
    rule: Rule, rows: Evidence, mine: np.ndarray, usual: np.ndarray, confidence: float
) -> Score:
    """How much the mean cost differs, with the normal interval of a mean of paired rows."""
    paid = np.array(rule.prices)[rows.y]
    each = paid * (mine != rows.y) - paid * (usual != rows.y)
    weight = np.ones(len(each)) if rows.weight is None else rows.weight
    mean = float((weight * each).sum() / weight.sum())
    error = float(np.sqrt((weight**2 * (each - mean) ** 2).sum()) / weight.sum())
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    return Score(mean, mean - reach, mean + reach)


def _drawn(rule: Rule, whole: Sweep) -> dict[str, Any]:
    """The curve of the report: some points of the sweep, its best one among them."""
    defined = np.flatnonzero(np.isfinite(np.stack(list(whole.values.values()))).all(axis=0))
    wanted = np.searchsorted(whole.at[defined], np.linspace(0, 1, POINTS))
    kept = np.unique(np.append(defined[wanted.clip(max=len(defined) - 1)], whole.best))
    return {"threshold": _short(whole.at[kept]),
            "values": {n: _short(v[kept]) for n, v in whole.values.items()}}


def _short(values: np.ndarray) -> list[float | None]:
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist()]


def _sentence(rule: Rule, threshold: float, brings: dict[str, Any]) -> str:
    parts = []
    for name, one in brings.items():
        gain = one["difference"]
        if one["chosen"] is None or one["usual"] is None:
            continue
        span = "" if gain.get("low") is None else f", {gain['low']:+.3g} to {gain['high']:+.3g}"
        parts.append(f"{name} {one['chosen']:.4g} instead of {one['usual']:.4g} at {USUAL:g} "
                     f"({gain['value']:+.3g}{span})")
    told = f"; out of fold it brings {' and '.join(parts)}" if parts else ""
    return f"a probability above {threshold:.4g} is a yes, for the {rule.name}{told}"
