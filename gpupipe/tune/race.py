"""A race of trials over the folds: one that is behind the best of its family beyond chance ends.

Folds differ in how hard they are, and all trials meet the same ones: what is judged is the
difference of two trials on each fold (paired, as in the races of Maron and Moore, "Hoeffding
races", NIPS 1993, and Birattari et al., "A racing algorithm for configuring metaheuristics",
GECCO 2002). How much a difference varies from fold to fold by chance is found out from all trials
of the family together, so that a trial that is far behind ends after its first fold. Families are
not held against each other: an ensemble is better for what is different.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

CHANCE = 0.2
"""How often a trial as good as the best of its family is ended at a look: no loss, for what is
sought is a better one."""
LEAST_FREEDOM = 3
"""Degrees of freedom of the spread below which nothing is ended."""


@dataclass
class Race:
    """The trials that were trained on all folds, and the rule by which another one ends.

    Attributes
    ----------
    maximise : whether more of the metric is better.
    """

    maximise: bool
    _finished: dict[str, list[np.ndarray]] = field(default_factory=dict, init=False)

    def finish(self, kind: str, looks: Mapping[int, float]) -> None:
        """A trial was trained on all folds; ``looks`` are the metric's means, by folds so far."""
        self._finished.setdefault(kind, []).append(self._values(looks))

    def is_lost(self, kind: str, looks: Mapping[int, float]) -> bool:
        """Whether a trial that has come so far is worse than the best of its family.

        A one-sided t test of its mean difference on the folds so far. The spread is pooled: that
        of every trial's differences to the best one, around their own mean.
        """
        values, others = self._values(looks), self._finished.get(kind, [])
        others = [o for o in others if len(o) >= len(values)]
        if not others or not len(values):
            return False
        from scipy.stats import t as student

        best = max(others, key=lambda o: float(o.mean()))
        own = values - best[: len(values)]
        apart = [own, *(o - best for o in others if o is not best and len(o) == len(best))]
        freedom = sum(len(d) - 1 for d in apart)
        if freedom < LEAST_FREEDOM:
            return False
        variance = sum(float(((d - d.mean()) ** 2).sum()) for d in apart) / freedom
        margin = student.ppf(1 - CHANCE, freedom) * np.sqrt(variance / len(own))
        return bool(own.mean() < -margin)

    def _values(self, looks: Mapping[int, float]) -> np.ndarray:
        """The metric of each fold, greater being better, from the means so far: ``[folds]``."""
        folds = np.array(sorted(looks))
        sums = folds * np.array([looks[k] for k in folds.tolist()])
        return np.diff(sums, prepend=0.0) * (1 if self.maximise else -1)
