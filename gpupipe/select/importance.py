"""Methods that ask the pipeline's own model: permutation importance, recursive elimination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.models.base import Range, Space
from gpupipe.select.base import Method, Unit, Verdict, discoveries, register, upper_tail
from gpupipe.select.evidence import (
    Evidence,
    Judged,
    generator,
    losses,
    mean_and_error,
)


@register("permutation")
class Permutation(Method):
    """Keep what the model misses when it is shuffled.

    The model is trained on some of the training rows; of the others, a feature's values are
    shuffled and the loss is measured again (L. Breiman, "Random Forests", Machine Learning 45,
    2001). The score is the mean rise of a row's loss. A feature is kept where the rise is above
    0 by more than chance gives: a one-sided test over the rows, with the correction of
    Benjamini and Hochberg. Of two features that say the same neither may be missed: put
    ``correlation`` before it.
    """

    asks_model: ClassVar[bool] = True
    space: ClassVar[Space] = {"alpha": Range(1e-3, 0.2, log=True)}
    turns: Annotated[int, Field(ge=1)] = 2
    """How many models are trained, each on other rows; all that judge one count."""
    repeats: Annotated[int, Field(ge=1)] = 2
    """How often each feature is shuffled."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The share of what is kept that may be noise."""

    def choose(self, evidence: Evidence) -> Verdict:
        found, weights = [], []
        for turn in range(self.turns):
            learn, judge = evidence.parts(turn)
            model = evidence.judged(learn, judge)
            found.append(rises(evidence, judge, evidence.units, model, self.repeats, turn))
            weights.append(evidence.weight[judge])
        weight = np.concatenate(weights)
        moments = [mean_and_error(rise, weight) for rise in np.concatenate(found, axis=1)]
        mean, error = np.array(moments).T
        z = np.where(error > 0, mean / np.where(error > 0, error, 1), 0.0)
        return Verdict((mean > 0) & discoveries(upper_tail(z), self.alpha), mean)


def rises(
    evidence: Evidence, judge: np.ndarray, units: Sequence[Unit], found: Judged, repeats: int,
    turn: int = 0,
) -> np.ndarray:
    """By unit and judging row, how much the loss rises when the unit is shuffled."""
    rows = evidence.rows(judge, units)
    x = next(iter(rows.chunks))
    xp = namespace(x)
    out, at = np.zeros((len(units), len(judge))), 0
    for u, unit in enumerate(units):
        columns = slice(at, at + len(unit.columns))
        at = columns.stop
        for repeat in range(repeats):
            order = generator(evidence.how, 2, turn, u, repeat).permutation(len(judge))
            shuffled = x.copy()
            shuffled[:, columns] = x[xp.asarray(order)][:, columns]
            prediction = to_host(found.model.predict(shuffled, found.rounds))
            out[u] += losses(prediction, rows.target, evidence.target) - found.losses
    return out / repeats


@dataclass(frozen=True)
class _Step:
    """A set of units, and the losses of the model that had them."""

    units: tuple[Unit, ...]
    losses: np.ndarray


@register("recursive")
class Recursive(Method):
    """Train, drop the least important features, and again; keep the smallest set that is as good.

    Importance is that of `Permutation`, measured anew for each set, so that of two features
    that say the same the second one counts once the first is gone (B. Gregorutti, B. Michel and
    P. Saint-Pierre, "Correlation and variable importance in random forests", Statistics and
    Computing 27, 2017). Sets are judged on training rows that were set aside; chosen is the
    smallest whose loss is above the least by no more than ``within`` standard errors of that
    difference, row by row (the one-standard-error rule of Breiman et al., "Classification and
    Regression Trees", 1984).
    """

    asks_model: ClassVar[bool] = True
    space: ClassVar[Space] = {"within": Range(0.0, 2.0), "drop": Range(0.1, 0.5)}
    drop: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The share of the features that is dropped at a time, one at least."""
    least: Annotated[int, Field(ge=1)] = 1
    """Features at least."""
    within: Annotated[float, Field(ge=0)] = 1.0
    """How many standard errors the smaller set may be worse."""

    def choose(self, evidence: Evidence) -> Verdict:
        learn, judge = evidence.parts()
        weight = evidence.weight[judge]
        steps: list[_Step] = []
        left = evidence.units
        least_left = max(self.least, sum(u.name in evidence.fixed for u in left))
        while True:
            found = evidence.judged(learn, judge, left)
            steps.append(_Step(left, found.losses))
            if len(left) <= least_left:
                break
            rise = rises(evidence, judge, left, found, 1)
            size = (rise * weight).sum(axis=1)
            size[[u.name in evidence.fixed for u in left]] = np.inf
            count = min(max(1, int(self.drop * len(left))), len(left) - least_left)
            least = set(np.argsort(size, kind="stable")[:count].tolist())
            left = tuple(u for i, u in enumerate(left) if i not in least)
        means = [mean_and_error(s.losses, weight)[0] for s in steps]
        best = int(np.argmin(means))
        good = [i for i, s in enumerate(steps) if _as_good(s, steps[best], weight, self.within)]
        chosen = steps[good[-1]]
        survived = {u.name: i for i, s in enumerate(steps) for u in s.units}
        names = {u.name for u in chosen.units}
        note = (f"the loss is {means[good[-1]]:.4g} with {len(chosen.units)}, and least, "
                f"{means[best]:.4g}, with {len(steps[best].units)}; sets of "
                f"{', '.join(str(len(s.units)) for s in steps)} were tried")
        return Verdict(np.array([u.name in names for u in evidence.units]),
                       np.array([float(survived[u.name]) for u in evidence.units]), None, note)


def _as_good(step: _Step, best: _Step, weight: np.ndarray, within: float) -> bool:
    """Whether a set's loss is no more than so many errors above the best one's."""
    mean, error = mean_and_error(step.losses - best.losses, weight)
    return mean <= within * error
