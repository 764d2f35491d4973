"""Workers that are killed at any moment: the run ends all the same, with the same rows."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import gpupipe
from gpupipe import checkpoints, scoring, workflow
from gpupipe.config import EngineConfig
from gpupipe.engine.cluster import Cluster, local_cluster
from gpupipe.engine.dask import DaskEngine
from gpupipe.scoring import files
from gpupipe.timings import Timings

pytestmark = pytest.mark.long

KILLS = int(os.environ.get("GPUPIPE_KILLS", "1"))
"""Kills in each stage; set it to 20 for the long version."""
STAGES = ("profile", "learn the steps", "folds", "final training")
ROWS = 40_000
LONGEST = 120.0
"""Seconds after which a run is thought to hang."""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    path = tmp_path_factory.mktemp("data") / "t.parquet"
    table = pa.table({
        "x": pa.array(x, mask=rng.random(ROWS) < 0.1), "z": rng.normal(size=ROWS),
        "s": rng.choice([f"s{i}" for i in range(400)], ROWS),
        "y": np.where(x + rng.normal(size=ROWS) > 0, "yes", "no"),
    })
    pq.write_table(table, path, row_group_size=1_000)
    return {
        "name": "kills", "data": {"source": str(path), "target": "y"},
        "split": {"holdout": 0.2, "folds": 2},
        "features": [{"impute": {"columns": ["x"]}}, {"scale": {"columns": "numeric"}},
                     {"target_encode": {"columns": "s"}}],
        "model": {"kind": "xgboost", "params": {"n_estimators": 60, "max_depth": 6}},
        "evaluate": {"baselines": [], "resamples": 20},
        "engine": {"kind": "dask", "workers": 2},
    }


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory) -> tuple[workflow.RunResult, dict[str, float]]:
    done = gpupipe.run(config, runs=tmp_path_factory.mktemp("whole"))
    return done, done.summary["timings"]


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    """Two workers, which are started again where they are killed: one start for all tests."""
    made = local_cluster(2, 1, 4 << 30)
    yield made
    made.close()


@pytest.fixture
def engine(shared) -> dict[str, Any]:
    """The section of a pipeline that runs on both of the workers."""
    shared.client.wait_for_workers(2, timeout=LONGEST)
    return {"kind": "dask", "address": shared.address}


@contextmanager
def killing(engines: list[DaskEngine], after: float, kills: list[int]) -> Iterator[None]:
    """Kill a worker of the newest engine after so many seconds."""
    def kill() -> None:
        with np.errstate(all="ignore"):
            pids = list(engines[-1].client.run(os.getpid, on_error="ignore").values())
        victim = random.Random(int(after * 1e6)).choice([p for p in pids if isinstance(p, int)])
        kills.append(victim)
        os.kill(victim, signal.SIGKILL)

    timer = threading.Timer(after, kill)
    timer.start()
    yield
    timer.join()


@pytest.fixture
def engines(monkeypatch) -> list[DaskEngine]:
    """The engines that are made in the test."""
    made: list[DaskEngine] = []
    begin = DaskEngine.__init__

    def noted(self: DaskEngine, *given: Any) -> None:
        begin(self, *given)
        made.append(self)

    monkeypatch.setattr(DaskEngine, "__init__", noted)
    return made


def bounded(work: Callable[[], Any]) -> Any:
    """The result of ``work``; a failure where it takes so long that it hangs."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(LONGEST)
    assert not thread.is_alive(), "it hangs"
    assert found, "it failed"
    return found[0]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", range(KILLS))
def test_a_worker_is_killed_in_the_middle_of(
    stage, number, config, uninterrupted, engine, engines, tmp_path, monkeypatch
):
    whole, seconds = uninterrupted
    rng, kills = random.Random(f"{stage} {number}"), list[int]()
    usual = Timings.stage
    monkeypatch.setattr(checkpoints, "SAVE_SECONDS", 0.05)

    @contextmanager
    def struck(self: Timings, name: str, rows: int | None = None) -> Iterator[None]:
        with usual(self, name, rows):
            if name == stage:
                with killing(engines, rng.uniform(0, max(seconds[stage], 0.1)), kills):
                    yield
            else:
                yield

    monkeypatch.setattr(Timings, "stage", struck)
    started = time.perf_counter()
    done = bounded(lambda: gpupipe.run({**config, "engine": engine}, runs=tmp_path))
    assert kills and time.perf_counter() - started < LONGEST
    assert workflow.fingerprint(done.run) == workflow.fingerprint(whole.run)
    one, other = (pq.read_table(r.run / "predictions.parquet") for r in (whole, done))
    assert one.select(["row", "fold", "target"]).equals(other.select(["row", "fold", "target"]))
    folds = one["fold"].to_numpy() >= 0  # a fold is one worker's: trained again, it is the same
    np.testing.assert_array_equal(one["probability"].to_numpy()[folds],
                                  other["probability"].to_numpy()[folds])
    np.testing.assert_allclose(one["probability"].to_numpy(), other["probability"].to_numpy(),
                               atol=0.2)
    for name, value in whole.metrics.items():
        assert done.metrics[name]["value"] == pytest.approx(value["value"], abs=0.01), name


@pytest.mark.parametrize("number", range(KILLS))
def test_a_worker_is_killed_while_they_write(
    number, config, uninterrupted, engine, engines, tmp_path, monkeypatch
):
    whole, _ = uninterrupted
    source, rng, kills = config["data"]["source"], random.Random(number), list[int]()
    scoring.predict(whole.bundle, source, tmp_path / "one.parquet")
    pinned = DaskEngine.pin

    def struck(self: DaskEngine, value: Any) -> None:
        pinned(self, value)
        killer = killing(engines, rng.uniform(0, 0.1), kills)
        killer.__enter__()
        killers.append(killer)

    killers: list[Any] = []
    monkeypatch.setattr(DaskEngine, "pin", struck)
    folder: Path = tmp_path / "scores"
    bounded(lambda: scoring.predict(
        whole.bundle, source, folder, engine=EngineConfig(**engine)))
    for killer in killers:
        killer.__exit__(None, None, None)
    assert kills
    assert len(list(folder.iterdir())) == 40
    written = ds.dataset(folder).to_table().sort_by("row")
    assert written.equals(pq.read_table(tmp_path / "one.parquet"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.parquet", "scores"]


def test_what_a_killed_worker_was_writing_is_not_among_the_predictions(
    config, uninterrupted, tmp_path, monkeypatch
):
    whole, _ = uninterrupted
    score = files._ScorePart.__call__

    def half(self: files._ScorePart, index: int) -> int:
        (self.folder / f".part-{index:05}.parquet.host.1.0.tmp").write_bytes(b"PAR1")
        return score(self, index)

    monkeypatch.setattr(files._ScorePart, "__call__", half)
    scoring.predict(whole.bundle, config["data"]["source"], tmp_path / "scores")
    assert {p.suffix for p in (tmp_path / "scores").iterdir()} == {".parquet"}
    assert [p.name for p in tmp_path.iterdir()] == ["scores"]
