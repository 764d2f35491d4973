"""From a dataset to trained models: profile, split, learn the steps, train, predict out of fold.

Preprocessing is never refitted: the steps of all folds learn in the same scans
(`steps.scan`), and training asks for what they learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gpupipe.checkpoints import NOWHERE, Checkpoints
from gpupipe.config import PipelineConfig
from gpupipe.config.choosing import IntervalsConfig
from gpupipe.data.dataset import Dataset
from gpupipe.data.split import Split
from gpupipe.decide import Finished, finish
from gpupipe.decide.finish import QUANTILES
from gpupipe.engine.base import Engine
from gpupipe.engine.memory import MIB, Layout
from gpupipe.errors import EnvironmentFault
from gpupipe.fingerprint import fingerprint
from gpupipe.folds import Trainer, predicted, rounds_of
from gpupipe.inspect.findings import Finding
from gpupipe.leakage import checked
from gpupipe.matrices import Source
from gpupipe.models import FittedModel, Training
from gpupipe.models.base import innermost
from gpupipe.models.selected import Selection, selections_of
from gpupipe.models.wrappers import Picked
from gpupipe.prepare import Candidate, prepare
from gpupipe.select import pruned
from gpupipe.steps import Target
from gpupipe.steps.graph import Fitted, feature_names
from gpupipe.steps.passes import stage
from gpupipe.steps.profile import Profile
from gpupipe.steps.scan import Knowledge, Rowed, learn
from gpupipe.timings import Timings
from gpupipe.tune import Chosen, choose, graphs_of, searches
from gpupipe.tune.ensemble import Ensemble, columns_of, fitted_ensemble, united
from gpupipe.tune.workshop import Truth

TOLERANCE = 1.25
"""A predicted peak may pass the limit by this factor: predictions are that good."""


@dataclass
class Outcome:
    """What training a candidate gave.

    Attributes
    ----------
    final : the model trained on all training rows; None where the folds alone were trained.
    views : what its steps learned: for the final model, then by fold.
    holdout, oof : predictions in row order for the rows of `Trained.holdout_rows` and
        `Trained.oof_rows`; None where there is no such part.
    selections : the features that each fold chose; empty where none were chosen.
    models : those of the folds, which gave ``oof`` by their first ``rounds`` rounds; none of a
        model that a search found. Without a target what they give is not of one kind: there
        is no ``oof``.
    """

    candidate: Candidate
    views: Sequence[Fitted]
    final: FittedModel | None
    holdout: np.ndarray | None
    oof: np.ndarray | None
    curves: list[dict[str, Any]]
    rounds: int | None
    selections: Sequence[Selection] = ()
    models: Sequence[FittedModel] = ()

    @property
    def fitted(self) -> Fitted:
        """What its steps learned on all training rows."""
        return self.views[0]


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
    checkpoints: Checkpoints
    chosen: Chosen | None = None
    """What a search found; None where there was none."""
    finished: Finished = field(default_factory=Finished)
    """What was made of the predictions: calibration, threshold, intervals."""
    findings: Sequence[Finding] = ()
    """What the leak linter found."""

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
    def final(self) -> FittedModel:
        """The model that was asked for, trained on all training rows."""
        assert self.model.final is not None, "the folds alone were trained"
        return self.model.final

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the model that was asked for; of an ensemble, its members' shares."""
        if self.chosen is not None and self.chosen.ensemble is not None:
            made = self.chosen.ensemble
            return {t.name: round(float(w), 6)
                    for t, w in zip(made.members, made.rule.weights, strict=True)}
        return dict(getattr(innermost(self.model.candidate.model), "params", {}))

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


def train(
    config: PipelineConfig, dataset: Dataset, engine: Engine, *, progress: Any = None,
    baselines: bool = True, timings: Timings | None = None, checkpoints: Checkpoints = NOWHERE,
    scratch: Path | None = None, final: bool = True,
) -> Trained:
    """Train the model of ``config`` and its baselines on ``dataset``.

    Without ``final`` the models of the folds are trained, and none on all training rows.
    What ``checkpoints`` hold of the same data, steps and parameters is not done again. What
    does not fit into memory goes to files under ``scratch``, or the system's temporary folder.
    """
    timings = timings or Timings()
    searching = searches(config)
    ready = prepare(config, dataset, engine, progress=progress, baselines=baselines,
                    timings=timings, checkpoints=checkpoints)
    with timings.stage("look for leaks"):
        findings = checked(ready)
    with timings.stage("learn the steps", dataset.rows):
        # Of a search the steps of all its families learn with the others: in the same scans.
        searched = graphs_of(ready)
        fitted, knowledge = learn(
            [*ready.graphs, *searched], ready.views, ready.rowed, ready.profile.states, progress,
            ready.checkpoints,
            knowledge=Knowledge(ready.profile.states) if searching else None)
        # The matrices of baselines are small; of all that is searched, the widest has to fit.
        width = max(len(feature_names(graph, own[0])) for graph, own in zip(
            [ready.graphs[0], *searched], [fitted[0], *fitted[len(ready.graphs):]], strict=True))
        fitted = fitted[: len(ready.graphs)]
    learned = fingerprint(ready.profile, ready.split, ready.rowed.rows, ready.graphs, fitted)
    layout = ready.layout(width)
    check_fits(layout)
    if not layout.keep:
        ready.reader.keep_only(())
    trained = Trained(config, dataset, ready.profile, ready.split, ready.target, ready.rowed,
                      knowledge, {}, ready.notes, timings, learned, layout, ready.checkpoints,
                      findings=findings)
    with TemporaryDirectory() if scratch is None else nullcontext(scratch) as folder:
        bench = _bench(trained, Path(folder))
        if searching:
            trained.chosen = choose(ready, knowledge, layout, _truth(trained), bench, timings,
                                    progress)
            trained.notes += trained.chosen.found.notes
        _train_all(trained, ready.candidates, fitted, bench, progress, final)
    return trained


def retrain(
    trained: Trained, seed: int, *, progress: Any = None, scratch: Path | None = None,
) -> Trained:
    """The model that was asked for, trained with another seed.

    Rows, split and what the steps learned stay as they are, so that what differs is the training.
    There are no intervals: their quantiles are a model of their own.
    """
    config = trained.config.model_copy(update={"seed": seed, "intervals": IntervalsConfig()})
    again = replace(trained, config=config, outcomes={}, notes=[], checkpoints=NOWHERE)
    with TemporaryDirectory() if scratch is None else nullcontext(scratch) as folder:
        _train_all(again, [trained.model.candidate], [list(trained.model.views)],
                   _bench(again, Path(folder)), progress, final=trained.model.final is not None)
    return again


def check_fits(layout: Layout) -> None:
    """EnvironmentFault where no layout comes near what may be taken."""
    if layout.peak > TOLERANCE * layout.limit:
        raise EnvironmentFault(
            f"training takes about {layout.peak / MIB:,.0f} MiB here, and may take "
            f"{layout.limit / MIB:,.0f}",
            hint=f"set engine.memory to {layout.peak / MIB:.0f}MiB or more, or engine.batch_rows "
            "or engine.workers lower",
        )


def manner(config: PipelineConfig, engine: Engine) -> Training:
    """How the models of a pipeline are trained."""
    return Training(config.seed, engine.workers, device=engine.fx.device)


def _trainer_of(engine: Engine) -> type[Trainer]:
    """Models are trained in this process, or by the workers of a cluster."""
    if not engine.remote:
        return Trainer
    from gpupipe.remote import RemoteTrainer

    return RemoteTrainer


Bench = Callable[[Sequence[Candidate], Sequence[Sequence[Fitted]], Checkpoints, Any], Trainer]
"""Makes the trainer of candidates with what their steps learned, its checkpoints, and whom it
tells of each model."""


def _bench(trained: Trained, scratch: Path) -> Bench:
    """How trainers are made: all of one run train on the same rows in the same manner."""
    layout, engine = trained.layout, trained.rowed.engine
    how = replace(manner(trained.config, engine),
                  spill=scratch if layout.bins == "disk" else None, scratch=scratch)
    source = Source(trained.rowed, tuple(f.key for f in trained.profile.facts),
                    layout.matrix == "streamed")
    engine.pin(source.keys)
    kind = _trainer_of(engine)

    def trainer(candidates: Sequence[Candidate], fitted: Sequence[Sequence[Fitted]],
                checkpoints: Checkpoints, advance: Any) -> Trainer:
        return kind(candidates, fitted, source, trained.target, trained.split, layout, how,
                    checkpoints, trained.timings, advance)

    return trainer


def _truth(trained: Trained) -> Truth:
    """What a search judges its trials by."""
    if not trained.split.folds:
        raise trained.config.fault(("split", "folds"), "a search needs folds to choose by",
                                   "set split.folds to 2 or more")
    return Truth(trained.fold_of_rows(), *trained.target_of(trained.oof_buckets))


@dataclass(frozen=True)
class _Folded:
    """A candidate whose folds were trained: what is left is its final model."""

    candidate: Candidate
    views: Sequence[Fitted]
    curves: list[dict[str, Any]]
    rounds: int | None
    oof: np.ndarray | None
    selections: Sequence[Selection] = ()
    models: Sequence[FittedModel] = ()


def _train_all(
    trained: Trained, candidates: list[Candidate], fitted: list[list[Fitted]], bench: Bench,
    progress: Any, final: bool,
) -> None:
    """Train the folds of the candidates (of a search they are trained), then the final models,
    and make of their predictions what the file asks for."""
    split, chosen = trained.split, trained.chosen
    ready = [] if chosen is None else [
        _Folded(replace(chosen.found.candidates[t.number], name=f"member {i}" if i else "model"),
                chosen.found.views[t.number], t.curves, t.rounds,
                None if t.oof is None else t.oof.astype(float),
                [Selection.from_json(s) for s in t.selections])
        for i, t in enumerate(chosen.members)]
    todo = slice(0 if chosen is None else 1, None)
    candidates, fitted = candidates[todo], fitted[todo]
    # A matrix for each fold. One for all, with weights of 0 for a fold's judged rows, takes as
    # long: what it saves in bins it loses by growing trees over rows that count for nothing
    # (benchmarks/folds.py). And what steps learned differs between folds.
    total = len(split.folds) * len(candidates) + final * (len(candidates) + len(ready))
    with stage(progress, "train", total, "models") as advance:
        trainer = bench(candidates, fitted, trained.checkpoints, advance)
        labelled = trained.target.task != "unsupervised"
        number = trained.fold_of_rows() if split.folds and labelled else None
        for candidate, views, folds in zip(candidates, fitted, trainer.folds(), strict=True):
            curves = [m.curve for m, _ in folds]
            rounds = rounds_of(candidate, curves)
            ready.append(_Folded(
                candidate, views, [c for c in curves if c], rounds,
                None if number is None else trainer.out_of_fold(number, folds, rounds),
                selections_of(folds), [m for m, _ in folds]))
        last = bench([r.candidate for r in ready], [r.views for r in ready], trained.checkpoints,
                     advance)
        whole = last.final([r.rounds for r in ready]) if final else [(None, None)] * len(ready)
    outcomes = []
    with trained.timings.stage("predict"):
        for mine, (model, unseen) in zip(ready, whole, strict=True):
            outcomes.append(Outcome(
                mine.candidate, mine.views, model,
                predicted(model, unseen) if model and unseen and split.holdout else None,
                mine.oof, mine.curves, mine.rounds, mine.selections, mine.models))
    if chosen is not None and chosen.ensemble is not None:
        n = len(chosen.members)
        outcomes[:n] = [_together(chosen.ensemble, outcomes[:n])]
    trained.outcomes |= {o.candidate.name: o for o in outcomes}
    reused = trainer.reused + last.reused
    if reused:
        trained.notes.append(f"{reused} of {total} models were trained by an earlier run "
                             "on the same data, and are used again")
    _side_by_side(trained)
    finish(trained)


def _side_by_side(trained: Trained) -> None:
    """Give the model and that of its quantiles the features of both, where a search found the
    model others than the file's."""
    model, ends = trained.model, trained.outcomes.get(QUANTILES)
    if ends is None or ends.candidate.graph is model.candidate.graph:
        return
    graphs = [o.candidate.graph for o in (model, ends)]
    unions = [united(graphs, views) for views in zip(model.views, ends.views, strict=True)]
    whole, fitted = unions[0]
    for outcome, graph in zip((model, ends), graphs, strict=True):
        if outcome.final is not None:
            outcome.final = Picked(outcome.final, columns_of(graph, whole, fitted))
    model.candidate = replace(model.candidate, graph=whole)
    model.views = [learned for _, learned in unions]


def _together(ensemble: Ensemble, members: Sequence[Outcome]) -> Outcome:
    """The outcome of an ensemble, from those of its members."""
    graphs, finals = [m.candidate.graph for m in members], []
    if all(m.final is not None for m in members):
        there = [pruned(m.candidate.graph, m.fitted, m.final) for m in members if m.final]
        graphs, finals = [g for g, _ in there], [f for _, f in there]
    unions = [united(graphs, [m.views[v] for m in members]) for v in range(len(members[0].views))]
    graph = unions[0][0]
    model, holdout = None, None
    if finals:
        model = fitted_ensemble(ensemble.rule, finals, graphs, graph, unions[0][1])
    seen = [m.holdout for m in members if m.holdout is not None]
    if seen:
        holdout = ensemble.rule.combine(seen)
    return Outcome(Candidate("model", members[0].candidate.model, graph),
                   [fitted for _, fitted in unions], model, holdout, ensemble.oof, [], None)
