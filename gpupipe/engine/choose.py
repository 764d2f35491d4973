"""The one place that decides where work runs, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gpupipe.config import EngineConfig
from gpupipe.config.units import bytes_of
from gpupipe.engine.base import Engine
from gpupipe.engine.frames import PandasFrames
from gpupipe.engine.gpu import look
from gpupipe.engine.local import LocalEngine
from gpupipe.engine.machine import cores, cuda_devices
from gpupipe.engine.memory import Memory, default_limit
from gpupipe.errors import EnvironmentFault

if TYPE_CHECKING:
    from gpupipe.engine.cluster import Cluster

THREADS = 4
"""Threads of a Dask worker where nothing is said: a process more costs memory, and a column's
dictionary more; more threads wait for the interpreter."""


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

    def here(self) -> LocalEngine:
        """An engine in this process, for what is little work: as a worker's own, if there are."""
        return LocalEngine(self.threads, self.batch_rows, self.memory, PandasFrames())

    @contextmanager
    def opened(self) -> Iterator[tuple[Engine, Choice]]:
        """The engine itself, and the choice with what is known once it is there."""
        if not self.remote:
            yield self.here(), self
            return
        from gpupipe.engine.dask import DaskEngine

        cluster = self._cluster()
        engine = DaskEngine(cluster, self.batch_rows, self.memory, PandasFrames())
        try:
            yield engine, replace(self, notes=cluster.why, dashboard=cluster.dashboard)
        finally:
            engine.close()

    def _cluster(self) -> Cluster:
        from gpupipe.engine import cluster

        if self.address:
            return cluster.connect(self.address)
        return cluster.local_cluster(self.workers, self.threads, self.limit)

    def to_json(self) -> dict[str, Any]:
        return {"device": self.device, "kind": self.kind, "workers": self.workers,
                "threads": self.threads, "batch_rows": self.batch_rows, "why": self.why,
                "memory_limit": self.limit, "address": self.address, "notes": list(self.notes),
                "dashboard": self.dashboard}


def choose(config: EngineConfig) -> Choice:
    """Where to run. EnvironmentFault where what was asked for is not to be had here."""
    devices = cuda_devices()
    if config.device == "cuda":
        gpu = look()
        if not gpu.usable:
            raise gpu.fault("engine.device is cuda")
        seen = f"{devices} CUDA device(s)" if devices else "no CUDA device"
        raise EnvironmentFault(
            f"engine.device is cuda, and this version trains on the CPU alone (here: {seen})",
            hint="set engine.device to cpu or auto; `gpupipe doctor` shows what this machine has",
        )
    why = "asked for" if config.device == "cpu" else (
        "this version runs on the CPU" if devices else "no CUDA device here"
    )
    limit = default_limit() if config.memory == "auto" else bytes_of(config.memory)
    made = Choice("cpu", "local", 1, config.batch_rows, why, limit, 1)
    if config.address:
        return _running(made, config)
    if config.kind == "dask":
        workers = max(1, cores() // THREADS) if config.workers == "auto" else config.workers
        return replace(made, kind="dask", workers=workers, limit=limit // workers,
                       threads=max(1, cores() // workers))
    workers = cores() if config.workers == "auto" else config.workers
    return replace(made, workers=workers, threads=workers)


def _running(made: Choice, config: EngineConfig) -> Choice:
    """The workers of a running scheduler, as they are now: all are taken to be like the least."""
    from gpupipe.engine import cluster

    assert config.address is not None
    found = cluster.workers_at(config.address)
    least = min(memory for _, memory in found) or made.limit
    limit = least if config.memory == "auto" else min(made.limit, least)
    return replace(made, kind="dask", workers=len(found), address=config.address, limit=limit,
                   threads=min(threads for threads, _ in found))
