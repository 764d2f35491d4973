"""Runs in a process of their own, which can be killed at a named point or at any moment."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["gpupipe.workflow", "xgboost", "sklearn.linear_model"])


def start(config: dict[str, Any], runs: Path, crash_at: str | None = None) -> Any:
    """A process that runs a pipeline, saves as often as it can, and dies at ``crash_at``."""
    process = CONTEXT.Process(target=_work, args=(config, str(runs), crash_at))
    process.start()
    return process


def _work(config: dict[str, Any], runs: str, crash_at: str | None) -> None:
    import gpupipe
    from gpupipe import checkpoints, workflow
    from gpupipe.data.reader import Reader

    checkpoints.SAVE_SECONDS = 0.0
    if crash_at:
        os.environ[checkpoints.CRASH] = crash_at
    Reader.keep = lambda self, columns: False  # type: ignore[method-assign]  # passes in waves
    # The page is drawn from what was saved; each process would compile its templates anew.
    workflow.render_report = lambda data: ""
    gpupipe.run(config, runs=Path(runs))
