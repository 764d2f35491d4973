"""An open-loop load generator for HTTP/1.1 over keep-alive connections.

    python benchmarks/open_loop.py http://127.0.0.1:8000/predict body.json --rate 500
    python benchmarks/open_loop.py --ceiling        # what the generator itself can do
    python benchmarks/open_loop.py --stall          # does it see a server that stops for a while?

Requests are due at times drawn beforehand (Poisson arrivals, or evenly spaced), whether or not
earlier ones have been answered, and the latency of each counts from when it was due, not from when
it could be sent. A closed loop would stop asking while the server stalls and so leave out the very
requests that the stall would have hurt: coordinated omission (Gil Tene, "How NOT to measure
latency", 2015; the remedy is that of his wrk2). Where every connection is busy, a due request waits
in the generator, and that wait is part of its latency.

One process and one thread over epoll, so that a core does several times what a Python server can
take. How late it sends although a connection is free is reported as `lag`: the generator's part.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

READ = 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)


def request(url: str, body: bytes, headers: Sequence[str] = ()) -> bytes:
    """A POST of JSON as it goes over the wire."""
    parts = urlsplit(url)
    head = [f"POST {parts.path or '/'} HTTP/1.1", f"Host: {parts.netloc}",
            "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def arrivals(rate: float, seconds: float, kind: str = "poisson", seed: int = 0) -> np.ndarray:
    """When requests are due, in seconds from the start: float64, ascending."""
    n = round(rate * seconds)
    if kind == "fixed":
        return np.arange(n) / rate
    # Poisson arrivals given their number: sorted uniforms.
    return np.sort(np.random.default_rng(seed).uniform(0, seconds, n))


class Timer:
    """A timerfd: epoll's own timeout counts whole milliseconds only."""

    def __init__(self) -> None:
        self.fd = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, seconds: float) -> None:
        """Make the descriptor readable after so long."""
        whole, part = divmod(max(seconds, 1e-6), 1)
        _libc.timerfd_settime(self.fd, 0, struct.pack("qqqq", 0, 0, int(whole), int(part * 1e9)),
                              None)


class Connection:
    """A keep-alive connection with at most one request under way."""

    __slots__ = ("answer", "index", "left", "sock", "tried")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.index, self.left, self.answer, self.tried = sock, -1, b"", b"", False


@dataclass
class Outcome:
    """What became of the requests, by their order; times in seconds.

    Attributes
    ----------
    due : when each was due. latency : from then to its whole answer; inf where none came.
    status : of the answers; 0 where none came. lag : how late each was sent though a connection
        was free (NaN where none was).
    reopened : connections that the server closed. seconds, cpu : wall and own CPU time.
    """

    due: np.ndarray
    latency: np.ndarray
    status: np.ndarray
    lag: np.ndarray
    reopened: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    samples: dict[int, bytes] = field(default_factory=dict)


class Generator:
    """Sends requests when they are due.

    Parameters
    ----------
    address : host and port. requests : whole requests as bytes, sent in turn.
    connections : kept open. patience : seconds to wait for answers after the last is due.
    """

    def __init__(
        self, address: tuple[str, int], requests: Sequence[bytes], connections: int = 128,
        patience: float = 3.0,
    ) -> None:
        self.address, self.requests, self.patience = address, requests, patience
        self.epoll, self.timer = select.epoll(), Timer()
        self.epoll.register(self.timer.fd, select.EPOLLIN | select.EPOLLET)
        self.open: dict[int, Connection] = {}
        self.idle: deque[Connection] = deque()
        for _ in range(connections):
            self.idle.append(self._connect())

    def _connect(self) -> Connection:
        sock = socket.create_connection(self.address, timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        connection = Connection(sock)
        self.open[sock.fileno()] = connection
        self.epoll.register(sock.fileno(), select.EPOLLIN)
        return connection

    def close(self) -> None:
        for connection in self.open.values():
            connection.sock.close()
        self.epoll.close()
        os.close(self.timer.fd)

    def fire(self, due: np.ndarray) -> Outcome:
        """Send a request at each of these times, and see what comes back."""
        n = len(due)
        out = Outcome(due, np.full(n, np.inf), np.zeros(n, int), np.full(n, np.nan))
        gc.collect()
        gc.disable()
        try:
            self._run(out, due.tolist())
        finally:
            gc.enable()
        return out

    def _run(self, out: Outcome, due: list[float]) -> None:
        clock, idle, epoll, n = time.perf_counter, self.idle, self.epoll, len(due)
        waiting: deque[int] = deque()
        after, answered = 0, 0
        cpu, start = time.process_time(), clock() + 0.01
        end = start + (due[-1] if due else 0) + self.patience
        while answered < n:
            now = clock() - start
            while after < n and due[after] <= now:
                if idle and not waiting:
                    out.lag[after] = now - due[after]
                    self._send(idle.popleft(), after, out)
                else:
                    waiting.append(after)
                after += 1
            events = epoll.poll(0)
            if not events:
                until = (due[after] if after < n else end - start) - (clock() - start)
                if until > 0:
                    self.timer.set(until)
                    events = epoll.poll()
            for fd, _ in events:
                connection = self.open.get(fd)
                if connection is None:
                    continue
                if connection.left:
                    self._rest(connection)
                if not self._read(connection, out):
                    continue
                index = connection.index
                out.latency[index] = clock() - start - due[index]
                answered += 1
                if waiting:
                    self._send(connection, waiting.popleft(), out)
                else:
                    connection.index = -1
                    idle.append(connection)
            if clock() > end:
                break
        out.seconds, out.cpu = clock() - start, time.process_time() - cpu
        for connection in [c for c in self.open.values() if c.index >= 0]:
            self._drop(connection)  # its answer, should it come, must not meet another request
            idle.append(self._connect())

    def _send(self, connection: Connection, index: int, out: Outcome) -> None:
        connection.index, connection.answer, connection.tried = index, b"", False
        self._write(connection, self.requests[index % len(self.requests)], out)

    def _write(self, connection: Connection, body: bytes, out: Outcome) -> None:
        try:
            sent = connection.sock.send(body)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the closed connection is seen, and opened anew, where it is read
        if sent < len(body):
            connection.left = body[sent:]
            self.epoll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _rest(self, connection: Connection) -> None:
        try:
            connection.left = connection.left[connection.sock.send(connection.left):]
        except OSError:
            return
        if not connection.left:
            self.epoll.modify(connection.sock.fileno(), select.EPOLLIN)

    def _read(self, connection: Connection, out: Outcome) -> bool:
        """Whether the connection's request is answered by now."""
        try:
            data = connection.sock.recv(READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._reopen(connection, out)
            return False
        if connection.answer:
            data = connection.answer + data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            connection.answer = data
            return False
        fields = data[:head].lower()
        at = fields.find(b"\r\ncontent-length:")
        if at < 0:
            raise SystemExit(f"expected an answer with content-length, found {data[:head]!r}")
        stop = fields.find(b"\r\n", at + 2)
        length = int(fields[at + 17 : stop if stop > 0 else head])
        if len(data) < head + 4 + length:
            connection.answer = data
            return False
        status = int(data[9:12])
        out.status[connection.index] = status
        if len(out.samples) < (8 if status == 200 else 16):
            out.samples[connection.index] = data[head + 4 :]
        return True

    def _reopen(self, connection: Connection, out: Outcome) -> None:
        """The server closed a connection: open another, and ask again once where it had not begun
        to answer, as HTTP clients do."""
        index, began, tried = connection.index, bool(connection.answer), connection.tried
        self._drop(connection)
        fresh = self._connect()
        out.reopened += 1
        if connection in self.idle:
            self.idle.remove(connection)
        if index >= 0 and not began and not tried:
            self._send(fresh, index, out)
            fresh.tried = True
        else:
            self.idle.append(fresh)

    def _drop(self, connection: Connection) -> None:
        del self.open[connection.sock.fileno()]
        connection.sock.close()


def summary(out: Outcome, warm: float = 0.0) -> dict[str, Any]:
    """Figures of the requests that were due after ``warm`` seconds; latencies in milliseconds.

    A request without an answer, or with another than 200, is an error, and slower than all others.
    """
    counted = out.due >= warm
    good = counted & (out.status == 200)
    latency = np.where(good, out.latency, np.inf)[counted] * 1000
    asked, seconds = int(counted.sum()), float(out.due[-1]) - warm
    p50, p99, p999 = (float(np.quantile(latency, q, method="higher")) for q in (0.5, 0.99, 0.999))
    done_at = (out.due + out.latency)[good]
    lag = out.lag[counted & np.isfinite(out.lag)] * 1000
    return {
        "asked_per_s": round(asked / seconds, 1),
        "answered_per_s": round(float(good.sum()) / max(seconds, float(done_at.max()) - warm), 1)
        if good.any() else 0.0,
        "requests": asked, "errors": asked - int(good.sum()),
        "statuses": {str(s): int((out.status[counted] == s).sum())
                     for s in np.unique(out.status[counted]) if s != 200},
        "p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "max_ms": float(latency.max()),
        "lag_p99_ms": float(np.quantile(lag, 0.99)) if len(lag) else None,
        "generator_cpu": round(out.cpu / out.seconds, 3), "reopened": out.reopened,
    }


def finite(value: Any) -> Any:
    """Figures as JSON knows them: null for the latency of an answer that never came."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


# The generator's own ceiling -----------------------------------------------------------------

TRIVIAL = r"""
import asyncio, sys, time
asked = 0
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
class Trivial(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data):
        global asked
        if not data.endswith(b"}"): return
        asked += 1
        if asked == int(sys.argv[2]): time.sleep(float(sys.argv[3]))
        self.transport.write(ANSWER)
async def main():
    server = await asyncio.get_running_loop().create_server(Trivial, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
try:
    import uvloop; uvloop.run(main())
except ImportError:
    asyncio.run(main())
"""


def ceiling(body: bytes, seconds: float = 2.0, bound: float = 10.0) -> dict[str, Any]:
    """The highest rate at which the p99 of latency is within ``bound`` ms where the server does
    nothing. The generator runs on the cores of this process."""
    with trivial() as url:
        generator, best, rate = Generator(address_of(url), [request(url, body)]), None, 4000.0
        misses = 0
        while misses < 2:
            found = summary(generator.fire(arrivals(rate, seconds)), 0.2)
            if found["errors"] == 0 and found["p99_ms"] <= bound:
                best, misses = found, 0
            else:
                misses += 1
            rate *= 1.2
        generator.close()
        return best or {}


@contextmanager
def trivial(at: int = -1, seconds: float = 0.0) -> Iterator[str]:
    """The URL of a server that does nothing, but for a pause at the ``at``-th request."""
    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", TRIVIAL, str(port), str(at), str(seconds)])
    try:
        await_port(port, server)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.kill()
        server.wait()


def stall(pause: float = 0.5, rate: float = 500.0) -> dict[str, Any]:
    """How many requests were over 100 ms late where a server stops once, and how many were due
    more than that before it goes on."""
    with trivial(round(rate), pause) as url:
        generator = Generator(address_of(url), [request(url, b"{}")])
        out = generator.fire(arrivals(rate, 4.0, "fixed"))
        generator.close()
    return {"expected": round((pause - 0.1) * rate), "found": int((out.latency > 0.1).sum()),
            **summary(out)}


def await_port(port: int, process: subprocess.Popen, seconds: float = 120) -> None:
    """Wait until somebody listens; SystemExit where the process ends or nobody does in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nobody listens on port {port} after {seconds:g} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("url", nargs="?")
    parser.add_argument("bodies", nargs="?", type=Path, help="a file with one JSON body a line")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--warm", type=float, default=1.0, help="seconds that do not count")
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--arrivals", choices=["poisson", "fixed"], default="poisson")
    parser.add_argument("--ceiling", action="store_true")
    parser.add_argument("--stall", action="store_true")
    args = parser.parse_args()
    if args.ceiling:
        found = ceiling(b'{"age": 39, "workclass": "State-gov"}')
    elif args.stall:
        found = stall()
    elif args.url is None or args.bodies is None:
        parser.error("expected a URL and a file of bodies")
    else:
        requests = [request(args.url, b) for b in args.bodies.read_bytes().splitlines() if b]
        generator = Generator(address_of(args.url), requests, args.connections)
        found = summary(generator.fire(
            arrivals(args.rate, args.warm + args.seconds, args.arrivals)), args.warm)
    print(json.dumps(finite(found), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
