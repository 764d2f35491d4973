"""How often monitoring warns where nothing has drifted, and how often where something has.

    python benchmarks/drift_alarms.py --out benchmarks/results/drift_alarms.json
    python benchmarks/drift_alarms.py --evidently VENV/bin/python   # the same windows by Evidently

Fifty columns of many laws; 1,000 windows without drift at each of 1,000, 10,000 and 1,000,000
rows, a new reference of 20,000 rows for every 50 windows; then windows in which one column has
moved. A window alarms where any column of it is ``warn`` or ``alert``. Exit code 1 if more windows
alarm than is stated, or a shift is found less often than Evidently finds it at a rate of false
alarms as low.

Windows are drawn as counts: how many of n independent rows fall into each cell is multinomial,
with the law's own probability of each cell, so that a window of a million rows costs no more than
one of a thousand. ``--check`` windows are drawn row by row from the same counts and sent through
the scan's own code, which must count the same. Evidently gets rows that lie as the counts say.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import stats

from gpupipe.config.monitor import MonitorConfig
from gpupipe.engine.frames import Column, NumpyFrames
from gpupipe.monitor.cells import ABOVE, BELOW, FIRST, MISSING, UNSEEN, Bins, Levels, Values
from gpupipe.monitor.counts import Counts
from gpupipe.monitor.judge import ALERT, WARN, Judge
from gpupipe.monitor.reference import Known, Reference
from gpupipe.monitor.scan import ROWS, Observed
from gpupipe.monitor.windows import Windows
from gpupipe.stats.quantiles import bin_edges

FX = NumpyFrames()
SIZES = (1_000, 10_000, 1_000_000)
REFERENCE = 20_000
BLOCK = 50
"""Windows that share a reference."""
EDGES = bin_edges()


@dataclass(frozen=True)
class Law:
    """How a column's values are drawn: a SciPy distribution, or shares of levels."""

    name: str
    of: Any
    gaps: float = 0.0

    @property
    def discrete(self) -> bool:
        return hasattr(self.of, "pmf")

    @property
    def levels(self) -> np.ndarray | None:
        return self.of if isinstance(self.of, np.ndarray) else None


def laws() -> list[Law]:
    """Fifty columns: 35 of numbers, 5 of whole numbers, 10 of text."""
    found = [Law(f"n{i:02}", stats.norm(10 * i - 40, 1 + i), 0.1 * (i % 5 == 4)) for i in range(10)]
    found += [Law(f"n{10 + i}", stats.lognorm(0.3 + 0.25 * i)) for i in range(8)]
    found += [Law(f"n{18 + i}", stats.gamma(0.5 + i, scale=3), 0.3 * (i == 0)) for i in range(6)]
    found += [Law(f"n{24 + i}", stats.uniform(-i, 2 * i + 1)) for i in range(5)]
    found += [Law(f"n{29 + i}", stats.t(2 + i)) for i in range(6)]
    found += [Law(f"n{35 + i}", stats.poisson(0.5 + 2 * i)) for i in range(5)]
    for i in range(10):
        share = 1 / np.arange(1, (2, 3, 4, 6, 10, 20, 40, 80, 150, 300)[i] + 1) ** (0.2 + 0.13 * i)
        found.append(Law(f"c{i}", share / share.sum()))
    return found


@dataclass(frozen=True)
class Drawn:
    """A column's reference, and the parts into which the line is cut.

    Attributes
    ----------
    edges : where parts begin and end (numbers); the values, where each is a part.
    cell, below, above : of each part: its cell, and whether it lies beyond the reference's range.
    """

    law: Law
    known: Known
    edges: np.ndarray
    cell: np.ndarray
    below: np.ndarray
    above: np.ndarray

    def shares(self, law: Any) -> np.ndarray:
        """The chance of each part under a law."""
        if law is self.law.of:
            return self.own
        return self._shares(law)

    @cached_property
    def own(self) -> np.ndarray:
        """The chance of each part under the column's own law."""
        return self._shares(self.law.of)

    def _shares(self, law: Any) -> np.ndarray:
        if isinstance(law, np.ndarray):
            return law
        share = law.pmf(self.edges) if self.law.discrete else np.diff(law.cdf(self.edges))
        return np.maximum(share, 0) / share.sum()


def drawn(law: Law, rng: np.random.Generator) -> Drawn:
    """A reference of `REFERENCE` rows of a law."""
    n = REFERENCE - rng.binomial(REFERENCE, law.gaps)
    gaps = REFERENCE - n
    if law.levels is not None:
        values = rng.choice(len(law.of), n, p=law.of)
        counts = np.bincount(values, minlength=len(law.of))
        order = np.argsort(-counts, kind="stable")
        seen = order[counts[order] > 0]
        place = np.full(len(law.of), -1)
        place[seen] = np.arange(len(seen))
        known = Known(law.name, "string", Levels(pa.array([str(v) for v in seen])),
                      FIRST + np.arange(len(seen)), counts[seen], REFERENCE, gaps,
                      once=int((counts == 1).sum()))
        nothing = np.zeros(len(law.of), bool)
        return Drawn(law, known, np.arange(len(law.of)),
                     np.where(place >= 0, FIRST + place, UNSEEN), nothing, nothing)
    values = law.of.rvs(n, random_state=rng)
    if law.discrete:
        held, counts = np.unique(values.astype(np.int64), return_counts=True)
        coder = Values(held)
        support = np.arange(0, int(law.of.ppf(1 - 1e-12)) + 3)
        known = Known(law.name, "int64", coder, FIRST + 2 * np.arange(len(held)) + 1, counts,
                      REFERENCE, gaps, once=int((counts == 1).sum()))
        nothing = np.zeros(len(support), bool)
        return Drawn(law, known, support, coder.cells(Column("int64", support), FX), nothing,
                     nothing)
    low, high = float(values.min()), float(values.max())
    bins = Bins(low, high)
    cells, counts = np.unique(bins.cells(Column("float64", values), FX), return_counts=True)
    known = Known(law.name, "float64", bins, cells, counts, REFERENCE, gaps)
    inner = EDGES[(law.of.cdf(EDGES) > 1e-16) & (law.of.sf(EDGES) > 1e-16)]
    edges = np.unique(np.concatenate([[-np.inf, low, high, np.inf], inner]))
    begin, _ = _insides(edges, low, high)
    probe = np.append(np.nextafter(np.float32(edges[1]), np.float32(-np.inf)), begin[1:-1])
    cell = bins.cells(Column("float64", probe.astype(np.float64)), FX)
    return Drawn(law, known, edges, cell, edges[1:] <= low, edges[:-1] >= high)


def _insides(edges: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The least value of the part that begins at each edge, the greatest of that which ends there.

    A bin is one of float32 values. The reference's range takes in both its ends.
    """
    first = np.where(edges == high, np.nextafter(edges, np.inf), edges)
    last = np.where(np.isin(edges, (low, high)), np.nextafter(edges, -np.inf),
                    np.nextafter(edges.astype(np.float32), np.float32(-np.inf)))
    return first, np.where(edges == high, high, last)


@dataclass(frozen=True)
class Window:
    """What was drawn of a window: rows in each part of each column, and rows without a value."""

    rows: int
    parts: dict[str, np.ndarray]
    gaps: dict[str, int]


def window_of(
    columns: list[Drawn], n: int, rng: np.random.Generator, moved: dict[str, Any] | None = None,
    gap: dict[str, float] | None = None,
) -> Window:
    """``n`` rows; ``moved`` columns are of other laws, ``gap`` ones lack other shares."""
    parts, gaps = {}, {}
    for d in columns:
        name = d.law.name
        gaps[name] = int(rng.binomial(n, (gap or {}).get(name, d.law.gaps)))
        law = (moved or {}).get(name, d.law.of)
        parts[name] = rng.multinomial(n - gaps[name], d.shares(law))
    return Window(n, parts, gaps)


def observed(columns: list[Drawn], window: Window) -> Observed:
    """The window as a scan counts it."""
    counts = {ROWS: Counts.of(np.zeros(1), np.zeros(1), np.array([FIRST]),
                              np.array([window.rows]))}
    for d in columns:
        part = window.parts[d.law.name]
        held = np.flatnonzero(part)
        cells = [d.cell[held], [MISSING, BELOW, ABOVE]]
        rows = [part[held], [window.gaps[d.law.name], part[d.below].sum(), part[d.above].sum()]]
        cell, count = np.concatenate(cells), np.concatenate(rows)
        cell, count = cell[count > 0], count[count > 0]
        counts[d.law.name] = Counts.of(np.zeros(len(cell)), np.zeros(len(cell)), cell, count)
    return Observed(counts)


def rows_of(d: Drawn, window: Window, rng: np.random.Generator, law: Any = None) -> np.ndarray:
    """Rows that lie as a window's counts say, in any order; NaN for those without a value."""
    part = window.parts[d.law.name]
    law = d.law.of if law is None else law
    at = np.repeat(np.arange(len(part)), part)
    if d.law.discrete or d.law.levels is not None:
        values = d.edges[at].astype(np.float64)
    else:
        ends = law.cdf(d.edges)
        share = ends[at] + (ends[at + 1] - ends[at]) * rng.random(len(at))
        values = law.ppf(np.clip(share, 1e-15, 1 - 1e-15))
        # Rounding (a bin is one of float32 values) may carry a value over its part's end.
        first, last = _insides(d.edges, d.known.coder.low, d.known.coder.high)
        values = np.clip(values, first[at], last[at + 1])
    return np.concatenate([values, np.full(window.gaps[d.law.name], np.nan)])


def check(columns: list[Drawn], window: Window, rng: np.random.Generator) -> None:
    """The scan's own cells of rows are the counts that were drawn."""
    from gpupipe.monitor.counts import Groups, equal, together
    from gpupipe.monitor.scan import _counted

    expected = observed(columns, window)
    for d in columns:
        if d.law.levels is not None:
            continue
        values = rows_of(d, window, rng)
        column = Column("float64", values)
        groups = Groups.of(np.zeros(len(values), np.int64))
        found = together(_counted(d.known, column, None, groups, FX))
        assert equal(found, expected.counts[d.law.name]), d.law.name


SHIFTS: dict[str, tuple[str, Any]] = {
    "mean by a quarter of a deviation": ("n02", lambda law: stats.norm(
        law.mean() + 0.25 * law.std(), law.std())),
    "mean by half a deviation": ("n02", lambda law: stats.norm(
        law.mean() + 0.5 * law.std(), law.std())),
    "deviation times 1.5": ("n03", lambda law: stats.norm(law.mean(), 1.5 * law.std())),
    "skewed values times 1.3": ("n11", lambda law: stats.lognorm(law.args[0], scale=1.3)),
    "counts by half a deviation": ("n37", lambda law: stats.poisson(
        law.mean() + 0.5 * law.std())),
    "a tenth of the rows to the rarest of 6 levels": ("c3", lambda law: np.append(
        0.9 * law[:-1], 0.9 * law[-1] + 0.1)),
    "mean by a tenth of a deviation": ("n02", lambda law: stats.norm(
        law.mean() + 0.1 * law.std(), law.std())),
}


def judge_of(columns: list[Drawn], config: MonitorConfig) -> Judge:
    return Judge.of(Reference({d.law.name: d.known for d in columns}), config)


def states(judge: Judge, columns: list[Drawn], window: Window) -> dict[str, str]:
    """The state of each column."""
    found = judge.window(0, observed(columns, window), Windows(None, "rows"))
    return {c.column: c.state for c in found.columns}


def evidently(
    python: str, columns: list[Drawn], windows: list[tuple[list[Drawn], Window, dict[str, Any]]],
    reference: int, rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Evidently's answers on some columns of windows, with a reference of so many rows of the law.

    The windows' columns may be those of another reference: a law is cut elsewhere there.
    """
    with tempfile.TemporaryDirectory() as folder:
        base = window_of(columns, reference, rng)
        np.savez(Path(folder) / "reference.npz",
                 **{d.law.name: rows_of(d, base, rng) for d in columns})
        for i, (own, window, moved) in enumerate(windows):
            np.savez(Path(folder) / f"window-{i:05}.npz", **{
                d.law.name: rows_of(d, window, rng, moved.get(d.law.name)) for d in own})
        script = Path(__file__).parent / "rivals" / "evidently_drift.py"
        done = subprocess.run([python, str(script), folder], capture_output=True, text=True,
                              check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def calm(asked: argparse.Namespace, n: int, rng: np.random.Generator, kept: list[Any]) -> Any:
    """How many windows without drift alarm, and alert; the first ``kept`` ones stay there."""
    alarms, alerts = 0, 0
    for block in range(-(-asked.windows // BLOCK)):
        columns = [drawn(law, rng) for law in laws()]
        judge = judge_of(columns, MonitorConfig())
        if block == 0:
            for _ in range(asked.check if n <= 10_000 else 0):
                check(columns, window_of(columns, n, rng), rng)
        for _ in range(min(BLOCK, asked.windows - block * BLOCK)):
            window = window_of(columns, n, rng)
            found = set(states(judge, columns, window).values())
            alarms += bool(found & {WARN, ALERT})
            alerts += ALERT in found
            if len(kept) < asked.rival[SIZES.index(n)]:
                kept.append((columns, window, {}))
    return alarms, alerts


def beside(
    asked: argparse.Namespace, size: dict[str, Any], kept: list[Any], columns: list[Drawn],
    shifted: dict[str, list[tuple[Window, dict[str, Any]]]], rng: np.random.Generator,
) -> None:
    """Evidently on the same windows, by its defaults with either reference."""
    few = max(3, min(len(kept), asked.shifted))
    plan = [(what, [d for d in columns if d.law.name == SHIFTS[what][0]], w, moved)
            for what, windows in shifted.items() for w, moved in windows[:few]]
    for label, reference in (("evidently", REFERENCE), ("evidently_1000", 1000)):
        told = evidently(asked.evidently, columns, [*kept, *(p[1:] for p in plan)], reference, rng)
        quiet, rest = told[: len(kept)], told[len(kept):]
        size[label] = {
            "windows": len(quiet), "rate": float(np.mean([any(t["drifted"]) for t in quiet])),
            "columns": float(np.mean([t["drifted"] for t in quiet])),
            "seconds_a_window": float(np.mean([t["seconds"] for t in quiet])),
            "tests": sorted(set(quiet[0]["test"]))}
        scores = np.array([t["score"] for t in quiet])
        distance = reference == REFERENCE
        # Its threshold moved to where none of the windows without drift alarms.
        limit = max(scores.max(), 0.1) if distance else scores.min()
        for what in shifted:
            mine = [t for p, t in zip(plan, rest, strict=True) if p[0] == what]
            score = np.array([t["score"][0] for t in mine])
            size["power"][what][label] = float(np.mean([t["drifted"][0] for t in mine]))
            size["power"][what][f"{label}_matched"] = float(np.mean(
                score > limit if distance else score < limit))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, choices=SIZES)
    parser.add_argument("--shifted", type=int, default=60, help="windows of each shift")
    parser.add_argument("--check", type=int, default=5)
    parser.add_argument("--evidently", help="the Python of an environment with evidently")
    parser.add_argument("--rival", type=int, nargs=3, default=(100, 40, 2),
                        help="windows without drift that Evidently judges at each size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="sizes that it holds already stay there")
    asked = parser.parse_args()
    stated, failed = MonitorConfig().false_alarms, []
    result: dict[str, Any] = {"stated": stated, "columns": len(laws()), "windows": asked.windows,
                              "reference": REFERENCE, "sizes": {}}
    if asked.out and asked.out.exists():
        result["sizes"] = json.loads(asked.out.read_text())["sizes"]
    for n in asked.sizes:
        rng = np.random.default_rng([asked.seed, n])
        started, kept = time.process_time(), []
        alarms, alerts = calm(asked, n, rng, kept)
        size: dict[str, Any] = {
            "alarms": alarms, "alerts": alerts, "rate": alarms / asked.windows,
            "cpu_seconds_a_window": (time.process_time() - started) / asked.windows, "power": {}}
        columns = [drawn(law, rng) for law in laws()]
        judge, shifted = judge_of(columns, MonitorConfig()), {}
        for what, (name, moves) in SHIFTS.items():
            moved = {name: moves(next(x.of for x in laws() if x.name == name))}
            shifted[what] = [(window_of(columns, n, rng, moved), moved)
                             for _ in range(asked.shifted)]
            said = [states(judge, columns, w)[name] for w, _ in shifted[what]]
            size["power"][what] = {"gpupipe": float(np.mean([s in (WARN, ALERT) for s in said])),
                                   "gpupipe_alert": float(np.mean([s == ALERT for s in said]))}
        print(json.dumps({str(n): size}, indent=1), flush=True)
        if asked.evidently:
            beside(asked, size, kept, columns, shifted, rng)
            print(json.dumps({str(n): size}, indent=1), flush=True)
        result["sizes"][str(n)] = size
        if alarms > stated * asked.windows:
            failed.append(f"{alarms} of {asked.windows} windows of {n:,} rows alarm")
        failed += [f"{what}, {n:,} rows: {p['gpupipe']:.2f} against {p['evidently_matched']:.2f}"
                   for what, p in size["power"].items()
                   if p["gpupipe"] + 0.02 < p.get("evidently_matched", 0.0)]
        if asked.out:
            asked.out.write_text(json.dumps(result, indent=1) + "\n")
    print("\n".join(failed) or "all is as stated")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
