"""The libraries that grow trees, imported when they are needed: each takes most of a second."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

from gpupipe.engine import machine
from gpupipe.errors import EnvironmentFault
from gpupipe.models.base import LIBRARIES


@cache
def xgboost_library() -> Any:
    """XGBoost itself."""
    return _loaded("xgboost")


@cache
def optional_library(name: str, called: str) -> Any:
    """A library that comes with the extra of its name.

    Raises EnvironmentFault with the command that installs it where it is absent.
    """
    try:
        return _loaded(name)
    except ImportError as error:
        raise EnvironmentFault(
            f"model {name!r} is trained by {called}, which cannot be imported here: {error}",
            hint=f"pip install 'gpupipe[{name}]'",
        ) from error


def quiet_threads() -> None:
    """Keep OpenMP's threads from spinning for long; read once, when a library is first loaded.

    They spin while they wait, which makes training several times slower as soon as anything else
    runs on the machine; a short spin costs nothing where nothing else does.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _loaded(name: str) -> Any:
    quiet_threads()
    # They load scikit-learn for their own estimators, which takes four times as long as all
    # else in them. Those are not used here; a user's process may want them, the command does not.
    with LIBRARIES, _hidden("sklearn") if machine.own_process else nullcontext():
        return importlib.import_module(name)


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Inside, ``name`` cannot be imported, unless it has been already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
