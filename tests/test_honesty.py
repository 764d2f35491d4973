"""The same model under other splits: what is found, what it costs, what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from common.quick import settings, small_table

import gpupipe
from gpupipe import honesty
from gpupipe.config import parse_config
from gpupipe.errors import ConfigError
from gpupipe.honesty import sentence

N, GROUPS = 1_500, 150


def table(n: int = N, seed: int = 0) -> pa.Table:
    """Rows of patients: three columns name the patient, whose outcome nothing else foretells."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, GROUPS, n)
    traits, effect = rng.normal(size=(GROUPS, 3)), 2 * rng.normal(size=GROUPS)
    x = rng.normal(size=n)
    chance = 1 / (1 + np.exp(-(x / 2 + effect[group]) * 2))
    return pa.table({
        "patient_id": [f"p{g}" for g in group], "x": x,
        **{f"trait{i}": traits[group, i] for i in range(3)},
        "seen": pa.array(np.arange(n) * 10**9, pa.timestamp("us")),
        "label": np.where(rng.random(n) < chance, "yes", "no"),
    })


def config(**sections) -> dict:
    params = {"n_estimators": 30, "max_depth": 6}
    base = {"data": {"source": "t", "target": "label", "drop": ["patient_id", "seen"]},
            "split": {"holdout": 0.2, "folds": 0}, "evaluate": {"baselines": [], "resamples": 100},
            "model": {"kind": "xgboost", "params": params}, "engine": {"workers": 1}}
    return {**base, **sections}


def run(runs: Path, rows: pa.Table, **sections) -> tuple[gpupipe.workflow.RunResult, dict | None]:
    done = gpupipe.run(config(**sections), rows, runs=runs)
    return done, done.summary["split_honesty"]


def test_a_random_split_is_kind_to_groups_and_a_group_split_is_not(tmp_path):
    done, found = run(tmp_path, table())
    by = {s["by"]: s for s in found["splits"]}
    assert list(by) == ["random", "group", "time", "shuffled"]
    assert by["random"]["score"]["value"] > 0.75
    assert by["group"]["score"]["value"] < 0.65
    assert by["random"]["score"]["low"] > by["group"]["score"]["high"]
    # Nothing changes with time: an order of time does as well as any.
    assert abs(by["time"]["score"]["value"] - by["shuffled"]["score"]["value"]) < 0.05
    assert 0.7 * N < found["rows"] < 0.9 * N and by["group"]["rows"] == found["rows"]
    text = found["sentence"]
    assert "by patient_id" in text and "new rows are of new groups, expect what it is by" in text
    assert "new moments" not in text
    page = done.report.read_text()
    assert "ROC AUC by how the rows are split" in page and "in an order drawn at random" in page


def test_what_drifts_is_worse_in_the_order_of_time_than_in_a_drawn_one(tmp_path):
    rng = np.random.default_rng(1)
    x, moment = rng.normal(size=N), np.arange(N)
    late = moment >= N / 2
    data = pa.table({"x": x, "late": late, "time": moment,
                     "label": np.where(np.where(late, -x, x) > 0, "yes", "no")})
    plain = {"data": {"source": "t", "target": "label", "drop": ["time"]}}
    _, found = run(tmp_path, data, **plain)
    by = {s["by"]: s["score"]["value"] for s in found["splits"]}
    assert list(by) == ["random", "time", "shuffled"]
    assert by["time"] < by["shuffled"] - 0.05
    assert "new moments, expect what it is in the order of time" in found["sentence"]


def test_the_holdout_takes_no_part(tmp_path):
    data = table()
    keyed = data.append_column("row", pa.array(range(N)))
    shared = {"data": {"source": "t", "target": "label", "key": "row", "positive": "yes",
                       "drop": ["patient_id", "seen"]},
              "split": {"holdout": 0.2, "folds": 0, "by": "random"}}
    done, first = run(tmp_path, keyed, **shared)
    held = set(pq.read_table(done.run / "predictions.parquet")["row"].to_pylist())
    assert len(held) + first["rows"] == N
    # The labels of the holdout are turned round, and nothing changes.
    labels = [("no" if v == "yes" else "yes") if i in held else v
              for i, v in enumerate(data["label"].to_pylist())]
    at = keyed.column_names.index("label")
    _, again = run(tmp_path, keyed.set_column(at, "label", pa.array(labels)), **shared)
    assert again["splits"] == first["splits"]


def test_rows_and_rounds_are_bounded_and_groups_are_sampled_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(honesty, "ROWS", 400)
    monkeypatch.setattr(honesty, "ROUNDS", 5)
    seen = []
    train = honesty.train
    monkeypatch.setattr(honesty, "train", lambda c, d, *a, **k: seen.append((c, d)) or train(
        c, d, *a, **k))
    data = table()
    _, found = run(tmp_path, data)
    assert 250 < found["rows"] < 550
    assert {c.model.params["n_estimators"] for c, _ in seen} == {5}
    groups = seen[0][1].to_table(["patient_id"]).column(0)
    whole = dict(zip(*np.unique(data["patient_id"].to_pylist(), return_counts=True), strict=True))
    sampled = dict(zip(*np.unique(groups.to_pylist(), return_counts=True), strict=True))
    assert len(sampled) < 0.5 * GROUPS
    share = sum(sampled.values()) / sum(whole[g] for g in sampled)
    assert share == pytest.approx(0.8, abs=0.08)  # all but what lies in the holdout


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_named_columns_are_taken_whatever_they_are_called(task, tmp_path):
    data = small_table(600)
    base = settings(task, split={"holdout": 0.25, "folds": 0, "by": "group", "group": ["s", "b"],
                                 "time": "i", "honesty": True})
    found = gpupipe.run(base, data, runs=tmp_path).summary["split_honesty"]
    names = [s["name"] for s in found["splits"]] + [s["name"] for s in found["left_out"]]
    assert names[:2] == ["random", "by s and b"] and "in the order of i" in names
    # A tenth of the moments are missing: that split is not to be had, and it says so.
    (told,) = [s for s in found["left_out"] if s["by"] == "time"]
    assert "missing" in told["why"] and "not in the order of i (" in found["sentence"]


def test_without_groups_and_times_nothing_is_trained_and_true_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(honesty, "train", None)
    plain = table().drop_columns(["patient_id", "seen"])
    drop = {"data": {"source": "t", "target": "label"}}
    assert run(tmp_path, plain, **drop)[1] is None
    done, found = run(tmp_path, plain, split={"holdout": 0.2, "folds": 0, "honesty": True}, **drop)
    assert found is None
    assert any("name one with split.group or split.time" in n for n in done.summary["notes"])
    assert run(tmp_path, table(), split={"holdout": 0.2, "folds": 0, "honesty": False})[1] is None


def test_the_switch_is_true_false_or_auto_and_changes_no_split():
    assert parse_config(config()).split.honesty == "auto"
    with pytest.raises(ConfigError, match="honesty"):
        parse_config(config(split={"honesty": "often"}))


def test_only_what_is_worse_beyond_both_intervals_is_warned_of():
    def found(low: float, high: float, metric: str = "roc_auc") -> dict:
        ends = {"random": (0.88, 0.92), "group": (low, high)}
        return {"metric": metric, "left_out": [], "splits": [
            {"by": by, "name": by, "score": {"value": (a + b) / 2, "low": a, "high": b}}
            for by, (a, b) in ends.items()]}

    assert "expect" in sentence(found(0.7, 0.8)) and "expect" not in sentence(found(0.85, 0.9))
    assert "expect" not in sentence(found(0.95, 0.97))
    assert "expect" in sentence(found(0.95, 0.97, "log_loss"))
