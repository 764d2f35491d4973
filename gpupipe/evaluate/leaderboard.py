"""An honest leaderboard: every candidate with its interval, ties as ties, luck taken off the best.

All candidates are judged on the same out-of-fold rows and on the same resamples of them (see
`joint`), so that what they share cancels in their differences.

- **Ties**: a candidate whose paired difference to the best has an interval that holds 0 is not
  told apart from it by these rows, and shares its rank. The rest are ranked in the same way.
- **The winner's curse**: the best of many scores is too good, for it was picked on the rows that it
  is read from. BBC-CV (Tsamardinos, Greasidou & Borboudakis 2018, Bootstrapping the out-of-sample
  predictions for efficient and accurate cross-validation, Machine Learning 107, Algorithm 2) picks
  the best on each resample and judges it on the rows that the resample left out. The mean of
  these is what a choice among so many candidates is worth; no candidate is trained again. What
  the best one's own mean over left-out rows strays from its score is taken off as chance in the
  drawing (a control variate), so that a best that is always picked is not corrected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.engine.arrays import Array
from gpupipe.evaluate.joint import Joint, exact, joint
from gpupipe.evaluate.metrics import Metric, Task, choose
from gpupipe.evaluate.samples import UNITS
from gpupipe.evaluate.scores import Score
from gpupipe.evaluate.text import score as written


@dataclass(frozen=True, eq=False)
class Entry:
    """A candidate of a search, or a baseline.

    Attributes
    ----------
    name, kind, params : what it is called, its family and its parameters.
    oof : predictions of the out-of-fold rows, in row order: float32 or float64 as
        `scores.evaluate` takes them. None where a score alone was kept.
    score : the metric, where there is no ``oof``.
    seconds, work_units : what training took; latency : seconds for one row; size : bytes.
    """

    name: str
    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    oof: Array | None = None
    score: float | None = None
    seconds: float | None = None
    work_units: int | None = None
    latency: float | None = None
    size: int | None = None


@dataclass(frozen=True)
class Place:
    """Where an entry stands.

    ``rank`` and ``difference`` (entry minus best) are None for an entry without predictions, which
    cannot be compared; ``folds`` are the metric's values within each fold.
    """

    rank: int | None
    entry: Entry
    score: Score
    difference: Score | None
    folds: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        e = self.entry
        return {
            "rank": self.rank, "name": e.name, "kind": e.kind, "params": dict(e.params),
            "score": self.score.to_json(),
            "difference": self.difference and self.difference.to_json(),
            "folds": list(self.folds), "deviation": _deviation(self.folds), "seconds": e.seconds,
            "work_units": e.work_units, "latency": e.latency, "size": e.size,
        }


@dataclass(frozen=True)
class Luck:
    """What of the best score is the luck of having been picked.

    ``best`` is the score as it reads, ``corrected`` what BBC-CV finds, with its interval;
    ``luck`` is the difference, positive where the best reads too good.
    """

    best: float
    corrected: Score
    luck: float
    candidates: int
    resamples: int


@dataclass(frozen=True)
class Leaderboard:
    """The entries' places, best first, and what the best one's score is worth."""

    metric: Metric
    rows: int
    confidence: float
    places: tuple[Place, ...]
    luck: Luck | None

    @property
    def tied(self) -> int:
        """How many share the first rank."""
        return sum(p.rank == 1 for p in self.places)

    def sentences(self) -> list[str]:
        """Who leads, with whom, and how much of it is luck, in words."""
        return [*_lead(self), *_correction(self)]

    def to_json(self) -> dict[str, Any]:
        luck = self.luck
        return {
            "metric": self.metric.name, "title": self.metric.title,
            "greater_is_better": self.metric.greater_is_better, "rows": self.rows,
            "confidence": self.confidence, "tied": self.tied,
            "entries": [p.to_json() for p in self.places],
            "correction": luck and {
                "best": luck.best, "corrected": luck.corrected.to_json(), "luck": luck.luck,
                "candidates": luck.candidates, "resamples": luck.resamples, "method": "BBC-CV",
            },
            "sentences": self.sentences(),
        }


def leaderboard(
    task: Task, metric: str, entries: Sequence[Entry], y: Array, weight: Array | None = None,
    fold: np.ndarray | None = None, *, confidence: float = 0.95, resamples: int = 1000,
    seed: int = 0, units: int = UNITS,
) -> Leaderboard:
    """The leaderboard of ``entries``, which predicted the same rows out of fold.

    Parameters
    ----------
    task, metric : as of `scores.evaluate`; one metric.
    y, weight : target and sample weight of the out-of-fold rows, ``[n]``.
    fold : the fold that judged each row, int ``[n]``; for the values within folds.
    confidence, resamples, seed, units : of the intervals.

    Raises ConfigError for an unfit metric, DataError for predictions that do not fit the rows.
    """
    (m,) = choose(task, [metric])
    judged = [e for e in entries if e.oof is not None]
    if not judged:
        return Leaderboard(m, len(y), confidence, tuple(_scored_only(entries, m)), None)
    found = joint(task, metric, y, [e.oof for e in judged], weight, resamples=resamples, seed=seed,
                  units=units)
    sign = 1.0 if m.greater_is_better else -1.0
    order = _best_first(sign * found.value)
    best = order[0]
    known = [i for i in order if np.isfinite(found.value[i])]
    ranks = dict(zip(known, _ranks(found.inside[:, known], confidence), strict=True))
    places = []
    for i in order:
        away = found.value[i] - found.value[best], found.inside[:, i] - found.inside[:, best]
        places.append(Place(
            ranks.get(i), judged[i], interval(m, found.value[i], found.inside[:, i], confidence),
            None if i == best else interval(m, *away, confidence, bounded=False),
            _by_fold(task, metric, y, judged[i].oof, weight, fold),
        ))
    places.sort(key=lambda p: p.rank or len(judged) + 1)
    luck = _luck(m, found, best, sign, confidence)
    rest = _scored_only([e for e in entries if e.oof is None], m)
    return Leaderboard(m, len(y), confidence, (*places, *rest), luck)


def interval(
    m: Metric, value: float, around: np.ndarray, confidence: float, *, bounded: bool = True
) -> Score:
    """A value with the percentiles of its resamples; ``bounded``: they end at the metric's best."""
    if not np.isfinite(value):
        return Score(None, note=f"undefined: {m.undefined}")
    known = around[np.isfinite(around)]
    if len(known) <= len(around) / 2 or not len(known):
        why = m.no_interval or f"undefined in most resamples ({m.undefined})"
        return Score(float(value), note=f"no interval: {why}")
    if bounded:
        known = np.minimum(known, 1.0) if m.greater_is_better else np.maximum(known, 0.0)
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Score(float(value), float(low), float(high))


def _best_first(value: np.ndarray) -> list[int]:
    """Positions by falling value, undefined ones last; equal ones in their order."""
    return [int(i) for i in np.argsort(-np.where(np.isnan(value), -np.inf, value), kind="stable")]


def _ranks(inside: np.ndarray, confidence: float) -> list[int]:
    """Ranks of entries that are sorted best first, from their shared resamples ``[R, M]``.

    The first of those without a rank, and all whose difference to it may be 0, get the next one.
    """
    ranks, waiting = [0] * inside.shape[1], list(range(inside.shape[1]))
    while waiting:
        rank = len(ranks) - len(waiting) + 1
        apart = [_apart(inside[:, i] - inside[:, waiting[0]], confidence) for i in waiting]
        for i in (i for i, far in zip(waiting, apart, strict=True) if not far):
            ranks[i] = rank
        waiting = [i for i, far in zip(waiting, apart, strict=True) if far]
    return ranks


def _apart(difference: np.ndarray, confidence: float) -> bool:
    """Whether the interval of a difference leaves 0 out; not where there are no resamples."""
    known = difference[np.isfinite(difference)]
    if not len(known):
        return False
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return bool(low > 0 or high < 0)


def _luck(m: Metric, found: Joint, best: int, sign: float, confidence: float) -> Luck | None:
    """BBC-CV; None where there is no choice, or the metric cannot be resampled."""
    inside, outside, value = found.inside, found.outside, float(found.value[best])
    resamples, candidates = inside.shape
    if candidates < 2 or not resamples or not np.isfinite(value):
        return None
    there = np.where(np.isnan(inside), -np.inf, sign * inside)
    picked = outside[np.arange(resamples), there.argmax(axis=1)]
    known = np.isfinite(picked) & np.isfinite(outside[:, best]) & np.isfinite(there).any(axis=1)
    if known.sum() <= resamples / 2:
        return None
    picked = picked[known] + (value - outside[known, best].mean())
    corrected = float(picked.mean())
    return Luck(value, interval(m, corrected, picked, confidence), sign * (value - corrected),
                candidates, resamples)


def _by_fold(
    task: Task, metric: str, y: Array, prediction: Array, weight: Array | None,
    fold: np.ndarray | None,
) -> tuple[float, ...]:
    if fold is None:
        return ()
    parts = [fold == k for k in range(int(fold.max()) + 1)]
    return tuple(exact(task, metric, y[at], prediction[at], None if weight is None else weight[at])
                 for at in parts)


def _scored_only(entries: Sequence[Entry], m: Metric) -> list[Place]:
    """Entries of which a score alone was kept, best first."""
    sign = 1.0 if m.greater_is_better else -1.0
    values = np.array([np.nan if e.score is None else e.score for e in entries], float)
    note = "no interval: its predictions were not kept"
    return [Place(None, entries[i], Score(entries[i].score, note=note), None)
            for i in _best_first(sign * values)]


def _deviation(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _lead(board: Leaderboard) -> list[str]:
    ranked = [p for p in board.places if p.rank is not None]
    if len(ranked) < 2:
        return []
    rest = [p.entry.name for p in ranked[1 : board.tied]]
    told = ", ".join(rest[:3]) + (f" and {len(rest) - 3} more" if len(rest) > 3 else "")
    level = f"{100 * board.confidence:g}%"
    who = ranked[0].entry.name
    if not rest:
        return [f"{who} is ahead of the other {len(ranked) - 1} beyond chance ({level} interval of "
                "the paired difference)"]
    return [f"{who} is not told apart from {told} by these {board.rows:,} rows (the {level} "
            f"interval of the paired difference holds 0)"]


def _correction(board: Leaderboard) -> list[str]:
    luck = board.luck
    if luck is None:
        return []
    low, high = luck.corrected.low, luck.corrected.high
    span = f" ({written(low)} to {written(high)})" if low is not None else ""
    told = "the choice itself costs nothing that could be measured"
    if luck.luck > 1e-9 * abs(luck.best):
        told = f"{written(luck.luck)} of it is the luck of having been picked"
    alone = sum(p.rank is None and p.entry.oof is None for p in board.places)
    also = f" (a score alone was kept of {alone:,} more)" if alone else ""
    return [f"the best of {luck.candidates} candidates{also} reads {written(luck.best)}; picked "
            f"anew on each of {luck.resamples:,} resamples and judged on the rows left out "
            f"(BBC-CV), such a choice scores {written(luck.corrected.value)}{span}: {told}"]
