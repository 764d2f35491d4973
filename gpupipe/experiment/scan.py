"""One pass over a table: its rows become units (where a unit may have several) or sums at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.data.batches import Columns
from gpupipe.data.reader import Reader
from gpupipe.engine.frames import Array, Column, Frames
from gpupipe.errors import DataError
from gpupipe.experiment.cells import Labels, Tally, UnitRows, added, tally
from gpupipe.experiment.config import MetricConfig, level_text
from gpupipe.experiment.outcomes import Outcomes
from gpupipe.experiment.units import Pile, Units

MOST_LEVELS = 200
"""Distinct values that an arm's or a slice's column may have."""
MISSING = "(missing)"
SEVERAL = "(several)"


@dataclass(frozen=True)
class Wanted:
    """What a pass reads.

    Attributes
    ----------
    unit : the unit's column; None where every row is a unit.
    arm : the arm's column; None where there is none (a table of outcomes, or of the past).
    arms : the arms that count; None for all that there are.
    slices, values : further columns.
    extremes : the values of which a unit's least and greatest are wanted.
    where : column -> the level, as text, of the rows that count.
    metrics : where every row is a unit, what to make sums of.
    """

    unit: str | None
    arm: str | None
    arms: tuple[str, ...] | None
    slices: tuple[str, ...]
    values: tuple[str, ...]
    where: Mapping[str, str]
    extremes: tuple[str, ...] = ()
    metrics: tuple[MetricConfig, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Columns of levels: the arm's first."""
        return (*(() if self.arm is None else (self.arm,)), *self.slices)

    def columns(self) -> list[str]:
        """All columns that are read."""
        one = () if self.unit is None else (self.unit,)
        return list(dict.fromkeys((*one, *self.labels, *self.values, *self.where)))


@dataclass(frozen=True)
class Scanned:
    """What a pass found: counts of rows, levels by their hashes, and units or sums.

    ``counts``: "rows"; "elsewhere" (left out by ``where``), "no arm", "other arm", "no unit";
    "odd:COLUMN" (values other than 0 and 1).
    """

    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[str, dict[int, str]] = field(default_factory=dict)
    pile: Pile | None = None
    tally: Tally = field(default_factory=Tally)

    def merge(self, other: Scanned) -> Scanned:
        """What was found in both sets of rows."""
        texts = {c: self.texts.get(c, {}) | other.texts.get(c, {})
                 for c in {**self.texts, **other.texts}}
        for column, levels in texts.items():
            _not_too_many(column, len(levels))
        piles = [p for p in (self.pile, other.pile) if p is not None]
        pile = piles[0].merge(piles[1]) if len(piles) == 2 else next(iter(piles), None)
        return Scanned(added(self.counts, other.counts), texts, pile,
                       self.tally.merge(other.tally))


@dataclass(frozen=True)
class ScanPart:
    """`Scanned` of one part of a table; ``outcomes`` are looked up row by row."""

    reader: Reader
    wanted: Wanted
    outcomes: Outcomes | None = None

    def __call__(self, index: int) -> Scanned:
        total = Scanned()
        columns = self.wanted.columns()
        if self.outcomes is not None:
            columns = list(dict.fromkeys([*columns, self.outcomes.on]))
        for batch in self.reader.batches(index, columns):
            total = total.merge(self.of(batch, self.reader.engine.there.fx))
        return total

    def of(self, batch: Columns, fx: Frames) -> Scanned:
        """What one batch holds."""
        wanted, xp = self.wanted, fx.xp
        n = len(next(iter(batch.values())))
        counts = {"rows": n}
        live = xp.ones(n, dtype=bool)

        def leave_out(rows: Array, why: str) -> None:
            nonlocal live
            gone = int((live & rows).sum())
            if gone:
                counts[why] = gone
                live = live & ~rows

        for name, level in wanted.where.items():
            leave_out(~_is(batch[name], level, fx), "elsewhere")
        codes = {c: _labelled(batch[c], c, fx) for c in wanted.labels}
        if wanted.arm is not None:
            arm = codes[wanted.arm]
            leave_out(arm.codes < 0, "no arm")
            if wanted.arms is not None:
                arm = _renamed(arm, wanted.arms, fx)
                leave_out(arm.codes < 0, "other arm")
            codes[wanted.arm] = arm
        values = {c: fx.numbers(batch[c]) for c in wanted.values}
        if self.outcomes is not None:
            values |= self.outcomes.of(batch[self.outcomes.on], fx)
        if wanted.unit is not None:
            leave_out(fx.is_missing(batch[wanted.unit]), "no unit")
        for name, value in values.items():
            odd = live & xp.isfinite(value) & (value != 0) & (value != 1)
            if int(odd.sum()):
                counts[f"odd:{name}"] = int(odd.sum())
        if wanted.unit is not None:
            return self._units(batch[wanted.unit], live, codes, values, counts, fx)
        return self._tally(live, codes, values, counts, fx)

    def _units(
        self, unit: Column, live: Array, codes: Mapping[str, Labels],
        values: Mapping[str, Array], counts: dict[str, int], fx: Frames,
    ) -> Scanned:
        kept = fx.to_host(live)
        code, ids = fx.factorize(unit)
        hashes, texts = [], {}
        for name, labels in codes.items():
            own = fx.to_host(labels.codes)[kept]
            of_level = np.array([text_hash(t) for t in (*labels.names, MISSING)], np.uint64)
            hashes.append(of_level[own])  # -1 takes the last: missing
            used = np.unique(own)
            _not_too_many(name, len(used))
            every = (*labels.names, MISSING)
            texts[name] = {int(of_level[c]): every[c] for c in used}
        units = Units.of(ids, fx.to_host(code)[kept].astype(np.int64), hashes,
                         {c: fx.to_host(v)[kept] for c, v in values.items()},
                         self.wanted.extremes)
        return Scanned(counts, texts, Pile((units,)))

    def _tally(
        self, live: Array, codes: dict[str, Labels], values: Mapping[str, Array],
        counts: dict[str, int], fx: Frames,
    ) -> Scanned:
        everyone = Labels(fx.xp.zeros(len(live), dtype="int64"), ("",))
        arm = everyone if self.wanted.arm is None else codes.pop(self.wanted.arm)
        slices = {c: _with_missing(labels, fx) for c, labels in codes.items()}
        every = {"" if self.wanted.arm is None else self.wanted.arm: arm, **slices}
        for name, labels in every.items():
            _not_too_many(name, len(labels.names))
        texts = {c: {text_hash(t): t for t in labels.names} for c, labels in every.items()}
        arm = Labels(fx.xp.where(live, arm.codes, -1), arm.names)
        both = {(c, how): v for c, v in values.items() for how in ("sum", "mean", "max")}
        rows = UnitRows(arm, slices, both)
        return Scanned(counts, texts, None, tally(rows, self.wanted.metrics, fx))


def text_hash(text: str) -> int:
    """A level's hash: 63 bits, so that none is the value of an absent one."""
    from hashlib import sha256

    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> 1


def _labelled(column: Column, name: str, fx: Frames) -> Labels:
    """The levels of a column that occur, as text."""
    codes, levels = fx.factorize(column)
    codes = codes.astype("int64")
    counts = fx.to_host(fx.xp.bincount(codes[codes >= 0], minlength=len(levels)))
    used = np.flatnonzero(counts)
    _not_too_many(name, len(used))
    new = np.full(len(levels) + 1, -1, np.int64)  # -1 takes the last: missing
    new[used] = np.arange(len(used))
    names = [level_text(v) for v in levels.take(used.tolist()).to_pylist()] if len(used) else []
    return Labels(fx.to_device(new)[codes], names)


def _renamed(labels: Labels, names: Sequence[str], fx: Frames) -> Labels:
    """The same in codes of these names; -1 where it is none of them."""
    new = [names.index(n) if n in names else -1 for n in labels.names]
    return Labels(fx.to_device(np.array([*new, -1], np.int64))[labels.codes], names)


def _with_missing(labels: Labels, fx: Frames) -> Labels:
    """The same, with a level of those that have none."""
    codes = fx.xp.where(labels.codes < 0, len(labels.names), labels.codes)
    return Labels(codes, (*labels.names, MISSING))


def _is(column: Column, level: str, fx: Frames) -> Array:
    """Where a column has this level."""
    codes, levels = fx.factorize(column)
    answers = [level_text(v) == level for v in levels.to_pylist()]
    return fx.to_device(np.array([*answers, False]))[codes]


def _not_too_many(name: str, levels: int) -> None:
    if levels > MOST_LEVELS:
        raise DataError(
            f"column {name!r} has more than {MOST_LEVELS} distinct values: too many for arms or "
            "slices", hint="name another column, or put its values into groups first",
        )


def scanned(
    reader: Reader, wanted: Wanted, outcomes: Outcomes | None = None, progress: Any = None,
    what: str = "scan",
) -> Scanned:
    """One pass over all parts of a table. DataError where it has no rows."""
    from gpupipe.console import quiet

    parts = reader.dataset.parts
    if not parts:
        raise DataError("the table has no rows", where=reader.dataset.source)
    with quiet(progress).stage(what, reader.dataset.rows, "rows") as stage:
        found = reader.engine.fold(
            ScanPart(reader, wanted, outcomes), Scanned.merge, range(len(parts)),
            lambda i: stage.advance(parts[i].rows),
        )
    assert found is not None
    return found
