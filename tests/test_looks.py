"""Looks at a holdout are counted: by its rows, whatever else changes, from several processes."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from common.quick import FEW, settings, small_table

import gpupipe
from gpupipe.evaluate.trust import looked

TABLE = small_table()


def looks(runs: Path, table=TABLE, **sections) -> dict:
    config = settings(**{"split": {"holdout": 0.25, "folds": 0}, **sections})
    done = gpupipe.run(config, table, runs=runs)
    kept = json.loads((done.run / "metrics.json").read_text()).get("looks")
    assert done.summary["looks"] == kept
    return kept


def test_every_run_that_scores_the_same_rows_is_a_look_at_them(tmp_path):
    first = looks(tmp_path)
    assert (first["looks"], first["pipelines"]) == (1, 1)
    again = looks(tmp_path)
    assert (again["looks"], again["pipelines"]) == (2, 1)
    other = looks(tmp_path, model={"kind": "xgboost", "params": {**FEW, "max_depth": 2}})
    assert (other["looks"], other["pipelines"]) == (3, 2)
    assert first["holdout"] == other["holdout"] and first["first"] == other["first"]
    page = (tmp_path / "latest" / "report.html").read_text()
    assert "looked at 3 times" in page and "2 different pipelines" in page


def test_a_holdout_is_its_rows_in_any_order_and_whatever_the_folds(tmp_path):
    one = looks(tmp_path)
    shuffled = TABLE.take(np.random.default_rng(0).permutation(TABLE.num_rows))
    same = looks(tmp_path, shuffled, split={"holdout": 0.25, "folds": 2})
    assert same["holdout"] == one["holdout"] and same["looks"] == 2
    for changed in ({"split": {"holdout": 0.2, "folds": 0}}, {"seed": 1}):
        assert looks(tmp_path, **changed)["looks"] == 1


def test_without_a_holdout_nothing_is_looked_at(tmp_path):
    assert looks(tmp_path, split={"holdout": 0, "folds": 2}) is None
    assert not (tmp_path / ".cache" / "looks").exists()


def _run(arguments: tuple[Path, Path]) -> str:
    source, runs = arguments
    config = settings(data={"source": str(source)})
    return gpupipe.run(config, runs=runs).summary["looks"]["holdout"]


def test_runs_in_several_processes_lose_no_look(tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        names = pool.map(_run, [(tmp_path / "t.parquet", tmp_path / "runs")] * 3)
    assert len(set(names)) == 1
    config = settings(data={"source": str(tmp_path / "t.parquet")})
    assert gpupipe.run(config, runs=tmp_path / "runs").summary["looks"]["looks"] == 4


@pytest.mark.parametrize(("count", "models", "told"), [
    (1, 1, "looked at once"), (2, 1, "2 times, by 1 different pipeline"),
    (5, 3, "5 times, by 3 different pipelines: whatever was chosen by it is judged too kindly"),
])
def test_looks_are_told_in_words(count, models, told):
    (text,) = looked({"looks": count, "pipelines": models})
    assert told in text
