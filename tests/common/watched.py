"""Data of one law, day after day, and a prediction log of it: what the tests of watching share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

import gpupipe

START = 1_700_006_400_000_000
"""Midnight of 2023-11-15 in UTC, in microseconds."""
HOUR = 3_600_000_000


def table(n: int, seed: int, shift: float = 0.0) -> pa.Table:
    """Rows of one law: one a minute, ``shift`` apart in ``x``."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=n), rng.exponential(size=n)
    s = rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    y = x + (s == "a") + rng.logistic(size=n) > 0.3
    return pa.table({
        "x": x + shift, "z": pa.array(z, mask=rng.random(n) < 0.1), "s": s.tolist(),
        "k": rng.integers(0, 6, n), "y": np.where(y, "yes", "no").tolist(),
        "t": pa.array(START + np.arange(n) * HOUR // 60, pa.timestamp("us")),
    })


def log_of(bundle: Path, rows: pa.Table, first: int = 0, features: bool = True) -> pa.Table:
    """The rows as a server logs their predictions."""
    loaded, n = gpupipe.load(bundle), rows.num_rows
    scores = loaded.scores(rows)
    names = [f"p{first + i}" for i in range(n)]
    columns = {
        "prediction_id": names, "request_id": names, "unit_id": pa.nulls(n, pa.string()),
        "time": rows.column("t").cast(pa.timestamp("us", "UTC")), "model": ["pipeline"] * n,
        "version": ["1"] * n, "variant": ["champion"] * n, "shadow": [False] * n, "score": scores,
        "probabilities": pa.nulls(n, pa.list_(pa.float64())),
        "prediction": loaded.labels(scores).tolist(),
    }
    if features:
        columns |= {f"feature:{c}": rows.column(c) for c in loaded.schema.names}
    return pa.table(columns)
