"""XGBoost's own communication between processes that train one model together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlparse

CONNECT_SECONDS = 60
"""A process that does not join for so long is thought to be lost."""


@contextmanager
def ring(size: int, scheduler: str) -> Iterator[dict[str, Any]]:
    """What ``size`` processes need to find each other; they meet at a tracker in this one.

    ``scheduler`` is an address that this machine and all of theirs can reach.
    """
    from distributed.utils import get_ip
    from xgboost.core import XGBoostError
    from xgboost.tracker import RabitTracker

    host = urlparse(scheduler).hostname or "127.0.0.1"
    own = host if host.startswith("127.") else get_ip(host)
    tracker = RabitTracker(n_workers=size, host_ip=own, sortby="task", timeout=CONNECT_SECONDS)
    tracker.start()
    try:
        yield {**tracker.worker_args(), "dmlc_timeout": CONNECT_SECONDS, "dmlc_retry": 3}
    finally:
        with suppress(XGBoostError):  # of a ring that was broken
            tracker.free()


@contextmanager
def joined(ring: dict[str, Any], rank: int) -> Iterator[None]:
    """Inside, this process is number ``rank`` of the ring."""
    import xgboost
    from xgboost.collective import CommunicatorContext

    # It would tell of each rank on the terminal.
    with (xgboost.config_context(verbosity=0),
          CommunicatorContext(**ring, dmlc_task_id=f"{rank:08}")):
        yield
