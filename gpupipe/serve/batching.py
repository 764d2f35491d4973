"""Rows of waiting requests scored together.

The event loop reads every socket that has something, and runs the requests that came of it one
after another. Each leaves its rows here and waits; then one call scores the rows of all. So a
batch is what came in while the last one was being scored: of one row where the server is idle, of
many under load, and nobody waits for company. Where a request is alone, even that hop is saved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from gpupipe.serve.faults import busy
from gpupipe.serve.metrics import ROWS, Metrics
from gpupipe.serve.models import Model

Rows = Any
"""Records (a list of mappings), or an Arrow table."""
Predictions = list[dict[str, Any]]


def score(model: Model, rows: Rows) -> Predictions:
    """Predictions of rows that `Checks` let pass."""
    bundle = model.bundle
    if isinstance(rows, pa.Table):
        return bundle.described(*bundle.scored(rows))
    if len(rows) == 1:
        return [bundle.predict_one(rows[0])]
    return bundle.predict_records(rows)


class Batcher:
    """Scores, together where requests wait, at once where one is alone.

    Parameters
    ----------
    queue : how many requests may wait; above it `score` raises Refused (503).
    batch_rows : rows of one call; a request with more is scored in a thread of its own, so that
        small ones are answered meanwhile.
    alone : whether no other request is under way.
    """

    def __init__(
        self, queue: int, batch_rows: int, metrics: Metrics,
        alone: Callable[[], bool] = lambda: False,
    ) -> None:
        self.queue, self.batch_rows, self.alone = queue, batch_rows, alone
        self.sizes = metrics.histogram("gpupipe_batch_rows", ROWS)
        self._waiting: list[tuple[Model, Rows, asyncio.Future[Predictions]]] = []
        self._large = 0
        self._thread = ThreadPoolExecutor(1, "score")

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._waiting) + self._large

    async def score(self, model: Model, rows: Rows) -> Predictions:
        """The predictions of a request's rows. Raises Refused (503) where too many wait."""
        n = len(rows)
        if self.depth >= self.queue:
            raise busy("queue_full", f"{self.depth:,} requests wait already")
        if n > self.batch_rows or isinstance(rows, pa.Table):
            return await self._in_thread(model, rows)
        if not self._waiting and self.alone():
            self.sizes.observe(n)
            return score(model, rows)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Predictions] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._flush)
        self._waiting.append((model, rows, future))
        return await future

    async def _in_thread(self, model: Model, rows: Rows) -> Predictions:
        self._large += 1
        try:
            self.sizes.observe(len(rows))
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, score, model, rows)
        finally:
            self._large -= 1

    def _flush(self) -> None:
        """Score a batch of what waits; the rest in the loop's next round."""
        waiting = self._waiting
        model, taken, rows = waiting[0][0], 0, 0
        while taken < len(waiting) and waiting[taken][0] is model and (
                taken == 0 or rows + len(waiting[taken][1]) <= self.batch_rows):
            rows += len(waiting[taken][1])
            taken += 1
        batch, self._waiting = waiting[:taken], waiting[taken:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        self.sizes.observe(rows)
        together = [r for _, own, _ in batch for r in own]
        try:
            found = score(model, together)
        except Exception:
            for _, own, future in batch:  # one row must not fail the requests beside it
                self._alone(model, own, future)
            return
        at = 0
        for _, own, future in batch:
            if not future.done():
                future.set_result(found[at : at + len(own)])
            at += len(own)

    @staticmethod
    def _alone(model: Model, rows: Rows, future: asyncio.Future[Predictions]) -> None:
        if future.done():
            return
        try:
            future.set_result(score(model, rows))
        except Exception as error:
            future.set_exception(error)

    def close(self) -> None:
        self._thread.shutdown(wait=True)
