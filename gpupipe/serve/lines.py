"""Log lines of JSON on stderr, written by a thread: an answer never waits for a terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from functools import lru_cache
from time import gmtime, strftime, time
from typing import Any

import orjson

MOST = 100_000
"""Lines that are kept while they cannot be written; more are dropped, and their number told."""


class Lines:
    """Log lines. Feature values never get here."""

    def __init__(self, every: float = 0.2) -> None:
        self.every = every
        self._kept: deque[Any] = deque()
        self._dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-lines", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tell(self, event: str, **fields: Any) -> None:
        """One line: ``time``, ``event`` and fields."""
        self._keep({"time": time(), "event": event, **fields})

    def request(
        self, request_id: str, method: str, path: str, status: int, taken: float, client: Any
    ) -> None:
        """The line of a request, put together when it is written."""
        self._keep((time(), request_id, method, path, status, taken, client))

    def _keep(self, line: Any) -> None:
        if len(self._kept) < MOST:
            self._kept.append(line)
        else:
            self._dropped += 1

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)
        else:
            self.flush()

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            self.flush()
        self.flush()

    def flush(self) -> None:
        kept = [self._kept.popleft() for _ in range(len(self._kept))]
        dropped, self._dropped = self._dropped, 0
        if dropped:
            kept.append({"time": time(), "event": "log_lines_dropped", "lines": dropped})
        if not kept:
            return
        text = b"".join(map(_line, kept))
        try:
            sys.stderr.buffer.write(text)
            sys.stderr.buffer.flush()
        except (OSError, ValueError):
            pass  # nobody reads
        except AttributeError:  # stderr was replaced by text alone
            sys.stderr.write(text.decode())


def _line(kept: Any) -> bytes:
    """A line's text. That of a request is put together by hand: there are thousands a second."""
    if isinstance(kept, tuple):
        moment, request_id, method, path, status, taken, client = kept
        host = orjson.dumps(client[0] if client else None).decode()
        return (f'{{"time":"{_when(moment)}","event":"request","request_id":"{request_id}",'
                f'"method":"{method}","path":{orjson.dumps(path[:200]).decode()},'
                f'"status":{status},"milliseconds":{taken * 1000:.3f},"client":{host},'
                f'"pid":{os.getpid()}}}\n').encode()
    line = {**kept, "time": _when(kept["time"]), "pid": os.getpid()}
    return orjson.dumps(line, default=str) + b"\n"


def _when(moment: float) -> str:
    whole = int(moment)
    return f"{_second(whole)}.{int((moment - whole) * 1000):03}Z"


@lru_cache(4)
def _second(moment: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(moment))
