"""Optuna's samplers and pruners, as a search uses them: in memory, asked and told in order."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

from gpupipe.config.choosing import TuneConfig
from gpupipe.models.base import LIBRARIES
from gpupipe.tune.race import Race
from gpupipe.tune.space import FAMILY, Proposal, SearchSpace
from gpupipe.tune.trial import Trial

STARTUP = 10
"""Trials at random before TPE has something to go by."""
UNPRUNED = 5
"""Trials that are never pruned, for the others to be compared with."""


@cache
def library() -> Any:
    """Optuna. Imported when it is needed: it takes its time."""
    with LIBRARIES:
        import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Sampler:
    """Proposes trials. The same questions and answers in the same order lead to the same
    proposals: all that is random comes from the seed.

    Attributes
    ----------
    size : how many points a grid has; None for other samplers.
    prunes : when trials may be ended early: after ``folds`` or ``rounds``, or never ("").
    """

    def __init__(
        self, tune: TuneConfig, space: SearchSpace, maximise: bool, seed: int, folds: int
    ) -> None:
        optuna = library()
        self.space = space
        self.prunes = tune.prune_on if tune.ends_by != "none" and len(tune.objectives) == 1 else ""
        self.race = Race(maximise) if self.prunes and tune.ends_by == "race" else None
        self.plain: list[str] = []
        self.taken = dict.fromkeys(space.families, 0)
        self.size: int | None = None
        directions = ["maximize" if maximise else "minimize",
                      *("minimize" for _ in tune.objectives[1:])]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.RandomSampler(seed=seed) if tune.sampler != "tpe" else \
                optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True,
                                           n_startup_trials=STARTUP, constant_liar=True)
            self.study = optuna.create_study(
                directions=directions, sampler=sampler, study_name="search",
                pruner=_pruner(tune, folds) if self.prunes and self.race is None else
                optuna.pruners.NopPruner())
        if tune.sampler == "grid":
            points = space.grid()
            self.size = len(points)
        else:
            # Each family as it is comes first: a search that finds nothing better says so.
            self.plain = list(space.families)
            points = [*map(space.nearest, self.plain), *space.starts()]
        self.queued = len(points)
        for point in points:
            self.study.enqueue_trial(point)

    def ask(self, number: int) -> tuple[Any, Proposal]:
        """The next trial: Optuna's handle of it, and what to try."""
        if self.size is None and len(self.space.families) > 1 and number >= self.queued:
            self.study.enqueue_trial({FAMILY: self._turn()})  # the rest is the sampler's to say
        handle = self.study.ask()
        proposal = self.space.suggest(handle)
        if number < len(self.plain):
            proposal = self.space.plain(self.plain[number])
        return handle, proposal

    def _turn(self) -> str:
        """The family whose turn it is: the more parameters one has, the more trials it takes.

        A sampler that was free to choose would soon propose the best family alone; but it is
        the difference of families that an ensemble lives by, and the best is often the dearest.
        """
        kind = min(self.taken, key=lambda k: (self.taken[k] + 1) / max(
            len(self.space.families[k]), 1))
        self.taken[kind] += 1
        return kind

    def ends(self, handle: Any, trial: Trial, at: int) -> bool:
        """Whether a trial that has come so far is not worth going on with."""
        handle.report(trial.looks[at], at)
        if self.race is not None:
            return self.race.is_lost(trial.kind, trial.looks)
        return bool(handle.should_prune())

    def tell(self, handle: Any, trial: Trial, objectives: Sequence[str]) -> None:
        """What became of a trial."""
        states = library().trial.TrialState
        for at, value in trial.looks.items():
            if at not in handle.storage.get_trial(handle._trial_id).intermediate_values:
                handle.report(value, at)
        if trial.state == "complete":
            if self.race is not None and trial.number >= len(self.plain):
                self.race.finish(trial.kind, trial.looks)
            own = {"quality": trial.score, "latency": trial.latency, "size": trial.size}
            self.study.tell(handle, [own[name] for name in objectives])
        else:
            self.study.tell(
                handle, state=states.PRUNED if trial.state == "pruned" else states.FAIL)


def _pruner(tune: TuneConfig, folds: int) -> Any:
    pruners = library().pruners
    rounds = tune.prune_on == "rounds"
    if tune.ends_by == "hyperband":
        least, most = (50, 1000) if rounds else (1, max(folds, 2))
        return pruners.HyperbandPruner(min_resource=least, max_resource=most, reduction_factor=3)
    if rounds:
        return pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=50)
    # After two folds and after four: folds that are trained in pairs are looked at together.
    return pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=2, interval_steps=2)
