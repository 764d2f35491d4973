"""The ``gpupipe`` command: `verbs` says what there is, `outcome` how each call ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from gpupipe.cli.outcome import call
from gpupipe.engine import machine


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    # Arrow then allocates where NumPy does, and what one frees the other can use: its own pool
    # keeps freed pages to itself, which costs a tenth of a run's peak memory.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    machine.own_process = True
    # Ended from outside, it leaves as after an error: what it began is put away first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(call(sys.argv[1:] if arguments is None else list(arguments)))
