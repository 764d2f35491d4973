"""Before anything is learned: the pipeline checked, its data profiled and split, features bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

from gpupipe.checkpoints import NOWHERE, Checkpoints, digest
from gpupipe.config import PipelineConfig
from gpupipe.data.batches import read_by_host
from gpupipe.data.dataset import Dataset
from gpupipe.data.reader import Reader
from gpupipe.data.split import Split
from gpupipe.decide import check_choices
from gpupipe.decide.finish import QUANTILES, split_for
from gpupipe.engine.base import Engine
from gpupipe.engine.memory import Layout, shared_out
from gpupipe.errors import ConfigError
from gpupipe.features import (
    DEFAULT_STEPS,
    OPENED,
    amounts,
    bind_features,
    default_notes,
    default_steps,
    levelled,
    repeated,
    steps_of,
    varied,
)
from gpupipe.models import Model, model_of
from gpupipe.models.base import TASKS, Needs, check_task
from gpupipe.models.quantiles import quantiles_for
from gpupipe.outcomes import check_special, special_task
from gpupipe.rows import (
    check_columns,
    check_metrics,
    dropped,
    find_target,
    raw_features,
    split_columns,
    split_rows,
)
from gpupipe.select import SELECT, selecting, selector_of
from gpupipe.steps import Feature, Step, Target
from gpupipe.steps.graph import Graph
from gpupipe.steps.profile import Profile, take_profile
from gpupipe.steps.scan import Rowed, View
from gpupipe.timings import Timings

BASELINE_ROWS = 20_000
"""A baseline learns from at most about so many training rows, chosen by their hash."""


@dataclass(frozen=True)
class Candidate:
    """A model with its features: the one asked for, or a baseline."""

    name: str
    model: Model
    graph: Graph
    limit: int | None = None


@dataclass(frozen=True)
class Binder:
    """Makes the features of a model: by the pipeline's own steps, or by its defaults."""

    config: PipelineConfig
    own: list[Step] | None
    features: list[Feature]
    profile: Profile
    target: Target

    def graph(self, model: Model, choices: Mapping[str, Any] | None = None) -> Graph:
        """The graph of the features, with other parameters of steps where there are ``choices``:
        by ``step.parameter``; ``encoder`` is the default step for text of few levels, ``numbers``
        what becomes of whole numbers that repeat and ``text`` what of text of few levels (``auto``,
        or ``target_encode`` as well), ``ratios`` what of amounts (``none``, or the ratios of all
        ``pairs`` as well).

        ConfigError for choices that do not fit the steps.
        """
        return self._graph(model.needs, choices or {})

    def _graph(self, needs: Needs, given: Mapping[str, Any]) -> Graph:
        choices = dict(given)
        chosen = {name: choices.pop(name, values[0]) for name, values in DEFAULT_STEPS.items()}
        others = [name for name, value in chosen.items() if value != DEFAULT_STEPS[name][0]]
        if self.own is not None and others:
            raise ConfigError(
                f"features.{others[0]} is about the default steps; this file has its own",
                hint="vary features.<step>.<parameter>")
        steps = self.own if self.own is not None else default_steps(
            self.features, self.profile, needs, chosen["encoder"],
            labelled=self.target.task != "unsupervised",
            levels=[*(self.repeated if "numbers" in others else ()),
                    *(self.levelled if "text" in others else ())],
            ratios=self.amounts if "ratios" in others else ())
        return bind_features(self.config, self.features, varied(steps, choices), self.target,
                             self.profile.constant())

    @cached_property
    def repeated(self) -> list[str]:
        """Whole numbers that could be levels as well; none where the file has its own steps, or
        the target has no mean."""
        open_ = self.own is None and self.target.task in TASKS
        return repeated(self.features, self.profile) if open_ else []

    @cached_property
    def levelled(self) -> list[str]:
        """Text that could be encoded as well; none as above."""
        open_ = self.own is None and self.target.task in TASKS
        return levelled(self.features, self.profile) if open_ else []

    @cached_property
    def amounts(self) -> list[str]:
        """Numbers whose ratios could be features as well; none where the file has its own
        steps."""
        return amounts(self.features, self.profile) if self.own is None else []

    @cached_property
    def opened(self) -> dict[str, str]:
        """Choices that this table opens: what a search tries there beside what is usual. Ratios
        and encoded text are tried for values alone: of two tables with classes, one was the worse
        for ratios."""
        if not self.config.tune.wanted or self.config.tune.sampler == "grid":
            return {}  # families as they are, or the points that the file lists
        columns = {"numbers": self.repeated}
        if self.target.task == "regression":
            columns |= {"text": self.levelled, "ratios": self.amounts}
        found = {name: OPENED[name][1] for name, there in columns.items() if there}
        try:
            for needs in get_args(Needs) if found else ():
                self._graph(needs, found)
        except ConfigError:
            return {}  # a column is called as one of those that it would add
        return found

    def candidate(self, model: Model, choices: Mapping[str, Any] | None = None) -> Candidate:
        """The model with its features, and with the selection that the file asks for.

        ``choices`` are those of `graph`, and parameters of the selection by
        ``select.method.parameter``.
        """
        given = choices or {}
        of_selection = {k.removeprefix(SELECT): v for k, v in given.items()
                        if k.startswith(SELECT)}
        graph = self.graph(model, {k: v for k, v in given.items() if not k.startswith(SELECT)})
        return Candidate("model", selecting(self.config, model, graph, of_selection), graph)


@dataclass(frozen=True)
class Prepared:
    """All that is known before anything is learned: rows with their buckets, graphs, views.

    ``checkpoints`` are those of what follows from the split.
    """

    config: PipelineConfig
    reader: Reader
    profile: Profile
    target: Target
    split: Split
    rowed: Rowed
    candidates: list[Candidate]
    views: list[View]
    notes: list[str]
    checkpoints: Checkpoints
    binder: Binder

    @property
    def graphs(self) -> list[Graph]:
        return [c.graph for c in self.candidates]

    def layout(self, width: int, processes: int | None = None) -> Layout:
        """How a matrix of so many features, and its bins, will lie, in each of the processes."""
        dataset, engine = self.reader.dataset, self.reader.engine
        model = self.candidates[0].model
        there = engine.processes if processes is None else processes
        layout = shared_out(engine.memory, dataset.rows, [f.dtype for f in dataset.schema], width,
                            len(self.split.folds), model.streams, there if model.spreads else 1)
        # A GPU is busy with one training; a second one would only take its memory.
        return layout if engine.fx.device == "cpu" else replace(layout, at_once=1)


def prepare(
    config: PipelineConfig, dataset: Dataset, engine: Engine, *, progress: Any = None,
    baselines: bool = True, timings: Timings | None = None, checkpoints: Checkpoints = NOWHERE,
) -> Prepared:
    """Check the pipeline against its data, profile it, split it and bind its features."""
    timings = timings or Timings()
    model = _model(config, config.model.kind, config.model.params)
    selector_of(config)  # what is wrong there is told before any work
    own_steps = steps_of(config)
    check_columns(config, dataset)
    group, moment = split_columns(config)
    engine.pin(dataset)
    reader = Reader(dataset, engine)
    with timings.stage("profile", dataset.rows):
        profile = take_profile(
            reader, target=config.data.target, drop=dropped(config, dataset),
            key=config.data.key, group=group, time=moment, weight=config.data.weight,
            event=config.data.event, progress=progress, checkpoints=checkpoints,
        )
    target, notes = find_target(config, profile)
    _check_task(config, target)
    if engine.fx.read_parquet is not None:
        slow = read_by_host(dataset, dataset.schema.names)
        notes += [f"column {name!r} is read by the host, not by the GPU: {why}"
                  for name, why in slow.items()]
    check_metrics(config, target)
    check_choices(config, target)
    check_special(config, target)
    with timings.stage("split", dataset.rows):
        split, rows = split_rows(config, profile, target)
        split = split_for(config, split)
    engine.pin(rows)
    binder = Binder(config, own_steps, raw_features(config, dataset), profile, target)
    candidates = [binder.candidate(model)]
    special = special_task(config) is not None
    if own_steps is None:
        notes += default_notes(binder.features, profile)
    if target.task == "unsupervised":
        baselines = False  # there is nothing to beat
    for kind in config.evaluate.baselines if baselines else ():
        if kind == config.model.kind and own_steps is None:
            continue
        baseline = model_of(kind, {})
        if special and target.task not in baseline.tasks:
            notes.append(f"baseline {kind!r} is left out: it is not for {target.task} targets")
            continue
        graph = replace(binder, own=None).graph(baseline)
        candidates.append(Candidate(kind, baseline, graph, BASELINE_ROWS))
    if config.intervals.coverage is not None and config.intervals.method == "cqr":
        ends = quantiles_for(config.model, config.intervals.coverage)
        candidates.append(Candidate(QUANTILES, ends, candidates[0].graph))
    if not reader.keeps:  # the profile was there already, and nothing was read for it
        reader.keep(list(dict.fromkeys(name for c in candidates for name in c.graph.raw)))
    views = [View("final", split.train)]
    views += [View(f"fold {i}", f.train) for i, f in enumerate(split.folds, 1)]
    return Prepared(config, reader, profile, target, split, Rowed(reader, rows, split.buckets),
                    candidates, views, notes, split_scope(checkpoints, config), binder)


def split_scope(checkpoints: Checkpoints, config: PipelineConfig) -> Checkpoints:
    """The checkpoints of what follows from the split: which rows there are, and their target."""
    data = config.data
    return checkpoints.given(
        split=digest([config.split.model_dump(mode="json", exclude={"honesty"}), config.seed]),
        rows=digest([data.target, data.positive, data.task, data.weight, data.key, data.drop,
                     data.event, special_task(config)]),
    )


def _check_task(config: PipelineConfig, target: Target) -> None:
    try:
        check_task(config.model.kind, target.task)
    except ConfigError as error:
        raise config.fault(("model",), error.message, error.hint) from None


def _model(config: PipelineConfig, kind: str, params: dict[str, Any]) -> Model:
    try:
        return model_of(kind, params)
    except ConfigError as error:
        raise config.fault(("model",), error.message, error.hint) from None
