"""Bundles that differ in nothing but their name, and a store in memory."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from gpupipe.bundle.store import CAPS
from gpupipe.registry.store import ObjectStore, Store


def renamed(bundle: Path, folder: Path, name: str, **more: Any) -> Path:
    """A whole bundle that differs from ``bundle`` in nothing but its name (and ``more``)."""
    copy = folder / name
    if not copy.exists():
        shutil.copytree(bundle, copy)
        description = json.loads((copy / "bundle.json").read_text())
        (copy / "bundle.json").write_text(json.dumps({**description, "name": name, **more}))
        reseal(copy)
    return copy


def reseal(folder: Path) -> None:
    """Write the hashes of what the members hold now."""
    hashes = {}
    for name in CAPS:
        if name != "hashes.json":
            content = (folder / name).read_bytes()
            hashes[name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    (folder / "hashes.json").write_text(json.dumps(hashes))


def memory_store() -> Store:
    """An object store in this process's memory."""
    from obstore.store import MemoryStore

    return ObjectStore(MemoryStore(), "memory://here")
