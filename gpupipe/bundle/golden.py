"""Golden rows: raw rows of the training table, and what they must give wherever they are scored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from gpupipe.data.schema import ARROW_TYPES
from gpupipe.errors import DataError

if TYPE_CHECKING:
    from gpupipe.bundle.scoring import Bundle

SCORE_TOLERANCE = 1e-6
"""How far a golden row's score may be off: trees add float32 numbers, in an order that a
processor may choose. Features must agree to the bit."""


def golden_rows(bundle: Bundle, table: pa.Table) -> dict[str, Any]:
    """Raw rows with the features and scores that they give."""
    typed = bundle.typed(table)
    inputs = {f.name: _plain(typed.column(f.name), f.dtype) for f in bundle.schema}
    features = bundle.features(table)
    return {
        "inputs": inputs,
        "features": [[_bits(v) for v in row] for row in features],
        "scores": np.asarray(bundle.scores(table)).tolist(),
    }


def golden_table(bundle: Bundle, golden: dict[str, Any]) -> pa.Table:
    """The raw golden rows."""
    columns = [_restored(golden["inputs"][f.name], f.dtype) for f in bundle.schema]
    return pa.Table.from_arrays(columns, names=bundle.schema.names)


def replay(bundle: Bundle, golden: dict[str, Any]) -> None:
    """Score the golden rows again. DataError where features or scores differ."""
    try:
        table = golden_table(bundle, golden)
        expected, wanted = golden["features"], np.array(golden["scores"], np.float64)
        found, scores = bundle.features(table), bundle.scores(table)
        shapes = {(len(row), len(bits)) for row, bits in zip(found, expected, strict=True)}
        if shapes != {(found.shape[1],) * 2} or scores.shape != wanted.shape:
            raise ValueError("rows, features and scores do not go together")
    except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(f"{bundle.path}: golden.json is malformed: {error}") from None
    for r, (row, bits) in enumerate(zip(found, expected, strict=True)):
        for c, value in enumerate(row):
            if _bits(value) != bits[c]:
                raise DataError(
                    f"{bundle.path}: golden row {r} gives another {bundle.feature_names[c]!r} "
                    "than when the bundle was made",
                    hint="the bundle and this version of gpupipe do not fit together",
                )
    off = np.abs(scores - wanted) / np.maximum(np.abs(wanted), 1.0)
    if not (off <= SCORE_TOLERANCE).all():  # a NaN is not within it
        raise DataError(
            f"{bundle.path}: golden rows score up to {off.max():.2g} off what they scored when "
            "the bundle was made", hint="check the versions in bundle.json",
        )


def _bits(value: Any) -> str | None:
    """A float32 in hexadecimal, exactly; None for NaN, whose bits carry no meaning."""
    return None if np.isnan(value) else float(value).hex()


def _plain(column: pa.ChunkedArray, dtype: str) -> list[Any]:
    if dtype == "timestamp":
        return list(column.cast(pa.int64()).to_pylist())
    if dtype in ("float32", "float64"):
        return [None if v is None or np.isnan(v) else float(v).hex() for v in column.to_pylist()]
    return list(column.to_pylist())


def _restored(values: list[Any], dtype: str) -> pa.Array:
    if dtype == "timestamp":
        return pa.array(values, pa.int64()).cast(pa.timestamp("us"))
    if dtype in ("float32", "float64"):
        values = [None if v is None else float.fromhex(v) for v in values]
    return pa.array(values, ARROW_TYPES[dtype])
