"""What the command line shows of a registry: plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpupipe.console import quiet
from gpupipe.errors import ConfigError, DataError
from gpupipe.registry.bundles import resolve, verify
from gpupipe.registry.names import is_reference, split_name, split_reference
from gpupipe.registry.records import Version
from gpupipe.registry.registry import Registry


def listed(registry: Registry) -> dict[str, Any]:
    """The models, each with its newest version and where its aliases point."""
    models = []
    for name in registry.names():
        newest = registry.versions(name)[-1]
        models.append({"name": name, "versions": newest.version, "task": newest.task,
                       "newest": newest.added.when, "aliases": registry.aliases(name)})
    return {"registry": registry.store.url, "models": models}


def described(model: str) -> dict[str, Any]:
    """A model (``REGISTRY/NAME``): versions, aliases, history. Or one version of it, whole."""
    registry, name, at = opened(model)
    if at is not None:
        version = registry.version(name, registry.number_of(name, at))
        pointing = [a for a, n in registry.aliases(name).items() if n == version.version]
        return {"registry": registry.store.url, **version.to_json(), "aliases": pointing}
    return {
        "registry": registry.store.url, "name": name, "aliases": registry.aliases(name),
        "versions": [v.to_json() for v in registry.versions(name)],
        "history": [e.to_json() for e in registry.history(name)],
    }


def verified(model: str, progress: Any = None) -> dict[str, Any]:
    """Every version of a model, or one of it, hashed and replayed; the history followed.

    Raises DataError for the first that is not as it was added.
    """
    registry, name, at = opened(model)
    versions = registry.versions(name) if at is None else [
        registry.version(name, registry.number_of(name, at))]
    with quiet(progress).stage("verify", total=len(versions), unit="versions") as stage:
        found = []
        for version in versions:
            found.append(verify(registry, version))
            stage.advance()
    numbers, moves = {v.version for v in registry.versions(name)}, registry.history(name)
    for move in moves:
        if move.version not in numbers:
            raise DataError(f"{move.alias!r} of {name!r} was moved to version {move.version}, "
                            "which is not there: it was taken away", where=registry.store.url)
    return {"registry": registry.store.url, "name": name, "versions": found, "moves": len(moves)}


def compared(
    left: str, right: str, source: object, slices: Sequence[str] = (), *, progress: Any = None,
) -> dict[str, Any]:
    """Two models, each a folder or a version in a registry, on the same labelled data."""
    from gpupipe.compare import compare_bundles

    paths, configs = [], []
    for model in (left, right):
        paths.append(resolve(model).path)
        configs.append(version_of(model)[1].pipeline if is_reference(model) else None)
    return compare_bundles(paths[0], paths[1], source, names=(left, right), slices=slices,
                           configs=configs, progress=progress).found


def opened(model: str) -> tuple[Registry, str, str | None]:
    """A registry, a model's name, and what stands behind its ``@``, if anything does."""
    if "@" in model.rpartition("/")[2]:
        root, name, at = split_reference(model)
        return Registry(root), name, at
    root, name = split_name(model)
    return Registry(root), name, None


def version_of(model: str) -> tuple[Registry, Version]:
    """The version that ``REGISTRY/NAME@ALIAS_OR_VERSION`` names."""
    registry, name, at = opened(model)
    if at is None:
        raise ConfigError("which version of it?", where=model,
                          hint=f"{model}@NUMBER, or an alias: {model}@champion")
    return registry, registry.version(name, registry.number_of(name, at))
