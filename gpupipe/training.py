"""From a dataset to trained models: profile, split, learn the steps, train, predict out of fold.

Preprocessing is never refitted: the steps of all folds learn in the same scans
(`steps.scan`), and training asks for what they learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gpupipe.checkpoints import NOWHERE, Checkpoints
from gpupipe.config import PipelineConfig
from gpupipe.data.dataset import Dataset
from gpupipe.data.split import Split
from gpupipe.engine.base import Engine
from gpupipe.engine.memory import MIB, Layout
from gpupipe.errors import EnvironmentFault
from gpupipe.fingerprint import fingerprint
from gpupipe.folds import Trainer, predicted, rounds_of
from gpupipe.matrices import Source
from gpupipe.models import FittedModel, Training
from gpupipe.prepare import Candidate, prepare
from gpupipe.steps import Target
from gpupipe.steps.graph import Fitted, feature_names
from gpupipe.steps.passes import stage
from gpupipe.steps.profile import Profile
from gpupipe.steps.scan import Knowledge, Rowed, learn
from gpupipe.timings import Timings

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
    fold_models : without a target, the models of the folds: what they give is not of one kind,
        so there is no ``oof``.
    """

    candidate: Candidate
    views: Sequence[Fitted]
    final: FittedModel | None
    holdout: np.ndarray | None
    oof: np.ndarray | None
    curves: list[dict[str, Any]]
    rounds: int | None
    fold_models: list[FittedModel] = field(default_factory=list)

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
                      knowledge, {}, ready.notes, timings, learned, layout, ready.checkpoints)
    with TemporaryDirectory() if scratch is None else nullcontext(scratch) as folder:
        _train_all(trained, ready.candidates, fitted, ready.checkpoints, Path(folder), progress,
                   final)
    return trained


def retrain(
    trained: Trained, seed: int, *, progress: Any = None, scratch: Path | None = None,
) -> Trained:
    """The model that was asked for, trained with another seed.

    Rows, split and what the steps learned stay as they are, so that what differs is the training.
    """
    config = trained.config.model_copy(update={"seed": seed})
    again = replace(trained, config=config, outcomes={}, notes=[], checkpoints=NOWHERE)
    with TemporaryDirectory() if scratch is None else nullcontext(scratch) as folder:
        _train_all(again, [trained.model.candidate], [list(trained.model.views)], NOWHERE,
                   Path(folder), progress, final=trained.model.final is not None)
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


def _train_all(
    trained: Trained, candidates: list[Candidate], fitted: list[list[Fitted]],
    checkpoints: Checkpoints, scratch: Path, progress: Any, final: bool,
) -> None:
    layout, split = trained.layout, trained.split
    how = replace(manner(trained.config, trained.rowed.engine),
                  spill=scratch if layout.bins == "disk" else None, scratch=scratch)
    source = Source(trained.rowed, tuple(f.key for f in trained.profile.facts),
                    layout.matrix == "streamed")
    engine = trained.rowed.engine
    engine.pin(source.keys)
    # A matrix for each fold. One for all, with weights of 0 for a fold's judged rows, takes as
    # long: what it saves in bins it loses by growing trees over rows that count for nothing
    # (benchmarks/folds.py). And what steps learned differs between folds.
    total = (len(split.folds) + final) * len(candidates)
    with stage(progress, "train", total, "models") as advance:
        trainer = _trainer_of(engine)(candidates, fitted, source, trained.target, split, layout,
                                      how, checkpoints, trained.timings, advance)
        folds = trainer.folds()
        curves = [[m.curve for m, _ in f] for f in folds]
        rounds = [rounds_of(c, found) for c, found in zip(candidates, curves, strict=True)]
        whole = trainer.final(rounds) if final else [(None, None)] * len(candidates)
    with trained.timings.stage("predict"):
        labelled = trained.target.task != "unsupervised"
        number = trained.fold_of_rows() if split.folds and labelled else None
        for c, candidate in enumerate(candidates):
            model, unseen = whole[c]
            trained.outcomes[candidate.name] = Outcome(
                candidate, fitted[c], model,
                predicted(model, unseen) if model and unseen and split.holdout else None,
                None if number is None else trainer.out_of_fold(number, folds[c], rounds[c]),
                [curve for curve in curves[c] if curve], rounds[c],
                [] if labelled else [m for m, _ in folds[c]],
            )
    if trainer.reused:
        trained.notes.append(f"{trainer.reused} of {total} models were trained by an earlier run "
                             "on the same data, and are used again")
