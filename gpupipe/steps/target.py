"""Target encoding with cross-fitting.

A level is encoded by the mean of the target over the training rows that have it, shrunk
towards the mean of all. A training row's own label must not reach its own feature, so a
training row is encoded from the *other* folds: the statistics keep one table a bucket, and
the encoding of a row in bucket b is that of all training buckets but b. Rows outside the
training part (and new data) are encoded from the whole of it. Nothing is read again.

Of a level with many rows that costs more than it gains. Its means without one bucket or another
differ a little, and against the labels of that bucket: a tree reads off them which bucket a row
is in, and learns what no new row will tell it, while a row's own share in a mean of hundreds is
next to nothing. Such levels are encoded by all rows, everywhere alike. (LightGBM's AUC out of fold
with every text column encoded goes from .9338 to .9359 so on bank-marketing, from .9307 to .9315 on
adult, from .6931 to .6937 on flights late, from .8436 to .8431 on telco-churn.)
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from gpupipe.data.outcomes import RANKING, SURVIVAL
from gpupipe.errors import ConfigError
from gpupipe.stats.state import Statistic
from gpupipe.stats.tables import TargetCounts, TargetSums
from gpupipe.steps.base import Evidence, Feature, Params, Step, Target, register
from gpupipe.steps.categorical import CATEGORIES, without_null

Moments3 = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Count, sum and sum of squares of the target at each level: ``[levels, k]`` each."""


@register("target_encode")
class TargetEncode(Step):
    """The smoothed mean of the target at each level.

    ``smooth: auto`` is the empirical-Bayes estimate of scikit-learn's `TargetEncoder`
    (Micci-Barreca, "A preprocessing scheme for high-cardinality categorical attributes",
    SIGKDD Explorations 3, 2001): ``l * mean + (1 - l) * prior`` with ``l = n s2 / (n s2 + v)``,
    ``s2`` the target's variance and ``v`` the level's. A number ``m`` gives
    ``(sum + m * prior) / (n + m)``. Missing is a level like any other; a level that training
    never saw gets the prior. Multiclass targets give one column a class. Levels with ``frequent``
    training rows or more are not cross-fitted (None: all are, as in scikit-learn's
    ``fit_transform``).
    """

    accepts = CATEGORIES
    columns: str | tuple[str, ...] = "categorical"
    smooth: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    frequent: Annotated[int, Field(ge=1)] | None = 200

    @property
    def looks(self) -> int:
        return 1

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        if target.task == "unsupervised":
            raise ConfigError("target_encode needs a target, and this model learns without one",
                              hint="one_hot, count or ordinal encode without")
        if target.task == "multiclass":
            return tuple(Feature(f"{feature.name}_{c}", "float64") for c in target.classes)
        return (Feature(feature.name, "float64"),)

    def _statistic(self, target: Target) -> TargetCounts | TargetSums:
        if not target.classes:
            of = "grade" if target.task == RANKING else (
                "time" if target.task in SURVIVAL else "value")
            return TargetSums(target.centre, target.reach, of)  # type: ignore[arg-type]
        return TargetCounts(len(target.classes))

    def needs(self, target: Target, evidence: Evidence) -> tuple[Statistic, ...]:
        return (self._statistic(target),)

    def finalize(self, target: Target, evidence: Evidence) -> Params:
        statistic = self._statistic(target)
        state = evidence.folds(statistic)
        # A level that only other rows have is unknown here: it must leave no trace.
        state = state.take(np.flatnonzero(state.only(evidence.train).occurring()))
        levels, null = without_null(state.levels)
        # One table for the rows of each training bucket, from the others; then that of all.
        moments = [_moments(statistic, state.only([b for b in evidence.train if b != left_out]),
                            target) for left_out in (*evidence.train, None)]
        found = [self._encode(*m, target.centre) for m in moments]
        count, (whole, _) = moments[-1][0], found[-1]
        often = count[:, :1] >= (np.inf if self.frequent is None else self.frequent)
        tables = []
        for known, prior in found:
            known = np.where(often, whole, known)
            missing = known[null] if null >= 0 else prior
            tables.append(np.vstack([np.delete(known, null, 0) if null >= 0 else known,
                                     prior, missing]))
        return {
            "levels": levels, "buckets": list(evidence.train), "encodings": np.stack(tables),
        }

    def _encode(
        self, count: np.ndarray, first: np.ndarray, second: np.ndarray, centre: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodings ``[levels, k]`` and prior ``[k]`` from a training part's sums."""
        n = count.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            prior = first.sum(axis=0) / n
            variance = np.maximum(second.sum(axis=0) / n - prior**2, 0)
            mean = first / count
            if self.smooth == "auto":
                spread = np.maximum(second / count - mean**2, 0)
                shrink = variance * count / (variance * count + spread)
                encoded = shrink * mean + (1 - shrink) * prior
            else:
                encoded = (first + self.smooth * prior) / (count + self.smooth)
        prior = np.where(np.isnan(prior), 0.0, prior)
        return np.where(np.isnan(encoded), prior, encoded) + centre, prior + centre

    def export(self, params: Params) -> Params:
        return {**params, "buckets": [], "encodings": params["encodings"][-1:]}


def _moments(statistic: TargetCounts | TargetSums, state: object, target: Target) -> Moments3:
    """Sums of the target by level, from a state of one bucket.

    For classes they are those of each class's 0/1 indicator.
    """
    if isinstance(statistic, TargetSums):
        count, first, second = (m[0, :, None].astype(np.float64)
                                for m in statistic.moments(state))  # type: ignore[arg-type]
        return count, first, second
    counts = state.counts[0].astype(np.float64)  # type: ignore[attr-defined]
    hits = counts[:, 1:] if target.task == "binary" else counts
    total = np.broadcast_to(counts.sum(axis=1, keepdims=True), hits.shape)
    return total, hits, hits
