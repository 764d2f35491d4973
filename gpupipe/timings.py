"""What the stages of a run took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gpupipe.engine.machine import release_memory


@dataclass
class Timings:
    """Seconds by stage, in order."""

    stages: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, rows: int | None = None) -> Iterator[None]:
        started, start = time.time(), time.perf_counter()
        yield
        release_memory()
        self.stages.append(
            {"stage": name, "seconds": round(time.perf_counter() - start, 4), "rows": rows,
             "started": started}
        )
