"""Start a Dask cluster for gpupipe, and say what to write into the pipeline file.

    python scripts/start_cluster.py                        # this machine: its GPUs, or its cores
    python scripts/start_cluster.py --scheduler            # several machines: first, on one ...
    python scripts/start_cluster.py --worker tcp://HOST:8786   # ... then, on each that works

It prints the scheduler's address and the dashboard's, and runs until Ctrl-C or SIGTERM.

Where a GPU can be used, there is one worker a GPU (CUDA_VISIBLE_DEVICES chooses them), and
otherwise a few processes that share the cores. Several machines need the same versions of Python
and of the packages, and one disk under the same path. A scheduler runs whatever code it is sent:
keep its ports inside a network that you trust.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
import threading
from typing import Any, NoReturn

from gpupipe.config import EngineConfig
from gpupipe.config.units import bytes_of
from gpupipe.engine import cluster
from gpupipe.engine.choose import choose
from gpupipe.engine.machine import cuda_devices
from gpupipe.errors import ConfigError, EnvironmentFault, GpupipeError

RAPIDS = ("cudf", "dask_cuda")
"""What a worker needs to use its GPU."""


def main() -> None:
    args = arguments()
    try:
        if args.scheduler:
            start_scheduler(args)
        elif args.worker:
            join(args)
        else:
            start_here(args)
    except GpupipeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def start_here(args: argparse.Namespace) -> None:
    """A cluster of this machine alone, until it is interrupted."""
    import dask

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        devices = usable_devices(args)
        dask.config.set({"distributed.worker.preload": [__file__]})
        running = (cluster.cuda_cluster(devices) if devices else
                   cluster.local_cluster(*cpu_workers(args)))
        try:
            tell(running.address, running.dashboard, running.why)
            threading.Event().wait()
        finally:
            running.close()
    except KeyboardInterrupt:
        print("ended", flush=True)


def start_scheduler(args: argparse.Namespace) -> NoReturn:
    """A scheduler that waits for the workers of other machines."""
    run_dask("scheduler", "--port", str(args.port),
             "--dashboard-address", f":{args.dashboard_port}", host=args.host)


def join(args: argparse.Namespace) -> NoReturn:
    """Workers of this machine for the scheduler that runs at ``args.worker``."""
    cluster.connect(args.worker).close()  # a clear error where none answers
    devices = usable_devices(args)
    if devices:
        command = ["cuda", "worker", args.worker, *cuda_flags(devices)]
        what = f"{devices}, one a GPU"
    else:
        workers, threads, memory = cpu_workers(args)
        command = ["worker", args.worker, "--nworkers", str(workers), "--nthreads", str(threads),
                   "--memory-limit", str(memory), "--no-dashboard"]
        what = f"{workers} x {threads} threads, {memory / 2**30:.1f} GiB each"
    print(f"joins      {args.worker}\nworkers    {what}", flush=True)
    run_dask(*command, "--death-timeout", str(cluster.START_SECONDS), host=args.host)


def usable_devices(args: argparse.Namespace) -> int:
    """The GPUs to use, none where the CPU is to work. EnvironmentFault without the wanted one."""
    if args.device == "cpu":
        return 0
    devices = cuda_devices()
    lacking = [name for name in RAPIDS if importlib.util.find_spec(name) is None]
    if devices and not lacking:
        if args.workers:
            raise ConfigError("--workers is for CPU workers, and there is one for each GPU",
                              hint="set CUDA_VISIBLE_DEVICES to use fewer of them")
        return devices
    why = f"{', '.join(lacking)} not installed" if devices else "no CUDA device here"
    if args.device == "cuda":
        raise EnvironmentFault(f"--device is cuda: {why}",
                               hint="`gpupipe doctor` says what is missing and how to mend it")
    print(f"device     cpu ({why})", flush=True)
    return 0


def cpu_workers(args: argparse.Namespace) -> tuple[int, int, int]:
    """Processes, threads of each and bytes of each, as a run of its own would choose them."""
    choice = choose(EngineConfig(device="cpu", kind="dask", workers=args.workers or "auto",
                                 memory=args.memory or "auto"))
    return choice.workers, choice.threads, choice.limit


def cuda_flags(devices: int) -> list[str]:
    """The options of `dask_cuda.LocalCUDACluster` that gpupipe sets, for ``dask cuda worker``.

    That starts one worker a GPU by itself, and takes its protocol from the scheduler's address.
    """
    options, _ = cluster.cuda_options(devices)
    return [f"--{name.replace('_', '-')}" for name, value in options.items() if value is True]


def run_dask(*command: str, host: str | None) -> NoReturn:
    """Dask's own command line, inside this process: so the engine's settings hold for it."""
    from dask.cli import run_cli

    cluster.Settings()
    sys.argv = ["dask", *command, "--preload", __file__, *(["--host", host] if host else [])]
    run_cli()
    sys.exit(0)


def dask_setup(server: Any) -> None:
    """Dask calls this in the schedulers and workers that preload this file, once they listen."""
    from distributed import Scheduler

    if not isinstance(server, Scheduler):
        # Ctrl-C reaches every process of a terminal, and it is for this script to end the workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return
    from distributed.comm import get_address_host
    from distributed.utils import format_dashboard_link

    link = None
    if importlib.util.find_spec("bokeh"):
        port = server.identity()["services"]["dashboard"]
        link = format_dashboard_link(get_address_host(server.address), port)
    tell(server.address, link, (
        "none yet; on each machine that is to work:",
        f"python scripts/start_cluster.py --worker {server.address}",
    ))


def tell(address: str, dashboard: str | None, workers: tuple[str, ...]) -> None:
    print(f"address    {address}")
    print(f"dashboard  {dashboard or 'none: bokeh is not installed'}")
    for name, line in zip(["workers", *[""] * len(workers)], workers, strict=False):
        print(f"{name:<10} {line}")
    print(f"pipeline   engine: {{kind: dask, address: {address}}}")
    print("Ctrl-C ends it.", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--scheduler", action="store_true",
                      help="only the scheduler, for workers of several machines")
    what.add_argument("--worker", metavar="ADDRESS", help="only workers, for that scheduler")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--workers", type=positive, help="CPU worker processes; default: by cores")
    parser.add_argument("--memory", type=size,
                        help="of all CPU workers here together: 8GiB; default: four fifths of "
                        "what the machine has")
    parser.add_argument("--host", help="the address of this machine that the others can reach")
    parser.add_argument("--port", type=int, default=8786, help="of the scheduler; default 8786")
    parser.add_argument("--dashboard-port", type=int, default=8787,
                        help="of the scheduler's dashboard; default 8787")
    return parser.parse_args()


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def size(text: str) -> str:
    try:
        bytes_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("; ".join(map(str, error.args))) from None
    return text


if __name__ == "__main__":
    main()
