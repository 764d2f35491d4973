"""Partial dependence and ICE curves: what the prediction does as one column goes through its range.

Partial dependence (Friedman 2001, Greedy function approximation, section 8.2) is the mean
prediction when a column is set to a value in every row. ICE curves (Goldstein, Kapelner, Bleich &
Pitkin 2015, Peeking inside the black box) are the rows that it is the mean of; centred ones begin
at 0, so that rows can be compared. The whole pipeline is scored, as for any other table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.evaluate.curves import _list
from gpupipe.evaluate.explain_permutation import numbers_of
from gpupipe.evaluate.explain_search import label_of

POINTS = 20
"""Values of a column of numbers, at its quantiles."""
LEVELS = 10
"""Levels of a column of categories, the most frequent ones."""
LINES = 40
"""Rows drawn one by one."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """The values that a column is set to, in order.

    Attributes
    ----------
    values : as Arrow has them; never null.
    labels : for people.
    at : where each stands on an axis: the numbers themselves, or 0, 1, 2, ...
    numeric : whether the axis is one of numbers.
    share : how many rows have the value (levels), or the share of rows up to it (numbers).
    missing : the share of rows without a value.
    """

    values: pa.Array
    labels: list[str]
    at: list[float]
    numeric: bool
    share: list[float]
    missing: float


def grid_of(column: pa.ChunkedArray, points: int = POINTS, levels: int = LEVELS) -> Grid | None:
    """The grid of a column: quantiles from 1 % to 99 %, or its most frequent levels.

    The quantiles are values that occur, so that whole numbers stay whole. None where the column
    has fewer than two values.
    """
    missing = column.null_count
    numbers = numbers_of(column)
    if numbers is not None:
        known = numbers[~np.isnan(numbers)]
        missing = len(numbers) - len(known)
        if len(known) == 0:
            return None
        at = np.unique(known)
        if len(at) > points:
            at = np.unique(np.quantile(known, np.linspace(0.01, 0.99, points), method="nearest"))
        if len(at) < 2:
            return None
        values = pa.array(at)
        if pa.types.is_timestamp(column.type):
            values = values.cast(pa.int64())
        values = values.cast(column.type, safe=not pa.types.is_floating(column.type))
        labels = [str(v)[:16] if pa.types.is_timestamp(column.type) else f"{v:g}"
                  for v in values.to_pylist()]
        share = [float((known <= v).mean()) for v in at]
        return Grid(values, labels, at.tolist(), True, share, missing / len(column))
    counts = pc.value_counts(column.drop_null().cast(_plain_type(column.type)))
    if len(counts) < 2:
        return None
    named = sorted(((e["counts"], e["values"]) for e in counts.to_pylist()),
                   key=lambda e: (-e[0], str(e[1])))[:levels]
    values = pa.array([v for _, v in named], _plain_type(column.type))
    labels = [label_of(v) for _, v in named]
    return Grid(values, labels, [float(i) for i in range(len(named))], False,
                [c / len(column) for c, _ in named], missing / len(column))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def curves_of(
    table: pa.Table, column: str, grid: Grid, score: Callable[[pa.Table], np.ndarray]
) -> np.ndarray:
    """Predictions ``[rows, values]`` or ``[rows, values, classes]``: each row at each value."""
    n, place = table.num_rows, table.column_names.index(column)
    kind = _plain_type(table.schema.field(column).type)
    several = pa.concat_tables([
        table.set_column(place, column, pa.repeat(value.cast(kind), n)) for value in grid.values
    ])
    found = np.asarray(score(several))
    return np.moveaxis(found.reshape(len(grid.values), n, *found.shape[1:]), 0, 1)


def dependence(
    table: pa.Table, column: str, score: Callable[[pa.Table], np.ndarray],
    weight: np.ndarray | None = None, lines: int = LINES,
) -> Json | None:
    """One column's partial dependence with ICE curves; None where it has but one value.

    Returns
    -------
    ``column``, ``numeric``, ``moments`` (whether its values are microseconds), ``at``,
    ``labels``, ``share``, ``missing``; ``mean`` (the partial dependence, ``[values]``, or one
    such list a class), ``lines`` (ICE curves ``[lines, values]`` of the first rows, for one
    output), ``spread`` (the standard deviation of the centred curves at each value: 0
    everywhere where the column acts on all rows alike), and ``at_missing`` where rows lack a
    value: the mean prediction if all did.
    """
    grid = grid_of(table.column(column))
    if grid is None:
        return None
    curves = curves_of(table, column, grid, score)
    mean = np.average(curves, axis=0, weights=weight)
    found: Json = {
        "column": column, "numeric": grid.numeric,
        "moments": pa.types.is_timestamp(table.schema.field(column).type),
        "at": [float(v) for v in grid.at], "labels": grid.labels,
        "share": [round(s, 4) for s in grid.share], "missing": grid.missing, "rows": table.num_rows,
    }
    if curves.ndim == 2:
        centred = curves - curves[:, :1]
        found |= {"mean": _list(mean), "lines": [_list(c) for c in curves[:lines]],
                  "spread": _list(centred.std(axis=0))}
    else:
        found["mean"] = [_list(mean[:, c]) for c in range(mean.shape[1])]
    if grid.missing:
        empty = pa.nulls(table.num_rows, table.schema.field(column).type)
        place = table.column_names.index(column)
        at = np.average(score(table.set_column(place, column, empty)), axis=0, weights=weight)
        found["at_missing"] = _list(np.atleast_1d(at))
    return found


def scatter(
    table: pa.Table, column: str, grid: Sequence[Any], numeric: bool, shap: np.ndarray,
    dots: int = 300,
) -> Json:
    """A column's SHAP values against its own: ``at`` (None: missing, or another level), ``shap``.

    ``grid`` is the labels of the levels drawn, for a column of categories. ``shap`` is ``[n]``;
    of ``[n, classes]`` there is a list a class, of fewer rows.
    """
    if shap.ndim == 2:
        dots = max(dots // shap.shape[1], 60)
    if numeric:
        numbers = numbers_of(table.column(column))
        assert numbers is not None
        at: list[float | None] = [None if np.isnan(v) else float(v) for v in numbers[:dots]]
    else:
        place = {label: float(i) for i, label in enumerate(grid)}
        at = [None if v is None else place.get(label_of(v))
              for v in table.column(column).slice(0, dots).to_pylist()]
    shown = shap[:dots]
    return {"at": at, "shap": [_list(c) for c in shown.T] if shown.ndim == 2 else _list(shown)}
