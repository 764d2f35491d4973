"""Methods that ask the pipeline's own model: permutation importance, recursive elimination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.models.base import Range, Space
from gpupipe.select.base import Method, Unit, Verdict, holm, register, upper_tail
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
    0 by more than chance gives: a one-sided test over the rows, corrected by Holm's method. Of
    two features that say the same neither may be missed: put ``correlation`` before it.
    """

    asks_model: ClassVar[bool] = True
    space: ClassVar[Space] = {"alpha": Range(1e-3, 0.2, log=True)}
    repeats: Annotated[int, Field(ge=1)] = 3
    """How often each feature is shuffled."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The chance that noise is kept."""

    def choose(self, evidence: Evidence) -> Verdict:
        learn, judge = evidence.parts()
        found = evidence.judged(learn, judge)
        mean, error = rises(evidence, judge, evidence.units, found, self.repeats)
        z = np.where(error > 0, mean / np.where(error > 0, error, 1), 0.0)
        return Verdict((mean > 0) & holm(upper_tail(z), self.alpha), mean)


def rises(
    evidence: Evidence, judge: np.ndarray, units: Sequence[Unit], found: Judged, repeats: int
) -> tuple[np.ndarray, np.ndarray]:
    """By unit, the mean rise of the judges' losses when it is shuffled, and its error."""
    rows = evidence.rows(judge, units)
    x = next(iter(rows.chunks))
    xp, weight = namespace(x), evidence.weight[judge]
    moments, at = [], 0
    for u, unit in enumerate(units):
        columns = slice(at, at + len(unit.columns))
        at = columns.stop
        rise = np.zeros(len(judge))
        for turn in range(repeats):
            order = xp.asarray(generator(evidence.how, 2, u, turn).permutation(len(judge)))
            shuffled = x.copy()
            shuffled[:, columns] = x[order][:, columns]
            prediction = to_host(found.model.predict(shuffled, found.rounds))
            rise += losses(prediction, rows.target, evidence.target) - found.losses
        moments.append(mean_and_error(rise / repeats, weight))
    return np.array([m for m, _ in moments]), np.array([e for _, e in moments])


@dataclass(frozen=True)
class _Step:
    """A set of units, and the losses of the model that had them."""

    units: tuple[Unit, ...]
    losses: np.ndarray


@register("recursive")
class Recursive(Method):
    """Train, drop the least important features, and again; keep the smallest set that is as good.

    Importance is what the model itself tells (gain, the size of coefficients), or, for a
    family that tells nothing, permutation importance (I. Guyon et al., "Gene Selection for
    Cancer Classification using Support Vector Machines", Machine Learning 46, 2002). Sets are
    judged on training rows that were set aside; chosen is the smallest whose loss is above the
    least by no more than ``within`` standard errors of that difference, row by row (the
    one-standard-error rule of Breiman et al., "Classification and Regression Trees", 1984).
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
        steps: list[_Step] = []
        left = evidence.units
        least_left = max(self.least, sum(u.name in evidence.fixed for u in left))
        while True:
            found = evidence.judged(learn, judge, left)
            steps.append(_Step(left, found.losses))
            if len(left) <= least_left:
                break
            size = importance(evidence, judge, left, found)
            size[[u.name in evidence.fixed for u in left]] = np.inf
            count = min(max(1, int(self.drop * len(left))), len(left) - least_left)
            least = set(np.argsort(size, kind="stable")[:count].tolist())
            left = tuple(u for i, u in enumerate(left) if i not in least)
        weight = evidence.weight[judge]
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


def importance(
    evidence: Evidence, judge: np.ndarray, units: Sequence[Unit], found: Judged
) -> np.ndarray:
    """By unit, what the model says of its columns; of permutation where it says nothing."""
    said = dict(found.model.importances())
    if not said:
        return rises(evidence, judge, units, found, 1)[0]
    names = evidence.matrix.names
    return np.array([sum(said[names[c]] for c in u.columns) for u in units])
