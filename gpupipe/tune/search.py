"""The search: trials are proposed by Optuna, trained fold by fold, and kept one by one.

Every trial is a checkpoint of its own. A search that was killed asks its sampler for the same
proposals again, in the same order, and tells it what the trials that are there already found:
so the sampler is in the very state that it was in, and the search goes on as if nothing had
happened. What a trial is compared by does not depend on the machine: folds are looked at in
order, however many are trained side by side, and work is counted in rows x rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpupipe.checkpoints import digest
from gpupipe.config import PipelineConfig
from gpupipe.errors import ConfigError
from gpupipe.evaluate.metrics import Metric
from gpupipe.models import MODELS, model_of
from gpupipe.models.boosting import MAX_ROUNDS, patience_of
from gpupipe.prepare import Candidate
from gpupipe.steps.graph import Fitted
from gpupipe.steps.passes import stage
from gpupipe.transforms.base import Target
from gpupipe.tune.samplers import Sampler
from gpupipe.tune.space import Proposal, SearchSpace, space_of
from gpupipe.tune.trial import Trial
from gpupipe.tune.workshop import Workshop

KEPT = 25
"""The out-of-fold predictions of so many trials, the best ones, are kept until the end."""
KEPT_OF_A_FAMILY = 3
"""And those of so many of each family: an ensemble is better for what is different."""
SLOWER = 1 / 3
"""The last trials are the best of each boosted family with steps this much smaller, or as small
as the most rounds allow: what is searched with large steps is found sooner, and holds for small
ones."""
ROUNDS = 2 * MAX_ROUNDS
PATIENT = 3
"""They may take so many rounds, and wait for a gain so many times as long as others do."""
LENGTH = frozenset({"n_estimators", "early_stopping_rounds"})
LAST = 10
"""One trial in so many, at most, is such a last one; of a budget without a number, one in all."""


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
    """One search, in a workshop where its trials are trained."""

    shop: Workshop
    progress: Any = None
    notes: list[str] = field(default_factory=list, init=False)
    trials: list[Trial] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        config, ready = self.config, self.shop.ready
        self.space = space_of(config, ready.target.task,  # type: ignore[arg-type]
                              tuple(ready.binder.opened), _is_positive(ready.target))
        self.metric = self.shop.metric
        self._drop_families()
        if config.tune.prune_on == "rounds" and ready.rowed.engine.remote:
            raise config.fault(("tune", "prune_on"), "rounds are watched in one process, and this "
                               "engine trains in others", "set prune_on: folds")
        self.saved = ready.checkpoints.given(search=digest([
            config.tune.model_dump(mode="json", exclude={"trials", "minutes", "work_units"}),
            self.space.to_json(), config.features, self.metric.name, config.seed,
            config.select.model_dump(mode="json"), self.shop.layout.matrix,
        ]))

    @property
    def config(self) -> PipelineConfig:
        return self.shop.ready.config

    def run(self) -> Found:
        """Search until a budget is used up.

        Raises ConfigError where no trial could be trained at all.
        """
        tune = self.config.tune
        sampler = Sampler(tune, self.space, self.metric.greater_is_better, self.config.seed,
                          len(self.shop.rows))
        limit = tune.trials if tune.trials is not None or sampler.size is None else sampler.size
        if not tune.wanted and sampler.size is None:
            limit = len(self.space.families)  # an ensemble of families as they are
        polished = sampler.size is None and (limit is None or limit > len(self.space.families) + 1)
        last = max(1, (limit or 0) // LAST) if polished else 0
        with stage(self.progress, "search", limit or 0, "trials") as advance:
            self._search(sampler, None if limit is None else limit - last, advance)
            slower = self._slower()[:last]
            if limit is not None and len(slower) < last:  # more trials like the others, instead
                self._search(sampler, limit - len(slower), advance)
                slower = self._slower()[:len(slower)]
            units, seconds = self.units, self.seconds
            for proposal in slower:
                self._keep(self._one(Trial.of(len(self.trials), proposal)))
                advance(1)
        best = self._chosen()
        kept = {t.number: self.shop.candidate(t.proposal) for t in self.trials if t.oof is not None}
        return Found(self.space, self.metric, self.trials, best, kept,
                     {n: self.shop.fitted(c) for n, c in kept.items()}, units, seconds, self.notes)

    @property
    def units(self) -> int:
        return sum(t.units for t in self.trials)

    @property
    def seconds(self) -> float:
        return sum(t.seconds for t in self.trials)

    def _search(self, sampler: Sampler, limit: int | None, advance: Callable[[int], None]) -> None:
        """Batches of trials until there are ``limit``, or another budget is used up."""
        while self._goes_on(limit):
            parallel = self.config.tune.parallel
            size = parallel if limit is None else min(parallel, limit - len(self.trials))
            for trial in self._batch(sampler, size):
                self._keep(trial)
                advance(1)

    def _goes_on(self, limit: int | None) -> bool:
        tune = self.config.tune
        return not (
            (limit is not None and len(self.trials) >= limit)
            or (tune.minutes is not None and self.seconds >= 60 * tune.minutes)
            or (tune.work_units is not None and self.units >= tune.work_units)
        )

    def _drop_families(self) -> None:
        """Leave out what would need a matrix in memory that has no room there."""
        if self.shop.layout.matrix != "streamed":
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
        known = [self.saved.given(trial=str(t.number)).load("trial") for t in trials]
        done = [Trial.load(k) if k is not None else t for t, k in zip(trials, known, strict=True)]
        waiting = [i for i, k in enumerate(known) if k is None]
        self.shop.train([done[i] for i in waiting], {done[i].number: asked[i][0] for i in waiting},
                    sampler)
        for i in waiting:
            self.saved.given(trial=str(done[i].number)).save("trial", done[i].saved())
        for (handle, _), trial in zip(asked, done, strict=True):
            sampler.tell(handle, trial, self.config.tune.objectives)
        return done

    def _one(self, trial: Trial) -> Trial:
        """A trial that no sampler asked for."""
        scope = self.saved.given(trial="last", about=digest(trial.row()))
        known = scope.load("trial")
        if known is not None:
            return Trial.load(known)
        self.shop.train([trial], {}, None)
        scope.save("trial", trial.saved())
        return trial

    def _keep(self, trial: Trial) -> None:
        self.trials.append(trial)
        there = ranked([t for t in self.trials if t.oof is not None], self.metric)
        for i, other in enumerate(there):
            better = sum(t.kind == other.kind for t in there[:i])
            if i >= KEPT and better >= KEPT_OF_A_FAMILY:
                other.oof = None

    def _slower(self) -> list[Proposal]:
        """The best trial of each boosted family with smaller steps, the best family first.

        Of a family as it is the steps are smaller than those of a search: that it is better than
        what was proposed says nothing. It is the last to be taken.
        """
        found: dict[str, Proposal] = {}
        done = ranked([t for t in self.trials if t.score is not None], self.metric)
        for trial in sorted(done, key=lambda t: t.number < len(self.space.families)):
            model = model_of(trial.kind, trial.params)
            rate = getattr(model, "params", {}).get("learning_rate")
            used = (trial.rounds or ROUNDS) / ROUNDS
            if used < 1 and rate and trial.kind not in found and self._may_be_slower(model):
                slower = rate * max(SLOWER, used)
                wait = PATIENT * patience_of(slower)
                found[trial.kind] = Proposal(trial.kind, {
                    **trial.params, "learning_rate": slower, "early_stopping_rounds": wait,
                    "n_estimators": ROUNDS}, trial.features)
        return list(found.values())

    def _may_be_slower(self, model: Any) -> bool:
        """Whether the file leaves open how long to boost and by what steps."""
        own, space = MODELS[model.kind].space, self.space.families[model.kind]
        return (getattr(model, "rounds", None) is None and LENGTH.isdisjoint(space)
                and "early_stopping_rounds" not in getattr(model, "given", {})
                and space.get("learning_rate") == own.get("learning_rate"))

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
        margin = self.shop.standard_error(best)
        assert best.score is not None
        alike = [t for t in done if t.score is not None and t.oof is not None
                 and abs(t.score - best.score) <= margin]
        return min(alike, key=lambda t: [getattr(t, name) for name in other])


def _is_positive(target: Target) -> bool:
    """Whether the target is a number, and above 0 in every row."""
    return target.task == "regression" and target.centre > target.reach


def ranked(trials: Sequence[Trial], metric: Metric) -> list[Trial]:
    """Best first; of equal ones the earlier."""
    sign = -1 if metric.greater_is_better else 1
    return sorted(trials, key=lambda t: (sign * (t.score or 0.0), t.number))
