"""A bundle of every released format is read and scored as it was when it was written.

To release a format: raise `store.FORMAT`, teach `store.read` the older ones, and keep a small
bundle of it under ``kept/format-N/bundle`` with ``expected.json`` beside it: records, and the
predictions that the version which wrote it gave them. What is kept is never made again.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import gpupipe
from gpupipe.bundle.store import FORMAT
from gpupipe.bundle.tables import records_table

KEPT = Path(__file__).parent / "kept"


def test_every_format_has_a_kept_bundle():
    assert {p.name for p in KEPT.iterdir()} == {f"format-{n}" for n in range(1, FORMAT + 1)}


@pytest.mark.parametrize("name", sorted(p.name for p in KEPT.iterdir()))
def test_a_kept_bundle_scores_as_it_did(name):
    expected = json.loads((KEPT / name / "expected.json").read_text())
    bundle = gpupipe.load(KEPT / name / "bundle")
    times = [f.name for f in bundle.schema if f.dtype == "timestamp"]
    records: list[dict[str, Any]] = [
        r | {n: None if r[n] is None else datetime.fromisoformat(r[n]) for n in times}
        for r in expected["records"]]
    whole = bundle.described(*bundle.scored(records_table(records, bundle.schema)))
    assert whole == bundle.predict_records(records) == [bundle.predict_one(r) for r in records]
    assert [p["prediction"] for p in whole] == [p["prediction"] for p in expected["predictions"]]
    # On another processor the last bits of a float32 sum may be others.
    np.testing.assert_allclose([p["probability"] for p in whole],
                               [p["probability"] for p in expected["predictions"]], rtol=1e-6)
    assert isinstance(bundle.features(pa.Table.from_pylist(records)), np.ndarray)
