"""A bundle in the formats of others: MLflow, ONNX, XGBoost's own with a JSON beside it.

    export(gpupipe.load("models/churn@champion"), "onnx", Path("churn-onnx"))

Each format is a module with a ``write(bundle, folder)``; a step or a model that it has no word for
is a ConfigError that names it.
"""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

from gpupipe.bundle.scoring import Bundle
from gpupipe.checkpoints import temporary_name
from gpupipe.errors import ConfigError, did_you_mean

__all__ = ["FORMATS", "export"]

FORMATS = {
    "mlflow": "gpupipe.exports.mlflow", "onnx": "gpupipe.exports.onnx",
    "xgboost": "gpupipe.exports.xgboost",
}
"""The formats, and the modules that write them."""


def export(bundle: Bundle, format: str, output: Path) -> dict[str, Any]:
    """Write a bundle to the folder ``output``, which must not exist yet, and appears when whole.

    Returns the folder, its files and notes on what the format leaves out. Raises ConfigError for an
    unknown format, a folder that is there, or what the format cannot express; EnvironmentFault
    where a package is missing.
    """
    if format not in FORMATS:
        near = did_you_mean(format, list(FORMATS))
        raise ConfigError(f"unknown format {format!r}", hint=f"did you mean {near!r}?" if near else
                          f"there are {', '.join(FORMATS)}")
    if output.exists():
        raise ConfigError("this is there already", where=str(output),
                          hint="give --output another name")
    if not output.absolute().parent.is_dir():
        raise ConfigError("there is no such folder", where=str(output.parent),
                          hint="make it, or give --output another name")
    temporary = temporary_name(output.absolute())
    temporary.mkdir()
    try:
        notes: list[str] = importlib.import_module(FORMATS[format]).write(bundle, temporary)
        temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    files = sorted(str(p.relative_to(output)) for p in output.rglob("*") if p.is_file())
    return {"output": str(output), "format": format, "files": files, "notes": notes}
