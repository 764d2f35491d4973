"""The pipeline file: what it accepts, what it means, and where it says a mistake stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpupipe.config import (
    ColumnNames,
    PipelineConfig,
    Section,
    bytes_of,
    dump_config,
    json_schema,
    load_config,
    microseconds_of,
    parse_config,
    validated,
)
from gpupipe.errors import ConfigError

DATA = "data: {source: a.csv, target: y}\n"


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "pipeline.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refused(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.exit_code == 2
    return caught.value


def test_two_keys_are_enough_and_everything_else_has_its_default(write):
    config = load_config(write("data:\n  source: a.csv\n  target: y\n"))
    assert (config.split.holdout, config.split.folds, config.split.by) == (0.2, 5, "auto")
    assert (config.model.kind, config.seed, config.features) == ("xgboost", 0, None)
    assert config.evaluate.baselines == ["linear", "constant"]
    assert config.engine.batch_rows is None


def test_the_design_document_s_example_reads_as_meant(write):
    config = load_config(write("""
name: adult-income
data:
  source: adult.data            # a comment
  target: outcome
  positive: ">50K"
  drop: [fnlwgt]
  key: null
  types: {capital-gain: float}
  missing: ["?", ""]
split: {holdout: 0.2, folds: 5, by: stratified, group: null, time: null, gap: null}
features:
  - impute: {columns: numeric, strategy: median, indicator: true}
  - target_encode: {columns: "native-*", smooth: auto}
  - one_hot: {columns: [sex, race]}
model: {kind: xgboost, params: {n_estimators: 500, max_depth: 6}}
evaluate: {metrics: [roc_auc, log_loss], slices: [sex, race]}
engine: {device: auto, kind: auto, workers: auto, memory: auto, address: null}
seed: 0
"""))
    assert config.data.positive == ">50K"
    assert config.data.types == {"capital-gain": "float64"}
    assert config.data.missing == ["?", ""]
    assert config.features is not None
    assert config.features[1] == {"target_encode": {"columns": "native-*", "smooth": "auto"}}
    assert config.model.params == {"n_estimators": 500, "max_depth": 6}


@pytest.mark.parametrize(("written", "meant"), [
    ("yes", "yes"), ("no", "no"), ("on", "on"), ("Off", "Off"), ("y", "y"), ("NO", "NO"),
    ("true", True), ("False", False), ("1", 1), ("-3", -3), ("1.5", 1.5), ("1e3", 1000.0),
    ("007", "007"), ("1_000", "1_000"), ("12:30:45", "12:30:45"), ("2024-01-31", "2024-01-31"),
    ('"true"', "true"), ("'1'", "1"), ("~", None), ("'>50K'", ">50K"), ("0x1F", "0x1F"),
    ("<=50K.", "<=50K."), ("=", "="), (".5", 0.5), ("1.", 1.0), ("+7", 7), (".", "."),
])
def test_a_label_means_what_is_written_without_yaml_1_1_surprises(write, written, meant):
    config = load_config(write(f"data: {{source: a.csv, target: y, positive: {written}}}"))
    assert config.data.positive == meant
    assert type(config.data.positive) is type(meant)


def test_column_names_that_yaml_would_bend_stay_names(write):
    config = load_config(write(
        "data:\n  source: a.csv\n  target: 41\n  drop: [no, 7, 007, on]\n"
        "  types: {yes: int, 12: string}\n  key: id\n"
    ))
    assert config.data.target == "41"
    assert config.data.drop == ["no", "7", "007", "on"]
    assert config.data.types == {"yes": "int64", "12": "string"}
    assert config.data.key == ["id"]


@pytest.mark.parametrize(("text", "place", "message", "hint"), [
    ("data:\n  source: a.csv\n  taget: y\n", "3:3", "unknown key 'taget' in 'data'", "'target'"),
    (DATA + "splitt: {}\n", "2:1", "unknown key 'splitt'", "'split'"),
    ("target: y\n", "1:1", "unknown key 'target'", "'data.target'"),
    ("data: {source: a.csv}\n", "1:1", "'data.target' is missing", None),
    ("seed: 1\n", "1:1", "'data' is missing", "target: outcome"),
    (DATA + "data: {}\n", "2:1", "already given on line 1", None),
    (DATA + "split: {by: time, by: group}\n", "2:19", "'by' is already given", None),
    (DATA + "split: {by: stratifed}\n", "2:13", "'stratified'", "did you mean 'stratified'"),
    (DATA + "engine: {workers: many}\n", "2:19", "expected 'auto' or a whole number", None),
    (DATA + "engine: {workers: 0}\n", "2:19", "at least 1", None),
    (DATA + "engine: {device: gpu}\n", "2:18", "expected 'auto', 'cpu' or 'cuda'", None),
    (DATA + "engine: {memory: lots}\n", "2:18", "not a size of memory", "2GiB"),
    (DATA + "engine: {batch_rows: 1_000}\n", "2:22", "a whole number", "without quotes or"),
    (DATA + "split: {holdout: 1.0}\n", "2:18", "expected less than 1.0", None),
    (DATA + "split: {holdout: -0.1}\n", "2:18", "expected at least 0", None),
    (DATA + "split: {holdout: .nan}\n", "2:18", "a finite number", None),
    (DATA + "split: {holdout: '0.2'}\n", "2:18", "expected a number, found '0.2'", "quotes"),
    (DATA + "split: {folds: 1}\n", "2:16", "one fold", "2 or more"),
    (DATA + "split: {folds: 2.5}\n", "2:16", "a whole number, found the number 2.5", None),
    (DATA + "split: {by: group}\n", "2:13", "needs the column to group by", "split.group"),
    (DATA + "split: {by: time}\n", "2:13", "needs the column to cut at", "split.time"),
    (DATA + "split: {gap: 7d}\n", "2:14", "a gap needs split.time", None),
    (DATA + "split: {time: t, gap: 7 days}\n", "2:23", "not a duration", "7d, 12h"),
    (DATA + "split: {time: t, group: g}\n", "2:15", "both group and time", "split.by"),
    (DATA + "seed: true\n", "2:7", "a whole number, found true", None),
    (DATA + "seed: -1\n", "2:7", "at least 0", None),
    (DATA + "name: ../x\n", "2:7", "'name'", None),
    (DATA + "model: linear\n", "2:8", "a mapping of keys to values, found 'linear'", None),
    (DATA + "evaluate: {confidence: 95}\n", "2:24", "less than 1", None),
    ("data: {source: a, target: y, types: {a: flaot}}\n", "1:41", "'flaot'", "'float'"),
    ("data: {source: a, target: y, drop: [y]}\n", "1:36", "'y' cannot be dropped", None),
    ("data: {source: a, target: y, drop: [1.5]}\n", "1:37", "the number 1.5", "quotes"),
    ("data: {source: a, target: true}\n", "1:27", "expected text, found true", "quotes"),
    ("data: {source: a, target: }\n", "1:26", "expected text, found nothing", "#"),
    ("data: {source: [], target: y}\n", "1:16", "an empty list", None),
    ("data: {source: a, target: y, delimiter: ab}\n", "1:41", "one character", "tab"),
    ("data:\n", "1:6", "'data': expected a mapping", None),
    (DATA + "features:\n  - impute: {columns: *_id}\n", "3:23", "an alias", '"*_id"'),
    (DATA + "features:\n  - impute: {}\n    scale: {}\n", "3:5", "a step is one key", "- impute"),
    (DATA + "features:\n  - impute: median\n", "3:13", "the parameters of 'impute'", None),
    (DATA + "features: {impute: {}}\n", "2:11", "expected a list", None),
    ("- a\n- b\n", "1:1", "found a list", "two lines are enough"),
    ("just text\n", "1:1", "found the text 'just text'", None),
    ("data:\n\tsource: a\n", "2:1", "a tab", "spaces"),
    ("data:\n    source: a\n  target: b\n", "3:3", "indentation", "same column"),
    ("data:\n  source: a: b\n", "2:12", "a `:` where no key can stand", "quotes"),
    ("data: {source: 'a, target: y}\n", "2:1", "never closed", None),
    ("data: {source: a, target: y\nname: x\n", "2:5", "a bracket that is never closed", None),
    ("data:\n  positive: >50K\n", "2:15", "begins a block of text", "quotes"),
    ("data: {source: %a}\n", "1:16", "may not begin with this character", "quotes"),
    ("data: !!python/object/apply:os.system [id]\n", "1:7", "is refused", "delete the tag"),
    ("data: !!binary aGk=\n", "1:7", "is refused", None),
    ("{[a, b]: c}\n", "1:2", "expected text for a key, found a list", None),
    (DATA + "---\nseed: 1\n", "2:1", "a second YAML document", None),
    ("name: a\x00b\n", "1:8", "U+0000", "delete"),
])
def test_a_mistake_is_named_where_it_stands(write, text, place, message, hint):
    path = write(text)
    error = refused(path)
    assert error.where == f"{path}:{place}"
    assert message in error.message
    if hint is not None:
        assert error.hint is not None and hint in error.hint
    line, column = map(int, place.split(":"))
    if error.excerpt and line <= len(text.splitlines()):
        source, caret = error.excerpt.split("\n")
        assert source.startswith(f"{line} | ")
        assert caret.index("^") == len(f"{line} | ") + column - 1


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_says_how_to_begin(write, text):
    error = refused(write(text))
    assert "expected keys" in error.message or "is empty" in error.message
    assert error.hint is not None and "target: outcome" in error.hint


def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path, write):
    assert "no such pipeline file" in refused(tmp_path / "missing.yaml").message
    assert "a folder" in refused(tmp_path).message
    latin = refused(write(b"data:\n  source: caf\xe9.csv\n"))
    assert latin.where is not None and latin.where.endswith(":2:14")
    assert "0xe9" in latin.message
    assert "UTF-8" in refused(write("data: {}".encode("utf-16"))).message
    assert "1 MiB" in refused(write(b"#" * (1 << 20) + b"\n")).message


def test_bombs_are_harmless(write):
    assert "an alias" in refused(write("a: &a [x, x]\nb: &b [*a, *a]\n")).message
    assert "an alias" in refused(write("a: &a [*a]\n")).message
    assert "nested more than" in refused(write("[" * 50_000)).message
    assert "nested more than" in refused(write("a: " + "{a: " * 5_000)).message


def test_a_byte_order_mark_and_windows_line_ends_are_fine(write):
    config = load_config(write("﻿data:\r\n  source: a.csv\r\n  target: y\r\n".encode()))
    assert config.data.target == "y"
    error = refused(write("data:\r\n  source: a.csv\r\n  taget: y\r\n"))
    assert error.where is not None and error.where.endswith(":3:3")


def test_sources_are_relative_to_the_pipeline_file(tmp_path, write, monkeypatch):
    config = load_config(write("data: {source: [a.csv, /b/c.csv, 's3://x/y'], target: y}"))
    assert config.base == tmp_path
    assert config.sources() == [str(tmp_path / "a.csv"), "/b/c.csv", "s3://x/y"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert parse_config({"data": {"source": "a.csv", "target": "y"}}).sources() == [
        str(tmp_path / "elsewhere" / "a.csv")
    ]


def test_python_data_of_the_usual_kinds_is_taken_and_faults_name_the_dotted_path():
    config = parse_config({
        "data": {"source": Path("a.csv"), "target": "y", "drop": ("b", "c")},
        "split": {"holdout": np.float64(0.1), "folds": np.int64(3)},
        "features": ["drop_constant", {"impute": {"columns": ("a", "b")}}],
    })
    assert config.data.source == "a.csv" and config.data.drop == ["b", "c"]
    assert (config.split.holdout, config.split.folds) == (0.1, 3)
    assert config.features == [{"drop_constant": None}, {"impute": {"columns": ["a", "b"]}}]
    with pytest.raises(ConfigError) as caught:
        parse_config({"data": {"source": "a", "target": "y"}, "split": {"folds": "five"}})
    assert caught.value.where == "split.folds"
    for nonsense in (3, None, ["a"]):
        with pytest.raises(ConfigError):
            parse_config(nonsense)  # type: ignore[arg-type]


def test_a_config_is_frozen_and_goes_through_plain_data_unchanged(write):
    config = load_config(write(DATA + "split: {holdout: 0, by: random}\nfeatures: [log: {}]\n"))
    dumped = dump_config(config)
    again = parse_config(json.loads(json.dumps(dumped)))
    assert dump_config(again) == dumped
    with pytest.raises(Exception, match="frozen"):
        config.seed = 1  # type: ignore[misc]


def test_a_fault_is_located_at_the_deepest_key_that_the_file_spells(write):
    path = write(DATA + "features:\n  - impute:\n      columns: [age, hours]\n")
    config = load_config(path)
    columns = ("features", 0, "impute", "columns")
    assert config.fault((*columns, 1), "m").where == f"{path}:4:22"
    assert config.fault(columns, "m").where == f"{path}:4:16"
    assert config.fault(columns, "m", key=True).where == f"{path}:4:7"
    assert config.fault(("features", 0, "impute", "strategy"), "m").where == f"{path}:3:5"
    assert config.fault(("engine", "device"), "m").where == f"{path}:1:1"


class Impute(Section):
    """A step's parameters as a test sees them."""

    columns: ColumnNames
    strategy: Literal["mean", "median"] = "median"


def test_other_rooms_validate_their_own_parameters_in_place(write):
    path = write(DATA + "features:\n  - impute: {columns: a, strategy: medain}\n")
    config = load_config(path)
    assert config.features is not None
    raw, where = config.features[0]["impute"], ("features", 0, "impute")
    with pytest.raises(ConfigError) as caught:
        validated(Impute, raw, config, where)
    assert caught.value.where == f"{path}:3:36"
    assert caught.value.hint == "did you mean 'median'?"
    with pytest.raises(ConfigError, match="unknown key 'colums'") as caught:
        validated(Impute, {"colums": "a"}, config, where)
    with pytest.raises(ConfigError, match=r"'features\[0\].impute.columns' is missing"):
        validated(Impute, None, config, where)
    assert validated(Impute, {"columns": "a"}, config, where).columns == ["a"]


def test_the_json_schema_describes_every_key(write):
    schema = json_schema()
    assert schema["required"] == ["data"]
    assert schema["additionalProperties"] is False
    for name, section in schema["$defs"].items():
        for key, described in section["properties"].items():
            assert described.get("description"), f"{name}.{key} has no description"
    json.dumps(schema)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["data", "split", "source", "target", "folds", "x"]), inner, max_size=4
    ), max_leaves=8,
))
def test_any_python_data_is_a_config_or_one_config_error(raw: Any):
    try:
        assert isinstance(parse_config(raw), PipelineConfig)
    except ConfigError as error:
        assert error.message


@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@`, \n\t?~", max_size=40))
def test_any_text_is_a_config_or_one_located_config_error(text: str):
    from gpupipe.config.source import parse

    try:
        raw, _ = parse(text, "p.yaml", Path())
        assert isinstance(raw, dict)
    except ConfigError as error:
        assert error.where is not None and error.where.startswith("p.yaml")


@pytest.mark.parametrize(("text", "value"), [
    ("7d", 7 * 86_400_000_000), ("12h", 43_200_000_000), ("1.5s", 1_500_000), ("10us", 10),
])
def test_durations(text, value):
    assert microseconds_of(text) == value


@pytest.mark.parametrize(("text", "value"), [
    ("2GiB", 2 << 30), ("500MB", 500_000_000), ("64k", 65_536), ("1.5 GiB", 3 << 29), ("9b", 9),
])
def test_sizes(text, value):
    assert bytes_of(text) == value
    for wrong in ("", "GiB", "-1GiB", "2 apples", "0GB"):
        with pytest.raises(ValueError, match="size of memory"):
            bytes_of(wrong)


DOC = Path(__file__).parents[1] / "docs" / "pipeline-file.md"


def test_the_documentation_names_every_key_with_its_default_and_its_examples_parse(tmp_path):
    text = DOC.read_text()
    config = parse_config({"data": {"source": "a", "target": "b"}})
    for section in ("data", "split", "model", "calibrate", "decide", "intervals", "evaluate",
                    "engine"):
        part = text.split(f"### `{section}`")[1].split("\n###")[0]
        for key, value in dump_config(config)[section].items():
            row = next((line for line in part.splitlines() if line.startswith(f"| `{key}`")), None)
            assert row is not None, f"{section}.{key} is not documented"
            if isinstance(value, (int, float)) or value == "auto":
                assert f"| `{value}` |" in row
    examples = text.split("```yaml\n")[1:]
    assert len(examples) == 2
    for example in examples:
        path = tmp_path / "p.yaml"
        path.write_text(example.split("```")[0])
        load_config(path)
