"""What a selection goes by: rows of one training part, some to learn from and others to judge.

No method sees a row that the model will be judged by. Methods that need unseen rows set some of
the training rows aside: whole buckets of the split where there are several, so that groups stay
together and judged rows are the newest ones of a time split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from gpupipe.checkpoints import NOWHERE
from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array
from gpupipe.engine.hashing import mix64
from gpupipe.models.base import FittedModel, Matrix, Model, Training
from gpupipe.models.boosting import best_round
from gpupipe.select.base import Unit
from gpupipe.steps.base import Target

JUDGED = 0.2
"""The share of rows, at least, that judge."""
FLOOR = 1e-15
"""A probability counts as at least this in a loss."""


@dataclass(frozen=True)
class Judged:
    """A model that was trained on some rows, and its loss on each of others: float64 ``[n]``."""

    model: FittedModel
    rounds: int | None
    losses: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """Rows of a training part in memory, and the units to choose from.

    Attributes
    ----------
    matrix : at most so many rows as were asked for, in one chunk.
    low, high : the least and the greatest value of each column over all training rows, NaN
        where it has none; ``gaps``: the share of them that are missing.
    fixed : the names of the units that stay, whatever is decided.
    """

    matrix: Matrix
    low: np.ndarray
    high: np.ndarray
    gaps: np.ndarray
    units: tuple[Unit, ...]
    fixed: frozenset[str]
    target: Target
    model: Model
    how: Training
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What was worked out of these rows already, for all who ask."""

    def of(self, units: Sequence[Unit]) -> Evidence:
        """The same rows, with fewer units to choose from."""
        return replace(self, units=tuple(units))

    @property
    def x(self) -> Array:
        """Float32 ``[rows, columns]``, where training runs."""
        return next(iter(self.matrix.chunks))

    @cached_property
    def host(self) -> np.ndarray:
        """`x` on the host."""
        return to_host(self.x)

    @cached_property
    def y(self) -> np.ndarray:
        """Class codes or values of the rows."""
        return to_host(self.matrix.target)

    @cached_property
    def weight(self) -> np.ndarray:
        """The rows' weights, 1 where there are none."""
        given = self.matrix.weight
        return np.ones(len(self.y)) if given is None else to_host(given).astype(np.float64)

    def parts(self, turn: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Rows to learn from and rows that judge: indices.

        The last buckets judge, or the last but ``turn``; where there is but one bucket, rows
        that a hash of their place and of the seed picks.
        """
        n = len(self.y)
        bucket = np.zeros(n, int) if self.matrix.bucket is None else to_host(self.matrix.bucket)
        there, counts = np.unique(bucket, return_counts=True)
        if len(there) > 1:
            order = np.roll(np.arange(len(there))[::-1], -turn)
            enough = int(np.searchsorted(np.cumsum(counts[order]), JUDGED * n)) + 1
            judges = np.isin(bucket, there[order[:enough]])
            if judges.sum() <= n / 2:
                return np.flatnonzero(~judges), np.flatnonzero(judges)
        salt = np.uint64((self.how.seed << 20) + turn)
        mixed = mix64(np.arange(n, dtype=np.uint64) ^ mix64(np.array([salt]), np)[0], np)
        judges = (mixed >> np.uint64(32)) < JUDGED * 2**32
        return np.flatnonzero(~judges), np.flatnonzero(judges)

    def rows(self, index: np.ndarray, units: Sequence[Unit] | None = None) -> Matrix:
        """Some rows, with the columns of some units (default: all that there are)."""
        columns = np.array([c for u in units or self.units for c in u.columns], np.int64)
        xp, m = namespace(self.x), self.matrix
        x = self.x[xp.asarray(index)][:, xp.asarray(columns)]
        return Matrix((xp.ascontiguousarray(x),), self.y[index],
                      None if m.weight is None else self.weight[index],
                      tuple(m.names[c] for c in columns),
                      tuple(m.categorical[c] for c in columns),
                      tuple(m.origins[c] for c in columns) if m.origins else ())

    def judged(
        self, learn: np.ndarray, judge: np.ndarray, units: Sequence[Unit] | None = None,
    ) -> Judged:
        """The pipeline's own model, trained on some rows of some units, and its losses."""
        train, valid = self.rows(learn, units), self.rows(judge, units)
        how = replace(self.how, checkpoints=NOWHERE, rounds=None, processes=1, spill=None)
        model = self.model.fit(train, valid, self.target, how)
        exactly = getattr(self.model, "rounds", None)
        rounds = exactly or (best_round([model.curve]) if model.curve else None)
        found = to_host(model.predict(next(iter(valid.chunks)), rounds))
        return Judged(model, rounds, losses(found, valid.target, self.target))


def losses(prediction: np.ndarray, y: np.ndarray, target: Target) -> np.ndarray:
    """The log loss, or the squared error, of each row: float64 ``[n]``."""
    if target.task == "regression":
        return (prediction - y) ** 2
    own = prediction[np.arange(len(y)), y] if prediction.ndim == 2 else np.where(
        y == 1, prediction, 1 - prediction)
    return -np.log(np.maximum(own, FLOOR))


def mean_and_error(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """The weighted mean of some rows' values, and its standard error.

    The error is that of a ratio of sums (W. G. Cochran, "Sampling Techniques", section 6.3).
    """
    total = weight.sum()
    mean = float((weight * values).sum() / total)
    n = len(values)
    spread = float(((weight * (values - mean)) ** 2).sum()) * n / max(n - 1, 1)
    return mean, float(np.sqrt(spread) / total)


def gathered(
    train: Matrix, units: tuple[Unit, ...], fixed: frozenset[str], target: Target, model: Model,
    how: Training, rows: int,
) -> Evidence:
    """The evidence of a training matrix: every so-manieth row, at most ``rows`` of them.

    One pass over the chunks. What is looked at in all rows is the range of each column.
    """
    step = max(1, -(-train.rows // rows))
    taken: list[Array] = []
    width, row = len(train.names), 0
    low, high, gaps = np.full(width, np.inf), np.full(width, -np.inf), np.zeros(width, np.int64)
    for chunk in train.chunks:
        xp = namespace(chunk)
        taken.append(chunk[-row % step :: step].copy() if step > 1 else chunk)
        row += int(chunk.shape[0])
        if not chunk.shape[0]:
            continue
        missing = xp.isnan(chunk)
        gaps += to_host(missing.sum(axis=0))
        low = np.minimum(low, to_host(xp.where(missing, np.inf, chunk).min(axis=0)))
        high = np.maximum(high, to_host(xp.where(missing, -np.inf, chunk).max(axis=0)))
    none = low > high
    low[none] = high[none] = np.nan
    sample = replace(
        train, chunks=(namespace(taken[0]).concatenate(taken),), target=train.target[::step],
        weight=None if train.weight is None else train.weight[::step],
        bucket=None if train.bucket is None else train.bucket[::step],
    )
    return Evidence(sample, low, high, gaps / max(row, 1), units, fixed, target, model, how)


def generator(how: Training, *turn: int) -> np.random.Generator:
    """Random numbers that follow from the seed and a turn alone."""
    return np.random.default_rng([how.seed, *turn])


