"""The scan: every step of every fold learns in the same pass over the data.

A *view* is a training part: the final one, and one for each fold. Steps of all views say
which statistics they still need; the needs are gathered, equal ones become one, and a single
pass over the batches answers them all. Statistics keep one row a bucket, so that a statistic
of a raw column serves every view. Columns that earlier steps made differ between views only
where the learned numbers do, and only there is anything computed more than once.

The number of passes is that of the longest chain of learning steps; it does not depend on
how many steps, columns or folds there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.checkpoints import NOWHERE, Checkpoints, digest
from gpupipe.data.dataset import Dataset
from gpupipe.data.reader import Reader
from gpupipe.engine.base import Engine
from gpupipe.engine.frames import Column
from gpupipe.errors import DataError
from gpupipe.stats.state import Rows, State, Statistic
from gpupipe.stats.tables import ByLevel
from gpupipe.steps.base import NoEvidence
from gpupipe.steps.graph import Batch, Fitted, Graph, Node, step_of
from gpupipe.steps.passes import Key, States, fold, name_of, run_pass, saved_pass, stage


class Unscanned(Exception):  # noqa: N818 - an answer, not an error
    """Pass ``number`` was not made before: ``why``."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"scan {number}: {why}")
        self.number, self.why = number, why


@dataclass(frozen=True)
class View:
    """A training part: the buckets whose rows may be learned from."""

    name: str
    train: tuple[int, ...]


@dataclass(frozen=True)
class PartRows:
    """The rows of one part: bucket (uint8), target and weight, each ``[n]`` or None.

    Class codes are as narrow as they can be: they are kept for every row.
    """

    bucket: np.ndarray
    target: np.ndarray | None = None
    weight: np.ndarray | None = None


@dataclass(frozen=True)
class Rowed:
    """A dataset whose rows know their bucket and target."""

    reader: Reader
    rows: tuple[PartRows, ...]
    buckets: int

    @property
    def dataset(self) -> Dataset:
        return self.reader.dataset

    @property
    def engine(self) -> Engine:
        return self.reader.engine

    def batches(
        self, index: int, columns: Sequence[str], last: bool = False
    ) -> Iterator[tuple[Batch, slice]]:
        """The batches of part ``index`` and where in the part each lies (see `Reader.batches`)."""
        mine, fx = self.rows[index], self.engine.fx
        start = 0
        for read in self.reader.batches(index, columns, last):
            batch = Batch(read, None, fx)
            where = slice(start, start + len(batch))
            start = where.stop
            target = None if mine.target is None else fx.to_device(_wide(mine.target[where]))
            bucket = fx.to_device(mine.bucket[where]).astype("int64")
            batch.rows = Rows(bucket, self.buckets, target)
            yield batch, where


def _wide(target: np.ndarray) -> np.ndarray:
    """Class codes as int64; values as they are."""
    return target if target.dtype.kind == "f" else target.astype(np.int64)


@dataclass
class Knowledge:
    """What scans have found out, and the profile's answers about raw columns."""

    profile: Mapping[Key, State] = field(default_factory=dict)
    states: dict[Key, State] = field(default_factory=dict)
    wanted: dict[Key, tuple[Node, Fitted]] = field(default_factory=dict)
    scans: list[tuple[str, ...]] = field(default_factory=list)
    """For each pass made: the source columns that it read."""


@dataclass(frozen=True)
class StepEvidence:
    """`steps.base.Evidence` for one step on one column in one view."""

    knowledge: Knowledge
    identity: str
    train: tuple[int, ...]

    def training(self, statistic: Statistic) -> Any:
        state = self.knowledge.states.get((statistic, self.identity))
        return None if state is None else state.only(self.train)

    def folds(self, statistic: Statistic) -> Any:
        return self.knowledge.states.get((statistic, self.identity))

    def everything(self, statistic: Statistic) -> Any:
        known = self.knowledge.profile.get((statistic, self.identity))
        return known or self.knowledge.states.get((statistic, self.identity))


def learn(
    graphs: Sequence[Graph], views: Sequence[View], source: Rowed,
    profile: Mapping[Key, State] | None = None, progress: Any = None,
    checkpoints: Checkpoints = NOWHERE, scanning: bool = True, knowledge: Knowledge | None = None,
) -> tuple[list[list[Fitted]], Knowledge]:
    """Learn the params of every graph in every view, in as few passes as can be.

    With ``knowledge`` what earlier calls have found out is used, and kept: graphs that need no
    other statistics cost no pass.

    Returns
    -------
    fitted : ``fitted[g][v]`` is what graph ``g`` learned in view ``v``.
    knowledge : which columns each pass read.

    Raises
    ------
    Unscanned : where a pass would have to be made, and this is not ``scanning``.
    """
    kept = knowledge is not None
    knowledge = knowledge or Knowledge(profile or {})
    fitted = [[Fitted() for _ in views] for _ in graphs]
    while True:
        knowledge.wanted = {}
        for graph, by_view in zip(graphs, fitted, strict=True):
            for view, own in zip(views, by_view, strict=True):
                _advance(graph, view, own, knowledge)
        if not knowledge.wanted:
            if not kept:
                knowledge.states.clear()  # what they had to say is in the params
            return fitted, knowledge
        _scan(source, knowledge, checkpoints, progress, scanning)


def _advance(graph: Graph, view: View, fitted: Fitted, knowledge: Knowledge) -> None:
    """Finalise what can be, and ask for the statistics that the others wait for."""
    for bound in graph.bound:
        if fitted.learned(bound):
            continue
        if not all(map(fitted.ready, bound.inputs)):
            for statistic in step_of(bound).needs(graph.target, NoEvidence()):
                _foresee(statistic, bound.input, fitted, knowledge)
            continue
        identity = fitted.identity(bound.input)
        evidence = StepEvidence(knowledge, identity, view.train)
        needs = step_of(bound).needs(graph.target, evidence)
        known = [_known(n, bound.input, fitted, knowledge) for n in needs]
        if all(known):
            fitted.params[bound.key] = step_of(bound).finalize(graph.target, evidence)


def _known(statistic: Statistic, node: Node, fitted: Fitted, knowledge: Knowledge) -> bool:
    """Whether a statistic is known, or follows from what is; if not, it is asked for.

    A step that can tell what it does to a statistic (`Step.derive`) saves the scan of its
    output: the statistic of its input is asked for instead.
    """
    key = (statistic, fitted.identity(node))
    if key in knowledge.states:
        return True
    above = node.made_by
    source = step_of(above).derived_from(statistic) if above is not None else None
    if above is None or source is None:
        knowledge.wanted[key] = (node, fitted)
        return False
    if not _known(source, above.input, fitted, knowledge):
        return False
    state = knowledge.states[source, fitted.identity(above.input)]
    knowledge.states[key] = step_of(above).derive(statistic, state, fitted.params[above.key])
    return True


def _foresee(statistic: Statistic, node: Node, fitted: Fitted, knowledge: Knowledge) -> None:
    """Ask in time for what will follow from a statistic of a column that is there already."""
    while not fitted.ready(node):
        assert node.made_by is not None
        source = step_of(node.made_by).derived_from(statistic)
        if source is None:
            return
        statistic, node = source, node.made_by.input
    _known(statistic, node, fitted, knowledge)


def _scan(
    source: Rowed, knowledge: Knowledge, checkpoints: Checkpoints, progress: Any,
    scanning: bool,
) -> None:
    """One pass over the columns that the wanted statistics come from."""
    wanted = knowledge.wanted
    columns = list(dict.fromkeys(name for node, _ in wanted.values() for name in node.raws))
    knowledge.scans.append(tuple(columns))
    saved = checkpoints.given(wanted=digest(sorted(map(name_of, wanted))))
    known = saved_pass("scan", saved, wanted)
    if known is not None:
        knowledge.states |= known
        return
    if not scanning:
        begun = saved.load("scan-part")
        raise Unscanned(len(knowledge.scans), saved.missing("scan") if begun is None else
                        f"goes on after {len(begun['done'])} of {len(source.rows)} parts")
    source.reader.share(list(dict.fromkeys(
        node.feature.name for (statistic, _), (node, _) in wanted.items()
        if node.made_by is None and isinstance(statistic, ByLevel)
    )))

    parts = source.dataset.parts
    if not parts:
        raise DataError(f"{source.dataset.source} has no rows to learn from")
    with stage(progress, f"scan {len(knowledge.scans)}", source.dataset.rows) as advance:
        knowledge.states |= run_pass(
            _ScanPart(source, tuple(columns), wanted), range(len(parts)), source.engine, "scan",
            saved, wanted,
            lambda i: advance(parts[i].rows),
        )


@dataclass(frozen=True)
class _ScanPart:
    """The states of one part: of each statistic that is wanted, and the column it is of."""

    source: Rowed
    columns: tuple[str, ...]
    wanted: Mapping[Key, tuple[Node, Fitted]]

    def __call__(self, index: int) -> States:
        states: States = {}
        for batch, _ in self.source.batches(index, self.columns):
            assert batch.rows is not None
            for key, (node, fitted) in self.wanted.items():
                column = batch.value(node, fitted)
                assert isinstance(column, Column)
                fold(states, key, key[0].partial([column], batch.rows, batch.fx))
        return states
