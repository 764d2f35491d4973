"""A run that is killed goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from common.killing import start

import gpupipe
from gpupipe import workflow
from gpupipe.checkpoints import Checkpoints, sweep, temporary_name
from gpupipe.errors import DataError

pytestmark = pytest.mark.long

ROWS = 2_000
KINDS = ("profile-part", "profile", "scan-part", "scan", "rounds", "model")
POINTS = [
    *(f"{kind} {when}" for kind in KINDS for when in ("written", "saved")),
    "run written", "run renamed",
]
RANDOM_KILLS = int(os.environ.get("GPUPIPE_KILLS", "3"))
"""Set it to 50 for the long version."""


@pytest.fixture(scope="module")
def table() -> pa.Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=ROWS)
    return pa.table({
        "x": pa.array(x, mask=rng.random(ROWS) < 0.1), "z": rng.normal(size=ROWS),
        "s": rng.choice([f"s{i}" for i in range(40)], ROWS),
        "y": np.where(x + rng.normal(size=ROWS) > 0, "yes", "no"),
    })


@pytest.fixture(scope="module")
def config(table, tmp_path_factory) -> dict:
    path = tmp_path_factory.mktemp("data") / "t.parquet"
    pq.write_table(table, path, row_group_size=200)
    return pipeline(path)


def pipeline(path: Path) -> dict:
    return {
        "name": "resume", "data": {"source": str(path), "target": "y"},
        "split": {"holdout": 0.2, "folds": 2},
        "features": [{"impute": {"columns": ["x"]}}, {"scale": {"columns": "numeric"}},
                     {"target_encode": {"columns": "s"}}],
        "model": {"kind": "xgboost", "params": {"n_estimators": 40, "max_depth": 3}},
        "evaluate": {"baselines": ["linear"], "resamples": 10}, "explain": {"rows": 0},
        "engine": {"workers": 2},
    }


@pytest.fixture(scope="module")
def uninterrupted(config, tmp_path_factory) -> tuple[dict, float]:
    """The bundle's hashes of a run that nobody kills, and the seconds it takes."""
    runs = tmp_path_factory.mktemp("whole")
    began = time.perf_counter()
    process = start(config, runs)
    process.join()
    assert process.exitcode == 0
    return hashes(runs), time.perf_counter() - began


def hashes(runs: Path) -> dict:
    return json.loads((runs / "latest" / "bundle" / "hashes.json").read_text())


def whole_runs(runs: Path) -> list[Path]:
    """The finished runs; whatever has a final name must be one."""
    found = [p for p in runs.iterdir() if not p.name.startswith(".") and not p.is_symlink()]
    for folder in found:
        workflow.show(folder)
        gpupipe.load(folder)
    return found


def check_resumed(config: dict, runs: Path, expected: dict) -> None:
    whole_runs(runs)
    process = start(config, runs)
    process.join()
    assert process.exitcode == 0
    assert hashes(runs) == expected
    whole_runs(runs)
    left = [p.name for folder in (runs, runs / ".cache", runs / ".cache" / "steps")
            for p in folder.glob(".*.tmp")]
    assert not left


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_at_a_named_point_ends_like_one_that_was_not(
    point, config, uninterrupted, tmp_path
):
    process = start(config, tmp_path, point)
    process.join()
    assert process.exitcode == -9, f"{point} was never reached"
    check_resumed(config, tmp_path, uninterrupted[0])


def test_a_run_killed_while_text_is_ingested_leaves_nothing_half_made(table, tmp_path):
    pa.csv.write_csv(table, tmp_path / "t.csv")
    config = pipeline(tmp_path / "t.csv")
    process = start(config, tmp_path / "runs", "ingest written")
    process.join()
    assert process.exitcode == -9
    assert not [p for p in (tmp_path / "runs" / ".cache").iterdir() if p.name[0] != "."]
    process = start(config, tmp_path / "runs")
    process.join()
    assert process.exitcode == 0
    assert len(whole_runs(tmp_path / "runs")) == 1


@pytest.mark.parametrize("seed", range(RANDOM_KILLS))
def test_a_run_killed_at_any_moment_ends_like_one_that_was_not(
    seed, config, uninterrupted, tmp_path
):
    expected, seconds = uninterrupted
    process = start(config, tmp_path)
    process.join(np.random.default_rng(seed).uniform(0, 1.1 * seconds))
    process.kill()
    process.join()
    tmp_path.joinpath(".cache", "steps").mkdir(parents=True, exist_ok=True)
    check_resumed(config, tmp_path, expected)


def test_two_runs_at_once_in_one_place_both_end_well(config, uninterrupted, tmp_path):
    processes = [start(config, tmp_path) for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(whole_runs(tmp_path)) == 2
    found = [json.loads((run / "bundle" / "hashes.json").read_text())
             for run in whole_runs(tmp_path)]
    assert found == [uninterrupted[0]] * 2


class TestCheckpoints:
    def test_what_was_saved_is_found_by_what_it_follows_from(self, tmp_path):
        ours = Checkpoints(tmp_path).given(data="d", model="m")
        value = {"a": np.arange(3), "levels": pa.array(["x", None]), "b": b"\x00", "n": None}
        ours.save("model", value)
        found = Checkpoints(tmp_path).given(data="d", model="m").load("model")
        assert found["a"].tolist() == [0, 1, 2] and found["b"] == b"\x00" and found["n"] is None
        assert found["levels"].to_pylist() == ["x", None]
        assert ours.given(more="x").load("model") is None
        assert ours.load("scan") is None

    def test_it_says_why_there_is_none(self, tmp_path):
        ours = Checkpoints(tmp_path).given(data="d", model="m")
        assert ours.missing("model") == "not run yet"
        ours.save("model", {})
        assert ours.given(model="other").missing("model") == "changed: model"
        assert ours.given(model="other", data="e").missing("model") == "changed: data, model"

    def test_a_damaged_one_counts_as_none(self, tmp_path):
        ours = Checkpoints(tmp_path).given(data="d")
        ours.save("scan", {"a": np.arange(1000)})
        (path,) = tmp_path.glob("*.ckpt")
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert ours.load("scan") is None
        assert not ours.has("scan")

    def test_no_folder_no_checkpoints(self):
        nowhere = Checkpoints()
        nowhere.save("scan", {"a": 1})
        assert nowhere.load("scan") is None and not nowhere.has("scan")
        nowhere.drop("scan")
        nowhere.prune()

    def test_the_least_recently_used_go_first(self, tmp_path, monkeypatch):
        ours = Checkpoints(tmp_path)
        for i in range(4):
            ours.given(data=str(i)).save("scan", {"a": np.zeros(1000)})
            os.utime(max(tmp_path.glob("*.ckpt"), key=os.path.getmtime), (i, i))
        monkeypatch.setattr("gpupipe.checkpoints.CAP_BYTES", 20_000)
        assert ours.given(data="0").load("scan") is not None  # used just now
        ours.prune()
        assert [ours.given(data=str(i)).has("scan") for i in range(4)] == [
            True, False, False, True]

    def test_only_what_dead_processes_left_is_swept(self, tmp_path):
        mine = temporary_name(tmp_path / "a")
        dead = tmp_path / mine.name.replace(f".{os.getpid()}.", ".99999999.")
        other = tmp_path / ".a.elsewhere.99999999.0.tmp"
        for path in (mine, dead, other):
            path.write_text("")
        sweep(tmp_path)
        assert mine.exists() and other.exists() and not dead.exists()


def test_a_changed_model_reuses_the_scans_and_a_changed_split_does_not(config, tmp_path):
    gpupipe.run(config, runs=tmp_path)
    steps = tmp_path / ".cache" / "steps"
    before = {p.name for p in steps.glob("*.ckpt")}

    def kinds(changed: dict) -> set[str]:
        nonlocal before
        gpupipe.run(changed, runs=tmp_path)
        now = {p.name for p in steps.glob("*.ckpt")}
        new = {name.split("-")[0] for name in now - before}
        before = now
        return new

    model = config["model"] | {"params": {"n_estimators": 20}}
    assert kinds(config | {"evaluate": {"resamples": 30, "baselines": ["linear"]}}) == set()
    notes = workflow.show(tmp_path / "latest")["manifest"]["notes"]
    assert any(note.startswith("6 of 6 models were trained by an earlier run") for note in notes)
    assert kinds(config | {"model": model}) == {"model"}
    assert kinds(config | {"split": {"holdout": 0.2, "folds": 3}}) == {"scan", "model"}


def test_a_run_on_other_data_shares_nothing(table, tmp_path):
    for name, rows in (("a", table), ("b", table.slice(0, ROWS - 1))):
        pq.write_table(rows, tmp_path / f"{name}.parquet")
        gpupipe.run(pipeline(tmp_path / f"{name}.parquet"), runs=tmp_path / "runs")
    profiles = list((tmp_path / "runs" / ".cache" / "steps").glob("profile-*.ckpt"))
    assert len(profiles) == 2


def test_a_data_error_leaves_no_scratch(tmp_path):
    pq.write_table(pa.table({"x": [1.0, 2.0], "y": [1.0, 1.0]}), tmp_path / "t.parquet")
    config = {"data": {"source": str(tmp_path / "t.parquet"), "target": "y"}}
    with pytest.raises(DataError):
        gpupipe.run(config, runs=tmp_path / "runs")
    assert not list((tmp_path / "runs" / ".cache").glob(".*.tmp"))
