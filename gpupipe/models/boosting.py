"""Boosting round by round, so that a killed training goes on to the very same model.

XGBoost gives the same trees to a training that was interrupted if three things hold. The random
numbers of a round depend on the round alone (``seed_per_iteration``). Margins are summed tree
by tree in the same order, which is so whether they were kept or are predicted anew. And the
column sampler, whose state is not saved with a model, is a new one after every `RESTART`
rounds, interrupted or not.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe import checkpoints as store
from gpupipe.checkpoints import Checkpoints

if TYPE_CHECKING:
    import xgboost

WATCHED = 10
"""Where nothing is stopped early, the loss is looked at about so often: it takes its time."""
RESTART = 25
"""Rounds after which the sampler is a new one, and a checkpoint may be made."""
MAXIMISED = ("auc", "aucpr", "pre", "map", "ndcg")
"""XGBoost's metrics that are better when greater; with or without ``@k``."""


@dataclass
class Patience:
    """When to stop: after ``rounds`` rounds (None: never) without a gain of more than ``least``.

    The rule is that of XGBoost's own early stopping, on the last metric.
    """

    rounds: int | None
    least: float = 0.0
    best: float | None = field(default=None, init=False)
    since: int = field(default=0, init=False)

    def is_over(self, loss: float, metric: str) -> bool:
        """Whether to stop, once this round's loss is known."""
        value = -loss if metric.partition("@")[0] in MAXIMISED else loss
        if self.best is None or self.best - value > self.least:
            self.best, self.since = value, 0
        else:
            self.since += 1
        return self.rounds is not None and self.since >= self.rounds


def boost(
    params: dict[str, Any], train: xgboost.QuantileDMatrix, valid: xgboost.QuantileDMatrix | None,
    rounds: int, patience: Patience, checkpoints: Checkpoints,
) -> tuple[xgboost.Booster, dict[str, Any], np.ndarray | None]:
    """A booster of at most ``rounds`` rounds, the losses on ``valid``, and its predictions.

    The losses are a curve: ``{"metric": name, "every": rounds, "valid": [one every so many]}``.
    The predictions for ``valid`` were made tree by tree on the way; None where rounds are
    chosen later: not all of them may be used.
    """
    import xgboost

    watched = [] if valid is None else [(valid, "valid")]
    booster = xgboost.Booster(params, [train, *(m for m, _ in watched)])
    resumable = params.get("booster", "gbtree") == "gbtree"  # others keep a state of their own
    losses: list[float] = []
    metric, first, over = "", 0, False
    every = 1 if patience.rounds else max(1, rounds // WATCHED)
    saved = checkpoints.load("rounds")
    if saved is not None:
        booster.load_model(bytearray(saved["booster"]))
        booster.set_param(params)
        losses, metric, first = saved["losses"], saved["metric"], saved["rounds"]
        for loss in losses:
            over = patience.is_over(loss, metric)
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
            over = patience.is_over(losses[-1], metric)
    judged = None if valid is None or patience.rounds else booster.predict(valid)
    return booster.reset(), {"metric": metric, "every": every, "valid": losses}, judged


def best_round(found: Sequence[dict[str, Any] | None]) -> int | None:
    """The round at which the mean validation loss of all folds is least.

    One number chosen on all folds together: the folds' own predictions stay honest, which
    they would not be if each fold stopped where its own validation rows like it best. A fold
    that stopped early keeps its last loss.
    """
    curves = [c["valid"] for c in found if c]
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
