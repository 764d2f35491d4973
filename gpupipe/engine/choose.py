"""The one place that decides where work runs, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from gpupipe.config import EngineConfig
from gpupipe.config.units import bytes_of
from gpupipe.engine.base import Engine
from gpupipe.engine.frames import Frames
from gpupipe.engine.gpu import Gpu, look
from gpupipe.engine.local import BATCH_ROWS, LocalEngine
from gpupipe.engine.machine import cores, cuda_devices
from gpupipe.engine.memory import SHARE, Memory, default_limit
from gpupipe.engine.pandas import PandasFrames
from gpupipe.errors import ConfigError, EnvironmentFault

if TYPE_CHECKING:
    from gpupipe.engine.cluster import Cluster

THREADS = 4
"""Threads of a Dask worker where nothing is said: a process more costs memory, and a column's
dictionary more; more threads wait for the interpreter."""
GPU_THREADS = 4
"""Threads that feed one GPU: while it works on one batch, the next ones are read."""
GPU_BATCH_ROWS = 1_048_576
"""Rows of a batch on a GPU where nothing is said: enough to keep all of it busy."""
SMALL_ROWS = 100_000
"""Below so many rows ``auto`` stays on the CPU: to load RAPIDS takes longer than the work."""
MANY_ROWS = 20_000_000
"""From so many rows on ``auto`` takes all GPUs, where there are several."""


@dataclass(frozen=True)
class Choice:
    """Device and engine with the reason for them.

    Attributes
    ----------
    workers : threads of the local engine, or processes of the Dask engine.
    threads : threads of each process.
    limit : bytes that each process may take.
    address : of a running Dask scheduler; None for one of its own.
    notes : how the cluster is set up, once it is there.
    """

    device: str
    kind: str
    workers: int
    batch_rows: int
    why: str
    limit: int
    threads: int
    address: str | None = None
    notes: tuple[str, ...] = ()
    dashboard: str | None = None

    @property
    def memory(self) -> Memory:
        """What a process may take."""
        return Memory(self.limit, self.threads, self.batch_rows)

    @property
    def remote(self) -> bool:
        """Whether work is done by other processes than the one that asks for it."""
        return self.kind == "dask"

    @property
    def processes(self) -> int:
        """How many processes hold parts of the table."""
        return self.workers if self.remote else 1

    def here(self) -> LocalEngine:
        """An engine in this process, for what is little work: as a worker's own, if there are."""
        return LocalEngine(self.threads, self.batch_rows, self.memory, self._frames())

    def _frames(self) -> Frames:
        if self.device == "cpu":
            return PandasFrames()
        from gpupipe.engine.cudf import CudfFrames

        return CudfFrames()

    @contextmanager
    def opened(self) -> Iterator[tuple[Engine, Choice]]:
        """The engine itself, and the choice with what is known once it is there."""
        if not self.remote:
            yield self.here(), self
            return
        from gpupipe.engine.dask import DaskEngine

        cluster = self._cluster()
        engine = DaskEngine(cluster, self.batch_rows, self.memory, self._frames())
        try:
            yield engine, replace(self, notes=cluster.why, dashboard=cluster.dashboard)
        finally:
            engine.close()

    def _cluster(self) -> Cluster:
        from gpupipe.engine import cluster

        if self.address:
            return cluster.connect(self.address)
        if self.device == "cuda":
            return cluster.cuda_cluster(self.workers)
        return cluster.local_cluster(self.workers, self.threads, self.limit)

    def to_json(self) -> dict[str, Any]:
        return {"device": self.device, "kind": self.kind, "workers": self.workers,
                "threads": self.threads, "batch_rows": self.batch_rows, "why": self.why,
                "memory_limit": self.limit, "address": self.address, "notes": list(self.notes),
                "dashboard": self.dashboard}


def choose(config: EngineConfig, rows: int | None = None) -> Choice:
    """Where to run. EnvironmentFault where what was asked for is not to be had here.

    ``auto`` takes a GPU where one can be used and the table has `SMALL_ROWS` rows or more, and
    several of them from `MANY_ROWS` on. Without ``rows`` the table is taken to be large.
    """
    if config.kind == "local" and config.address:
        raise ConfigError("engine.kind is local, and engine.address names a cluster",
                          hint="leave one of them out")
    device, why = _device(config, rows)
    limit = default_limit() if device == "cpu" else int(_smallest() * SHARE)
    if config.memory != "auto":
        limit = bytes_of(config.memory)
    batch_rows = config.batch_rows or (BATCH_ROWS if device == "cpu" else GPU_BATCH_ROWS)
    made = Choice(device, "local", 1, batch_rows, why, limit, 1)
    if config.address:
        return _running(made, config)
    several = device == "cuda" and len(_gpu().devices) > 1
    if config.kind == "dask" or (config.kind == "auto" and several
                                 and (rows is None or rows >= MANY_ROWS)):
        return _own_cluster(made, config)
    most = cores() if device == "cpu" else min(cores(), GPU_THREADS)
    workers = most if config.workers == "auto" else config.workers
    return replace(made, workers=workers, threads=workers)


@cache
def _gpu() -> Gpu:
    return look()


def _smallest() -> int:
    """The memory of the smallest GPU, in bytes."""
    return min(d.memory for d in _gpu().devices)


def _device(config: EngineConfig, rows: int | None) -> tuple[str, str]:
    """The device, and why."""
    if config.device == "cpu":
        return "cpu", "asked for"
    if config.device == "cuda":
        if not _gpu().usable:
            raise _gpu().fault("engine.device is cuda")
        return "cuda", f"asked for: {_gpu().why}"
    if not cuda_devices():
        return "cpu", "no CUDA device here"
    if not _gpu().usable:
        return "cpu", f"the GPU cannot be used: {_gpu().why}; `gpupipe doctor` says more"
    if rows is not None and rows < SMALL_ROWS:
        return "cpu", f"{rows:,} rows are done sooner than a GPU begins"
    return "cuda", _gpu().why


def _own_cluster(made: Choice, config: EngineConfig) -> Choice:
    """A cluster of this machine's own: one worker a GPU, or a few threads in each process."""
    if made.device == "cuda":
        workers = len(_gpu().devices) if config.workers == "auto" else config.workers
        if workers > len(_gpu().devices):
            raise EnvironmentFault(
                f"engine.workers is {workers}, and there are {len(_gpu().devices)} GPUs: a worker "
                "has one of its own", hint="set engine.workers to auto",
            )
        return replace(made, kind="dask", workers=workers)
    workers = max(1, cores() // THREADS) if config.workers == "auto" else config.workers
    return replace(made, kind="dask", workers=workers, limit=made.limit // workers,
                   threads=max(1, cores() // workers))


def _running(made: Choice, config: EngineConfig) -> Choice:
    """The workers of a running scheduler, as they are now: all are taken to be like the least."""
    from gpupipe.engine import cluster

    assert config.address is not None
    found = cluster.workers_at(config.address)
    least = min(memory for _, memory in found) or made.limit
    limit = least if config.memory == "auto" else min(made.limit, least)
    return replace(made, kind="dask", workers=len(found), address=config.address, limit=limit,
                   threads=min(threads for threads, _ in found))
