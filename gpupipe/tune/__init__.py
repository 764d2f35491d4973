"""Choosing: the families and parameters that do best out of fold, and what they give together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gpupipe.checkpoints import NOWHERE, Checkpoints
from gpupipe.config import PipelineConfig
from gpupipe.engine.memory import Layout
from gpupipe.folds import Trainer
from gpupipe.models import model_of
from gpupipe.prepare import Candidate, Prepared
from gpupipe.steps.graph import Fitted, Graph
from gpupipe.steps.scan import Knowledge
from gpupipe.timings import Timings
from gpupipe.tune.ensemble import ENSEMBLED, Ensemble, ensemble
from gpupipe.tune.search import Found, Search
from gpupipe.tune.space import families_of
from gpupipe.tune.trial import Trial
from gpupipe.tune.workshop import Truth, Workshop


@dataclass(frozen=True)
class Chosen:
    """What a search found, the ensemble that was tried, and whether it is the model."""

    found: Found
    tried: Ensemble | None
    taken: bool

    @property
    def ensemble(self) -> Ensemble | None:
        """The ensemble, where it is the model."""
        return self.tried if self.taken else None

    @property
    def members(self) -> list[Trial]:
        """The trials that the model is made of."""
        return self.ensemble.members if self.ensemble else [self.found.best]

    def to_json(self) -> dict[str, Any]:
        """For the record of the run."""
        tried = None if self.tried is None else {**self.tried.to_json(), "taken": self.taken}
        return {**self.found.to_json(), "ensemble": tried}


def searches(config: PipelineConfig) -> bool:
    """Whether the model is searched for, or made of several families."""
    return config.tune.wanted or config.ensemble.kind in ("blend", "stack")


def graphs_of(ready: Prepared) -> list[Graph]:
    """The features of every family that a search will look at, as they are without it; and with
    what it will try because the table opens it. None where nothing is searched."""
    if not searches(ready.config):
        return []
    kinds = families_of(ready.config, ready.target.task)  # type: ignore[arg-type]
    models = [model_of(kind, {}) for kind in kinds]
    choices = [{}, ready.binder.opened] if ready.binder.opened else [{}]
    return [ready.binder.graph(model, choice) for model in models for choice in choices]


def choose(
    ready: Prepared, knowledge: Knowledge, layout: Layout, truth: Truth,
    bench: Callable[[Sequence[Candidate], Sequence[Sequence[Fitted]], Checkpoints, Any], Trainer],
    timings: Timings, progress: Any = None,
) -> Chosen:
    """Search, and put the best trials together where the pipeline file says so.

    With ``ensemble: auto`` the blend is taken where it is better than the best trial, beyond
    chance if latency or size count too; one that was asked for by name is taken in any case.
    """
    rules, config = ready.config.ensemble, ready.config

    def trainer(candidates: Sequence[Candidate], fitted: Sequence[Sequence[Fitted]]) -> Trainer:
        return replace(bench(candidates, fitted, NOWHERE, lambda n: None), timings=Timings())

    with timings.stage("search"):
        found = Search(Workshop(ready, knowledge, layout, truth, trainer), progress).run()
    knowledge.states.clear()  # what they had to say is in the steps
    tried = None
    if rules.kind != "none" and ready.target.task in ENSEMBLED:
        with timings.stage("ensemble"):
            tried = ensemble(
                "stack" if rules.kind == "stack" else "blend", found, truth, ready.target.task,
                size=rules.size, confidence=config.evaluate.confidence,
                resamples=config.evaluate.resamples, seed=config.seed)
    taken = tried is not None and (rules.kind != "auto" or tried.better(
        beyond_chance=len(config.tune.objectives) > 1))
    return Chosen(found, tried, taken)
