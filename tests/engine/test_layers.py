"""Only the engine knows which frame library there is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import gpupipe

ROOT = Path(gpupipe.__file__).parent
FORBIDDEN = {"pandas", "cudf", "cupy", "dask_cudf"}
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts[0] != "engine")


def imported(source: str) -> set[str]:
    """The top-level packages that a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("import_module", "__import__"):
                found.add(str(node.args[0].value).partition(".")[0])
    return found


def test_the_walk_sees_every_way_to_import():
    source = "import cudf.core\ndef f():\n    from pandas import x\n    import_module('cupy')\n"
    assert imported(source) == {"cudf", "pandas", "cupy"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_module_outside_the_engine_imports_a_frame_library(path):
    assert not imported(path.read_text()) & FORBIDDEN
