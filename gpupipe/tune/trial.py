"""A trial: one family with its parameters, and how it did out of fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gpupipe.bundle.latency import single_row
from gpupipe.bundle.scoring import Bundle
from gpupipe.bundle.store import Contents
from gpupipe.data.dataset import Dataset
from gpupipe.models import FittedModel
from gpupipe.prepare import Candidate
from gpupipe.select import pruned
from gpupipe.steps import Target
from gpupipe.steps.graph import Fitted
from gpupipe.tune.space import Proposal

TIMED_CALLS = 9
WARM_CALLS = 3
"""Calls of the scorer behind a latency: the median of so many, after three to warm up."""

State = Literal["complete", "pruned", "failed"]


@dataclass
class Trial:
    """What a trial tried and found.

    Attributes
    ----------
    kind, params, features : see `Proposal`.
    score : the metric of all out-of-fold predictions together; None where not all folds were
        trained, or the metric is not defined.
    looks : what the pruner was told: fold or round -> value.
    rounds : boosting rounds, one number for all folds.
    units : rows x rounds that the trainings took.
    seconds : of this machine.
    latency : median seconds to score one record, by the scorer that a bundle has.
    size : bytes of the fitted model of one fold.
    why : what went wrong, where it failed.
    oof : float32 ``[n]`` or ``[n, classes]`` in the order of the out-of-fold rows.
    curves : the folds' validation losses.
    selections : the features that each fold chose, where they were chosen.
    """

    number: int
    kind: str
    params: dict[str, Any]
    features: dict[str, Any]
    state: State = "complete"
    score: float | None = None
    looks: dict[int, float] = field(default_factory=dict)
    rounds: int | None = None
    units: int = 0
    seconds: float = 0.0
    latency: float | None = None
    size: int | None = None
    why: str = ""
    oof: np.ndarray | None = field(default=None, repr=False)
    curves: list[dict[str, Any]] = field(default_factory=list, repr=False)
    selections: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, number: int, proposal: Proposal) -> Trial:
        return cls(number, proposal.kind, dict(proposal.params), dict(proposal.features))

    @property
    def proposal(self) -> Proposal:
        return Proposal(self.kind, self.params, self.features)

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.kind} #{self.number}"

    def saved(self) -> dict[str, Any]:
        """For a checkpoint."""
        looks = [[k, v] for k, v in self.looks.items()]
        mine = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**mine, "looks": looks, "oof": {} if self.oof is None else {"oof": self.oof}}

    @classmethod
    def load(cls, saved: Mapping[str, Any]) -> Trial:
        """The trial of a checkpoint."""
        looks = {int(k): float(v) for k, v in saved["looks"]}
        return cls(**{**saved, "looks": looks, "oof": saved["oof"].get("oof")})

    def row(self) -> dict[str, Any]:
        """One row of the trial table: all but predictions, curves and selections."""
        found = asdict(self)
        del found["oof"], found["curves"], found["selections"]
        return found


def measure(
    trial: Trial, candidate: Candidate, fitted: Fitted, model: FittedModel, dataset: Dataset,
    target: Target,
) -> None:
    """Note a trial's latency, with the real scorer on the table's first record, and its size."""
    graph, model = pruned(candidate.graph, fitted, model)
    schema = dataset.schema.select([f.name for f in dataset.schema if f.name in set(graph.raw)])
    info = {"task": target.task, "classes": list(target.classes)}
    bundle = Bundle(Contents(info, schema, graph, fitted, model), Path())
    first: pa.Table = next(dataset.stream(batch_rows=1)).slice(0, 1)
    record = first.select(schema.names).to_pylist()
    trial.latency = single_row([bundle], TIMED_CALLS, WARM_CALLS, [record])[0]["median"]
    trial.size = size_of(model.payload())


def size_of(value: Any) -> int:
    """Bytes of a payload's arrays, byte strings and text."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, (bytes, bytearray, str)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(size_of(k) + size_of(v) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return sum(map(size_of, value))
    return 8
