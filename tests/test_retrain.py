"""Retraining: only where a verdict asks for it, once, as a challenger, promoted only if told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from common.watched import table

import gpupipe
from gpupipe.cli.outcome import call
from gpupipe.config import load_config
from gpupipe.errors import ConfigError, DataError
from gpupipe.monitor import monitor
from gpupipe.registry import Registry, add
from gpupipe.retrain import retrain

PIPELINE = """
data: {source: old.parquet, target: y, drop: [t]}
model: {kind: linear}
split: {folds: 3, holdout: 0.3}
evaluate: {metrics: [roc_auc], resamples: 20, baselines: []}
explain: false
engine: {workers: 1}
"""


def turned(n: int, seed: int) -> pa.Table:
    """Rows in which ``x`` has moved and means the opposite: what was learned before is wrong."""
    rows = table(n, seed)
    return rows.set_column(0, "x", pa.array(2.0 - rows["x"].to_numpy()))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a pipeline, its champion in a registry, fresh data and two verdicts."""
    folder = tmp_path_factory.mktemp("retrain")
    pq.write_table(table(3000, 0), folder / "old.parquet")
    pq.write_table(turned(3000, 1), folder / "new.parquet")
    (folder / "p.yaml").write_text(PIPELINE)
    done = gpupipe.run(str(folder / "p.yaml"), runs=folder / "runs")
    registry = Registry(folder / "models")
    version = add(registry, "m", done.run)
    registry.move("m", "champion", version.version, seen=None)
    for name, data in (("calm", table(2000, 2)), ("alert", turned(2000, 3))):
        found = monitor(done.bundle, data, window="all", history=folder / name)
        assert found.firing is (name == "alert")
    return folder


@pytest.fixture
def here(place, tmp_path) -> Path:
    """A copy whose registry may be changed."""
    import shutil

    shutil.copytree(place / "models", tmp_path / "models")
    for name in ("p.yaml", "old.parquet", "new.parquet", "calm", "alert"):
        (tmp_path / name).symlink_to(place / name)
    return tmp_path


def again(here: Path, verdict: str = "alert", data: str | None = "new.parquet", **how):
    how = {"registry": str(here / "models" / "m"), "runs": here / "runs", **how}
    return retrain(load_config(here / "p.yaml"), verdict=here / verdict / "verdict.json",
                   source=data and str(here / data), **how)


def aliases(here: Path) -> dict[str, int]:
    return Registry(here / "models").aliases("m")


def test_nothing_happens_where_no_alert_fires(here):
    done = again(here, "calm")
    assert (done.decision, done.code, done.run) == ("not needed", 0, None)
    assert "state is ok" in done.why
    assert aliases(here) == {"champion": 1} and not list((here / "runs").glob("2*"))


def test_an_alert_makes_a_challenger_with_its_gates_and_the_champion_stays(here):
    done = again(here)
    assert (done.decision, done.version, done.code) == ("retrain", 2, 0)
    assert "x" in done.why and done.gates["passed"] and done.gates["champion"] == 1
    assert aliases(here) == {"champion": 1, "challenger": 2}
    moved = Registry(here / "models").history("m", "challenger")
    assert [m.action for m in moved] == ["retrain"] and moved[0].gates == done.gates
    holdout = json.loads((done.run / "metrics.json").read_text())["holdout"]["rows"]
    assert done.gates["rows"] == holdout
    assert done.promotion is None


def test_the_same_verdict_and_data_again_do_nothing(here):
    first = again(here)
    second = again(here)
    assert (second.decision, second.version, second.run) == ("done before", 2, None)
    assert second.gates == first.gates
    assert len(list((here / "runs").glob("2*"))) == 1
    assert len(Registry(here / "models").history("m")) == 2
    same = again(here, data=None, force=True)  # the champion's own data give the champion
    assert (same.decision, same.version, same.code) == ("no change", 1, 0)
    assert again(here, data=None, force=True).run is None
    assert aliases(here) == {"champion": 1, "challenger": 2}


def test_it_is_promoted_only_if_told_and_a_verdict_of_who_was_champion_is_stale(here):
    again(here)
    done = again(here, promote=True)
    assert done.decision == "done before" and done.promotion.done
    assert aliases(here) == {"champion": 2, "challenger": 2}
    assert Registry(here / "models").alias("m", "champion").gates == done.gates
    assert again(here, promote=True).promotion.already
    stale = again(here, data="old.parquet")
    assert stale.decision == "stale" and aliases(here)["challenger"] == 2


def test_a_challenger_that_is_no_better_is_not_promoted(here):
    noise = turned(3000, 1)
    y = np.random.default_rng(9).permutation(noise["y"].to_numpy(zero_copy_only=False))
    pq.write_table(noise.set_column(4, "y", pa.array(y.tolist())), here / "noise.parquet")
    done = again(here, data="noise.parquet", promote=True, judge=str(here / "old.parquet"))
    assert done.code == 4 and not done.promotion.done
    assert aliases(here) == {"champion": 1, "challenger": 2}
    assert not Registry(here / "models").alias("m", "challenger").gates["passed"]


def test_a_crash_after_the_training_is_gone_on_from(here, monkeypatch):
    move = Registry.move
    monkeypatch.setattr(Registry, "move", lambda *a, **k: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(OSError):
        again(here)
    assert aliases(here) == {"champion": 1}
    monkeypatch.setattr(Registry, "move", move)
    done = again(here)
    assert (done.version, done.run, done.gates["passed"]) == (2, None, True)
    assert len(list((here / "runs").glob("2*"))) == 1
    assert aliases(here) == {"champion": 1, "challenger": 2}


def test_a_first_model_and_no_registry(here):
    first = again(here, registry=str(here / "others" / "first"), promote=True)
    assert first.version == 1 and first.promotion.done and first.gates["rows"] is None
    alone = again(here, registry=None, runs=here / "alone")
    assert alone.decision == "retrain" and alone.version is None and alone.gates is None
    assert again(here, registry=None, runs=here / "alone").run == alone.run


def test_what_cannot_be_is_told_before_any_training(here):
    config = load_config(here / "p.yaml")
    with pytest.raises(ConfigError, match="no verdict"):
        retrain(config, runs=here / "runs")
    with pytest.raises(ConfigError, match="none was named"):
        again(here, registry=None, promote=True)
    (here / "q.yaml").write_text(PIPELINE.replace("holdout: 0.3", "holdout: 0"))
    with pytest.raises(ConfigError, match="keeps no holdout"):
        retrain(load_config(here / "q.yaml"), verdict=here / "alert" / "verdict.json",
                registry=str(here / "models" / "m"), runs=here / "runs")
    (here / "odd.json").write_text("[1]")
    for path, says in ((here / "odd.json", "no verdict of"), (here / "no.json", "cannot be read")):
        with pytest.raises(DataError, match=says):
            retrain(config, verdict=path, runs=here / "runs")
    assert not list((here / "runs").glob("2*"))


def test_the_command(here, capfd):
    line = ["retrain", str(here / "p.yaml"), "--verdict", str(here / "alert" / "verdict.json"),
            "--registry", str(here / "models" / "m"), "--data", str(here / "new.parquet"),
            "--runs", str(here / "runs")]
    assert call([*line, "--promote", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["decision"], told["version"], told["promotion"]["done"]) == ("retrain", 2, True)
    assert call(line) == 0
    out = capfd.readouterr().out
    assert "done before" in out and "gate" in out
