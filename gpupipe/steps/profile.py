"""The first pass: what every column holds, and what a split needs to know of every row.

One read of the table gives the statistics of every raw column (they become the data contract
and the reference for drift) and, for each row, a 64-bit key hash and the target. From then
on a row's place in a split is known without reading it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.checkpoints import NOWHERE, Checkpoints, digest
from gpupipe.data.batches import Columns
from gpupipe.data.reader import Reader
from gpupipe.data.schema import Schema
from gpupipe.engine.frames import Array, Frames, width_of
from gpupipe.engine.hashing import hash_strings, mix64
from gpupipe.errors import DataError
from gpupipe.stats.moments import Moments
from gpupipe.stats.quantiles import Extremes, Histogram
from gpupipe.stats.state import Rows, State, Statistic, union
from gpupipe.stats.tables import VOCABULARY_LIMIT, DayCounts, Vocabulary, VocabularyState
from gpupipe.steps.base import Feature
from gpupipe.steps.graph import Node
from gpupipe.steps.passes import (
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

    ``key`` and ``group`` are uint64 hashes; ``target`` is (codes, levels) or None.
    """

    key: np.ndarray
    group: np.ndarray | None
    time: np.ndarray | None
    weight: np.ndarray | None
    target: tuple[np.ndarray, pa.Array] | None


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
    time: str | None = None, weight: str | None = None, progress: Any = None,
    checkpoints: Checkpoints = NOWHERE,
) -> Profile:
    """One pass over the dataset; the dropped columns have no statistics unless they are named.

    Without a ``key`` a row's key is the whole row, dropped columns and all, but for the target
    and the weight: exact duplicates share it. Were the target part of it, rows that agree in
    all else would be dealt out by their label, and a fold could hold one label of them alone.
    """
    named = [n for n in (target, time, weight, *(key or ()), *(group or ())) if n is not None]
    dataset, engine = reader.dataset, reader.engine
    names = dataset.schema.names
    schema = dataset.schema.select([n for n in names if n not in drop or n in named])
    whole = [n for n in names if n not in (target, weight)]
    keyed = list(key) if key else whole or names
    columns = [n for n in names if n in schema or n in keyed]
    text = [f.name for f in schema if f.dtype == "string"]
    fx, parts = engine.fx, dataset.parts
    if not parts:
        raise DataError(f"{dataset.source} has no rows", hint="is it the right file?")
    gathered = _Facts({})
    saved = checkpoints.given(
        columns=digest([schema.to_json(), keyed, target, group, time, weight]))
    expected = [(s, raw_key(f.name)) for f in schema for s in statistics_of(f.dtype)]

    def profile_part(index: int, names: Sequence[str], last: bool) -> States:
        states: States = {}
        facts: list[RowFacts] = []
        for batch in reader.batches(index, columns):
            rows = Rows(fx.xp.zeros(len(batch[columns[0]]), dtype="int64"), 1)
            for f in schema.select(names):
                for statistic in statistics_of(f.dtype):
                    state = statistic.partial([batch[f.name]], rows, fx)
                    fold(states, (statistic, raw_key(f.name)), state)
            if last:
                facts.append(_facts(batch, keyed, target, group, time, weight, fx))
        if last:
            gathered.by_part[index] = _joined(facts)
        return states

    def in_memory() -> States:
        """Text that stays in memory is counted and hashed once its batches share a dictionary."""
        everything = range(len(parts))
        numbers = partial(profile_part, names=[n for n in names if n in schema and n not in text],
                          last=False)
        total = engine.fold(numbers, merge_states, everything) or {}
        reader.share(text)
        rest = engine.fold(partial(profile_part, names=text, last=True), merge_states, everything,
                           lambda i: advance(parts[i].rows))
        return keep_pass("profile", merge_states(total, rest or {}), engine, saved, gathered)

    states = saved_pass("profile", saved, expected, gathered)
    if states is None:
        with stage(progress, "profile", dataset.rows) as advance:
            states = in_memory() if reader.keep(columns) else run_pass(
                partial(profile_part, names=schema.names, last=True), range(len(parts)), engine,
                "profile", saved, expected, lambda i: advance(parts[i].rows), gathered,
            )
    reader.keep_only(schema.names)
    facts = tuple(gathered.by_part[i] for i in sorted(gathered.by_part))
    return Profile(schema, states, facts, dataset.rows)


@dataclass
class _Facts:
    """What a profile gathers of the rows, by part."""

    by_part: dict[int, RowFacts]

    def pack(self) -> Any:
        found = {}
        for index, facts in self.by_part.items():
            codes, levels = facts.target or (None, None)
            found[str(index)] = {
                "key": facts.key, "group": facts.group, "time": facts.time,
                "weight": facts.weight, "codes": codes, "levels": levels,
            }
        return found

    def unpack(self, value: Any) -> None:
        for index, facts in value.items():
            codes, levels = facts.pop("codes"), facts.pop("levels")
            self.by_part[int(index)] = RowFacts(
                **facts, target=None if codes is None else (codes, levels)
            )


def _facts(
    batch: Columns, key: Sequence[str], target: str | None,
    group: Sequence[str] | None, time: str | None, weight: str | None, fx: Frames,
) -> RowFacts:
    answer = None
    if target is not None:
        codes, levels = fx.factorize(batch[target])
        answer = (fx.to_host(codes).astype(width_of(-1, len(levels))), levels)
    return RowFacts(
        key=fx.to_host(row_hash(batch, key, fx)),
        group=fx.to_host(row_hash(batch, group, fx)) if group else None,
        time=fx.to_host(fx.numbers(batch[time])) if time else None,
        weight=fx.to_host(fx.numbers(batch[weight])) if weight else None,
        target=answer,
    )


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

    target = None
    if facts and facts[0].target is not None:
        codes, levels = [], pa.array([], facts[0].target[1].type)
        for f in facts:
            assert f.target is not None
            levels, position = union(levels, f.target[1])
            position = np.append(position, -1).astype(width_of(-1, len(levels)))
            codes.append(position[f.target[0]])
        target = (np.concatenate(codes), levels)
    return RowFacts(together("key"), together("group"), together("time"), together("weight"),
                    target)


def target_range(profile: Profile, target: str) -> tuple[float, float]:
    """Middle and half-width of a numeric target's range."""
    extremes = profile.of(target, Extremes())
    low, high = float(extremes.low[0]), float(extremes.high[0])
    if not math.isfinite(low) or not math.isfinite(high):
        return 0.0, 0.0
    return (low + high) / 2, (high - low) / 2
