"""From counts to states: every column of every window and slice is ok, warned of, an alert, or
insufficient.

A measure warns or alerts where its effect is large *and* its adjusted p-value is small. The family
that is adjusted (Benjamini & Hochberg 1995, JRSS B 57) is all that is tested in a window: columns,
slices and measures. Where nothing has drifted, that bounds the chance that a window says anything
at all by the level; the effects' thresholds make it rarer still in large windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpupipe.config.monitor import MonitorConfig
from gpupipe.evaluate.explain_search import benjamini_hochberg
from gpupipe.monitor.counts import Counts
from gpupipe.monitor.measures import MEASURES, Found, Measure
from gpupipe.monitor.pairs import Pair, Shape
from gpupipe.monitor.reference import CONFIDENCE, PREDICTION, Reference
from gpupipe.monitor.scan import ROWS, Observed, Slicing
from gpupipe.monitor.windows import Windows

OK, WARN, ALERT, INSUFFICIENT = "ok", "warn", "alert", "insufficient"
OF_CONTRACT = ("unfit", "infinite", "unseen", "beyond_range")
"""The measures that judge a slice: what a row has to keep to, whatever slice it is in."""
ALL = "(all columns)"
"""Under what name columns are judged together."""
WORST = (ALERT, WARN, OK, INSUFFICIENT)
"""From the worst to what says nothing."""


@dataclass(frozen=True)
class Measured:
    """A measure of one column; ``q`` is the adjusted p-value."""

    name: str
    value: float
    effect: float
    p: float
    q: float
    warn: float
    alert: float
    state: str


@dataclass(frozen=True)
class Judged:
    """One column of one window, of all rows or of a slice (``slice`` is then its name).

    Attributes
    ----------
    rows : of the window and slice.
    why : what is in the way, where it is insufficient.
    unseen : values that the reference has not, and their rows.
    """

    column: str
    slice: str | None
    rows: int
    state: str
    measures: tuple[Measured, ...] = ()
    why: str | None = None
    unseen: Mapping[str, int] = field(default_factory=dict)

    @property
    def worst(self) -> Measured | None:
        """The measure that decided the state, the greatest beside its threshold first."""
        own = [m for m in self.measures if m.state == self.state]
        return max(own, key=lambda m: m.effect / max(m.warn, 1e-9), default=None)


@dataclass(frozen=True)
class Window:
    """A window, and every column in it."""

    number: int
    start: str
    end: str
    rows: int
    state: str
    columns: tuple[Judged, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as ``verdict.json`` has it."""
        return {"window": self.number, "start": self.start, "end": self.end, "rows": self.rows,
                "state": self.state, "columns": [_column_json(c) for c in self.columns]}


def _column_json(column: Judged) -> dict[str, Any]:
    made: dict[str, Any] = {
        "column": column.column, "slice": column.slice, "rows": column.rows, "state": column.state,
        "measures": {m.name: {"value": m.value, "effect": m.effect, "p": m.p, "q": m.q,
                              "warn": m.warn, "alert": m.alert, "state": m.state}
                     for m in column.measures},
    }
    made |= {"why": column.why} if column.why else {}
    return made | ({"unseen": dict(column.unseen)} if column.unseen else {})


def worst_of(states: Iterable[str]) -> str:
    """The worst of some states; insufficient where there is none."""
    found = set(states)
    return next((s for s in WORST if s in found), INSUFFICIENT)


@dataclass(frozen=True)
class Judge:
    """Judges windows against a reference, by the rules of a pipeline file's `monitor` section."""

    reference: Reference
    config: MonitorConfig
    shapes: Mapping[str, Shape]
    slicings: Sequence[Slicing] = ()
    absent: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, reference: Reference, config: MonitorConfig, slicings: Sequence[Slicing] = (),
           absent: Mapping[str, str] | None = None) -> Judge:
        """The judge of a reference; ``absent`` says why a column is in no row."""
        shapes = {name: Shape(known) for name, known in reference.columns.items()}
        return cls(reference, config, shapes, slicings, absent or {})

    def windows(
        self, observed: Observed, windows: Windows,
        whole: Mapping[int, Mapping[str, Found]] | None = None,
    ) -> list[Window]:
        """Every window that has rows, in order; ``whole`` is what `multivariate` found of them."""
        return [self.window(number, observed, windows, (whole or {}).get(number))
                for number in observed.windows()]

    def window(
        self, number: int, observed: Observed, windows: Windows,
        whole: Mapping[str, Found] | None = None,
    ) -> Window:
        """One window: all its columns and slices, judged as one family."""
        rows = observed.counts.get(ROWS, Counts())
        names: list[str | None] = [None, *(n for s in self.slicings for n in s.names)]
        judged: list[tuple[Judged, list[tuple[Measure, Found]]]] = []
        for at, slice_ in enumerate(names):
            n = int(rows.of_group(number, at)[1].sum())
            if slice_ is not None and not n:
                continue
            for column in self._columns():
                counts = observed.counts.get(column, Counts())
                own, found = self._column(column, slice_, n, *counts.of_group(number, at))
                if slice_ is None and column in observed.names:
                    own = replace(own, unseen=dict(list(
                        observed.names[column].in_window(number).items())[:10]))
                judged.append((own, found))
        if whole:
            judged.append((Judged(ALL, None, int(rows.of_group(number, 0)[1].sum()), OK),
                           [(MEASURES[m], f) for m, f in whole.items()
                            if self.config.measures is None or m in self.config.measures]))
        adjusted = iter(benjamini_hochberg([f.p for _, found in judged for _, f in found]))
        columns = tuple(self._stated(own, [(m, f, next(adjusted)) for m, f in found])
                        for own, found in judged)
        total = int(rows.of_group(number, 0)[1].sum())
        state = worst_of(c.state for c in columns) if total >= self.config.least else INSUFFICIENT
        return Window(number, *windows.bounds(number), total, state, columns)

    def _columns(self) -> list[str]:
        return [c for c in self.reference.columns
                if self.config.columns is None
                or c in (*self.config.columns, PREDICTION, CONFIDENCE)]

    def _column(
        self, name: str, slice_: str | None, rows: int, cells: np.ndarray, counts: np.ndarray
    ) -> tuple[Judged, list[tuple[Measure, Found]]]:
        """A column's measures, before it is known what else was tested."""
        known, config = self.reference.columns[name], self.config
        pair = Pair(self.shapes[name], cells, counts, config.least)
        why = self.absent.get(name) or (known.why if not known.rows else None)
        if why is None and pair.rows < config.least:
            why = f"{pair.rows:,} rows, and {config.least:,} are needed"
        if why is not None:
            return Judged(name, slice_, rows, INSUFFICIENT, why=why), []
        wanted = list(MEASURES if config.measures is None else config.measures)
        if slice_ is not None:  # the reference is of all rows: what it is within one is not known
            wanted = [m for m in wanted if m in OF_CONTRACT]
        found = [(MEASURES[m], f) for m in wanted if known.only is None or m in known.only
                 if (f := MEASURES[m].compute(pair)) is not None]
        why = known.why
        if why is None and not pair.compared:
            values = int(pair.counts.sum())
            why = (f"{values:,} values, and {config.least:,} are needed" if values < config.least
                   else f"{known.present:,} values in training, and {config.least:,} are needed")
        return Judged(name, slice_, rows, OK, why=why), found

    def _stated(
        self, own: Judged, found: Sequence[tuple[Measure, Found, float]]
    ) -> Judged:
        measures = []
        for m, f, q in found:
            limit = self.config.thresholds.get(m.name)
            warn = m.warn if limit is None or limit.warn is None else limit.warn
            alert = m.alert if limit is None or limit.alert is None else limit.alert
            sure = q <= self.config.false_alarms
            state = ALERT if sure and f.effect >= alert else WARN if sure and f.effect >= warn \
                else OK
            measures.append(Measured(m.name, f.value, f.effect, f.p, q, warn, alert, state))
        state = worst_of(m.state for m in measures)
        if state == OK and own.why is not None and not _moving(own.why):
            state = INSUFFICIENT
        return replace(own, state=state, measures=tuple(measures))


def _moving(why: str) -> bool:
    """Whether a column is only ever judged by its gaps and types."""
    return why.startswith(("time moves", "it has more"))
