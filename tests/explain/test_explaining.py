"""Explanations of trained pipelines: the same for every layout, honest, bounded, and switchable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from common.quick import FEW, TARGETS, settings, small_table, trained_on
from sklearn.metrics import f1_score, roc_auc_score

from gpupipe import workflow
from gpupipe.bundle.contributions import column_contributions, owners
from gpupipe.bundle.scoring import load
from gpupipe.config import parse_config
from gpupipe.errors import ConfigError, DataError
from gpupipe.explain import explain, scorers
from gpupipe.explain.rows import pool, read_rows
from gpupipe.explain.scorers import scorer_of
from gpupipe.explain.shapley import shap_of
from gpupipe.models.trees import FittedTrees
from gpupipe.record import contents_of
from gpupipe.training import Trained

FOLDS = {"holdout": 0, "folds": 3}


def explained(source: Any, config: dict[str, Any], cache: Path) -> tuple[Trained, dict[str, Any]]:
    trained = trained_on(source, config, cache)
    return trained, explain(trained, contents_of(trained))


def with_rows(task: str = "binary", rows: int = 60, **sections: Any) -> dict[str, Any]:
    return settings(task, explain={"rows": rows, "repeats": 2, "columns": 3}, **sections)


def test_the_same_rows_in_any_layout_have_the_same_explanations(tmp_path):
    table = small_table(400, seed=5)
    pq.write_table(table, tmp_path / "whole.parquet", row_group_size=400)
    parts = tmp_path / "parts"
    parts.mkdir()
    for i in range(4):
        pq.write_table(table.slice(i * 100, 100), parts / f"{i}.parquet", row_group_size=37)
    plain = with_rows(split=FOLDS, model={"kind": "linear"})
    config = {**plain, "engine": {"batch_rows": 29, "workers": 2}}
    _, first = explained(tmp_path / "whole.parquet", plain, tmp_path / "a")
    _, second = explained(parts, config, tmp_path / "b")
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert {"shap", "permutation", "dependence", "slices", "mistakes"} <= set(first)
    _, other = explained(parts, {**config, "seed": 1}, tmp_path / "c")
    assert other["shap"]["base"] != first["shap"]["base"]


def test_the_sample_does_not_depend_on_the_order_of_the_rows(tmp_path):
    # Training does, to a rounding error: so it is the rows that are compared.
    table = small_table(400, seed=5)
    config = with_rows(split=FOLDS, model={"kind": "constant"})
    samples = []
    for order in (np.arange(400), np.random.default_rng(1).permutation(400)):
        trained = trained_on(table.take(pa.array(order)), config, tmp_path)
        rows = pool(trained)
        samples.append(rows.read(rows.sample(60), ["f", "s", "t", "i"]))
    assert samples[0].table.equals(samples[1].table)
    np.testing.assert_array_equal(samples[0].y, samples[1].y)
    assert len(samples[0]) == 60


@pytest.mark.parametrize("split", [FOLDS, {"holdout": 0.25, "folds": 0}], ids=["folds", "holdout"])
@pytest.mark.parametrize("task", list(TARGETS))
def test_the_scorer_gives_every_row_the_prediction_that_the_run_reports(task, split, tmp_path):
    sections: dict[str, Any] = {"split": split}
    if split == FOLDS:  # the rounds are chosen on all folds together, below those of some fold
        sections["model"] = {"kind": "xgboost", "params": {"max_depth": 2, "learning_rate": 0.5,
                                                           "early_stopping_rounds": 5}}
    trained = trained_on(small_table(300), settings(task, **sections), tmp_path)
    scorer, rows = scorer_of(trained, contents_of(trained)), pool(trained)
    judged = rows.read(rows.sample(10**9), scorer.bundles[-1].schema.names)
    np.testing.assert_allclose(scorer.scores(judged.table, judged.fold), judged.prediction,
                               atol=1e-6)
    assert len(judged) == len(rows.y)
    assert set(judged.fold.tolist()) == ({0, 1, 2} if split == FOLDS else {-1})


def test_rows_are_read_as_they_are_in_the_file(tmp_path):
    table = small_table(200)
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=31)
    trained = trained_on(tmp_path / "t.parquet", settings(engine={"batch_rows": 17}), tmp_path)
    places = np.array([199, 0, 57, 57, 101, *range(60, 90)])
    columns = ["t", "s", "b", "i", "f", "narrow"]
    found = read_rows(trained.rowed, columns, places)
    assert found.equals(table.select(columns).take(pa.array(places)))
    assert read_rows(trained.rowed, columns, places[:0]).num_rows == 0


def test_contributions_of_columns_add_up_with_steps_that_make_several_features(tmp_path):
    steps = [{"ratio": {"columns": ["f", "narrow"]}},
             {"impute": {"columns": "numeric", "indicator": True}}, {"one_hot": {"columns": ["s"]}},
             {"datetime": {"columns": ["t"]}}]
    trained = trained_on(small_table(300), settings(features=steps), tmp_path)
    scorer, rows = scorer_of(trained, contents_of(trained)), pool(trained)
    bundle = scorer.bundles[-1]
    of = dict(zip(bundle.feature_names, owners(bundle), strict=True))
    assert all(name.startswith(owner[0]) for name, owner in of.items())
    assert set(of.values()) == {("f",), ("narrow",), ("i",), ("b",), ("s",), ("t",),
                                ("f", "narrow")}
    judged = rows.read(rows.sample(40), bundle.schema.names)
    found = scorer.explained(-1, judged.table)
    p = scorer.scores(judged.table, judged.fold)
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base, np.log(p / (1 - p)),
                               atol=1e-5)


def test_permutation_importance_of_a_run_is_that_of_its_bundle(tmp_path):
    trained, found = explained(small_table(300), with_rows(rows=50), tmp_path)
    told = found["permutation"]
    rows = pool(trained)
    judged = rows.read(rows.sample(50), scorer_of(trained, contents_of(trained))
                       .bundles[-1].schema.names)
    assert told["metric"] == "roc_auc"
    assert told["base"] == pytest.approx(roc_auc_score(judged.y, judged.prediction))
    assert {c["column"] for c in told["columns"]} == {"f", "narrow", "i", "b", "s", "t"}
    assert told["columns"][0]["column"] in ("f", "s")  # what the label is made of
    assert all(len(c["drops"]) == 2 for c in told["columns"])


def test_rows_that_training_saw_are_not_judged_by(tmp_path):
    _, found = explained(small_table(200), with_rows(split={"holdout": 0, "folds": 0}), tmp_path)
    assert found["basis"] == "training"
    assert not {"permutation", "slices", "mistakes"} & set(found)
    assert "remembered" in found["notes"][0]
    assert found["shap"]["rows"] == 60
    assert len(found["dependence"]) == 3


@pytest.mark.parametrize("task", list(TARGETS))
def test_a_model_without_contributions_has_sampled_ones_of_its_columns(task, tmp_path, monkeypatch):
    monkeypatch.delattr(FittedTrees, "contributions")
    trained, found = explained(small_table(300), with_rows(task), tmp_path)
    told = found["shap"]
    assert told["method"] == "sampled"
    assert found["notes"] == ["SHAP values are sampled: model 'xgboost' has no exact contributions"]
    assert told["columns"][0]["column"] in ("f", "s")  # what the targets are made of
    assert told["scale"] == ("target" if task == "regression" else "probability")
    scorer, rows = scorer_of(trained, contents_of(trained)), pool(trained)
    judged = rows.read(rows.sample(60), scorer.bundles[-1].schema.names)
    shap, _ = shap_of(scorer, judged, judged.table.column_names, task, 0, 1.0)
    base = np.asarray(told["base"]) if task == "multiclass" else told["base"][0]
    np.testing.assert_allclose(shap.columns.sum(axis=1) + base,
                               scorer.scores(judged.table, judged.fold), atol=1e-9)
    assert any(r["reasons"] for r in found["mistakes"]["rows"])


def test_a_model_that_is_slow_to_score_is_asked_less(tmp_path, monkeypatch):
    table, config = small_table(800), with_rows(rows=200, split=FOLDS)
    monkeypatch.setattr(scorers, "USUAL", 2)  # as if the model held a hundred thousand numbers
    _, found = explained(table, {**config, "model": {"kind": "linear"}}, tmp_path)
    assert found["rows"] == 50
    assert found["notes"] == ["50 rows are explained, not 200: scoring a row with this model takes "
                              "long"]
    holder = Holder({"a": np.zeros((3, 4)), "b": [{"c": np.zeros(2)}, b"xx"]})
    assert scorers.slowness_of(holder) == 7


class Holder:
    def __init__(self, payload: dict[str, Any]) -> None:
        self.payload = lambda: payload


def test_a_constant_model_gives_no_column_any_credit(tmp_path):
    config = with_rows(model={"kind": "constant"}, split=FOLDS)
    _, found = explained(small_table(200), config, tmp_path)
    assert all(c["size"] == 0 for c in found["shap"]["columns"])
    assert all(c["drop"] == 0 for c in found["permutation"]["columns"])
    assert all(d["spread"] == [0.0] * len(d["at"]) for d in found["dependence"])


def test_mistakes_are_the_rows_of_the_predictions_file(tmp_path):
    source = tmp_path / "t.parquet"
    table = small_table(300).append_column("id", pa.array([f"row {i}" for i in range(300)]))
    pq.write_table(table, source)
    config = with_rows("regression", data={"source": str(source), "key": "id"},
                       split={"holdout": 0.3})
    config["explain"]["mistakes"] = 4
    done = workflow.run(parse_config(config), runs=tmp_path / "runs")
    found = json.loads((done.run / "explanations.json").read_text())
    told = pq.read_table(done.run / "predictions.parquet").to_pandas()
    told["off"] = (told["prediction"] - told["target"]).abs()
    worst = told.sort_values("off", ascending=False).head(4)
    rows = found["mistakes"]["rows"]
    assert [r["values"]["id"] for r in rows] == worst["id"].tolist()
    assert [r["prediction"] for r in rows] == pytest.approx(worst["prediction"].tolist())
    names = dict(zip(table["id"].to_pylist(), table["f"].to_pylist(), strict=True))
    assert [r["values"]["f"] for r in rows] == [names[r["values"]["id"]] for r in rows]
    reasons = [(r["residual"], reason["effect"]) for r in rows for reason in r["reasons"]]
    assert reasons
    assert all(residual * effect > 0 for residual, effect in reasons)


@pytest.mark.parametrize("task", list(TARGETS))
def test_the_report_shows_them(task, tmp_path):
    source = tmp_path / "t.parquet"
    pq.write_table(small_table(300), source)
    config = with_rows(task, data={"source": str(source)})
    done = workflow.run(parse_config(config), runs=tmp_path / "runs")
    page = done.report.read_text()
    section = page[page.index('<section id="explanations"'):]
    titles = ["What matters", "Where it is worse than elsewhere",
              "The greatest errors" if task == "regression" else "The most confident mistakes"]
    titles += [] if task == "multiclass" else ["SHAP values by feature",
                                               "Where it is too high or too low"]
    assert all(t in section for t in titles)
    assert "explain" in done.summary["timings"]
    off = {**config, "explain": False}
    done = workflow.run(parse_config(off), runs=tmp_path / "runs")
    assert 'id="explanations"' not in done.report.read_text()
    assert not (done.run / "explanations.json").exists()


def test_the_section_may_be_false_or_true_and_knows_its_keys():
    base = {"data": {"source": "t.csv", "target": "y"}}
    assert parse_config({**base, "explain": False}).explain.rows == 0
    assert parse_config({**base, "explain": True}).explain == parse_config(base).explain
    assert parse_config({**base, "explain": {"rows": 200, "slices": 0}}).explain.slices == 0
    with pytest.raises(ConfigError, match="unknown key 'row'"):
        parse_config({**base, "explain": {"row": 200}})


def test_weak_slices_can_be_left_out_and_are_of_more_rows_than_the_rest(tmp_path):
    table = small_table(2000)
    config = settings(split={"holdout": 0, "folds": 2}, model={"kind": "xgboost", "params": FEW},
                      explain={"rows": 100, "repeats": 2, "columns": 0, "mistakes": 0})
    _, found = explained(table, config, tmp_path)
    assert found["rows"] == 100
    assert found["slices"]["worst"]["rows"] == 2000
    assert found["slices"]["worst"]["tested"] > 50
    assert not {"mistakes", "dependence"} & set(found)
    config["explain"]["slices"] = 0
    _, found = explained(table, config, tmp_path)
    assert "slices" not in found


def test_a_search_without_a_holdout_keeps_what_needs_no_fold_model(tmp_path):
    config = with_rows(split=FOLDS, tune={"trials": 2, "models": ["xgboost"]}, model={},
                       ensemble={"kind": "none"})
    config["model"] = {"kind": "xgboost", "params": FEW}
    _, found = explained(small_table(300), config, tmp_path)
    assert found["notes"] == ["a search keeps no fold's model, and there is no holdout: columns "
                              "cannot be permuted honestly"]
    assert found["shap"]["method"] == "exact"
    assert found["slices"]["worst"]["rows"] == 300
    assert all(not r["reasons"] for r in found["mistakes"]["rows"])


def test_an_ensemble_is_explained_as_a_whole(tmp_path):
    config = with_rows(tune={"trials": 3, "models": ["xgboost", "linear"]},
                       split={"holdout": 0.3, "folds": 2}, ensemble={"kind": "blend"})
    trained, found = explained(small_table(300), config, tmp_path)
    assert trained.final.kind == "ensemble"
    assert found["shap"]["method"] == "sampled"
    scorer, rows = scorer_of(trained, contents_of(trained)), pool(trained)
    judged = rows.read(rows.sample(found["shap"]["rows"]), scorer.bundles[-1].schema.names)
    shap, _ = shap_of(scorer, judged, judged.table.column_names, "binary", 0, 1.0)
    np.testing.assert_allclose(shap.columns.sum(axis=1) + shap.told["base"][0], judged.prediction,
                               atol=1e-6)
    assert found["permutation"]["base"] == pytest.approx(
        roc_auc_score(rows.read(rows.sample(60), ["f"]).y, rows.prediction[rows.sample(60)]))


def test_calibration_and_threshold_are_part_of_what_is_explained(tmp_path):
    config = with_rows(split={"holdout": 0.3, "folds": 3}, calibrate="sigmoid",
                       decide={"threshold": 0.2}, evaluate={"metrics": ["f1"]})
    trained, found = explained(small_table(400), config, tmp_path)
    assert found["shap"]["scale"] == "uncalibrated log-odds"
    rows = pool(trained)
    judged = rows.read(rows.sample(60), ["f"])
    assert found["permutation"]["base"] == pytest.approx(
        f1_score(judged.y, judged.prediction > 0.2))
    wrong = (rows.prediction > 0.2) != (rows.y == 1)
    assert len(found["mistakes"]["rows"]) == min(10, wrong.sum())
    for row in found["mistakes"]["rows"]:
        assert row["truth"] != row["prediction"]
        positive = row["probability"] if row["prediction"] == trained.target.classes[1] else (
            row["truth_probability"])
        assert (positive > 0.2) == (row["prediction"] == trained.target.classes[1])


@pytest.mark.parametrize("task", list(TARGETS))
def test_predictions_can_carry_what_each_column_adds(task, tmp_path):
    source = tmp_path / "t.parquet"
    pq.write_table(small_table(300), source)
    config = settings(task, data={"source": str(source)},
                      features=["drop_constant", {"one_hot": {"columns": ["s"]}},
                                {"datetime": {"columns": ["t"]}}])
    done = workflow.run(parse_config(config), runs=tmp_path / "runs")
    workflow.predict(done.run, source, tmp_path / "out.parquet", contributions=True)
    workflow.predict(done.run, source, tmp_path / "out", contributions=True)
    found = pq.read_table(tmp_path / "out.parquet").to_pandas()
    assert pq.read_table(tmp_path / "out").to_pandas().equals(found)
    names = ["f", "narrow", "i", "b", "s", "t"]
    total = found[[f"contribution_{n}" for n in names]].sum(axis=1) + found["base"]
    bundle = load(done.run)
    if task == "multiclass":
        told = column_contributions(bundle, pq.read_table(source))
        margins = told.values.sum(axis=1) + told.base
        np.testing.assert_allclose(total, margins.max(axis=1), atol=1e-9)
        assert (np.asarray(bundle.classes)[margins.argmax(axis=1)] == found["prediction"]).all()
    else:
        scores = found["prediction"] if task == "regression" else np.log(
            found["probability"] / (1 - found["probability"]))
        np.testing.assert_allclose(total, scores, atol=1e-5)


def test_a_bundle_without_contributions_says_so(tmp_path):
    source = tmp_path / "t.parquet"
    pq.write_table(small_table(100), source)
    config = settings(data={"source": str(source)}, model={"kind": "constant"})
    done = workflow.run(parse_config(config), runs=tmp_path / "runs")
    with pytest.raises(DataError, match="cannot say what its columns add: model 'constant'"):
        workflow.predict(done.run, source, tmp_path / "out.parquet", contributions=True)
    assert not list(tmp_path.glob("*out*"))


def test_folds_that_chose_other_features_are_scored_with_theirs(tmp_path):
    config = with_rows(split=FOLDS, select={"methods": [{"method": "mutual_information", "k": 3}]})
    trained, found = explained(small_table(300), config, tmp_path)
    scorer, rows = scorer_of(trained, contents_of(trained)), pool(trained)
    assert len({tuple(b.feature_names) for b in scorer.bundles.values()}) > 1
    judged = rows.read(rows.sample(300), scorer.columns)
    np.testing.assert_allclose(scorer.scores(judged.table, judged.fold), judged.prediction,
                               atol=1e-6)
    permuted = {c["column"] for c in found["permutation"]["columns"]}
    assert permuted == set(scorer.columns)
    assert found["mistakes"]["columns"] == scorer.columns
    assert any(r["reasons"] for r in found["mistakes"]["rows"])
