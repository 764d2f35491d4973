"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public tables beside the project; the test skips where it is missing."""
    if not SHARED.is_dir():
        pytest.skip("the real tables (../shared/data) are not beside this clone")
    return SHARED
