"""`compare`: paired tests against references, the same rows or a refusal, what changed."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from common.quick import FEW, settings, small_table
from scipy import stats
from sklearn import metrics as sk

import gpupipe
from gpupipe.cli.outcome import call
from gpupipe.compare import changed, compare
from gpupipe.compare.page import render_comparison, write_page
from gpupipe.compare.significance import delong, mcnemar
from gpupipe.errors import ConfigError, DataError

N = 400
TABLE = small_table(N).append_column("key", pa.array([f"k{i}" for i in range(N)]))
DEEPER = {"kind": "xgboost", "params": {**FEW, "n_estimators": 12}}


def run(runs: Path, task: str = "binary", table: pa.Table = TABLE, **sections) -> Path:
    data = {"drop": [t for t in ("label", "kind", "amount") if t != {
        "binary": "label", "multiclass": "kind", "regression": "amount"}[task]]}
    sections = {"evaluate": {"baselines": [], "resamples": 100, "slices": ["s"]}, **sections}
    sections["data"] = {**data, **sections.get("data", {})}
    return gpupipe.run(settings(task, **sections), table, runs=runs).run


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def two(request, tmp_path_factory) -> tuple[str, Path, Path]:
    runs = tmp_path_factory.mktemp("runs")
    return request.param, run(runs, request.param), run(runs, request.param, model=DEEPER)


def held_out(folder: Path) -> pa.Table:
    table = pq.read_table(folder / "predictions.parquet")
    return table.filter(pa.compute.equal(table["fold"], -1))


def test_metrics_are_those_of_the_runs_and_their_difference_is_paired(two):
    _, a, b = two
    found = compare(a, b, latency=False).to_json()
    for side, folder in (("left", a), ("right", b)):
        kept = json.loads((folder / "metrics.json").read_text())["holdout"]["model"]
        for name, one in found["metrics"].items():
            assert one[side]["value"] == pytest.approx(kept[name]["value"], rel=1e-12)
    for one in found["metrics"].values():
        if one["difference"]["low"] is not None:
            apart = one["right"]["value"] - one["left"]["value"]
            assert one["difference"]["value"] == pytest.approx(apart, abs=1e-12)
            low, high = one["difference"]["low"], one["difference"]["high"]
            assert (one["better"] is None) == (low <= 0 <= high)
    assert found["judged_on"] == "holdout" and found["rows"] == len(held_out(a))
    assert found["changed"] == [{"key": "model.params.n_estimators", "left": 4, "right": 12}]
    assert found["around"] == []


def test_slices_and_calibration_equal_scikit_learn_s_on_the_kept_predictions(two):
    task, a, b = two
    found = compare(a, b, latency=False).found
    (sliced,) = found["slices"]
    kept = held_out(b)
    assert sum(r["rows"] for r in sliced["rows"]) == len(kept) and sliced["left_out"] == 0
    lead = next(iter(found["metrics"]))
    for row in sliced["rows"]:
        level = None if row["level"] == "(missing)" else row["level"]
        at = np.array([v == level for v in kept["slice: s"].to_pylist()])
        y = np.array(kept["target"].to_pylist())[at]
        if task == "binary":
            expected = sk.roc_auc_score(y == "yes", kept["probability"].to_numpy()[at])
        elif task == "multiclass":
            names = sorted(c for c in kept.column_names if c.startswith("probability_"))
            p = np.column_stack([kept[c].to_numpy() for c in names])[at]
            best = np.array([c.removeprefix("probability_") for c in names])[p.argmax(axis=1)]
            expected = sk.accuracy_score(y, best)
        else:
            expected = sk.r2_score(y, kept["prediction"].to_numpy()[at])
        assert lead == {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}[task]
        assert row["right"]["value"] == pytest.approx(expected, rel=1e-9)
    if task == "binary":
        mean = found["calibration"]["right"]["prediction_mean"]
        assert mean == pytest.approx(kept["probability"].to_numpy().mean())
    assert ("ece" in found["calibration"]["left"]) == (task != "regression")


def test_single_rows_are_timed_with_both_bundles_and_bytes_are_counted(two):
    _, a, b = two
    found = compare(a, b).found
    for side, folder in (("left", a), ("right", b)):
        assert 0 < found["latency"][side]["median"] <= found["latency"][side]["p95"] < 1
        assert found["size"][side] == sum(p.stat().st_size for p in (folder / "bundle").iterdir())


def test_a_run_is_not_told_apart_from_itself(two):
    _, a, _ = two
    found = compare(a, a, latency=False).found
    assert found["changed"] == found["around"] == []
    assert {one["better"] for one in found["metrics"].values()} == {None}
    assert "not told apart" in found["sentence"]
    page = render_comparison(found)
    assert "not told apart" in page and 'id="slices"' in page and "http:" not in page


def test_delong_equals_the_sum_over_all_pairs_and_the_bootstrap():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    a, b = ((y + rng.normal(size=300) * s).round(1) for s in (1.5, 2.5))
    found = delong(y, a, b)
    up, down = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    wins = [[(float(p[i] > p[j]) + 0.5 * float(p[i] == p[j])) for i, j in
             itertools.product(up, down)] for p in (a, b)]
    kernel = np.array(wins).reshape(2, len(up), len(down))
    apart = kernel[1] - kernel[0]
    variance = apart.mean(axis=1).var(ddof=1) / len(up) + apart.mean(axis=0).var(ddof=1) / len(down)
    assert found.statistic == pytest.approx(apart.mean() / math.sqrt(variance), rel=1e-9)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.statistic)), rel=1e-9)
    differences = []
    for _ in range(250):
        at = rng.integers(0, 300, 300)
        differences.append(sk.roc_auc_score(y[at], b[at]) - sk.roc_auc_score(y[at], a[at]))
    assert np.std(differences) == pytest.approx(math.sqrt(variance), rel=0.2)
    assert delong(y, a, a) is None and delong(np.ones(5), a[:5], b[:5]) is None


@pytest.mark.parametrize(("only_a", "only_b"), [(3, 12), (40, 41), (0, 6), (700, 900)])
def test_mcnemar_is_the_binomial_test_of_the_rows_they_disagree_on(only_a, only_b):
    a = np.array([True] * only_a + [False] * only_b + [True] * 50)
    b = np.array([False] * only_a + [True] * only_b + [True] * 50)
    found = mcnemar(a, b)
    expected = stats.binomtest(only_b, only_a + only_b).pvalue
    assert found.p == pytest.approx(expected, rel=1e-9)
    assert (found.statistic > 0) == (only_b - only_a > 1)
    many = mcnemar(np.repeat(a, 50), np.repeat(b, 50))
    exact = stats.binomtest(only_b * 50, (only_a + only_b) * 50).pvalue
    assert many.p == pytest.approx(exact, rel=0.15, abs=1e-9)
    assert mcnemar(a, a) is None


def test_runs_of_other_rows_are_refused_with_what_differs(tmp_path):
    a, b = run(tmp_path), run(tmp_path, seed=3)
    with pytest.raises(DataError, match=r"not judged on the same rows: the holdout .* the same"):
        compare(a, b)
    with pytest.raises(DataError, match="one run predicts binary"):
        compare(a, run(tmp_path, "regression"))
    with pytest.raises(DataError, match=r"is not a run"):
        compare(a, a / "bundle")
    shuffled = TABLE.take(np.random.default_rng(0).permutation(N))
    with pytest.raises(DataError, match="no key to match them by"):
        compare(a, run(tmp_path, table=shuffled))


def test_rows_of_other_data_are_matched_by_their_key(tmp_path):
    keyed = {"data": {"key": "key"}}
    a = run(tmp_path, **keyed)
    shuffled = TABLE.take(np.random.default_rng(0).permutation(N))
    found = compare(a, run(tmp_path, table=shuffled, **keyed), latency=False).found
    assert found["metrics"]["roc_auc"]["difference"]["value"] == pytest.approx(0, abs=0.01)
    assert [c["key"] for c in found["around"]] == ["data.fingerprint"]
    at = TABLE.column_names.index("label")
    turned = pa.array(["no" if v == "yes" else "yes" for v in TABLE["label"].to_pylist()])
    other = TABLE.set_column(at, "label", turned)
    with pytest.raises(DataError, match="another target"):
        compare(a, run(tmp_path, table=other, data={"key": "key", "positive": "yes"}))
    key = TABLE.column_names.index("key")
    twice = TABLE.set_column(key, "key", pa.array([f"k{i // 2}" for i in range(N)]))
    with pytest.raises(DataError, match="share a key"):
        compare(a, run(tmp_path, table=twice, **keyed))


def test_out_of_fold_rows_serve_where_there_is_no_holdout_and_weights_count(tmp_path):
    weighed = TABLE.append_column("w", pa.array(np.arange(N) % 3 + 0.5))
    shared = {"split": {"holdout": 0, "folds": 3}, "data": {"weight": "w"}}
    a, b = run(tmp_path, table=weighed, **shared), run(tmp_path, table=weighed, model=DEEPER,
                                                       **shared)
    found = compare(a, b, latency=False).found
    kept = pq.read_table(b / "predictions.parquet")
    expected = sk.roc_auc_score(np.array(kept["target"].to_pylist()) == "yes",
                                kept["probability"].to_numpy(),
                                sample_weight=kept["weight"].to_numpy())
    assert found["judged_on"] == "cross_validation" and found["rows"] == N
    assert found["metrics"]["roc_auc"]["right"]["value"] == pytest.approx(expected, rel=1e-9)
    assert found["tests"] == []  # they know no weights


def test_what_changed_is_told_by_dotted_key():
    a = {"model": {"kind": "xgboost", "params": {"max_depth": 3}}, "features": None, "n": 1}
    b = {"model": {"kind": "linear", "params": {}}, "features": [{"scale": {}}], "n": 1}
    assert changed(a, b) == [
        {"key": "model.kind", "left": "xgboost", "right": "linear"},
        {"key": "model.params.max_depth", "left": 3, "right": None},
        {"key": "features", "left": None, "right": [{"scale": {}}]},
    ]


def test_the_verb_answers_in_text_json_and_as_a_page(tmp_path, capfd):
    a, b = run(tmp_path / "runs"), run(tmp_path / "runs", model=DEEPER)
    command = [sys.executable, "-m", "gpupipe.cli", "compare", str(a), str(b)]
    (tmp_path / "pages").mkdir()
    page = tmp_path / "pages" / "c.html"
    done = subprocess.run([*command, "--page", str(page)], capture_output=True, text=True,
                          timeout=100)
    assert done.returncode == 0, done.stderr
    assert "model.params.n_estimators" in done.stdout and "right - left" in done.stdout
    assert "model.params.n_estimators" in page.read_text()
    assert [p.name for p in page.parent.iterdir()] == ["c.html"]
    capfd.readouterr()
    assert call(["compare", str(a), str(b), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["rows"] == len(held_out(a))
    with pytest.raises(ConfigError, match="no such folder"):
        write_page(found, tmp_path / "nowhere" / "c.html")
