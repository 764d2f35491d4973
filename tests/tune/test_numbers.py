"""Whole numbers that repeat: a search tries them as levels as well."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from common.quick import best_names, trained_on, tried_and_taken

pytestmark = pytest.mark.long
QUICK = {"n_estimators": [8, 12], "max_depth": [2, 3]}


def shop(n: int = 900, seed: int = 0) -> pa.Table:
    """``code`` stands for something: its 30 values have rates that do not follow its order."""
    rng = np.random.default_rng(seed)
    rate = rng.permutation(np.linspace(0.02, 0.98, 30))
    code = rng.integers(0, 30, n)
    return pa.table({
        "code": code, "serial": np.arange(n), "flag": rng.integers(0, 2, n),
        "size": rng.normal(size=n), "label": (rng.random(n) < rate[code]).astype(np.int64),
    })


def searched(folder, *, space=None, features=None, table=None, models="xgboost", trials=7):
    config = {
        "data": {"source": "t.parquet", "target": "label"},
        "split": {"holdout": 0, "folds": 3}, "ensemble": "none", "engine": {"workers": 1},
        "evaluate": {"baselines": [], "resamples": 10},
        "tune": {"trials": trials, "models": models, "space": {
            **(QUICK if models == "xgboost" else {}), **(space or {})}},
    }
    if features is not None:
        config["features"] = features
    return trained_on(shop() if table is None else table, config, folder)


def test_a_search_tries_them_and_finds_what_they_stand_for(tmp_path):
    trained = searched(tmp_path / "a")
    found = trained.chosen.found
    tried_and_taken(found, "numbers", "target_encode")
    assert {"code", "code_encoded", "serial", "flag", "size"} == set(best_names(found)), \
        "serial names rows, and flag has two values"
    asis = searched(tmp_path / "b", space={"features.numbers": "auto"})
    assert {t.features.get("numbers", "auto") for t in asis.chosen.found.trials} == {"auto"}
    assert asis.knowledge.scans == trained.knowledge.scans, "the choice cost no scan"


def test_a_linear_model_takes_them_too(tmp_path):
    plain, encoded = (
        searched(tmp_path / how, models=["linear"], trials=2, space={
            "C": [0.1, 1.0], "features.numbers": how}).chosen.found.trials[1]
        for how in ("auto", "target_encode"))
    assert encoded.score > plain.score + 0.1


def test_no_choice_where_the_file_has_steps_or_the_name_is_taken(tmp_path):
    own = searched(tmp_path / "a", features=[{"scale": {"columns": ["size"]}}], trials=2)
    assert "numbers" not in own.chosen.found.space.features
    table = shop().append_column("code_encoded", pa.array(np.zeros(900)))
    taken = searched(tmp_path / "b", table=table, trials=2)
    assert "numbers" not in taken.chosen.found.space.features
