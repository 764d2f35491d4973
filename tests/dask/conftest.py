"""A cluster of two processes, one for all tests of a session's worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from gpupipe.engine.cluster import Cluster, local_cluster
from gpupipe.engine.dask import DaskEngine
from gpupipe.engine.memory import Memory
from gpupipe.engine.pandas import PandasFrames

GIB = 1 << 30


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    made = local_cluster(2, 1, 4 * GIB)
    yield made
    made.close()


@pytest.fixture
def engine_of(cluster) -> Iterator[Callable[..., DaskEngine]]:
    """Makes an engine on the cluster, which outlives it."""
    made: list[DaskEngine] = []

    def make(batch_rows: int = 131_072) -> DaskEngine:
        guest = replace(cluster, own=False, _closing=[])
        made.append(DaskEngine(guest, batch_rows, Memory(4 * GIB, 1, batch_rows), PandasFrames()))
        return made[-1]

    yield make
    for engine in made:
        engine.close()
