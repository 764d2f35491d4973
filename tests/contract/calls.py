"""What a module's source calls of a library, read from its syntax: for code that runs nowhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from contract.record import Use

LIBRARIES = ("cudf", "cupy", "cuml", "rmm", "dask_cuda", "dask_cudf", "xgboost")


def uses_in(source: str) -> Iterator[Use]:
    """Every name of `LIBRARIES` that a module imports or reaches through an import, and every
    call of one. An argument ``**options`` is left to whoever knows what it holds."""
    tree = ast.parse(source)
    names = dict(_imported(tree))
    called = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            full = _full_name(node.func, names)
            if full is not None:
                called.add(id(node.func))
                yield _call(full, node)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in called:
            full = _full_name(node, names)
            if full is not None:
                yield Use(*full.rpartition(".")[::2])
    for full in names.values():
        if "." in full:
            yield Use(*full.rpartition(".")[::2])


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Local names, and the full names of what they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in LIBRARIES:
                    yield alias.asname or alias.name.partition(".")[0], (
                        alias.name if alias.asname else alias.name.partition(".")[0])
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            for alias in node.names if module.partition(".")[0] in LIBRARIES else ():
                yield alias.asname or alias.name, f"{module}.{alias.name}"


def _full_name(node: ast.expr, names: dict[str, str]) -> str | None:
    if isinstance(node, ast.Attribute):
        owner = _full_name(node.value, names)
        return None if owner is None else f"{owner}.{node.attr}"
    return names.get(node.id) if isinstance(node, ast.Name) else None


def _call(full: str, node: ast.Call) -> Use:
    keywords = tuple(sorted(k.arg for k in node.keywords if k.arg is not None))
    owner, _, name = full.rpartition(".")
    if name[:1].isupper():  # a class: what is called is how it is made
        owner, name = full, "__init__"
    return Use(owner, name, len(node.args), keywords)
