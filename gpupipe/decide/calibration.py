"""Which calibration, if any: chosen and judged by the log loss on folds that it did not see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from gpupipe.decide.evidence import Evidence
from gpupipe.evaluate.curves import calibration as reliability
from gpupipe.evaluate.scores import Score, evaluate, paired_difference
from gpupipe.models.calibrators import Calibrator, fit_calibrator

METHODS = ("isotonic", "sigmoid", "beta", "temperature")
"""What ``auto`` tries. Of two classes a temperature is a sigmoid without a shift."""
LOSSES = ("log_loss", "brier_score_loss")
Task = Literal["binary", "multiclass"]


@dataclass(frozen=True)
class Calibration:
    """A calibration that was judged.

    Attributes
    ----------
    wanted : what the pipeline file asks for.
    method : the one that was judged.
    calibrator : learned from all out-of-fold rows; None where the raw probabilities are kept.
    prediction : of the out-of-fold rows, each calibrated by what other folds taught.
    text : what was found, in a sentence.
    found : the figures, as JSON data, by part of the rows.
    """

    wanted: str
    method: str
    calibrator: Calibrator | None
    prediction: np.ndarray
    text: str
    found: dict[str, Any] = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        return {"wanted": self.wanted, "method": self.method,
                "applied": self.calibrator is not None, "text": self.text, **self.found}


def calibrate(
    evidence: Evidence, task: Task, wanted: str, *, confidence: float = 0.95,
    resamples: int = 1000, seed: int = 0,
) -> Calibration:
    """Fit what is wanted, and say whether it improves the log loss on folds it did not see.

    ``auto`` tries all and takes the best of them, if it is better than no calibration beyond
    chance; else the raw probabilities are kept. A method by its name is applied in any case.
    """
    crossed = {m: _crossed(evidence, m) for m in (METHODS if wanted == "auto" else (wanted,))}
    judged = evidence.judged
    seen = evidence.rows(judged)
    tried = {m: _losses(task, seen, p[judged])["log_loss"] for m, p in crossed.items()}
    best = min(tried, key=lambda m: tried[m])
    shared: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    out_of_fold = compared(task, seen, crossed[best][judged], **shared)
    gain = out_of_fold["difference"]["log_loss"]
    better = gain.value is not None and (gain.value if gain.high is None else gain.high) < 0
    applied = better or wanted != "auto"
    learned = fit_calibrator(best, evidence.prediction, evidence.y, evidence.weight)
    return Calibration(
        wanted, best, learned if applied else None,
        crossed[best] if applied else evidence.prediction,
        _sentence(best, wanted, gain, better),
        {"tried": tried, "out_of_fold": _plain(out_of_fold)},
    )


def _crossed(evidence: Evidence, method: str) -> np.ndarray:
    """Each fold's probabilities, calibrated by what the others taught."""

    def learn(rows: Evidence) -> Any:
        fitted = fit_calibrator(method, rows.prediction, rows.y, rows.weight)
        return lambda judged: fitted(judged.prediction)

    return evidence.crossed(learn, evidence.prediction)


def compared(
    task: Task, raw: Evidence, calibrated: np.ndarray, **shared: Any
) -> dict[str, Any]:
    """Losses and reliability curves before and after, and the losses' paired differences."""
    sides = {"before": raw.prediction, "after": calibrated}
    found: dict[str, Any] = {"rows": len(raw.y), "difference": {}, "curves": {}}
    for name, p in sides.items():
        found["curves"][name] = _reliability(task, raw, p)
        found[name] = {**_losses(task, raw, p), "ece": found["curves"][name]["ece"]}
    for name in LOSSES:
        found["difference"][name] = paired_difference(
            task, name, raw.y, calibrated, raw.prediction, weight=raw.weight, **shared)
    return found


def judge_on(
    calibration: Calibration, task: Task, rows: Evidence, calibrated: np.ndarray, **shared: Any
) -> None:
    """Add the figures of rows that nothing was learned from, the holdout's."""
    calibration.found["holdout"] = _plain(compared(task, rows, calibrated, **shared))


def _losses(task: Task, rows: Evidence, p: np.ndarray) -> dict[str, float]:
    found = evaluate(task, rows.y, p, weight=rows.weight, metrics=list(LOSSES), resamples=0)
    return {name: float(score.value or 0.0) for name, score in found.items()}


def _reliability(task: Task, rows: Evidence, p: np.ndarray) -> dict[str, Any]:
    """Bins of predicted and observed shares, and their mean gap; of several classes those of
    the predicted one."""
    weight = np.ones(len(rows.y)) if rows.weight is None else rows.weight
    if task == "binary":
        return reliability(rows.y, p, weight)
    return reliability(p.argmax(axis=1) == rows.y, p.max(axis=1), weight)


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "difference": {n: s.to_json() for n, s in found["difference"].items()}}


def _sentence(method: str, wanted: str, gain: Score, better: bool) -> str:
    value = gain.value or 0.0
    by = f"{abs(value):.2g}"
    if gain.low is not None and gain.high is not None:
        by = (f"{-value:.2g} ({-gain.high:.2g} to {-gain.low:.2g})")
    if better:
        return f"{method} calibration improves the log loss out of fold by {by}"
    kept = (f"raw probabilities kept (the best of {len(METHODS)}, {method}: {by})"
            if wanted == "auto" else
            f"by {by}; {method} is applied, for the pipeline file names it")
    return f"calibration does not improve the log loss out of fold beyond chance: {kept}"
