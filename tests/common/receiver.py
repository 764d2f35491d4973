"""A webhook's receiver: a real HTTP server that answers as it is told and keeps what it got."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """``answers`` are taken one by one (a status, or seconds to hang as a float); then 200."""

    url: str = ""
    answers: list[int | float] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    got: list[dict[str, Any]] = field(default_factory=list)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """The messages that were answered by 200."""
        return [json.loads(g["body"]) for g in self.got if g["answer"] == 200]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port, until the context ends."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            answer = kept.answers.pop(0) if kept.answers else 200
            kept.got.append({"body": body, "headers": dict(self.headers), "answer": answer})
            if isinstance(answer, float):
                time.sleep(answer)
                self.close_connection = True
                return
            self.send_response(answer)
            for name, value in kept.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            kept.got.append({"body": "", "headers": dict(self.headers), "answer": "GET"})
            self.send_error(500)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}/hook?key=hidden"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
