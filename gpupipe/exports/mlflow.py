"""A bundle as an MLflow model, and the loader that MLflow calls for it.

The folder is what ``mlflow.pyfunc.load_model`` and ``mlflow models serve`` take:

    MLmodel                 what it is: loader, signature, input example
    requirements.txt        (and conda.yaml, python_env.yaml)
    input_example.json      golden rows
    data/bundle/            the bundle itself

It is written without MLflow. Format: https://mlflow.org/docs/latest/ml/model/ and the MLmodel files
that MLflow itself writes.
"""

from __future__ import annotations

import datetime as dt
import json
import platform
import shutil
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from gpupipe.bundle.latency import golden_records
from gpupipe.bundle.scoring import Bundle, load
from gpupipe.bundle.tables import as_table
from gpupipe.scoring import scored_table

EXAMPLES = 5
TYPES = {"float64": "double", "float32": "double", "int64": "any", "bool": "any",
         "string": "string", "timestamp": "datetime"}
"""MLflow's names of our types. Its ``long`` and ``boolean`` refuse a missing value, its ``float`` a
plain float64; what goes by ``any`` is checked by the bundle itself."""
PACKAGES = {"gpupipe": "gpupipe", "numpy": "numpy", "pandas": "pandas", "pyarrow": "pyarrow",
            "xgboost": "xgboost"}
"""What scoring needs, by the names that a bundle's versions go by."""


class Model:
    """What MLflow calls: a data frame in, a data frame of predictions out."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, data: Any, params: Any = None) -> Any:
        """As `gpupipe predict` writes it: prediction, and probability or one for each class."""
        table = as_table(data)
        scored = scored_table(self.bundle, table, [], 0).drop_columns("row")
        return scored.to_pandas()


def _load_pyfunc(path: str) -> Model:
    """MLflow's way in: ``path`` is that of ``data`` in the MLmodel file."""
    return Model(load(path))


def write(bundle: Bundle, folder: Path) -> list[str]:
    """Write the model's files into a folder that is there."""
    shutil.copytree(bundle.path, folder / "data" / "bundle")
    versions = bundle.info["versions"]
    needed = [f"{package}=={versions[name]}" for name, package in PACKAGES.items()
              if name in versions]
    python = versions.get("python", platform.python_version())
    records = golden_records(bundle)[:EXAMPLES]
    names = bundle.schema.names
    _text(folder / "input_example.json", json.dumps({
        "columns": names, "data": [[_plain(r[n]) for n in names] for r in records]}))
    _text(folder / "requirements.txt", "\n".join(needed) + "\n")
    _yaml(folder / "python_env.yaml", {
        "python": python, "build_dependencies": ["pip"],
        "dependencies": ["-r requirements.txt"]})
    _yaml(folder / "conda.yaml", {
        "name": "mlflow-env", "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": needed}]})
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    _yaml(folder / "MLmodel", {
        "flavors": {"python_function": {
            "loader_module": "gpupipe.exports.mlflow", "data": "data/bundle",
            "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
            "python_version": python}},
        "model_size_bytes": size, "model_uuid": uuid.uuid4().hex,
        "saved_input_example_info": {"artifact_path": "input_example.json", "type": "dataframe",
                                     "pandas_orient": "split"},
        "signature": {"inputs": json.dumps(_inputs(bundle)), "outputs": json.dumps(
            _outputs(bundle))},
        "utc_time_created": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    })
    return []


def _inputs(bundle: Bundle) -> list[dict[str, Any]]:
    return [{"type": TYPES[f.dtype], "name": f.name, "required": True} for f in bundle.schema]


def _outputs(bundle: Bundle) -> list[dict[str, Any]]:
    """The columns of `Model.predict`, from the golden rows themselves."""
    records = golden_records(bundle)
    table = pa.Table.from_pylist(records, schema=bundle.schema.to_arrow())
    scored = scored_table(bundle, table, [], 0).drop_columns("row")
    names = {pa.string(): "string", pa.float64(): "double", pa.bool_(): "boolean",
             pa.int64(): "long"}
    return [{"type": names.get(f.type, "double"), "name": f.name, "required": True}
            for f in scored.schema]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.datetime) else value


def _yaml(path: Path, data: dict[str, Any]) -> None:
    _text(path, yaml.safe_dump(data, sort_keys=True, allow_unicode=True))


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
