"""SHAP values in few numbers: which features and columns move predictions, how far, which way.

Arrays in, plain data out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.evaluate.curves import _list

SHOWN = 12
"""Features in the summary."""
DOTS = 300
"""Rows drawn for each of them."""
Json = dict[str, Any]


def sizes(values: np.ndarray) -> np.ndarray:
    """Mean absolute contribution ``[features]``; of several outputs their sum."""
    mean = np.abs(values).mean(axis=0)
    return np.asarray(mean.sum(axis=1) if mean.ndim == 2 else mean)


def order_of(size: np.ndarray) -> list[int]:
    """Positions by size, greatest first; equal ones as they come."""
    return [int(i) for i in np.argsort(-size, kind="stable")]


def summary(
    values: np.ndarray, features: np.ndarray, names: Sequence[str], owner: Sequence[str],
    categorical: Sequence[bool], whole: np.ndarray, columns: Sequence[str], shown: int = SHOWN,
    dots: int = DOTS,
) -> Json:
    """The summary of one output's SHAP values, or of several's.

    Parameters
    ----------
    values : float64 ``[n, features]`` or ``[n, features, outputs]``.
    features : the features' own values, ``[n, features]``, NaN for missing.
    names, owner, categorical : of the features: name, source column (or columns, in one text),
        whether they are codes.
    whole, columns : what the source columns add, ``[n, columns, ...]``, and their names.

    Returns
    -------
    ``features``: for the greatest ``shown`` their name, column, mean absolute contribution and,
    for one output, ``shap`` and ``rank``: each dot's contribution, and where the row's value
    stands among the others (0 the least, 1 the greatest; None: missing, or a code).
    ``columns``: every column's mean absolute contribution, ``parts`` by output where there are
    several. Both greatest first. ``others``: what is left out of ``features``.
    """
    size = sizes(values)
    order = order_of(size)
    listed = []
    for f in order[:shown]:
        entry: Json = {"feature": names[f], "column": owner[f], "size": float(size[f])}
        if values.ndim == 2:
            entry["shap"] = _list(values[:dots, f])
            rank = ranks(features[:, f])[:dots]
            entry["rank"] = [None if categorical[f] or np.isnan(r) else round(float(r), 3)
                             for r in rank]
        listed.append(entry)
    size_of = sizes(whole)
    by_output = np.abs(whole).mean(axis=0) if whole.ndim == 3 else None
    return {
        "rows": len(values), "features": listed,
        "others": {"features": len(order[shown:]), "size": float(size[order[shown:]].sum())},
        "columns": [
            {"column": columns[c], "size": float(size_of[c])}
            | ({"parts": _list(by_output[c])} if by_output is not None else {})
            for c in order_of(size_of)
        ],
    }


def ranks(values: np.ndarray) -> np.ndarray:
    """Where each value stands among the others, from 0 to 1; equal ones together; NaN stays."""
    known = ~np.isnan(values)
    out = np.full(len(values), np.nan)
    if not known.any():
        return out
    distinct, place, count = np.unique(values[known], return_inverse=True, return_counts=True)
    if len(distinct) == 1:
        out[known] = 0.5
        return out
    middle = np.cumsum(count) - (count + 1) / 2  # the mean position of a value's rows
    out[known] = ((middle - middle[0]) / (middle[-1] - middle[0]))[place]
    return out
