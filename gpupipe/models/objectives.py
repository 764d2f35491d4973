"""The losses that a family's library can minimise, and the targets that suit each.

Every one here predicts what `FittedModel.predict` promises: probabilities or values. Losses whose
predictions are labels or margins are not offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gpupipe.data.outcomes import RANKING, SURVIVAL
from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError, DataError, did_you_mean
from gpupipe.models.base import Task
from gpupipe.models.trees import Link
from gpupipe.transforms.base import Target

Values = Literal["any", "not negative", "positive", "from 0 to 1", "greater than -1"]


@dataclass(frozen=True)
class Objective:
    """A loss: the task it is for, how predictions follow from sums of leaves, and what values
    the target may have."""

    task: Task
    link: Link = "identity"
    values: Values = "any"


VALUE = Objective("regression")
TIME = Objective("survival", "log")
SCORE = Objective("ranking")
RISK = Objective("hazard", "log")
COUNT = Objective("regression", "log", "not negative")
POSITIVE = Objective("regression", "log", "positive")
BINARY = Objective("binary", "logistic")
CLASSES = Objective("multiclass", "softmax")

Table = Mapping[str, Objective]

XGBOOST: Table = {
    "binary:logistic": BINARY, "multi:softprob": CLASSES,
    "reg:squarederror": VALUE, "reg:absoluteerror": VALUE, "reg:pseudohubererror": VALUE,
    "reg:quantileerror": VALUE, "count:poisson": COUNT, "reg:tweedie": COUNT,
    "reg:gamma": POSITIVE, "reg:squaredlogerror": Objective("regression",
                                                            values="greater than -1"),
    "reg:logistic": Objective("regression", "logistic", "from 0 to 1"),
    "survival:aft": TIME, "survival:cox": RISK,
    "rank:ndcg": SCORE, "rank:pairwise": SCORE, "rank:map": SCORE,
}
LIGHTGBM: Table = {
    "binary": BINARY, "multiclass": CLASSES,
    "regression": VALUE, "regression_l1": VALUE, "huber": VALUE, "fair": VALUE,
    "quantile": VALUE, "mape": VALUE, "poisson": COUNT, "tweedie": COUNT, "gamma": POSITIVE,
}
LOG_RMSE = "LogRMSE"
CATBOOST: Table = {
    "Logloss": BINARY, "MultiClass": CLASSES,
    "RMSE": VALUE, "MAE": VALUE, "Huber": VALUE, "Quantile": VALUE, "Expectile": VALUE,
    "LogCosh": VALUE, "MAPE": VALUE, "Poisson": COUNT, "Tweedie": COUNT, LOG_RMSE: POSITIVE,
}
"""CatBoost writes a loss's own parameters behind its name: ``Quantile:alpha=0.9``. ``LogRMSE`` is
not one of its own: it is ``RMSE`` of the target's logarithm."""


SPECIAL: dict[str, str] = {
    name: known.task for name, known in XGBOOST.items() if known.task in (*SURVIVAL, RANKING)}
"""Objectives that say more of the target than its values do, and the task that they make it."""


def check_name(kind: str, name: object, table: Table) -> None:
    """ConfigError where a family has no objective of that name (its own parameters aside)."""
    if not isinstance(name, str) or (name.partition(":")[0] not in table and name not in table):
        near = did_you_mean(str(name), list(table))
        raise ConfigError(
            f"model {kind!r} has no objective {name!r}",
            hint=f"did you mean {near!r}?" if near else f"there are {', '.join(table)}",
        )


def default_of(task: str, table: Table) -> str:
    """The first objective of the table that is for a task."""
    return next(name for name, known in table.items() if known.task == task)


def objective_of(
    kind: str, given: str | None, table: Table, target: Target, y: Array
) -> tuple[str, Objective]:
    """The name of the objective, the task's default unless one is given, and what it is.

    Raises ConfigError where it is for another task, and DataError where the target has values
    that it cannot be of.
    """
    name = given or default_of(target.task, table)
    found = table[name] if name in table else table[name.partition(":")[0]]
    if found.task != target.task:
        fit = ", ".join(n for n, known in table.items() if known.task == target.task)
        key = {RANKING: "split.group"}.get(found.task,
                                           "data.event" if name in SPECIAL else "data.task")
        raise ConfigError(
            f"objective {name!r} of model {kind!r} is for {found.task} targets, and this one is "
            f"{target.task}", hint=f"for it there are {fit}" if target.task in SURVIVAL else
            f"for it there are {fit}; or set {key}",
        )
    _check_values(name, found.values, y)
    return name, found


def _check_values(name: str, values: Values, y: Array) -> None:
    if values == "any" or not len(y):
        return
    low, high = float(y.min()), float(y.max())
    suits = {"not negative": low >= 0, "positive": low > 0, "from 0 to 1": 0 <= low <= high <= 1,
             "greater than -1": low > -1}[values]
    if not suits:
        raise DataError(
            f"objective {name!r} needs a target that is {values}, and this one goes from {low:g} "
            f"to {high:g}", hint="take another objective, or look at the target's values",
        )


def loss_of_nothing(y: Array, target: Target) -> float:
    """The default loss of the best constant: the standard deviation, or the entropy.

    0 where its scale is no measure of a gain: of a likelihood of times, say.
    """
    xp = namespace(y)
    if target.task in (*SURVIVAL, RANKING):
        return 0.0
    if target.task == "regression":
        return float(xp.std(y))
    shares = xp.bincount(y, minlength=len(target.classes)) / max(len(y), 1)
    return float(-(shares * xp.log(xp.where(shares > 0, shares, 1))).sum())
