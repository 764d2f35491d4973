"""Fixtures that every test may use, and what becomes of the tests that need a GPU."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from gpupipe.engine.machine import cuda_devices

# OpenMP threads that spin while they wait take the cores from the other tests' (and the product's
# short spin is still ten times what training on these small tables takes; see `models.libraries`).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Each of the many processes that tests start would compile the whole package anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public tables beside the project; the test skips where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("the real tables (../shared/data) are not beside this clone")
    return SHARED


def no_gpu() -> str | None:
    """Why tests marked ``gpu`` cannot run here; None where they can."""
    if not cuda_devices():
        return "no CUDA device here"
    absent = [n for n in ("cudf", "cupy", "cuml") if importlib.util.find_spec(n) is None]
    return f"not installed here: {', '.join(absent)}" if absent else None


GPU_TESTS = pytest.StashKey[int]()
"""How many tests marked ``gpu`` were found."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need a GPU where there is none; the summary says how many.

    Files that take long come first, so that no process is left alone with one in the end.
    """
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    config.stash[GPU_TESTS] = len(gpu)
    if gpu and no_gpu() is not None:
        config.hook.pytest_deselected(items=gpu)
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = (yield).get_result()
    if report.when == "call" and item.get_closest_marker("gpu") and not report.skipped:
        report.user_properties.append(("gpu", report.outcome))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """One line on the GPU: how many tests ran on it, or why none did."""
    found, why = config.stash.get(GPU_TESTS, 0), no_gpu()
    outcomes = [value for reports in terminalreporter.stats.values() for r in reports
                for name, value in getattr(r, "user_properties", ()) if name == "gpu"]
    if not found and not outcomes:
        return
    terminalreporter.write_line(
        f"gpu: none of {found} tests ran: {why}" if why is not None else
        f"gpu: {len(outcomes)} tests ran, {outcomes.count('failed')} failed")
