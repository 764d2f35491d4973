"""Every bad input through the real command line: one clear error, or a rule that was applied.

Each case is a folder of files and a command. What is refused exits with 3 (data) or 2 (the
pipeline file), says so in one message that names file and row or column, and leaves the folder
as it was, caches apart.
"""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpupipe
from gpupipe.cli.outcome import call

N = 60
TAIL = ("split: {holdout: 0.25, folds: 0}\nmodel: {params: {n_estimators: 3}}\n"
        "evaluate: {baselines: [], resamples: 5}\nengine: {workers: 1}\n")
PLAIN = "data: {source: t.csv, target: y}\n" + TAIL
PARQUET = "data: {source: t.parquet, target: y}\n" + TAIL


def rows(cell: Any = lambda i: i % 7, header: str = "a,b,y", n: int = N) -> list[str]:
    """Lines of a good table; ``cell`` makes column ``b``."""
    return [header, *(f"{i * 37 % 101},{cell(i)},{'yes' if i % 3 else 'no'}" for i in range(n))]


def text(lines: list[str], **replaced: str) -> bytes:
    lines = list(lines)
    for at, line in replaced.items():
        lines[int(at[1:]) - 1] = line
    return ("\n".join(lines) + "\n").encode()


def parquet(**columns: Any) -> bytes:
    table = pa.table({"a": [i * 37 % 101 for i in range(N)], **columns,
                      "y": ["yes" if i % 3 else "no" for i in range(N)]})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def column_twice() -> bytes:
    table = pa.Table.from_arrays([pa.array(range(N)), pa.array(range(N)), pa.array(
        ["yes", "no"] * (N // 2))], names=["a", "a", "y"])
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def config(features: str) -> str:
    return PLAIN + f"features:\n{features}\n"


GOOD = text(rows())
WORDS = text(rows(lambda i: "ab"[i % 2]))
Case = tuple[dict[str, bytes], str, int, list[str]]

DATA: dict[str, Case] = {
    "a missing file": ({}, PLAIN, 3, ["t.csv", "no such file"]),
    "a file of nearly that name": ({"T1.csv": GOOD}, PLAIN, 3, ["t.csv", "'T1.csv'"]),
    "an empty file": ({"t.csv": b""}, PLAIN, 3, ["t.csv", "empty"]),
    "a header alone": ({"t.csv": b"a,b,y\n"}, PLAIN, 3, ["t.csv", "not one row"]),
    "ragged rows": ({"t.csv": text(rows(), L5="1,2", L9="1,2,3,4")}, PLAIN, 3,
                    ["t.csv:5", "2 fields where 3 are expected", "t.csv:9", "2 of 60 rows"]),
    "not UTF-8": ({"t.csv": text(rows()).replace(b"\n0,", b"\n\xe9,", 1)}, PLAIN, 3,
                  ["t.csv:", "0xe9", "UTF-8", "data.encoding"]),
    "an open quote": ({"t.csv": text(rows(), L7='1,"x,yes')}, PLAIN, 3,
                      ["t.csv:7", "quoted field is not closed"]),
    "a NUL byte": ({"t.csv": text(rows(), L7="1,\0,yes")}, PLAIN, 3, ["t.csv:7", "NUL byte"]),
    "gzip cut short": ({"t.csv": gzip.compress(GOOD)[:-20]}, PLAIN, 3, ["t.csv", "cut short"]),
    "an Excel file": ({"t.csv": b"PK\x03\x04" + bytes(500)}, PLAIN, 3, ["t.csv", "Excel"]),
    "a pickle": ({"t.csv": b"\x80\x04\x95" + bytes(500)}, PLAIN, 3, ["t.csv", "pickle"]),
    "broken JSON": ({"t.jsonl": b'{"a": 1, "y": "x"}\n{"a": \n'},
                    PLAIN.replace("t.csv", "t.jsonl"), 3, ["t.jsonl:2", "not JSON"]),
    "words where numbers were pinned": (
        {"t.csv": text(rows(), L8="1,oops,yes")},
        PLAIN.replace("target: y", "target: y, types: {b: int}"), 3, ["t.csv:8", "'oops'"]),
    "a fraction where integers were pinned": (
        {"t.csv": text(rows(), L8="1,2.5,yes")},
        PLAIN.replace("target: y", "target: y, types: {b: int}"), 3, ["t.csv:8", "'2.5'"]),
    "Parquet cut short": ({"t.parquet": parquet()[:-30]}, PARQUET, 3, ["t.parquet", "damaged"]),
    "rubbish in Parquet's middle": (
        {"t.parquet": parquet(b=np.random.default_rng(0).random(N))[:40] + bytes(300) + parquet(
            b=np.random.default_rng(0).random(N))[340:]}, PARQUET, 3, ["t.parquet"]),
    "unsigned integers past 2^63": (
        {"t.parquet": parquet(b=pa.array([2**63] * N, pa.uint64()))}, PARQUET, 3,
        ["t.parquet", "'b'", "uint64", "data.types: {b: string}"]),
    "a nested column": ({"t.parquet": parquet(b=[[1]] * N)}, PARQUET, 3,
                        ["t.parquet", "'b'", "list", "data.drop: [b]"]),
    "a binary column": ({"t.parquet": parquet(b=[b"x"] * N)}, PARQUET, 3,
                        ["t.parquet", "'b'", "binary"]),
    "a name twice in Parquet": ({"t.parquet": column_twice()}, PARQUET, 3,
                                ["t.parquet", "two columns called 'a'"]),
    "files of other columns": ({"t/1.csv": GOOD, "t/2.csv": text(rows(header="a,c,y"))},
                               PLAIN.replace("t.csv", "t"), 3, ["2.csv", "'c'"]),
    "files of other types": (
        {"t/1.parquet": parquet(b=[1] * N), "t/2.parquet": parquet(b=["x"] * N)},
        PARQUET.replace("t.parquet", "t"), 3, ["2.parquet", "'b'", "string", "int64"]),
    "a target without a value": ({"t.csv": text([r.rsplit(",", 1)[0] + "," if i else r for i, r in
                                                 enumerate(rows())])}, PLAIN, 3, ["'y'"]),
    "a target of one class": ({"t.csv": GOOD.replace(b"no", b"yes")}, PLAIN, 3,
                              ["'y'", "one class alone", "'yes'"]),
    "too few rows": ({"t.csv": text(rows(n=3))},
                     PLAIN.replace("folds: 0", "folds: 5"), 3, ["3 rows", "split.folds"]),
    "holes where the model takes none": (
        {"t.csv": text(rows(lambda i: i if i % 2 else ""))},
        config("  - log: {columns: a}").replace("model: {", "model: {kind: linear, ").replace(
            "{n_estimators: 3}", "{}"), 3, ["'linear'", "missing values", "b", "impute"]),
    "a word that does not cast": (
        {"t.csv": text(rows(lambda i: "x" if i == 5 else i))},
        config("  - cast: {columns: b, to: float64}"), 3, ["cast", "'x'", "data.missing"]),
}

CONFIG: dict[str, Case] = {
    "an unknown target": ({"t.csv": GOOD}, PLAIN.replace("target: y", "target: yy"), 2,
                          ["p.yaml:1", "no column 'yy'", "did you mean 'y'?", "^"]),
    "an unknown column to drop": ({"t.csv": GOOD}, PLAIN.replace("y}", "y, drop: [cc]}"), 2,
                                  ["p.yaml:1", "'cc'", "the columns are a, b, y"]),
    "an unknown key column": ({"t.csv": GOOD}, PLAIN.replace("y}", "y, key: id}", 1), 2,
                              ["p.yaml:1", "no column 'id'"]),
    "an unknown pinned column": ({"t.csv": GOOD}, PLAIN.replace("y}", "y, types: {bb: int}}", 1),
                                 2, ["'bb'", "'b'"]),
    "an unknown slice": ({"t.csv": GOOD}, PLAIN.replace("resamples: 5", "slices: [z]"), 2,
                         ["p.yaml:4", "no column 'z'"]),
    "an unknown column in a step": ({"t.csv": GOOD}, config("  - scale: {columns: bb}"), 2,
                                    ["p.yaml:7", "'bb'", "did you mean"]),
    "an unknown step": ({"t.csv": GOOD}, config("  - scael: {columns: b}"), 2,
                        ["p.yaml:7:5", "'scael'", "did you mean 'scale'?"]),
    "text for numbers in a step": ({"t.csv": WORDS}, config("  - scale: {columns: b}"), 2,
                                   ["p.yaml:7", "'scale'", "'b'", "string"]),
    "text that reaches the model": ({"t.csv": WORDS}, config("  - scale: {columns: a}"), 2,
                                    ["text", "b", "one_hot"]),
    "nothing left": ({"t.csv": GOOD}, PLAIN.replace("y}", "y, drop: [a, b]}", 1), 2,
                     ["no column is left"]),
    "a wrong type": ({"t.csv": GOOD}, PLAIN.replace("folds: 0", "folds: many"), 2,
                     ["p.yaml:2", "folds", "'many'", "^^^^"]),
    "an impossible value": ({"t.csv": GOOD}, PLAIN.replace("0.25", "1.5"), 2,
                            ["p.yaml:2", "holdout", "1.5"]),
    "an unknown key": ({"t.csv": GOOD}, PLAIN + "sede: 1\n", 2,
                       ["p.yaml:6:1", "'sede'", "did you mean 'seed'?"]),
    "a key twice": ({"t.csv": GOOD}, PLAIN + "seed: 1\nseed: 2\n", 2,
                    ["p.yaml:7:1", "'seed'", "line 6"]),
    "no YAML": ({"t.csv": GOOD}, "data: {source: [\n", 2, ["p.yaml:"]),
    "an empty pipeline file": ({"t.csv": GOOD}, "", 2, ["p.yaml", "empty"]),
    "an unknown model": ({"t.csv": GOOD}, PLAIN + "", 2, []),
    "an unknown parameter": ({"t.csv": GOOD}, PLAIN.replace("n_estimators", "n_estimator"), 2,
                             ["p.yaml:3", "'n_estimator'", "did you mean 'n_estimators'?"]),
    "an unknown metric": ({"t.csv": GOOD}, PLAIN.replace("resamples: 5", "metrics: [roc_acu]"), 2,
                          ["'roc_acu'", "roc_auc"]),
    "a positive label that is not there": (
        {"t.csv": GOOD}, PLAIN.replace("y}", "y, positive: maybe}", 1), 2,
        ["p.yaml:1", "'maybe'", "'no' and 'yes'"]),
    "names made twice": (
        {"t.csv": text(rows(lambda i: i % 3, header="b_missing,b,y"), L4="1,,yes")},
        config("  - impute: {columns: b, indicator: true}"), 2,
        ["p.yaml:7", "'impute'", "second column named 'b_missing'"]),
    "a weight of text": ({"t.csv": WORDS}, PLAIN.replace("y}", "y, weight: b}", 1), 2,
                         ["p.yaml:1", "'b'", "string"]),
}
CONFIG["an unknown model"] = ({"t.csv": GOOD}, PLAIN.replace(
    "model: {params: {n_estimators: 3}}", "model: {kind: xgbost}"), 2,
    ["p.yaml:3", "'xgbost'", "did you mean 'xgboost'?"])
BAD = DATA | CONFIG


def contents(folder: Path) -> dict[str, bytes]:
    """Every file in ``folder``, caches apart."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*")
            if p.is_file() and ".cache" not in p.parts}


def lay_out(folder: Path, files: dict[str, bytes], pipeline: str) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "p.yaml").write_text(pipeline)


@pytest.mark.parametrize("case", BAD)
def test_a_bad_input_is_one_clear_error_and_leaves_nothing(case, tmp_path, monkeypatch, capfd):
    files, pipeline, code, words = BAD[case]
    lay_out(tmp_path, files, pipeline)
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    found = call(["run", "p.yaml"])
    out, err = capfd.readouterr()
    assert found == code, err
    assert out == "" and err.startswith("error: ") and err.count("error: ") == 1, err
    assert "Traceback" not in err and "warning" not in err
    assert all(word in err for word in words), err
    assert contents(tmp_path) == before
    assert not [p for p in tmp_path.glob("runs/*") if p.name != ".cache"]
    assert not [p for p in tmp_path.glob("runs/.cache/*") if p.name.startswith(".")]


@pytest.mark.parametrize("case", ["ragged rows", "an unknown target"])
def test_an_error_is_one_json_object_where_asked(case, tmp_path, monkeypatch, capfd):
    files, pipeline, code, words = BAD[case]
    lay_out(tmp_path, files, pipeline)
    monkeypatch.chdir(tmp_path)
    assert call(["run", "p.yaml", "--json"]) == code
    out, err = capfd.readouterr()
    error = json.loads(out)["error"]
    assert err == "" and error["exit_code"] == code
    assert all(word in json.dumps(error, ensure_ascii=False) for word in words)


RULES: dict[str, tuple[dict[str, bytes], str, dict[str, str], list[str]]] = {
    "mixed types are text": (
        {"t.csv": text(rows(lambda i: i if i % 2 else "x"))}, PLAIN, {"b": "string"}, []),
    "a column without a value": (
        {"t.csv": text(rows(lambda i: ""))}, PLAIN, {"b": "float64"}, ["'b' has no values"]),
    "integers past 2^53": (
        {"t.csv": text(rows(lambda i: 2**53 + i))}, PLAIN, {"b": "int64"}, ["'b'", "2^53"]),
    "integers past 2^64": (
        {"t.csv": text(rows(lambda i: 2**64 + i % 3))}, PLAIN, {"b": "string"}, ["'b'", "64"]),
    "booleans with holes": (
        {"t.csv": text(rows(lambda i: ("true", "false", "")[i % 3]))}, PLAIN, {"b": "bool"}, []),
    "times with and without a zone": (
        {"t.csv": text(rows(lambda i: f"2024-01-{i % 28 + 1:02}T00:00:00" + "Z" * (i % 2)))},
        PLAIN, {"b": "string"}, ["'b'"]),
    "times in several zones": (
        {"t.csv": text(rows(lambda i: f"2024-01-{i % 28 + 1:02}T00:00:00+0{i % 4}:00"))},
        PLAIN, {"b": "timestamp"}, []),
    "a byte-order mark": ({"t.csv": b"\xef\xbb\xbf" + GOOD}, PLAIN, {"a": "int64"}, []),
    "UTF-16": ({"t.csv": GOOD.decode().encode("utf-16")}, PLAIN, {"a": "int64"}, []),
    "a name twice in text": (
        {"t.csv": text(rows(header="a,a,y"))}, PLAIN, {"a": "int64", "a.1": "int64"}, ["'a.1'"]),
    "names that differ in case and blanks": (
        {"t.csv": text(rows(header="a, A,y"))}, PLAIN, {"a": "int64", "A": "int64"}, []),
    "infinite values": (
        {"t.csv": text(rows(lambda i: "inf" if i % 9 == 0 else i / 7))}, PLAIN,
        {"b": "float64"}, []),
    "other delimiters and quotes": (
        {"t.csv": GOOD.replace(b",", b'";"').replace(b"\n", b'"\r\n"').removesuffix(b'"')},
        PLAIN, {}, []),
    "a few bad rows within the share": (
        {"t.csv": text(rows(), L5="1,2")},
        PLAIN.replace("target: y", "target: y, max_bad_share: 0.05"), {"b": "int64"}, []),
    "a name that a one-hot makes again": (
        {"t.csv": text(rows(lambda i: "uv"[i % 2], header="b_u,b,y"))},
        config("  - one_hot: {columns: b}"), {"b": "string", "b_u": "int64"}, []),
}


@pytest.mark.parametrize("case", RULES)
def test_an_odd_input_runs_by_a_written_rule(case, tmp_path, monkeypatch, capfd):
    files, pipeline, types, words = RULES[case]
    lay_out(tmp_path, files, pipeline)
    monkeypatch.chdir(tmp_path)
    code = call(["run", "p.yaml", "--json"])
    out, err = capfd.readouterr()
    assert code == 0, out + err
    answer = json.loads(out)
    manifest = json.loads((tmp_path / answer["run"] / "manifest.json").read_text())
    found = {c["name"]: c["dtype"] for c in manifest["data"]["schema"]}
    assert types.items() <= found.items(), found
    notes = " ".join(manifest["notes"])
    assert all(word in notes for word in words), notes
    bad = 1 if case.startswith("a few bad rows") else 0
    assert manifest["quarantine"]["count"] == bad and manifest["data"]["rows"] == N - bad
    # Scoring allows the share of bad rows that training did.
    scored = call(["predict", "runs/latest", next(iter(files)), "--output", "out.csv"])
    assert scored == 0, capfd.readouterr().err
    assert np.isfinite(answer["metrics"]["log_loss"]["value"])
    names = gpupipe.load(tmp_path / "runs" / "latest").feature_names
    assert len(set(names)) == len(names)
    if case == "a name that a one-hot makes again":
        assert sorted(names) == ["b_u", "b_u.1", "b_v"] and names[0] == "b_u"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    lay_out(folder, {"t.csv": GOOD}, PLAIN)
    result = gpupipe.run(folder / "p.yaml", runs=folder / "runs")
    return result.run


SCORED: dict[str, tuple[bytes, str, list[str]]] = {
    "a missing column": (text(rows(header="a,c,y")), "predict", ["'b'"]),
    "another type": (text(rows(lambda i: "x")), "predict", ["new.csv", "'x'"]),
    "one word among numbers": (text(rows(), L9="1,x,no"), "predict", ["new.csv:9", "'x'"]),
    "ragged": (text(rows(), L9="1"), "predict", ["new.csv:9", "1 field"]),
    "empty": (b"", "predict", ["new.csv", "empty"]),
    "no target": (text([r.rsplit(",", 1)[0] for r in rows()]), "evaluate", ["new.csv", "'y'"]),
    "unknown labels": (GOOD.replace(b"yes", b"perhaps"), "evaluate", ["'perhaps'", "'yes'"]),
}


@pytest.mark.parametrize("case", SCORED)
def test_bad_data_to_score_is_one_clear_error(case, trained, tmp_path, monkeypatch, capfd):
    content, verb, words = SCORED[case]
    (tmp_path / "new.csv").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    output = ["--output", "out.parquet"] if verb == "predict" else []
    assert call([verb, str(trained), "new.csv", *output]) == 3
    out, err = capfd.readouterr()
    assert out == "" and err.count("error: ") == 1 and "Traceback" not in err
    assert all(word in err for word in words), err
    assert [p.name for p in tmp_path.iterdir()] == ["new.csv"]
