"""The ``gpupipe`` command: `verbs` says what there is, `outcome` how each call ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from gpupipe.cli.outcome import call


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    # GNU OpenMP's threads spin about a millisecond at every barrier. Where other work shares the
    # cores that costs XGBoost and scikit-learn several times the time; a short spin costs nothing.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    sys.exit(call(sys.argv[1:] if arguments is None else list(arguments)))
