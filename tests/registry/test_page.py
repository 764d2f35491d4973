"""The commands of the registry's page, run one after the other as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from common.quick import settings, small_table

import gpupipe
from gpupipe.cli.outcome import call
from gpupipe.registry import Registry
from gpupipe.registry.gates import read_gates

PAGE = (Path(gpupipe.__file__).parents[1] / "docs" / "registry.md").read_text()


def table(rows: int, seed: int) -> pa.Table:
    made = small_table(rows, seed).drop_columns(["kind", "amount", "t"])
    for name in ("plan", "region"):
        made = made.append_column(name, pa.array([f"{name} {i % 3}" for i in range(rows)]))
    return made


def pipeline(trees: int) -> None:
    config = settings(model={"kind": "xgboost", "params": {"n_estimators": trees}})
    config["data"] = {"source": "t.parquet", "target": "label"}
    Path("pipeline.yaml").write_text(json.dumps(config))


def test_every_command_on_the_page_does_what_it_says(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    pq.write_table(table(400, 0), "t.parquet")
    pq.write_table(table(400, 1), "labelled.parquet")
    pyarrow.csv.write_csv(table(50, 2), "new.csv")
    (gates,) = re.findall(r"^    (gates:\n(?:      .*\n)+)", PAGE, re.MULTILINE)
    Path("gates.yaml").write_text(gates)
    Path("drift").mkdir()
    Path("drift/verdict.json").write_text('{"state": "ok", "firing": false}')
    pipeline(4)
    assert call(["run", "pipeline.yaml"]) == 0
    pipeline(12)

    lines = re.findall(r"^    (gpupipe .*)$", PAGE, re.MULTILINE)
    done = []
    for words in (shlex.split(line, comments=True)[1:] for line in lines):
        if any("s3://" in w for w in words):
            continue
        if words[:2] == ["models", "rollback"]:  # to go back there has to be something before
            for version in (2, 1, 2):
                assert call(["models", "promote", f"models/churn@{version}"]) == 0
        code = call(words)
        told = capfd.readouterr()
        assert code in ((0, 4) if "promote" in words else (0,)), (words, told.err)
        done.append(" ".join(words[:2]))
    assert set(done) >= {f"models {v}" for v in (
        "add", "list", "show", "verify", "rollback", "promote", "compare", "export")}
    registry = Registry("models")
    assert [v.version for v in registry.versions("churn")] == [1, 2]
    assert [e.action for e in registry.history("churn")][:4] == ["promote"] * 3 + ["rollback"]
    for name in ("scores.parquet", "churn-mlflow/MLmodel", "churn-onnx/model.onnx",
                 "churn-xgboost/features.json"):
        assert Path(name).is_file()


def test_the_gates_on_the_page_are_all_that_there_are_with_their_defaults(tmp_path):
    (text,) = re.findall(r"^    (gates:\n(?:      .*\n)+)", PAGE, re.MULTILINE)
    path = tmp_path / "gates.yaml"
    path.write_text(text)
    found = read_gates(path)
    assert found.model_fields_set == set(type(found).model_fields)
    default = type(found)()
    assert (found.latency, found.confidence, found.slice_margin) == (
        default.latency, default.confidence, default.slice_margin)
    assert f"{default.mode} (the default)" in PAGE.replace("or better", "better")
