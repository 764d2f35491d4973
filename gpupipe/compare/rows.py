"""Two runs' predictions of the same rows, side by side; or an error that says what differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.errors import DataError
from gpupipe.evaluate.metrics import Task
from gpupipe.predictions import Kept, read

SIDES = {"holdout": "the holdout", "cross_validation": "the out-of-fold rows"}
HINT = "runs compare where data, key, split and seed are the same"


@dataclass(frozen=True)
class Paired:
    """The same rows in the same order: ``side`` is ``holdout`` or ``cross_validation``."""

    task: Task
    classes: list[str]
    side: str
    left: Kept
    right: Kept

    @property
    def y(self) -> np.ndarray:
        return self.left.y

    @property
    def weight(self) -> np.ndarray | None:
        return self.left.weight


def paired(left: Path, right: Path, same_data: bool) -> Paired:
    """The rows that both runs judged: the holdout where it is the same, else those out of fold.

    Rows are told by their number in the source where both runs read the ``same_data``, else by
    their key. Raises DataError where tasks, classes, rows or targets are not the same.
    """
    task, classes, mine = read(left)
    other_task, other_classes, theirs = read(right)
    if (task, classes) != (other_task, other_classes):
        raise DataError(
            f"one run predicts {_told(task, classes)}, the other "
            f"{_told(other_task, other_classes)}",
            where=str(right), hint="compare runs with the same target and positive label",
        )
    tried = []
    for side, name in SIDES.items():
        if side in mine and side in theirs:
            a, b = (_ordered(kept, same_data, run) for kept, run in
                    ((mine[side], left), (theirs[side], right)))
            if _names(a, same_data).equals(_names(b, same_data)):
                _check(a, b, right)
                return Paired(task, classes, side, a, b)  # type: ignore[arg-type]
            tried.append(f"{name} of one has {len(a):,} rows and of the other {len(b):,}, of which "
                         f"{_shared(_names(a, same_data), _names(b, same_data)):,} are the same")
    why = "; ".join(tried) or "one has a holdout alone, the other out-of-fold rows alone"
    raise DataError(f"the two runs were not judged on the same rows: {why}", where=str(right),
                    hint=HINT)


def _told(task: str, classes: list[str]) -> str:
    few = ", ".join(map(repr, classes[:4])) + (", ..." if len(classes) > 4 else "")
    return f"{task} ({few})" if classes else task


def _names(kept: Kept, same_data: bool) -> pa.Table:
    return pa.table({"row": kept.row}) if same_data else kept.names


def _ordered(kept: Kept, same_data: bool, run: Path) -> Kept:
    """The rows in an order of their own; DataError where they have no names, or share them."""
    names = _names(kept, same_data)
    if not names.num_columns:
        raise DataError("the runs read different data, and the rows have no key to match them by",
                        where=str(run), hint="set data.key in both pipelines; " + HINT)
    if names.group_by(names.column_names).aggregate([]).num_rows < len(kept):
        raise DataError("the runs read different data, and several rows share a key",
                        where=str(run), hint="a key that names each row matches them; " + HINT)
    order = pa.compute.sort_indices(names, [(n, "ascending") for n in names.column_names])
    at = order.to_numpy()
    return Kept(kept.names.take(order), kept.row[at], kept.y[at],
                None if kept.weight is None else kept.weight[at], kept.prediction[at],
                {c: levels.take(order) for c, levels in kept.slices.items()})


def _shared(a: pa.Table, b: pa.Table) -> int:
    if a.schema.names != b.schema.names or a.schema.types != b.schema.types:
        return 0
    return int(a.join(b, a.column_names, join_type="inner").num_rows)


def _check(a: Kept, b: Kept, run: Path) -> None:
    off = int((a.y != b.y).sum())
    if off:
        raise DataError(f"{off:,} of {len(a):,} rows have another target in the other run",
                        where=str(run), hint="compare runs with the same target")
    if (a.weight is None) != (b.weight is None) or not _alike(a.weight, b.weight):
        raise DataError("the rows have other weights in the other run", where=str(run),
                        hint="compare runs with the same data.weight")


def _alike(a: Any, b: Any) -> bool:
    return (a is None and b is None) or bool((a == b).all())
