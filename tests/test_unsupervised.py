"""Without a target: from a table to a bundle, to predictions and a report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from common.quick import small_table
from sklearn.metrics import adjusted_rand_score

import gpupipe
from gpupipe import workflow
from gpupipe.cli.outcome import call
from gpupipe.config import parse_config
from gpupipe.errors import ConfigError, DataError
from gpupipe.steps import STEPS

KINDS = {
    "kmeans": {"n_clusters": 3}, "dbscan": {"eps": 3.0},
    "hdbscan": {"min_cluster_size": 5, "min_samples": 2},
    "isolation_forest": {"n_estimators": 20, "contamination": 0.1}, "pca": {"n_components": 0.9},
    "truncated_svd": {},
}
OUTPUTS = {"kmeans": ["cluster", "distance"], "dbscan": ["cluster", "distance"],
           "hdbscan": ["cluster", "distance"], "isolation_forest": ["anomaly_score", "is_anomaly"],
           "truncated_svd": ["component_0", "component_1"]}
STABILITY = {"isolation_forest": "rank_correlation", "pca": "subspace_similarity",
             "truncated_svd": "subspace_similarity"}


def pipeline(folder: Path, kind: str, **sections) -> dict:
    path = folder / "t.parquet"
    if not path.exists():
        pq.write_table(small_table(300).drop_columns(["label", "kind", "amount"]), path,
                       row_group_size=110)
    return {"data": {"source": str(path)}, "split": {"holdout": 0.25, "folds": 2},
            "model": {"kind": kind, **KINDS.get(kind, {})}, "engine": {"workers": 1}, **sections}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_becomes_a_bundle_that_scores_new_rows(kind, tmp_path):
    done = workflow.run(parse_config(pipeline(tmp_path, kind)), runs=tmp_path / "runs")
    bundle = gpupipe.load(done.run)
    assert bundle.task == "unsupervised" and bundle.classes == []
    assert bundle.outputs == OUTPUTS.get(kind, bundle.outputs)

    new = small_table(90, seed=5)
    pq.write_table(new, tmp_path / "new.parquet")
    workflow.predict(done.run, str(tmp_path / "new.parquet"), tmp_path / "p.parquet")
    written = pq.read_table(tmp_path / "p.parquet")
    assert written.column_names == ["row", *bundle.outputs]
    types = {"cluster": pa.int64(), "is_anomaly": pa.bool_()}
    assert all(written.schema.field(n).type == types.get(n, pa.float64()) for n in bundle.outputs)
    scores = bundle.predict(new)
    for i, name in enumerate(bundle.outputs):
        np.testing.assert_array_equal(written.column(name).to_numpy(), scores[:, i])
    record = {name: new.column(name)[0].as_py() for name in bundle.schema.names}
    one = bundle.predict_one(record)
    assert list(one) == bundle.outputs
    np.testing.assert_array_equal(list(one.values()), scores[0])
    with pytest.raises(DataError, match="an unsupervised bundle has no probabilities"):
        bundle.predict_proba(new)
    with pytest.raises(ConfigError, match="learned without a target"):
        workflow.evaluate(done.run, str(tmp_path / "new.parquet"))

    mine = pq.read_table(done.run / "predictions.parquet")
    assert mine.column_names == ["row", "holdout", *bundle.outputs] and mine.num_rows == 300
    told = workflow.show(done.run)
    assert told["manifest"]["config"]["data"]["target"] is None
    assert STABILITY.get(kind, "adjusted_rand_score") in told["metrics"]
    assert set(told["all_metrics"]) >= {"holdout", "cross_validation", "folds"}
    page = done.report.read_text()
    assert "Learned without a target" in page and page.count('class="plot"') >= 1


def test_a_run_again_gives_the_same_to_the_last_bit(tmp_path):
    for kind in ("kmeans", "isolation_forest"):
        one, two = (workflow.run(parse_config(pipeline(tmp_path, kind, engine=engine)),
                                 runs=tmp_path / name)
                    for name, engine in (("a", {"workers": 1}),
                                         ("b", {"workers": 2, "batch_rows": 17})))
        assert one.metrics == two.metrics
        left, right = (pq.read_table(r.run / "predictions.parquet") for r in (one, two))
        assert left.equals(right)


def test_rows_in_another_order_and_files_give_the_same_components(tmp_path):
    table = small_table(300).drop_columns(["label", "kind", "amount"])
    order = np.random.default_rng(0).permutation(300)
    shuffled = table.take(order)
    (tmp_path / "many").mkdir()
    for i in range(3):
        pq.write_table(shuffled.slice(i * 100, 100), tmp_path / "many" / f"{i}.parquet")
    pq.write_table(table, tmp_path / "one.parquet")
    found = []
    for source in ("one.parquet", "many"):
        config = pipeline(tmp_path, "pca", data={"source": str(tmp_path / source)})
        done = workflow.run(parse_config(config), runs=tmp_path / "runs" / source)
        found.append(gpupipe.load(done.run).predict(table))
    np.testing.assert_array_equal(*found)


def test_training_rows_judge_where_there_are_no_others(tmp_path):
    config = pipeline(tmp_path, "kmeans", split={"holdout": 0, "folds": 0})
    done = workflow.run(parse_config(config), runs=tmp_path / "runs")
    assert done.summary["evaluated_on"] == "training"
    assert set(done.metrics) == {"silhouette_score", "davies_bouldin_score",
                                 "calinski_harabasz_score", "noise_share", "n_clusters"}
    assert "from which the model learned" in done.report.read_text()
    found = workflow.show(done.run)["all_metrics"]["training"]["found"]["clusters"]
    assert sum(c["rows"] for c in found) == 300


def test_metrics_may_be_chosen_and_folds_alone_judge(tmp_path):
    config = pipeline(tmp_path, "kmeans", evaluate={"metrics": ["adjusted_rand_score",
                                                                "davies_bouldin_score"]})
    found = workflow.cross_validate(parse_config(config), cache=tmp_path / "runs" / ".cache")
    assert set(found["metrics"]) == {"adjusted_rand_score", "davies_bouldin_score"}
    assert len(found["folds"]) == 2
    config["evaluate"] = {"metrics": ["roc_auc"]}
    with pytest.raises(ConfigError, match="no metric 'roc_auc' of clusters"):
        workflow.run(parse_config(config), runs=tmp_path / "runs")


def test_planted_clusters_and_anomalies_are_found(tmp_path):
    rng = np.random.default_rng(0)
    which = rng.integers(0, 3, 900)
    x = np.array([[0, 0], [8, 0], [0, 8]])[which] + rng.normal(size=(900, 2)) * 0.7
    x[:9] = rng.uniform(30, 60, size=(9, 2))
    pq.write_table(pa.table({"a": x[:, 0], "b": x[:, 1]}), tmp_path / "planted.parquet")
    data = {"source": str(tmp_path / "planted.parquet")}

    def found(kind: str, **params) -> pa.Table:
        config = {"data": data, "model": {"kind": kind, **params}, "engine": {"workers": 1},
                  "split": {"folds": 2}}
        done = workflow.run(parse_config(config), runs=tmp_path / "runs")
        return pq.read_table(done.run / "predictions.parquet")

    for kind, params in (("dbscan", {"eps": 0.3}), ("hdbscan", {"min_cluster_size": 30})):
        cluster = found(kind, **params).column("cluster").to_numpy()
        assert adjusted_rand_score(which[9:], cluster[9:]) > 0.95
        assert (cluster[:9] < 0).mean() > 0.8
    flags = found("isolation_forest", contamination=0.01).column("is_anomaly").to_numpy()
    assert flags[:9].mean() > 0.8 and flags[9:].mean() < 0.01


def test_a_bundle_scores_the_same_in_a_process_without_scikit_learn(tmp_path):
    done = workflow.run(parse_config(pipeline(tmp_path, "isolation_forest")),
                        runs=tmp_path / "runs")
    new = small_table(50, seed=2)
    np.save(tmp_path / "expected.npy", gpupipe.load(done.run).predict(new))
    code = (
        "import sys\nfor name in ('sklearn', 'umap'): sys.modules[name] = None\n"
        "import numpy as np, gpupipe\nfrom common.quick import small_table\n"
        "found = gpupipe.load(sys.argv[1]).predict(small_table(50, seed=2))\n"
        "assert (found == np.load(sys.argv[2])).all()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(done.run), str(tmp_path / "expected.npy")],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
        env={"PYTHONPATH": f"{Path(gpupipe.__file__).parents[1]}:{Path(__file__).parent}"})
    assert done.returncode == 0, done.stderr


def test_a_real_table_is_clustered_by_the_command_line(shared_data, tmp_path, monkeypatch, capfd):
    source = shared_data / "housing" / "housing.csv"
    (tmp_path / "pipeline.yaml").write_text(
        f"data: {{source: {source}}}\nsplit: {{folds: 2}}\n"
        "model: {kind: kmeans, n_clusters: 8}\n")

    monkeypatch.chdir(tmp_path)

    def answered(*arguments: str) -> dict:
        code = call([*arguments, "--json"])
        out, err = capfd.readouterr()
        assert code == 0, err + out
        return json.loads(out)

    assert answered("run", "pipeline.yaml")["metrics"]["silhouette_score"]["value"] > 0.15
    answered("predict", "runs/latest", str(source), "--output", "p.csv")
    assert (tmp_path / "p.csv").read_text().startswith('"row","cluster","distance"\n0,')
    assert answered("show", "runs/latest")["metrics"]["adjusted_rand_score"]["value"] > 0.3


# What the pipeline file may not say -----------------------------------------------------------


@pytest.mark.parametrize(("sections", "where", "message"), [
    ({"data": {"source": "t", "target": "y"}}, "data.target", "learns without a target"),
    ({"data": {"source": "t", "positive": 1}}, "data.positive", "a positive label is for a target"),
    ({"data": {"source": "t", "task": "binary"}}, "data.task", "unsupervised, not binary"),
    ({"split": {"by": "stratified"}}, "split.by", "a stratified split needs the classes"),
    ({"evaluate": {"slices": ["a"]}}, "evaluate.slices", "compare predictions with a target"),
    ({"tune": {"trials": 3}}, "tune", "'tune' needs a target"),
    ({"calibrate": "isotonic"}, "calibrate", "'calibrate' needs a target"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_what_needs_a_target_is_refused_without_one(sections, where, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_config({"data": {"source": "t"}, "model": {"kind": "kmeans"}, **sections})
    assert error.value.where == where and error.value.hint


def test_a_model_that_needs_a_target_is_refused_without_one():
    with pytest.raises(ConfigError, match=r"'data\.target' is missing") as error:
        parse_config({"data": {"source": "t"}})
    assert "kmeans" in str(error.value.hint)


def test_parameters_may_stand_beside_the_kind():
    data = {"source": "t"}
    flat = parse_config({"data": data, "model": {"kind": "kmeans", "n_clusters": 8}})
    nested = parse_config({"data": data, "model": {"kind": "kmeans", "params": {"n_clusters": 8}}})
    assert flat.model == nested.model
    with pytest.raises(ConfigError, match="'n_clusters' stands under params and beside it"):
        parse_config({"data": data, "model": {"kind": "kmeans", "params": {"n_clusters": 8},
                                              "n_clusters": 8}})
    with pytest.raises(ConfigError, match="unknown key 'param' in 'model'"):
        parse_config({"data": data, "model": {"kind": "kmeans", "param": {}}})


@pytest.mark.parametrize("step", [s for s in STEPS if s == "target_encode"])
def test_a_step_that_needs_a_target_is_refused_without_one(step, tmp_path):
    config = pipeline(tmp_path, "kmeans", features=[{step: {"columns": ["s"]}}])
    with pytest.raises(ConfigError, match="needs a target"):
        workflow.run(parse_config(config), runs=tmp_path / "runs")


def test_text_of_many_levels_is_counted(tmp_path):
    rng = np.random.default_rng(0)
    towns = [f"t{i}" for i in rng.zipf(1.5, 400) % 90]
    table = pa.table({"x": rng.normal(size=400), "town": towns})
    pq.write_table(table, tmp_path / "towns.parquet")
    config = pipeline(tmp_path, "kmeans", data={"source": str(tmp_path / "towns.parquet")})
    done = workflow.run(parse_config(config), runs=tmp_path / "runs")
    assert gpupipe.load(done.run).feature_names == ["x", "town"]
