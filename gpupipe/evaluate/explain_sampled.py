"""Shapley values of source columns for any model at all, by sampling.

For models that cannot say themselves what a feature adds. A row's columns take the place of a
background row's one by one, in random order, and each is credited with what the prediction then
changes by (Strumbelj & Kononenko 2014, Explaining prediction models and individual predictions
with feature contributions, Knowl. Inf. Syst. 41); every order is also gone through backwards, which
takes most of the noise out (Mitchell, Cooper, Frank & Holmes 2022, Sampling permutations for
Shapley value estimation, JMLR 23).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa


def sampled_shapley(
    table: pa.Table, background: pa.Table, score: Callable[[pa.Table, np.ndarray], np.ndarray],
    columns: Sequence[str], rounds: int = 10, seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """What each column adds to each row's prediction, and the base that it is added to.

    Parameters
    ----------
    table : the rows to explain, ``n``.
    background : rows to begin from; ``rounds`` of them are drawn, each for two orders. All rows
        begin from the same ones, so that their base is one.
    score : predictions of a table whose rows are those at some positions of ``table``.
    columns : those that are exchanged; all others stay the row's own.

    Returns
    -------
    values ``[n, columns]`` or ``[n, columns, classes]``, and base ``[n]`` or ``[n, classes]``.
    ``values.sum(axis=1) + base`` is the prediction, exactly.
    """
    rng, n, k = np.random.default_rng(seed), table.num_rows, len(columns)
    starts = rng.choice(background.num_rows, rounds, replace=background.num_rows < rounds)
    values: np.ndarray | None = None
    for start in starts.tolist():
        order = rng.permutation(k)
        for path in (order, order[::-1]):
            scores = np.asarray(score(_path(table, background.slice(start, 1), columns, path),
                                      np.tile(np.arange(n), k + 1)))
            scores = scores.reshape(k + 1, n, *scores.shape[1:])
            if values is None:
                values, base = np.zeros((n, k, *scores.shape[2:])), np.zeros(scores.shape[1:])
            for step, column in enumerate(path.tolist()):
                values[:, column] += scores[step + 1] - scores[step]
            base += scores[0]
    assert values is not None
    return values / (2 * rounds), base / (2 * rounds)


def _path(
    table: pa.Table, start: pa.Table, columns: Sequence[str], path: np.ndarray
) -> pa.Table:
    """The rows in all states from ``start`` (first) to as they are (last), one after another."""
    n, k = table.num_rows, len(columns)
    position = {columns[c]: at for at, c in enumerate(path.tolist())}
    made = []
    for name in table.column_names:
        own = table.column(name).combine_chunks()
        before = position[name] + 1 if name in position else 0
        later = own.take(pa.array(np.tile(np.arange(n), k + 1 - before)))
        if not before:
            made.append(later)
            continue
        first = start.column(name)[0]
        made.append(pa.concat_arrays([pa.repeat(first, before * n).cast(own.type), later]))
    return pa.table(made, names=table.column_names)
