"""How well rows are put in order within their queries: a number a query, and the mean of them.

- **NDCG**: grades are gains, and are discounted by the logarithm of the place (Järvelin &
  Kekäläinen 2002, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20), over those of the
  best order. Tied rows share the discounts of their places (McSherry & Najork 2008, ECIR), as in
  scikit-learn's `ndcg_score`.
- **MAP**: the mean over queries of scikit-learn's `average_precision_score`, where a grade above 0
  is relevant.

A query without a relevant row has no best order and does not count. What a query adds stands at the
first of its rows, so that whole queries are resampled with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.data.outcomes import grade_of, query_of
from gpupipe.engine.arrays import Array, to_host
from gpupipe.errors import DataError
from gpupipe.evaluate.metrics import metric


@dataclass(frozen=True)
class Ordered:
    """Rankings: sums float64[R] over queries of each metric by name, and how many they are of."""

    sums: Mapping[str, Array]
    queries: Array


NO_QUERY = "no query has a relevant row"


@metric("ndcg", "ranking", greater_is_better=True, needs="order", title="NDCG", undefined=NO_QUERY)
def ndcg(t: Ordered) -> Array:
    return t.sums["ndcg"] / t.queries


@metric("ndcg_at_10", "ranking", greater_is_better=True, needs="order", title="NDCG at 10",
        undefined=NO_QUERY)
def ndcg_at_10(t: Ordered) -> Array:
    return t.sums["ndcg_at_10"] / t.queries


@metric("mean_average_precision", "ranking", greater_is_better=True, needs="order", title="MAP",
        undefined=NO_QUERY)
def mean_average_precision(t: Ordered) -> Array:
    return t.sums["mean_average_precision"] / t.queries


class QueryColumns:
    """What each query adds to the metrics, by groups of rows (see `groups.Columns`)."""

    def __init__(self, y: Array, p: Array, weight: Array, names: Sequence[str]) -> None:
        y, p, weight = to_host(y), to_host(p), to_host(weight)
        if (weight != weight[0]).any():
            raise DataError("a ranking has no weights of rows", hint="leave data.weight out")
        ranks = Ranks(query_of(y), grade_of(y), p)
        known = ranks.relevant > 0
        self.first = ranks.order[ranks.start][known]
        worked_out = {"ndcg": lambda: ranks.ndcg(), "ndcg_at_10": lambda: ranks.ndcg(10),
                      "mean_average_precision": ranks.average_precision}
        self.values = {n: worked_out[n]()[known] for n in names}

    def by_group(self, group: Array, groups: int) -> dict[str, np.ndarray]:
        at = to_host(group)[self.first]
        sums = {n: np.bincount(at, weights=v, minlength=groups) for n, v in self.values.items()}
        sums["queries"] = np.bincount(at, minlength=groups).astype(float)
        return {n: v[:, None] for n, v in sums.items()}

    def table(self, sums: dict[str, np.ndarray]) -> Ordered:
        return Ordered({n: sums[n][:, 0] for n in self.values}, sums["queries"][:, 0])


class Ranks:
    """The rows of each query in the order of their scores; everything by query, ``[queries]``.

    Attributes
    ----------
    order : the rows, those of a query side by side, the greatest score first, ``[n]``.
    start : where each query begins in it.
    relevant : how many of its rows have a grade above 0.
    """

    def __init__(self, query: np.ndarray, grade: np.ndarray, score: np.ndarray) -> None:
        self.order = np.lexsort((-score, query))
        query, score = query[self.order], score[self.order]
        self.query, self.grade = query, grade[self.order]
        begins = np.r_[True, query[1:] != query[:-1]]
        self.start = np.flatnonzero(begins)
        self.number = np.cumsum(begins) - 1
        self.place = np.arange(len(query)) - self.start[self.number]
        self.run = np.cumsum(begins | np.r_[True, score[1:] != score[:-1]]) - 1
        self.relevant = self._by_query(self.grade > 0)

    def ndcg(self, most: int | None = None) -> np.ndarray:
        """Normalised discounted cumulative gain of the first ``most`` places; NaN for no gain."""
        discount = 1 / np.log2(self.place + 2)
        if most is not None:
            discount = np.where(self.place < most, discount, 0.0)
        shared = np.bincount(self.run, discount) / np.bincount(self.run)
        best = np.lexsort((-self.grade, self.query))
        with np.errstate(invalid="ignore"):
            return np.asarray(self._by_query(self.grade * shared[self.run])
                              / self._by_query(self.grade[best] * discount))

    def average_precision(self) -> np.ndarray:
        """The mean, over the relevant rows, of the precision down to each; NaN for none."""
        hit = (self.grade > 0).astype(float)
        hits = np.cumsum(hit)
        before = (hits - hit)[self.start][self.number]
        last = np.r_[np.flatnonzero(np.diff(self.run)), len(self.run) - 1][self.run]
        precision = (hits[last] - before) / (self.place[last] + 1)
        with np.errstate(invalid="ignore"):
            return np.asarray(self._by_query(hit * precision) / self.relevant)

    def _by_query(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values.astype(float), self.start)
