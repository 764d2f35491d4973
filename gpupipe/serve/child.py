"""``python -m gpupipe.serve.child``: a process of a server, started by its parent."""

from __future__ import annotations

import json
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from gpupipe.errors import GpupipeError
from gpupipe.serve.lines import Lines
from gpupipe.serve.metrics import Metrics
from gpupipe.serve.process import Worker, open_log
from gpupipe.serve.settings import ServeConfig
from gpupipe.serve.shadow import Shadow


def main(told: dict[str, Any]) -> int:
    """Run the process that is described; its exit code."""
    settings = ServeConfig.model_validate(told["settings"])
    folder = Path(told["folder"])
    shadow = socket.socket(fileno=told["shadow"]) if "shadow" in told else None
    if told["kind"] == "worker":
        return Worker(settings, folder, shadow).run(socket.socket(fileno=told["sock"]))
    assert shadow is not None
    metrics, lines = Metrics(folder), Lines()
    log = open_log(settings, metrics, lines)
    process = Shadow(settings, shadow, metrics, lines, log)
    lines.start()
    if log is not None:
        log.start()
    try:
        process.run()
    finally:
        if log is not None:
            log.close()
        lines.close()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the server has its own
    try:
        sys.exit(main(json.loads(sys.argv[1])))
    except GpupipeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
