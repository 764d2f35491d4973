"""Two bundles' predictions of the same labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.scoring import Bundle
from gpupipe.compare.rows import DATA, Paired, check_alike, told
from gpupipe.errors import DataError
from gpupipe.judging import level_codes
from gpupipe.predictions import Kept
from gpupipe.scoring import Labelled, labelled


def rows_of(
    left: Bundle, right: Bundle, source: object, slices: Sequence[str] = (), *,
    progress: Any = None,
) -> Paired:
    """Score the labelled rows of a source with two bundles.

    Either reads it by its own rules, as it would for a prediction. Raises DataError where they
    predict different things, where one of them has to set a row aside (the rest would no longer
    go together), or where targets or weights differ.
    """
    for bundle, other in ((right, left),):
        if (bundle.task, bundle.classes) != (other.task, other.classes):
            raise DataError(
                f"one model predicts {told(other.task, other.classes)}, the other "
                f"{told(bundle.task, bundle.classes)}", where=str(bundle.path),
                hint="compare models with the same target and positive label")
    found = [labelled(b, source, slices, progress=progress) for b in (left, right)]
    for bundle, rows in zip((left, right), found, strict=True):
        if rows.quarantined:
            raise DataError(f"{rows.quarantined:,} rows cannot be read as {bundle.path} reads them",
                            where=str(source), hint="mend them or take them out: two models are "
                            "compared on the very same rows")
    if not np.array_equal(found[0].at, found[1].at):
        raise DataError("the two models do not find the same rows to have a label",
                        where=str(source), hint="compare models with the same target")
    kept = [_kept(rows, slices) for rows in found]
    check_alike(kept[0], kept[1], right.path)
    return Paired(left.task, left.classes, DATA, kept[0], kept[1],  # type: ignore[arg-type]
                  (left.threshold, right.threshold))


def _kept(rows: Labelled, slices: Sequence[str]) -> Kept:
    return Kept(pa.table({}), rows.at, rows.y, rows.weight, rows.prediction,
                {name: _levels(rows.more.column(name)) for name in slices})


def _levels(column: pa.ChunkedArray) -> pa.Array:
    """Each row's level as text, null for missing; numbers by quintile, as reports slice them."""
    values, dtype = column.combine_chunks(), "float64"
    if pa.types.is_timestamp(column.type):
        values, dtype = values.cast(pa.timestamp("us")).cast(pa.int64()), "timestamp"
    if pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        values = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    codes, names = level_codes(values, dtype)
    return pa.array(names, pa.string()).take(pa.array(codes, mask=codes < 0))
