"""One pass over a table's parts: states are made side by side, merged, and saved as it goes.

A pass that was killed goes on from what was merged; one that is done is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gpupipe import checkpoints as store
from gpupipe.checkpoints import Checkpoints
from gpupipe.engine.base import Engine
from gpupipe.stats.state import State, Statistic

Key = tuple[Statistic, str]
"""A statistic, and the identity of the column it is of."""
States = dict[Key, State]
Advance = Callable[[int], None]


def run_pass(
    work: Callable[[int], States], parts: Sequence[int], engine: Engine, kind: str,
    checkpoints: Checkpoints, expected: Iterable[Key], done: Advance = lambda part: None,
) -> States:
    """The merged, canonical states of ``work(part)`` over all parts.

    Parameters
    ----------
    kind : what the pass is called among the checkpoints.
    expected : the statistics that it gives, by which saved ones are recognised.
    done : told of each part.
    """
    known = saved_pass(kind, checkpoints, expected)
    if known is not None:
        return known
    total: States = {}
    waiting = list(parts)
    begun = checkpoints.load(f"{kind}-part")
    if begun is not None:
        total = _unpacked(begun, expected)
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
            checkpoints.save(f"{kind}-part", {"done": ended, **_packed(total)})
            saved = time.perf_counter()
    return keep_pass(kind, total, engine, checkpoints)


def saved_pass(kind: str, checkpoints: Checkpoints, expected: Iterable[Key]) -> States | None:
    """The states of a pass that was done before; None where there was none."""
    saved = checkpoints.load(kind)
    return None if saved is None else _unpacked(saved, expected)


def keep_pass(kind: str, total: States, engine: Engine, checkpoints: Checkpoints) -> States:
    """The states of a pass that is done, canonical, and saved."""
    keys = list(total)
    for i, state in engine.here.map(lambda key: total[key].canonical(), keys):
        total[keys[i]] = state
    checkpoints.save(kind, _packed(total))
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


def _packed(states: States) -> dict[str, Any]:
    return {"states": {name_of(k): s.arrays() for k, s in states.items()}}


def _unpacked(value: Any, expected: Iterable[Key]) -> States:
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
