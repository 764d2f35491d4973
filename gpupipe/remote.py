"""Training where the data are: the trainer of an engine that works in other processes.

A fold is one job of one worker: it reads the table itself, so that no matrix is ever sent, and
folds are trained side by side. The final model is trained by all workers together, each on the
rows of its own parts, where its family can do that; they talk to each other round by round. If
one of them is lost meanwhile, the others are freed, and training goes on from the rounds that
were saved, with the workers that there are then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from gpupipe.checkpoints import Checkpoints
from gpupipe.engine.arrays import to_host
from gpupipe.engine.dask import DaskEngine, WorkerLost
from gpupipe.errors import EnvironmentFault
from gpupipe.folds import Judged, Trainer, model_scope, processes_of, restored, training_parts
from gpupipe.matrices import Ask, lazy_matrix, matrices, predict_chunks
from gpupipe.models import FittedModel, Training
from gpupipe.timings import Timings

ATTEMPTS = 10
"""So often may a worker be lost during one training before it is given up."""


@dataclass(frozen=True)
class _Result:
    """A trained model as plain data."""

    payload: dict[str, Any]
    curve: dict[str, Any] | None
    judged: Any


@dataclass
class RemoteTrainer(Trainer):
    """A `Trainer` whose work is done by the workers of a Dask cluster."""

    @property
    def engine(self) -> DaskEngine:
        engine = self.source.rowed.engine
        assert isinstance(engine, DaskEngine)
        return engine

    def waves(self) -> list[tuple[range, int]]:
        return self.layout.waves(len(self.split.folds), self.how.threads, remote=True)

    def wave(self, wave: Sequence[int], threads: int) -> list[list[Judged]]:
        parts, found = self.split.folds, [list[Judged]() for _ in self.candidates]
        todo = [self._task(at, k + 1, parts[k].train, parts[k].valid,
                           replace(self.how, threads=threads))
                for k in wave for at in range(len(self.candidates))]
        with self.timings.stage("folds"):
            done = self._done(todo)
        for task in todo:
            found[task.at].append((self._model(task, done[task]), lazy_matrix(
                self.source, task.ask, task.judged)))
        return found

    def final(self, rounds: Sequence[int | None]) -> list[Judged]:
        train, holdout = self.split.train, self.split.holdout
        todo = [self._task(at, 0, train, holdout, replace(self.how, rounds=chosen))
                for at, chosen in enumerate(rounds)]
        with self.timings.stage("final training"):
            done = self._done(todo)
        return [(self._model(task, done[task]), lazy_matrix(self.source, task.ask, holdout))
                for task in todo]

    def _task(
        self, at: int, view: int, train: Sequence[int], judged: Sequence[int], how: Training
    ) -> Task:
        candidate, fitted = self.candidates[at], self.fitted[at][view]
        size = processes_of(candidate, self.engine.processes, self.source.rowed.rows, train,
                            not view or self.layout.together)
        how = replace(how, processes=size)
        part = (tuple(train), tuple(judged)) if view else (tuple(train),)
        scope = model_scope(self.checkpoints, candidate, fitted, part, how)
        return Task(at, view, tuple(train), tuple(judged), Ask(candidate.graph, fitted,
                                                               candidate.limit), how, scope)

    def _done(self, todo: Sequence[Task]) -> dict[Task, Any]:
        """What each task gave, or was known to give: several tasks at once, or several workers
        at one."""
        done: dict[Task, Any] = {t: t.scope.load("model") for t in todo}
        waiting = [t for t, known in done.items() if known is None]
        alone = [t for t in waiting if t.how.processes == 1]
        # A part's candidates are trained by one job, in order: it reads the part but once.
        views = list(dict.fromkeys(t.view for t in alone))
        jobs = [tuple(t for t in alone if t.view == view) for view in views]
        for tasks, results in zip(jobs, self.engine.jobs(
                _Alone(self._sent()), jobs, self.layout.at_once), strict=True):
            done.update(zip(tasks, results, strict=True))
        done.update({t: self._spread(t) for t in waiting if t.how.processes > 1})
        return done

    def _spread(self, task: Task) -> _Result:
        """A model that all workers train together, as often as it takes."""
        family: Any = type(self.candidates[task.at].model)
        parts = training_parts(self.source.rowed.rows, task.train)
        for _ in range(ATTEMPTS):
            size = min(task.how.processes, self.engine.there_are())
            shares = [tuple(parts[rank::size]) for rank in range(size)]
            with family.ring(size, self.engine.cluster.address) as ring:
                share = _Together(self._sent(), task, task.scope.load("rounds"), ring, shares)
                try:
                    return self.engine.together(share, size)[0]
                except WorkerLost:
                    continue
        raise EnvironmentFault(
            f"a worker was lost in each of {ATTEMPTS} attempts to train one model",
            hint="look at the workers' logs; more memory for each (engine.memory) may help",
        )

    def _model(self, task: Task, result: Any) -> FittedModel:
        """The model of a result, or of a checkpoint; saved where it was not."""
        known = not isinstance(result, _Result)
        saved = result if known else {"model": result.payload, "curve": result.curve}
        model = restored(self.candidates[task.at].model, saved)
        self.advance(1)
        self.reused += known
        if not known:
            model.judged = result.judged
            if not task.scope.has("model"):
                task.scope.save("model", saved)
        task.scope.drop("rounds")
        return model

    def _sent(self) -> Trainer:
        """A plain trainer, which a worker can have; without the keys, where no rows are sampled."""
        given = {f.name: getattr(self, f.name) for f in fields(Trainer) if f.init}
        if all(c.limit is None for c in self.candidates):
            given["source"] = replace(self.source, keys=())
        return Trainer(**{**given, "timings": Timings(), "advance": _nothing})


def _nothing(n: int) -> None: ...


@dataclass(frozen=True, eq=False)
class Task:
    """One training: a candidate on the rows of some buckets, judged by those of others."""

    at: int
    view: int
    train: tuple[int, ...]
    judged: tuple[int, ...]
    ask: Ask
    how: Training
    scope: Checkpoints


@dataclass(frozen=True)
class _Alone:
    """Trains the candidates of one part of the rows, in one worker."""

    trainer: Trainer

    def __call__(self, tasks: Sequence[Task]) -> list[_Result]:
        trainer, first = self.trainer, tasks[0]
        jobs = trainer.only([t.at for t in tasks]).read(
            "", first.view, first.train, first.judged, [t.how for t in tasks],
            [t.scope for t in tasks], watched=first.view > 0)
        found = []
        for job in jobs:
            model = trainer.train(job)
            if not first.view and first.judged:
                model.judged = predict_chunks(model, job.judged)
            found.append(_plain(model))
        return found


@dataclass(frozen=True)
class _Together:
    """Trains one model on the rows of a worker's own parts, together with the others."""

    trainer: Trainer
    task: Task
    saved: Any
    ring: dict[str, Any]
    shares: list[tuple[int, ...]]

    def __call__(self, rank: int) -> _Result:
        trainer, task = self.trainer, self.task
        own = replace(trainer.source, parts=self.shares[rank])
        ((learned, judged),) = matrices(own, [task.ask], task.train, task.judged, [True])
        if not judged.rows:  # none of them lies in these parts: the others' are judged all the same
            xp = trainer.source.rowed.engine.fx.xp
            judged = replace(judged, chunks=(xp.empty((0, len(judged.names)), "float32"),))
        checkpoints = _Relayed(task.scope.folder, task.scope.about, self.saved, rank == 0)
        family: Any = trainer.candidates[task.at].model
        with family.joined(self.ring, rank):
            model = family.fit(learned, judged if task.view else None, trainer.target,
                               replace(task.how, checkpoints=checkpoints))
            return replace(_plain(model), judged=None)  # of a share of the rows


@dataclass(frozen=True)
class _Relayed(Checkpoints):
    """Of one process among several: all begin with what the first of them saved."""

    saved: Any = None
    first: bool = True

    def load(self, kind: str) -> Any:
        return self.saved

    def save(self, kind: str, value: Any) -> None:
        if self.first:
            super().save(kind, value)


def _plain(model: FittedModel) -> _Result:
    judged = model.judged
    return _Result(model.payload(), model.curve, None if judged is None else to_host(judged))
