"""The ``gpupipe`` command: `verbs` says what there is, `outcome` how each call ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from gpupipe.cli.outcome import call


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    sys.exit(call(sys.argv[1:] if arguments is None else list(arguments)))
