"""The processes of a server: one that answers, or a parent over several and the shadows."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

from gpupipe.errors import ConfigError, EnvironmentFault
from gpupipe.serve.lines import Lines
from gpupipe.serve.metrics import Metrics
from gpupipe.serve.models import answering, deploy, split_of
from gpupipe.serve.predictions import PredictionLog
from gpupipe.serve.settings import ServeConfig, check_libraries, read_keys, seconds
from gpupipe.serve.shadow import Feed, channel

SAVED_EVERY = 1.0
"""Seconds between writes of a process's numbers."""
SWITCH = 0.0005
"""Seconds for which a thread that writes a log keeps an answer waiting at most; Python's own
setting is ten times that."""
RESTART_PAUSE = 1.0
"""Seconds before a process that ended is started again."""


def serve(settings: ServeConfig) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    check_libraries()
    sock = bound(settings.host, settings.port)
    if settings.workers == 1 and not settings.shadow:
        return Worker(settings).run(sock)
    port = sock.getsockname()[1]
    sock.close()
    # Each worker has a socket of its own on the port, and the system deals connections out among
    # them: of one that they share, the first to wake would take all that wait.
    socks = [bound(settings.host, port, shared=True) for _ in range(settings.workers)]
    with tempfile.TemporaryDirectory(prefix="gpupipe-serve-") as folder:
        return Parent(settings, socks, Path(folder)).run()


def bound(host: str, port: int, shared: bool = False) -> socket.socket:
    """A socket with an address, which listens once a server has it: before that, clients are
    turned away. EnvironmentFault where the address is taken, or none of this machine's."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError as error:
        raise EnvironmentFault(f"cannot listen on {host}:{port}: {error.strerror or error}",
                               hint="choose another --port, or end what listens there") from None
    sock.setblocking(False)
    return sock


class Worker:
    """Answers on a socket until a signal ends it.

    Parameters
    ----------
    folder : where the processes of one server leave their numbers; None for one process.
    shadow : the socket that takes requests for shadow models.
    """

    def __init__(
        self, settings: ServeConfig, folder: Path | None = None,
        shadow: socket.socket | None = None,
    ) -> None:
        from gpupipe.serve.app import App
        from gpupipe.serve.http import Server
        from gpupipe.serve.watch import Watch

        self.settings, self.folder, self.parent = settings, folder, os.getppid()
        self.metrics, self.lines = Metrics(folder), Lines()
        deployment = deploy(answering(settings), split_of(settings))
        self.log = open_log(settings, self.metrics, self.lines)
        feed = Feed(shadow, self.metrics) if shadow is not None else None
        self.app = App(settings, deployment, self.metrics, self.lines, self.log, feed)
        self.watch = Watch(self.app, answering(settings), seconds(settings.poll), self.metrics,
                           self.lines)
        self.app.reload = self._look if folder is None else self._tell_parent
        self.server = Server(settings, self.app, self._background)

    def _look(self) -> None:
        """Look for other versions, and read the keys again."""
        if self.settings.api_keys:
            try:
                self.app.keys = read_keys(self.settings.api_keys)
            except ConfigError as error:  # the old ones stay
                self.lines.tell("keys_refused", error=str(error))
        self.watch.look()

    def _tell_parent(self) -> None:
        os.kill(self.parent, signal.SIGHUP)

    def run(self, sock: socket.socket) -> int:
        """The exit code."""
        host, port = sock.getsockname()[:2]
        sys.setswitchinterval(SWITCH)
        self.lines.start()
        if self.log is not None:
            self.log.start()
        try:
            self.server.serve_on(sock, lambda: self._started(host, port))
        finally:
            self.app.close()
            self.metrics.save(self._numbers())
            self.lines.tell("ended")
            self.lines.close()
        return 0

    def _started(self, host: str, port: int) -> None:
        # What is there by now stays. Were the collector to look through all of it, answers would
        # wait for some 50 ms each time.
        gc.collect()
        gc.freeze()
        self.lines.tell("serving", url=url_of(self.settings, host, port), models=[
            {"variant": m.variant, "name": m.name, "version": m.version,
             "reference": m.reference} for m in self.app.deployment.models])

    async def _background(self) -> None:
        """What goes on beside the answers: looking for versions, leaving numbers."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._look)
        looking = asyncio.create_task(self.watch.run())
        try:
            while True:
                if self.folder is not None:
                    await asyncio.to_thread(self.metrics.save, self._numbers())
                    if os.getppid() != self.parent:  # nobody would ever end this process
                        self.server.handle_exit(signal.SIGTERM, None)
                await asyncio.sleep(SAVED_EVERY)
        finally:
            looking.cancel()

    def _numbers(self) -> dict[str, Any]:
        from gpupipe.serve.pages import gauges

        gauges(self.app)
        return self.metrics.to_json()


def open_log(settings: ServeConfig, metrics: Metrics, lines: Lines) -> PredictionLog | None:
    """The prediction log, where there is to be one."""
    if settings.log is None:
        return None
    return PredictionLog(Path(settings.log.path), settings.log.features,
                         seconds(settings.log.every), settings.log.rows, metrics,
                         lambda text: lines.tell("prediction_log", message=text))


def url_of(settings: ServeConfig, host: str, port: int) -> str:
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class Parent:
    """Starts the processes of a server, starts those again that fail, and ends them all."""

    def __init__(self, settings: ServeConfig, socks: list[socket.socket], folder: Path) -> None:
        self.settings, self.socks, self.folder = settings, socks, folder
        self.channel = channel() if settings.shadow else None
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.stopping = False
        self.ready = False
        self.lines = Lines()

    def run(self) -> int:
        """The exit code: 0, or that of a worker that could not begin."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, self._stop)
        signal.signal(signal.SIGHUP, lambda *_: self._signal(signal.SIGHUP))
        names = [f"worker-{i}" for i in range(self.settings.workers)]
        names += ["shadow"] if self.settings.shadow else []
        try:
            for name in names:
                self._start(name)
            return self._watch(names)
        finally:
            self._end()

    def _watch(self, names: list[str]) -> int:
        again: dict[str, float] = {}
        while not self.stopping:
            time.sleep(0.05)
            self.ready = self.ready or any(
                (self.folder / f"{p.pid}.json").exists() for p in self.running.values())
            for name in names:
                code = self.running[name].poll()
                if code is None or self.stopping:
                    continue
                if not self.ready and code > 0:
                    return code  # it has said why
                if name not in again:
                    again[name] = time.monotonic() + RESTART_PAUSE
                    self.lines.tell("process_ended", process=name, code=code)
                    self.lines.flush()
                elif time.monotonic() > again[name]:
                    del again[name]
                    self._start(name)
        return 0

    def _start(self, name: str) -> None:
        """Start a process, with the descriptors that it needs."""
        kind, _, number = name.partition("-")
        descriptors = {"sock": self.socks[int(number)].fileno()} if number else {}
        if self.channel is not None:
            descriptors["shadow"] = self.channel[kind == "shadow"].fileno()
        told = {"kind": kind, "folder": str(self.folder), **descriptors,
                "settings": self.settings.model_dump(mode="json")}
        threads = 1 if kind == "shadow" else \
            max(1, (os.cpu_count() or 1) // self.settings.workers)
        self.running[name] = subprocess.Popen(
            [sys.executable, "-m", "gpupipe.serve.child", json.dumps(told)],
            pass_fds=list(descriptors.values()), start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )

    def _stop(self, sig: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _signal(self, sig: int, kind: str = "") -> None:
        for name, process in self.running.items():
            if name.startswith(kind) and process.poll() is None:
                process.send_signal(sig)

    def _end(self) -> None:
        """End the workers, then the shadow, which still has what they sent."""
        for sock in self.socks:  # else the system would go on to deal connections out to them
            sock.close()
        patience = seconds(self.settings.drain) + seconds(self.settings.shutdown) + 10
        for kind in ("worker", "shadow"):
            self._signal(signal.SIGTERM, kind)
            until = time.monotonic() + patience
            for name, process in self.running.items():
                if not name.startswith(kind):
                    continue
                try:
                    process.wait(max(0.1, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
