"""A column then and now: few bars, of shares, for a picture of a window beside the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.monitor.cells import FIRST, MISSING, UNSEEN
from gpupipe.monitor.counts import Counts
from gpupipe.monitor.measures import TRIMS
from gpupipe.monitor.pairs import Shape
from gpupipe.monitor.scan import Observed

if TYPE_CHECKING:
    from gpupipe.monitor.judge import Judge

BARS = 24
TOP = 12
DRAWN = 120
"""Windows that are drawn, the newest."""


def pictures(judge: Judge, observed: Observed) -> dict[str, Any]:
    """Pictures of every column and window, of all rows: what the dashboard draws.

    ``{"columns": {NAME: {"edges" or "labels", "then", "rows", "missing"}}, "windows": {NUMBER:
    {NAME: {"now", "rows", "missing"}}}}``; shares have five decimals.
    """
    columns: dict[str, Any] = {}
    windows: dict[str, Any] = {}
    for number in observed.windows()[-DRAWN:]:
        own = windows[str(number)] = {}
        for name, shape in judge.shapes.items():
            counts = observed.counts.get(name, Counts())
            found = picture(shape, *counts.of_group(number, 0))
            if found is None:
                continue
            (rows, now), (gap, gap_now) = found.pop("rows"), found.pop("missing")
            bars = _rounded(found.pop("now"))
            columns.setdefault(name, {**found, "then": _rounded(found["then"]), "rows": rows,
                                      "missing": round(gap, 5)})
            own[name] = {"now": bars, "rows": now, "missing": round(gap_now, 5)}
    return {"format": 1, "columns": columns, "windows": windows}


def _rounded(shares: list[float]) -> list[float]:
    return [round(v, 5) for v in shares]


def picture(shape: Shape, cells: np.ndarray, counts: np.ndarray) -> dict[str, Any] | None:
    """Bars of a column: ``{"labels" or "edges", "then", "now", "rows": [then, now]}``.

    ``cells`` and ``counts`` are the window's (`Counts.of_group`). ``then`` and ``now`` are shares
    of the rows that have a value, those missing apart: ``"missing": [then, now]``. Numbers have
    bars of equal width between the reference's 0.1 % and 99.9 % quantiles, what lies beyond at
    the ends; text its most frequent values, the others, and what was never seen. None where
    values cannot be compared.
    """
    known = shape.known
    if known.cells is None or known.counts is None or not known.present:
        return None
    own = dict(zip(cells.tolist(), counts.tolist(), strict=True))
    first = int(np.searchsorted(cells, FIRST))
    values, weights = cells[first:], counts[first:]
    if known.coder.ordered:
        made = _numbers(shape, values, weights)
    else:
        made = _levels(shape, values, weights, own.get(UNSEEN, 0))
    now = int(weights.sum()) + (0 if known.coder.ordered else own.get(UNSEEN, 0))
    total = now + own.get(MISSING, 0)
    return {**made, "rows": [known.rows, total],
            "missing": [known.missing / known.rows, own.get(MISSING, 0) / total if total else 0.0]}


def _numbers(shape: Shape, values: np.ndarray, weights: np.ndarray) -> dict[str, Any]:
    known = shape.known
    assert known.cells is not None and known.counts is not None
    within = shape.within(TRIMS[0])
    low, high = within.low, within.high
    whole = known.dtype in ("int64", "bool") and high - low < BARS
    edges = np.arange(low, high + 2) - 0.5 if whole else np.linspace(low, high, BARS + 1)
    if high == low:
        edges = np.array([low, high])

    def bars(at: np.ndarray, weight: np.ndarray) -> list[float]:
        where = np.clip(np.searchsorted(edges, within.points(at), "right") - 1, 0, len(edges) - 2)
        sums = np.bincount(where, weight, len(edges) - 1)
        return _shares(sums)

    return {"edges": edges.tolist(), "then": bars(known.cells, known.counts),
            "now": bars(values, weights)}


def _levels(
    shape: Shape, values: np.ndarray, weights: np.ndarray, unseen: int
) -> dict[str, Any]:
    known = shape.known
    assert known.cells is not None and known.counts is not None
    size = len(known.cells)
    then, now = known.counts.astype(float), np.zeros(size)
    now[values - FIRST] = weights
    top = min(TOP, size)
    labels = [known.coder.name(FIRST + i) for i in range(top)]
    bars = [[*a[:top], a[top:].sum()] for a in (then, now)]
    return {"labels": [*labels, "(others)", "(never seen)"], "then": _shares([*bars[0], 0.0]),
            "now": _shares([*bars[1], float(unseen)])}


def _shares(sums: Any) -> list[float]:
    sums = np.asarray(sums, float)
    total = sums.sum()
    return [float(v) for v in (sums / total if total else sums)]
