"""What fits: how a run is laid out so that it keeps to the memory it was given.

There are three choices, and each takes the fastest way that fits: whether the decoded columns
stay in memory between scans, whether the model's float matrix is made once or streamed again
for every pass of the trainer, and whether its bins lie in memory or in files. All of it is
reckoned from row counts, types and widths: nothing is read for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from gpupipe.engine.machine import memory_limit

MIB = 1 << 20
LIBRARIES_BYTES = 240 * MIB
"""What Python and the libraries hold before any data (measured)."""
STATE_BYTES = 600 << 10
"""A column's histogram and sums, in each worker and merged (measured)."""
SHARE = 0.8
"""Of the machine's memory, what a run takes where nothing else is said."""
WIDTHS = {"float32": 4, "float64": 8, "int64": 9, "bool": 2, "string": 4, "timestamp": 9}
"""Bytes of a kept value, at most: with its mask, and its code where it has one."""
FACT_BYTES = 16
"""A row's key, target, bucket and place."""
TRAINING_BYTES = 50
"""A row's gradients, margins, label and its places in the tree's row lists."""
PAGE_ROWS = 524_288
"""Rows of a page of bins in a file: small ones cost time and memory."""


@dataclass(frozen=True)
class Layout:
    """How a run's data lie.

    Attributes
    ----------
    keep : whether decoded columns stay in memory between scans.
    matrix : ``memory``, or ``streamed`` where it is made anew for every pass.
    bins : ``memory``, or ``disk``.
    peak : the predicted peak of the process, in bytes.
    limit : the bytes it may take.
    why : in words.
    at_once : how many folds are trained side by side.
    together : whether all workers train each model together, on some of the rows each, for one
        alone would not have the memory.
    """

    keep: bool
    matrix: str
    bins: str
    peak: int
    limit: int
    why: str
    at_once: int = 1
    together: bool = False

    def waves(
        self, folds: int, threads: int, remote: bool = False
    ) -> list[tuple[range, int]]:
        """The folds that are trained side by side, one wave after the other; threads of each.

        With ``remote`` workers all are one wave: whoever is free takes the next one.
        """
        if remote:
            return [(range(folds), max(1, threads // self.at_once))] if folds else []
        starts = range(0, folds, self.at_once)
        waves = [range(first, min(first + self.at_once, folds)) for first in starts]
        return [(wave, max(1, threads // len(wave))) for wave in waves]

    @property
    def fits(self) -> bool:
        return self.peak <= self.limit

    def to_json(self) -> dict[str, Any]:
        return {"keep": self.keep, "matrix": self.matrix, "bins": self.bins, "peak": self.peak,
                "limit": self.limit, "why": self.why, "at_once": self.at_once,
                "together": self.together}


@dataclass(frozen=True)
class Memory:
    """The memory a run may take, and what its engine needs of it in any case.

    Attributes
    ----------
    limit : bytes.
    workers, batch_rows : of the engine.
    """

    limit: int
    workers: int
    batch_rows: int

    def scanning(self, rows: int, dtypes: Iterable[str]) -> int:
        """The peak of a scan that keeps nothing: libraries, batches, states, row facts."""
        widths = [WIDTHS[d] for d in dtypes]
        batch = min(rows, self.batch_rows) * (2 * sum(widths) + 96)
        states = STATE_BYTES * len(widths) * (self.workers + 1)
        return LIBRARIES_BYTES + batch * self.workers + states + rows * FACT_BYTES

    def keeps(self, rows: int, dtypes: Iterable[str]) -> bool:
        """Whether the decoded columns may stay: with all else they take half of the limit."""
        dtypes = list(dtypes)
        kept = rows * sum(WIDTHS[d] for d in dtypes)
        return self.scanning(rows, dtypes) + kept <= self.limit / 2

    def lay_out(
        self, rows: int, dtypes: Iterable[str], features: int, folds: int, streams: bool = True,
    ) -> Layout:
        """The fastest layout that fits, or the leanest where none does.

        Parameters
        ----------
        rows, dtypes : of the table.
        features : columns of the model's matrix.
        folds : their judged rows stay until the end, where the matrix is in memory.
        streams : whether the model can learn from a matrix that is streamed.
        """
        dtypes = list(dtypes)
        scan = self.scanning(rows, dtypes)
        kept = rows * sum(WIDTHS[d] for d in dtypes)
        matrix = rows * features * 4 * (2 if folds else 1)
        batches = self.workers * min(rows, self.batch_rows) * features * 12
        page = PAGE_ROWS * features * 6
        training = rows * TRAINING_BYTES
        bins = 2 * rows * features
        facts = LIBRARIES_BYTES + rows * FACT_BYTES
        held = facts + matrix + bins + training
        ways = [
            (True, "memory", "memory", max(scan + kept, facts + kept // 2 + matrix, held)),
            (False, "memory", "memory", max(scan, held)),
        ]
        if streams:
            ways += [
                (False, "streamed", "memory", max(scan, facts + batches + bins + training)),
                (False, "streamed", "disk", max(scan, facts + batches + page + training)),
            ]
        layouts: list[Layout] = []
        for keep, where, where_bins, peak in ways:
            if keep and not self.keeps(rows, dtypes):
                continue
            why = f"{peak / MIB:,.0f} of {self.limit / MIB:,.0f} MiB"
            if layouts:
                why += f" (with {_words(layouts[-1])}: {layouts[-1].peak / MIB:,.0f})"
            layouts.append(Layout(keep, where, where_bins, int(peak), self.limit, why))
            if layouts[-1].fits:
                break
        chosen = layouts[-1]
        if chosen.matrix == "streamed":
            return chosen
        # Each further fold has a training matrix, its bins and its row lists; the columns stay.
        beside = held + (kept // 2 if chosen.keep else 0)
        more = rows * features * 4 + bins + training
        spare = int((chosen.limit - beside) // max(more, 1))
        at_once = max(1, min(folds, self.workers, 1 + spare))
        peak = max(chosen.peak, beside + (at_once - 1) * more if at_once > 1 else 0)
        return replace(chosen, at_once=at_once, peak=int(peak), why=chosen.why.replace(
            f"{chosen.peak / MIB:,.0f}", f"{peak / MIB:,.0f}", 1))


def shared_out(
    memory: Memory, rows: int, dtypes: Iterable[str], features: int, folds: int, streams: bool,
    processes: int,
) -> Layout:
    """The layout for each of several processes, which have all rows in reach.

    Where a model's rows do not fit into one of them, each takes its share of them.
    """
    alone = memory.lay_out(rows, dtypes, features, folds, streams)
    if alone.fits or processes == 1:
        return alone
    share = memory.lay_out(-(-rows // processes), dtypes, features, folds, streams)
    return replace(share, together=True, at_once=1, why=f"{share.why} in each of {processes}")


def _words(layout: Layout) -> str:
    if layout.keep:
        return "columns kept"
    return "the matrix in memory" if layout.matrix == "memory" else "the bins in memory"


def default_limit() -> int:
    """The bytes that a run may take where nothing is said."""
    return int(memory_limit() * SHARE)
