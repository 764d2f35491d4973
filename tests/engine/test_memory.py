"""What fits is reckoned beforehand, and a run that streams learns what one in memory does."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import gpupipe
from gpupipe import workflow
from gpupipe.engine import memory
from gpupipe.engine.memory import MIB, Memory
from gpupipe.errors import EnvironmentFault

DTYPES = ["float64"] * 10 + ["string"] * 5 + ["int64"] * 5
ROWS = 2_000_000


def lay_out(limit: int, **changed):
    asked = {"rows": ROWS, "dtypes": DTYPES, "features": 22, "folds": 0} | changed
    return Memory(limit, 2, 131_072).lay_out(**asked)


def test_the_fastest_layout_that_fits_is_taken():
    ways = [lay_out(8_000 << 20)]
    for _ in range(3):  # a little less than the last one takes
        ways.append(lay_out(ways[-1].peak - 1))
    assert [(w.keep, w.matrix, w.bins) for w in ways] == [
        (True, "memory", "memory"), (False, "memory", "memory"),
        (False, "streamed", "memory"), (False, "streamed", "disk"),
    ]
    assert all(w.fits for w in ways)
    peaks = [w.peak for w in ways]
    assert peaks == sorted(peaks, reverse=True)


def test_a_layout_says_what_would_have_been_faster():
    assert "the bins in memory" in lay_out(300 << 20).why


def test_where_nothing_fits_the_leanest_is_told_and_does_not_fit():
    leanest = lay_out(100 << 20)
    assert (leanest.matrix, leanest.bins) == ("streamed", "disk")
    assert not leanest.fits
    whole = lay_out(100 << 20, streams=False)
    assert (whole.matrix, whole.bins) == ("memory", "memory")


def test_more_of_anything_takes_more():
    least = lay_out(8_000 << 20).peak
    for more in ({"rows": 2 * ROWS}, {"features": 60}, {"folds": 5}, {"dtypes": DTYPES * 3}):
        assert lay_out(8_000 << 20, **more).peak > least


def config(limit: str) -> dict:
    return {
        "data": {"target": "y"}, "split": {"holdout": 0.2, "folds": 2},
        "features": [{"impute": {"columns": "numeric"}}, {"target_encode": {"columns": "s"}}],
        "model": {"kind": "xgboost", "params": {"n_estimators": 20}},
        "evaluate": {"baselines": ["constant", "linear"], "resamples": 20},
        "engine": {"memory": limit, "batch_rows": 1_000},
    }


@pytest.fixture
def table() -> pa.Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    return pa.table({"x": x, "z": rng.normal(size=20_000), "s": rng.choice(list("abcdef"), 20_000),
                     "y": np.where(x + rng.normal(size=20_000) > 0, "yes", "no")})


def test_a_run_that_streams_learns_the_same_and_scores_as_well(table, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "LIBRARIES_BYTES", 0)
    monkeypatch.setattr(memory, "STATE_BYTES", 0)
    monkeypatch.setattr(memory, "PAGE_ROWS", 4_000)
    found = {}
    limit = 10**9
    for _ in range(4):
        done = gpupipe.run(config(f"{limit}B"), table, runs=tmp_path / str(limit))
        layout = done.summary["plan"]["layout"]
        found[layout["matrix"], layout["bins"]] = (
            workflow.fingerprint(done.run), done.metrics["roc_auc"]["value"])
        assert not list((tmp_path / str(limit) / ".cache").glob(".*.tmp"))
        limit = layout["peak"] - 1  # the next layout, then
    assert set(found) == {("memory", "memory"), ("streamed", "memory"), ("streamed", "disk")}
    prints, scores = zip(*found.values(), strict=True)
    assert prints[0] == prints[1] == prints[2]
    assert max(scores) - min(scores) < 0.005


def test_a_run_that_cannot_keep_to_its_memory_is_refused(table, tmp_path):
    with pytest.raises(EnvironmentFault, match="may take 50") as error:
        gpupipe.run(config("50MiB"), table, runs=tmp_path)
    assert "set engine.memory to" in str(error.value.hint)
    assert [p.name for p in tmp_path.iterdir()] == [".cache"]
    assert memory.default_limit() > 50 * MIB
