"""The end of training: probabilities calibrated, a threshold chosen, intervals measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from gpupipe.config import PipelineConfig
from gpupipe.data.split import Split
from gpupipe.decide.calibration import Calibration, calibrate, judge_on
from gpupipe.decide.evidence import Evidence
from gpupipe.decide.intervals import APART, Conformal, Intervals, conform, ends_of
from gpupipe.decide.threshold import USUAL, Decision, decide, given, rule_of
from gpupipe.errors import ConfigError
from gpupipe.models import FittedModel
from gpupipe.models.wrappers import Calibrated
from gpupipe.steps import Target

QUANTILES = "quantiles"
"""The outcome of the model of quantiles that intervals by cqr start from."""


class Outcome(Protocol):
    """What training left of a model: see `training.Outcome`."""

    final: FittedModel | None
    holdout: np.ndarray | None
    oof: np.ndarray | None


class Trained(Protocol):
    """What is known after training: see `training.Trained`."""

    config: PipelineConfig
    split: Split
    target: Target
    outcomes: Any
    notes: list[str]
    finished: Finished

    @property
    def model(self) -> Any: ...

    @property
    def oof_buckets(self) -> tuple[int, ...]: ...

    def target_of(self, buckets: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]: ...

    def fold_of_rows(self) -> np.ndarray: ...


@dataclass(frozen=True)
class Finished:
    """What was made of the predictions; None for what the pipeline file does not ask for."""

    calibration: Calibration | None = None
    decision: Decision | None = None
    intervals: Intervals | None = None

    @property
    def threshold(self) -> float:
        """A probability above it is a yes."""
        return USUAL if self.decision is None else self.decision.threshold

    def kept(self) -> dict[str, Any]:
        """What a bundle says of itself: the rules, without curves and tables."""
        named: dict[str, Any] = {}
        if self.calibration is not None and self.calibration.calibrator is not None:
            named["calibration"] = {"method": self.calibration.method}
        if self.decision is not None:
            named["decision"] = {"threshold": self.decision.threshold,
                                 "rule": self.decision.found["rule"]}
        if self.intervals is not None:
            named["intervals"] = {k: v for k, v in self.intervals.to_json().items() if k in (
                "coverage", "method", "sets", "margin", "measured", "standard_error",
                "calibration_rows")}
        return named

    def to_json(self) -> dict[str, Any]:
        """What there is, by name."""
        named = {"calibration": self.calibration, "decision": self.decision,
                 "intervals": self.intervals}
        return {name: one.to_json() for name, one in named.items() if one is not None}


def check_choices(config: PipelineConfig, target: Target) -> None:
    """ConfigError, before anything is trained, where a section does not fit the target."""
    wanted, task = config.calibrate.method, target.task
    intervals = config.intervals
    if wanted != "none" and task == "regression":
        raise config.fault(("calibrate", "method"), "a regression has no probabilities to "
                           "calibrate", "leave the section out; intervals are for a regression")
    for rule in config.decide.rules:
        if task != "binary":
            raise config.fault(("decide", rule), f"a threshold is for two labels, and this target "
                               f"is {task}", "leave the section out")
        try:
            rule_of(config.decide)
        except ConfigError as error:
            raise config.fault(("decide", rule), error.message, error.hint) from None
    if intervals.coverage is not None and intervals.method == "cqr" and task != "regression":
        raise config.fault(("intervals", "method"), f"cqr is for regressions, and this target is "
                           f"{task}", "use cross or split")
    if intervals.coverage is not None and intervals.sets == "aps" and task == "binary":
        raise config.fault(("intervals", "sets"), "aps ranks labels, and two have nothing to rank: "
                           "every set would hold one or all", "use lac")
    learned = [("calibrate", "method")] if wanted != "none" else []
    learned += [("decide", r) for r in config.decide.rules if r != "threshold"]
    learned += [("intervals", "coverage")] if intervals.coverage is not None else []
    if learned and not config.split.folds:
        raise config.fault(learned[0], f"{learned[0][0]} learns from out-of-fold predictions, and "
                           "there are no folds", "set split.folds to 2 or more")


def split_for(config: PipelineConfig, split: Split) -> Split:
    """The split that intervals want: for an exact promise the last fold trains no final model."""
    if config.intervals.coverage is None or config.intervals.method not in APART:
        return split
    return replace(split, train=split.folds[-1].train)


def finish(trained: Trained) -> None:
    """Calibrate, choose a threshold and make intervals, as far as the pipeline file asks for it.

    The model's predictions become the calibrated ones: those of the holdout by what all folds
    taught, each fold's by what the others did.
    """
    if trained.target.task == "unsupervised":
        return
    quantiles = trained.outcomes.pop(QUANTILES, None)
    outcome, split = trained.model, trained.split
    if not split.folds:
        threshold = trained.config.decide.threshold
        if threshold is not None:
            trained.finished = Finished(decision=given(threshold))
        return
    y, weight = trained.target_of(trained.oof_buckets)
    raw = Evidence(y, weight, trained.fold_of_rows(), outcome.oof, split.by == "time")
    unseen = None
    if split.holdout and outcome.holdout is not None:
        y, weight = trained.target_of(split.holdout)
        unseen = Evidence(y, weight, np.zeros(len(y), np.int64), outcome.holdout)
    calibration = _calibrated(trained, outcome, raw, unseen)
    decision = _decided(trained, outcome, raw, calibration)
    intervals = _bounded(trained, outcome, raw, unseen, quantiles)
    trained.finished = Finished(calibration, decision, intervals)
    made = (calibration, decision, intervals)
    trained.notes += [one.text for one in made if one is not None]
    if intervals is not None and intervals.conformal.method in APART:
        trained.notes.append(
            f"the {intervals.found['calibration_rows']:,} rows of fold {len(split.folds)} train no "
            f"final model: intervals by {intervals.conformal.method} come from its errors on them")


def _manner(config: PipelineConfig) -> dict[str, Any]:
    rules = config.evaluate
    return {"confidence": rules.confidence, "resamples": rules.resamples, "seed": config.seed}


def _calibrated(
    trained: Trained, outcome: Outcome, raw: Evidence, unseen: Evidence | None
) -> Calibration | None:
    config, task = trained.config, trained.target.task
    if config.calibrate.method == "none":
        return None
    made = calibrate(raw, task, config.calibrate.method, **_manner(config))  # type: ignore[arg-type]
    calibrator = made.calibrator
    if calibrator is None:
        return made
    outcome.oof = made.prediction
    if unseen is not None:
        outcome.holdout = np.asarray(calibrator(unseen.prediction))
        judge_on(made, task, unseen, outcome.holdout, **_manner(config))  # type: ignore[arg-type]
    if outcome.final is not None:
        outcome.final = Calibrated(outcome.final, calibrator)
    return made


def _decided(
    trained: Trained, outcome: Outcome, raw: Evidence, calibration: Calibration | None
) -> Decision | None:
    rules = trained.config.decide
    if rules.threshold is not None:
        return given(rules.threshold)
    rule = rule_of(rules)
    if rule is None:
        return None
    choosing = raw
    if calibration is not None and calibration.calibrator is not None:
        choosing = replace(raw, prediction=np.asarray(calibration.calibrator(raw.prediction)))
    assert outcome.oof is not None
    return decide(rule, choosing, replace(raw, prediction=outcome.oof), **_manner(trained.config))


def _bounded(
    trained: Trained, outcome: Outcome, raw: Evidence, unseen: Evidence | None,
    quantiles: Outcome | None,
) -> Intervals | None:
    rules, classes = trained.config.intervals, trained.target.classes
    if rules.coverage is None:
        return None
    conformal = Conformal(rules.coverage, rules.method, rules.sets if classes else None)
    assert outcome.oof is not None
    rows = replace(raw, prediction=outcome.oof)
    ends = ends_of(rows.prediction, None if quantiles is None else quantiles.oof)
    judging = None
    if unseen is not None and outcome.holdout is not None:
        judged = replace(unseen, prediction=outcome.holdout)
        judging = judged, ends_of(judged.prediction,
                                  None if quantiles is None else quantiles.holdout)
    made = conform(conformal, rows, ends, judging)
    if outcome.final is not None:
        outcome.final = conformal.around(outcome.final, made.margin,
                                         None if quantiles is None else quantiles.final)
    return made
