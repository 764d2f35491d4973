"""Bundles on their way into a registry and out of it: added, fetched, verified."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gpupipe.bundle.scoring import load
from gpupipe.bundle.store import members_of
from gpupipe.checkpoints import sweep, temporary_name
from gpupipe.errors import ConfigError, DataError
from gpupipe.registry.names import is_reference, is_version, split_reference
from gpupipe.registry.records import Stamp, Version, digest, sha256
from gpupipe.registry.registry import Registry

CACHE = "GPUPIPE_CACHE"
"""The environment variable that names the folder of bundles fetched from object stores."""


class Resolved(NamedTuple):
    """What a reference stands for: a bundle's folder on this machine, and what it is called.

    ``name``, ``version`` and ``alias`` are None for a folder that was named by its path; ``alias``
    is None, too, where the reference gave a version's number.
    """

    path: Path
    name: str | None = None
    version: int | None = None
    alias: str | None = None


def resolve(reference: str | Path) -> Resolved:
    """The bundle behind a reference, on this machine and verified by its registry's hashes.

    ``reference`` is a bundle's or a run's folder, ``REGISTRY/NAME@ALIAS`` or
    ``REGISTRY/NAME@VERSION``, where REGISTRY is a folder or a URL (``s3://bucket/prefix``). What
    lies in an object store is fetched once, to ``$GPUPIPE_CACHE`` or ``~/.cache/gpupipe``. Raises
    ConfigError for what is no reference, DataError for what is not there or was changed,
    EnvironmentFault where a store cannot be reached.
    """
    text = str(reference)
    if not is_reference(text):
        folder = Path(reference)
        if not folder.is_dir():
            raise ConfigError("there is no such folder", where=text,
                              hint="a model is a run's or a bundle's folder, or "
                              "REGISTRY/NAME@ALIAS, such as models/churn@champion")
        inner = folder / "bundle"
        return Resolved(inner if inner.is_dir() else folder)
    root, name, at = split_reference(text)
    registry = Registry(root)
    number = registry.number_of(name, at)
    return Resolved(fetch(registry, registry.version(name, number)), name, number,
                    None if is_version(at) else at)


def fetch(registry: Registry, version: Version) -> Path:
    """The folder of a version's bundle on this machine, every member of it verified."""
    here = registry.store.local(f"{version.name}/bundles/{version.digest}")
    if here is not None:
        _check(here, version)
        return here
    folder = _cache() / "bundles"
    kept = folder / version.digest
    if kept.is_dir():
        try:
            _check(kept, version)
            return kept
        except DataError:  # spoilt on this machine: the registry still has what was added
            aside = temporary_name(kept)
            kept.rename(aside)
            shutil.rmtree(aside)
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    temporary = temporary_name(kept)
    temporary.mkdir()
    try:
        for member in version.members:
            (temporary / member).write_bytes(registry.member(version, member))
        try:
            temporary.rename(kept)
        except OSError:  # another process was quicker
            if not kept.is_dir():
                raise
            _check(kept, version)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return kept


def add(registry: Registry, name: str, target: Path, *, added: Stamp | None = None) -> Version:
    """A run's bundle, or a bundle's folder, as a version of ``name``; see `Registry.add`.

    It is loaded first: hashes are checked and golden rows replayed. A run adds its metrics and
    pipeline file to the record.
    """
    bundle = load(target)
    members, info = members_of(bundle.path), bundle.info
    run = bundle.path.parent if bundle.path.name == "bundle" else None
    manifest = _json_of(run, "manifest.json")
    judged = _json_of(run, "metrics.json")
    facts = {
        "task": bundle.task, "target": info["target"], "data": info["data"],
        "metrics": _headline(judged) if judged else None,
        "pipeline": manifest["config"] if manifest else None,
        "run": manifest["run"] if manifest else None,
    }
    return registry.add(name, members, facts, added=added)


def verify(registry: Registry, version: Version) -> dict[str, Any]:
    """Hash every member of a version again, load it and replay its golden rows.

    Raises DataError that names what is not as it was added.
    """
    bundle = load(fetch(registry, version))
    if registry.store.local("") is None:  # what is in the store, not what was kept of it
        for member in version.members:
            registry.member(version, member)
    return {"version": version.version, "digest": version.digest, "members": len(version.members),
            "size": sum(m["size"] for m in version.members.values()),
            "features": len(bundle.feature_names)}


def _check(folder: Path, version: Version) -> None:
    """DataError unless a folder holds the very bundle that was added."""
    members = members_of(folder)
    held = {n: {"sha256": sha256(b), "size": len(b)} for n, b in members.items()}
    if digest(held) != version.digest:
        changed = sorted(n for n in held if held[n] != dict(version.members[n]))
        raise DataError(
            f"{folder}: {', '.join(changed)} changed after version {version.version} was added",
            hint="add the bundle again from where it was made, and promote that version")


def _cache() -> Path:
    named = os.environ.get(CACHE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gpupipe"


def _json_of(run: Path | None, name: str) -> dict[str, Any] | None:
    path = run and run / name
    if not path or not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    return dict(found)


def _headline(judged: Mapping[str, Any]) -> dict[str, Any] | None:
    """The model's metrics on the holdout, or else out of fold; without a target of all rows."""
    for side in ("holdout", "cross_validation", "training"):
        if judged.get(side):
            return dict(judged[side]["model"])
    return None

