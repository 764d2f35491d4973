"""The metrics, under scikit-learn's names, each a formula over a table of sums.

A metric is a function of a *table*: the sufficient statistics of its task, with a leading axis
of R resamples (R = 1 for the data itself). So the value on all rows and its bootstrap come from
one formula. The tables are `Scored` (binary: weights at the distinct scores), `Classified`
(multiclass: weights by class), `Summed` (regression: weighted sums) and `survival.Compared` (times
with an event: pairs); `samples` makes them.

Where a formula is not defined on a table it gives NaN there, and `undefined` says when that is;
`evaluate` turns it into an explicit note. Every formula equals scikit-learn's on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from gpupipe.engine.arrays import Array, namespace
from gpupipe.errors import ConfigError, did_you_mean

Task = Literal["binary", "multiclass", "regression", "survival", "hazard"]
OF_CLASSES: tuple[Task, ...] = ("binary", "multiclass")
"""Tasks whose targets are class codes; those of all others are numbers."""
Needs = Literal["score", "probability", "label", "value", "order"]
"""What of a prediction a metric looks at; ``order``: which rows are before which others."""


@dataclass(frozen=True)
class Metric:
    """One metric of one task. ``compute`` maps a table of R resamples to float64[R]."""

    name: str
    title: str
    greater_is_better: bool
    needs: Needs
    compute: Callable[..., Array]
    undefined: str = "the metric is not defined on these rows"
    no_interval: str | None = None


METRICS: dict[tuple[Task, str], Metric] = {}


def metric(
    name: str, *tasks: Task, greater_is_better: bool, needs: Needs, title: str | None = None,
    undefined: str = "", no_interval: str | None = None,
) -> Callable[[Callable[..., Array]], Callable[..., Array]]:
    """Register the decorated formula as ``name`` for ``tasks``; ``undefined`` says when NaN."""

    def register(compute: Callable[..., Array]) -> Callable[..., Array]:
        shown = title or name.replace("_", " ")
        for task in tasks:
            METRICS[task, name] = Metric(
                name, shown, greater_is_better, needs, compute, undefined, no_interval
            )
        return compute

    return register


DEFAULT_METRICS: dict[Task, tuple[str, ...]] = {
    "binary": (
        "roc_auc", "average_precision", "log_loss", "brier_score_loss", "accuracy",
        "balanced_accuracy", "f1", "precision", "recall", "matthews_corrcoef",
    ),
    "multiclass": (
        "accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "log_loss", "roc_auc_ovr",
        "matthews_corrcoef",
    ),
    "regression": (
        "r2", "root_mean_squared_error", "mean_absolute_error", "median_absolute_error",
        "mean_absolute_percentage_error", "explained_variance", "max_error",
    ),
    "survival": ("concordance_index",),
    "hazard": ("concordance_index",),
}
"""What `evaluate` computes when not told; the first is the headline."""


def choose(task: Task, names: list[str] | None) -> list[Metric]:
    """The metrics called ``names`` (default: the task's own), in order, without repeats.

    Raises ConfigError for a name that does not exist or does not fit ``task``.
    """
    if task not in DEFAULT_METRICS:
        raise ConfigError(f"unknown task {task!r}", hint=f"use one of {', '.join(DEFAULT_METRICS)}")
    chosen = []
    for name in dict.fromkeys(DEFAULT_METRICS[task] if names is None else names):
        found = METRICS.get((task, name))
        if found is None:
            raise _no_metric(task, name)
        chosen.append(found)
    return chosen


def _no_metric(task: Task, name: str) -> ConfigError:
    fitting = sorted(known for kind, known in METRICS if kind == task)
    tasks = sorted(kind for kind, known in METRICS if known == name)
    if tasks:
        return ConfigError(
            f"the metric {name!r} is for {' and '.join(tasks)} targets; this target is {task}",
            hint=f"metrics for {task}: {', '.join(fitting)}",
        )
    near = did_you_mean(name, fitting)
    return ConfigError(
        f"unknown metric {name!r}",
        hint=f"did you mean {near!r}?" if near else f"metrics for {task}: {', '.join(fitting)}",
    )


# Tables --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """Binary: weights of the negatives and positives at G distinct scores, ascending.

    ``neg`` and ``pos`` are float64[R, G]; rows at scores ``cut`` and above are predicted
    positive (P > 0.5). ``losses`` holds the weighted sums float64[R] of the additive losses.
    """

    neg: Array
    pos: Array
    cut: int
    losses: Mapping[str, Array]

    @cached_property
    def hit(self) -> Array:
        return self._pair(self.neg[:, : self.cut], self.pos[:, self.cut :])

    @cached_property
    def true(self) -> Array:
        return self._pair(self.neg, self.pos)

    @cached_property
    def predicted(self) -> Array:
        negative = self.neg[:, : self.cut].sum(1) + self.pos[:, : self.cut].sum(1)
        total = self.true.sum(1)
        return namespace(self.neg).stack([negative, total - negative], axis=1)

    @property
    def weight(self) -> Array:
        return self.true.sum(1)

    def _pair(self, neg: Array, pos: Array) -> Array:
        return namespace(self.neg).stack([neg.sum(1), pos.sum(1)], axis=1)


@dataclass(frozen=True)
class Classified:
    """Multiclass: weights by class, float64[R, C]: rightly predicted, true, predicted.

    ``losses`` as in `Scored`. ``placements`` is float64[R, C, 2]: for each class the sums over
    its rows of the share of other rows scored below, and over the other rows of the centred
    share of its rows scored above (see `groups.placements`).
    """

    hit: Array
    true: Array
    predicted: Array
    losses: Mapping[str, Array]
    placements: Array | None = None

    @property
    def weight(self) -> Array:
        return self.true.sum(1)


@dataclass(frozen=True)
class Summed:
    """Regression: weighted sums float64[R] by name, and the distribution of absolute errors.

    ``below`` float64[R, K] is the weight of rows whose absolute error is at most ``grid[k]``.
    """

    weight: Array
    losses: Mapping[str, Array]
    grid: Array
    below: Array
    largest: float


# Labels: binary and multiclass ---------------------------------------------------------------


@metric("accuracy", "binary", "multiclass", greater_is_better=True, needs="label")
def accuracy(t: Scored | Classified) -> Array:
    return t.hit.sum(1) / t.weight


@metric("balanced_accuracy", "binary", "multiclass", greater_is_better=True, needs="label")
def balanced_accuracy(t: Scored | Classified) -> Array:
    """Mean recall over the classes that have rows."""
    return _mean_over(t.hit / t.true, t.true > 0)


@metric("f1_macro", "binary", "multiclass", greater_is_better=True, needs="label",
        title="F1, macro")
def f1_macro(t: Scored | Classified) -> Array:
    """Mean F1 over the classes that have rows or predictions."""
    return _mean_over(_f1(t), t.true + t.predicted > 0)


@metric("f1_weighted", "binary", "multiclass", greater_is_better=True, needs="label",
        title="F1, weighted")
def f1_weighted(t: Scored | Classified) -> Array:
    """Mean F1 over classes, weighted by their rows."""
    xp = namespace(t.true)
    return xp.where(t.true > 0, _f1(t) * t.true, 0.0).sum(1) / t.weight


@metric("matthews_corrcoef", "binary", "multiclass", greater_is_better=True, needs="label",
        title="Matthews correlation")
def matthews_corrcoef(t: Scored | Classified) -> Array:
    """Gorodkin's multiclass R_K (2004); 0 where all rows are, or are predicted, one class."""
    xp, total = namespace(t.true), t.weight
    both = t.hit.sum(1) * total - (t.true * t.predicted).sum(1)
    spread = (total**2 - (t.predicted**2).sum(1)) * (total**2 - (t.true**2).sum(1))
    one_class = (t.true > 0).sum(1) == 1
    one_predicted = (t.predicted > 0).sum(1) == 1
    flat = one_class | one_predicted | (spread <= 0)
    return xp.where(flat, 0.0, both / xp.sqrt(xp.where(flat, 1.0, spread)))


@metric("precision", "binary", greater_is_better=True, needs="label",
        undefined="no row is predicted positive")
def precision(t: Scored) -> Array:
    return t.hit[:, 1] / t.predicted[:, 1]


@metric("recall", "binary", greater_is_better=True, needs="label",
        undefined="no row is positive")
def recall(t: Scored) -> Array:
    return t.hit[:, 1] / t.true[:, 1]


@metric("f1", "binary", greater_is_better=True, needs="label", title="F1",
        undefined="no row is positive or predicted positive")
def f1(t: Scored) -> Array:
    return _f1(t)[:, 1]


def _f1(t: Scored | Classified) -> Array:
    return 2 * t.hit / (t.true + t.predicted)


def _mean_over(values: Array, present: Array) -> Array:
    return namespace(values).where(present, values, 0.0).sum(1) / present.sum(1)


# Scores and probabilities --------------------------------------------------------------------


@metric("roc_auc", "binary", greater_is_better=True, needs="score", title="ROC AUC",
        undefined="all rows are of one class")
def roc_auc(t: Scored) -> Array:
    """P(a positive outranks a negative), ties counting half (Mann & Whitney 1947)."""
    below = t.neg.cumsum(1) - t.neg / 2
    return (t.pos * below).sum(1) / (t.true[:, 0] * t.true[:, 1])


@metric("average_precision", "binary", greater_is_better=True, needs="score",
        undefined="no row is positive")
def average_precision(t: Scored) -> Array:
    """Sum over thresholds of the recall gained times the precision there."""
    xp = namespace(t.pos)
    pos = t.pos[:, ::-1]
    hits = pos.cumsum(1)
    seen = hits + t.neg[:, ::-1].cumsum(1)
    gained = xp.where(pos > 0, pos * hits / seen, 0.0)
    return gained.sum(1) / t.true[:, 1]


@metric("log_loss", "binary", "multiclass", greater_is_better=False, needs="probability")
def log_loss(t: Scored | Classified) -> Array:
    return t.losses["log_loss"] / t.weight


@metric("brier_score_loss", "binary", "multiclass", greater_is_better=False,
        needs="probability", title="Brier score")
def brier_score_loss(t: Scored | Classified) -> Array:
    """Mean squared distance of probabilities from the truth (multiclass: summed over classes)."""
    return t.losses["brier_score_loss"] / t.weight


@metric("roc_auc_ovr", "multiclass", greater_is_better=True, needs="score",
        title="ROC AUC, one-vs-rest", undefined="a class has no rows")
def roc_auc_ovr(t: Classified) -> Array:
    return _class_auc(t).mean(1)


@metric("roc_auc_ovr_weighted", "multiclass", greater_is_better=True, needs="score",
        title="ROC AUC, one-vs-rest, weighted", undefined="a class has no rows")
def roc_auc_ovr_weighted(t: Classified) -> Array:
    return (_class_auc(t) * t.true).sum(1) / t.weight


def _class_auc(t: Classified) -> Array:
    assert t.placements is not None
    rest = t.weight[:, None] - t.true
    return t.placements[:, :, 0] / t.true + t.placements[:, :, 1] / rest


@metric("top_k_accuracy", "multiclass", greater_is_better=True, needs="score",
        title="top-2 accuracy")
def top_2_accuracy(t: Classified) -> Array:
    """The share of rows whose class is among the two best scored (scikit-learn's k=2)."""
    return t.losses["top_2"] / t.weight


@metric("top_3_accuracy", "multiclass", greater_is_better=True, needs="score",
        title="top-3 accuracy")
def top_3_accuracy(t: Classified) -> Array:
    return t.losses["top_3"] / t.weight


@metric("top_5_accuracy", "multiclass", greater_is_better=True, needs="score",
        title="top-5 accuracy")
def top_5_accuracy(t: Classified) -> Array:
    return t.losses["top_5"] / t.weight


# Regression ----------------------------------------------------------------------------------


@metric("r2", "regression", greater_is_better=True, needs="value", title="R²",
        undefined="the target is constant")
def r2(t: Summed) -> Array:
    return 1 - t.losses["squared"] / _target_spread(t)


@metric("explained_variance", "regression", greater_is_better=True, needs="value",
        undefined="the target is constant")
def explained_variance(t: Summed) -> Array:
    spread = t.losses["squared"] - t.losses["error"] ** 2 / t.weight
    return 1 - spread / _target_spread(t)


def _target_spread(t: Summed) -> Array:
    """Sum of squares of the target about its mean; NaN where it is constant."""
    xp = namespace(t.weight)
    spread = t.losses["target_squared"] - t.losses["target"] ** 2 / t.weight
    # The target is centred beforehand, so a constant one leaves rounding errors at most.
    return xp.where(spread > 1e-24 * t.losses["scale"], spread, xp.nan)


@metric("mean_squared_error", "regression", greater_is_better=False, needs="value")
def mean_squared_error(t: Summed) -> Array:
    return t.losses["squared"] / t.weight


@metric("root_mean_squared_error", "regression", greater_is_better=False, needs="value",
        title="RMSE")
def root_mean_squared_error(t: Summed) -> Array:
    return mean_squared_error(t) ** 0.5


@metric("mean_absolute_error", "regression", greater_is_better=False, needs="value", title="MAE")
def mean_absolute_error(t: Summed) -> Array:
    return t.losses["absolute"] / t.weight


@metric("median_absolute_error", "regression", greater_is_better=False, needs="value")
def median_absolute_error(t: Summed) -> Array:
    """The weighted median; the middle two are averaged (Hyndman & Fan 1996, definition 2)."""
    xp, half = namespace(t.grid), t.weight[:, None] / 2
    # Weights are sums of the same terms in another order, so equality needs a little room.
    room = 1e-12 * t.weight[:, None]
    last = len(t.grid) - 1
    low = xp.minimum((t.below < half - room).sum(1), last)
    high = xp.minimum((t.below <= half + room).sum(1), last)
    return (t.grid[low] + t.grid[high]) / 2


@metric("mean_absolute_percentage_error", "regression", greater_is_better=False, needs="value",
        title="MAPE", undefined="the target is 0, or nearly, in some rows")
def mean_absolute_percentage_error(t: Summed) -> Array:
    """As a fraction. scikit-learn divides by 2e-16 where the target is 0; here it is undefined."""
    return t.losses["percentage"] / t.weight


@metric("root_mean_squared_log_error", "regression", greater_is_better=False, needs="value",
        title="RMSLE", undefined="a target or a prediction is -1 or less")
def root_mean_squared_log_error(t: Summed) -> Array:
    return (t.losses["squared_log"] / t.weight) ** 0.5


@metric("max_error", "regression", greater_is_better=False, needs="value",
        no_interval="the bootstrap is not valid for a maximum (Bickel & Freedman 1981)")
def max_error(t: Summed) -> Array:
    return namespace(t.weight).full(len(t.weight), t.largest)
