"""Log lines of JSON on stderr, written by a thread: an answer never waits for a terminal."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from time import time
from typing import Any

import orjson

MOST = 100_000
"""Lines that are kept while they cannot be written; more are dropped, and their number told."""


class Lines:
    """Log lines. Feature values never get here."""

    def __init__(self, every: float = 0.2) -> None:
        self.every = every
        self._kept: deque[dict[str, Any]] = deque()
        self._dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-lines", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def tell(self, event: str, **fields: Any) -> None:
        """One line: ``time``, ``event`` and fields."""
        self.add({"time": time(), "event": event, **fields})

    def add(self, line: dict[str, Any]) -> None:
        """A line that has its ``time`` (seconds) and ``event`` already."""
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
        for line in kept:
            moment = datetime.fromtimestamp(line["time"], UTC)
            line["time"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line["pid"] = os.getpid()
        text = b"".join(orjson.dumps(line, default=str) + b"\n" for line in kept)
        try:
            sys.stderr.buffer.write(text)
            sys.stderr.buffer.flush()
        except (OSError, ValueError):
            pass  # nobody reads
        except AttributeError:  # stderr was replaced by text alone
            sys.stderr.write(text.decode())
