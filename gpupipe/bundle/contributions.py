"""What each source column adds to a bundle's predictions, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.scoring import BATCH_ROWS, Bundle
from gpupipe.bundle.tables import as_table
from gpupipe.errors import DataError
from gpupipe.models.contributions import Contributions, Unexplained, contributions_of
from gpupipe.transforms.graph import feature_sources

PREFIX = "contribution_"
"""What a column of contributions is called, before the source column's name."""


def owners(bundle: Bundle) -> tuple[tuple[str, ...], ...]:
    """The source columns of each feature, in the features' order."""
    return feature_sources(bundle.contents.graph, bundle.contents.fitted)


def by_column(
    values: np.ndarray, owner: Sequence[tuple[str, ...]], columns: Sequence[str]
) -> np.ndarray:
    """Contributions of the source columns: ``[n, columns, ...]``.

    ``values`` is ``[n, features, ...]`` and ``owner`` each feature's columns. They are added up
    row by row: what two levels of a category add and take away again is nothing. What a feature
    of several columns adds is theirs in equal parts, as players share what none has alone.
    """
    out = np.zeros((len(values), len(columns), *values.shape[2:]))
    place = {name: i for i, name in enumerate(columns)}
    for feature, names in enumerate(owner):
        for name in names:
            out[:, place[name]] += values[:, feature] / len(names)
    return out


def column_contributions(bundle: Bundle, table: Any) -> Contributions:
    """Contributions of the columns of `Bundle.schema`, in its order, to each row's margin.

    Raises DataError for a model that has none of its own.
    """
    table, parts = as_table(table), []
    owner, columns = owners(bundle), bundle.schema.names
    for start in range(0, max(table.num_rows, 1), BATCH_ROWS):
        try:
            found = contributions_of(bundle.contents.model,
                                     bundle.features(table.slice(start, BATCH_ROWS)))
        except Unexplained as why:
            raise DataError(f"this bundle cannot say what its columns add: {why}",
                            hint="predict without contributions") from None
        parts.append(replace(found, values=by_column(found.values, owner, columns)))
    return replace(parts[0], values=np.concatenate([p.values for p in parts]),
                   base=np.concatenate([p.base for p in parts]))


def contribution_columns(bundle: Bundle, table: pa.Table, scores: np.ndarray) -> dict[str, Any]:
    """``base`` and a column of contributions each: of several classes those of the one with the
    highest score. They and the base add up to the margin of a row."""
    found = column_contributions(bundle, table)
    values, base = found.values, found.base
    if values.ndim == 3:
        rows, best = np.arange(len(values)), scores.argmax(axis=1)
        values, base = values[rows, :, best], base[rows, best]
    return {"base": base} | {f"{PREFIX}{name}": np.ascontiguousarray(values[:, i])
                             for i, name in enumerate(bundle.schema.names)}
