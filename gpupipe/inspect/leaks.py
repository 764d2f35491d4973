"""The leak linter: everything that may give the target away in a sample of a split table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.data.dataset import Dataset
from gpupipe.errors import GateError
from gpupipe.inspect.columns import Column
from gpupipe.inspect.findings import Finding, ordered
from gpupipe.inspect.leaks_columns import column_findings
from gpupipe.inspect.leaks_functions import function_findings
from gpupipe.inspect.leaks_rows import row_findings
from gpupipe.inspect.leaks_sample import Sample, sample_of
from gpupipe.inspect.leaks_time import time_findings
from gpupipe.inspect.relations import Side, row_hashes
from gpupipe.inspect.target import Proposed

ROWS, BUCKETS = 50_000, 5
"""What `init` looks at, and into how many parts it deals the rows."""
LEAST, CERTAIN = 100, 200
"""Fewer rows are not looked at; below so many, nothing is certain enough to stop a run."""


def find_leaks(sample: Sample) -> list[Finding]:
    """What is suspected of leaking, what stops a run first."""
    if sample.rows < LEAST:
        return []
    found = list(column_findings(sample))
    told = [n for f in found if f.severity == "block" for n in f.columns]
    found += function_findings(sample, told)
    found += time_findings(sample)
    # With the target among the features, nearest neighbours share it as a matter of course.
    told = [n for f in found if f.severity == "block" for n in f.columns]
    found += row_findings(sample, told)
    if sample.rows < CERTAIN:
        found = [replace(f, severity="warn") for f in found]
    return ordered(found)


def proposed_sample(
    dataset: Dataset, columns: Sequence[Column], table: pa.Table, target: Proposed
) -> Sample:
    """The sample of a table that has no pipeline yet, as the default split would deal it out:
    by whole rows, a fifth of them judging. IDs and constants are no features."""
    step = -(-dataset.rows // max(1, table.num_rows))
    thin = -(-table.num_rows // ROWS)
    table = table.take(pa.array(np.arange(0, table.num_rows, max(1, thin))))
    sides = [Side.of(table.column(n)) for n in table.column_names if n != target.name]
    known = Side.of(table.column(target.name))
    missing = known.codes < 0
    bucket = (row_hashes(sides, table.num_rows) >> np.uint64(40)) % np.uint64(BUCKETS)
    labels = [label for label, _ in target.classes]
    if target.positive is not None:
        labels.sort(key=lambda label: label == str(target.positive))
    if target.task == "regression":
        assert known.numbers is not None
        missing, y = np.isnan(known.numbers), known.numbers
    else:
        place = {label: i for i, label in enumerate(labels)}
        values = pc.unique(table.column(target.name)).drop_null().to_pylist()
        y = np.array([*(place[str(v)] for v in values), -1])[known.codes]
    return sample_of(
        table, np.arange(table.num_rows) * step * max(1, thin), dataset.rows,
        dtypes={f.name: f.dtype for f in dataset.schema},
        features=[c.name for c in columns if c.role not in ("id", "constant")],
        target=target.name, y=y, classes=labels,
        bucket=np.where(missing, BUCKETS, bucket).astype(np.uint8), nowhere=BUCKETS, judging=[0],
    )


def gate(found: Sequence[Finding]) -> None:
    """Raise GateError where a finding blocks."""
    blocking = [f for f in found if f.blocks]
    if not blocking:
        return
    one = len(blocking) == 1
    lines = [line for f in blocking for line in f.lines()]
    names = ", ".join(f'"{f.name}"' for f in blocking)
    raise GateError(
        f"the target leaks: {len(blocking)} finding{'' if one else 's'} of the linter "
        f"stop{'s' if one else ''} the run", excerpt="\n".join(lines),
        hint=f"mend {'it' if one else 'them'} as above; or, where the values are known at the "
        f"time of predicting, say so: leaks: {{acknowledged: [{names}]}}",
    )
