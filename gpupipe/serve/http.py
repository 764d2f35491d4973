"""uvicorn with what a server on a network needs besides: limits on heads and connections, and an
end that loses nothing."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gpupipe.config.units import microseconds_of
from gpupipe.errors import ConfigError
from gpupipe.serve.app import App
from gpupipe.serve.exchange import LINGER, WHOLE
from gpupipe.serve.faults import Refused
from gpupipe.serve.settings import ServeConfig, seconds

HEAD_BYTES = 64 << 10
"""The most bytes of a request's line and headers."""
HEADERS = 200
"""The most headers of a request, those after a chunked body included."""
FIRST_REQUEST = 0.5
"""Seconds for which the end waits for the request of a connection that was just accepted."""
LOOK = 0.5
"""Seconds between looks at connections that send no request."""


class Whole:
    """A request and its answer as a whole, for an application that knows of it: with messages one
    by one, an answer is two writes and a body that is there already has to be waited for.

    `App` finds it among the scope's extensions.
    """

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    def body(self) -> bytes | None:
        """The body where all of it is there, else None."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue:
            return None
        return bytes(cycle.body)

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write status, headers and body at once; False where it has to be done by messages."""
        cycle = self._cycle
        if cycle.flow.write_paused or cycle.disconnected or cycle.response_started:
            return False
        parts = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            if name == b"connection":  # it only ever says close
                cycle.keep_alive = False
                continue
            parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"content-length: %d\r\n\r\n" % len(body), body)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(b"".join(parts))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True


class Protocol(HttpToolsProtocol):  # type: ignore[misc]
    """A connection whose request has to arrive in time, and with a head of sane size.

    uvicorn waits for a head for as long as it takes, and keeps whatever comes.
    """

    guard: Guard

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.waits_since: float | None = self.loop.time()
        self.stuck_since: float | None = None
        self.head, self.refused = 0, False
        if len(self.connections) > self.guard.most:
            self.guard.refuse(self, Refused(503, "queue_full", "too many connections are open",
                                            headers=((b"retry-after", b"1"),)))

    def data_received(self, data: bytes) -> None:
        if self.refused or self.transport.is_closing():
            return
        super().data_received(data)
        if self.waits_since is not None:
            self.head += len(data)
            if self.head > HEAD_BYTES:
                self.guard.refuse(self, Refused(431, "bad_request", "the head is too large"))

    def on_message_begin(self) -> None:
        if self.waits_since is None:
            self.waits_since, self.head = self.loop.time(), 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > HEADERS:
            raise ValueError("too many headers")  # the parser gives up, and 400 is answered

    def on_headers_complete(self) -> None:
        self.waits_since = None
        super().on_headers_complete()

    def shutdown(self) -> None:
        if self.cycle is None and not self.refused:  # it was accepted: its request is on the way
            self.loop.call_later(FIRST_REQUEST, super().shutdown)
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        self.stuck_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self.stuck_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self.guard.refuse(self, Refused(400, "bad_request", "this is no HTTP request"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.scope["extensions"] = {WHOLE: Whole(cycle)}  # type: ignore[dict-item]
        super()._start_asgi_task(cycle, app)


class Guard:
    """Looks after the connections of a server."""

    def __init__(self, settings: ServeConfig, app: App) -> None:
        self.most, self.app = settings.limits.connections, app
        self.patience = seconds(settings.limits.header_timeout)
        self.read_patience = seconds(settings.limits.body_timeout)

    def refuse(self, connection: Protocol, refused: Refused) -> None:
        """Answer without a request, read nothing any more, and close a little later: closed with
        bytes unread, the connection would be reset and the answer lost."""
        if connection.transport.is_closing() or connection.refused:
            return
        connection.refused, connection.waits_since = True, None
        self.app.metrics.add("gpupipe_rejections_total", reason=refused.code)
        body = refused.body("")
        head = b"HTTP/1.1 %d \r\ncontent-type: application/json\r\ncontent-length: %d\r\n" \
            b"connection: close\r\n" % (refused.status, len(body))
        head += b"".join(b"%s: %s\r\n" % pair for pair in refused.headers)
        connection.transport.write(head + b"\r\n" + body)
        if connection.cycle is not None and not connection.cycle.response_complete:
            connection.cycle.disconnected = True  # a request whose end is malformed
            connection.cycle.message_event.set()
        if connection.transport.can_write_eof():
            connection.transport.write_eof()
        connection.loop.call_later(LINGER, connection.transport.close)

    def look(self, connections: set[Any], now: float) -> None:
        """End the connections that have sent half a head, or nothing, for too long; and those
        that do not read what they are answered."""
        for connection in list(connections):
            stuck = getattr(connection, "stuck_since", None)
            if stuck is not None and now - stuck > self.read_patience:
                self.app.metrics.add("gpupipe_rejections_total", reason="timeout")
                connection.transport.abort()
                continue
            since = getattr(connection, "waits_since", None)
            if since is not None and now - since > self.patience:
                self.refuse(connection, Refused(408, "timeout", "the head did not arrive in time"))


class Server(uvicorn.Server):
    """Serves an `App`.

    SIGTERM or SIGINT: ready fails and every answer closes its connection, while requests are
    still taken; after ``drain`` seconds no connection is accepted any more, what was accepted is
    answered, and the log is written. A second signal ends it at once. SIGHUP: ``reload``.
    """

    def __init__(
        self, settings: ServeConfig, app: App, background: Callable[[], Any] | None = None,
    ) -> None:
        guard = Guard(settings, app)
        protocol = type("Protocol", (Protocol,), {"guard": guard})
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        try:
            config = uvicorn.Config(
                app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False,
                proxy_headers=False, server_header=False, interface="asgi3",
                timeout_keep_alive=max(1, microseconds_of(settings.limits.keep_alive) // 10**6),
                timeout_graceful_shutdown=max(1, round(seconds(settings.shutdown))),
                ssl_certfile=settings.tls_cert, ssl_keyfile=settings.tls_key,
            )
            config.load()
        except OSError as error:
            raise ConfigError(f"the certificate or its key cannot be used: {error}",
                              where=settings.tls_cert,
                              hint="tls_cert and tls_key are files in PEM") from None
        super().__init__(config)
        self.settings, self.app, self.guard = settings, app, guard
        self.drain = seconds(settings.drain)
        self.background = background
        app.connections = lambda: len(self.server_state.connections)
        app.batcher.alone = lambda: len(self.server_state.tasks) <= 1

    def serve_on(self, sock: socket.socket, started: Callable[[], None]) -> None:
        """Serve until a signal ends it; ``started`` is called once it answers."""
        self.on_start = started
        self.run(sockets=[sock])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_start()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        own = asyncio.create_task(self.background()) if self.background else None
        try:
            await super().serve(sockets)
        finally:
            if own is not None:
                own.cancel()

    async def on_tick(self, counter: int) -> bool:
        if counter % max(1, int(LOOK * 10)) == 0:
            self.guard.look(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.sleep(0)  # what the kernel has accepted by now is read once more
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.app.draining:
            self.should_exit = True
            if sig == signal.SIGINT:
                self.force_exit = True
            return
        self.app.draining = True
        self.loop.call_soon_threadsafe(
            lambda: self.loop.call_later(self.drain, self._stop))

    def _stop(self) -> None:
        self.should_exit = True
