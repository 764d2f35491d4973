"""The rows a linter looks at: a bounded sample of a split table, each row with its side of it.

A table of more rows is looked at in `BLOCKS` runs of neighbouring rows, one in each of as many
equal stretches of the table, at places drawn from the seed: neighbours are where repeated
entities and the drift of time show. Which rows are taken follows from their numbers and the
seed alone, never from how the table is cut into parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.data.dataset import Dataset, Part
from gpupipe.inspect.columns import plain_table
from gpupipe.inspect.relations import Codes, Floats, Side

BLOCKS = 64
BATCH = 16_384
CELLS = 4_000_000
"""At most so many values are looked at; a table of many columns is sampled more thinly."""

SPELLED = 200

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sample:
    """Rows that take part, with what a linter needs to know of them.

    Attributes
    ----------
    sides : every column but the target, by name.
    features : the columns that a model sees.
    dtypes : the logical type of each column.
    target : its name.
    labels : class codes ``[n]`` int64 (0 for a regression).
    numbers : the target ``[n]`` float64 of a regression, else None.
    classes : the labels' texts.
    bucket : the split's bucket ``[n]`` uint8.
    judged : whether the row is one that judges (the holdout, or else the last fold) ``[n]``.
    row : the row's number in the table ``[n]``, ascending.
    total : rows of the whole table.
    by, group, time, gap : how the split deals rows out.
    """

    sides: Mapping[str, Side]
    features: tuple[str, ...]
    dtypes: Mapping[str, str]
    target: str
    labels: Codes
    numbers: Floats | None
    classes: tuple[str, ...]
    bucket: npt.NDArray[np.uint8]
    judged: Bools
    row: Ints
    total: int
    by: str = "random"
    group: tuple[str, ...] = ()
    time: str | None = None
    gap: float = 0.0
    spelled: Mapping[str, Mapping[str, Side]] = field(default_factory=dict)
    """What texts of more than `SPELLED` values are made of: their first characters, ..."""
    gaps: tuple[str, ...] = ()
    """Columns that are missing exactly where the target is."""

    @property
    def rows(self) -> int:
        return len(self.bucket)

    @property
    def regression(self) -> bool:
        return self.numbers is not None

    @property
    def whole(self) -> bool:
        """Whether these are all of the table's rows."""
        return self.rows == self.total

    @cached_property
    def half(self) -> Bools:
        """Two halves ``[n]`` of whole buckets: what one knows, the other is asked."""
        _, place = np.unique(self.bucket, return_inverse=True)
        return np.asarray(place % 2 == 0)

    @cached_property
    def ranks(self) -> Floats:
        """The target's rank (ties: the mean rank), 0 to 1, of a regression."""
        assert self.numbers is not None
        return ranked(self.numbers)

    @cached_property
    def unique(self) -> tuple[str, ...]:
        """Columns of whole numbers or text in which (nearly) every row has its own value."""
        return tuple(
            name for name, side in self.sides.items()
            if self.dtypes[name] in ("int64", "string")
            and side.distinct >= 0.98 * max(1, int((side.codes >= 0).sum()))
            and (side.codes >= 0).mean() > 0.5
        )

    def inputs(self) -> dict[str, Side]:
        """The features' columns."""
        return {name: self.sides[name] for name in self.features}


def ranked(values: Floats) -> Floats:
    """The mean rank of each value ``[n]``, as a share of the rows."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - (counts - 1) / 2.0)[place] - 0.5) / max(1, len(values))


def chosen_rows(total: int, wanted: int, seed: int) -> Ints:
    """Row numbers, ascending: all, or `BLOCKS` runs of neighbours spread over the table."""
    if total <= wanted:
        return np.arange(total)
    blocks = min(BLOCKS, wanted)
    length = wanted // blocks
    edges = np.linspace(0, total, blocks + 1).astype(np.int64)
    room = np.diff(edges) - length
    starts = edges[:-1] + np.random.default_rng(seed).integers(0, room + 1)
    return np.asarray((starts[:, None] + np.arange(length)).ravel())


def read_rows(dataset: Dataset, rows: Ints, threads: int = 1) -> pa.Table:
    """The table of these rows (ascending numbers); parts that hold none are not read."""
    names = dataset.schema.names

    def of_part(job: tuple[Part, Ints]) -> list[pa.Table]:
        (part, here), found, offset = job, [], 0
        for table in part.stream(names, BATCH):
            mine = here[(here >= offset) & (here < offset + table.num_rows)] - offset
            offset += table.num_rows
            if len(mine):
                found.append(plain_table(table.take(pa.array(mine))))
            if offset > here[-1]:
                break
        return found

    jobs, start = [], 0
    for part in dataset.parts:
        here = rows[(rows >= start) & (rows < start + part.rows)] - start
        start += part.rows
        if len(here):
            jobs.append((part, here))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        found = [table for tables in pool.map(of_part, jobs) for table in tables]
    if not found:
        return plain_table(dataset.schema.to_arrow().empty_table())
    return pa.concat_tables(found).combine_chunks()


def sample_of(
    table: pa.Table, rows: Ints, total: int, *, dtypes: Mapping[str, str],
    features: Sequence[str], target: str, y: npt.NDArray, classes: Sequence[str],
    bucket: npt.NDArray[np.uint8], nowhere: int, judging: Sequence[int], by: str = "random",
    group: Sequence[str] = (), time: str | None = None, gap: float = 0.0,
) -> Sample:
    """The sample of ``table``'s rows that take part.

    ``y`` is the target: class codes, or values where there are no ``classes``. Rows of bucket
    ``nowhere`` are left out; ``judging`` are the buckets that judge.
    """
    bucket_gaps = bucket == nowhere
    kept = np.flatnonzero(~bucket_gaps)
    taken = table if len(kept) == table.num_rows else table.take(pa.array(kept))
    y, bucket = y[kept], bucket[kept]
    sides = {n: Side.of(taken.column(n)) for n in taken.column_names if n != target}
    own = [n for n, s in sides.items() if dtypes[n] == "string" and s.distinct > SPELLED]
    spelled = {n: spelling(taken.column(n), classes) for n in own}
    gaps = same_gaps(table, [n for n in features if n in sides], bucket_gaps)
    regression = not classes
    return Sample(
        sides, tuple(n for n in features if n in sides), dtypes, target,
        np.zeros(len(y), np.int64) if regression else y.astype(np.int64),
        y.astype(np.float64) if regression else None, tuple(classes), bucket,
        np.isin(bucket, list(judging)), rows[kept], total, by, tuple(group), time, gap,
        spelled, gaps,
    )


def same_gaps(table: pa.Table, names: Sequence[str], missing: Bools) -> tuple[str, ...]:
    """The columns that are missing exactly where the target is (in ten rows at least)."""
    if missing.sum() < 10:
        return ()
    return tuple(
        n for n in names if table.column(n).null_count == missing.sum()
        and np.array_equal(table.column(n).is_null().to_numpy(), missing)
    )


def spelling(column: pa.ChunkedArray, classes: Sequence[str]) -> dict[str, Side]:
    """What a text is made of, each as a column: its ends, its length, its last number, and which
    label (of three letters or more) stands in it."""
    found = {how: pc.utf8_slice_codeunits(column, 0, k) for k, how in (
        (1, "first character"), (2, "first two characters"), (3, "first three characters"))}
    found["last character"] = pc.utf8_slice_codeunits(column, -1)
    found["length"] = pc.utf8_length(column)
    last = pc.struct_field(pc.extract_regex(column, r"(?P<n>\d{1,15})\D*$"), "n")
    found["last number"] = last.cast(pa.int64())
    lowered = pc.utf8_lower(column)
    for label in classes if len(classes) <= 10 else ():
        if len(label) >= 3:
            found[f"text {label!r}"] = pc.match_substring(lowered, label.lower())
    return {how: Side.of(part) for how, part in found.items()}
