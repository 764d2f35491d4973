"""The one place that decides where work runs, and says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpupipe.config import EngineConfig
from gpupipe.config.units import bytes_of
from gpupipe.engine.local import LocalEngine
from gpupipe.engine.machine import cores, cuda_devices
from gpupipe.engine.memory import Memory, default_limit
from gpupipe.errors import EnvironmentFault


@dataclass(frozen=True)
class Choice:
    """Device and engine with the reason for them."""

    device: str
    kind: str
    workers: int
    batch_rows: int
    why: str
    limit: int

    @property
    def memory(self) -> Memory:
        """What the run may take."""
        return Memory(self.limit, self.workers, self.batch_rows)

    def engine(self) -> LocalEngine:
        """The engine itself."""
        return LocalEngine(self.workers, self.batch_rows, self.memory)

    def to_json(self) -> dict[str, Any]:
        return {"device": self.device, "kind": self.kind, "workers": self.workers,
                "batch_rows": self.batch_rows, "why": self.why, "memory_limit": self.limit}


def choose(config: EngineConfig) -> Choice:
    """Where to run. EnvironmentFault where what was asked for is not to be had here."""
    devices = cuda_devices()
    if config.device == "cuda":
        seen = f"{devices} CUDA device(s)" if devices else "no CUDA device"
        raise EnvironmentFault(
            f"engine.device is cuda, and this version trains on the CPU alone (here: {seen})",
            hint="set engine.device to cpu or auto; `gpupipe doctor` shows what this machine has",
        )
    if config.kind == "dask" or config.address:
        raise EnvironmentFault(
            "engine.kind is dask, and this version has the local engine alone",
            hint="set engine.kind to local or auto, and leave engine.address out",
        )
    workers = cores() if config.workers == "auto" else config.workers
    why = "asked for" if config.device == "cpu" else (
        "this version runs on the CPU" if devices else "no CUDA device here"
    )
    limit = default_limit() if config.memory == "auto" else bytes_of(config.memory)
    return Choice("cpu", "local", workers, config.batch_rows, why, limit)
