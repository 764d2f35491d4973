"""A run end to end on small tables: what it leaves, what it refuses, and what survives a kill."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from common.quick import MEMBERS, settings, small_table
from sklearn import metrics as sk

import gpupipe
from gpupipe import scoring, workflow
from gpupipe.config import parse_config
from gpupipe.data.ingest import ingest
from gpupipe.errors import ConfigError, DataError, EnvironmentFault, GpupipeError

KEYED = small_table().append_column("key", pa.array([f"k{i}" for i in range(240)]))


def run(table: Any, runs: Path, task: str = "binary", **sections: Any) -> workflow.RunResult:
    return gpupipe.run(settings(task, **sections), table, runs=runs)


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def done(request, tmp_path_factory) -> workflow.RunResult:
    """A whole run: holdout, folds, baselines, a key, slices."""
    runs = tmp_path_factory.mktemp("runs")
    drop = [t for t in ("label", "kind", "amount") if t != {
        "binary": "label", "multiclass": "kind", "regression": "amount"}[request.param]]
    return run(KEYED, runs, request.param, data={"key": "key", "drop": drop},
               split={"holdout": 0.25, "folds": 3},
               evaluate={"baselines": ["linear", "constant"], "resamples": 20, "slices": ["s"]})


def test_a_run_s_folder_holds_what_it_should(done):
    assert {p.name for p in done.run.iterdir()} == MEMBERS
    runs = done.run.parent
    assert {p.name for p in runs.iterdir()} <= {done.run.name, "latest", ".cache"}
    latest = runs / "latest"
    assert latest.is_symlink() and latest.readlink() == Path(done.run.name)
    manifest = json.loads((done.run / "manifest.json").read_text())
    assert manifest["run"] == done.run.name and manifest["data"]["rows"] == 240
    assert {"config", "engine", "git_commit", "versions", "seed", "timings", "plan",
            "quarantine", "notes", "created", "peak_memory_bytes"} <= set(manifest)
    assert set(manifest["versions"]) == {"python", "gpupipe", "numpy", "pandas", "pyarrow",
                                         "sklearn", "xgboost"}
    assert manifest["config"] == json.loads((done.run / "config.json").read_text())
    stages = set(manifest["timings"])
    assert {"ingest", "profile", "split", "learn the steps", "fold 3", "final training",
            "evaluate", "bundle", "report"} <= stages
    assert parse_config(manifest["config"]).split.folds == 3


def test_metrics_come_with_intervals_baselines_and_folds(done):
    found = json.loads((done.run / "metrics.json").read_text())
    assert set(found) == {"holdout", "cross_validation", "folds", "leaderboard", "looks",
                          "slices"}
    assert len(found["folds"]) == 3 and found["slices"][0]["column"] == "s"
    for part in ("holdout", "cross_validation"):
        assert set(found[part]["baselines"]) == {"linear", "constant"}
        for score in found[part]["model"].values():
            inside = score["low"] is None or score["low"] <= score["value"] <= score["high"]
            assert inside or "no interval" in score["note"]
    assert done.metrics == found["holdout"]["model"]
    assert found["holdout"]["rows"] + found["cross_validation"]["rows"] == 240


def test_the_report_is_one_page_with_its_sections(done):
    page = done.report.read_text()
    for section in ("data", "features", "model", "quality", "slices", "plan", "provenance"):
        assert f'id="{section}"' in page, section
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")


def predictions(done: workflow.RunResult) -> dict[str, np.ndarray]:
    table = pq.read_table(done.run / "predictions.parquet")
    return {n: np.asarray(table.column(n).to_pylist()) for n in table.column_names}


def test_predictions_are_of_the_rows_that_the_split_set_apart(done):
    kept = predictions(done)
    name = {"binary": "label", "multiclass": "kind", "regression": "amount"}[done.summary["task"]]
    assert sorted(kept["row"].tolist()) == list(range(240))
    assert set(kept["fold"].tolist()) == {-1, 0, 1, 2}
    assert kept["key"].tolist() == [f"k{r}" for r in kept["row"]]
    truth = np.asarray(KEYED.column(name).to_pylist())
    assert (kept["target"] == truth[kept["row"]]).all()
    again = gpupipe.load(done.run)
    at = kept["fold"] == -1
    scores = again.scores(KEYED)[kept["row"][at]]
    held = kept["probability"] if "probability" in kept else kept.get("prediction")
    if held is None:
        held = np.column_stack([kept[f"probability_{c}"] for c in again.classes])
    assert (held[at] == scores).all()
    other = again.scores(KEYED)[kept["row"][~at]]
    assert not np.array_equal(held[~at], other)  # out of fold: by models that had not seen them


def test_the_metrics_are_what_scikit_learn_finds_in_the_predictions(done):
    kept, found = predictions(done), json.loads((done.run / "metrics.json").read_text())
    for part, at in (("holdout", kept["fold"] == -1), ("cross_validation", kept["fold"] >= 0)):
        y = kept["target"][at]
        scores = {n: s["value"] for n, s in found[part]["model"].items()}
        task = done.summary["task"]
        if task == "binary":
            p, classes = kept["probability"][at], gpupipe.load(done.run).classes
            y = y == classes[1]
            expected = {"roc_auc": sk.roc_auc_score(y, p), "log_loss": sk.log_loss(y, p),
                        "accuracy": sk.accuracy_score(y, p > 0.5),
                        "average_precision": sk.average_precision_score(y, p)}
        elif task == "multiclass":
            classes = gpupipe.load(done.run).classes
            p = np.column_stack([kept[f"probability_{c}"][at] for c in classes])
            expected = {"log_loss": sk.log_loss(y, p, labels=classes),
                        "accuracy": sk.accuracy_score(y, np.asarray(classes)[p.argmax(axis=1)])}
        else:
            p = kept["prediction"][at]
            expected = {"root_mean_squared_error": sk.root_mean_squared_error(y, p),
                        "mean_absolute_error": sk.mean_absolute_error(y, p),
                        "r2": sk.r2_score(y, p)}
        for name, value in expected.items():
            assert scores[name] == pytest.approx(value, rel=1e-9), (part, name)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_predict_streams_and_keeps_order_and_keys(done, ending, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring.files, "BATCH_ROWS", 37)
    pq.write_table(KEYED, tmp_path / "new.parquet", row_group_size=50)
    told = scoring.predict(done.run, tmp_path / "new.parquet", tmp_path / f"out.{ending}")
    assert told["rows"] == 240
    assert {p.name for p in tmp_path.iterdir()} == {"new.parquet", f"out.{ending}"}
    read = pq.read_table if ending == "parquet" else pyarrow.csv.read_csv
    out = read(tmp_path / f"out.{ending}")
    assert out.column("key").to_pylist() == KEYED.column("key").to_pylist()
    bundle = gpupipe.load(done.run)
    assert out.column("prediction").to_pylist() == bundle.predict(KEYED).tolist()
    scores = bundle.scores(KEYED)
    if bundle.task == "binary":
        assert out.column("probability").to_pylist() == scores.tolist()
    elif bundle.task == "multiclass":
        for i, name in enumerate(bundle.classes):
            assert out.column(f"probability_{name}").to_pylist() == scores[:, i].tolist()


def test_predict_that_fails_leaves_the_old_file_as_it_was(done, tmp_path, monkeypatch):
    pq.write_table(KEYED, tmp_path / "new.parquet", row_group_size=50)
    (tmp_path / "out.csv").write_text("old")
    calls = iter(range(100))

    def second_fails(*arguments: Any) -> pa.Table:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    original = scoring.scored_table
    monkeypatch.setattr(scoring.files, "scored_table", second_fails)
    with pytest.raises(KeyboardInterrupt):
        scoring.predict(done.run, tmp_path / "new.parquet", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"new.parquet", "out.csv"}
    for output in ("out.txt", "nowhere/out.csv"):
        with pytest.raises(ConfigError):
            scoring.predict(done.run, tmp_path / "new.parquet", tmp_path / output)


def test_evaluate_on_the_training_table_is_scikit_learn_s_word(tmp_path):
    done = run(KEYED, tmp_path, data={"key": "key", "drop": ["kind", "amount"]})
    bundle = gpupipe.load(done.run)
    found = scoring.evaluate(done.run, KEYED)
    y, p = np.asarray(KEYED.column("label").to_pylist()) == "yes", bundle.scores(KEYED)
    assert bundle.classes[1] == "yes" and found["rows"] == 240
    assert found["metrics"]["roc_auc"]["value"] == pytest.approx(sk.roc_auc_score(y, p), rel=1e-12)
    assert found["metrics"]["log_loss"]["value"] == pytest.approx(sk.log_loss(y, p), rel=1e-9)
    at = KEYED.column_names.index("label")
    labels = KEYED.column("label").to_pylist()

    def relabelled(values: list) -> pa.Table:
        return KEYED.set_column(at, "label", pa.array(values))

    dotted = scoring.evaluate(done.run, relabelled([f" {v}." for v in labels]))
    assert dotted["metrics"] == found["metrics"]
    assert any("were read as" in note for note in dotted["notes"])
    holes = scoring.evaluate(done.run, relabelled([None, *labels[1:]]))
    assert holes["rows"] == 239 and any("1 rows without" in n for n in holes["notes"])
    for values, word in (([*labels[1:], "maybe"], "'maybe'"), ([None] * 240, "no row"),
                         (["Yes"] * 240, "did you mean 'yes'")):
        with pytest.raises(DataError) as caught:
            scoring.evaluate(done.run, relabelled(pa.array(values, pa.string())))
        assert word in str(caught.value)
    with pytest.raises(DataError, match="no column 'label'"):
        scoring.evaluate(done.run, KEYED.drop_columns("label"))


def test_adult_s_test_file_is_judged_with_its_full_stops(shared_data, tmp_path):
    config = settings(data={"source": str(shared_data / "adult" / "adult.data"),
                            "target": "outcome", "positive": ">50K", "drop": []},
                      split={"holdout": 0})
    done = gpupipe.run(config, runs=tmp_path)
    assert done.summary["evaluated_on"] == "nothing" and done.metrics == {}
    assert not (done.run / "predictions.parquet").exists()
    found = scoring.evaluate(done.run, str(shared_data / "adult" / "adult.test"))
    assert found["rows"] == 16_281 and found["metrics"]["roc_auc"]["value"] > 0.85
    assert any("'<=50K.'" in note or "'>50K.'" in note for note in found["notes"])


SPLITS: dict[str, dict[str, Any]] = {
    "no folds": {"holdout": 0.25, "folds": 0}, "no holdout": {"holdout": 0, "folds": 3},
    "neither": {"holdout": 0, "folds": 0}, "groups": {"group": "i", "folds": 2, "holdout": 0.2},
    "time with a gap": {"time": "when", "gap": "6h", "folds": 2, "holdout": 0.2},
}


@pytest.mark.parametrize("how", SPLITS)
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_every_split_runs_to_the_end(how, task, tmp_path):
    when = pa.array(np.arange(240) * 3_600_000_000, pa.timestamp("us"))
    table = small_table().append_column("when", when).append_column(
        "weight", pa.array(np.arange(240) % 3))
    done = run(table, tmp_path, task, split=SPLITS[how], data={"weight": "weight"})
    manifest = json.loads((done.run / "manifest.json").read_text())
    bundle = gpupipe.load(done.run)
    assert "weight" not in bundle.schema and np.isfinite(bundle.scores(table)).all()
    if how == "neither":
        return
    kept = predictions(done)
    if how == "groups":
        groups = np.asarray(table.column("i").to_pylist(), object)[kept["row"]]
        for group in set(groups):
            assert len(set(kept["fold"][groups == group])) == 1
    if how == "time with a gap":
        assert manifest["split"]["by"] == "time"
        held, rest = (kept["row"][kept["fold"] == -1], kept["row"][kept["fold"] >= 0])
        assert held.min() == 192 and held.size == 48 and rest.max() < 192


CODE = ("import sys, gpupipe; from common.quick import MEMBERS, settings, small_table; "
        "from pathlib import Path; import pyarrow.parquet as pq; gpupipe.load; "
        "import gpupipe.workflow; print('go', flush=True); "
        "[print(gpupipe.run(settings(), small_table(), runs=sys.argv[1]).run, flush=True) "
        "for _ in range(9)]")


def whole(folder: Path) -> bool:
    return {p.name for p in folder.iterdir()} == MEMBERS and bool(gpupipe.load(folder).classes)


def start(runs: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", CODE, str(runs)], stdout=subprocess.PIPE,
                            text=True, cwd=Path(__file__).parent)


def test_a_killed_run_leaves_no_folder_that_looks_whole(tmp_path):
    rng = random.Random(os.getpid())
    for _ in range(5):
        process = start(tmp_path)
        assert process.stdout is not None and process.stdout.readline() == "go\n"
        time.sleep(rng.uniform(0.05, 1.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        finished = [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
        assert all(whole(p) for p in finished)
        if (tmp_path / "latest").is_symlink():
            assert (tmp_path / "latest").resolve() in [p.resolve() for p in finished]
    assert whole(run(small_table(), tmp_path).run) and whole(tmp_path / "latest")


def test_an_interrupted_run_cleans_up(tmp_path, monkeypatch):
    first = run(small_table(), tmp_path)
    before = sorted(tmp_path.iterdir())

    def interrupted(*arguments: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "render_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(small_table(), tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "latest").resolve() == first.run.resolve()


def test_two_runs_at_once_in_one_folder_are_both_whole(tmp_path):
    found: list[Path] = []
    threads = [threading.Thread(
        target=lambda: found.append(run(small_table(), tmp_path, name="twin").run)
    ) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 2 and all(whole(folder) for folder in found)
    assert (tmp_path / "latest").resolve() in [folder.resolve() for folder in found]


def test_a_folder_of_runs_that_cannot_be_is_a_clear_error_before_the_work(tmp_path):
    (tmp_path / "file").write_text("x")
    for runs in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises((EnvironmentFault, ConfigError)) as caught:
            run(small_table(), runs)
        assert str(runs) in str(caught.value)
    assert (tmp_path / "file").read_text() == "x"


def test_latest_that_is_a_folder_is_not_lost(tmp_path):
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "mine.txt").write_text("x")
    with pytest.raises(GpupipeError) as caught:
        run(small_table(), tmp_path)
    assert "latest" in str(caught.value)
    assert (tmp_path / "latest" / "mine.txt").read_text() == "x"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".latest")]


def test_a_run_s_numbers_repeat_and_a_text_source_is_read_once(tmp_path):
    table = small_table()
    pyarrow.csv.write_csv(table, tmp_path / "t.csv")
    config = settings(data={"source": str(tmp_path / "t.csv")}, split={"folds": 2})
    one, two = (gpupipe.run(config, runs=tmp_path / "runs") for _ in range(2))
    assert one.metrics == two.metrics
    assert len(list((tmp_path / "runs" / ".cache").glob("*/meta.json"))) == 1
    for name in ("arrays.npz", "golden.json", "states.npz"):
        assert (one.bundle / name).read_bytes() == (two.bundle / name).read_bytes()
    shutil.rmtree(tmp_path / "runs" / ".cache")
    assert ingest(str(tmp_path / "t.csv"), cache=tmp_path / "c").rows == 240
