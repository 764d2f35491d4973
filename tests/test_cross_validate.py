"""Folds by themselves: judged without a final model, side by side, and used by the run after."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from common.quick import settings, small_table, trained_on
from typer.testing import CliRunner

import gpupipe
from gpupipe import workflow
from gpupipe.cli.verbs import app
from gpupipe.config import parse_config
from gpupipe.engine.memory import Memory
from gpupipe.errors import ConfigError, EnvironmentFault
from gpupipe.models.boosting import WATCHED

CONFIG = settings(split={"holdout": 0.25, "folds": 4}, evaluate={"baselines": ["linear"]},
                  model={"kind": "xgboost", "params": {"n_estimators": 40, "max_depth": 3}})


@pytest.fixture(scope="module")
def table():
    return small_table(1_000)


def test_its_metrics_are_those_of_a_run_and_the_run_after_it_trains_the_final_model(
    table, tmp_path
):
    found = gpupipe.cross_validate(CONFIG, table, runs=tmp_path)
    assert not (tmp_path / "latest").exists()
    done = gpupipe.run(CONFIG, table, runs=tmp_path)
    assert found["metrics"] == done.summary["cross_validation"]
    assert len(found["folds"]) == 4 and set(found["folds"][0]) == set(found["metrics"])
    assert found["rows"] == int((pq.read_table(done.run / "predictions.parquet")["fold"]
                                 .to_numpy() >= 0).sum())
    assert any(note.startswith("8 of 10 models were trained by an earlier run")
               for note in done.summary["notes"])


def test_without_folds_it_says_what_to_set(table, tmp_path):
    with pytest.raises(ConfigError, match="there are no folds") as error:
        gpupipe.cross_validate({**CONFIG, "split": {"folds": 0}}, table, runs=tmp_path)
    assert "split.folds" in str(error.value.hint)


def test_the_command_shows_the_folds(table, tmp_path, monkeypatch):
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "pipeline.yaml").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, ["cross-validate", "pipeline.yaml"], standalone_mode=False)
    assert answer.exception is None
    found = answer.return_value
    assert found.code == 0 and found.data["evaluated_on"] == "cross_validation"
    assert len(found.data["folds"]) == 4
    found.show()


def test_folds_side_by_side_are_those_of_one_after_the_other(table, monkeypatch):
    together = trained_on(table, {**CONFIG, "engine": {"workers": 3}})
    assert together.layout.at_once == 3
    assert together.layout.waves(4, 3) == [(range(3), 1), (range(3, 4), 3)]
    lay_out = Memory.lay_out
    monkeypatch.setattr(Memory, "lay_out", lambda self, *given: lay_out(
        Memory(self.limit, 1, self.batch_rows), *given))
    alone = trained_on(table, {**CONFIG, "engine": {"workers": 1}})
    assert alone.layout.at_once == 1
    np.testing.assert_array_equal(alone.model.oof, together.model.oof)
    assert alone.fingerprint == together.fingerprint


def test_what_training_predicts_on_the_way_is_what_the_model_predicts(table, monkeypatch):
    """Out-of-fold predictions come with the fold's training; a saved model makes them anew."""
    known = trained_on(table, CONFIG)
    assert len(known.model.curves[0]["valid"]) == WATCHED
    from gpupipe.models.trees import FittedTrees

    fit = FittedTrees.__init__

    def forgetful(self, *given, **named):
        fit(self, *given, **named)
        self.judged = None

    monkeypatch.setattr(FittedTrees, "__init__", forgetful)
    anew = trained_on(table, CONFIG)
    np.testing.assert_array_equal(known.model.oof, anew.model.oof)


def test_a_plan_and_a_check_say_what_a_run_would_refuse(table, tmp_path, monkeypatch):
    pq.write_table(table, tmp_path / "t.parquet")
    config = parse_config({**CONFIG, "engine": {"memory": "1MiB"}, "data": {
        **CONFIG["data"], "source": str(tmp_path / "t.parquet")}})
    monkeypatch.chdir(tmp_path)
    assert "this is more than may be taken: a run would be refused" in workflow.plan(config).lines()
    with pytest.raises(EnvironmentFault, match="may take 1"):
        workflow.check(config)
