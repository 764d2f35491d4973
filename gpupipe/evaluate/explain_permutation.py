"""Permutation importance: how much worse a model gets when a column says nothing any more.

Breiman (2001), Random Forests, section 10; on rows that training did not see, as Fisher, Rudin &
Dominici (2019), All models are wrong, but many are useful, JMLR 20, advise. A column is permuted
as it came, before any step, so that all features that come of it move together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.engine.frames import Array
from gpupipe.evaluate.metrics import Task, choose
from gpupipe.evaluate.scores import evaluate

BINS = 10
"""Into so many tenths is a column of numbers cut to be held against one of categories."""
LEVELS = 30
STRONG = 0.8
"""From so strong an association on, two columns can stand in for each other."""
Json = dict[str, Any]
Score = Callable[[pa.Table, np.ndarray], np.ndarray]
"""Scores of a table whose rows are those at some positions of the sample."""


def permutation_importance(
    task: Task, metric: str, table: pa.Table, y: Array, score: Score, columns: Sequence[str], *,
    weight: Array | None = None, repeats: int = 5, seed: int = 0,
) -> Json:
    """For each column the drop of ``metric`` when its values are dealt out anew.

    ``score`` is the whole pipeline. A drop is positive where the model gets worse, whichever
    way the metric counts.

    Returns
    -------
    ``metric``, ``base`` (of the rows as they are), ``rows``, ``repeats``, and ``columns``:
    ``{"column", "drop", "spread", "drops"}``, mean and standard deviation over the repeats,
    greatest drop first. ``base`` and the drops are None where the metric is undefined.
    """
    (chosen,) = choose(task, [metric])
    n = table.num_rows
    everyone = np.arange(n)
    # The same permutations for every column: what they share cancels when columns are compared.
    orders = np.random.default_rng(seed).permuted(np.tile(everyone, (repeats, 1)), axis=1)

    def quality(prediction: np.ndarray) -> float:
        found = evaluate(task, y, prediction, weight=weight, metrics=[metric], resamples=0)
        value = found[metric].value
        return np.nan if value is None else value

    base = quality(score(table, everyone))
    listed: list[Json] = []
    for name in columns:
        values = table.column(name).combine_chunks()
        place = table.column_names.index(name)
        several = pa.concat_tables([table.set_column(place, table.field(name), values.take(
            pa.array(order))) for order in orders])
        scores = score(several, np.tile(everyone, repeats))
        after = np.array([quality(scores[r * n : (r + 1) * n]) for r in range(repeats)])
        drops = base - after if chosen.greater_is_better else after - base
        listed.append({"column": name, "drop": _plain(drops.mean()),
                       "spread": _plain(drops.std()), "drops": [_plain(d) for d in drops]})
    listed.sort(key=lambda e: -(e["drop"] if e["drop"] is not None else -np.inf))
    return {"metric": metric, "title": chosen.title, "base": _plain(base), "rows": n,
            "repeats": repeats, "columns": listed}


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def related(table: pa.Table, columns: Sequence[str], least: float = STRONG) -> list[Json]:
    """Pairs of columns that say much the same: permuting one leaves it to the other to tell.

    Two columns of numbers by the size of Spearman's rank correlation; others by Cramer's V with
    Bergsma's (2013) correction for chance, numbers in tenths. ``{"columns": [a, b], "strength",
    "measure"}``, the strongest first.
    """
    ranked = {c: _ranked(table.column(c)) for c in columns}
    cut = {c: _cut(table.column(c)) for c in columns}
    found = []
    for i, a in enumerate(columns):
        for b in columns[i + 1 :]:
            left, right = ranked[a], ranked[b]
            if left is not None and right is not None:
                strength, measure = abs(_correlation(left, right)), "rank correlation"
            else:
                strength, measure = cramers_v(cut[a], cut[b]), "Cramer's V"
            if strength >= least:
                found.append({"columns": [a, b], "strength": round(strength, 3),
                              "measure": measure})
    return sorted(found, key=lambda e: (-e["strength"], e["columns"]))


def numbers_of(column: pa.ChunkedArray) -> np.ndarray | None:
    """A column's values as float64, NaN for missing or infinite; None for text and booleans."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.int64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    values = column.cast(pa.float64(), safe=False).to_numpy()
    return np.where(np.isfinite(values), values, np.nan)


def _ranked(column: pa.ChunkedArray) -> np.ndarray | None:
    values = numbers_of(column)
    if values is None:
        return None
    _, place = np.unique(values, return_inverse=True)
    count = np.bincount(place)
    return np.where(np.isnan(values), np.nan, (np.cumsum(count) - (count - 1) / 2)[place])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    both = ~(np.isnan(a) | np.isnan(b))
    a, b = a[both] - a[both].mean() if both.any() else a[:0], b[both]
    if len(a) < 3:
        return 0.0
    b = b - b.mean()
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / size if size else 0.0


def _cut(column: pa.ChunkedArray) -> np.ndarray:
    """Codes of a column's tenths, or of its levels; the rarest of many are one; missing is one."""
    values = numbers_of(column)
    if values is None:
        encoded = column.combine_chunks().dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64) + 1
        count = np.bincount(codes)
        kept = np.argsort(-count, kind="stable")[:LEVELS]
        place = np.full(len(count), len(kept))
        place[kept] = np.arange(len(kept))
        return np.asarray(place[codes])
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(len(values), np.int64)
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, BINS + 1)[1:-1]))
    return np.where(known, np.searchsorted(edges, values, side="right") + 1, 0)


def cramers_v(a: np.ndarray, b: np.ndarray) -> float:
    """Cramer's V of two columns of codes, corrected for chance (Bergsma 2013, J. Korean Stat.
    Soc. 42)."""
    _, a = np.unique(a, return_inverse=True)
    _, b = np.unique(b, return_inverse=True)
    r, k, n = int(a.max()) + 1, int(b.max()) + 1, len(a)
    if min(r, k) < 2 or n < 2:
        return 0.0
    counts = np.bincount(a * k + b, minlength=r * k).reshape(r, k)
    expected = counts.sum(1)[:, None] * counts.sum(0)[None, :] / n
    phi2 = float(((counts - expected) ** 2 / expected).sum()) / n
    phi2 = max(0.0, phi2 - (r - 1) * (k - 1) / (n - 1))
    width = min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(phi2 / width)) if width > 0 else 0.0
