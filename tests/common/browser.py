"""Pages in a real browser: what they look like to a reader after their scripts have run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def dom(page: Path, fragment: str = "", size: str = "1200,1600") -> str:
    """The page's elements as a headless browser has them, at ``#fragment``; skips without one."""
    found = next((p for p in map(shutil.which, NAMES) if p), None)
    if found is None:
        pytest.skip("there is no chromium here to open pages in")
    done = subprocess.run(
        [found, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         f"--user-data-dir={page.parent / 'browser'}", f"--window-size={size}", "--dump-dom",
         f"file://{page}{'#' + fragment if fragment else ''}"],
        capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
