"""Boosting: when to stop, and rounds by XGBoost so that a killed training goes on to the very
same model.

XGBoost gives the same trees to a training that was interrupted if three things hold. The random
numbers of a round depend on the round alone (``seed_per_iteration``). Margins are summed tree
by tree in the same order, which is so whether they were kept or are predicted anew. And the
column sampler, whose state is not saved with a model, is a new one after every `RESTART`
rounds, interrupted or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe import checkpoints as store
from gpupipe.checkpoints import Checkpoints
from gpupipe.models.base import Matrix, Training
from gpupipe.models.objectives import loss_of_nothing
from gpupipe.transforms.base import Target

if TYPE_CHECKING:
    import xgboost

MAX_ROUNDS = 3_000
"""Rounds at most where early stopping decides."""
PLAIN_ROUNDS = 400
"""Rounds where there is no validation part to stop at, and no ``n_estimators``."""
PATIENCE = 50
STEP = 0.05
"""Rounds without a gain before the end, and the learning rate that they are for: with steps of
twice the size as much happens in half the rounds."""
LEAST_PATIENCE = 10
LEAST_GAIN = 1e-4
"""An improvement counts while rounds go on if it is this share of the loss of knowing nothing."""
MANY_CLASSES = 10
"""A round grows a tree a class. From so many classes on, a step is `LONG_STEP`, and rounds are
as many times fewer: with 23 classes the short steps would take an hour on half a million rows."""
LONG_STEP = 0.2
WATCHED = 10
"""Where nothing is stopped early, the loss is looked at about so often: it takes its time."""
RESTART = 25
"""Rounds after which the sampler is a new one, and a checkpoint may be made."""
MAXIMISED = ("auc", "aucpr", "pre", "map", "ndcg")
"""XGBoost's metrics that are better when greater; with or without ``@k``."""


@dataclass
class Patience:
    """When to stop: after ``rounds`` rounds (None: never) without a gain of more than ``least``.

    The rule is that of XGBoost's own early stopping, on the last metric. ``watch`` may end it as
    well (see `Training`).
    """

    rounds: int | None
    least: float = 0.0
    watch: Callable[[int, float], bool] | None = None
    looks: int = field(default=0, init=False)
    best: float | None = field(default=None, init=False)
    since: int = field(default=0, init=False)

    def every(self, rounds: int) -> int:
        """Rounds between two looks at the loss, of so many in all."""
        return 1 if self.rounds or self.watch else max(1, rounds // WATCHED)

    def is_over(self, loss: float, maximise: bool = False) -> bool:
        """Whether to stop, once this round's loss is known; ``maximise``: it is a gain."""
        value = -loss if maximise else loss
        if self.best is None or self.best - value > self.least:
            self.best, self.since = value, 0
        else:
            self.since += 1
        self.looks += 1
        ended = self.watch is not None and self.watch(self.looks, value)
        return ended or (self.rounds is not None and self.since >= self.rounds)


@dataclass(frozen=True)
class Schedule:
    """Rounds at most, the step of each, and when to stop before."""

    rounds: int
    learning_rate: float
    patience: Patience


def exact_rounds(given: Mapping[str, Any], *, dart: bool = False) -> int | None:
    """Exactly so many rounds, where the parameters that were ``given`` say so.

    With ``dart``, dropping trees, they always do: later rounds change the weights of earlier
    trees, so the first of many rounds are not the model of fewer.
    """
    if "early_stopping_rounds" in given:
        return None
    return given.get("n_estimators", PLAIN_ROUNDS if dart else None)


def schedule(
    given: Mapping[str, Any], step: float, valid: Matrix | None, target: Target, how: Training,
    *, dart: bool = False,
) -> Schedule:
    """How long to boost, by the parameters that were ``given`` and what the folds have chosen.

    They are ``n_estimators``, ``early_stopping_rounds`` and ``learning_rate``; with an
    ``objective`` or ``eval_metric`` of their own the loss is not the default one, and any
    gain counts. ``step`` is the learning rate.
    """
    longer = 1.0
    if len(target.classes) >= MANY_CLASSES and "learning_rate" not in given:
        longer, step = LONG_STEP / step, LONG_STEP
    patience = given.get("early_stopping_rounds")
    rounds = exact_rounds(given, dart=dart) or given.get("n_estimators")
    if valid is None:
        rounds, patience = how.rounds or rounds or PLAIN_ROUNDS / longer, None
    elif rounds is None:
        rounds = MAX_ROUNDS / longer
        patience = patience or patience_of(step)
    least = 0.0
    if valid is not None and not {"objective", "eval_metric"} & set(given):
        least = LEAST_GAIN * loss_of_nothing(valid.target, target)
    return Schedule(int(rounds), step, Patience(patience, least, how.watch))


def patience_of(step: float) -> int:
    """Rounds without a gain before the end, for steps of this size."""
    return max(round(PATIENCE * STEP / step), LEAST_PATIENCE)


def boost(
    params: dict[str, Any], train: xgboost.QuantileDMatrix, valid: xgboost.QuantileDMatrix | None,
    rounds: int, patience: Patience, checkpoints: Checkpoints,
) -> tuple[xgboost.Booster, dict[str, Any], np.ndarray | None]:
    """A booster of at most ``rounds`` rounds, the losses on ``valid``, and its predictions.

    The losses are a curve: ``{"metric": name, "every": rounds, "valid": [one every so many],
    "maximise": whether more is better}``.
    The predictions for ``valid`` were made tree by tree on the way; None where rounds are
    chosen later: not all of them may be used.
    """
    import xgboost

    watched = [] if valid is None else [(valid, "valid")]
    booster = xgboost.Booster(params, [train, *(m for m, _ in watched)])
    resumable = params.get("booster", "gbtree") == "gbtree"  # others keep a state of their own
    losses: list[float] = []
    metric, first, over = "", 0, False
    every = patience.every(rounds)
    saved = checkpoints.load("rounds")
    if saved is not None:
        booster.load_model(bytearray(saved["booster"]))
        booster.set_param(params)
        losses, metric, first = saved["losses"], saved["metric"], saved["rounds"]
        for loss in losses:
            over = patience.is_over(loss, is_gain(metric))
    at = time.perf_counter()
    for i in range(first, rounds):
        if over:
            break
        if i and i % RESTART == 0 and i > first:
            _restart(booster, params)
            if time.perf_counter() - at >= store.SAVE_SECONDS and resumable:
                checkpoints.save("rounds", {
                    "booster": bytes(booster.save_raw("ubj")), "losses": losses,
                    "metric": metric, "rounds": i,
                })
                at = time.perf_counter()
        booster.update(train, i)
        if watched and (i + 1) % every == 0:
            # "[3]\tvalid-logloss:0.25\tvalid-auc:0.9"
            name, _, value = booster.eval_set(watched, i).rpartition("\t")[2].rpartition(":")
            metric = name.partition("-")[2]
            losses.append(float(value))
            over = patience.is_over(losses[-1], is_gain(metric))
    judged = None if valid is None or patience.rounds else booster.predict(valid)
    curve = {"metric": metric, "every": every, "valid": losses, "maximise": is_gain(metric)}
    return booster.reset(), curve, judged


def is_gain(metric: str) -> bool:
    """Whether more of an XGBoost metric is better."""
    return metric.partition("@")[0] in MAXIMISED


def best_round(found: Sequence[dict[str, Any] | None]) -> int | None:
    """The round at which the mean validation loss of all folds is least (a gain: greatest).

    One number chosen on all folds together: the folds' own predictions stay honest, which
    they would not be if each fold stopped where its own validation rows like it best. A fold
    that stopped early keeps its last loss.
    """
    curves = [[-v for v in c["valid"]] if c.get("maximise") else c["valid"] for c in found if c]
    if not curves or len(curves) < len(found):
        return None
    longest = max(len(c) for c in curves)
    carried = [[*c, *[c[-1]] * (longest - len(c))] for c in curves]
    return int(np.argmin(np.mean(carried, axis=0))) + 1


def _restart(booster: xgboost.Booster, params: dict[str, Any]) -> None:
    """Make XGBoost build its tree updaters anew: it does when the method changes."""
    method = params["tree_method"]
    for name in ("approx" if method == "hist" else "hist", method):
        booster.set_param({"tree_method": name})
        booster.save_config()  # parameters take effect when the configuration is asked for
