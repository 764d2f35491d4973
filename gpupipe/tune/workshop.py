"""The workshop of a search: trials are trained fold by fold, side by side, and judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from gpupipe.engine.memory import Layout
from gpupipe.errors import ConfigError, DataError
from gpupipe.evaluate.metrics import Metric, choose
from gpupipe.evaluate.scores import evaluate
from gpupipe.folds import Judged, Trainer, predicted, rounds_of
from gpupipe.models import model_of
from gpupipe.models.selected import selections_of
from gpupipe.prepare import Candidate, Prepared
from gpupipe.steps.graph import Fitted
from gpupipe.steps.scan import Knowledge, learn
from gpupipe.tune.samplers import Sampler
from gpupipe.tune.space import Proposal
from gpupipe.tune.trial import Trial, measure

LOOK = 25
"""Looks at the loss between two that a pruner of rounds is told of."""


@dataclass(frozen=True)
class Truth:
    """The out-of-fold rows: fold ``[n]``, target ``[n]``, weight ``[n]`` or None."""

    fold: np.ndarray
    target: np.ndarray
    weight: np.ndarray | None

    def score(self, task: str, metric: Metric, prediction: np.ndarray, rows: np.ndarray) -> float:
        """The metric of predictions ``[k, ...]`` for k of the rows; NaN where it is undefined."""
        score = evaluate(
            task, self.target[rows], prediction,  # type: ignore[arg-type]
            weight=None if self.weight is None else self.weight[rows],
            metrics=[metric.name], resamples=0,
        )[metric.name].value
        return float("nan") if score is None else score


@dataclass
class Workshop:
    """Trains trials. ``trainer`` makes the trainer of some candidates with what their steps
    learned; ``knowledge`` is what scans have found out, so that choices cost none again.

    Attributes
    ----------
    rows : training rows of each fold.
    """

    ready: Prepared
    knowledge: Knowledge
    layout: Layout
    truth: Truth
    trainer: Callable[[Sequence[Candidate], Sequence[Sequence[Fitted]]], Trainer]
    rows: list[int] = field(init=False)
    metric: Metric = field(init=False)
    _learned: dict[tuple[str, ...], list[Fitted]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        task, rules = self.ready.target.task, self.ready.config.evaluate
        self.metric = choose(task, rules.metrics)[0]  # type: ignore[arg-type]
        counts = np.sum([np.bincount(r.bucket, minlength=self.ready.split.buckets)
                         for r in self.ready.rowed.rows], axis=0)
        self.rows = [int(counts[list(f.train)].sum()) for f in self.ready.split.folds]

    def candidate(self, proposal: Proposal) -> Candidate:
        """The model of a proposal, with its features."""
        model = model_of(proposal.kind, proposal.params)
        return self.ready.binder.candidate(model, proposal.features)

    def fitted(self, candidate: Candidate) -> list[Fitted]:
        """What the steps learned, by view: from what is known already, as far as that goes."""
        key = tuple(node.key for node in candidate.graph.outputs)
        if key not in self._learned:
            fitted, _ = learn([candidate.graph], self.ready.views, self.ready.rowed,
                              self.ready.profile.states, None, self.ready.checkpoints,
                              knowledge=self.knowledge)
            self._learned[key] = fitted[0]
        return self._learned[key]

    def train(self, trials: Sequence[Trial], handles: Mapping[int, Any],
               sampler: Sampler | None) -> None:
        """Train trials side by side; what each found is noted in it."""
        running = []
        for trial in trials:
            try:
                candidate = self.candidate(trial.proposal)
                running.append(_Running(trial, candidate, self.fitted(candidate),
                                        handles.get(trial.number)))
            except (ConfigError, DataError) as error:
                _fail(trial, error)
        at, first = time.perf_counter(), 0
        if sampler is not None and sampler.prunes == "rounds":
            first = 1
            for mine in running:
                self._wave([mine], range(1), sampler)
        for wave, _ in self.layout.waves(len(self.rows) - first, 1):
            running = [r for r in running if r.trial.state == "complete"]
            if not running:
                break
            self._wave(running, range(wave.start + first, wave.stop + first), sampler)
        running = [r for r in running if r.trial.state == "complete"]
        for mine in running:
            self._conclude(mine)
        taken = time.perf_counter() - at
        for trial in trials:
            trial.seconds = taken / len(trials)

    def _wave(self, running: Sequence[_Running], wave: range, sampler: Sampler | None) -> None:
        """Train some folds of every trial that goes on, and look at them one by one."""
        try:
            found = self._trained(running, wave, sampler)
        except (ConfigError, DataError) as error:
            if len(running) == 1:
                _fail(running[0].trial, error)
                return
            for mine in running:  # one of them cannot be trained: find out which
                self._wave([mine], wave, sampler)
            return
        for mine, models in zip(running, found, strict=True):
            mine.folds += models
            for k in wave:
                self._look(mine, k, sampler)
                if mine.trial.state != "complete":
                    break

    def _trained(self, running: Sequence[_Running], wave: range, sampler: Sampler | None
                 ) -> list[list[Judged]]:
        trainer = self.trainer([r.candidate for r in running], [r.fitted for r in running])
        if sampler is not None and sampler.prunes == "rounds" and wave.start == 0:
            trainer = replace(trainer, how=replace(trainer.how, watch=partial(
                self._watch, running[0], sampler)))
        threads = max(1, trainer.how.threads // min(len(wave) * len(running),
                                                    self.layout.at_once))
        return trainer.wave(wave, threads)

    def _watch(self, mine: _Running, sampler: Sampler, at: int, loss: float) -> bool:
        """Whether a boosting ends here, by its loss so far on the first fold."""
        if at % LOOK or mine.handle is None:
            return False
        value = -loss if self.metric.greater_is_better else loss
        mine.trial.looks[at] = value
        if sampler.ends(mine.handle, mine.trial, at):
            mine.trial.state = "pruned"
        return mine.trial.state == "pruned"

    def _look(self, mine: _Running, k: int, sampler: Sampler | None) -> None:
        """Count a fold's work, and end the trial where its pruner says so."""
        model, judged = mine.folds[k]
        trial = mine.trial
        trial.units += self.rows[k] * (model.rounds or 1)
        if sampler is None or sampler.prunes != "folds" or mine.handle is None:
            return
        rounds = rounds_of(mine.candidate, [model.curve])
        rows = self.truth.fold == k
        mine.values.append(self.score(predicted(model, judged, rounds), rows))
        value = float(np.mean(mine.values))
        if np.isfinite(value):
            trial.looks[k + 1] = value
            if sampler.ends(mine.handle, trial, k + 1):
                trial.state = "pruned"

    def _conclude(self, mine: _Running) -> None:
        """Judge a trial whose folds are all trained."""
        trial, folds = mine.trial, mine.folds
        curves = [m.curve for m, _ in folds]
        trial.rounds = rounds_of(mine.candidate, curves)
        trial.curves = [c for c in curves if c]
        trial.selections = [s.to_json() for s in selections_of(folds)]
        trainer = self.trainer([mine.candidate], [mine.fitted])
        oof = trainer.out_of_fold(self.truth.fold, folds, trial.rounds)
        trial.oof = oof.astype(np.float32)
        score = self.score(trial.oof.astype(float), np.full(len(oof), True))
        if not np.isfinite(score):
            _fail(trial, DataError(f"{self.metric.name} is not defined on its predictions"))
            return
        trial.score = score
        measure(trial, mine.candidate, mine.fitted[1], folds[0][0], self.ready.rowed.dataset,
                self.ready.target)

    def score(self, prediction: np.ndarray, rows: np.ndarray) -> float:
        """The metric of predictions for some of the out-of-fold rows; NaN where it is undefined."""
        return self.truth.score(self.ready.target.task, self.metric, prediction, rows)

    def standard_error(self, trial: Trial) -> float:
        """Of a trial's score: the spread of its folds' scores over the root of their number."""
        assert trial.oof is not None
        folds = [self.score(trial.oof[rows].astype(float), rows)
                 for rows in (self.truth.fold == k for k in range(len(self.rows)))]
        return float(np.std(folds, ddof=1) / np.sqrt(len(folds)))


@dataclass
class _Running:
    """A trial on its way: its folds' models so far, and the metric of each."""

    trial: Trial
    candidate: Candidate
    fitted: list[Fitted]
    handle: Any
    folds: list[Judged] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def _fail(trial: Trial, error: ConfigError | DataError) -> None:
    trial.state, trial.why, trial.score, trial.oof = "failed", error.message, None, None
