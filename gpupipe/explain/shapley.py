"""SHAP values of a sample: the model's own where it has them, else sampled for its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.contributions import by_column, owners
from gpupipe.evaluate.explain_permutation import numbers_of
from gpupipe.evaluate.explain_sampled import sampled_shapley
from gpupipe.evaluate.explain_shap import summary
from gpupipe.explain.rows import Judged
from gpupipe.explain.scorers import Scorer, codes_of
from gpupipe.models.contributions import PREDICTED, Unexplained, affordable_rows

LEAST = 100
"""Rows, at least, whose exact SHAP values are worked out, however long each takes."""
SAMPLED_ROWS = 200
SCORED = 150_000
"""Rows scored at most for the sampled values."""
ROUNDS = 10
"""Random orders of the columns, each gone through both ways."""
Json = dict[str, Any]


@dataclass(frozen=True)
class Shap:
    """SHAP values of the first rows of a sample.

    Attributes
    ----------
    told : the summary, as `explain_shap.summary` has it, with ``scale``, ``base``, and
        ``method``: "exact" or "sampled".
    columns : those of the source columns: ``[n, columns]`` or ``[n, columns, classes]``.
    """

    told: Json
    columns: np.ndarray


def shap_of(
    scorer: Scorer, rows: Judged, columns: Sequence[str], task: str, seed: int, slowness: float
) -> tuple[Shap, list[str]]:
    """The values of a sample's first rows by the final model, and what should be known of them.

    ``slowness`` is what the scoring of a row costs, by `explain.slowness_of`.
    """
    bundle = scorer.bundles[-1]
    try:
        n = affordable_rows(bundle.contents.model, len(rows), LEAST)
        table = rows.table.slice(0, n)
        found = scorer.explained(-1, table)
    except Unexplained as why:
        return _sampled(scorer, rows, columns, task, seed, slowness), [
            f"SHAP values are sampled: {why}"]
    owner = owners(bundle)
    whole = by_column(found.values, owner, columns)
    told = summary(found.values, bundle.features(table), bundle.feature_names,
                   [" and ".join(names) for names in owner], codes_of(bundle), whole, columns)
    told |= {"scale": found.scale, "base": np.atleast_1d(found.base[0]).tolist(),
             "method": "exact"}
    return Shap(told, whole), []


def reasons_of(
    scorer: Scorer, rows: Judged, background: pa.Table, columns: Sequence[str], method: str,
    seed: int,
) -> np.ndarray | None:
    """What the columns add to each row's prediction by the model that judged it.

    None where that model is not there, or cannot say.
    """
    if not scorer.knows(rows.fold):
        return None
    if method == "exact":
        try:
            return scorer.contributions(rows.table, rows.fold, columns)
        except Unexplained:
            return None
    return sampled_shapley(rows.table, background, lambda t, at: scorer.scores(t, rows.fold[at]),
                           columns, ROUNDS, seed)[0]


def _sampled(
    scorer: Scorer, rows: Judged, columns: Sequence[str], task: str, seed: int, slowness: float
) -> Shap:
    each = 2 * ROUNDS * (len(columns) + 1)
    n = min(len(rows), SAMPLED_ROWS, max(10, int(SCORED / each / slowness)))
    table = rows.table.slice(0, n)
    values, base = sampled_shapley(
        table, rows.table, lambda t, at: scorer.scores(t, np.full(t.num_rows, -1)), columns,
        ROUNDS, seed,
    )
    numbers = [numbers_of(table.column(c)) for c in columns]
    shown = np.column_stack([np.full(n, np.nan) if v is None else v for v in numbers])
    told = summary(values, shown, columns, columns, [v is None for v in numbers], values,
                   columns)
    told |= {"scale": PREDICTED.get(task, "probability"),
             "base": np.atleast_1d(base[0]).tolist(), "method": "sampled", "orders": 2 * ROUNDS}
    return Shap(told, values)
