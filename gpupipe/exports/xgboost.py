"""A bundle of trees as XGBoost's own file, and a JSON that says how its features are made.

    model.ubj        `xgboost.Booster().load_model` takes it
    features.json    columns, steps with what they learned, features, classes, threshold

docs/registry.md has the recipe by which predictions are made of the two, without gpupipe.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.scoring import Bundle
from gpupipe.exports.plain import plain_model, unknown_model
from gpupipe.models.trees import FittedTrees
from gpupipe.transforms.graph import Node

FORMAT = 1


def write(bundle: Bundle, folder: Path) -> list[str]:
    """Write both files into a folder that is there."""
    model, columns, notes = plain_model(bundle, "an XGBoost file")
    if not isinstance(model, FittedTrees):
        raise unknown_model(model.kind, "an XGBoost file")
    (folder / "model.ubj").write_bytes(model.payload()["booster"])
    text = json.dumps(described(bundle, columns), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "features.json").write_text(text, encoding="utf-8")
    return notes


def described(bundle: Bundle, columns: np.ndarray) -> dict[str, Any]:
    """What ``features.json`` holds; ``columns`` are those of the matrix that the model sees."""
    contents = bundle.contents
    steps: list[dict[str, Any]] = []
    number: dict[str, int] = {}

    def reference(node: Node) -> dict[str, Any]:
        if node.made_by is None:
            return {"column": node.feature.name}
        return {"step": number[node.made_by.key], "output": node.slot}

    for bound in contents.graph.bound:
        number[bound.key] = len(steps)
        steps.append({
            "step": bound.step.name, "of": reference(bound.input),
            **({"and": [reference(n) for n in bound.others]} if bound.others else {}),
            "settings": bound.step.stored(),
            "learned": _plain(bound.step.export(contents.fitted.params[bound.key]))})
    features: list[dict[str, Any]] = []
    for node in contents.graph.outputs:
        wide = 1
        if node.feature.dtype == "block":
            assert node.made_by is not None
            wide = len(contents.fitted.params[node.made_by.key]["names"])
        for k in range(wide):
            of = reference(node) | ({"level": k} if node.feature.dtype == "block" else {})
            features.append({"of": of, "categorical": node.feature.categorical})
    for feature, name in zip(features, bundle.feature_names, strict=True):
        feature["name"] = name
    return {
        "format": FORMAT, "task": bundle.task, "target": bundle.info["target"],
        "classes": bundle.classes, "threshold": bundle.threshold if bundle.task == "binary" else
        None, "columns": [{"name": f.name, "type": f.dtype} for f in bundle.schema],
        "steps": steps, "features": [features[i] for i in columns.tolist()],
    }


def _plain(value: Any) -> Any:
    """Learned numbers as JSON data; what is not finite as text: "nan", "inf", "-inf"."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, pa.Array):
        return _plain(value.to_pylist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value
