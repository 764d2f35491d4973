"""The first pass: what every column holds, and what a split needs to know of every row.

One read of the table gives the statistics of every raw column (they become the data contract
and the reference for drift) and, for each row, a 64-bit key hash and the target. From then
on a row's place in a split is known without reading it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from gpupipe.checkpoints import NOWHERE, Checkpoints, digest
from gpupipe.data.batches import Columns
from gpupipe.data.reader import Reader
from gpupipe.data.schema import Schema
from gpupipe.engine.frames import Array, Column, Frames, width_of
from gpupipe.engine.hashing import hash_strings, mix64
from gpupipe.errors import DataError
from gpupipe.stats.moments import Moments
from gpupipe.stats.quantiles import Extremes, Histogram
from gpupipe.stats.state import Rows, State, Statistic, union
from gpupipe.stats.tables import VOCABULARY_LIMIT, DayCounts, Vocabulary, VocabularyState
from gpupipe.steps.base import Feature
from gpupipe.steps.graph import Node
from gpupipe.steps.passes import (
    Advance,
    Key,
    States,
    fold,
    keep_pass,
    merge_states,
    run_pass,
    saved_pass,
    stage,
)

INTEGER_LEVELS = 1_000
"""An integer column's values are counted one by one up to this many of them."""


@dataclass(frozen=True)
class RowFacts:
    """What the split and the training need of a part's rows, each ``[n]``.

    ``key`` and ``group`` are uint64 hashes; ``target`` and ``event`` are (codes, levels) or None.
    """

    key: np.ndarray
    group: np.ndarray | None
    time: np.ndarray | None
    weight: np.ndarray | None
    target: tuple[np.ndarray, pa.Array] | None
    event: tuple[np.ndarray, pa.Array] | None = None


@dataclass(frozen=True)
class Profile:
    """Statistics of the raw columns over all rows, and the facts of each part's rows."""

    schema: Schema
    states: dict[Key, State]
    facts: tuple[RowFacts, ...]
    rows: int

    def of(self, column: str, statistic: Statistic) -> Any:
        """The state of a statistic of one column; None where it was not taken."""
        return self.states.get((statistic, raw_key(column)))

    def vocabulary(self, column: str) -> VocabularyState | None:
        """The values of a column, most frequent first; None where they are not counted."""
        for statistic in VOCABULARIES:
            state: VocabularyState | None = self.of(column, statistic)
            if state is not None:
                return state
        return None

    def distinct(self, column: str) -> int | None:
        """Distinct values, missing apart; None for floats and for more than are counted."""
        state = self.vocabulary(column)
        if state is None or state.overflowed:
            return None
        return len(state.levels) - (1 if state.missing else 0)

    def missing(self, column: str) -> int:
        """Rows without a value in the column."""
        return int(self.of(column, MOMENTS).missing[0])

    def constant(self) -> frozenset[str]:
        """Columns with one value, or with none, in the whole table."""
        found = set()
        for field in self.schema:
            missing = self.missing(field.name)
            if missing == self.rows:
                found.add(field.name)
            elif missing == 0 and field.dtype in ("string", "bool"):
                found |= {field.name} if self.distinct(field.name) == 1 else set()
            elif missing == 0:
                extremes = self.of(field.name, Extremes())
                found |= {field.name} if extremes.low[0] == extremes.high[0] else set()
        return frozenset(found)


MOMENTS = Moments()
TEXT_VOCABULARY = Vocabulary(VOCABULARY_LIMIT)
INTEGER_VOCABULARY = Vocabulary(INTEGER_LEVELS)
VOCABULARIES = (TEXT_VOCABULARY, INTEGER_VOCABULARY)
DAYS = DayCounts()


def statistics_of(dtype: str) -> tuple[Statistic, ...]:
    """What the profile takes of a column of a type."""
    if dtype == "string":
        return (MOMENTS, TEXT_VOCABULARY)
    if dtype in ("int64", "bool"):
        return (MOMENTS, Histogram(), Extremes(), INTEGER_VOCABULARY)
    if dtype == "timestamp":
        return (MOMENTS, Histogram(), Extremes(), DAYS)
    return (MOMENTS, Histogram(), Extremes())


def raw_key(column: str) -> str:
    """The identity of a raw column."""
    return Node(Feature(column, "")).key


def take_profile(
    reader: Reader, *, target: str | None, drop: Sequence[str] = (),
    key: Sequence[str] | None = None, group: Sequence[str] | None = None,
    time: str | None = None, weight: str | None = None, event: str | None = None,
    progress: Any = None, checkpoints: Checkpoints = NOWHERE,
) -> Profile:
    """One pass over the dataset; the dropped columns have no statistics unless they are named.

    Without a ``key`` a row's key is the whole row, dropped columns and all, but for the target,
    its event and the weight: exact duplicates share it. Were the target part of it, rows that
    agree in all else would be dealt out by their label, and a fold could hold one label of them
    alone.
    """
    named = [n for n in (target, event, time, weight, *(key or ()), *(group or ()))
             if n is not None]
    dataset, engine = reader.dataset, reader.engine
    names = dataset.schema.names
    schema = dataset.schema.select([n for n in names if n not in drop or n in named])
    whole = [n for n in names if n not in (target, event, weight)]
    keyed = list(key) if key else whole or names
    columns = [n for n in names if n in schema or n in keyed]
    text = [f.name for f in schema if f.dtype == "string"]
    parts = dataset.parts
    if not parts:
        raise DataError(f"{dataset.source} has no rows", hint="is it the right file?")
    facts = Facts(tuple(keyed), target, tuple(group or ()), time, weight, event)
    saved = checkpoints.given(columns=digest([schema.to_json(), repr(facts)]))
    expected: list[Key] = [(s, raw_key(f.name)) for f in schema for s in statistics_of(f.dtype)]
    expected.append((facts, ROWS))
    everything = range(len(parts))
    advance: Advance = _nothing
    whole_pass = _ProfilePart(reader, tuple(columns), schema, facts)

    def in_memory() -> States:
        """Text that stays in memory is counted and hashed once its batches share a dictionary."""
        numbers = schema.select([n for n in schema.names if n not in text])
        total = engine.fold(replace(whole_pass, schema=numbers, facts=None), merge_states,
                            everything) or {}
        reader.share(text)
        rest = engine.fold(replace(whole_pass, schema=schema.select(text)), merge_states,
                           everything, lambda i: advance(parts[i].rows))
        return keep_pass("profile", merge_states(total, rest or {}), engine, saved)

    states = saved_pass("profile", saved, expected)
    if states is None:
        with stage(progress, "profile", dataset.rows) as advance:
            states = in_memory() if reader.keep(columns) else run_pass(
                whole_pass, everything, engine, "profile", saved, expected,
                lambda i: advance(parts[i].rows),
            )
    reader.keep_only(schema.names)
    gathered = states.pop((facts, ROWS))
    assert isinstance(gathered, FactsState)
    return Profile(schema, states, gathered.facts(), dataset.rows)


def _nothing(n: int) -> None: ...


ROWS = "rows"
"""What the facts of rows are filed under, where other states have their column."""


@dataclass(frozen=True)
class FactsState(State):
    """The facts of each part's rows, as plain data by the part's number."""

    by_part: dict[str, dict[str, Any]]

    def merge(self, other: FactsState) -> FactsState:
        return FactsState({**self.by_part, **other.by_part})

    @classmethod
    def of(cls, part: int, facts: RowFacts) -> FactsState:
        codes, levels = facts.target or (None, None)
        events, labels = facts.event or (None, None)
        return cls({str(part): {
            "key": facts.key, "group": facts.group, "time": facts.time, "weight": facts.weight,
            "codes": codes, "levels": levels, "events": events, "labels": labels,
        }})

    def facts(self) -> tuple[RowFacts, ...]:
        """The facts, in the order of the parts."""
        found = []
        for part in sorted(self.by_part, key=int):
            own = dict(self.by_part[part])
            codes, levels = own.pop("codes"), own.pop("levels")
            events, labels = own.pop("events"), own.pop("labels")
            found.append(RowFacts(**own, target=None if codes is None else (codes, levels),
                                  event=None if events is None else (events, labels)))
        return tuple(found)


@dataclass(frozen=True)
class Facts:
    """Which facts are gathered: the columns of key, group, time, weight and event, the target."""

    state: ClassVar[type[State]] = FactsState

    key: tuple[str, ...]
    target: str | None
    group: tuple[str, ...]
    time: str | None
    weight: str | None
    event: str | None = None

    def partial(self, columns: Sequence[Column], rows: Rows, fx: Frames) -> State:
        raise TypeError("facts are those of a part, not of a batch: see of()")

    def of(self, batch: Columns, fx: Frames) -> RowFacts:
        """The facts of a batch's rows."""
        def coded(name: str | None) -> tuple[np.ndarray, pa.Array] | None:
            if name is None:
                return None
            codes, levels = fx.factorize(batch[name])
            return fx.to_host(codes).astype(width_of(-1, len(levels))), levels

        return RowFacts(
            key=fx.to_host(row_hash(batch, self.key, fx)),
            group=fx.to_host(row_hash(batch, self.group, fx)) if self.group else None,
            time=fx.to_host(fx.numbers(batch[self.time])) if self.time else None,
            weight=fx.to_host(fx.numbers(batch[self.weight])) if self.weight else None,
            target=coded(self.target), event=coded(self.event),
        )


@dataclass(frozen=True)
class _ProfilePart:
    """The profile of one part: statistics of the columns in ``schema``, and facts if asked."""

    reader: Reader
    columns: tuple[str, ...]
    schema: Schema
    facts: Facts | None

    def __call__(self, index: int) -> States:
        fx, states, facts = self.reader.engine.fx, States(), list[RowFacts]()
        for batch in self.reader.batches(index, self.columns):
            rows = Rows(fx.xp.zeros(len(batch[self.columns[0]]), dtype="int64"), 1)
            for f in self.schema:
                for statistic in statistics_of(f.dtype):
                    state = statistic.partial([batch[f.name]], rows, fx)
                    fold(states, (statistic, raw_key(f.name)), state)
            if self.facts is not None:
                facts.append(self.facts.of(batch, fx))
        if self.facts is not None:
            states[self.facts, ROWS] = FactsState.of(index, _joined(facts))
        return states


def row_hash(batch: Columns, columns: Sequence[str], fx: Frames) -> Array:
    """A uint64 hash of each row over named columns; their order does not matter."""
    names = hash_strings(pa.array(list(columns), pa.string()))
    total = fx.xp.zeros(len(batch[columns[0]]), dtype="uint64")
    for name, salt in zip(columns, names, strict=True):
        # An odd multiplier of its own keeps the columns apart: a value is mixed already.
        total = total + fx.hash64(batch[name]) * fx.xp.uint64(salt | np.uint64(1))
    return mix64(total, fx.xp)


def _joined(facts: Sequence[RowFacts]) -> RowFacts:
    """The facts of a part's batches as one."""
    if len(facts) == 1:
        return facts[0]

    def together(name: str) -> Any:
        arrays = [getattr(f, name) for f in facts]
        return None if not arrays or arrays[0] is None else np.concatenate(arrays)

    return RowFacts(together("key"), together("group"), together("time"), together("weight"),
                    _recoded([f.target for f in facts]), _recoded([f.event for f in facts]))


def _recoded(
    found: Sequence[tuple[np.ndarray, pa.Array] | None]
) -> tuple[np.ndarray, pa.Array] | None:
    """Codes and levels of several batches, in the levels of all of them."""
    given = [pair for pair in found if pair is not None]
    if not given:
        return None
    codes, levels = [], pa.array([], given[0][1].type)
    for own, labels in given:
        levels, position = union(levels, labels)
        codes.append(np.append(position, -1).astype(width_of(-1, len(levels)))[own])
    return np.concatenate(codes), levels


def target_range(profile: Profile, target: str) -> tuple[float, float]:
    """Middle and half-width of a numeric target's range."""
    extremes = profile.of(target, Extremes())
    low, high = float(extremes.low[0]), float(extremes.high[0])
    if not math.isfinite(low) or not math.isfinite(high):
        return 0.0, 0.0
    return (low + high) / 2, (high - low) / 2
