"""What `gpupipe init` does: look at a table, say what is odd about it, propose a pipeline file.

`columns` scans, `relations` compares, `target` proposes what to predict, `write` puts it on
paper. Nothing is decided behind the user's back: only IDs and constants are dropped, by name
and with the reason beside; a suspected leak is named and left for the user to judge.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from gpupipe.console import Progress, quiet, reading
from gpupipe.data.dataset import Dataset
from gpupipe.data.ingest import ingest
from gpupipe.errors import ConfigError
from gpupipe.inspect.columns import Column, looks_like_id, scan
from gpupipe.inspect.findings import Finding
from gpupipe.inspect.leaks import find_leaks, proposed_sample
from gpupipe.inspect.relations import (
    Side,
    out_of_order,
    repeated_rows,
    same_information,
    sentinel,
)
from gpupipe.inspect.target import Proposed, propose_target

Kind = Literal[
    "note", "id", "constant", "duplicate", "leak", "strong", "code", "sentinel", "text", "split",
]

@dataclass(frozen=True)
class Remark:
    """Something about columns that the user should know."""

    kind: Kind
    columns: tuple[str, ...]
    text: str
    finding: Finding | None = None
    """What the leak linter found, where it did."""


@dataclass(frozen=True)
class Inspection:
    """What was seen in a table, and what is proposed for it."""

    source: str
    rows: int
    columns: tuple[Column, ...]
    target: Proposed
    group: str | None
    time: str | None
    remarks: tuple[Remark, ...]

    def drops(self) -> list[Column]:
        """The columns to leave out: what names rows, and what never varies."""
        return [
            c for c in self.columns
            if c.role in ("id", "constant") and c.name not in (self.target.name, self.time)
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source, "rows": self.rows,
            "columns": [c.to_json() for c in self.columns],
            "target": {
                "name": self.target.name, "task": self.target.task,
                "positive": self.target.positive,
            },
            "drop": [c.name for c in self.drops()],
            "group": self.group, "time": self.time,
            "remarks": [
                {"kind": r.kind, "columns": list(r.columns), "text": r.text,
                 **({"finding": r.finding.to_json()} if r.finding else {})}
                for r in self.remarks
            ],
        }


@dataclass(frozen=True)
class Proposal:
    """An inspection and the pipeline file that was written from it."""

    inspection: Inspection
    output: Path

    def to_json(self) -> dict[str, Any]:
        return {"output": str(self.output), **self.inspection.to_json()}


def propose(
    source: str, target: str | None, output: Path, *, force: bool = False,
    reader: Mapping[str, Any] | None = None, progress: Progress | None = None,
) -> Proposal:
    """Look at ``source`` and write a pipeline file for it to ``output``.

    ``reader`` holds options of `ingest` (encoding, delimiter, ...); they go into the file.

    Raises ConfigError where ``output`` is there (and not ``force``), and where no target is
    given and none stands out; DataError where the source cannot be read.
    """
    from gpupipe.inspect.write import write_pipeline

    if output.exists() and not force:
        raise ConfigError(
            "this file is there already", where=str(output),
            hint="--force overwrites it, --output names another",
        )
    if not output.parent.is_dir():
        raise ConfigError("there is no such folder", where=str(output.parent))
    with tempfile.TemporaryDirectory(prefix="gpupipe-init-") as cache:
        with reading(progress) as report:
            dataset = ingest(source, cache=Path(cache), progress=report, **(reader or {}))
        inspection = inspect(dataset, target, progress=progress)
    write_pipeline(inspection, source, output, reader or {})
    return Proposal(inspection, output)


def inspect(
    dataset: Dataset, target: str | None = None, *, progress: Progress | None = None
) -> Inspection:
    """Look at every column of ``dataset`` (one scan, bounded memory) and at how they relate
    (a sample of at most 100,000 rows).

    Raises ConfigError where ``target`` is no column, or is None and none stands out.
    """
    columns, sample = scan(dataset, progress)
    proposed = propose_target(dataset, columns, target)
    with quiet(progress).stage("compare", total=len(columns), unit="columns") as stage:
        sides = {c.name: Side.of(sample.column(c.name)) for c in columns}
        judged = sides.pop(proposed.name)
        remarks = [
            *(Remark("note", (), note) for note in dataset.notes),
            *_own(columns, proposed),
            *_nulls(sample, proposed),
            *_repeats([*sides.values(), judged]),
        ]
        findings = find_leaks(proposed_sample(dataset, columns, sample, proposed))
        remarks += _suspected(findings)
        kept = {
            c.name: sides[c.name] for c in columns
            if c.name in sides and c.role not in ("id", "constant")
        }
        remarks += _alike(kept)
        remarks += _values(kept, columns, judged, proposed)
        stage.advance(len(columns))
    group, time = _group(columns, proposed.name), _time(columns, proposed.name)
    remarks += _splits(group, time)
    return Inspection(
        dataset.source, dataset.rows, columns, proposed, group, time, tuple(remarks)
    )


def _own(columns: tuple[Column, ...], target: Proposed) -> Iterator[Remark]:
    """What is odd about a column by itself."""
    for c in columns:
        if c.name == target.name:
            continue
        if c.role == "constant":
            yield Remark("constant", (c.name,), f"{c.name!r} is {c.why}")
        elif c.role == "id":
            yield Remark("id", (c.name,), f"{c.name!r}: {c.why}")
        elif _dressed(c):
            yield Remark("note", (c.name,), (
                f"{c.name!r} looks like numbers, but is read as text because of how they are "
                f"written ({c.examples[0]}): write plain ones such as 1234.5"
            ))
        elif c.role == "text":
            yield Remark(
                "text", (c.name,), f"{c.name!r} is free text ({c.distinct_text} distinct)"
            )


def _dressed(column: Column) -> bool:
    """Whether a text column's values are numbers with a decimal comma, a currency or a %."""
    return column.dtype == "string" and bool(column.examples) and all(
        re.fullmatch(r"[-+]?[$£€]?\s?\d[\d.,' ]*\s?[%$£€]?", v) and re.search(r"[,%$£€']", v)
        for v in column.examples
    )


def _nulls(sample: pa.Table, target: Proposed) -> Iterator[Remark]:
    """The target's own gaps."""
    count = sample.column(target.name).null_count
    if count:
        yield Remark("note", (target.name,), (
            f"the target {target.name!r} is missing in {count / sample.num_rows:.1%}"
        ))


def _repeats(sides: list[Side]) -> Iterator[Remark]:
    share = repeated_rows(sides)
    if share > 0.01:
        yield Remark("note", (), (
            f"at least {_percent(share)} of rows repeat another; splits keep them together"
        ))


def _suspected(findings: Sequence[Finding]) -> Iterator[Remark]:
    """The linter's findings as remarks."""
    for f in findings:
        yield Remark("strong" if f.rule == "strong" else "leak", f.columns, f.text, f)


def _alike(sides: dict[str, Side]) -> Iterator[Remark]:
    for first, second, equal in same_information(sides):
        how = "equals" if equal else "goes one to one with"
        yield Remark("duplicate", (first, second), f"{second!r} {how} {first!r}")


def _values(
    sides: dict[str, Side], columns: tuple[Column, ...], judged: Side, target: Proposed
) -> Iterator[Remark]:
    """Numbers that stand for something else."""
    for c in columns:
        if c.name not in sides or c.role != "numeric":
            continue
        odd = sentinel(sides[c.name])
        if odd:
            yield Remark("sentinel", (c.name,), (
                f"{c.name!r} is {odd[0]:g} in {_percent(odd[1])} of rows, apart from all other "
                "values: does it mean missing?"
            ))
        if c.dtype != "int64":
            continue
        few = c.distinct is not None and 3 <= c.distinct <= 1000
        named = looks_like_id(c.name) or c.name.lower().endswith(("code", "type", "zip", "zone"))
        if few and (named or out_of_order(sides[c.name], judged, target.task == "regression")):
            yield Remark("code", (c.name,), (
                f"{c.name!r} holds {c.distinct} numbers that look like codes: "
                f"data.types: {{{c.name}: string}} would treat them as categories"
            ))


def _splits(group: str | None, time: str | None) -> Iterator[Remark]:
    if time:
        yield Remark("split", (time,), (
            f"the rows are in the order of {time!r}: to predict the future, split.time: {time}"
        ))
    if group:
        yield Remark("split", (group,), (
            f"{group!r} names things that come back in several rows: to predict for new ones, "
            f"split.group: {group}"
        ))


def _group(columns: tuple[Column, ...], target: str) -> str | None:
    """The column that looks like an entity's name and repeats: 2 to 1,000 rows each."""
    for c in columns:
        if c.name == target or c.role == "id" or not looks_like_id(c.name):
            continue
        if c.distinct and c.distinct >= 20 and 2 <= (c.rows - c.nulls) / c.distinct <= 1_000:
            return c.name
    return None


def _time(columns: tuple[Column, ...], target: str) -> str | None:
    """The timestamp (or a number called like one) that rises from row to row."""
    for c in columns:
        timely = c.role == "datetime" or c.name.lower() in ("time", "timestamp", "date", "day")
        if timely and c.ordered and c.name != target and c.dtype != "string":
            return c.name
    return None


def _percent(share: float) -> str:
    digits = max(1, 1 - math.floor(math.log10(share * 100))) if share > 0 else 1
    return f"{share * 100:.{min(digits, 4)}f} %"
