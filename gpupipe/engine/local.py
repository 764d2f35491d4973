"""The local engine: one process, threads over the parts of a dataset.

pandas, PyArrow and NumPy let go of the interpreter lock where the time goes, so threads
share the memory and still use the cores. States are integers and merge in any order, so the
order in which parts finish does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from gpupipe.engine.frames import Frames, PandasFrames
from gpupipe.engine.machine import cores

P = TypeVar("P")
S = TypeVar("S")


class LocalEngine:
    """Maps functions over parts with ``workers`` threads.

    Attributes
    ----------
    fx : the frame layer that functions should use.
    workers : how many parts are worked on at once.
    batch_rows : rows of a batch within a part.
    """

    def __init__(self, workers: int | None = None, batch_rows: int = 131_072) -> None:
        self.fx: Frames = PandasFrames()
        self.workers = workers or cores()
        self.batch_rows = batch_rows

    def map(self, function: Callable[[P], S], parts: Sequence[P]) -> Iterator[tuple[int, S]]:
        """Yield ``(index, function(part))`` as parts finish; at most workers + 1 are in flight."""
        if self.workers == 1 or len(parts) <= 1:
            for i, part in enumerate(parts):
                yield i, function(part)
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
                        running[pool.submit(function, item[1])] = item[0]
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield running.pop(future), future.result()
            finally:
                for future in running:
                    future.cancel()
