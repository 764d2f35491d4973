"""Two runs' predictions of the same rows, side by side; or an error that says what differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.errors import DataError
from gpupipe.evaluate.metrics import METRICS, Task
from gpupipe.predictions import Kept, read

DATA = "data"
"""The side of rows that two bundles were given, rather than having kept them."""
SIDES = {"holdout": "the holdout", "cross_validation": "the out-of-fold rows"}
WHERE = {**SIDES, DATA: "labelled data"}
HINT = "runs compare where data, key, split and seed are the same"


@dataclass(frozen=True)
class Paired:
    """The same rows in the same order: ``side`` is ``holdout``, ``cross_validation`` or ``data``.

    Above ``thresholds`` the left and the right model say yes (two classes).
    """

    task: Task
    classes: list[str]
    side: str
    left: Kept
    right: Kept
    thresholds: tuple[float, float] = (0.5, 0.5)

    @property
    def y(self) -> np.ndarray:
        return self.left.y

    @property
    def weight(self) -> np.ndarray | None:
        return self.left.weight

    def predictions(self, metric: str, at: Any = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Both models' predictions of the rows ``at``, as `evaluate.scores` takes them.

        For a metric of labels, of two classes, those are 1.0 and 0.0 by each model's threshold.
        """
        left, right = self.left.prediction[at], self.right.prediction[at]
        if self.task != "binary" or METRICS[self.task, metric].needs != "label":
            return left, right
        return tuple((p > t).astype(np.float64)  # type: ignore[return-value]
                     for p, t in zip((left, right), self.thresholds, strict=True))


def paired(left: Path, right: Path, same_data: bool) -> Paired:
    """The rows that both runs judged: the holdout where it is the same, else those out of fold.

    Rows are told by their number in the source where both runs read the ``same_data``, else by
    their key. Raises DataError where tasks, classes, rows or targets are not the same.
    """
    task, classes, mine = read(left)
    other_task, other_classes, theirs = read(right)
    if (task, classes) != (other_task, other_classes):
        raise DataError(
            f"one run predicts {told(task, classes)}, the other "
            f"{told(other_task, other_classes)}",
            where=str(right), hint="compare runs with the same target and positive label",
        )
    tried = []
    for side, name in SIDES.items():
        if side in mine and side in theirs:
            a, b = (_ordered(kept, same_data, run) for kept, run in
                    ((mine[side], left), (theirs[side], right)))
            if _names(a, same_data).equals(_names(b, same_data)):
                check_alike(a, b, right)
                return Paired(task, classes, side, a, b)  # type: ignore[arg-type]
            tried.append(f"{name} of one has {len(a):,} rows and of the other {len(b):,}, of which "
                         f"{_shared(_names(a, same_data), _names(b, same_data)):,} are the same")
    why = "; ".join(tried) or "one has a holdout alone, the other out-of-fold rows alone"
    raise DataError(f"the two runs were not judged on the same rows: {why}", where=str(right),
                    hint=HINT)


def told(task: str, classes: list[str]) -> str:
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


def check_alike(a: Kept, b: Kept, run: Path) -> None:
    """DataError unless the same rows have the same targets and weights on both sides."""
    off = int((a.y != b.y).sum())
    if off:
        raise DataError(f"{off:,} of {len(a):,} rows have another target in the other run",
                        where=str(run), hint="compare runs with the same target")
    if (a.weight is None) != (b.weight is None) or not _alike(a.weight, b.weight):
        raise DataError("the rows have other weights in the other run", where=str(run),
                        hint="compare runs with the same data.weight")


def _alike(a: Any, b: Any) -> bool:
    return (a is None and b is None) or bool((a == b).all())
