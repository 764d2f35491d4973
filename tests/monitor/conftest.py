"""A small trained bundle to watch."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from common.watched import table

import gpupipe


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two classes, trained on 6,000 rows, 1,500 of them held out, calibrated."""
    folder = tmp_path_factory.mktemp("watched")
    pq.write_table(table(6000, 0), folder / "train.parquet")
    done = gpupipe.run({
        "data": {"source": str(folder / "train.parquet"), "target": "y", "drop": ["t"],
                 "positive": "yes"},
        "model": {"kind": "linear"}, "explain": False, "calibrate": "sigmoid",
        "split": {"folds": 3, "holdout": 0.25}, "evaluate": {"resamples": 10, "baselines": []},
        "engine": {"workers": 1},
    }, runs=folder / "runs")
    return done.bundle
