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
from gpupipe.folds import Trainer, model_scope, processes_of, training_parts
from gpupipe.matrices import Ask, lazy_matrix, matrices, predict_chunks
from gpupipe.models import FittedModel, Matrix, Training
from gpupipe.prepare import Candidate
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

    def folds(self) -> list[list[tuple[FittedModel, Matrix]]]:
        parts = self.split.folds
        scopes: dict[int, list[Checkpoints]] = {}
        known: dict[int, list[Any]] = {}
        manners = {}
        for wave, threads in self.layout.waves(len(parts), self.how.threads, remote=True):
            for k in wave:
                manners[k] = replace(self.how, threads=threads)
                scopes[k] = [model_scope(self.checkpoints, c, f[k + 1],
                                         (parts[k].train, parts[k].valid), manners[k])
                             for c, f in zip(self.candidates, self.fitted, strict=True)]
                known[k] = [s.load("model") for s in scopes[k]]
        waiting = [k for k in known if any(model is None for model in known[k])]
        if waiting:
            job = _FoldThere(self._sent(), manners)
            with self.timings.stage("folds"):
                done = self.engine.jobs(job, waiting, self.layout.at_once)
            for k, results in zip(waiting, done, strict=True):
                known[k] = [r if old is None else old
                            for r, old in zip(results, known[k], strict=True)]
        return [
            [(self._model(c, known[k][at], scopes[k][at]),
              lazy_matrix(self.source, Ask(c.graph, self.fitted[at][k + 1]), parts[k].valid))
             for k in sorted(known)]
            for at, c in enumerate(self.candidates)
        ]

    def final(self, rounds: Sequence[int | None]) -> list[tuple[FittedModel, Matrix]]:
        found, parts = [], training_parts(self.source.rowed.rows, self.split.train)
        with self.timings.stage("final training"):
            for at, (candidate, chosen) in enumerate(zip(self.candidates, rounds, strict=True)):
                size = processes_of(candidate, self.engine.processes, parts)
                how = replace(self.how, rounds=chosen, processes=size)
                scope = model_scope(self.checkpoints, candidate, self.fitted[at][0],
                                    (self.split.train,), how)
                result = scope.load("model")
                if result is None:
                    result = (self._spread(at, how, scope, parts) if size > 1 else
                              self.engine.jobs(_FinalThere(self._sent(), at, how), [0], 1)[0])
                found.append((
                    self._model(candidate, result, scope),
                    lazy_matrix(self.source, Ask(candidate.graph, self.fitted[at][0]),
                                self.split.holdout),
                ))
        return found

    def _spread(
        self, at: int, how: Training, scope: Checkpoints, parts: Sequence[int]
    ) -> _Result:
        """A model that all workers train together, as often as it takes."""
        family: Any = type(self.candidates[at].model)
        for _ in range(ATTEMPTS):
            size = min(how.processes, self.engine.there_are())
            shares = [tuple(parts[rank::size]) for rank in range(size)]
            with family.ring(size, self.engine.cluster.address) as ring:
                share = _ShareThere(self._sent(), at, how, scope.load("rounds"), ring, shares)
                try:
                    return self.engine.together(share, size)[0]
                except WorkerLost:
                    continue
        raise EnvironmentFault(
            f"a worker was lost in each of {ATTEMPTS} attempts to train the final model",
            hint="look at the workers' logs; more memory for each (engine.memory) may help",
        )

    def _model(self, candidate: Candidate, result: Any, scope: Checkpoints) -> FittedModel:
        """The model of a result, or of a checkpoint; saved where it was not."""
        self.advance(1)
        if isinstance(result, _Result):
            if not scope.has("model"):
                scope.save("model", {"model": result.payload, "curve": result.curve})
            model = type(candidate.model).restore(result.payload)
            model.curve, model.judged = result.curve, result.judged
        else:
            self.reused += 1
            model = type(candidate.model).restore(result["model"])
            model.curve = result["curve"]
        scope.drop("rounds")
        return model

    def _sent(self) -> Trainer:
        """A plain trainer, which a worker can have."""
        given = {f.name: getattr(self, f.name) for f in fields(Trainer) if f.init}
        return Trainer(**{**given, "timings": Timings(), "advance": _nothing})


def _nothing(n: int) -> None: ...


@dataclass(frozen=True)
class _FoldThere:
    """Trains the candidates of one fold, in a worker."""

    trainer: Trainer
    manners: dict[int, Training]

    def __call__(self, k: int) -> list[_Result]:
        jobs = self.trainer.jobs_of(k, self.trainer.split.folds[k], self.manners[k])
        return [_plain(self.trainer.train(job)) for job in jobs]


@dataclass(frozen=True)
class _FinalThere:
    """Trains one candidate on all training rows, in one worker."""

    trainer: Trainer
    at: int
    how: Training

    def __call__(self, _: int) -> _Result:
        (job,) = self.trainer.only(self.at).final_jobs([self.how])
        model = self.trainer.train(job)
        if self.trainer.split.holdout:
            model.judged = predict_chunks(model, job.judged)
        return _plain(model)


@dataclass(frozen=True)
class _ShareThere:
    """Trains one candidate on the rows of a worker's own parts, together with the others."""

    trainer: Trainer
    at: int
    how: Training
    saved: Any
    ring: dict[str, Any]
    shares: list[tuple[int, ...]]

    def __call__(self, rank: int) -> _Result:
        trainer, candidate = self.trainer, self.trainer.candidates[self.at]
        fitted = trainer.fitted[self.at][0]
        scope = model_scope(trainer.checkpoints, candidate, fitted, (trainer.split.train,),
                            self.how)
        own = replace(trainer.source, parts=self.shares[rank])
        ((learned, _),) = matrices(own, [Ask(candidate.graph, fitted)], trainer.split.train, (),
                                   [True])
        checkpoints = _Relayed(scope.folder, scope.about, self.saved, rank == 0)
        family: Any = candidate.model
        with family.joined(self.ring, rank):
            model = family.fit(learned, None, trainer.target,
                                        replace(self.how, checkpoints=checkpoints))
            return _plain(model)


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
