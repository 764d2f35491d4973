"""Logged requests scored again: what differs is counted, and nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from common.quick import COLUMNS, settings, small_table, trained_on, write_bundle
from serve.conftest import RECORDS

import gpupipe
from gpupipe.bundle.store import version_of
from gpupipe.cli.outcome import call
from gpupipe.errors import ConfigError, DataError
from gpupipe.registry import Registry, add
from gpupipe.skew import skew

ROWS = 60


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """A bundle a task, and a second one of two classes."""
    folder, found = tmp_path_factory.mktemp("skewed"), {}
    for name, task, seed in (("binary", "binary", 0), ("multiclass", "multiclass", 0),
                             ("regression", "regression", 0), ("second", "binary", 7)):
        made = trained_on(small_table(seed=seed), settings(task), folder / "cache")
        write_bundle(made, folder / name)
        found[name] = folder / name
    return found


def logged(bundle: Path, version: str | None = None, n: int = ROWS, seed: int = 3,
           model: str = "churn", **changes: Any) -> pa.Table:
    """Rows of a prediction log as the server writes them: each row scored alone."""
    loaded = gpupipe.load(bundle)
    raw = small_table(n, seed=seed).select(list(COLUMNS))
    answers = [loaded.predict_one(r) for r in raw.to_pylist()]
    several = loaded.task == "multiclass"
    labelled = bool(loaded.classes)
    columns: dict[str, Any] = {
        "prediction_id": [f"p{seed}-{i}" for i in range(n)],
        "request_id": [f"r{i}" for i in range(n)],
        "unit_id": [f"{i:03}" for i in range(n)],
        "time": pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * n, pa.timestamp("us", "UTC")),
        "model": [model] * n, "version": [version or version_of(bundle)] * n,
        "variant": ["champion"] * n, "shadow": [False] * n,
        "score": pa.array([None if several else a["probability"] if labelled else a["prediction"]
                           for a in answers], pa.float64()),
        "probabilities": pa.array([list(a["probabilities"].values()) if several else None
                                   for a in answers], pa.list_(pa.float64())),
        "prediction": pa.array([a["prediction"] if labelled else None for a in answers],
                               pa.string()),
    }
    columns |= {f"feature:{c}": raw.column(c) for c in COLUMNS}
    return pa.table(columns | changes)


def written(folder: Path, *tables: pa.Table) -> Path:
    day = folder / "log" / "date=2026-01-01"
    day.mkdir(parents=True, exist_ok=True)
    for i, table in enumerate(tables):
        pq.write_table(table, day / f"part-{i}.parquet", row_group_size=25)
    return folder / "log"


def replaced(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    values = table.column(name).to_pylist()
    values[row] = value
    at = table.column_names.index(name)
    return table.set_column(at, name, pa.array(values, table.schema.field(name).type))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_what_was_answered_row_by_row_is_what_the_batch_path_gives(task, models, tmp_path):
    found = skew(models[task], written(tmp_path, logged(models[task])))
    (version,) = found["versions"]
    assert not found["differs"]
    assert version["row_path"] == "compiled"
    assert version["score"] == {"rows": ROWS, "differ": 0, "greatest": 0.0}
    if task == "regression":
        assert version["prediction"] is None
    else:
        assert version["prediction"] == {"rows": ROWS, "differ": 0, "greatest": 0.0}
    assert {f["name"] for f in version["features"]} == set(COLUMNS)
    for feature in version["features"]:
        assert (feature["rows"], feature["differ"]) == (ROWS, 0)


def test_a_score_that_is_off_is_found_and_measured(models, tmp_path):
    table = logged(models["binary"])
    score = table.column("score")[30].as_py()
    log = written(tmp_path, replaced(table, "score", 30, score + 0.25))
    found = skew(models["binary"], log)
    assert found["differs"]
    (version,) = found["versions"]
    assert version["score"]["differ"] == 1
    assert version["score"]["greatest"] == pytest.approx(0.25)
    assert not skew(models["binary"], log, tolerance=0.3)["differs"]
    # The last bit counts, too.
    log = written(tmp_path, replaced(table, "score", 30, float(np.nextafter(score, 1))))
    assert skew(models["binary"], log)["versions"][0]["score"]["differ"] == 1


@pytest.mark.parametrize("row", [0, ROWS - 1])
def test_a_score_that_is_missing_and_a_label_that_is_another_differ(row, models, tmp_path):
    table = replaced(logged(models["binary"]), "score", row, None)
    (version,) = skew(models["binary"], written(tmp_path, table))["versions"]
    assert version["score"] == {"rows": ROWS, "differ": 1, "greatest": 0.0}
    assert version["prediction"]["differ"] == 0
    table = replaced(logged(models["binary"]), "prediction", row, "maybe")
    (version,) = skew(models["binary"], written(tmp_path, table))["versions"]
    assert (version["score"]["differ"], version["prediction"]["differ"]) == (0, 1)


def test_a_probability_of_one_class_that_is_off_is_one_row(models, tmp_path):
    table = logged(models["multiclass"])
    values = table.column("probabilities")[4].as_py()
    log = written(tmp_path, replaced(table, "probabilities", 4, [values[0] + 0.5, *values[1:]]))
    (version,) = skew(models["multiclass"], log)["versions"]
    assert version["score"]["differ"] == 1
    assert version["score"]["greatest"] == pytest.approx(0.5)


def test_a_row_path_that_makes_another_feature_is_told_by_column(models, tmp_path, monkeypatch):
    from dataclasses import replace

    from gpupipe.skew import paths

    def spoilt(graph, fitted):
        return [replace(c, features=c.features + 1) if c.name == "s" else c
                for c in compiled(graph, fitted)]

    compiled = paths.compiled
    monkeypatch.setattr(paths, "compiled", spoilt)
    found = skew(models["binary"], written(tmp_path, logged(models["binary"])))
    differing = {f["name"]: f["differ"] for f in found["versions"][0]["features"] if f["differ"]}
    assert found["differs"]
    assert set(differing) == {"s"}


def test_rows_of_other_versions_are_counted_apart(models, tmp_path):
    log = written(tmp_path, logged(models["binary"]), logged(models["second"], n=20, seed=5),
                  logged(models["binary"], n=7, seed=6, version="9"))
    found = skew(models["binary"], log)
    assert found["rows"] == ROWS + 27
    assert [v["rows"] for v in found["versions"]] == [ROWS]
    assert {(o["version"], o["rows"]) for o in found["other"]} == {
        (version_of(models["second"]), 20), ("9", 7)}
    assert not found["differs"]


def test_a_registry_answers_for_every_version_that_it_has(models, tmp_path):
    registry = Registry(tmp_path / "models")
    for name in ("binary", "second"):
        add(registry, "churn", models[name])
    mixed = pa.concat_tables([logged(models["binary"], "1"), logged(models["second"], "2", seed=4),
                              logged(models["binary"], "3", n=5, seed=8),
                              logged(models["binary"], "1", n=6, seed=9, model="other")])
    log = written(tmp_path, mixed)
    found = skew(tmp_path / "models" / "churn", log)
    assert [(v["version"], v["rows"]) for v in found["versions"]] == [("1", ROWS), ("2", ROWS)]
    assert [(o["model"], o["version"], o["rows"]) for o in found["other"]] == [
        ("churn", "3", 5), ("other", "1", 6)]
    assert not found["differs"]
    found = skew(f"{tmp_path}/models/churn@2", log)
    assert [(v["version"], v["rows"]) for v in found["versions"]] == [("2", ROWS)]
    found = skew(f"{tmp_path}/models/churn@1", log, name="other")
    assert [(v["model"], v["rows"]) for v in found["versions"]] == [("other", 6)]


def test_files_without_features_are_counted_and_others_compared(models, tmp_path):
    bare = logged(models["binary"], n=11, seed=8)
    bare = bare.select([n for n in bare.column_names if n != "feature:s"])
    (version,) = skew(models["binary"], written(tmp_path, logged(models["binary"]), bare))[
        "versions"]
    assert (version["rows"], version["without_features"]) == (ROWS + 11, 11)
    assert version["lacking"] == ["s"]
    assert version["score"]["rows"] == ROWS


def test_a_log_that_cannot_be_scored_again_is_told(models, tmp_path):
    table = logged(models["binary"])
    bare = table.select([n for n in table.column_names if not n.startswith("feature:")])
    with pytest.raises(DataError, match="no features") as told:
        skew(models["binary"], written(tmp_path / "a", bare))
    assert "features: true" in str(told.value)
    with pytest.raises(DataError, match=r"another version than [0-9a-f]{12}"):
        skew(models["second"], written(tmp_path / "b", table))
    with pytest.raises(DataError, match="lacks 'version'"):
        skew(models["binary"], written(tmp_path / "c", table.drop_columns(["version"])))
    with pytest.raises(DataError, match="column 'i'"):
        skew(models["binary"], written(tmp_path / "d", table.set_column(
            table.column_names.index("feature:i"), "feature:i", pa.array(["x"] * ROWS))))
    with pytest.raises(DataError, match="no such file"):
        skew(models["binary"], tmp_path / "none")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "part.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="damaged"):
        skew(models["binary"], tmp_path / "e")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "log.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no prediction log"):
        skew(models["binary"], tmp_path / "f")


def test_what_a_server_logged_is_what_the_batch_path_gives(models, running, tmp_path):
    config = tmp_path / "serve.yaml"
    config.write_text(f"champion: {models['binary']}\nlog: {{path: log, features: true}}\n")
    server = running("--config", str(config))
    for i in range(0, len(RECORDS), 8):
        assert server.predict(*RECORDS[i : i + 8]).status_code == 200
    assert server.predict(RECORDS[0]).status_code == 200
    assert server.end() == 0
    found = skew(models["binary"], tmp_path / "log")
    assert [v["score"]["rows"] for v in found["versions"]] == [len(RECORDS) + 1]
    assert not found["differs"]
    assert not found["other"]


# Beside the offline table ------------------------------------------------------------------------


def offline(table: pa.Table) -> pa.Table:
    """The features of a log as a table by unit."""
    columns = {c: table.column(f"feature:{c}") for c in COLUMNS}
    return pa.table({"unit": table.column("unit_id")} | columns)


def by_feature(found: dict[str, Any]) -> dict[str, int]:
    return {f["name"]: f["differ"] for f in found["source"]["features"]}


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_table_with_the_same_values_differs_in_nothing(ending, models, tmp_path):
    table = logged(models["binary"])
    # Empty text is a missing value in CSV, so it is none that the two can agree on.
    text = ["a" if v == "" else v for v in table.column("feature:s").to_pylist()]
    table = table.set_column(table.column_names.index("feature:s"), "feature:s", pa.array(text))
    source = tmp_path / f"offline.{ending}"
    if ending == "csv":
        pyarrow.csv.write_csv(offline(table), source)
    else:
        pq.write_table(offline(table), source)
    found = skew(models["binary"], written(tmp_path, table), source=source, key="unit",
                 tolerance=1.0)["source"]
    assert (found["rows"], found["unmatched"], found["absent"]) == (ROWS, 0, [])
    assert found["log_key"] == "unit_id"
    assert not found["differs"]
    assert {f["name"]: f["differ"] for f in found["features"]} == dict.fromkeys(COLUMNS, 0)


def test_each_kind_of_difference_is_counted_with_examples(models, tmp_path):
    table = logged(models["binary"])
    own = offline(table)
    f = own.column("f").to_pylist()
    known = [i for i, v in enumerate(f) if v is not None]
    for i in known[:12]:
        f[i] += 2.0
    own = own.set_column(1, "f", pa.array(f))
    missing = next(i for i, v in enumerate(own.column("s").to_pylist()) if v is not None)
    own = replaced(own, "s", missing, None)
    moment = next(i for i, v in enumerate(own.column("t").to_pylist()) if v is not None)
    ticks = own.column("t").cast(pa.int64()).to_pylist()
    ticks[moment] += 3_600_000_000
    own = own.set_column(own.column_names.index("t"), "t",
                         pa.array(ticks, pa.int64()).cast(pa.timestamp("us")))
    own = own.slice(0, 50).drop_columns(["b"])
    source = tmp_path / "offline.parquet"
    pq.write_table(own, source)
    found = skew(models["binary"], written(tmp_path, table), source=source, key="unit")
    assert found["differs"]
    assert not found["versions"][0]["differs"]
    side = found["source"]
    assert (side["rows"], side["unmatched"], side["absent"]) == (50, 10, ["b"])
    assert by_feature(found) == {"f": 12, "narrow": 0, "i": 0, "s": 1, "t": 1}
    features = {f["name"]: f for f in side["features"]}
    assert features["f"]["share"] == pytest.approx(12 / 50)
    assert features["f"]["greatest"] == pytest.approx(2.0)
    assert features["t"]["greatest"] == 3600.0
    assert len(features["f"]["examples"]) == 5
    (example,) = features["s"]["examples"]
    assert example == {"key": f"{missing:03}", "logged": table.column("feature:s")[missing].as_py(),
                       "offline": None, "prediction_id": f"p3-{missing}"}


def test_numbers_may_be_apart_by_a_relative_tolerance(models, tmp_path):
    table = logged(models["binary"])
    own = offline(table)
    off = pa.compute.multiply(own.column("f"), 1.001)
    pq.write_table(own.set_column(1, "f", off), tmp_path / "offline.parquet")
    log = written(tmp_path, table)
    strict = skew(models["binary"], log, source=tmp_path / "offline.parquet", key="unit")
    assert by_feature(strict)["f"] > 40
    loose = skew(models["binary"], log, source=tmp_path / "offline.parquet", key="unit",
                 source_tolerance=0.01)
    assert by_feature(loose)["f"] == 0
    assert not loose["differs"]


def test_shadow_rows_are_not_counted_twice(models, tmp_path):
    table = logged(models["binary"])
    shadow = logged(models["second"], shadow=[True] * ROWS)
    pq.write_table(offline(table), tmp_path / "offline.parquet")
    found = skew(models["binary"], written(tmp_path, table, shadow),
                 source=tmp_path / "offline.parquet", key="unit")
    assert found["source"]["rows"] == ROWS


def test_a_source_that_cannot_be_compared_is_told(models, tmp_path):
    table = logged(models["binary"])
    log, source = written(tmp_path, table), tmp_path / "offline.parquet"
    with pytest.raises(ConfigError, match="key"):
        skew(models["binary"], log, source=source)
    pq.write_table(offline(table), source)
    with pytest.raises(DataError, match="no column 'units'") as told:
        skew(models["binary"], log, source=source, key="units")
    assert "did you mean 'unit'?" in str(told.value)
    pq.write_table(pa.concat_tables([offline(table)] * 2), source)
    with pytest.raises(DataError, match="60 keys have more than one row, such as '000'"):
        skew(models["binary"], log, source=source, key="unit")
    pq.write_table(offline(table).set_column(0, "unit", pa.array(["x"] * ROWS)).slice(0, 1), source)
    with pytest.raises(DataError, match="such as '000'"):
        skew(models["binary"], log, source=source, key="unit")
    with pytest.raises(ConfigError, match="tolerance"):
        skew(models["binary"], log, tolerance=-1.0)


def test_the_command_ends_with_4_where_something_differs(models, tmp_path, capfd):
    table = logged(models["binary"])
    log = str(written(tmp_path, table))
    assert call(["skew", str(models["binary"]), log]) == 0
    assert "nothing differs" in capfd.readouterr().out
    assert call(["skew", str(models["binary"]), log, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["versions"][0]["score"]["rows"] == ROWS
    written(tmp_path, replaced(table, "score", 0, 0.123))
    pq.write_table(offline(replaced(table, "feature:f", 1, 9e9)), tmp_path / "offline.parquet")
    assert call(["skew", str(models["binary"]), log, "--source", str(tmp_path / "offline.parquet"),
                 "--key", "unit"]) == 4
    said = capfd.readouterr().out
    assert "something differs" in said
    assert "001" in said
    assert call(["skew", str(models["second"]), log]) == 3
    assert "Traceback" not in capfd.readouterr().err
