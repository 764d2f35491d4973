"""A bundle as one ONNX model, from the raw columns to probabilities, where every part has an
equivalent: steps by `onnx_steps`, trees and linear models here.

Inputs are the columns by their names, ``[rows, 1]``: text as string, all else as double (a time as
microseconds since 1970); a missing value is NaN or `onnx_steps.MISSING`. Outputs: ``prediction``
and, for classes, ``probability``. Features are float32 as in gpupipe; the sum of the trees' leaves
is made in an order that the runtime chooses, so scores agree to float32's rounding.
Operators: https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.bundle.scoring import Bundle
from gpupipe.errors import ConfigError
from gpupipe.exports.graph import ML, Builder
from gpupipe.exports.onnx_check import check
from gpupipe.exports.onnx_steps import MISSING, features
from gpupipe.exports.plain import plain_model, unknown_model
from gpupipe.models.forests import Forest
from gpupipe.models.linear import FittedLinear
from gpupipe.models.native import StoredBooster
from gpupipe.models.trees import FittedTrees
from gpupipe.scorer.links import IDENTITY, LOGARITHMIC, LOGISTIC, margins_of


def write(bundle: Bundle, folder: Path) -> list[str]:
    """Write ``model.onnx`` into a folder that is there, once it scores as the bundle does."""
    content, notes = built(bundle)
    check(bundle, content)
    (folder / "model.onnx").write_bytes(content)
    return notes


def built(bundle: Bundle) -> tuple[bytes, list[str]]:
    """The model's bytes, and notes on what is left out.

    ConfigError for a step or a model without an equivalent, by name.
    """
    build = Builder()
    model, columns, notes = plain_model(bundle, "ONNX")
    for field in bundle.schema:
        build.input(field.name, "STRING" if field.dtype == "string" else "DOUBLE")
    matrix = features(build, bundle.contents.graph, bundle.contents.fitted)
    if len(columns) < len(bundle.feature_names) or (np.diff(columns) != 1).any():
        matrix = build.op("Gather", matrix, build.constant(columns, np.int64), axis=1)
    if isinstance(model, FittedTrees):
        scores = _trees(build, model, matrix)
    elif isinstance(model, FittedLinear):
        scores = _linear(build, model, matrix)
    else:
        raise unknown_model(model.kind, "ONNX")
    _outputs(build, bundle, scores)
    about = {"task": bundle.task, "target": str(bundle.info["target"]), "missing_text": MISSING,
             "classes": json.dumps(bundle.classes, ensure_ascii=False)}
    return build.model(str(bundle.info["name"]), about), notes


def _outputs(build: Builder, bundle: Bundle, scores: str) -> None:
    """From scores ``[rows, 1]`` or ``[rows, classes]``, double, to what the model gives."""
    taken = set(bundle.schema.names)
    names = [n if n not in taken else f"{n}_of_model" for n in ("prediction", "probability")]
    if not bundle.classes:
        build.output(build.cast(scores, "FLOAT"), names[0], "FLOAT", ["rows", 1])
        return
    if bundle.task == "binary":
        above = build.op("Greater", scores, build.constant(bundle.threshold, np.float64))
        code = build.op("Reshape", build.cast(above, "INT64"), build.constant([-1], np.int64))
        rest = build.op("Sub", build.constant(1.0, np.float64), scores)
        scores = build.op("Concat", rest, scores, axis=1)
    else:
        code = build.op("ArgMax", scores, axis=1, keepdims=0)
    labels = build.op("Gather", build.constant(bundle.classes), code, axis=0)
    build.output(labels, names[0], "STRING", ["rows"])
    build.output(build.cast(scores, "FLOAT"), names[1], "FLOAT", ["rows", len(bundle.classes)])


def _linear(build: Builder, model: FittedLinear, matrix: str) -> str:
    wide = build.cast(matrix, "DOUBLE")
    product = build.op("MatMul", wide, build.constant(model.coefficients.T, np.float64))
    margin = build.op("Add", product, build.constant(model.intercept[None], np.float64))
    if model.task == "regression":
        return margin
    if model.coefficients.shape[0] == 1:
        return build.op("Sigmoid", margin)
    if not model.one_vs_rest:
        return build.op("Softmax", margin, axis=1)
    each = build.op("Sigmoid", margin)
    return build.op("Div", each, build.op("ReduceSum", each, build.constant([1], np.int64),
                                          keepdims=1))


def _trees(build: Builder, model: FittedTrees, matrix: str) -> str:
    booster = model.booster
    if not isinstance(booster, StoredBooster):
        raise ConfigError("only a bundle that was loaded from its folder can be exported")
    forest = booster.forest
    if forest.weighted:
        raise unknown_model(f"{model.kind} (dart: trees with weights)", "ONNX")
    rounds = min(model.rounds or len(forest.ends) - 1, len(forest.ends) - 1)
    matrix, derived = _members(build, forest, int(forest.ends[rounds]), matrix)
    margin = build.op("TreeEnsembleRegressor", matrix, domain=ML,
                      **_ensemble(forest, int(forest.ends[rounds]), derived))
    objective = forest.objective
    if objective in LOGISTIC:
        margin = build.op("Sigmoid", margin)
    elif objective in LOGARITHMIC:
        margin = build.op("Exp", margin)
    elif objective == "multi:softprob":
        margin = build.op("Softmax", margin, axis=1)
    elif objective not in IDENTITY:
        raise unknown_model(f"{model.kind} ({objective})", "ONNX")
    return build.cast(margin, "DOUBLE")


def _nodes(forest: Forest, trees: int) -> np.ndarray:
    """The nodes that are reached in the first so many trees: each tree's root before its others."""
    reached = np.sort(np.concatenate(forest.levels))
    return reached[forest.tree[reached] < trees]


def _members(
    build: Builder, forest: Forest, trees: int, matrix: str
) -> tuple[str, dict[int, int]]:
    """For splits on codes: the matrix with a further feature for each set of codes that goes right
    (1 for a member, 0 for others, NaN for missing), and which of them a node looks at."""
    sets: dict[int, dict[tuple[int, ...], list[int]]] = {}
    for node in _nodes(forest, trees).tolist():
        if node in forest.codes:
            members = tuple(np.sort(forest.codes[node]).tolist())
            sets.setdefault(int(forest.feature[node]), {}).setdefault(members, []).append(node)
    parts, place = [matrix], forest.features
    derived: dict[int, int] = {}
    for feature, by_members in sorted(sets.items()):
        top = max(m[-1] for m in by_members)
        table = np.zeros((top + 3, len(by_members)), np.float32)
        table[-1] = np.nan
        for k, (members, nodes) in enumerate(by_members.items()):
            table[list(members), k] = 1
            derived |= dict.fromkeys(nodes, place + k)
        column = build.op("Gather", matrix, build.constant(feature, np.int64), axis=1)
        missing = build.op("IsNaN", column)
        code = build.cast(build.where(missing, build.constant(0, np.float32), column), "INT64")
        code = build.op("Min", code, build.constant(top + 1, np.int64))
        row = build.where(missing, build.constant(top + 2, np.int64), code)
        parts.append(build.op("Gather", build.constant(table), row, axis=0))
        place += len(by_members)
    return build.op("Concat", *parts, axis=1) if len(parts) > 1 else matrix, derived


def _ensemble(forest: Forest, trees: int, derived: dict[int, int]) -> dict[str, Any]:
    """The attributes of a TreeEnsembleRegressor: a value below the threshold goes left."""
    nodes = _nodes(forest, trees)
    tree = forest.tree[nodes]
    start = forest.root[tree]
    left = forest.left[nodes]
    inner = left >= 0
    feature = np.array([derived.get(n, f) for n, f in
                        zip(nodes.tolist(), forest.feature[nodes].tolist(), strict=True)])
    cut = np.array([0.5 if n in derived else t for n, t in
                    zip(nodes.tolist(), forest.threshold[nodes].tolist(), strict=True)])
    leaves = nodes[~inner]
    base = np.broadcast_to(margins_of(forest.objective, forest.base), forest.groups)
    return {
        "n_targets": forest.groups, "aggregate_function": "SUM", "post_transform": "NONE",
        "base_values": base.astype(float).tolist(),
        "nodes_treeids": tree.tolist(), "nodes_nodeids": (nodes - start).tolist(),
        "nodes_featureids": np.where(inner, feature, 0).tolist(),
        "nodes_values": np.where(inner, cut, 0.0).tolist(),
        "nodes_modes": ["BRANCH_LT" if i else "LEAF" for i in inner.tolist()],
        "nodes_truenodeids": np.where(inner, left - start, 0).tolist(),
        "nodes_falsenodeids": np.where(inner, left + 1 - start, 0).tolist(),
        "nodes_missing_value_tracks_true": (
            inner & forest.missing_left[nodes]).astype(int).tolist(),
        "target_treeids": forest.tree[leaves].tolist(),
        "target_nodeids": (leaves - forest.root[forest.tree[leaves]]).tolist(),
        "target_ids": forest.group[forest.tree[leaves]].tolist(),
        "target_weights": forest.value[leaves].astype(float).tolist(),
    }
