"""The search: its budgets, what it keeps, and that a killed one ends as if nobody had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from common.killing import start
from common.quick import settings, small_table, trained_on

from gpupipe.config import parse_config
from gpupipe.errors import ConfigError
from gpupipe.evaluate.scores import evaluate
from gpupipe.models import MODELS

pytestmark = pytest.mark.long

MEASURED = ("seconds", "latency", "size")
"""What differs from run to run, for it is of the machine."""
SPACE = {"n_estimators": [3, 12], "max_depth": [2, 4], "learning_rate": [0.05, 0.5]}


def searching(task: str = "binary", **sections: Any) -> dict[str, Any]:
    tune = {"trials": 6, "models": "xgboost", "space": SPACE, **sections.pop("tune", {})}
    model = sections.pop("model", {"kind": "xgboost"})
    return settings(task, split={"holdout": 0.25, "folds": 3}, model=model,
                    tune=tune, ensemble=sections.pop("ensemble", "none"), **sections)


def rows(found: Any) -> list[dict[str, Any]]:
    trials = found["trials"] if isinstance(found, dict) else [t.row() for t in found.trials]
    return [{k: v for k, v in t.items() if k not in MEASURED} for t in trials]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return trained_on(small_table(), searching(), tmp_path_factory.mktemp("cache"))


def test_the_table_of_trials(done):
    found = done.chosen.found
    assert [t.number for t in found.trials] == list(range(6))
    assert found.trials[0].params == {}, "first the family as it is"
    complete = [t for t in found.trials if t.state == "complete"]
    assert found.best.score == max(t.score for t in complete)
    assert all(t.latency > 0 and t.size > 0 for t in complete)
    y, weight = done.target_of(done.oof_buckets)
    again = evaluate("binary", y, found.best.oof.astype(float), weight=weight,
                     metrics=["roc_auc"], resamples=0)["roc_auc"].value
    assert again == found.best.score
    assert np.array_equal(done.model.oof, found.best.oof.astype(float))
    assert done.final.rounds == found.best.rounds


def test_the_same_seed_gives_the_same_trials_and_another_one_others(done, tmp_path):
    again = trained_on(small_table(), searching(), tmp_path)
    assert rows(again.chosen.found) == rows(done.chosen.found)
    other = trained_on(small_table(), {**searching(), "seed": 1}, tmp_path)
    assert rows(other.chosen.found) != rows(done.chosen.found)


@pytest.mark.parametrize("least", [1.0, 0.0])
def test_losses_of_values_above_0_are_tried_where_all_are(least, tmp_path):
    table = small_table()
    amount = table["amount"].to_numpy()
    at = table.column_names.index("amount")
    table = table.set_column(at, "amount", pa.array(amount - amount.min() + least))
    found = trained_on(table, searching("regression", tune={"trials": 12}), tmp_path).chosen.found
    tried = [t for t in found.trials if t.params.get("objective") == "reg:tweedie"]
    assert bool(tried) == (least > 0)
    for t in tried:
        assert t.state != "failed" and (t.oof is None or (t.oof > 0).all())


def test_work_units_are_rows_times_rounds_and_replay(done, tmp_path):
    found = done.chosen.found
    train = [int(np.isin(np.concatenate([r.bucket for r in done.rowed.rows]), f.train).sum())
             for f in done.split.folds]
    fixed = [t for t in found.trials if "n_estimators" in t.params and t.state == "complete"]
    assert fixed
    for t in fixed:
        assert t.units == t.params["n_estimators"] * sum(train)
    replayed = trained_on(small_table(), searching(tune={"trials": None,
                                                         "work_units": found.units}), tmp_path)
    assert rows(replayed.chosen.found) == rows(found)


def test_minutes_end_a_search_and_leave_the_units_to_replay_it(tmp_path):
    timed = trained_on(small_table(), searching(tune={"trials": None, "minutes": 0.02}), tmp_path)
    found = timed.chosen.found
    assert len(found.trials) >= 2
    again = trained_on(small_table(), searching(tune={"trials": None, "work_units": found.units}),
                       tmp_path / "other")
    assert rows(again.chosen.found) == rows(found)


@pytest.mark.parametrize("task", ["multiclass", "regression"])
@pytest.mark.parametrize("how", ["blend", "stack"])
def test_ensembles_of_families(task, how, tmp_path):
    config = searching(task, ensemble=how, tune={
        "models": ["xgboost", "linear"], "space": {"xgboost.n_estimators": [3, 12]}})
    trained = trained_on(small_table(), config, tmp_path)
    made = trained.chosen.ensemble
    assert made is not None
    assert trained.final.kind == "ensemble"
    found = trained.chosen.found
    y, _ = trained.target_of(trained.oof_buckets)
    fold = trained.fold_of_rows()

    def value(prediction, rows):
        return evaluate(task, y[rows], prediction[rows].astype(float), metrics=[found.metric.name],
                        resamples=0)[found.metric.name].value

    everywhere = np.full(len(y), True)
    alone = np.empty_like(made.oof)  # the single trial that is best on the other folds
    for k in np.unique(fold):
        best = max(found.kept, key=lambda t, others=fold != k: value(t.oof, others))
        alone[fold == k] = best.oof[fold == k]
    assert found.metric.greater_is_better
    gain = value(made.oof, everywhere) - value(alone, everywhere)
    assert made.gain.value == pytest.approx(gain, abs=1e-6)
    assert len(trained.model.holdout) == sum(
        np.isin(r.bucket, trained.split.holdout).sum() for r in trained.rowed.rows)


@pytest.mark.parametrize("tune", [
    {"prune_on": "rounds"}, {"prune_on": "rounds", "pruner": "hyperband"},
    {"sampler": "random"}, {"pruner": "hyperband"}, {"pruner": "none"}, {"parallel": 3},
    {"objectives": ["quality", "size"]}, {"objectives": ["quality", "latency"]},
    {"space": {**SPACE, "features.encoder": ["ordinal", "target_encode", "one_hot"]}},
])
def test_ways_of_searching(tune, tmp_path):
    trained = trained_on(small_table(), searching(tune=tune), tmp_path)
    found = trained.chosen.found
    assert len(found.trials) == 6
    assert all(t.state in ("complete", "pruned") for t in found.trials)
    best = max(t.score for t in found.trials if t.score is not None)
    assert found.best.score == best or "objectives" in tune


def test_a_trial_that_falls_behind_is_ended_after_some_rounds(tmp_path):
    """Steps that are far too small: after 50 rounds they have learned next to nothing."""
    space = {"n_estimators": 100, "max_depth": 2, "learning_rate": {"choices": [0.05, 1e-4]}}
    tune = {"trials": 16, "sampler": "random", "prune_on": "rounds", "space": space}
    found = trained_on(small_table(), searching(tune=tune), tmp_path).chosen.found
    ended = [t for t in found.trials if t.state == "pruned"]
    assert any(t.params["learning_rate"] == 1e-4 for t in ended)
    assert all(t.score is None and max(t.looks) < 100 for t in ended)
    assert max(t.units for t in ended) < min(t.units for t in found.trials if t.score)


def test_a_grid_is_searched_whole(tmp_path):
    config = searching(tune={"trials": None, "sampler": "grid", "space": {
        "max_depth": [2, 3, 4], "n_estimators": {"choices": [4]}}})
    found = trained_on(small_table(), config, tmp_path).chosen.found
    assert [t.params["max_depth"] for t in found.trials] == [2, 3, 4]


def test_choices_of_steps_cost_no_scan_where_the_states_hold_what_is_needed(tmp_path):
    features = [{"target_encode": {"columns": ["s"]}}, {"drop": {"columns": ["t"]}}]
    plain = searching(features=features, tune={"space": SPACE})
    varied = searching(features=features, tune={"space": {
        **SPACE, "features.target_encode.smooth": [1.0, 50.0]}})
    few = trained_on(small_table(), plain, tmp_path / "a")
    many = trained_on(small_table(), varied, tmp_path / "b")
    trials = many.chosen.found.trials[1:]
    tried = {t.features["target_encode.smooth"] for t in trials}
    starts = len(MODELS["xgboost"].starts)
    assert len(tried) == len(trials) - starts + 1, "starts have the middle, others differ"
    assert many.knowledge.scans == few.knowledge.scans


def test_a_trial_that_cannot_be_trained_is_told_of_and_passed_over(tmp_path):
    config = searching(tune={"models": ["linear", "xgboost"], "trials": 5, "space": {}},
                       features=[{"ordinal": {"columns": ["s"]}}, {"drop": {"columns": ["t"]}}])
    found = trained_on(small_table(), config, tmp_path).chosen.found
    failed = [t for t in found.trials if t.state == "failed"]
    assert failed
    assert all(t.kind == "linear" and t.why for t in failed)
    assert found.best.kind == "xgboost"
    with pytest.raises(ConfigError, match="no trial could be trained"):
        trained_on(small_table(), {**config, "tune": {"trials": 2, "models": "linear"}}, tmp_path)


def test_a_search_of_what_is_not_boosted_has_all_its_trials(tmp_path):
    config = searching(tune={"models": "linear", "trials": 4, "space": {}}, model={
        "kind": "linear", "params": {}})
    found = trained_on(small_table(), config, tmp_path).chosen.found
    assert len(found.trials) == 4


def test_a_search_needs_folds(tmp_path):
    config = {**searching(), "split": {"folds": 0}}
    with pytest.raises(ConfigError, match="folds to choose by"):
        trained_on(small_table(), config, tmp_path)


def test_a_search_that_is_killed_ten_times_ends_as_if_nobody_had(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(small_table(), path)
    config = searching(tune={"trials": 9}, data={"source": str(path)})
    parse_config(config)
    whole = start(config, tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0
    for kill in range(10):
        point = "trial saved" if kill % 2 else "trial written"
        process = start(config, tmp_path / "runs", crash_at=point)
        process.join()
        assert process.exitcode == -9, f"kill {kill} at {point}"
    last = start(config, tmp_path / "runs")
    last.join()
    assert last.exitcode == 0
    manifests = [json.loads((tmp_path / runs / "latest" / "manifest.json").read_text())["search"]
                 for runs in ("whole", "runs")]
    assert rows(manifests[0]) == rows(manifests[1])
    assert manifests[0]["best"] == manifests[1]["best"]
    bundles = [json.loads((Path(tmp_path) / runs / "latest" / "bundle" / "hashes.json").read_text())
               for runs in ("whole", "runs")]
    assert bundles[0] == bundles[1]
