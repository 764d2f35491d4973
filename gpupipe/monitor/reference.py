"""What data looked like when the model was trained: the bundle's own states, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.scoring import Bundle
from gpupipe.bundle.store import read_states
from gpupipe.monitor.cells import FIRST, Bins, Coder, Levels, Pieces, Present, Values
from gpupipe.record import PREDICTED
from gpupipe.stats.quantiles import bin_edges

PREDICTION = "(prediction)"
"""What the model's own output is called among the columns."""


PRESENT = Present()


CONFIDENCE = "(confidence)"
"""The greatest of the probabilities of more than two classes."""

OTHERS = ("wasserstein", "chi_squared", "missing", "unfit", "infinite")
"""The measures of predictions out of fold: they are other models' than the one that is watched,
whose scores may take other values (those of isotonic calibration are few) that lie close by."""


@dataclass(frozen=True)
class Known:
    """A column of the reference.

    Attributes
    ----------
    coder : makes cells of its values.
    cells, counts : the training rows in each cell of a value, cells ascending; None where
        values cannot be compared, and ``why``.
    rows : all training rows; ``missing`` and ``infinite`` of them have no number or text.
    once : values that came once: what share of new rows will have a value never seen
        (Good 1953, Biometrika 40).
    only : the measures that judge it; None for all.
    """

    name: str
    dtype: str
    coder: Coder = PRESENT
    cells: np.ndarray | None = None
    counts: np.ndarray | None = None
    rows: int = 0
    missing: int = 0
    infinite: int = 0
    once: int = 0
    only: tuple[str, ...] | None = None
    why: str | None = None

    @property
    def present(self) -> int:
        """Training rows that have a value."""
        return self.rows - self.missing - self.infinite


@dataclass(frozen=True)
class Reference:
    """The columns that a bundle's states know, by name, and its predictions.

    ``predicted`` is what is kept of those (`decide.predicted`); None where nothing is.
    """

    columns: Mapping[str, Known]
    predicted: Mapping[str, Any] | None = None


def reference_of(bundle: Bundle) -> Reference:
    """The reference that lies in a bundle."""
    states = read_states(Path(bundle.path))
    columns = {f.name: known(f.name, f.dtype, states.get(f.name)) for f in bundle.schema}
    columns |= _predictions(bundle, states.get(PREDICTED))
    return Reference(columns, states.get(PREDICTED))


def known(name: str, dtype: str, state: Mapping[str, Any] | None) -> Known:
    """One column from its states, as `record.states_of` writes them."""
    if state is None:
        return Known(name, dtype, why="the bundle has no states of it")
    moments = state["moments"]
    missing, infinite = int(moments["missing"][0]), int(moments["infinite"][0])
    rows = int(moments["count"][0]) + missing + infinite
    plain = Known(name, dtype, rows=rows, missing=missing, infinite=infinite)
    if dtype == "timestamp":
        return replace(plain, why="time moves on by itself")
    vocabulary = state.get("vocabulary")
    levels, counts = None, np.empty(0, np.int64)
    if vocabulary is not None and len(vocabulary["levels"]):
        levels, counts = vocabulary["levels"], np.asarray(vocabulary["counts"]).reshape(-1)
    once = int((counts == 1).sum())
    if dtype == "string":
        if levels is None:
            return replace(plain, why="it has no values" if rows == missing else
                           "it has more distinct values than a bundle keeps")
        return replace(plain, coder=Levels(levels.cast(pa.string())), counts=counts, once=once,
                       cells=FIRST + np.arange(len(levels)))
    if levels is not None and dtype in ("int64", "bool"):
        values = levels.cast(pa.int64()).to_numpy()
        order = np.argsort(values)
        return replace(plain, coder=Values(values[order]), counts=counts[order], once=once,
                       cells=FIRST + 2 * np.arange(len(values)) + 1)
    histogram, extremes = state.get("histogram"), state.get("extremes")
    if histogram is None or extremes is None or not len(histogram["bins"]):
        return replace(plain, why="it has no values")
    low, high = float(extremes["low"][0]), float(extremes["high"][0])
    pieces = state.get("pieces")
    if pieces is not None:
        counts, (first, last) = np.asarray(pieces["counts"]), pieces["span"]
        held, edges = np.flatnonzero(counts), np.append(bin_edges(), np.inf)
        coder = Pieces(float(edges[first]), float(edges[last + 1]), low, high, len(counts))
        return replace(plain, coder=coder, cells=FIRST + 1 + held, counts=counts[held])
    return replace(plain, coder=Bins(low, high), cells=FIRST + np.asarray(histogram["bins"]),
                   counts=np.asarray(histogram["counts"]))


def _predictions(bundle: Bundle, state: Mapping[str, Any] | None) -> dict[str, Known]:
    """The out-of-fold scores; or labels and greatest probabilities, where there are more than two
    classes."""
    several = len(bundle.classes) > 2
    if state is None:
        return {PREDICTION: Known(PREDICTION, "string" if several else "float64",
                                  why="the bundle has no out-of-fold predictions to compare with")}
    one = known(PREDICTION, "string" if several else "float64", state["output"])
    if bundle.classes and not several and isinstance(one.coder, Bins):
        one = replace(one, coder=Bins(0.0, 1.0))  # a probability is never out of its range
    found = {PREDICTION: one}
    if several:
        counts = np.asarray(state["confidence"]["counts"])
        found[CONFIDENCE] = Known(
            CONFIDENCE, "float64", Bins(0.0, 1.0), FIRST + np.asarray(state["confidence"]["bins"]),
            counts, int(counts.sum()))
    if state["output_of"] == "out_of_fold":
        found = {name: replace(k, only=OTHERS) for name, k in found.items()}
    return found
