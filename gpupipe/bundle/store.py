"""The bundle: a folder of data that holds a trained pipeline.

    bundle.json    what it is: schema, features, learned numbers, model, provenance
    arrays.npz     the arrays that bundle.json names
    states.npz     the profile's states: the data contract and the reference for drift; and those
                   of the predictions that no training saw
    golden.json    raw rows with the features and scores they must give
    hashes.json    the SHA-256 and size of every other member

Reading is strict: no member but these, none larger than its cap, every hash right, every
kind looked up in the registry and nowhere else, and the golden rows replayed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.codec import pack, read_arrays, unpack, write_arrays
from gpupipe.data.schema import Schema
from gpupipe.errors import DataError, GpupipeError
from gpupipe.models import FittedModel, packed, restored
from gpupipe.transforms.base import TRANSFORMS, Feature, StoredStep, Target
from gpupipe.transforms.graph import Bound, Fitted, Graph, Node

CLASSES = {"binary": (2, 2), "multiclass": (2, 1 << 20), "regression": (0, 0),
           "survival": (0, 0), "hazard": (0, 0), "ranking": (0, 0), "unsupervised": (0, 0)}
"""The tasks, and the least and the most classes of each."""
FORMAT = 1
"""The version of the layout; a reader refuses a newer one."""
CAPS = {
    "bundle.json": 64 << 20, "arrays.npz": 4 << 30, "states.npz": 1 << 30,
    "golden.json": 16 << 20, "hashes.json": 1 << 20,
}
"""The members of a bundle and how large each may be, in bytes."""


@dataclass(frozen=True)
class Contents:
    """What a bundle holds, in memory.

    Attributes
    ----------
    info : name, task, target, classes, reader options, provenance: JSON data.
    schema : the raw columns that scoring needs.
    """

    info: dict[str, Any]
    schema: Schema
    graph: Graph
    fitted: Fitted
    model: FittedModel


def write(folder: Path, contents: Contents, states: dict[str, Any], golden: dict[str, Any]) -> None:
    """Write a bundle to ``folder``, which must not exist, by way of a temporary name."""
    arrays: dict[str, np.ndarray] = {}
    description = {
        "format": FORMAT, **contents.info, "schema": contents.schema.to_json(),
        "features": pack(_describe(contents.graph, contents.fitted), arrays),
        "model": pack(packed(contents.model), arrays),
    }
    state_arrays: dict[str, np.ndarray] = {}
    description["states"] = pack(states, state_arrays)
    members = {
        "bundle.json": _json(description), "arrays.npz": write_arrays(arrays),
        "states.npz": write_arrays(state_arrays), "golden.json": _json(golden),
    }
    hashes = {n: {"sha256": hashlib.sha256(b).hexdigest(), "size": len(b)}
              for n, b in members.items()}
    members["hashes.json"] = _json(hashes)
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, content in members.items():
        (temporary / name).write_bytes(content)
    temporary.rename(folder)


def version_of(folder: Path) -> str:
    """What a bundle is called that has no version in a registry: the beginning of the SHA-256 of
    its ``hashes.json``, which has the hash of every other member. DataError where there is none."""
    try:
        return hashlib.sha256((folder / "hashes.json").read_bytes()).hexdigest()[:12]
    except OSError as error:
        raise DataError(f"this is no bundle: hashes.json: {error.strerror or error}",
                        where=str(folder)) from None


def read(folder: Path) -> tuple[Contents, dict[str, Any]]:
    """The contents of a bundle and its golden rows, after every check but their replay.

    Raises DataError that names the member and what is wrong with it.
    """
    members = members_of(folder)
    description = _parse(members["bundle.json"], "bundle.json")
    version = description.get("format")
    if version != FORMAT:
        raise DataError(
            f"{folder}: bundle.json is of format {version!r}, and this version reads {FORMAT}",
            hint="install the version of gpupipe that wrote it, or a newer one",
        )
    arrays = read_arrays(members["arrays.npz"], CAPS["arrays.npz"])
    with sound(folder):
        schema = Schema.from_json(description["schema"])
        target = Target(description["task"], tuple(description["classes"]))
        least, most = CLASSES.get(target.task, (1, 0))
        if not least <= len(target.classes) <= most:
            raise DataError(f"{folder}: bundle.json tells of a {target.task!r} task with "
                            f"{len(target.classes)} classes")
        graph, fitted = _rebuild(unpack(description["features"], arrays), target)
        absent = [name for name in graph.raw if name not in schema]
        if absent:
            raise DataError(f"{folder}: bundle.json has features of {absent[0]!r}, which its "
                            "schema lacks")
        model = restored(unpack(description["model"], arrays))
    info = {k: v for k, v in description.items() if k not in ("schema", "features", "model")}
    return Contents(info, schema, graph, fitted, model), _parse(
        members["golden.json"], "golden.json"
    )


def read_states(folder: Path) -> dict[str, Any]:
    """The profile's states: ``{column: {statistic: {array: values}}}``, verified.

    Under ``$prediction`` those of the predictions, where there are any: see `decide.predicted`.
    """
    members = members_of(folder)
    description = _parse(members["bundle.json"], "bundle.json")
    arrays = read_arrays(members["states.npz"], CAPS["states.npz"])
    with sound(folder):
        return dict(unpack(description["states"], arrays))


@contextmanager
def sound(folder: Path) -> Iterator[None]:
    """Whatever else goes wrong inside, with content that nobody vouches for, is a DataError."""
    try:
        yield
    except GpupipeError:
        raise
    except Exception as error:
        told = repr(error).partition("\n")[0][:200]
        raise DataError(f"{folder}: bundle.json does not describe a pipeline: {told}") from error


def members_of(folder: Path) -> dict[str, bytes]:
    """The bytes of every member; DataError unless names, sizes and hashes are all right."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a bundle: there is no such folder")
    found = {p.name: p for p in folder.iterdir()}
    for name, path in found.items():
        if name not in CAPS:
            raise DataError(f"{folder}: {name!r} does not belong in a bundle",
                            hint=f"a bundle holds {', '.join(CAPS)} and nothing else")
        if path.is_symlink() or not path.is_file():
            raise DataError(f"{folder}: {name} is not a plain file")
        if path.stat().st_size > CAPS[name]:
            raise DataError(f"{folder}: {name} is larger than the {CAPS[name]:,} bytes allowed")
    missing = [name for name in CAPS if name not in found]
    if missing:
        raise DataError(f"{folder} is not a whole bundle: {', '.join(missing)} missing")
    members = {name: path.read_bytes() for name, path in found.items()}
    hashes = _parse(members["hashes.json"], "hashes.json")
    if set(hashes) != set(CAPS) - {"hashes.json"}:
        raise DataError(f"{folder}: hashes.json does not list the members")
    for name, entry in hashes.items():
        actual = hashlib.sha256(members[name]).hexdigest()
        if entry != {"sha256": actual, "size": len(members[name])}:
            raise DataError(
                f"{folder}: {name} was changed after the bundle was written (its SHA-256 is "
                f"{actual[:12]}...)", hint="copy the bundle again from where it was made",
            )
    return members


def _json(data: Any) -> bytes:
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False).encode()


def _parse(content: bytes, name: str) -> dict[str, Any]:
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} of the bundle is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise DataError(f"{name} of the bundle is not a JSON object")
    return data


def _describe(graph: Graph, fitted: Fitted) -> dict[str, Any]:
    """The graph with what it learned: raw columns, steps in order, and outputs."""
    raws: dict[str, Feature] = {}
    index: dict[str, int] = {}

    def reference(node: Node) -> list[Any]:
        if node.made_by is None:
            raws[node.feature.name] = node.feature
            return ["raw", node.feature.name]
        return ["step", index[node.made_by.key], node.slot]

    steps = []
    for bound in graph.bound:
        steps.append({
            "step": bound.step.name,
            "config": bound.step.stored(),
            "input": reference(bound.input), "input_feature": _feature(bound.input.feature),
            **({"others": [{"from": reference(n), **_feature(n.feature)} for n in bound.others]}
               if bound.others else {}),
            "params": bound.step.export(fitted.params[bound.key]),
        })
        index[bound.key] = len(steps) - 1
    outputs = [{"from": reference(n), **_feature(n.feature)} for n in graph.outputs]
    return {"steps": steps, "outputs": outputs}


def _feature(feature: Feature) -> dict[str, Any]:
    return {"name": feature.name, "dtype": feature.dtype, "categorical": feature.categorical}


def _rebuild(description: dict[str, Any], target: Target) -> tuple[Graph, Fitted]:
    made: list[Bound] = []
    fitted = Fitted()

    def node(reference: list[Any], feature: dict[str, Any]) -> Node:
        f = Feature(feature["name"], feature["dtype"], feature["categorical"])
        if reference[0] == "raw":
            return Node(Feature(reference[1], f.dtype, f.categorical))
        if not 0 <= reference[1] < len(made):
            raise DataError(f"bundle.json makes {f.name!r} of step {reference[1]}, which does not "
                            "come before it")
        return Node(f, made[reference[1]], reference[2])

    for item in description["steps"]:
        step = StoredStep.of(item["step"], item["config"])
        bound = Bound(step, node(item["input"], item["input_feature"]),
                      tuple(node(o["from"], o) for o in item.get("others", ())))
        if len(bound.inputs) != TRANSFORMS[step.name].columns:
            raise DataError(f"step {step.name!r} in bundle.json is malformed: it has "
                            f"{len(bound.inputs)} columns, expected "
                            f"{TRANSFORMS[step.name].columns}")
        made.append(bound)
        fitted.params[bound.key] = item["params"]
    outputs = tuple(node(o["from"], o) for o in description["outputs"])
    return Graph(outputs, target), fitted


