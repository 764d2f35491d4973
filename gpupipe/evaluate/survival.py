"""Concordance of predictions with times, some of which are censored.

A pair of rows can be compared where one had its event while the other was still at risk: its time
is less, or the same and the other is censored then. It is concordant where the predictions say so,
too, and half of it is where they are equal. The share of concordant pairs is the C-index (Harrell,
Califf, Pryor, Lee & Rosati 1982, Evaluating the yield of medical tests, JAMA 247); two events at
one time are not compared, as in R's ``survival`` and in lifelines.

A row's pairs are counted without looking at each: rows in the order of their times are halved
again and again, and of every half it is counted what the other holds at greater, or smaller,
predictions; n log n steps in all. By how many pairs each row has, and how many of them are
concordant, the share varies to first order as the bootstrap does (it is a ratio of U-statistics:
Hoeffding 1948, Annals of Mathematical Statistics 19).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpupipe.data.outcomes import seen_of, time_of
from gpupipe.engine.arrays import Array, to_host
from gpupipe.evaluate.metrics import Task, metric


@dataclass(frozen=True)
class Compared:
    """Times with an event: sums float64[R] over rows, of a metric that is about pairs of them.

    ``concordance`` is the share of concordant pairs of all rows, ``pairs`` how many pairs the
    rows are in, ``excess`` how many of them are concordant beyond that share.
    """

    concordance: float
    pairs: Array
    excess: Array


@metric("concordance_index", "survival", "hazard", greater_is_better=True, needs="order",
        title="Concordance index", undefined="no two rows can be compared")
def concordance_index(t: Compared) -> Array:
    """Harrell's C-index: a row is in twice as many pairs as are counted with it as the first."""
    return t.concordance + 2 * t.excess / t.pairs


class TimeColumns:
    """Pairs and concordant pairs of each row, by groups of rows (see `groups.Columns`)."""

    def __init__(self, task: Task, y: Array, p: Array, weight: Array) -> None:
        longer = -p if task == "hazard" else p  # a greater risk is a shorter time
        pairs, concordant = pairs_of(to_host(y), to_host(longer), to_host(weight))
        total = float(pairs.sum())
        self.concordance = float(concordant.sum()) / total if total else float("nan")
        self.pairs, self.excess = pairs, concordant - self.concordance * pairs

    def by_group(self, group: Array, groups: int) -> dict[str, np.ndarray]:
        at = to_host(group)

        def summed(values: np.ndarray) -> np.ndarray:
            return np.bincount(at, weights=values, minlength=groups)[:, None]

        return {"pairs": summed(self.pairs), "excess": summed(self.excess)}

    def table(self, sums: dict[str, np.ndarray]) -> Compared:
        return Compared(self.concordance, sums["pairs"][:, 0], sums["excess"][:, 0])


def pairs_of(
    y: np.ndarray, longer: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How many pairs each row is in, and how many of them are concordant: float64 ``[n]`` each.

    Parameters
    ----------
    y : times float64 ``[n]``, negative where they are censored (see `data.outcomes`).
    longer : float64 ``[n]``; a row with more of it is said to last longer.
    weight : float64 ``[n]``; a pair weighs the product of its rows' weights.
    """
    time, seen = time_of(y), seen_of(y)
    pairs = _pairs(time, seen, weight)
    # Ties are half concordant: once they are counted as if the later row were said to last
    # longer, and once as if not. Events at one time are in the order of `longer`, and so are all
    # concordant with each other in the first way, and all but ties in the second: taken off.
    order = np.lexsort((longer, ~seen, time))
    ranked = np.argsort(longer[order], kind="stable")
    backwards = len(order) - 1 - np.argsort(longer[order][::-1], kind="stable")
    both = sum(_later_and_above(at, weight[order], seen[order]) for at in (ranked, backwards)) / 2
    concordant = np.empty(len(y))
    concordant[order] = both
    same_time, tied = _among_events(time, seen, longer, weight)
    concordant -= np.where(seen, same_time - tied / 2, 0.0)
    return weight * pairs, weight * concordant


def _pairs(time: np.ndarray, seen: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The weight of all rows that each one can be compared with."""
    code = np.unique(time, return_inverse=True)[1]
    at_time = np.bincount(code, weights=weight)
    events = np.bincount(code, weights=weight * seen)
    before = np.cumsum(events)
    after = at_time.sum() - np.cumsum(at_time)
    # An event: what comes after it, the censored at its time, and the events before it.
    of_events = after + (at_time - events) + before - events
    return np.where(seen, of_events[code], before[code])


def _among_events(
    time: np.ndarray, seen: np.ndarray, longer: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each event the weight of the other events at its time, and of those of its prediction."""

    def others(code: np.ndarray) -> np.ndarray:
        return np.bincount(code, weights=weight * seen)[code] - weight * seen

    times = np.unique(time, return_inverse=True)[1]
    values, ranks = np.unique(longer, return_inverse=True)
    return others(times), others(np.unique(times * len(values) + ranks, return_inverse=True)[1])


def _later_and_above(ranked: np.ndarray, weight: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Of each row, in the order of time: the weight of later rows above it, where it is an event,
    and of earlier events below it.

    ``ranked`` are the rows in the order of their predictions, int64 ``[n]``.
    """
    found = np.zeros(len(ranked))
    at = ranked
    for bit in range(max(len(ranked) - 1, 0).bit_length() - 1, -1, -1):
        # Rows lie in blocks of 2^(bit + 1) times, each in the order of predictions.
        late = (at >> bit & 1).astype(bool)
        block = at >> bit + 1
        first = np.flatnonzero(np.r_[True, block[1:] != block[:-1]])
        number = np.cumsum(np.r_[False, block[1:] != block[:-1]])
        own, events = weight[at], weight[at] * seen[at]
        above = _within(np.where(late, own, 0.0), first, number, from_above=True)
        below = _within(np.where(late, 0.0, events), first, number, from_above=False)
        found[at] += np.where(late, below, np.where(seen[at], above, 0.0))
        # The two halves of each block, each still in the order of predictions.
        early = _within(np.where(late, 0.0, 1.0), first, number, from_above=False)
        halves = np.add.reduceat(~late, first)[number]
        place = np.arange(len(at)) - first[number]
        to = first[number] + np.where(late, halves + place - early, early).astype(np.int64)
        following = np.empty_like(at)
        following[to] = at
        at = following
    return found


def _within(
    values: np.ndarray, first: np.ndarray, number: np.ndarray, *, from_above: bool
) -> np.ndarray:
    """Running sums within blocks: of what comes before each place, or of what comes after."""
    running = np.cumsum(values)
    before = running - values
    start = before[first]
    if not from_above:
        return before - start[number]
    total = np.append(start[1:], running[-1])
    return total[number] - running


