"""A bundle is scored where there are NumPy, PyArrow and XGBoost, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from common.quick import COLUMNS, MODEL_PARAMS, settings, small_table, trained_on, write_bundle

import gpupipe
from gpupipe.models import MODELS

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = ("pandas", "sklearn", "dask", "distributed", "pydantic", "scipy", "xgboost", "yaml",
             "optuna", "rich", "typer", "jinja2", "lightgbm", "catboost", "polars")
"""What training may import and scoring may not; of XGBoost the library is used, not the package."""
SCORE = """
import json, sys, time
from datetime import datetime
names = set(json.loads(sys.argv[1]))
import importlib.util
known = importlib.util.find_spec("xgboost")

class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names:
            raise ImportError(name + " is not to be imported")

honest = importlib.util.find_spec
# Where a package is may be asked; to import it is another thing.
importlib.util.find_spec = lambda name, package=None: (
    known if name == "xgboost" else honest(name, package))
sys.meta_path.insert(0, Barred())
import gpupipe
rows = json.load(open(sys.argv[2]))
for row in rows:
    row["t"] = row["t"] and datetime.fromisoformat(row["t"])
for folder in sys.argv[3:]:
    bundle = gpupipe.load(folder)
    one = [bundle.predict_one(row) for row in rows]
    assert one == bundle.predict_records(rows * 3)[: len(rows)]
    print(json.dumps([bundle.row_path, one]))
bad = [n for n in names if n in sys.modules]
assert not bad, bad
"""
FEATURES = [{"impute": {"columns": ["f", "narrow"], "strategy": "median", "indicator": True}},
            {"scale": {"columns": "f"}}, {"log": {"columns": "narrow"}},
            {"target_encode": {"columns": "i"}}, {"one_hot": {"columns": ["s", "b"]}},
            {"datetime": {"cyclic": True}}, {"impute": {"columns": "t_*"}}]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> list[gpupipe.Bundle]:
    """A bundle of every registered family that predicts a target."""
    bundles = []
    for kind in MODEL_PARAMS:
        task = "regression" if "binary" not in MODELS[kind].tasks else "binary"
        folder = tmp_path_factory.mktemp(kind) / "bundle"
        write_bundle(trained_on(small_table(), settings(task, features=FEATURES, model={
            "kind": kind, "params": MODEL_PARAMS[kind]})), folder)
        bundles.append(gpupipe.load(folder))
    return bundles


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    records = small_table(20, seed=8).select(list(COLUMNS)).to_pylist()
    path.write_text(json.dumps(
        [r | {"t": r["t"] and r["t"].isoformat()} for r in records]))
    return path


def scored_by(python: Path | str, made: list[gpupipe.Bundle], rows: Path, forbidden: tuple,
              **environment: str) -> None:
    """Check that a process gives what this one gives, to the last bit."""
    done = subprocess.run(
        [str(python), "-c", SCORE, json.dumps(forbidden), str(rows),
         *(str(b.path) for b in made)],
        capture_output=True, text=True, check=False, cwd=rows.parent,
        env=os.environ | environment)
    assert done.returncode == 0, done.stderr[-3000:]
    records = small_table(20, seed=8).select(list(COLUMNS)).to_pylist()
    for bundle, line in zip(made, done.stdout.splitlines(), strict=True):
        path, found = json.loads(line)
        assert path == bundle.row_path
        assert found == [bundle.predict_one(r) for r in records]


def test_scoring_imports_neither_pandas_nor_anything_else_of_training(made, rows):
    scored_by(sys.executable, made, rows, FORBIDDEN, PYTHONPATH=str(ROOT))


@pytest.mark.skipif(not os.environ.get("GPUPIPE_SLOW"), reason="minutes: set GPUPIPE_SLOW=1")
def test_an_environment_of_three_packages_scores_every_family(made, rows, tmp_path):
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    found = subprocess.run([*pip, "numpy", "pyarrow", "xgboost"], capture_output=True, text=True,
                           check=False)
    if found.returncode:
        pytest.skip(f"no index of packages can be reached here: {found.stderr.strip()[-200:]}")
    subprocess.run([*pip, "--no-deps", str(ROOT)], check=True, cwd=tmp_path)
    scored_by(python, made, rows, ("pandas", "sklearn", "dask", "pydantic"), PYTHONPATH="")
