"""XGBoost's file and the JSON are enough: the page's own recipe scores as the bundle does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.csv
import pytest
from common.quick import settings, small_table, trained_on, write_bundle

import gpupipe
from gpupipe.errors import ConfigError
from gpupipe.exports import export

STEPS = [
    {"ratio": {"columns": ["f", "narrow", "i"]}},
    {"impute": {"columns": ["s", "narrow"], "strategy": "most_frequent", "indicator": True}},
    {"clip": {"columns": ["f"], "lower": 0.05, "upper": 0.9}}, {"log": {"columns": ["f"]}},
    {"scale": {"columns": ["f"]}}, {"bin": {"columns": ["narrow"], "bins": 4}},
    {"one_hot": {"columns": ["s"]}}, {"target_encode": {"columns": ["i"]}},
    {"count": {"columns": ["b"]}}, {"drop": {"columns": ["t"]}}]


def recipe():
    """`scores` of the recipe on the page."""
    page = (Path(gpupipe.__file__).parents[1] / "docs" / "registry.md").read_text()
    code = re.search(r"```python\n(import bisect.*?)```", page, re.DOTALL)[1]
    names: dict = {}
    exec(code, names)
    return names["scores"]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("features", [STEPS, [{"ordinal": {"columns": ["s", "i", "b"]}},
                                              {"drop": {"columns": ["t"]}}]])
def test_the_recipe_scores_as_the_bundle(task, features, tmp_path):
    write_bundle(trained_on(small_table(300), settings(task, features=features),
                            tmp_path / "cache"), tmp_path / "bundle")
    bundle = gpupipe.load(tmp_path / "bundle")
    export(bundle, "xgboost", tmp_path / "out")
    records = bundle.typed(small_table(60, seed=5)).to_pylist()
    records[0] |= {"s": "never seen", "i": 99}
    found = recipe()(tmp_path / "out", records)
    expected = [r.get("probability", r.get("probabilities", r.get("prediction")))
                for r in bundle.predict_records(records)]
    expected = [list(e.values()) if isinstance(e, dict) else e for e in expected]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_real_customers_by_the_default_steps(shared_data, tmp_path):
    (source,) = (shared_data / "telco-churn").glob("*.csv")
    table = pyarrow.csv.read_csv(source).slice(0, 1500)
    config = {"data": {"source": "t.csv", "target": "Churn", "drop": ["customerID"]},
              "split": {"holdout": 0.2, "folds": 0}, "engine": {"workers": 1},
              "model": {"kind": "xgboost", "params": {"n_estimators": 20}}}
    write_bundle(trained_on(table, config, tmp_path / "cache"), tmp_path / "bundle")
    bundle = gpupipe.load(tmp_path / "bundle")
    done = export(bundle, "xgboost", tmp_path / "out")
    assert done["files"] == ["features.json", "model.ubj"]
    records = bundle.typed(table.slice(0, 200)).to_pylist()
    np.testing.assert_array_equal(recipe()(tmp_path / "out", records),
                                  bundle.scores(table.slice(0, 200)))
    about = json.loads((tmp_path / "out" / "features.json").read_text())
    assert about["classes"] == bundle.classes and about["threshold"] == 0.5
    assert [f["name"] for f in about["features"]] == bundle.feature_names


def test_a_model_without_trees_is_named(tmp_path):
    config = settings(model={"kind": "linear", "params": {}}, features=[
        {"impute": {"columns": ["f", "narrow", "i"]}}, {"one_hot": {"columns": ["s", "b"]}},
        STEPS[-1]])
    write_bundle(trained_on(small_table(), config, tmp_path / "cache"), tmp_path / "bundle")
    with pytest.raises(ConfigError, match="no equivalent of a model 'linear'"):
        export(gpupipe.load(tmp_path / "bundle"), "xgboost", tmp_path / "out")
