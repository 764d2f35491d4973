"""One pass over a table's parts: states are made side by side, merged, and saved as it goes.

A pass that was killed goes on from what was merged; one that is done is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from gpupipe import checkpoints as store
from gpupipe.checkpoints import Checkpoints
from gpupipe.engine.local import LocalEngine
from gpupipe.stats.state import State, Statistic

Key = tuple[Statistic, str]
"""A statistic, and the identity of the column it is of."""
States = dict[Key, State]
Advance = Callable[[int], None]


class Beside(Protocol):
    """What a pass gathers besides states, part by part, as plain data."""

    def pack(self) -> Any: ...

    def unpack(self, value: Any) -> None: ...


def run_pass(
    work: Callable[[int], States], parts: Sequence[int], engine: LocalEngine, kind: str,
    checkpoints: Checkpoints, expected: Iterable[Key], done: Advance = lambda part: None,
    beside: Beside | None = None,
) -> States:
    """The merged, canonical states of ``work(part)`` over all parts.

    Parameters
    ----------
    kind : what the pass is called among the checkpoints.
    expected : the statistics that it gives, by which saved ones are recognised.
    done : told of each part.
    beside : what else ``work`` gathers.
    """
    known = saved_pass(kind, checkpoints, expected, beside)
    if known is not None:
        return known
    total: States = {}
    waiting = list(parts)
    begun = checkpoints.load(f"{kind}-part")
    if begun is not None:
        total = _unpacked(begun, expected, beside)
        waiting = [p for p in parts if p not in set(begun["done"])]
        for part in begun["done"]:
            done(part)
    saved, size = time.perf_counter(), 2 * engine.workers
    while waiting:
        wave, waiting = waiting[:size], waiting[size:]
        started = time.perf_counter()
        total = merge_states(total, engine.fold(work, merge_states, wave, done) or {})
        now = time.perf_counter()
        # As many parts next as take about as long as work may go on unsaved.
        size = max(size, int(len(wave) * store.SAVE_SECONDS / max(now - started, 1e-3)))
        if waiting and now - saved >= store.SAVE_SECONDS:
            ended = [p for p in parts if p not in set(waiting)]
            checkpoints.save(f"{kind}-part", {"done": ended, **_packed(total, beside)})
            saved = time.perf_counter()
    return keep_pass(kind, total, engine, checkpoints, beside)


def saved_pass(
    kind: str, checkpoints: Checkpoints, expected: Iterable[Key], beside: Beside | None = None
) -> States | None:
    """The states of a pass that was done before; None where there was none."""
    saved = checkpoints.load(kind)
    return None if saved is None else _unpacked(saved, expected, beside)


def keep_pass(
    kind: str, total: States, engine: LocalEngine, checkpoints: Checkpoints,
    beside: Beside | None = None,
) -> States:
    """The states of a pass that is done, canonical, and saved."""
    keys = list(total)
    for i, state in engine.map(lambda key: total[key].canonical(), keys):
        total[keys[i]] = state
    checkpoints.save(kind, _packed(total, beside))
    checkpoints.drop(f"{kind}-part")
    return total


def merge_states(a: States, b: States) -> States:
    """The states of both sets of rows; both are used up."""
    for key, state in b.items():
        fold(a, key, state)
    return a


def fold(states: States, key: Key, state: State) -> None:
    """Merge ``state`` into the one already kept under ``key``; both are used up."""
    states[key] = states[key].take_in(state) if key in states else state


def name_of(key: Key) -> str:
    """A statistic of a column, in words that are the same in every process."""
    statistic, identity = key
    return f"{identity}|{statistic!r}"


def _packed(states: States, beside: Beside | None) -> dict[str, Any]:
    return {"states": {name_of(k): s.arrays() for k, s in states.items()},
            "beside": None if beside is None else beside.pack()}


def _unpacked(value: Any, expected: Iterable[Key], beside: Beside | None) -> States:
    if beside is not None:
        beside.unpack(value["beside"])
    return {key: key[0].state(**value["states"][name_of(key)]) for key in expected
            if name_of(key) in value["states"]}


class stage:  # noqa: N801 - reads as a word
    """A progress stage where there is progress to show, and nothing where there is none."""

    def __init__(self, progress: Any, name: str, total: int | None, unit: str = "rows") -> None:
        self._inner = progress.stage(name, total, unit) if progress is not None else None

    def __enter__(self) -> Advance:
        if self._inner is None:
            return lambda n: None
        advance: Advance = self._inner.__enter__().advance
        return advance

    def __exit__(self, *error: Any) -> None:
        if self._inner is not None:
            self._inner.__exit__(*error)
