"""A server in a process of its own, as ``gpupipe serve`` starts it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]


class Running:
    """``gpupipe serve`` with a free port; its lines of log are in ``errors``."""

    def __init__(
        self, arguments: list[str], folder: Path, wait: bool = True,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.headers = headers or {}
        self.errors = folder / f"server-{time.monotonic_ns()}.log"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gpupipe.cli", "serve", "--port", "0", *arguments],
                stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        if wait:
            self.url = self.line("serving")["url"]

    def lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self.errors.read_text().splitlines():
            if line.startswith("{"):
                found.append(json.loads(line))
        return found

    def line(self, event: str, seconds: float = 30) -> dict[str, Any]:
        """The first line of an event, once it is there."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in self.lines():
                if line["event"] == event:
                    return line
            if self.process.poll() is not None and event != "ended":
                break
            time.sleep(0.02)
        raise AssertionError(f"no {event!r} in: {self.errors.read_text()}")

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, headers=self.headers)

    def post(self, path: str, **more: Any) -> httpx.Response:
        more["headers"] = {**self.headers, **more.get("headers", {})}
        return httpx.post(self.url + path, timeout=30, **more)

    def predict(self, *records: dict, **more: Any) -> httpx.Response:
        return self.post("/predict", json={"records": list(records)}, **more)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """The exit code, after SIGTERM."""
        if self.process.poll() is None:
            self.signal()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
