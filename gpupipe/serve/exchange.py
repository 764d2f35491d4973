"""What goes over the connection: bodies received within their limits, answers, media types."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from gpupipe.serve import decode
from gpupipe.serve.faults import Refused, busy

Message = MutableMapping[str, Any]
Scope = Message
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

JSON = (b"content-type", b"application/json")
ARROW = (b"content-type", decode.ARROW.encode())
CLOSE = (b"connection", b"close")
WHOLE = "gpupipe.whole"
"""The scope's extension that has a request's body, and takes its answer, as a whole."""
LINGER = 1.0
"""Seconds for which the rest of a refused body is read, so that the answer arrives."""


class Gone(Exception):  # noqa: N818 - nobody is to blame
    """The client has left."""


class Bodies:
    """Receives bodies within limits of bytes and time.

    Parameters
    ----------
    most : bytes of one body; above it 413.
    most_together : bytes of all that are being received or answered; above it 503.
    patience : seconds that one may take; after it 408.
    """

    def __init__(self, most: int, most_together: int, patience: float) -> None:
        self.most, self.most_together, self.patience = most, most_together, patience
        self.held = 0

    async def read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """One body. Raises Refused, or Gone where the client leaves."""
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self.most:
            raise self._too_large(int(length), more=True)
        until = time.monotonic() + self.patience
        chunks: list[bytes] = []
        size, more = 0, True
        try:
            while more:
                message = await self._message(receive, until)
                chunks.append(message.get("body", b""))
                more = message.get("more_body", False)
                size += len(chunks[-1])
                self.held += len(chunks[-1])
                if size > self.most:
                    raise self._too_large(size, more)
                if self.held > self.most_together:
                    raise self._too_many(more)
            return b"".join(chunks)
        finally:
            self.held -= size

    @contextmanager
    def held_while(self, size: int) -> Iterator[None]:
        """Count a body that was read while it is answered: what is made of it is larger still."""
        if self.held + size > self.most_together and self.held:
            raise self._too_many(False)
        self.held += size
        try:
            yield
        finally:
            self.held -= size

    def _too_many(self, more: bool) -> Refused:
        refused = busy("too_many_bytes", "too many bodies are being received or answered")
        refused.close = more
        return refused

    async def _message(self, receive: Receive, until: float) -> Message:
        try:
            async with asyncio.timeout(until - time.monotonic()):
                message = await receive()
        except TimeoutError:
            raise Refused(408, "timeout", "the body did not arrive in time", close=True) from None
        if message["type"] == "http.disconnect":
            raise Gone
        return message

    def _too_large(self, size: int, more: bool) -> Refused:
        return Refused(413, "body_too_large", f"a body of {size:,} bytes or more, and "
                       f"{self.most:,} are taken", close=more,
                       hint="send fewer rows a request, or score a file by `gpupipe predict`")


async def read_on(receive: Receive) -> None:
    """Read the rest of a refused body for a moment: closed with bytes unread, the connection
    would be reset and the answer lost."""
    try:
        async with asyncio.timeout(LINGER):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
    except TimeoutError:
        return


async def respond(
    send: Send, status: int, headers: Headers, body: bytes, more: bool = False
) -> None:
    """Send an answer; ``more`` leaves its end open."""
    await send({"type": "http.response.start", "status": status, "headers": [
        *headers, (b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body, "more_body": more})


def accepts_arrow(accept: bytes) -> bool:
    """Whether the client wants Arrow; JSON where it says nothing. Refused (406) for neither."""
    if not accept or accept == b"*/*" or accept == b"application/json":
        return False
    wanted = [part.partition(b";")[0].strip().lower() for part in accept.split(b",")]
    if decode.ARROW.encode() in wanted:
        return True
    if not {b"application/json", b"*/*", b"application/*"} & set(wanted):
        raise Refused(406, "not_acceptable", f"answers are application/json or {decode.ARROW}")
    return False


def is_arrow(headers: dict[bytes, bytes]) -> bool:
    """Whether the body is Arrow; JSON where nothing is said. Refused (415) for neither."""
    if b"content-encoding" in headers and \
            headers[b"content-encoding"].strip().lower() != b"identity":
        raise Refused(415, "unsupported_media_type", "compressed bodies are not taken")
    if headers.get(b"content-type") == b"application/json":
        return False
    kind = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if kind == b"application/json":
        return False
    if kind == decode.ARROW.encode():
        return True
    raise Refused(415, "unsupported_media_type",
                  f"bodies are application/json or {decode.ARROW}")
