"""An ONNX model held against its bundle, by the reference of the `onnx` package itself."""

from __future__ import annotations

import importlib

import numpy as np
import pyarrow as pa

from gpupipe.bundle.golden import golden_table
from gpupipe.bundle.scoring import Bundle
from gpupipe.bundle.store import read
from gpupipe.errors import DataError
from gpupipe.exports.onnx_steps import MISSING

TOLERANCE = 1e-4
"""Relative to 1, or to the score where it is greater: thousands of float32 leaves may be added up
in any order. What is looked up or cut wrongly is farther off."""
VISITS = 20_000
"""Rows times rounds, about: the reference goes through them in Python."""


def check(bundle: Bundle, content: bytes) -> None:
    """Score golden rows, and one where everything is missing, by the model.

    DataError where a score is not the bundle's.
    """
    reference = importlib.import_module("onnx.reference")
    _, golden = read(bundle.path)
    rows = max(2, VISITS // (bundle.contents.model.rounds or 1))
    table = golden_table(bundle, golden).slice(0, rows)
    nothing = pa.table([pa.nulls(1, f.type) for f in table.schema], table.schema)
    table = pa.concat_tables([table, nothing])
    with np.errstate(all="ignore"):
        *_, found = reference.ReferenceEvaluator(content).run(None, inputs_of(bundle, table))
    scores = np.asarray(bundle.scores(table), np.float64)
    own = np.asarray(found, np.float64).reshape(len(scores), -1)
    wanted = np.column_stack([1 - scores, scores]) if bundle.task == "binary" else \
        scores.reshape(len(scores), -1)
    off = np.abs(own - wanted) / np.maximum(np.abs(wanted), 1.0)
    fits = (off <= TOLERANCE) | (np.isnan(own) & np.isnan(wanted))
    if not fits.all():
        row = int(fits.all(axis=1).argmin())
        raise DataError(
            f"the ONNX model scores row {row} of the bundle's golden rows {own[row].tolist()}, "
            f"and the bundle {wanted[row].tolist()}",
            hint="this is a fault worth reporting; --format mlflow takes every bundle")


def inputs_of(bundle: Bundle, table: pa.Table) -> dict[str, np.ndarray]:
    """A table of the bundle's columns as the model takes it: each ``[rows, 1]``."""
    given: dict[str, np.ndarray] = {}
    for field in bundle.schema:
        column = table.column(field.name).combine_chunks()
        if field.dtype == "string":
            given[field.name] = np.array(column.fill_null(MISSING).to_pylist(), object)[:, None]
            continue
        if field.dtype in ("timestamp", "bool"):
            column = column.cast(pa.int64())
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        given[field.name] = values.astype(np.float64)[:, None]
    return given
