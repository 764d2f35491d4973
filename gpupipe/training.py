"""From a dataset to trained models: profile, split, learn the steps, train, predict out of fold.

Preprocessing is never refitted: the steps of all folds learn in the same scans
(`steps.scan`), and training asks for what they learned.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gpupipe.checkpoints import NOWHERE, Checkpoints, digest
from gpupipe.config import PipelineConfig
from gpupipe.data.dataset import Dataset
from gpupipe.data.reader import Reader
from gpupipe.data.split import Split
from gpupipe.engine.local import LocalEngine
from gpupipe.engine.machine import release_memory
from gpupipe.engine.memory import MIB, Layout
from gpupipe.errors import ConfigError, EnvironmentFault
from gpupipe.features import bind_features, default_notes, default_steps, steps_of
from gpupipe.fingerprint import fingerprint
from gpupipe.matrices import Ask, Source, matrices, predict_chunks
from gpupipe.models import FittedModel, Matrix, Model, Training, model_of
from gpupipe.models.boosting import best_round
from gpupipe.rows import (
    check_columns,
    check_metrics,
    dropped,
    find_target,
    raw_features,
    split_columns,
    split_rows,
)
from gpupipe.steps import Feature, Step, Target
from gpupipe.steps.graph import Fitted, Graph, feature_names
from gpupipe.steps.passes import stage
from gpupipe.steps.profile import Profile, take_profile
from gpupipe.steps.scan import Knowledge, Rowed, View, learn

TOLERANCE = 1.25
"""A predicted peak may pass the limit by this factor: predictions are that good."""
BASELINE_ROWS = 20_000
"""A baseline learns from at most about so many training rows, chosen by their hash."""


@dataclass
class Timings:
    """Seconds by stage, in order."""

    stages: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, rows: int | None = None) -> Iterator[None]:
        start = time.perf_counter()
        yield
        release_memory()
        self.stages.append(
            {"stage": name, "seconds": round(time.perf_counter() - start, 4), "rows": rows}
        )


@dataclass(frozen=True)
class Candidate:
    """A model with its features: the one asked for, or a baseline."""

    name: str
    model: Model
    graph: Graph
    limit: int | None = None


@dataclass
class Outcome:
    """What training a candidate gave.

    Attributes
    ----------
    final : the model trained on all training rows, with what its steps learned.
    holdout, oof : predictions in row order for the rows of `Trained.holdout_rows` and
        `Trained.oof_rows`; None where there is no such part.
    """

    candidate: Candidate
    fitted: Fitted
    final: FittedModel
    holdout: np.ndarray | None
    oof: np.ndarray | None
    curves: list[dict[str, Any]]
    rounds: int | None


@dataclass
class Trained:
    """Everything a run knows after training."""

    config: PipelineConfig
    dataset: Dataset
    profile: Profile
    split: Split
    target: Target
    rowed: Rowed
    knowledge: Knowledge
    outcomes: dict[str, Outcome]
    notes: list[str]
    timings: Timings
    fingerprint: dict[str, str]
    layout: Layout

    @property
    def model(self) -> Outcome:
        """The model that was asked for."""
        return self.outcomes["model"]

    def target_of(self, buckets: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Target and weight of the rows in some buckets, in row order."""
        masks = [np.isin(r.bucket, list(buckets)) for r in self.rowed.rows]
        y = np.concatenate([r.target[m] for r, m in zip(self.rowed.rows, masks, strict=True)
                            if r.target is not None])
        weights = [r.weight[m] for r, m in zip(self.rowed.rows, masks, strict=True)
                   if r.weight is not None]
        y = y if y.dtype.kind == "f" else y.astype(np.int64)
        return y, np.concatenate(weights) if weights else None

    @property
    def oof_buckets(self) -> tuple[int, ...]:
        return tuple(b for fold in self.split.folds for b in fold.valid)

    def fold_of_rows(self) -> np.ndarray:
        """For each out-of-fold row, in row order, the 0-based fold that judged it."""
        number = np.zeros(self.split.buckets, np.int64)
        for i, fold in enumerate(self.split.folds):
            number[list(fold.valid)] = i
        masks = [np.isin(r.bucket, self.oof_buckets) for r in self.rowed.rows]
        return np.concatenate(
            [number[r.bucket[m]] for r, m in zip(self.rowed.rows, masks, strict=True)]
        )


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

    @property
    def graphs(self) -> list[Graph]:
        return [c.graph for c in self.candidates]

    def layout(self, width: int) -> Layout:
        """How a matrix of so many features, and its bins, will lie."""
        dataset, memory = self.reader.dataset, self.reader.engine.memory
        return memory.lay_out(dataset.rows, [f.dtype for f in dataset.schema], width,
                              len(self.split.folds), self.candidates[0].model.streams)


def prepare(
    config: PipelineConfig, dataset: Dataset, engine: LocalEngine, *, progress: Any = None,
    baselines: bool = True, timings: Timings | None = None, checkpoints: Checkpoints = NOWHERE,
) -> Prepared:
    """Check the pipeline against its data, profile it, split it and bind its features."""
    timings = timings or Timings()
    model = _model(config, config.model.kind, config.model.params)
    own_steps = steps_of(config)
    check_columns(config, dataset)
    group, moment = split_columns(config)
    reader = Reader(dataset, engine)
    with timings.stage("profile", dataset.rows):
        profile = take_profile(
            reader, target=config.data.target, drop=dropped(config, dataset),
            key=config.data.key, group=group, time=moment, weight=config.data.weight,
            progress=progress, checkpoints=checkpoints,
        )
    target, notes = find_target(config, profile)
    check_metrics(config, target)
    with timings.stage("split", dataset.rows):
        split, rows = split_rows(config, profile, target)
    features = raw_features(config, dataset)
    candidates = [Candidate("model", model, _graph(config, own_steps, features, profile, model,
                                                   target))]
    if own_steps is None:
        notes += default_notes(features, profile)
    for kind in config.evaluate.baselines if baselines else ():
        if kind == config.model.kind and own_steps is None:
            continue
        baseline = model_of(kind, {})
        graph = _graph(config, None, features, profile, baseline, target)
        candidates.append(Candidate(kind, baseline, graph, BASELINE_ROWS))
    if not reader.keeps:  # the profile was there already, and nothing was read for it
        reader.keep(list(dict.fromkeys(name for c in candidates for name in c.graph.raw)))
    views = [View("final", split.train)]
    views += [View(f"fold {i}", f.train) for i, f in enumerate(split.folds, 1)]
    return Prepared(config, reader, profile, target, split, Rowed(reader, rows, split.buckets),
                    candidates, views, notes, split_scope(checkpoints, config))


def train(
    config: PipelineConfig, dataset: Dataset, engine: LocalEngine, *, progress: Any = None,
    baselines: bool = True, timings: Timings | None = None, checkpoints: Checkpoints = NOWHERE,
    scratch: Path | None = None,
) -> Trained:
    """Train the model of ``config`` and its baselines on ``dataset``.

    What ``checkpoints`` hold of the same data, steps and parameters is not done again. What
    does not fit into memory goes to files under ``scratch``, or the system's temporary folder.
    """
    timings = timings or Timings()
    ready = prepare(config, dataset, engine, progress=progress, baselines=baselines,
                    timings=timings, checkpoints=checkpoints)
    with timings.stage("learn the steps", dataset.rows):
        fitted, knowledge = learn(ready.graphs, ready.views, ready.rowed, ready.profile.states,
                                  progress, ready.checkpoints)
    learned = fingerprint(ready.profile, ready.split, ready.rowed.rows, ready.graphs, fitted)
    layout = ready.layout(len(feature_names(ready.graphs[0], fitted[0][0])))
    check_fits(layout)
    if not layout.keep:
        ready.reader.keep_only(())
    trained = Trained(config, dataset, ready.profile, ready.split, ready.target, ready.rowed,
                      knowledge, {}, ready.notes, timings, learned, layout)
    with TemporaryDirectory() if scratch is None else nullcontext(scratch) as folder:
        _train_all(trained, ready.candidates, fitted, ready.checkpoints, Path(folder), progress)
    return trained


def check_fits(layout: Layout) -> None:
    """EnvironmentFault where no layout comes near what may be taken."""
    if layout.peak > TOLERANCE * layout.limit:
        raise EnvironmentFault(
            f"training takes about {layout.peak / MIB:,.0f} MiB here, and may take "
            f"{layout.limit / MIB:,.0f}",
            hint=f"set engine.memory to {layout.peak / MIB:.0f}MiB or more, or engine.batch_rows "
            "or engine.workers lower",
        )


def split_scope(checkpoints: Checkpoints, config: PipelineConfig) -> Checkpoints:
    """The checkpoints of what follows from the split: which rows there are, and their target."""
    data = config.data
    return checkpoints.given(
        split=digest([config.split.model_dump(mode="json"), config.seed]),
        rows=digest([data.target, data.positive, data.task, data.weight, data.key, data.drop]),
    )


def model_scope(
    checkpoints: Checkpoints, candidate: Candidate, fitted: Fitted, part: tuple[Any, ...],
    how: Training,
) -> Checkpoints:
    """The checkpoints of one training: features, model, part of the rows and manner."""
    model = candidate.model
    return checkpoints.given(
        features=digest([fitted.identity(node) for node in candidate.graph.outputs]),
        model=digest([model.kind, getattr(model, "params", {})]),
        part=digest([part, candidate.limit]), how=digest([how.seed, how.threads, how.rounds]),
    )


def _train_all(
    trained: Trained, candidates: list[Candidate], fitted: list[list[Fitted]],
    checkpoints: Checkpoints, scratch: Path, progress: Any,
) -> None:
    split, timings, target = trained.split, trained.timings, trained.target
    spill = scratch if trained.layout.bins == "disk" else None
    how = replace(manner(trained.config, trained.rowed.engine), spill=spill)
    source = Source(trained.rowed, tuple(f.key for f in trained.profile.facts),
                    trained.layout.matrix == "streamed")
    folds: list[list[FittedModel]] = [[] for _ in candidates]
    judged_by: list[list[Matrix]] = [[] for _ in candidates]

    def asks(learned: Sequence[Fitted]) -> list[Ask]:
        return [Ask(c.graph, f, c.limit) for c, f in zip(candidates, learned, strict=True)]

    total, reused = (len(split.folds) + 1) * len(candidates), 0
    # A matrix for each fold. One for all, with weights of 0 for a fold's judged rows, takes as
    # long: what it saves in bins it loses by growing trees over rows that count for nothing
    # (benchmarks/folds.py). And what steps learned differs between folds.
    with stage(progress, "train", total, "models") as advance:
        for k, part in enumerate(split.folds):
            own = [f[k + 1] for f in fitted]
            scopes = [model_scope(checkpoints, c, f, (part.train, part.valid), how)
                      for c, f in zip(candidates, own, strict=True)]
            known = [s.load("model") for s in scopes]
            reused += sum(k is not None for k in known)
            with timings.stage(f"fold {k + 1} matrix", trained.dataset.rows):
                pairs = matrices(source, asks(own), part.train, part.valid,
                                 [k is None for k in known])
            with timings.stage(f"fold {k + 1}"):
                for c, candidate in enumerate(candidates):
                    learned, judged = pairs[c]
                    folds[c].append(_fitted(candidate, known[c], learned, judged, target,
                                            replace(how, checkpoints=scopes[c])))
                    judged_by[c].append(judged)
                    pairs[c] = (judged, judged)  # the training matrix is not needed any more
                    advance(1)
        rounds = [rounds_of(c, [m.curve for m in f])
                  for c, f in zip(candidates, folds, strict=True)]
        manners = [replace(how, rounds=r) for r in rounds]
        scopes = [model_scope(checkpoints, c, f[0], (split.train,), m)
                  for c, f, m in zip(candidates, fitted, manners, strict=True)]
        known = [s.load("model") for s in scopes]
        reused += sum(k is not None for k in known)
        with timings.stage("final matrix", trained.dataset.rows):
            pairs = matrices(source, asks([f[0] for f in fitted]), split.train, split.holdout,
                             [k is None for k in known], last=True)
        with timings.stage("final training"):
            for c, candidate in enumerate(candidates):
                learned, judged = pairs[c]
                final = _fitted(candidate, known[c], learned, None, target,
                                replace(manners[c], checkpoints=scopes[c]))
                pairs[c] = (judged, judged)
                del learned
                trained.outcomes[candidate.name] = Outcome(
                    candidate, fitted[c][0], final,
                    predict_chunks(final, judged) if split.holdout else None,
                    _out_of_fold(trained, folds[c], judged_by[c], rounds[c]) if folds[c] else None,
                    [f.curve for f in folds[c] if f.curve], rounds[c],
                )
                advance(1)
    if reused:
        trained.notes.append(f"{reused} of {total} models were trained by an earlier run on the "
                             "same data, and are used again")


def manner(config: PipelineConfig, engine: LocalEngine) -> Training:
    """How the models of a pipeline are trained."""
    return Training(config.seed, engine.workers)


def _fitted(
    candidate: Candidate, known: Any, learned: Matrix, judged: Matrix | None, target: Target,
    how: Training,
) -> FittedModel:
    """The trained model: the known one, if there is, or else trained now and saved."""
    if known is not None:
        model = type(candidate.model).restore(known["model"])
        model.curve = known["curve"]
        return model
    model = candidate.model.fit(learned, judged, target, how)
    how.checkpoints.save("model", {"model": model.payload(), "curve": model.curve})
    how.checkpoints.drop("rounds")
    return model


def rounds_of(candidate: Candidate, curves: Sequence[dict[str, Any] | None]) -> int | None:
    """The final model's rounds: as many as the parameters say, or the best on the folds."""
    return getattr(candidate.model, "rounds", None) or best_round(curves)


def _out_of_fold(
    trained: Trained, folds: Sequence[FittedModel], judged: Sequence[Matrix], rounds: int | None
) -> np.ndarray:
    """Predictions for every row that a fold judged, in row order."""
    number = trained.fold_of_rows()
    out: np.ndarray | None = None
    for k, (model, rows) in enumerate(zip(folds, judged, strict=True)):
        scores = predict_chunks(model, rows, rounds)
        if out is None:
            out = np.empty((len(number), *scores.shape[1:]))
        out[number == k] = scores
    assert out is not None
    return out


def _graph(
    config: PipelineConfig, own: list[Step] | None, features: Sequence[Feature],
    profile: Profile, model: Model, target: Target,
) -> Graph:
    steps = own if own is not None else default_steps(features, profile, model.needs)
    return bind_features(config, features, steps, target, profile.constant())


def _model(config: PipelineConfig, kind: str, params: dict[str, Any]) -> Model:
    try:
        return model_of(kind, params)
    except ConfigError as error:
        raise config.fault(("model",), error.message, error.hint) from None
