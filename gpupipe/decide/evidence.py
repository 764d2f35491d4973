"""Out-of-fold predictions, and how to learn from some folds what others judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Evidence:
    """Rows with a prediction by a model that did not learn from them.

    Attributes
    ----------
    y : class codes int64 ``[n]``, or values float64 ``[n]``.
    weight : float64 ``[n]`` or None.
    fold : the 0-based fold that judged each row, ``[n]``.
    prediction : P(positive) ``[n]``, ``[n, classes]``, or values ``[n]``.
    ordered : whether folds follow each other in time: what is judged on one is then learned
        from earlier ones alone, and nothing is judged on the first.
    """

    y: np.ndarray
    weight: np.ndarray | None
    fold: np.ndarray
    prediction: np.ndarray
    ordered: bool = False

    def rows(self, mask: np.ndarray) -> Evidence:
        """Only the rows of a mask."""
        return replace(self, y=self.y[mask], fold=self.fold[mask],
                       weight=None if self.weight is None else self.weight[mask],
                       prediction=self.prediction[mask])

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each fold that can be judged: the rows to learn from, and its own, bool ``[n]``."""
        for k in np.unique(self.fold).tolist():
            learn = self.fold < k if self.ordered else self.fold != k
            if learn.any():
                yield learn, self.fold == k

    @property
    def judged(self) -> np.ndarray:
        """The rows of folds that can be judged, bool ``[n]``."""
        out = np.zeros(len(self.y), bool)
        for _, mine in self.parts():
            out |= mine
        return out

    def crossed(self, learn: Callable[[Evidence], Callable[[Evidence], np.ndarray]],
                start: np.ndarray) -> np.ndarray:
        """What ``learn`` makes of each fold when it learned from the others.

        ``learn`` takes the rows to learn from, and gives a function of the rows to judge. Rows
        that cannot be judged keep ``start``.
        """
        out = start.copy()
        for others, mine in self.parts():
            out[mine] = learn(self.rows(others))(self.rows(mine))
        return out
