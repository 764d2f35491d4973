"""What a search tried is on the leaderboard: trials, the ensemble, baselines, the model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from common.quick import FEW, settings, small_table
from sklearn.metrics import roc_auc_score

import gpupipe


@pytest.mark.parametrize("kind", ["none", "blend"])
def test_a_search_s_trials_are_ranked_beside_the_baselines(kind, tmp_path):
    config = settings(
        split={"holdout": 0.25, "folds": 2}, tune={"trials": 3, "models": ["xgboost"]},
        ensemble=kind, evaluate={"baselines": ["constant"], "resamples": 50},
        model={"kind": "xgboost", "params": FEW})
    done = gpupipe.run(config, small_table(), runs=tmp_path)
    board = done.summary["leaderboard"]
    manifest = json.loads((done.run / "manifest.json").read_text())
    trials = {f"{t['kind']} #{t['number']}": t for t in manifest["search"]["trials"]
              if t["state"] == "complete"}
    names = [e["name"] for e in board["entries"]]
    models = [n for n in names if n.endswith(", the model")]
    assert len(models) == 1 and models[0].startswith("blend" if kind == "blend" else "xgboost #")
    plain = {n.removesuffix(", the model") for n in names}
    assert plain - {n for n in plain if n.startswith("blend")} == {*trials, "constant"}
    for entry in board["entries"]:
        trial = trials.get(entry["name"].removesuffix(", the model"))
        if trial is not None:
            assert entry["score"]["value"] == pytest.approx(trial["score"], abs=1e-6)
            assert (entry["work_units"], entry["kind"]) == (trial["units"], "xgboost")
    assert board["correction"]["candidates"] == len(names)
    chance = next(e for e in board["entries"] if e["name"] == "constant")
    assert chance["rank"] > 1 and chance["score"]["value"] == pytest.approx(0.5, abs=0.06)
    assert "the model" in done.report.read_text()


def test_the_leaderboard_s_scores_are_scikit_learn_s_within_folds_too(tmp_path):
    import pyarrow.parquet as pq

    done = gpupipe.run(settings(split={"holdout": 0, "folds": 3}, evaluate={
        "baselines": ["linear"], "resamples": 50}), small_table(), runs=tmp_path)
    first = next(e for e in done.summary["leaderboard"]["entries"] if e["name"] == "model")
    kept = pq.read_table(done.run / "predictions.parquet")
    y = np.array(kept["target"].to_pylist()) == "yes"
    p, fold = kept["probability"].to_numpy(), kept["fold"].to_numpy()
    assert first["score"]["value"] == pytest.approx(roc_auc_score(y, p), rel=1e-9)
    expected = [roc_auc_score(y[fold == k], p[fold == k]) for k in range(3)]
    assert first["folds"] == pytest.approx(expected, rel=1e-9)
    assert first["deviation"] == pytest.approx(np.std(expected, ddof=1))
