"""How long a bundle takes for one record, measured with the scorer that serves it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.golden import golden_table
from gpupipe.bundle.scoring import Bundle
from gpupipe.bundle.store import read

CALLS, WARM = 200, 10
SECONDS = 3.0
"""No bundle is called for longer than this."""


def golden_records(bundle: Bundle) -> list[dict[str, Any]]:
    """The bundle's golden rows as records, as a caller would send them."""
    _, golden = read(bundle.path)
    table: pa.Table = golden_table(bundle, golden)
    return table.to_pylist()


def single_row(
    bundles: Sequence[Bundle], calls: int = CALLS, warm: int = WARM,
    records: Sequence[list[dict[str, Any]]] | None = None,
) -> list[dict[str, float]]:
    """Seconds for `predict_one` of each bundle: ``{"median", "p95", "calls"}``.

    Bundles take turns call by call, so that what else the machine does falls on all alike.
    Without ``records`` for each of them, they are called with their golden rows.
    """
    records = [golden_records(b) for b in bundles] if records is None else records
    taken: list[list[float]] = [[] for _ in bundles]
    for b, rows in zip(bundles, records, strict=True):
        for i in range(warm):
            b.predict_one(rows[i % len(rows)])
    began = time.perf_counter()
    for i in range(calls):
        for b, rows, times in zip(bundles, records, taken, strict=True):
            at = time.perf_counter()
            b.predict_one(rows[i % len(rows)])
            times.append(time.perf_counter() - at)
        if time.perf_counter() - began > SECONDS * len(bundles):
            break
    return [{"median": float(np.median(t)), "p95": float(np.quantile(t, 0.95)), "calls": len(t)}
            for t in taken]


def size_of(folder: Path) -> int:
    """The bytes of a bundle's files."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
