"""The page on serving says what the code does."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import types
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from common.quick import trained_on, write_bundle
from pydantic_core import PydanticUndefined

import gpupipe
from gpupipe.config import parse_config
from gpupipe.config.section import Section
from gpupipe.data.demo import write_demo
from gpupipe.serve import ServeConfig, load_settings
from gpupipe.serve.faults import CODES
from gpupipe.serve.metrics import KINDS
from gpupipe.serve.predictions import SCHEMA

PAGE = (Path(gpupipe.__file__).parents[1] / "docs" / "serving.md").read_text()
README = (Path(gpupipe.__file__).parents[1] / "README.md").read_text()


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def first_cells(text: str) -> list[list[str]]:
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()
            if line.startswith("| ")]
    return [r for r in rows if r[0] and not set(r[0]) <= set("- ") and r[0].startswith("`")]


def settings_of(model: type[Section], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        kinds = get_args(field.annotation) if get_origin(field.annotation) in (
            types.UnionType,) else (field.annotation,)
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, Section)]
        if inner:
            found |= settings_of(inner[0], f"{before}{name}.")
        else:
            found[before + name] = field.default
    return found


def shown(default: Any) -> str:
    if default is None:
        return "none"
    if default is PydanticUndefined:
        return "required"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_every_setting_is_on_the_page_with_its_default():
    told = {r[0].strip("`"): r[1] for r in first_cells(section("Settings"))}
    assert told == {k: shown(v) for k, v in settings_of(ServeConfig).items()}


def test_every_metric_code_and_column_of_the_log_is_on_the_page():
    assert {r[0].strip("`") for r in first_cells(section("Metrics"))} == set(KINDS)
    refusals = section("What is taken, and what is refused")
    assert all(f"`{code}`" in refusals for status, codes in CODES.items() for code in codes
               if status != 500)
    log = " ".join(r[0] for r in first_cells(section("The prediction log")))
    assert all(f"`{name}`" in log for name in SCHEMA.names)


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_every_file_of_settings_on_the_page_is_one(text, tmp_path):
    (tmp_path / "serve.yaml").write_text(text)
    settings = load_settings(tmp_path / "serve.yaml")
    assert settings.champion == str(tmp_path / "models/churn@champion")


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
def test_the_examples_with_curl_are_answered(running, tmp_path):
    pipeline = write_demo(tmp_path / "demo")
    config = parse_config(pipeline).model_dump(mode="json")
    config |= {"split": {"holdout": 0.2, "folds": 0}, "explain": {"rows": 0},
               "model": {"kind": "xgboost", "params": {"n_estimators": 4}}}
    config["data"]["source"] = str(tmp_path / "demo" / "churn.csv")
    write_bundle(trained_on(config["data"]["source"], config, cache=tmp_path / "cache"),
                 tmp_path / "bundle")
    server = running(str(tmp_path / "bundle"))
    blocks = re.findall(r"^```sh\n(curl .*?)^```", PAGE + README, re.MULTILINE | re.DOTALL)
    examples = [e for block in blocks for e in re.split(r"^(?=curl )", block, flags=re.MULTILINE)
                if e]
    assert len(examples) == 5
    answers = []
    for example in examples:
        words = shlex.split(example.replace("http://127.0.0.1:8000", server.url))
        done = subprocess.run([words[0], "--silent", "--fail-with-body", *words[1:]],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        answers.append(done.stdout)
    found = [json.loads(answers[i])["predictions"][0]["probability"] for i in (0, 1, 3)]
    assert len(set(found)) == 1
    assert all("gpupipe_requests_total" in answers[i] for i in (2, 4))
