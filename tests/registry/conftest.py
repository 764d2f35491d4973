"""Bundles to put into registries, and the stores that registries lie in."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import memory_store, renamed
from common.quick import settings, small_table, trained_on, write_bundle

from gpupipe.registry import Registry
from gpupipe.registry.store import FolderStore


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    """A bundle of a small classifier."""
    folder = tmp_path_factory.mktemp("trained") / "bundle"
    write_bundle(trained_on(small_table(), settings(), folder.parent / "cache"), folder)
    return folder


@pytest.fixture
def variant(bundle, tmp_path) -> Callable[[str], Path]:
    """Whole bundles that differ from each other in nothing but their name."""
    return lambda name: renamed(bundle, tmp_path / "variants", name)


@pytest.fixture(params=["folder", "object"])
def registry(request, tmp_path, monkeypatch) -> Registry:
    """An empty registry in each kind of store."""
    monkeypatch.setenv("GPUPIPE_CACHE", str(tmp_path / "cache"))
    if request.param == "folder":
        return Registry(FolderStore(tmp_path / f"models-{uuid.uuid4().hex[:6]}"))
    return Registry(memory_store())
