"""Clusters: one of this machine's processes, one of its GPUs, or one that is running already."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpupipe.errors import EnvironmentFault

START_SECONDS = 60.0
ALLOWED_FAILURES = 10
"""A task may be on so many workers as they die before it is thought to be the cause."""
KEPT = "1GB"
"""Free memory that a GPU's allocator keeps for what is next (as `cudf.KEPT_BYTES` has it)."""
SLACK = 1.3
"""A worker is ended when it takes so much more than it was given: predictions are that good."""
DASK = "pip install 'gpupipe[dask]'"


@dataclass
class Cluster:
    """A Dask cluster, and the client that talks to it.

    Attributes
    ----------
    why : how it was set up and why so, in words.
    own : whether it ends with the engine.
    """

    client: Any
    address: str
    dashboard: str | None
    why: tuple[str, ...]
    own: bool
    _closing: list[Any] = field(default_factory=list)

    def close(self) -> None:
        """End the client, and the cluster if it is the engine's own."""
        with _quiet():
            for thing in self._closing:
                thing.close()


class _Folder:
    """A temporary folder that is closed like the rest."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="gpupipe-dask-", ignore_cleanup_errors=True)
        self.name = self._folder.name

    def close(self) -> None:
        self._folder.cleanup()


def connect(address: str) -> Cluster:
    """The cluster of a running scheduler. EnvironmentFault where none answers."""
    distributed = _distributed()
    with _quiet():
        try:
            client = distributed.Client(address, timeout=START_SECONDS / 6)
        except (OSError, ValueError) as error:
            raise EnvironmentFault(
                f"no Dask scheduler answers at {address}: {str(error).splitlines()[0]}",
                hint="start one with scripts/start_cluster.py, and give the address that it prints "
                "(tcp://HOST:PORT)",
            ) from None
    mine = distributed.__version__
    for where, seen in client.get_versions()["workers"].items():
        theirs = seen["packages"].get("distributed")
        if theirs != mine:
            client.close()
            raise EnvironmentFault(
                f"the worker {where} runs distributed {theirs}, and this process {mine}",
                hint="install the same versions on both sides",
            )
    return Cluster(client, address, _dashboard(client), (f"the cluster at {address}",), False,
                   [client, Settings()])


def workers_at(address: str) -> list[tuple[int, int]]:
    """Threads and bytes of memory of each worker of a running scheduler."""
    cluster = connect(address)
    try:
        found = cluster.client.scheduler_info(n_workers=-1)["workers"].values()
        if not found:
            raise EnvironmentFault(f"the Dask scheduler at {address} has no workers",
                                   hint=f"start some: `dask worker {address}`")
        # A worker ends at its limit, so that what is planned for stays below it.
        return [(w["nthreads"], int((w["memory_limit"] or 0) / SLACK)) for w in found]
    finally:
        cluster.close()


def local_cluster(workers: int, threads: int, memory: int) -> Cluster:
    """``workers`` processes of this machine with ``threads`` threads and ``memory`` bytes each."""
    distributed = _distributed()
    _check_main()
    folder = _Folder()
    settings = Settings()
    with _quiet():
        cluster = distributed.LocalCluster(
            n_workers=workers, threads_per_worker=threads, processes=True,
            memory_limit=int(memory * SLACK), protocol="tcp",
            dashboard_address=_dashboard_address(), local_directory=folder.name,
            silence_logs=logging.CRITICAL,
        )
        client = distributed.Client(cluster)
    why = (f"{workers} worker {'process' if workers == 1 else 'processes'} of {threads} "
           f"{'thread' if threads == 1 else 'threads'} and {memory / 2**30:.1f} GiB each",)
    return Cluster(client, cluster.scheduler_address, _dashboard(client), why, True,
                   [client, cluster, folder, settings])


def cuda_cluster(devices: int, threads: int = 1) -> Cluster:
    """One worker a GPU. What is chosen, and why, is in `Cluster.why`."""
    _distributed()
    try:
        from dask_cuda import LocalCUDACluster
        from distributed import Client
    except ImportError as error:
        raise EnvironmentFault(f"dask-cuda cannot be imported: {error}",
                               hint="pip install 'gpupipe[gpu-cu13]'") from None
    _check_main()
    options, why = cuda_options(devices)
    folder = _Folder()
    settings = Settings()
    with _quiet():
        cluster = LocalCUDACluster(**options, threads_per_worker=threads,
                                   dashboard_address=_dashboard_address(),
                                   local_directory=folder.name)
        client = Client(cluster)
    return Cluster(client, cluster.scheduler_address, _dashboard(client), why, True,
                   [client, cluster, folder, settings])


def cuda_options(devices: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The options of `dask_cuda.LocalCUDACluster` for so many GPUs, with the reasons."""
    fast = devices > 1 and importlib.util.find_spec("ucxx") is not None
    options: dict[str, Any] = {
        "n_workers": devices, "rmm_async": True, "rmm_release_threshold": KEPT,
        "enable_cudf_spill": True, "protocol": "ucx" if fast else "tcp",
    }
    return options, (
        f"{devices} workers, one a GPU" if devices > 1 else "one worker for the GPU",
        f"CUDA's own asynchronous allocator, which gives back what it has free beyond {KEPT}, not "
        "an RMM pool: XGBoost allocates beside it, and a pool would take its memory",
        "cuDF spills to the host by itself when the device is full: states and columns are its",
        "UCXX between the workers: it uses NVLink where there is one" if fast
        else "TCP between the workers: " + ("ucxx is not installed" if devices > 1
                                            else "one worker has nobody to talk to fast"),
    )


def _check_main() -> None:
    """EnvironmentFault where a script's own processes would run the script again.

    They import its file. Without a guard each of them would begin with a cluster of its own, and
    the first one waits for them for ever.
    """
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None:
        return  # a notebook or a prompt; a module that was run with -m
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if path.endswith(".py") and "__main__" not in text:
        raise EnvironmentFault(
            "a script that starts worker processes is imported again by each of them",
            where=path, hint='put its calls under: if __name__ == "__main__":',
        )


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise EnvironmentFault("engine.kind is dask, and Dask is not installed",
                               hint=DASK) from None
    return distributed


def _dashboard_address() -> str | None:
    """Any free port, if the dashboard's library is there."""
    return "127.0.0.1:0" if importlib.util.find_spec("bokeh") else None


def _dashboard(client: Any) -> str | None:
    link: str | None = client.dashboard_link
    return link if importlib.util.find_spec("bokeh") else None


class _quiet(warnings.catch_warnings):  # noqa: N801 - reads as a word
    """Without Dask's warnings: that a port is taken, that a worker was lost."""

    def __enter__(self) -> None:  # type: ignore[override]
        super().__enter__()
        warnings.simplefilter("ignore")
        for name in ("distributed", "distributed.nanny", "distributed.scheduler",
                     "distributed.core", "distributed.client", "distributed.comm"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


class Settings:
    """Dask's settings as they suit one program that does long tasks; closed like the rest."""

    def __init__(self) -> None:
        import dask

        self._changed = dask.config.set({
            "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
            "distributed.scheduler.work-stealing": False,  # parts go where their columns are
            # Dask's own settings keep workers from using threads inside a task, and give every
            # array's memory back at once, which doubles the time of all array work.
            "distributed.nanny.pre-spawn-environ": {},
            # Its watches wake up 50 and 100 times a second, and the threads of a training wait
            # for the one that was interrupted.
            "distributed.worker.profile.enabled": False,
            "distributed.admin.tick.interval": "1s",
            # What lies in memory is ours, not Dask's: there is nothing that it could spill, and
            # a worker that pauses never goes on.
            "distributed.worker.memory.target": False,
            "distributed.worker.memory.spill": False,
            "distributed.worker.memory.pause": False,
            # Ctrl-C reaches all processes of a terminal; this one ends the others.
            "distributed.worker.preload": [
                "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
            "distributed.admin.tick.limit": "60s",
            "distributed.admin.large-graph-warning-threshold": "1GB",
            "distributed.comm.timeouts.connect": "30s",
        })

    def close(self) -> None:
        self._changed.__exit__(None, None, None)
