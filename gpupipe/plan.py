"""What a run is going to do, and how much memory that takes, before it does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpupipe.config import PipelineConfig
from gpupipe.data.dataset import Dataset
from gpupipe.data.split import CROSSFIT
from gpupipe.engine.choose import Choice
from gpupipe.steps.graph import Graph

LIBRARIES_BYTES = 290 << 20
"""What Python and the libraries hold before any data (measured)."""
STATE_BYTES = 600 << 10
"""A column's histogram and sums, in each worker and merged (measured)."""


@dataclass(frozen=True)
class Plan:
    """Where a pipeline runs, in how many passes, and in how much memory.

    Attributes
    ----------
    scans : what each pass over the data learns.
    features : columns of the model's matrix, as far as is known before levels are counted.
    memory_bytes : the predicted peak.
    """

    choice: Choice
    rows: int
    columns: int
    features: int
    scans: list[list[str]]
    steps: list[str]
    trainings: int
    memory_bytes: int

    def lines(self) -> list[str]:
        """The plan in words."""
        passes = len(self.scans) + 1 + self.trainings
        text = [
            f"{self.rows:,} rows x {self.columns} columns",
            f"device {self.choice.device} ({self.choice.why}), engine {self.choice.kind}, "
            f"{self.choice.workers} workers, batches of {self.choice.batch_rows:,} rows",
            f"{passes} passes: a profile, {len(self.scans)} to learn, {self.trainings} to train",
        ]
        text += [f"step {i}: {s}" for i, s in enumerate(self.steps, 1)]
        text += [f"scan {i} learns {_short(s)}" for i, s in enumerate(self.scans, 1)]
        text.append(f"predicted peak memory {self.memory_bytes / 2**20:,.0f} MiB")
        return text

    def to_json(self) -> dict[str, Any]:
        return {
            **self.choice.to_json(), "rows": self.rows, "columns": self.columns,
            "features": self.features, "scans": self.scans, "steps": self.steps,
            "trainings": self.trainings, "memory_bytes": self.memory_bytes,
        }


def _short(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def make_plan(
    config: PipelineConfig, dataset: Dataset, choice: Choice, graph: Graph, rows: int
) -> Plan:
    """The plan for a pipeline whose features are bound."""
    width = len(graph.outputs)
    batch = min(rows, choice.batch_rows) * (8 * len(graph.raw) + 12 * width) * 2
    folds = config.split.folds or CROSSFIT
    matrix = rows * width * 4
    # XGBoost keeps a byte or two a cell for the bins, twice, and 20 bytes a row.
    trained = rows * (3 * width + 20)
    states = STATE_BYTES * len(graph.raw) * (choice.workers + 1) + folds * (1 << 20)
    facts = rows * (8 + 8 + 1 + 8)
    peak = LIBRARIES_BYTES + batch * choice.workers + matrix + trained + states + facts
    steps = [f"{s.name} on {_short(list(i))}" for s, i, _ in graph.stages if i]
    return Plan(choice, rows, len(dataset.schema.fields), width, graph.levels(), steps,
                (config.split.folds + 1), int(peak))
