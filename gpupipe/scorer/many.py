"""Boosted trees by bit masks for many rows: faster than going down each tree, row by row.

What `quick.Quick` does for a row is done here for thousands at once, in blocks of rows and trees
that stay in a core's cache. Columns whose values come together in few combinations are made one
before: sex and marital status of 8,192 rows are twenty rows of words, and cost one AND, not two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.engine.frames import Column, Frames
from gpupipe.models.calibrators import Calibrator
from gpupipe.models.trees import FittedTrees
from gpupipe.scorer.columns import Compiled, Tabled, runs_of
from gpupipe.scorer.links import many_of
from gpupipe.scorer.models import Words
from gpupipe.transforms.graph import Batch, Fitted, Graph, matrix

LEAST_ROWS = 2_048
"""For fewer rows it does not pay."""
MOST_CORES = 2
"""On more, XGBoost's own threads are faster: here Python runs between short steps."""
MOST_LEVELS = 65_536
"""A dictionary of more would take longer to look up than its rows."""
TOGETHER = 512
"""Columns are made one where no more combinations than these come up."""
BLOCK_ROWS, BLOCK_TREES = 1_024, 32
"""What is worked on at once: a few arrays of 256 KiB."""
Part = tuple[np.ndarray, np.ndarray]
"""Words ``[entries, trees]``, and each row's entry ``[n]``."""


class Many:
    """The scores of many rows by the tables of one model of trees with one output.

    `Unlinked` where its link has no form for many rows.
    """

    def __init__(self, graph: Graph, fitted: Fitted, columns: Sequence[Compiled], words: Words,
                 model: FittedTrees, calibrator: Calibrator | None) -> None:
        self._quick, self._fitted = words.quick, fitted
        self._tables = [(columns[c], rows) for c, rows in words.tables]
        runs, needed = runs_of(graph), sorted({c for c, _, _ in words.cuts})
        self._numbers = Graph(tuple(n for c in needed for n in runs[c]), graph.target)
        start = dict(zip(needed, np.cumsum(
            [0, *(columns[c].at[1] - columns[c].at[0] for c in needed)]).tolist(), strict=False))
        self._cuts = []
        for c, i, feature in words.cuts:
            splits = words.quick.splits[feature]
            self._cuts.append((start[c] + i, np.array(splits.cuts), splits.words))
        link, finished = many_of(words.objective), model.finished
        self._finished: Callable[[np.ndarray], np.ndarray] = (
            (lambda m: finished(link(m))) if calibrator is None
            else lambda m: calibrator(finished(link(m))))

    def scores(self, columns: Mapping[str, Column], fx: Frames) -> np.ndarray | None:
        """What the model's `predict` gives for a batch's columns: float64 ``[n]``.

        None where a column has too many levels for it.
        """
        parts: list[Part] = []
        for column, words in self._tables:
            assert isinstance(column, Tabled)
            entries = _entries(column, columns[column.name], fx)
            if entries is None:
                return None
            parts.append((words, entries))
        if self._cuts:
            numbers = matrix(self._numbers, self._fitted, Batch(columns, None, fx))
            for place, cuts, words in self._cuts:
                values = numbers[:, place].astype(np.float64)
                reached = np.searchsorted(cuts, values, side="right")
                parts.append((words, np.where(np.isnan(values), len(words) - 1, reached)))
        rows = len(next(iter(columns.values())))
        return self._finished(self._margins(together(parts), rows))

    def _margins(self, parts: list[Part], rows: int) -> np.ndarray:
        """Float32 ``[n]``: sums as XGBoost makes them, tree after tree."""
        quick, (_, base) = self._quick, self._quick.groups[0]
        sums = np.full(rows, base, np.float32)
        blocks = [([np.ascontiguousarray(words[:, t : t + BLOCK_TREES]) for words, _ in parts],
                   quick.start[t : t + BLOCK_TREES, None])
                  for t in range(0, quick.trees, BLOCK_TREES)]
        for first in range(0, rows, BLOCK_ROWS):
            entries = [entry[first : first + BLOCK_ROWS] for _, entry in parts]
            total = sums[first : first + BLOCK_ROWS]
            for words, start in blocks:
                for leaves in _leaves(words, entries, start, quick.values):
                    np.add(total, leaves, total)
        return sums


def _leaves(words: list[np.ndarray], entries: list[np.ndarray], start: np.ndarray,
            values: np.ndarray) -> np.ndarray:
    """What each of some trees adds to each of some rows: float32 ``[trees, n]``."""
    mask = words[0].take(entries[0], 0)
    other = np.empty_like(mask)
    for more, entry in zip(words[1:], entries[1:], strict=True):
        more.take(entry, 0, other, "clip")
        np.bitwise_and(mask, other, mask)
    np.subtract(mask, np.uint64(1), other)
    np.bitwise_xor(mask, other, other)  # as in `Quick.margins`
    bits = np.ascontiguousarray(np.bitwise_count(other).T)
    found: np.ndarray = values.take(bits + start, mode="clip")
    return found


def _entries(column: Tabled, values: Column, fx: Frames) -> np.ndarray | None:
    """The number of each row's entry: of each distinct value it is looked up once."""
    codes, levels = fx.factorize(values)
    if len(levels) > MOST_LEVELS:
        return None
    answers: dict[Any, tuple[pa.Array, Any]] = {} if values.answers is None else values.answers
    key = ("entries", column.at)  # a dictionary's other answers go by numbers
    if key not in answers:
        known = [column.cell(level) for level in (*levels.to_pylist(), None)]
        answers[key] = (levels, np.array(known, np.int64))
    table: np.ndarray = answers[key][1][codes]  # a missing code is -1, and so takes the last
    return table


def together(parts: list[Part]) -> list[Part]:
    """Parts whose values come together in few combinations made one, with a row for each of
    these."""
    (words, entries), *others = sorted(parts, key=lambda part: len(part[0]))
    made: list[Part] = []
    for more, entry in others:
        pairs = entries * len(more) + entry
        seen = np.zeros(len(words) * len(more), bool)
        seen[pairs] = True
        present = np.flatnonzero(seen)
        if len(present) <= TOGETHER:
            place = np.empty(len(seen), np.int64)
            place[present] = np.arange(len(present))
            words = words[present // len(more)] & more[present % len(more)]
            entries = place[pairs]
        else:
            made.append((words, entries))
            words, entries = more, entry
    return [*made, (words, entries)]
