"""Matrices: the features of the rows that a model learns from, and of those it is judged by.

Where all of them fit, one pass over the table makes the matrices of every candidate. Where they
do not, a matrix is streamed: it makes its chunks anew for each pass that the trainer takes over
it, the next ones ahead, and is never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gpupipe.engine.arrays import to_host
from gpupipe.engine.hashing import mix64
from gpupipe.engine.machine import release_memory
from gpupipe.models import FittedModel, Matrix
from gpupipe.steps.graph import (
    Batch,
    Fitted,
    Graph,
    feature_names,
    feature_origins,
    feature_parts,
    matrix,
)
from gpupipe.steps.scan import Rowed


@dataclass(frozen=True)
class Source:
    """What matrices are made from.

    Attributes
    ----------
    keys : the hash of each row's key, one array a part; none where no rows are sampled.
    streamed : whether the matrices are too large to be held.
    parts : the parts of the table that they are made from; None: all.
    """

    rowed: Rowed
    keys: tuple[np.ndarray, ...]
    streamed: bool
    parts: tuple[int, ...] | None = None

    @property
    def indices(self) -> Sequence[int]:
        return range(len(self.rowed.rows)) if self.parts is None else self.parts


@dataclass(frozen=True)
class Ask:
    """A model's features, and the most rows it learns from (None: all)."""

    graph: Graph
    fitted: Fitted
    limit: int | None = None


def matrices(
    source: Source, asks: Sequence[Ask], train_buckets: Sequence[int],
    judged_buckets: Sequence[int], learning: Sequence[bool], last: bool = False,
) -> list[tuple[Matrix, Matrix]]:
    """For each ask its training matrix and the judged one, in one pass over the table.

    One that is not ``learning`` gets a training matrix without rows. A small sample is held
    even where matrices are streamed. ``last``: the table's columns are not needed again.
    """
    wanted = []
    for ask, learns in zip(asks, learning, strict=True):
        share = _sample_share(source, ask.limit, train_buckets) if learns else 0.0
        wanted.append((_Wanted(source, ask, tuple(train_buckets), share),
                       _Wanted(source, ask, tuple(judged_buckets))))
    held = [w for pair in wanted for w in pair if w.share < 1 or not source.streamed]
    chunks = _held(source, [w for w in held if w.share > 0], last and not source.streamed)
    return [
        (left.matrix(chunks.get(id(left), () if left in held else None)),
         right.matrix(chunks.get(id(right), () if right in held else None)))
        for left, right in wanted
    ]


def lazy_matrix(source: Source, ask: Ask, buckets: Sequence[int]) -> Matrix:
    """The features of the rows in some buckets, which are made when they are asked for."""
    return _Wanted(source, ask, tuple(buckets)).matrix(None)


@dataclass(frozen=True, eq=False)
class _Wanted:
    """A matrix: the features of the rows in some buckets, or of a sample of them.

    Iterated over, it makes its chunks from the table, in row order, the next ones ahead.
    """

    source: Source
    ask: Ask
    buckets: tuple[int, ...]
    share: float = 1.0

    def rows(self, index: int) -> np.ndarray:
        """Which rows of a part: bool."""
        bucket = self.source.rowed.rows[index].bucket
        return np.isin(bucket, list(self.buckets)) & _sampled(self.source, index, self.share)

    def of(self, batch: Batch, rows: np.ndarray) -> Any:
        """The features of some rows of a batch."""
        values = matrix(self.ask.graph, self.ask.fitted, batch)
        return values if rows.all() else values[batch.fx.to_device(rows)]

    def part(self, index: int) -> list[Any]:
        """The chunks of one part."""
        rows = self.rows(index)
        if not rows.any():
            return []
        chunks = [self.of(batch, rows[where])
                  for batch, where in self.source.rowed.batches(index, self.ask.graph.raw)]
        return [c for c in chunks if len(c)]

    def __iter__(self) -> Iterator[Any]:
        for chunks in self.source.rowed.engine.ordered(self.part, self.source.indices):
            yield from chunks

    def each(self, function: Callable[[Any], Any]) -> Iterator[Any]:
        """The function of every chunk, worked out where the chunk is."""
        each = _Each(self, function)
        for found in self.source.rowed.engine.ordered(each, self.source.indices):
            yield from found

    def matrix(self, chunks: Sequence[Any] | None) -> Matrix:
        """The matrix of these chunks; of this stream where there are none."""
        target, weight, bucket = _rows_of(self.source, self.buckets, self.share)
        names = feature_names(self.ask.graph, self.ask.fitted)
        return Matrix(self if chunks is None else tuple(chunks), target, weight,
                      tuple(n for n, _ in names), tuple(k for _, k in names),
                      feature_origins(self.ask.graph, self.ask.fitted),
                      feature_parts(self.ask.graph, self.ask.fitted), bucket)


@dataclass(frozen=True)
class _Each:
    """A function of the chunks of a part."""

    wanted: _Wanted
    function: Callable[[Any], Any]

    def __call__(self, index: int) -> list[Any]:
        return [self.function(chunk) for chunk in self.wanted.part(index)]


def _held(source: Source, wanted: Sequence[_Wanted], last: bool) -> dict[int, list[Any]]:
    """The chunks of several matrices, in memory, from one pass over the table."""
    if not wanted:
        return {}
    rowed = source.rowed
    columns = list(dict.fromkeys(c for w in wanted for c in w.ask.graph.raw))

    def part(index: int) -> list[list[Any]]:
        rows = [w.rows(index) for w in wanted]
        out: list[list[Any]] = [[] for _ in wanted]
        for batch, where in rowed.batches(index, columns, last):
            for w, mine, chunks in zip(wanted, rows, out, strict=True):
                if mine[where].any():
                    chunks.append(w.of(batch, mine[where]))
        if last:
            release_memory()  # of the part's columns, before the next part needs as much
        return out

    indices = source.indices
    parts = dict(rowed.engine.map(part, indices))
    return {id(w): [chunk for i in sorted(parts) for chunk in parts[i][at]]
            for at, w in enumerate(wanted)}


def _sample_share(source: Source, limit: int | None, buckets: Sequence[int]) -> float:
    rows = source.rowed.rows  # of all parts: a sample's share must not depend on the worker
    n = sum(int(np.isin(r.bucket, list(buckets)).sum()) for r in rows)
    return 1.0 if limit is None or n <= limit else limit / n


def _sampled(source: Source, index: int, share: float) -> np.ndarray:
    """Which rows of a part are in the sample: a function of their key hash alone."""
    if share in (0, 1):
        return np.full(len(source.rowed.rows[index].bucket), share == 1)
    mixed = mix64(source.keys[index] ^ np.uint64(0x5851F42D4C957F2D), np)
    return (mixed >> np.uint64(32)) < share * 2**32


def _rows_of(
    source: Source, buckets: Sequence[int], share: float
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Target, weight and bucket of the rows in some buckets, or of a sample of them."""
    targets, weights, own = [], [], []
    for i in source.indices:
        r = source.rowed.rows[i]
        mask = np.isin(r.bucket, list(buckets)) & _sampled(source, i, share)
        assert r.target is not None
        targets.append(r.target[mask])
        own.append(r.bucket[mask])
        if r.weight is not None:
            weights.append(r.weight[mask])
    return (np.concatenate(targets), np.concatenate(weights) if weights else None,
            np.concatenate(own))


def predict_chunks(model: FittedModel, rows: Matrix, rounds: int | None = None) -> np.ndarray:
    """A model's predictions for a matrix, on the host."""
    predict = partial(_predicted, model, rounds)
    chunks = rows.chunks
    found = chunks.each(predict) if isinstance(chunks, _Wanted) else map(predict, chunks)
    return np.concatenate(list(found))


def _predicted(model: FittedModel, rounds: int | None, chunk: Any) -> np.ndarray:
    return to_host(model.predict(chunk, rounds))
