"""An ONNX model scores as its bundle does, within float32's rounding; or says what it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from common.quick import settings, small_table, trained_on, write_bundle

import gpupipe
from gpupipe.bundle.scoring import Bundle
from gpupipe.errors import ConfigError, DataError
from gpupipe.exports import export, onnx_steps
from gpupipe.exports.onnx_steps import MISSING

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

TOLERANCE = 2e-6
"""Relative to 1: leaves are float32, and each runtime adds them up in an order of its own."""
STEPS = [
    {"ratio": {"columns": ["f", "narrow", "i", "b"]}},
    {"impute": {"columns": ["s"], "strategy": "most_frequent", "indicator": True}},
    {"impute": {"columns": ["f", "b"], "strategy": "median", "indicator": True}},
    {"clip": {"columns": ["narrow"], "lower": 0.05, "upper": 0.9}},
    {"log": {"columns": ["narrow"]}}, {"scale": {"columns": ["f", "narrow"]}},
    {"bin": {"columns": ["f"], "bins": 5}}, {"target_encode": {"columns": ["f"]}},
    {"one_hot": {"columns": ["s"]}}, {"count": {"columns": ["i"]}},
    {"drop": {"columns": "t"}},
]
NUMBERS = [*STEPS[2:3], {"impute": {"columns": ["narrow", "i"]}}, *STEPS[8:9], STEPS[-1],
           {"scale": {"columns": ["f", "narrow", "i"], "method": "robust"}}]
PARTS = ["year", "quarter", "month", "day", "day_of_week", "day_of_year", "hour", "minute",
         "second", "timestamp"]
CASES = {
    "levels of numbers": {"features": [
        {"target_encode": {"columns": ["f", "b"]}}, {"count": {"columns": ["narrow"]}},
        {"one_hot": {"columns": ["i"], "max_levels": 3}}, {"drop": {"columns": ["s", "t"]}}]},
    "numbers without a level": {"features": [
        {"one_hot": {"columns": ["f", "i"], "min_frequency": 400}},
        {"drop": {"columns": ["s", "t"]}}]},
    "by default": {"split": {"holdout": 0.25, "folds": 0},
                   "data": {"drop": ["kind", "amount", "t"]}},
    "every step": {"features": STEPS}, "ordinal": {"features": [
        {"ordinal": {"columns": ["s", "i", "b"]}}, STEPS[-1]]},
    "dates": {"features": [{"datetime": {"columns": ["t"], "parts": PARTS}},
                           {"drop": {"columns": ["s"]}}]},
    "cyclic dates": {"features": [{"datetime": {"columns": ["t"], "parts": PARTS, "cyclic": True}},
                                  {"drop": {"columns": ["s"]}}]},
    "linear": {"model": {"kind": "linear", "params": {}}, "features": [
        {"impute": {"columns": ["s"], "strategy": "constant", "fill_value": "a"}}, *NUMBERS]},
}


def bundle_of(folder: Path, table: pa.Table, config: dict[str, Any]) -> Bundle:
    write_bundle(trained_on(table, config, folder / "cache"), folder / "bundle")
    return gpupipe.load(folder / "bundle")


def scored(bundle: Bundle, folder: Path, table: pa.Table) -> dict[str, np.ndarray]:
    export(bundle, "onnx", folder / "onnx")
    session = onnxruntime.InferenceSession(
        str(folder / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    feed: dict[str, np.ndarray] = {}
    for field in bundle.schema:
        column = table.column(field.name).combine_chunks()
        if field.dtype == "string":
            feed[field.name] = np.array(column.fill_null(MISSING).to_pylist(), object)[:, None]
        else:
            column = column.cast(pa.int64()) if field.dtype in ("timestamp", "bool") else column
            feed[field.name] = column.cast(pa.float64()).to_numpy(
                zero_copy_only=False).astype(np.float64)[:, None]
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, feed), strict=True))


def rows_like_no_other(table: pa.Table) -> pa.Table:
    """The table, and rows of extremes, levels that were never seen, and nothing at all."""
    odd = pa.table({
        "f": pa.array([1e30, -1e30, 1e-12, None, np.inf, 0.3], pa.float64()),
        "narrow": pa.array([1e30, -1e-20, 0.0, None, -np.inf, 1e-9], pa.float32()),
        "i": pa.array([10**9, -10**9, 0, None, 4, -4], pa.int64()),
        "b": pa.array([True, False, None, None, True, False]),
        "s": pa.array(["never seen", "", "ß", None, "?", "漢字"]),
        "t": pa.array([0, 10**15, -1, None, -10**15, 951_782_400 * 10**6], pa.timestamp("us")),
    })
    return pa.concat_tables([table.select(odd.column_names), odd])


def agree(bundle: Bundle, folder: Path, table: pa.Table) -> float:
    """The greatest difference of scores, which must be within the tolerance; labels the same."""
    found, scores = scored(bundle, folder, table), bundle.scores(table)
    if not bundle.classes:
        off = np.abs(found["prediction"][:, 0] - scores) / np.maximum(np.abs(scores), 1)
        assert off.max() < TOLERANCE
        return float(off.max())
    wide = np.column_stack([1 - scores, scores]) if scores.ndim == 1 else scores
    assert found["probability"].shape == wide.shape
    off = np.abs(found["probability"] - wide)
    assert off.max() < TOLERANCE
    clear = np.abs(wide - bundle.threshold).min(axis=1) > TOLERANCE
    assert (found["prediction"] == bundle.labels(scores))[clear].all()
    return float(off.max())


def test_a_model_that_scores_otherwise_is_not_written(tmp_path, monkeypatch):
    bundle = bundle_of(tmp_path, small_table(400, seed=1), settings(features=[
        {"select": {"columns": ["f"]}}, {"scale": {"columns": ["f"]}}]))

    def off(build, bound, params, value):
        return onnx_steps.scale(build, bound, {**params, "centre": params["centre"] + 1}, value)

    monkeypatch.setitem(onnx_steps.STEPS, "scale", off)
    with pytest.raises(DataError, match=r"the ONNX model scores row \d+ of the bundle's golden"):
        export(bundle, "onnx", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_a_float32_column_is_rounded_to_one_first(tmp_path):
    """Doubles that lie between two float32 are the level that a bundle takes them for."""
    table = small_table(400, seed=1)
    features = [{"select": {"columns": ["narrow"]}},
                {"target_encode": {"columns": ["narrow"], "smooth": 0}}]
    bundle = bundle_of(tmp_path, table, settings("regression", features=features))
    narrow = table["narrow"].combine_chunks().cast(pa.float64()).to_numpy(zero_copy_only=False)
    nearly = pa.array(narrow * (1 + 2e-8), pa.float64(), from_pandas=True)
    doubles = table.set_column(table.column_names.index("narrow"), "narrow", nearly)
    found = scored(bundle, tmp_path, doubles)["prediction"][:, 0]
    np.testing.assert_allclose(found, bundle.scores(table), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_bundle(case, task, tmp_path):
    sections = dict(CASES[case])
    if "data" in sections:
        target = settings(task)["data"]["target"]
        sections["data"] = {"drop": sorted({"label", "kind", "amount", "t"} - {target})}
    table = small_table(400, seed=1)
    bundle = bundle_of(tmp_path, table, settings(task, **sections))
    agree(bundle, tmp_path, rows_like_no_other(table))


def test_real_customers_with_unordered_codes_and_a_threshold(shared_data, tmp_path):
    (source,) = (shared_data / "telco-churn").glob("*.csv")
    table = pyarrow.csv.read_csv(source).slice(0, 3000)
    bundle = bundle_of(tmp_path, table, {
        "data": {"source": "t.csv", "target": "Churn", "positive": "Yes", "drop": ["customerID"]},
        "split": {"holdout": 0.2, "folds": 0}, "engine": {"workers": 1},
        "model": {"kind": "xgboost", "params": {"n_estimators": 60}}})
    assert bundle.contents.model.booster.forest.codes  # splits on sets of codes
    agree(bundle, tmp_path, bundle.typed(table))


def test_a_model_of_chosen_columns_and_one_with_sets(tmp_path):
    table = small_table(400, seed=2)
    config = settings(features=STEPS, select=["correlation"], intervals={"coverage": 0.8},
                      split={"holdout": 0.2, "folds": 3})
    bundle = bundle_of(tmp_path, table, config)
    agree(bundle, tmp_path, rows_like_no_other(table))


def test_a_forest_and_a_count_have_their_links(tmp_path):
    table = small_table(400, seed=3)
    at = table.column_names.index("amount")
    counts = table.set_column(at, "amount", pa.array(np.abs(table["amount"].to_numpy()).round()))
    forest = bundle_of(tmp_path / "a", table, settings(
        "regression", model={"kind": "forest", "params": {"n_estimators": 7}}, features=STEPS))
    agree(forest, tmp_path / "a", rows_like_no_other(table))
    poisson = bundle_of(tmp_path / "b", counts, settings("regression", features=STEPS, model={
        "kind": "xgboost", "params": {"n_estimators": 5, "objective": "count:poisson"}}))
    agree(poisson, tmp_path / "b", rows_like_no_other(table))


@pytest.mark.parametrize(("sections", "words"), [
    ({"features": [{"hash": {"columns": "s"}}, {"drop": {"columns": "t"}}]}, ["'hash'", "'s'"]),
    ({"features": [{"cast": {"columns": "i", "to": "string"}}, {"ordinal": {"columns": ["i", "s"]}},
                   {"drop": {"columns": "t"}}]}, ["'cast'", "'i'"]),
    ({"features": [{"one_hot": {"columns": "s"}}],
      "model": {"kind": "naive_bayes", "params": {}}}, ["'naive_bayes'"]),
    ({"features": [{"one_hot": {"columns": "s"}}, STEPS[-1]], "calibrate": "isotonic",
      "split": {"holdout": 0.25, "folds": 3}}, ["'calibrated'"]),
])
def test_what_has_no_equivalent_is_named(sections, words, tmp_path):
    features = [{"impute": {"columns": "numeric"}}, {"impute": {"columns": "b"}}] if (
        "model" in sections) else []
    sections = {**sections, "features": [*features, *sections["features"]]}
    if "model" in sections:
        sections["data"] = {"drop": ["kind", "amount", "t"]}
    bundle = bundle_of(tmp_path, small_table(300), settings(**sections))
    with pytest.raises(ConfigError) as caught:
        export(bundle, "onnx", tmp_path / "onnx")
    assert all(w in str(caught.value) for w in words) and "--format mlflow" in str(caught.value)
    assert not (tmp_path / "onnx").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle"]


def test_folders_and_formats_that_do_not_fit_are_refused(tmp_path):
    bundle = bundle_of(tmp_path, small_table(), settings(features=STEPS))
    for format, output, words in (("onx", "a", "did you mean 'onnx'"), ("onnx", ".", "already"),
                                  ("onnx", "none/a", "no such folder")):
        with pytest.raises(ConfigError, match=words):
            export(bundle, format, tmp_path / output)
