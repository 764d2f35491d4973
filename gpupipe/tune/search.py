"""The search: trials are proposed by Optuna, trained fold by fold, and kept one by one.

Every trial is a checkpoint of its own. A search that was killed asks its sampler for the same
proposals again, in the same order, and tells it what the trials that are there already found:
so the sampler is in the very state that it was in, and the search goes on as if nothing had
happened. What a trial is compared by does not depend on the machine: folds are looked at in
order, however many are trained side by side, and work is counted in rows x rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from gpupipe.checkpoints import digest
from gpupipe.config import PipelineConfig
from gpupipe.engine.memory import Layout
from gpupipe.errors import ConfigError, DataError
from gpupipe.evaluate.metrics import Metric, choose
from gpupipe.evaluate.scores import evaluate
from gpupipe.folds import Judged, Trainer, predicted, rounds_of
from gpupipe.models import model_of
from gpupipe.models.selected import selections_of
from gpupipe.prepare import Candidate, Prepared
from gpupipe.steps.graph import Fitted
from gpupipe.steps.passes import stage
from gpupipe.steps.scan import Knowledge, learn
from gpupipe.tune.samplers import Sampler
from gpupipe.tune.space import Proposal, SearchSpace, space_of
from gpupipe.tune.trial import Trial, measure

KEPT = 25
"""The out-of-fold predictions of so many trials, the best ones, are kept until the end."""
LOOK = 25
"""Looks at the loss between two that a pruner of rounds is told of."""
SLOWER = 0.25
"""The last trial is the best boosted one with steps this much smaller, and so more of them."""


@dataclass(frozen=True)
class Truth:
    """The out-of-fold rows: fold ``[n]``, target ``[n]``, weight ``[n]`` or None."""

    fold: np.ndarray
    target: np.ndarray
    weight: np.ndarray | None


@dataclass
class Found:
    """What a search found.

    Attributes
    ----------
    best : the trial that was chosen.
    views : by trial number, of those whose predictions are kept: what its steps learned.
    units : rows x rounds of the trials that a budget was for: as ``tune.work_units`` it gives
        the same trials on any machine.
    """

    space: SearchSpace
    metric: Metric
    trials: list[Trial]
    best: Trial
    candidates: dict[int, Candidate]
    views: dict[int, list[Fitted]]
    units: int
    seconds: float
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> list[Trial]:
        """The trials whose predictions are kept, best first."""
        return ranked([t for t in self.trials if t.oof is not None], self.metric)

    def to_json(self) -> dict[str, Any]:
        """For the record of the run."""
        return {
            "metric": self.metric.name, "best": self.best.number, "work_units": self.units,
            "seconds": round(self.seconds, 3), "space": self.space.to_json(),
            "trials": [t.row() for t in self.trials], "notes": self.notes,
        }


@dataclass
class Search:
    """One search. ``trainer`` makes the trainer of some candidates with what their steps
    learned; ``knowledge`` is what scans have found out, so that choices cost none again."""

    ready: Prepared
    knowledge: Knowledge
    layout: Layout
    truth: Truth
    trainer: Callable[[Sequence[Candidate], Sequence[Sequence[Fitted]]], Trainer]
    progress: Any = None
    notes: list[str] = field(default_factory=list, init=False)
    trials: list[Trial] = field(default_factory=list, init=False)
    _learned: dict[tuple[str, ...], list[Fitted]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        config, task = self.config, self.ready.target.task
        self.space = space_of(config, task)  # type: ignore[arg-type]
        self.metric = choose(task, config.evaluate.metrics)[0]  # type: ignore[arg-type]
        rows = [np.bincount(r.bucket, minlength=self.ready.split.buckets)
                for r in self.ready.rowed.rows]
        counts = np.sum(rows, axis=0)
        self.rows = [int(counts[list(f.train)].sum()) for f in self.ready.split.folds]
        self._drop_families()
        if config.tune.prune_on == "rounds" and self.ready.rowed.engine.remote:
            raise config.fault(("tune", "prune_on"), "rounds are watched in one process, and this "
                               "engine trains in others", "set prune_on: folds")
        self.kept_trials = self.ready.checkpoints.given(search=digest([
            config.tune.model_dump(mode="json", exclude={"trials", "minutes", "work_units"}),
            self.space.to_json(), config.features, self.metric.name, config.seed,
            config.select.model_dump(mode="json"), self.layout.matrix,
        ]))

    @property
    def config(self) -> PipelineConfig:
        return self.ready.config

    def run(self) -> Found:
        """Search until a budget is used up.

        Raises ConfigError where no trial could be trained at all.
        """
        tune = self.config.tune
        sampler = Sampler(tune, self.space, self.metric.greater_is_better, self.config.seed,
                          len(self.rows))
        limit = tune.trials if tune.trials is not None or sampler.size is None else sampler.size
        if not tune.wanted and sampler.size is None:
            limit = len(self.space.families)  # an ensemble of families as they are
        polished = sampler.size is None and (limit is None or limit > len(self.space.families) + 1)
        searched = None if limit is None else limit - (polished and limit is not None)
        with stage(self.progress, "search", limit or 0, "trials") as advance:
            while self._goes_on(searched):
                size = tune.parallel if searched is None else min(
                    tune.parallel, searched - len(self.trials))
                for trial in self._batch(sampler, size):
                    self._keep(trial)
                    advance(1)
            units, seconds = self.units, self.seconds
            if polished and (slower := self._slower()) is not None:
                self._keep(self._one(Trial.of(len(self.trials), slower)))
                advance(1)
        best = self._chosen()
        kept = {t.number: self._candidate(t.proposal) for t in self.trials if t.oof is not None}
        return Found(self.space, self.metric, self.trials, best, kept,
                     {n: self._fitted(c) for n, c in kept.items()}, units, seconds, self.notes)

    @property
    def units(self) -> int:
        return sum(t.units for t in self.trials)

    @property
    def seconds(self) -> float:
        return sum(t.seconds for t in self.trials)

    def _goes_on(self, limit: int | None) -> bool:
        tune = self.config.tune
        return not (
            (limit is not None and len(self.trials) >= limit)
            or (tune.minutes is not None and self.seconds >= 60 * tune.minutes)
            or (tune.work_units is not None and self.units >= tune.work_units)
        )

    def _drop_families(self) -> None:
        """Leave out what would need a matrix in memory that has no room there."""
        if self.layout.matrix != "streamed":
            return
        unfit = [k for k in self.space.families if not model_of(k, {}).streams]
        if len(unfit) == len(self.space.families):
            raise ConfigError(
                f"{' and '.join(unfit)} learn from a matrix in memory, which has no room",
                hint="set engine.memory higher, or tune.models to xgboost")
        if unfit:
            self.notes.append(f"not searched: {', '.join(unfit)} learn from a matrix in memory, "
                              "which has no room")
            self.space = replace(self.space, families={
                k: s for k, s in self.space.families.items() if k not in unfit})

    # One batch ---------------------------------------------------------------------------------

    def _batch(self, sampler: Sampler, size: int) -> list[Trial]:
        """The next trials: proposed together, trained side by side, told in order."""
        first = len(self.trials)
        asked = [sampler.ask(first + i) for i in range(size)]
        trials = [Trial.of(first + i, proposal) for i, (_, proposal) in enumerate(asked)]
        known = [self.kept_trials.given(trial=str(t.number)).load("trial") for t in trials]
        done = [Trial.load(k) if k is not None else t for t, k in zip(trials, known, strict=True)]
        waiting = [i for i, k in enumerate(known) if k is None]
        self._train([done[i] for i in waiting], {done[i].number: asked[i][0] for i in waiting},
                    sampler)
        for i in waiting:
            self.kept_trials.given(trial=str(done[i].number)).save("trial", done[i].saved())
        for (handle, _), trial in zip(asked, done, strict=True):
            sampler.tell(handle, trial, self.config.tune.objectives)
        return done

    def _one(self, trial: Trial) -> Trial:
        """A trial that no sampler asked for."""
        scope = self.kept_trials.given(trial="last", about=digest(trial.row()))
        known = scope.load("trial")
        if known is not None:
            return Trial.load(known)
        self._train([trial], {}, None)
        scope.save("trial", trial.saved())
        return trial

    def _train(self, trials: Sequence[Trial], handles: Mapping[int, Any],
               sampler: Sampler | None) -> None:
        """Train trials side by side; what each found is noted in it."""
        running = []
        for trial in trials:
            try:
                candidate = self._candidate(trial.proposal)
                running.append(_Running(trial, candidate, self._fitted(candidate),
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
        if sampler.ends(mine.handle, at, value):
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
        mine.values.append(self._score(predicted(model, judged, rounds), rows))
        value = float(np.mean(mine.values))
        if np.isfinite(value):
            trial.looks[k + 1] = value
            if sampler.ends(mine.handle, k + 1, value):
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
        score = self._score(trial.oof.astype(float), np.full(len(oof), True))
        if not np.isfinite(score):
            _fail(trial, DataError(f"{self.metric.name} is not defined on its predictions"))
            return
        trial.score = score
        measure(trial, mine.candidate, mine.fitted[1], folds[0][0], self.ready.rowed.dataset,
                self.ready.target)

    def _score(self, prediction: np.ndarray, rows: np.ndarray) -> float:
        truth = self.truth
        score = evaluate(
            self.ready.target.task, truth.target[rows], prediction,  # type: ignore[arg-type]
            weight=None if truth.weight is None else truth.weight[rows],
            metrics=[self.metric.name], resamples=0,
        )[self.metric.name].value
        return float("nan") if score is None else score

    # Candidates --------------------------------------------------------------------------------

    def _candidate(self, proposal: Proposal) -> Candidate:
        model = model_of(proposal.kind, proposal.params)
        return self.ready.binder.candidate(model, proposal.features)

    def _fitted(self, candidate: Candidate) -> list[Fitted]:
        """What the steps learned, by view: from what is known already, as far as that goes."""
        key = tuple(node.key for node in candidate.graph.outputs)
        if key not in self._learned:
            fitted, _ = learn([candidate.graph], self.ready.views, self.ready.rowed,
                              self.ready.profile.states, None, self.ready.checkpoints,
                              knowledge=self.knowledge)
            self._learned[key] = fitted[0]
        return self._learned[key]

    def _keep(self, trial: Trial) -> None:
        self.trials.append(trial)
        for other in ranked([t for t in self.trials if t.oof is not None], self.metric)[KEPT:]:
            other.oof = None

    def _slower(self) -> Proposal | None:
        """The best boosted trial with smaller steps."""
        for trial in ranked([t for t in self.trials if t.score is not None], self.metric):
            step = model_of(trial.kind, trial.params)
            rate = getattr(step, "params", {}).get("learning_rate")
            if trial.rounds and rate and "learning_rate" not in self.space.fixed.get(trial.kind,
                                                                                     {}):
                return Proposal(trial.kind, {**trial.params, "learning_rate": rate * SLOWER},
                                trial.features)
        return None

    def _chosen(self) -> Trial:
        """The best trial; with other objectives the cheapest that is not worse beyond chance."""
        done = ranked([t for t in self.trials if t.score is not None], self.metric)
        if not done:
            reasons = list(dict.fromkeys(t.why for t in self.trials if t.why))
            raise ConfigError(f"no trial could be trained: {'; '.join(reasons[:3])}",
                              hint="look at tune.models and tune.space")
        best, other = done[0], self.config.tune.objectives[1:]
        if not other:
            return best
        margin = self._standard_error(best)
        assert best.score is not None
        alike = [t for t in done if t.score is not None and abs(t.score - best.score) <= margin]
        return min(alike, key=lambda t: [getattr(t, name) for name in other])

    def _standard_error(self, trial: Trial) -> float:
        """Of a trial's score: the spread of its folds' scores over the root of their number."""
        assert trial.oof is not None
        folds = [self._score(trial.oof[rows].astype(float), rows)
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


def ranked(trials: Sequence[Trial], metric: Metric) -> list[Trial]:
    """Best first; of equal ones the earlier."""
    sign = -1 if metric.greater_is_better else 1
    return sorted(trials, key=lambda t: (sign * (t.score or 0.0), t.number))
