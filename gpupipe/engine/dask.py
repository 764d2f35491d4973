"""The Dask engine: the same functions over the same parts, as tasks of a cluster's workers.

A task takes several parts, one after the other, and merges what it makes as it goes; what the
tasks made is merged in a tree. Every part has a worker that it goes to if it can, for that one
has its columns; where a worker was lost, its parts go to the others. Merging is exact in any
order and tasks are pure, so it does not matter how often, where and when one ran.
"""

from __future__ import annotations

import copy
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from gpupipe.engine import machine
from gpupipe.engine.attach import Sender, forget, unpack
from gpupipe.engine.cluster import ALLOWED_FAILURES, Cluster
from gpupipe.engine.frames import Frames
from gpupipe.engine.local import LocalEngine
from gpupipe.engine.memory import Memory
from gpupipe.engine.performance import by_stage
from gpupipe.errors import EnvironmentFault

P = TypeVar("P")
S = TypeVar("S")

FAN_IN = 8
"""So many states are merged by one task of the tree."""
PARTS_A_TASK = 64
"""Parts that one task takes, at most: what is lost with a worker is done again. Of many small
tasks all results would lie in memory until they are merged."""
GRACE_SECONDS = 10.0
"""After a worker was lost in the middle of common work, the others may take so long to notice."""
RETURN_SECONDS = 60.0
"""A lost worker is waited for so long: its cluster starts another one in its place."""


class WorkerLost(Exception):  # noqa: N818 - an event, and whoever catches it begins again
    """A worker left while all of them worked together."""


class DaskEngine:
    """Maps functions over parts with the workers of a Dask cluster.

    Parameters
    ----------
    cluster : a cluster that is there.
    batch_rows : rows of a batch within a part.
    memory : what one worker may take.
    fx : the frame layer of the workers.
    """

    remote = True

    def __init__(self, cluster: Cluster, batch_rows: int, memory: Memory, fx: Frames) -> None:
        self.cluster, self.client = cluster, cluster.client
        self.fx, self.batch_rows, self.memory = fx, batch_rows, memory
        self.workers = memory.workers
        self.processes = max(1, len(self._addresses()))
        self.here = LocalEngine(machine.cores(), batch_rows, memory)
        self.there = LocalEngine(memory.workers, batch_rows, memory, fx)
        self.client.get_task_stream(count=1)  # from now on Dask keeps it
        self._sender = Sender()
        self._pins: dict[str, Any] = {}
        self.reliefs = self.there.reliefs
        self.pin(self.there)

    def pin(self, value: Any) -> None:
        """Send ``value`` once; functions that hold it hold a reference to it."""
        token = f"pin-{secrets.token_hex(8)}"
        packed, met = self._sender.pack(value)
        assert not met, "what is pinned holds nothing that is pinned"
        self._sender.pin(token, value)
        # A task with the bytes as its argument: if all who have them are lost, it runs again.
        self._pins[token] = self.client.submit(_same, packed, key=token)

    def fold(
        self, function: Callable[[P], S], merge: Callable[[S, S], S], parts: Sequence[P],
        done: Callable[[P], None] = lambda part: None,
    ) -> S | None:
        """The merge of ``function(part)`` over all parts; None where there is no part."""
        from dask.distributed import as_completed

        sent = self._sent(function)
        tasks = {}
        for address, mine in self._shares(parts):
            future = self.client.submit(_fold, *sent, merge, mine, **_to(address))
            tasks[future] = mine
        states = list(tasks)
        while len(states) > 1:
            states = [self.client.submit(_merged, merge, states[i : i + FAN_IN], pure=False)
                      for i in range(0, len(states), FAN_IN)]
        for future in as_completed(list(tasks)):
            for part in tasks.pop(future, ()) if future.status == "finished" else ():
                done(part)
        return _result(states[0]) if states else None

    def ordered(self, function: Callable[[P], S], parts: Iterable[P]) -> Iterator[S]:
        """Yield ``function(part)`` in the order of the parts; the next ones are made meanwhile."""
        sent, ahead = self._sent(function), deque[Any]()
        addresses = self._addresses()
        try:
            for at, part in enumerate(parts):
                to = _to(addresses[at % len(addresses)])
                ahead.append(self.client.submit(_call, *sent, part, **to))
                if len(ahead) > 2 * self.workers * len(addresses):
                    yield _result(ahead.popleft())
            while ahead:
                yield _result(ahead.popleft())
        finally:
            for future in ahead:
                future.cancel()

    def map(self, function: Callable[[P], S], parts: Sequence[P]) -> Iterator[tuple[int, S]]:
        """Yield ``(index, function(part))``, in the order of the parts."""
        yield from enumerate(self.ordered(function, parts))

    def jobs(self, function: Callable[[P], S], items: Sequence[P], at_once: int) -> list[S]:
        """``function(item)`` for long work: at most ``at_once`` of them in one worker."""
        from dask.distributed import as_completed

        sent, waiting = self._sent(function), deque(enumerate(items))
        free = deque(self._addresses() * at_once)
        running: dict[Any, tuple[int, str]] = {}
        found: dict[int, S] = {}
        completed = as_completed([])
        while waiting or running:
            while waiting and free:
                (at, item), address = waiting.popleft(), free.popleft()
                future = self.client.submit(_call, *sent, item, **_to(address))
                running[future] = at, address
                completed.add(future)
            future = next(completed)
            at, address = running.pop(future)
            found[at] = _result(future)
            free.append(address)
        return [found[at] for at in range(len(items))]

    def warm(self, function: Callable[[], Any]) -> None:
        """Call ``function`` in every worker, and do not wait: what it loads is needed later."""
        self.client.run(_begin, function, self.cluster.own, on_error="ignore")

    def everywhere(self, function: Callable[[], Any]) -> None:
        """Call ``function`` once in every worker. One that is lost meanwhile does not matter."""
        token, packed, *pinned = self._sent(function, attempted=False)
        values = [p.result() for p in pinned[0].values()]
        self.client.run(_here, token, packed.result(), dict(zip(pinned[0], values, strict=True)),
                        on_error="ignore")

    def together(self, function: Callable[[int], S], size: int) -> list[S]:
        """``function(rank)`` in ``size`` workers at once, which may talk to each other meanwhile.

        Raises
        ------
        WorkerLost : where one left, or failed because another one left; all are free again.
        """
        sent, addresses = self._sent(function), self._addresses()[:size]
        if len(addresses) < size:
            raise WorkerLost(f"{size - len(addresses)} of {size}")
        tasks = {
            rank: self.client.submit(_call, *sent, rank, workers=[address], pure=False,
                                     allow_other_workers=False, priority=10)
            for rank, address in enumerate(addresses)
        }
        while True:
            states = {future.status for future in tasks.values()}
            if states == {"finished"}:
                return [tasks[rank].result() for rank in range(len(addresses))]
            gone = set(addresses) - set(self._addresses(wait=False))
            if gone or states & {"error", "lost", "cancelled"}:
                failed = [f for f in tasks.values() if f.status == "error"]
                if not gone and failed:
                    time.sleep(1.0)  # whether a worker is gone is known a moment later
                    gone = set(addresses) - set(self._addresses(wait=False))
                error = failed[0].exception() if failed else None
                self._release(list(tasks.values()))
                if error is not None and not gone:
                    raise error  # it failed by itself
                raise WorkerLost(", ".join(sorted(gone)) or "a worker")
            time.sleep(0.05)

    def _release(self, futures: list[Any]) -> None:
        """End tasks that wait for a worker that is gone, with their workers if need be."""
        for future in futures:
            future.cancel(force=True)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            running = self.client.run(_running, on_error="ignore")
            busy = [a for a, n in running.items() if isinstance(n, int) and n]
            if not busy:
                break
            time.sleep(0.2)
        else:
            with suppress(Exception):
                self.client.restart_workers(busy, timeout=RETURN_SECONDS)
        with suppress(Exception):  # with fewer workers it goes on all the same
            self.client.wait_for_workers(self.processes, timeout=RETURN_SECONDS)

    def performance(self, stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What the workers did in each stage (see `performance.by_stage`)."""
        tasks = self.client.get_task_stream(start=min((s["started"] for s in stages), default=0.0))
        return by_stage(stages, tasks, self.there_are(), self.workers)

    def there_are(self) -> int:
        """How many workers there are at this moment; one at least, or it is waited for."""
        return len(self._addresses())

    def close(self) -> None:
        """Let go of all that the workers hold, and of the cluster if it is the engine's own."""
        if not self.cluster.own:
            with suppress(Exception):
                self.client.run(forget, list(self._pins), on_error="ignore")
        self._pins.clear()
        self.cluster.close()

    def _addresses(self, wait: bool = True) -> list[str]:
        """The workers that are there, in one order."""
        found = sorted(self.client.scheduler_info(n_workers=-1)["workers"])
        if not found and wait:
            try:
                self.client.wait_for_workers(1, timeout=RETURN_SECONDS)
            except TimeoutError:
                raise EnvironmentFault(
                    f"the Dask cluster at {self.cluster.address} has no workers",
                    hint="start some: `dask worker ADDRESS`",
                ) from None
            return self._addresses(wait=False)
        return found

    def _shares(self, parts: Sequence[P]) -> list[tuple[str, list[P]]]:
        """The parts by the worker that they go to, a few at a time."""
        addresses = self._addresses()
        tasks = []
        for at, address in enumerate(addresses):
            mine = [p for i, p in enumerate(parts) if _place(p, i) % len(addresses) == at]
            count = max(self.workers, -(-len(mine) // PARTS_A_TASK))
            tasks += [(address, mine[i::count]) for i in range(count) if mine[i::count]]
        return tasks

    def _sent(
        self, function: Callable[..., Any], attempted: bool = True
    ) -> tuple[str, Any, dict[str, Any]]:
        """A function as the arguments of a task: token, packed, and what it refers to.

        The worker's own engine makes room where its device is full (`LocalEngine.attempt`).
        """
        if attempted:
            function = partial(self.there.attempt, function)
        packed, met = self._sender.pack(function)
        token = f"function-{secrets.token_hex(8)}"
        return token, self.client.submit(_same, packed, key=token), {t: self._pins[t] for t in met}


def _result(future: Any) -> Any:
    """A task's result. EnvironmentFault where worker after worker died at it."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise EnvironmentFault(
            f"workers died {ALLOWED_FAILURES} times at the same task ({error.task})",
            hint="they may lack memory: give them more (engine.memory), or make batches smaller "
            "(engine.batch_rows)",
        ) from None


def _to(address: str) -> dict[str, Any]:
    return {"workers": [address], "allow_other_workers": True, "pure": False}


def _place(part: Any, index: int) -> int:
    return part if isinstance(part, int) else index


def _same(value: bytes) -> bytes:
    return value


_BUSY: list[int] = []


def _call(token: str, packed: bytes, pinned: dict[str, bytes], part: Any) -> Any:
    _BUSY.append(1)
    try:
        return unpack(token, packed, pinned)(part)
    finally:
        _BUSY.pop()


def _here(token: str, packed: bytes, pinned: dict[str, bytes]) -> None:
    unpack(token, packed, pinned)()


def _begin(function: Callable[[], Any], own: bool) -> None:
    machine.own_process = own
    threading.Thread(target=function, daemon=True).start()


def _running() -> int:
    return len(_BUSY)


def _fold(
    token: str, packed: bytes, pinned: dict[str, bytes], merge: Callable[[Any, Any], Any],
    parts: Sequence[Any],
) -> Any:
    function, total = unpack(token, packed, pinned), None
    for part in parts:
        made = function(part)
        total = made if total is None else merge(total, made)
    return total


def _merged(merge: Callable[[Any, Any], Any], states: Sequence[Any]) -> Any:
    """The merge of results of other tasks. A task that runs twice needs them as they were, and
    ``merge`` works on the first one, into which it may take what only another one has."""
    total = copy.deepcopy(states[0])
    for state in states[1:]:
        if isinstance(state, dict) and isinstance(total, dict):
            state = {k: s if k in total else copy.deepcopy(s) for k, s in state.items()}
        total = merge(total, state)
    return total
