"""An exported folder is what MLflow loads, and scores to the last bit as the bundle does."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from common.quick import settings, small_table, trained_on, write_bundle

import gpupipe
from gpupipe.exports import export
from gpupipe.exports.mlflow import _load_pyfunc
from gpupipe.scoring import scored_table

PYTHON = "GPUPIPE_MLFLOW_PYTHON"
"""The environment variable that names a Python with MLflow, where this one has none."""


@pytest.fixture(scope="module", params=["binary", "multiclass", "regression"])
def exported(request, tmp_path_factory) -> tuple[Path, Path, pa.Table]:
    """A bundle, its export, and rows to score: whole numbers and texts with gaps among them."""
    folder = tmp_path_factory.mktemp("exported")
    write_bundle(trained_on(small_table(), settings(request.param), folder / "cache"),
                 folder / "bundle")
    bundle = gpupipe.load(folder / "bundle")
    export(bundle, "mlflow", folder / "model")
    return folder / "bundle", folder / "model", small_table(100, seed=9).select(
        bundle.schema.names)


def test_the_folder_has_what_mlflow_asks_for(exported):
    bundle_at, model_at, _ = exported
    about = yaml.safe_load((model_at / "MLmodel").read_text())
    flavor = about["flavors"]["python_function"]
    assert importlib.util.find_spec(flavor["loader_module"])
    assert sorted(p.name for p in (model_at / flavor["data"]).iterdir()) == sorted(
        p.name for p in bundle_at.iterdir())
    bundle = gpupipe.load(model_at / flavor["data"])
    inputs = json.loads(about["signature"]["inputs"])
    assert [c["name"] for c in inputs] == bundle.schema.names
    assert {c["name"]: c["type"] for c in inputs}["s"] == "string"
    example = json.loads((model_at / about["saved_input_example_info"][
        "artifact_path"]).read_text())
    assert example["columns"] == bundle.schema.names and len(example["data"]) == 5
    needed = (model_at / "requirements.txt").read_text().split()
    assert f"gpupipe=={bundle.info['versions']['gpupipe']}" in needed
    for name in (*flavor["env"].values(), "requirements.txt"):
        assert (model_at / name).is_file()


def test_the_loader_gives_what_predict_writes(exported):
    bundle_at, model_at, rows = exported
    bundle = gpupipe.load(bundle_at)
    found = _load_pyfunc(str(model_at / "data" / "bundle")).predict(rows.to_pandas())
    expected = scored_table(bundle, rows, [], 0).drop_columns("row").to_pandas()
    assert found.equals(expected) and "prediction" in found.columns


SCRIPT = """
import json, sys
import mlflow, pandas as pd
from mlflow.models import Model
model_at, rows, out = sys.argv[1:]
model = mlflow.pyfunc.load_model(model_at)
data = pd.read_parquet(rows)  # whole numbers with gaps are float64, booleans objects
model.predict(data).to_parquet(out)
nullable = data.astype({"i": "Int64", "b": "boolean"})
same = model.predict(nullable).equals(model.predict(data))
whole = data.dropna(subset=["i", "b"]).astype({"i": "int64", "b": "bool"})
part = model.predict(data).loc[whole.index].reset_index(drop=True)
same = same and model.predict(whole.reset_index(drop=True)).equals(part)
example = model.input_example
about = Model.load(model_at)
print(json.dumps({"same": same, "example": len(model.predict(example)),
                  "inputs": about.signature.inputs.input_names(),
                  "outputs": about.signature.outputs.input_names()}))
"""


def python_with_mlflow() -> str:
    named = os.environ.get(PYTHON)
    if named:
        return named
    if importlib.util.find_spec("mlflow"):
        return sys.executable
    pytest.skip(f"MLflow is not installed here; {PYTHON} may name a Python that has it")


def test_mlflow_s_own_loader_scores_to_the_bit(exported, tmp_path):
    python = python_with_mlflow()
    bundle_at, model_at, rows = exported
    pq.write_table(rows, tmp_path / "rows.parquet")
    done = subprocess.run(
        [python, "-c", SCRIPT, str(model_at), str(tmp_path / "rows.parquet"),
         str(tmp_path / "out.parquet")], capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(gpupipe.__file__).parents[1])})
    assert done.returncode == 0, done.stderr[-3000:]
    bundle = gpupipe.load(bundle_at)
    expected = scored_table(bundle, rows, [], 0).drop_columns("row")
    found = pq.read_table(tmp_path / "out.parquet").select(expected.column_names)
    assert found.cast(expected.schema).to_pylist() == expected.to_pylist()
    told = json.loads(done.stdout.splitlines()[-1])
    assert told == {"same": True, "example": 5, "inputs": bundle.schema.names,
                    "outputs": expected.column_names}
