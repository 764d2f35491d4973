"""What fits is reckoned beforehand, and a run that streams learns what one in memory does."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from common.harness import as_dataset

import gpupipe
from gpupipe import workflow
from gpupipe.data.reader import Reader
from gpupipe.engine import memory
from gpupipe.engine.local import LEAST_BATCH, LocalEngine
from gpupipe.engine.memory import MIB, Memory
from gpupipe.errors import EnvironmentFault
from gpupipe.steps.scan import PartRows, Rowed

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


class FullError(Exception):
    """What a device says that has no memory left."""


def counted(rows: int) -> tuple[Rowed, LocalEngine]:
    """A table of so many rows in four parts, and the engine that reads it."""
    table = pa.table({"x": np.arange(rows, dtype=np.float64)})
    engine = LocalEngine(2, 16_384)
    engine.fx.out_of_memory = (FullError,)
    dataset = as_dataset(table, rows // 4)
    made = tuple(PartRows(np.zeros(p.rows, np.uint8)) for p in dataset.parts)
    return Rowed(Reader(dataset, engine), made, 1), engine


def total(source: Rowed, engine: LocalEngine, holds: Callable[[int], bool]) -> float | None:
    def part(index: int) -> float:
        found = 0.0
        for batch, _ in source.batches(index, ["x"]):
            if not holds(len(batch)):
                raise FullError
            found += float(batch.columns["x"].values.sum())
        return found

    return engine.fold(part, operator.add, range(len(source.rows)))


def test_where_a_device_is_full_what_is_kept_is_let_go_and_then_batches_are_made_smaller():
    source, engine = counted(200_000)
    reader = source.reader
    assert reader.keep(["x"])
    everything = float(np.arange(200_000).sum())
    assert total(source, engine, lambda rows: True) == everything and reader.keeps
    assert total(source, engine, lambda rows: not reader.keeps) == everything
    assert not reader.keeps and engine.batch_rows == 16_384
    assert total(source, engine, lambda rows: rows <= 5_000) == everything
    assert engine.batch_rows == LEAST_BATCH
    assert not reader.keep(["x"])  # it would be full again


def test_a_device_that_holds_nothing_is_told():
    source, engine = counted(80_000)
    with pytest.raises(EnvironmentFault, match="does not hold a batch of 4,096 rows") as error:
        total(source, engine, lambda rows: False)
    assert "engine.device" in str(error.value.hint)
