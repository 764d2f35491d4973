"""The local engine: one process, threads over the parts of a dataset.

pandas, PyArrow and NumPy let go of the interpreter lock where the time goes, so threads
share the memory and still use the cores. States are integers and merge in any order, so the
order in which parts finish does not matter.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import reduce
from typing import Any, TypeVar

from gpupipe.engine.frames import Frames
from gpupipe.engine.machine import cores
from gpupipe.engine.memory import Memory, default_limit
from gpupipe.engine.pandas import PandasFrames
from gpupipe.errors import EnvironmentFault

P = TypeVar("P")
S = TypeVar("S")

BATCH_ROWS = 131_072
"""Rows of a batch where nothing is said: its columns fit into a processor's cache."""
LEAST_BATCH = 4_096
"""Batches are not made smaller than this where a device is full."""


class LocalEngine:
    """Maps functions over parts with ``workers`` threads.

    Attributes
    ----------
    fx : the frame layer that functions should use.
    workers : how many parts are worked on at once.
    batch_rows : rows of a batch within a part.
    memory : what may be taken.
    """

    processes = 1
    remote = False

    def __init__(
        self, workers: int | None = None, batch_rows: int | None = None,
        memory: Memory | None = None, fx: Frames | None = None,
    ) -> None:
        self.fx: Frames = fx or PandasFrames()
        self.workers = workers or cores()
        self.batch_rows = batch_rows or BATCH_ROWS
        self.memory = memory or Memory(default_limit(), self.workers, self.batch_rows)
        self.reliefs: list[Callable[[], bool]] = []
        self._room = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalEngine, (self.workers, self.batch_rows, self.memory, self.fx)

    @property
    def here(self) -> LocalEngine:
        """Itself: all work is in this process."""
        return self

    there = here

    def pin(self, value: Any) -> None:
        """Nothing is sent anywhere."""

    def warm(self, function: Callable[[], Any]) -> None:
        """There is no other process."""

    def performance(self, stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """There is no other process."""
        return []

    def everywhere(self, function: Callable[[], Any]) -> None:
        """Call ``function``: there is this process alone."""
        function()

    def attempt(self, function: Callable[[P], S], part: P) -> S:
        """``function(part)``; where the device is full, once more with room made for it.

        First what is kept there is let go (``reliefs`` do that, and say whether there was any),
        then batches are made smaller, and then it is an EnvironmentFault. What was done of the
        part so far is dropped: states do not depend on where batches end.
        """
        while True:
            rows = self.batch_rows
            try:
                return function(part)
            except self.fx.out_of_memory as error:
                with self._room:  # one thread makes room, the others try again with what it made
                    if rows != self.batch_rows:
                        continue
                    freed = [relief() for relief in self.reliefs]
                    if any(freed):
                        continue
                    if rows <= LEAST_BATCH:
                        raise EnvironmentFault(
                            f"the device's memory does not hold a batch of {rows:,} rows",
                            hint="free the device for this work (`nvidia-smi` shows who uses it), "
                            "drop columns, or set engine.device to cpu",
                        ) from error
                    self.batch_rows = max(LEAST_BATCH, rows // 2)

    def fold(
        self, function: Callable[[P], S], merge: Callable[[S, S], S], parts: Sequence[P],
        done: Callable[[P], None] = lambda part: None,
    ) -> S | None:
        """The merge of ``function(part)`` over all parts; None where there is no part.

        Each worker merges what it made itself, so that merging, too, is done side by side; the
        workers' own results are merged last. ``done`` is told of each part.
        """
        waiting, lock = iter(parts), threading.Lock()

        def work() -> S | None:
            total: S | None = None
            while True:
                with lock:
                    part = next(waiting, _END)
                if isinstance(part, _End):
                    return total
                made = self.attempt(function, part)
                total = made if total is None else merge(total, made)
                done(part)

        with ThreadPoolExecutor(self.workers) as pool:
            futures = [pool.submit(work) for _ in range(min(self.workers, len(parts)))]
            try:
                totals = [t for t in (f.result() for f in futures) if t is not None]
            except BaseException:
                with lock:
                    waiting = iter(())  # the other workers stop after the part they are at
                raise
        return reduce(merge, totals) if totals else None

    def ordered(self, function: Callable[[P], S], parts: Iterable[P]) -> Iterator[S]:
        """Yield ``function(part)`` in the order of the parts; the next ones are made meanwhile."""
        ahead: deque[Future[S]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for part in parts:
                    ahead.append(pool.submit(self.attempt, function, part))
                    if len(ahead) > self.workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def map(self, function: Callable[[P], S], parts: Sequence[P]) -> Iterator[tuple[int, S]]:
        """Yield ``(index, function(part))`` as parts finish; at most workers + 1 are in flight."""
        if self.workers == 1 or len(parts) <= 1:
            for i, part in enumerate(parts):
                yield i, self.attempt(function, part)
            return
        waiting = iter(enumerate(parts))
        running: dict[Future[S], int] = {}
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                while True:
                    while len(running) <= self.workers:
                        item = next(waiting, None)
                        if item is None:
                            break
                        running[pool.submit(self.attempt, function, item[1])] = item[0]
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield running.pop(future), future.result()
            finally:
                for future in running:
                    future.cancel()


class _End:
    """No part is left."""


_END = _End()
