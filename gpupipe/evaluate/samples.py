"""Bootstrap samples of a metric's sufficient statistics, at a cost that rows do not enter.

A bootstrap resample gives every row a random count. What a metric needs of the rows is a small
table of weighted sums (see `metrics`), so it is units of rows that are resampled, at most
`UNITS` of them:

- **few rows**: a unit is a row; counts are multinomial. This is Efron's bootstrap itself
  (Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 6 and 13).
- **many rows, binary** (`cells`): a unit is a cell of (quantised score, label). Under the Poisson
  bootstrap (Chamandy, Muralidharan, Najmi & Naidu 2012, Estimating Uncertainty for Massive Data
  Streams, Google) each row's count is Poisson(1), so a cell of m rows of weight 1 counts
  Poisson(m), exactly. Unequal weights make it compound Poisson, drawn as the scaled Poisson of
  the same mean and variance (Bohm & Zech 2014, Nucl. Instrum. Methods A 748). What an additive
  loss varies within cells is added back as one normal draw of its exact (co)variance.
- **many rows, multiclass and regression** (`groups`): a unit is a random group of rows (the
  random groups of Wolter 2007, Introduction to Variance Estimation, ch. 2), with multinomial
  counts. All sums keep their joint distribution; G groups know a standard error to about
  1 / sqrt(2 G).

Columns stay where they are (NumPy or CuPy); units are few and are drawn on the host, so the same
seed gives the same draws everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from gpupipe.data.outcomes import SURVIVAL
from gpupipe.engine.arrays import Array, namespace
from gpupipe.errors import DataError
from gpupipe.evaluate.cells import BinarySample
from gpupipe.evaluate.draws import Table
from gpupipe.evaluate.groups import ClassColumns, Columns, GroupSample, ValueColumns
from gpupipe.evaluate.metrics import OF_CLASSES, Task
from gpupipe.evaluate.survival import TimeColumns

UNITS = 4096


class Sample(Protocol):
    """Tables of one or more predictions of the same rows, and their resamples."""

    @property
    def exact(self) -> list[Table]:
        """One table a prediction, from all rows (R = 1)."""
        ...

    @property
    def coarse(self) -> list[Table]:
        """The same from the units, each counted once: what resamples vary around."""
        ...

    def resampled(self, resamples: int, seed: int) -> Iterator[list[Table]]:
        """Tables of a block of resamples at a time; the predictions share every resample."""
        ...


def sample(
    task: Task, y: Array, predictions: Sequence[Array], weight: Array | None,
    names: Sequence[str], units: int = UNITS,
) -> Sample:
    """The `Sample` of ``task``; ``names`` are the metrics that will read it.

    Raises DataError for arrays of the wrong shape, values that are not finite, or no rows.
    """
    y, predictions, weight = checked(task, y, predictions, weight)
    if task == "binary":
        return BinarySample(y, predictions, weight, units)
    with np.errstate(over="ignore"):  # a share of a value near 0; its metric is then undefined
        return GroupSample([columns_of(task, y, p, weight, names) for p in predictions], weight,
                           units)


def columns_of(task: Task, y: Array, p: Array, weight: Array, names: Sequence[str]) -> Columns:
    """What a prediction adds up by groups of rows, of a task whose units are such groups."""
    if task == "multiclass":
        return ClassColumns(y, p, weight, names)
    if task in SURVIVAL:
        return TimeColumns(task, y, p, weight)
    return ValueColumns(y, p, weight, names)


def checked(
    task: Task, y: Array, predictions: Sequence[Array], weight: Array | None
) -> tuple[Array, list[Array], Array]:
    """The arrays in the types that the formulas want; rows of weight 0 are dropped."""
    xp = namespace(y)
    y = xp.asarray(y).astype(xp.int64 if task in OF_CLASSES else xp.float64, copy=False)
    rows = len(y)
    if y.ndim != 1 or rows == 0:
        raise DataError("there are no rows to evaluate", hint="check the split and the filters")
    weight = xp.ones(rows) if weight is None else xp.asarray(weight).astype(xp.float64)
    checked_predictions = []
    for prediction in predictions:
        prediction = xp.asarray(prediction).astype(xp.float64, copy=False)
        if len(prediction) != rows or prediction.ndim != (2 if task == "multiclass" else 1):
            raise DataError(f"predictions of shape {prediction.shape} do not fit {rows:,} rows")
        classes = prediction.shape[1] if task == "multiclass" else 2
        if task in OF_CLASSES and not 0 <= int(y.min()) <= int(y.max()) < classes:
            raise DataError(f"class codes run from {y.min()} to {y.max()}, not 0 to {classes - 1}")
        checked_predictions.append(prediction)
    for what, array in [("target", y), ("weight", weight),
                        *(("prediction", p) for p in checked_predictions)]:
        wrong = int((~xp.isfinite(array)).sum())
        if wrong:
            raise DataError(f"the {what} is not finite in {wrong:,} of {rows:,} rows")
    if task in OF_CLASSES:
        for p in checked_predictions:
            if float(p.min()) < 0 or float(p.max()) > 1:
                raise DataError(
                    f"probabilities run from {float(p.min()):.6g} to {float(p.max()):.6g}",
                    hint="classification metrics want probabilities from 0 to 1, not raw margins",
                )
    if weight.shape != (rows,) or float(weight.min()) < 0 or float(weight.sum()) <= 0:
        raise DataError("weights must be one a row, none negative, and not all 0")
    if float(weight.min()) == 0:
        kept = weight > 0
        return y[kept], [p[kept] for p in checked_predictions], weight[kept]
    return y, checked_predictions, weight
