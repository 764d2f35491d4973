"""Clients that ask again and again, and keep account of every request that they sent."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Account:
    """What became of the requests."""

    statuses: Counter = field(default_factory=Counter)
    versions: Counter = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    mixed: list[Any] = field(default_factory=list)
    turned_away: int = 0


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (h.partition(":") for h in head[1:] if h)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(head[0].split()[1]), headers, body


def request_of(record: dict, key: str = "") -> bytes:
    body = json.dumps({"records": [record] * 3}).encode()
    return (f"POST /predict HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\n"
            f"x-api-key: {key}\r\ncontent-length: {len(body)}\r\n\r\n").encode() + body


class Load:
    """``clients`` connections in a thread of their own, until `stop`; a context."""

    def __init__(self, port: int, record: dict, clients: int = 8, key: str = "") -> None:
        self.port, self.request, self.clients = port, request_of(record, key), clients
        self.account = Account()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> Account:
        self._stop.set()
        self._thread.join(60)
        return self.account

    async def _all(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self.clients)))

    async def _client(self) -> None:
        account = self.account
        while not self._stop.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:  # the server has ended: nothing was sent
                account.turned_away += 1
                await asyncio.sleep(0.05)
                continue
            try:
                await self._ask(reader, writer)
            finally:
                writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        account, first = self.account, True
        while not self._stop.is_set():
            try:
                writer.write(self.request)
                await writer.drain()
                status, headers, body = await answer_of(reader)
            except (OSError, asyncio.IncompleteReadError) as error:
                # On a fresh connection that the server never took, nothing was accepted.
                if first and isinstance(error, ConnectionResetError):
                    account.turned_away += 1
                else:
                    account.lost.append(repr(error))
                return
            first = False
            account.statuses[status] += 1
            if status == 200:
                found = json.loads(body)
                account.versions[found["version"]] += 1
                if found["version"] != headers["x-model-version"] or len(
                        {p["probability"] for p in found["predictions"]}) != 1:
                    account.mixed.append(found)
            if headers.get("connection") == "close":
                return
