"""Shadow models: every request scored once more, in a process that the answer never waits for.

A worker hands the body of an answered request to a socket whose buffer is the queue. Where it is
full the request is dropped, and counted. The process at the other end has a low priority; it
decodes and scores as a worker does, and writes to the prediction log.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from contextlib import suppress
from typing import Any

import orjson
import pyarrow as pa

from gpupipe.serve import decode
from gpupipe.serve.batching import score
from gpupipe.serve.lines import Lines
from gpupipe.serve.metrics import Metrics
from gpupipe.serve.models import Deployment, deploy, shadowing
from gpupipe.serve.predictions import Answered, PredictionLog
from gpupipe.serve.rows import Seen
from gpupipe.serve.settings import ServeConfig, seconds
from gpupipe.serve.units import units_of
from gpupipe.serve.watch import Watch

BUFFER = 4 << 20
"""Bytes of requests that may wait, as far as the system allows."""
NICE = 10
"""The priority of the process: at 19 it would starve on a busy machine, its log with it."""
LAST = 5.0
"""Seconds for what still waits when the server ends."""
LARGEST = 64 << 20
"""No message is larger."""


def channel() -> tuple[socket.socket, socket.socket]:
    """The ends for workers and for the shadow process; a message is whole or not there."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
    near.setblocking(False)
    return near, far


class Feed:
    """Hands answered requests to the shadow process."""

    def __init__(self, sock: socket.socket, metrics: Metrics) -> None:
        self.sock, self.metrics = sock, metrics

    def __call__(
        self, body: bytes, kind: str, request_id: str, name: str, unit: str | None, now: float
    ) -> None:
        """``name`` is what the ids of the answer's predictions begin with."""
        head = orjson.dumps([kind, request_id, name, unit, now])
        try:
            self.sock.send(b"%s\n%s" % (head, body))
            self.metrics.add("gpupipe_shadow_total", outcome="sent")
        except BlockingIOError:
            self.metrics.add("gpupipe_shadow_total", outcome="dropped")
        except OSError:  # larger than the buffer, or nobody is there
            self.metrics.add("gpupipe_shadow_total", outcome="failed")


class Shadow:
    """The shadow process: reads what `Feed` sends until it is told to end."""

    def __init__(
        self, settings: ServeConfig, sock: socket.socket, metrics: Metrics, lines: Lines,
        log: PredictionLog | None,
    ) -> None:
        self.settings, self.sock, self.metrics, self.lines = settings, sock, metrics, lines
        self.log = log
        self.deployment: Deployment = deploy(shadowing(settings))
        self.refused_versions: dict[str, str] = {}
        self.watch = Watch(self, shadowing(settings), seconds(settings.poll), metrics, lines)
        self.parent = os.getppid()
        self.stopping = self.asked = False

    def run(self) -> None:
        """Until SIGTERM; what waits by then is still scored, for `LAST` seconds at most."""
        with suppress(OSError):
            os.nice(NICE)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGHUP, self._look)
        looked = saved = 0.0
        until: float | None = None
        self.sock.settimeout(0.2)
        while True:
            now = time.monotonic()
            if now - saved > 1:
                saved = now
                self._save()
            if self.stopping and until is None:
                until = now + min(LAST, seconds(self.settings.shutdown))
            if until is not None and now > until:
                break
            if self.asked or now - looked > seconds(self.settings.poll):
                looked, self.asked = now, False
                asyncio.run(self.watch.once())
            try:
                message = self.sock.recv(LARGEST)
            except TimeoutError:
                if self.stopping or os.getppid() != self.parent:
                    break
                continue
            self._score(message)
        with suppress(OSError):  # the end should not take long; not everybody may raise it again
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        self._drop_rest()
        self._save()

    def _drop_rest(self) -> None:
        """Count what there was no time for."""
        self.sock.setblocking(False)
        with suppress(OSError):
            while self.sock.recv(LARGEST):
                self.metrics.add("gpupipe_shadow_total", outcome="dropped")

    def _stop(self, *_: Any) -> None:
        self.stopping = True

    def _look(self, *_: Any) -> None:
        self.asked = True

    def _save(self) -> None:
        for m in self.deployment.models:
            self.metrics.gauge("gpupipe_model_info", 1, variant=m.variant, name=m.name,
                               version=m.version)
        self.metrics.gauge("gpupipe_worker_info", 1, pid=str(os.getpid()))
        self.metrics.save(self.metrics.to_json())
        self.metrics.forget("gpupipe_model_info")

    def _score(self, message: bytes) -> None:
        """Score one request by every shadow; a model that cannot is counted."""
        head, _, body = message.partition(b"\n")
        kind, request_id, name, unit, now = orjson.loads(head)
        for model in self.deployment.models:
            try:
                most = self.settings.limits.rows
                if kind == "arrow":
                    rows: Any = decode.table_of(body, most)
                elif kind == "tensors":
                    rows = decode.tensors_of(body, most)[0]
                else:
                    rows = decode.records_of(body, most)
                seen = Seen({}, {})
                check = model.checks.table if isinstance(rows, pa.Table) else model.checks.records
                check(rows, seen)
                scored = score(model, rows)
            except Exception as error:  # the champion took it; this model may want other columns
                self.metrics.add("gpupipe_shadow_total", outcome="unscorable")
                self.lines.tell("shadow_failed", variant=model.variant, request_id=request_id,
                                error=type(error).__name__)
                continue
            predictions = [{"id": f"{name}-{i}~{model.variant}", **p}
                           for i, p in enumerate(scored)]
            self.metrics.scores(model.variant, model.edges, predictions)
            self.metrics.add("gpupipe_rows_total", len(predictions), variant=model.variant)
            if self.log is not None:
                units = units_of(self.settings, rows) if unit is None else unit
                self.log.add(Answered(now, request_id, units, model, True, predictions, rows))
