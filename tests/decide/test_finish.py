"""From the pipeline file to the bundle: what was calibrated, decided and measured scores."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from common.quick import settings, small_table, trained_on, write_bundle
from sklearn import metrics as sk

import gpupipe
from gpupipe import scoring
from gpupipe.config import parse_config
from gpupipe.errors import ConfigError, DataError
from gpupipe.models.base import innermost
from gpupipe.models.wrappers import Calibrated, WithInterval, WithSets

TABLE = small_table(1200)
FOLDED = {"holdout": 0.25, "folds": 3}
WIDE = {"kind": "xgboost", "params": {"n_estimators": 40, "max_depth": 5, "learning_rate": 0.3}}


def made(task: str = "binary", **sections):
    return settings(task, split=FOLDED, model=WIDE, **sections)


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """A run that calibrates, decides and makes sets."""
    config = made(calibrate="beta", decide={"metric": "f1"}, intervals={"coverage": 0.9},
                  evaluate={"slices": ["s"], "resamples": 20})
    return gpupipe.run(config, TABLE, runs=tmp_path_factory.mktemp("runs"))


def holdout_of(run, table):
    rows = pq.read_table(run.run / "predictions.parquet")
    rows = rows.filter(np.asarray(rows["fold"]) == -1)
    return rows, table.take(rows["row"])


def test_the_bundle_gives_the_figures_of_the_holdout(judged):
    rows, table = holdout_of(judged, TABLE)
    bundle = gpupipe.load(judged.bundle)
    y = np.array([str(v) == "yes" for v in rows["target"].to_pylist()]).astype(int)
    p = bundle.predict_proba(table)[:, 1]
    np.testing.assert_array_equal(p, rows["probability"])
    assert judged.metrics["log_loss"]["value"] == pytest.approx(sk.log_loss(y, p))
    labels = (bundle.predict(table) == "yes").astype(int)
    np.testing.assert_array_equal(labels, p > bundle.threshold)
    assert bundle.threshold == judged.summary["decision"]["threshold"] != 0.5
    for name, reference in (("f1", sk.f1_score), ("recall", sk.recall_score),
                            ("matthews_corrcoef", sk.matthews_corrcoef)):
        assert judged.metrics[name]["value"] == pytest.approx(reference(y, labels))
    sets = bundle.predict_set(table)
    held = sets[np.arange(len(y)), y].mean()
    assert judged.summary["intervals"]["measured"] == pytest.approx(held)
    np.testing.assert_array_equal(sets[:, 1], rows["in_set_yes"])


def test_out_of_fold_labels_are_those_of_the_other_folds_thresholds(judged):
    rows = pq.read_table(judged.run / "predictions.parquet")
    rows = rows.filter(np.asarray(rows["fold"]) >= 0)
    y = np.array([str(v) == "yes" for v in rows["target"].to_pylist()]).astype(int)
    told = judged.summary["decision"]["brings"]["f1"]
    assert judged.summary["cross_validation"]["f1"]["value"] == pytest.approx(told["chosen"])
    assert told["usual"] == pytest.approx(sk.f1_score(y, np.asarray(rows["probability"]) > 0.5))


def test_what_is_written_tells_of_it(judged):
    metrics = json.loads((judged.run / "metrics.json").read_text())
    assert {"calibration", "decision", "intervals"} <= set(metrics)
    assert 0 <= metrics["slices"][0]["rows"][0]["coverage"] <= 1
    page = judged.report.read_text()
    for text in ("Calibration: beta", "Threshold: ", "Sets: cross", "Before and after",
                 "By threshold", "Coverage by decile", "Size by decile"):
        assert text in page
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)
    info = json.loads((judged.bundle / "bundle.json").read_text())
    assert info["model"]["kind"] == "with_sets"
    assert info["model"]["inner"]["kind"] == "calibrated"
    assert info["calibration"] == {"method": "beta"}
    assert info["decision"]["rule"] == "best F1"
    notes = judged.summary["notes"]
    assert [n for n in notes if "beta" in n] and [n for n in notes if "is a yes" in n]


def test_predict_and_evaluate_use_the_threshold_and_write_the_sets(judged, tmp_path):
    _, table = holdout_of(judged, TABLE)
    pq.write_table(table, tmp_path / "new.parquet")
    scoring.predict(judged.run, str(tmp_path / "new.parquet"), tmp_path / "out.parquet")
    scored = pq.read_table(tmp_path / "out.parquet")
    bundle = gpupipe.load(judged.bundle)
    assert scored.column_names == ["row", "prediction", "probability", "in_set_no", "in_set_yes"]
    assert scored["prediction"].to_pylist() == bundle.predict(table).tolist()
    answer = scoring.evaluate(judged.run, str(tmp_path / "new.parquet"))
    found, known = answer["metrics"], judged.summary["intervals"]
    for name in ("measured", "standard_error", "mean_size"):
        assert answer["intervals"][name] == pytest.approx(known[name])
    assert answer["notes"] == [known["text"].replace("(holdout;", "(these rows;")]
    for name in ("f1", "log_loss", "accuracy"):
        assert found[name]["value"] == pytest.approx(judged.metrics[name]["value"])
    record = {k: v for k, v in table.to_pylist()[0].items() if k in bundle.schema.names}
    (one,) = [bundle.predict_one(record)]
    assert set(one) == {"prediction", "probability", "set"} and set(one["set"]) <= {"yes", "no"}


@pytest.mark.parametrize("method", ["cross", "split", "cqr"])
def test_intervals_of_a_bundle_are_those_that_were_measured(method, tmp_path):
    config = made("regression", intervals={"coverage": 0.9, "method": method})
    trained = trained_on(TABLE, config)
    intervals = trained.finished.intervals
    y, _ = trained.target_of(trained.split.holdout)
    written = write_bundle(trained, tmp_path / "bundle")
    bundle = gpupipe.load(tmp_path / "bundle")
    ends = bundle.predict_interval(TABLE)
    np.testing.assert_array_equal(ends, written.predict_interval(TABLE))
    bucket = np.concatenate([r.bucket for r in trained.rowed.rows])
    mine = np.isin(bucket, trained.split.holdout)
    np.testing.assert_array_equal(ends[mine], intervals.holdout)
    inside = (ends[mine, 0] <= y) & (y <= ends[mine, 1])
    assert inside.mean() == pytest.approx(intervals.found["measured"])
    assert abs(intervals.found["measured"] - 0.9) < 4 * intervals.found["standard_error"]
    assert isinstance(trained.final, WithInterval) and set(trained.outcomes) == {"model"}
    assert (ends[:, 0] <= ends[:, 1]).all()
    if method == "cqr":
        assert np.ptp(ends[:, 1] - ends[:, 0]) > 0
    else:
        np.testing.assert_allclose((ends[:, 0] + ends[:, 1]) / 2, bundle.predict(TABLE))


@pytest.mark.parametrize("method", ["split", "cqr"])
def test_a_fold_is_kept_from_the_model_so_that_its_errors_are_a_new_row_s(method):
    config = made("regression", intervals={"coverage": 0.8, "method": method})
    trained = trained_on(TABLE, config)
    last = trained.split.folds[-1]
    assert not set(trained.split.train) & set(last.valid)
    assert [n for n in trained.notes if "train no final model" in n]
    oof = trained.model.oof[trained.fold_of_rows() == 2]
    bucket = np.concatenate([r.bucket for r in trained.rowed.rows])
    from gpupipe.bundle.scoring import Bundle
    from gpupipe.record import contents_of

    own = Bundle(contents_of(trained), None).predict(TABLE)[np.isin(bucket, last.valid)]
    np.testing.assert_allclose(oof, own, rtol=1e-6)  # the final model is that fold's


def test_wrappers_hold_each_other_and_any_family(tmp_path):
    for kind, params in (("linear", {}), ("constant", {}), ("xgboost", WIDE["params"])):
        config = settings("multiclass", split=FOLDED, model={"kind": kind, "params": params},
                          calibrate="isotonic", intervals={"coverage": 0.9})
        trained = trained_on(TABLE, config)
        assert isinstance(trained.final, WithSets)
        assert isinstance(trained.final.inner, Calibrated)
        assert innermost(trained.final).kind == kind
        written = write_bundle(trained, tmp_path / kind)
        again = gpupipe.load(tmp_path / kind)
        np.testing.assert_array_equal(written.predict_proba(TABLE), again.predict_proba(TABLE))
        np.testing.assert_allclose(again.predict_proba(TABLE).sum(1), 1)
        np.testing.assert_array_equal(written.predict_set(TABLE), again.predict_set(TABLE))


def test_a_search_s_model_has_intervals_too(tmp_path):
    config = settings("regression", split=FOLDED, ensemble="blend",
                      intervals={"coverage": 0.9, "method": "cqr"},
                      tune={"trials": 4, "models": ["linear", "xgboost"], "sampler": "random",
                            "space": {"n_estimators": 20}})
    trained = trained_on(TABLE, config)
    written = write_bundle(trained, tmp_path / "bundle")
    bundle = gpupipe.load(tmp_path / "bundle")
    ends = bundle.predict_interval(TABLE)
    np.testing.assert_array_equal(ends, written.predict_interval(TABLE))
    bucket = np.concatenate([r.bucket for r in trained.rowed.rows])
    mine = np.isin(bucket, trained.split.holdout)
    np.testing.assert_allclose(ends[mine], trained.finished.intervals.holdout, rtol=1e-6)
    np.testing.assert_allclose(bundle.predict(TABLE)[mine], trained.model.holdout, rtol=1e-6)


def test_without_a_final_model_the_folds_are_judged_all_the_same(tmp_path):
    from gpupipe import workflow

    found = workflow.cross_validate(
        parse_config(made(calibrate="sigmoid", decide={"recall": 0.9})), source=TABLE,
        cache=tmp_path / ".cache")
    assert found["calibration"]["applied"] and "holdout" not in found["calibration"]
    assert found["decision"]["brings"]["recall"]["chosen"] > 0.8
    assert found["metrics"]["recall"]["value"] == found["decision"]["brings"]["recall"]["chosen"]


def test_a_threshold_by_its_number_needs_no_folds(tmp_path):
    config = settings(decide={"threshold": 0.2})
    done = gpupipe.run(config, TABLE, runs=tmp_path)
    bundle = gpupipe.load(done.bundle)
    assert bundle.threshold == 0.2 and bundle.coverage is None
    np.testing.assert_array_equal(bundle.predict(TABLE) == "yes",
                                  bundle.predict_proba(TABLE)[:, 1] > 0.2)
    with pytest.raises(DataError, match="made without intervals"):
        bundle.predict_set(TABLE)
    with pytest.raises(DataError, match="a classifier has no intervals"):
        bundle.predict_interval(TABLE)


@pytest.mark.parametrize(("task", "sections", "told"), [
    ("regression", {"calibrate": "auto"}, "a regression has no probabilities"),
    ("multiclass", {"decide": {"metric": "f1"}}, "a threshold is for two labels"),
    ("binary", {"decide": {"metric": "roc_auc"}}, "no threshold changes the metric"),
    ("binary", {"intervals": {"coverage": 0.9, "method": "cqr"}}, "cqr is for regressions"),
    ("binary", {"intervals": {"coverage": 0.9, "sets": "aps"}}, "two have nothing to rank"),
    ("binary", {"calibrate": "beta", "split": {"folds": 0}}, "there are no folds"),
    ("regression", {"intervals": {"coverage": 0.9}, "split": {"folds": 0}}, "there are no folds"),
    ("regression", {"intervals": {"coverage": 0.9999}}, r"takes 9,999 rows"),
])
def test_what_does_not_fit_is_refused(task, sections, told):
    with pytest.raises(ConfigError, match=told):
        trained_on(TABLE, {**made(task), **{k: {**FOLDED, **v} if k == "split" else v
                                            for k, v in sections.items()}})


@pytest.mark.parametrize(("decide", "told"), [
    ({"metric": "f1", "threshold": 0.3}, "metric and threshold are 2 rules"),
    ({"cost": {"false_positive": 0, "false_negative": 0}}, "no mistake costs anything"),
    ({"precision": 1.5}, "precision"),
])
def test_faults_of_the_section_itself(decide, told):
    with pytest.raises(ConfigError, match=told):
        parse_config(settings(decide=decide))
