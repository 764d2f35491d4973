"""What can be learned from, however odd, and what cannot: the pipeline on tables at the edge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from common.quick import MEMBERS, settings

import gpupipe
from gpupipe import scoring, workflow
from gpupipe.bundle.store import read_states
from gpupipe.errors import GpupipeError


def target_run(values: Any, runs: Path, more: dict[str, Any] | None = None,
               **sections: Any) -> workflow.RunResult:
    """A run on one feature and a target of these values."""
    n = len(values)
    table = pa.table({"x": np.arange(n) % 7 / 7, "y": values, **(more or {})})
    data = {"target": "y", "drop": [], **sections.pop("data", {})}
    sections = {"leaks": {"check": "warn"}, **sections}  # of so few rows, some tell the target
    return gpupipe.run(settings(data=data, **sections), table, runs=runs)


ODD_TABLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a very rare class": (["a"] * 120 + ["b"] * 100 + ["c"] * 2, {"split": {"folds": 3}}),
    "classes of one row": (["a"] * 60 + ["b"] * 60 + ["c", "d"], {"split": {"folds": 3}}),
    "holes in the target": ((["a", "b", None, "a"] * 30), {"split": {"folds": 2}}),
    "holes in a numeric target": ([1.5, None, float("nan"), 2.5, 7.0] * 30, {}),
    "an infinite target": ([1.5, float("inf"), 2.5, 7.0] * 30, {}),
    "a boolean target": ([True, False, None] * 40, {}),
    "a target of 0 and 1": ([0, 1, 1] * 40, {}),
    "labels that are hostile": (["<script>alert(1)</script>", "a\nb", "$x^2$"] * 40, {}),
    "twenty classes": ([f"c{i % 20}" for i in range(200)], {}),
    "constant columns": ([0, 1, 1] * 40, {"more": {"c": [7] * 120, "d": ["x"] * 120}}),
    "constant columns for a linear model": ([0, 1, 1] * 40, {"more": {
        "c": [7] * 120, "d": ["x"] * 120, "e": pa.nulls(120)}, "model": {"kind": "linear"}}),
    "an all-null column": ([0, 1, 1] * 40, {"more": {"n": pa.nulls(120), "m": pa.nulls(
        120, pa.string()), "t": pa.nulls(120, pa.timestamp("us"))}}),
    "an infinite feature": ([0, 1, 1] * 40, {"more": {"n": [float("inf"), -1.0, None] * 40}}),
    "integers past 2^53": ([0, 1, 1] * 40, {"more": {"n": [2**53 + 1, -(2**63), 2**63 - 1] * 40}}),
    "prose": ([0, 1, 1] * 40, {"more": {"p": [f"words {i}" for i in range(120)]}}),
    "a linear model": ([0, 1, 1] * 40, {"model": {"kind": "linear"}}),
    "a linear model of rare classes": (
        ["a"] * 120 + ["b"] * 100 + ["c"] * 2, {"split": {"folds": 3}, "model": {"kind": "linear"}}
    ),
}


@pytest.mark.parametrize("case", ODD_TABLES)
def test_odd_tables_run_to_the_end(case, tmp_path):
    values, sections = ODD_TABLES[case]
    done = target_run(values, tmp_path, **sections)
    assert {p.name for p in done.run.iterdir()} == MEMBERS
    bundle = gpupipe.load(done.run)
    judged = sum(v is not None and v == v and v != float("inf") for v in values)
    table = pq.read_table(done.run / "predictions.parquet")
    assert table.num_rows <= judged
    if case.startswith("holes"):
        assert any("have no target" in note for note in done.summary["notes"]), done.summary
    if bundle.classes:
        assert len(bundle.classes) == len({v for v in values if v is not None})
    assert "<script>alert" not in done.report.read_text()


HOSTILE = ["<script>alert(1)</script>", "🙂 é", "a\nb", "x" * 1000, " spaces in it ", "$array",
           "*glob?[x]", 'quo"te\'s', "${7*7}{{7*7}}", "../../etc", "a\x00b", "__class__", ","]


def test_columns_of_hostile_names_run_to_the_end_and_are_scored(tmp_path):
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {name: rng.normal(size=120) for name in HOSTILE}
    columns["text " + HOSTILE[0]] = [HOSTILE[i % 5] for i in range(120)]
    columns["<b>y</b>"] = [HOSTILE[i % 2] for i in range(120)]
    table = pa.table(columns)
    done = gpupipe.run(settings(data={"target": "<b>y</b>", "drop": [], "key": ","},
               name="a name", evaluate={"slices": ["text " + HOSTILE[0], "a\nb"],
                                        "baselines": ["linear"]}), table, runs=tmp_path)
    page = done.report.read_text()
    assert "<script>alert" not in page and "<b>y</b>" not in page and "49" * 3 not in page
    assert set(read_states(done.bundle)) == set(columns) - {","} | {"$prediction"}
    assert scoring.predict(done.run, table, tmp_path / "o.csv")["rows"] == 120
    assert len(gpupipe.load(done.run).feature_names) == len(columns) - 2


REFUSED: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "three rows": ([0, 1, 1], {"split": {"folds": 5, "holdout": 0.2}}, ["rows", "split.folds"]),
    "one class": (["a"] * 50, {}, ["'y'", "one class alone", "'a'"]),
    "one value": ([3.5] * 50, {}, ["'y'", "same value"]),
    "no target at all": (pa.nulls(50, pa.string()), {}, ["'y'", "no value in any row"]),
    "an ID as target": ([f"id {i}" for i in range(1100)], {"data": {"task": "binary"}},
                        ["2 labels", "found 1100"]),
    "floats as classes": ([1.0, 2.0] * 60, {"data": {"task": "binary"}},
                          ["'y'", "float64", "data.types: {y: int}"]),
    "text to regress": (["a", "b"] * 30, {"data": {"task": "regression"}}, ["'y'", "text"]),
    "a negative weight": ([0, 1] * 30, {"data": {"weight": "w"}, "more": {"w": [-1.0, 1.0] * 30}},
                          ["'w'", "negative", "30 rows"]),
    "a missing weight": ([0, 1] * 30, {"data": {"weight": "w"}, "more": {"w": [None, 1.0] * 30}},
                         ["'w'", "missing", "30 rows"]),
    "no weight at all": ([0, 1] * 30, {"data": {"weight": "w"}, "more": {"w": [0.0] * 60}},
                         ["'w'", "0"]),
    "a moment missing": ([0, 1] * 30, {"split": {"time": "t"}, "more": {
        "t": pa.array([None, *range(59)], pa.timestamp("us"))}}, ["'t'", "missing in 1 rows"]),
    "one group": ([0, 1] * 30, {"split": {"group": "g", "folds": 3}, "more": {"g": [1] * 60}},
                  ["groups", "split.folds"]),
    "no feature": ([0, 1] * 30, {"data": {"drop": ["x"]}}, ["no column is left"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_learned_is_one_clear_error_and_leaves_nothing(case, tmp_path):
    values, sections, words = REFUSED[case]
    with pytest.raises(GpupipeError) as caught:
        target_run(values, tmp_path, **sections)
    assert caught.value.exit_code in (2, 3)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert {p.name for p in tmp_path.iterdir()} <= {".cache"}
