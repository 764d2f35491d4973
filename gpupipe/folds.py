"""The models of the folds, the final one, and what each predicts for rows it has not seen.

Folds are trained side by side where the layout says that their matrices fit: trees of one
training wait for each other at every level, trees of two do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpupipe.checkpoints import Checkpoints, digest
from gpupipe.data.split import Fold, Split
from gpupipe.engine.arrays import to_host
from gpupipe.engine.memory import Layout
from gpupipe.matrices import Ask, Source, matrices, predict_chunks
from gpupipe.models import FittedModel, Matrix, Model, Training
from gpupipe.models.boosting import best_round
from gpupipe.prepare import Candidate
from gpupipe.steps import Target
from gpupipe.steps.graph import Fitted
from gpupipe.steps.scan import PartRows
from gpupipe.timings import Timings

Judged = tuple[FittedModel, Matrix]
"""A fold's model, and the matrix that it is judged by."""


@dataclass
class Trainer:
    """Trains candidates on parts of the rows, and takes what is trained already.

    Attributes
    ----------
    fitted : for each candidate what its steps learned: for the final model, then by fold.
    how : with all of the machine's threads.
    advance : is told of each model.
    reused : how many models were there already.
    """

    candidates: Sequence[Candidate]
    fitted: Sequence[Sequence[Fitted]]
    source: Source
    target: Target
    split: Split
    layout: Layout
    how: Training
    checkpoints: Checkpoints
    timings: Timings
    advance: Callable[[int], None]
    reused: int = field(default=0, init=False)

    def folds(self) -> list[list[Judged]]:
        """For each candidate its folds' models, each with the matrix that it is judged by."""
        found: list[list[Judged]] = [[] for _ in self.candidates]
        for wave, threads in self.waves():
            for mine, more in zip(found, self.wave(wave, threads), strict=True):
                mine += more
        return found

    def waves(self) -> list[tuple[range, int]]:
        """The folds that are trained side by side, one wave after the other; threads of each."""
        return self.layout.waves(len(self.split.folds), self.how.threads)

    def wave(self, wave: Sequence[int], threads: int) -> list[list[Judged]]:
        """For each candidate the models of some folds, trained side by side."""
        found: list[list[Judged]] = [[] for _ in self.candidates]
        how = replace(self.how, threads=threads)
        jobs = [job for k in wave for job in self.jobs_of(k, self.split.folds[k], how)]
        numbers = " and ".join(str(k + 1) for k in wave)
        with self.timings.stage(f"fold{'s' if len(wave) > 1 else ''} {numbers}"):
            for at, model in enumerate(self._map(self.train, jobs)):
                found[at % len(self.candidates)].append((model, jobs[at].judged))
        return found

    def final(self, rounds: Sequence[int | None]) -> list[Judged]:
        """For each candidate the model of all training rows, and the holdout's matrix."""
        manners = [replace(self.how, rounds=r) for r in rounds]
        scopes = [model_scope(self.checkpoints, c, f[0], (self.split.train,), m)
                  for c, f, m in zip(self.candidates, self.fitted, manners, strict=True)]
        jobs = self.read("final matrix", 0, self.split.train, self.split.holdout, manners, scopes,
                         watched=False, last=True)
        with self.timings.stage("final training"):
            return [(self.train(job), job.judged) for job in jobs]

    def only(self, which: Sequence[int]) -> Trainer:
        """The trainer of some of the candidates."""
        return replace(self, candidates=[self.candidates[i] for i in which],
                       fitted=[self.fitted[i] for i in which])

    def out_of_fold(
        self, number: np.ndarray, folds: Sequence[Judged], rounds: int | None
    ) -> np.ndarray:
        """Predictions for every row that a fold judged, in row order; ``number`` is its fold."""
        out: np.ndarray | None = None
        for k, scores in enumerate(self._map(lambda f: predicted(f[0], f[1], rounds), folds)):
            if out is None:
                out = np.empty((len(number), *scores.shape[1:]))
            out[number == k] = scores
        assert out is not None
        return out

    def _map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """The function of each item, in order; side by side where the layout allows it."""
        with ThreadPoolExecutor(self.layout.at_once) as pool:
            return list(pool.map(function, items))

    def jobs_of(self, k: int, part: Fold, how: Training) -> list[Job]:
        """The trainings of fold ``k``."""
        scopes = [model_scope(self.checkpoints, c, f[k + 1], (part.train, part.valid), how)
                  for c, f in zip(self.candidates, self.fitted, strict=True)]
        return self.read(f"fold {k + 1} matrix", k + 1, part.train, part.valid,
                         [how] * len(scopes), scopes)

    def read(
        self, stage: str, view: int, train: Sequence[int], judged: Sequence[int],
        manners: Sequence[Training], scopes: Sequence[Checkpoints], *, watched: bool = True,
        last: bool = False,
    ) -> list[Job]:
        """The jobs of one part, with their matrices, from one pass over the table."""
        known = [s.load("model") for s in scopes]
        self.reused += sum(k is not None for k in known)
        asks = [Ask(c.graph, f[view], c.limit)
                for c, f in zip(self.candidates, self.fitted, strict=True)]
        with self.timings.stage(stage):
            pairs = matrices(self.source, asks, train, judged, [k is None for k in known], last)
        return [
            Job(c, k, learned, unseen, watched, replace(m, checkpoints=s))
            for c, k, (learned, unseen), m, s in zip(
                self.candidates, known, pairs, manners, scopes, strict=True)
        ]

    def train(self, job: Job) -> FittedModel:
        """The trained model: the known one, if there is, or else trained now and saved."""
        family, how = job.candidate.model, job.how
        learned, job.learned = job.learned, None  # not needed any more once it is trained
        if job.known is not None:
            model = restored(family, job.known)
        else:
            assert learned is not None
            model = family.fit(learned, job.judged if job.watched else None, self.target, how)
            how.checkpoints.save("model", {"model": model.payload(), "curve": model.curve})
            how.checkpoints.drop("rounds")
        self.advance(1)
        return model


@dataclass
class Job:
    """One training: what was saved of it, what it learns from and what it is judged by."""

    candidate: Candidate
    known: Any
    learned: Matrix | None
    judged: Matrix
    watched: bool
    how: Training


def predicted(model: FittedModel, rows: Matrix, rounds: int | None = None) -> np.ndarray:
    """Predictions for the rows that a model is judged by: those it came with, or made now."""
    if model.judged is not None and rounds in (None, model.rounds):
        return to_host(model.judged)
    return predict_chunks(model, rows, rounds)


def restored(family: Model, saved: Any) -> FittedModel:
    """The model of a checkpoint."""
    model = type(family).restore(saved["model"])
    model.curve = saved["curve"]
    return model


def model_scope(
    checkpoints: Checkpoints, candidate: Candidate, fitted: Fitted, part: tuple[Any, ...],
    how: Training,
) -> Checkpoints:
    """The checkpoints of one training: features, model, part of the rows and manner."""
    model = candidate.model
    return checkpoints.given(
        features=digest([fitted.identity(node) for node in candidate.graph.outputs]),
        model=digest([model.kind, getattr(model, "params", {})]),
        part=digest([part, candidate.limit]),
        how=digest([how.seed, how.threads, how.processes, how.rounds, how.device]),
    )


def training_parts(rows: Sequence[PartRows], train: Sequence[int]) -> list[int]:
    """The parts that have training rows."""
    return [i for i, r in enumerate(rows) if np.isin(r.bucket, list(train)).any()]


def processes_of(
    candidate: Candidate, there: int, rows: Sequence[PartRows], train: Sequence[int],
    wanted: bool = True,
) -> int:
    """How many of the processes that are there train a model together: some parts each."""
    if not wanted or not candidate.model.spreads or candidate.limit is not None:
        return 1
    return max(1, min(there, len(training_parts(rows, train))))


def rounds_of(candidate: Candidate, curves: Sequence[dict[str, Any] | None]) -> int | None:
    """The final model's rounds: as many as the parameters say, or the best on the folds."""
    return getattr(candidate.model, "rounds", None) or best_round(curves)
