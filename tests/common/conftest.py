"""The common suite runs over every frame layer: on the CPU, and on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gpupipe.engine import local
from gpupipe.engine.cudf import CudfFrames


@pytest.fixture(
    scope="module", autouse=True, params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """The device that engines of these tests work on, unless they are told another one."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "cuda":
            patch.setattr(local, "PandasFrames", CudfFrames)
        yield request.param
