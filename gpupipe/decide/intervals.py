"""Conformal intervals and sets: how far the truth strayed out of fold, and what that covers.

A new row's truth strays as far as those of earlier rows did. With the n scores of rows that the
model did not learn from (how far the truth lay beside the prediction, or beyond the quantiles,
or how strange its label was), the k-th least, k = ceil(coverage (n + 1)), is reached by a new
row's with probability ``coverage`` at least, whatever the model and the data are, if rows come
in no order (Vovk, Gammerman & Shafer 2005; Lei et al. 2018, JASA 113):

- **split**: the scores are the last fold's, and the final model learns from the others alone:
  the theorem holds as it stands.
- **cqr**: the same around two quantiles instead of a mean (Romano, Patterson & Candès 2019,
  NeurIPS), so that intervals are wide where the target varies much.
- **cross**: the scores are those of all folds (Vovk 2015, Cross-conformal predictors), and the
  intervals lie around the prediction of the model of all rows. The jackknife+ of Barber, Candès,
  Ramdas & Tibshirani 2021 (CV+) would ask every fold's model at every row; without that there is
  no theorem. The folds' models saw fewer rows than the final one and are a little further off, so
  the coverage is a little above what is promised: benchmarks/coverage.py measures it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpupipe.decide.evidence import Evidence
from gpupipe.errors import ConfigError
from gpupipe.models import FittedModel
from gpupipe.models.wrappers import WithInterval, WithSets, set_scores, widened

DECILES = 10
APART = ("split", "cqr")
"""The methods that keep the last fold from the final model, to take its errors there."""


def reach(scores: np.ndarray, weight: np.ndarray | None, coverage: float) -> float:
    """The least score that a share ``coverage`` of ``scores`` and a new row's does not pass.

    The new row weighs as much as the mean of the others. ConfigError where there are too few.
    """
    order = np.argsort(scores, kind="stable")
    if weight is None:
        rank = math.ceil(coverage * (len(scores) + 1) - 1e-9)
    else:
        heard = np.cumsum(weight[order])
        rank = int(np.searchsorted(heard, coverage * (heard[-1] + weight.mean()) - 1e-9)) + 1
    if rank > len(scores):
        least = math.ceil(coverage / (1 - coverage) - 1e-6)
        raise ConfigError(
            f"a coverage of {coverage:g} takes {least:,} rows with an out-of-fold prediction, and "
            f"there are {len(scores):,}", where="intervals.coverage",
            hint="ask for less coverage, or bring more rows")
    return float(scores[order[rank - 1]])


@dataclass(frozen=True)
class Conformal:
    """How bounds are made of predictions.

    Attributes
    ----------
    method : cross, split or cqr.
    rule : of sets of labels, lac or aps; None for intervals.
    """

    coverage: float
    method: str
    rule: str | None = None

    def scores(self, rows: Evidence, ends: np.ndarray) -> np.ndarray:
        """How far each truth strayed, ``[n]``: negative inside of the quantiles."""
        if self.rule is not None:
            return set_scores(self.rule, rows.prediction)[np.arange(len(rows.y)), rows.y]
        return np.maximum(ends[:, 0] - rows.y, rows.y - ends[:, 1])

    def bounds(self, margin: float, prediction: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Intervals float64 ``[n, 2]``, or sets bool ``[n, classes]``."""
        if self.rule is not None:
            return np.asarray(set_scores(self.rule, prediction) <= margin)
        return widened(ends, margin)

    def around(
        self, model: FittedModel, margin: float, quantiles: FittedModel | None
    ) -> FittedModel:
        """The model that gives these bounds beside its predictions."""
        if self.rule is not None:
            return WithSets(model, self.rule, margin)
        return WithInterval(model, margin, quantiles)


@dataclass(frozen=True)
class Intervals:
    """Bounds that were measured.

    Attributes
    ----------
    margin : the score that is allowed.
    out_of_fold : the bounds of the out-of-fold rows, each fold's by the scores of the others.
    holdout : those of the holdout's rows; None without a holdout.
    text : what was found, in a sentence.
    found : the figures, as JSON data.
    """

    conformal: Conformal
    margin: float
    out_of_fold: np.ndarray = field(repr=False)
    holdout: np.ndarray | None = field(repr=False)
    text: str
    found: dict[str, Any] = field(repr=False)

    def covers(self, y: np.ndarray) -> np.ndarray:
        """Whether the truths ``y`` of the rows that were judged, the holdout's or else the
        out-of-fold ones, are within their bounds: bool ``[n]``."""
        return covered(y, self.out_of_fold if self.holdout is None else self.holdout)

    def to_json(self) -> dict[str, Any]:
        c = self.conformal
        return {"coverage": c.coverage, "method": c.method, "sets": c.rule,
                "margin": self.margin, "text": self.text, **self.found}


def ends_of(prediction: np.ndarray, quantiles: np.ndarray | None) -> np.ndarray:
    """What intervals begin at: the quantiles, or the prediction twice, ``[n, 2]``."""
    return np.stack([prediction] * 2, axis=1) if quantiles is None else quantiles


def calibrating(evidence: Evidence, method: str) -> np.ndarray:
    """The rows whose scores are used: all that were judged, or those of the last fold."""
    if method in APART:
        return np.asarray(evidence.fold == evidence.fold.max())
    return np.ones(len(evidence.y), bool)


def conform(
    conformal: Conformal, out_of_fold: Evidence, ends: np.ndarray,
    holdout: tuple[Evidence, np.ndarray] | None,
) -> Intervals:
    """The margin from the out-of-fold rows, and its coverage.

    ``ends`` belong to ``out_of_fold`` (see `ends_of`). Measured on the holdout, with its own
    ends; where there is none on each fold, with the margin of the others.
    """
    used = calibrating(out_of_fold, conformal.method)
    scores = conformal.scores(out_of_fold, ends)
    weight = out_of_fold.weight
    margin = reach(scores[used], None if weight is None else weight[used], conformal.coverage)
    taught = int(used.sum())
    crossed = conformal.bounds(margin, out_of_fold.prediction, ends)
    for learn, mine in out_of_fold.parts():
        others = reach(scores[learn], None if weight is None else weight[learn],
                       conformal.coverage)
        crossed[mine] = conformal.bounds(others, out_of_fold.prediction[mine], ends[mine])
    unseen = None
    if holdout is not None:
        rows, their_ends = holdout
        unseen = conformal.bounds(margin, rows.prediction, their_ends)
        found = measured(conformal, rows, unseen, taught)
    else:
        judged = out_of_fold.judged
        found = measured(conformal, out_of_fold.rows(judged), crossed[judged], taught)
    found |= {"measured_on": "out of fold" if unseen is None else "holdout",
              "calibration_rows": taught}
    return Intervals(conformal, margin, crossed, unseen, _sentence(conformal, found), found)


def covered(y: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Whether each truth is within its bounds, bool ``[n]``."""
    if bounds.dtype == bool:
        return np.asarray(bounds[np.arange(len(y)), y])
    return np.asarray((bounds[:, 0] <= y) & (y <= bounds[:, 1]))


def sizes_of(bounds: np.ndarray) -> np.ndarray:
    """Widths of intervals, or numbers of labels, float64 ``[n]``."""
    return bounds.sum(axis=1).astype(np.float64) if bounds.dtype == bool \
        else bounds[:, 1] - bounds[:, 0]


def measured(
    conformal: Conformal, rows: Evidence, bounds: np.ndarray, taught: int
) -> dict[str, Any]:
    """Coverage with its standard error, and sizes: of all rows, and by decile of prediction.

    The coverage of one margin is a draw from a beta distribution around what is promised (Vovk
    2012), so the rows that the margin came from count in the error, too.
    """
    inside, size = covered(rows.y, bounds), sizes_of(bounds)
    weight = np.ones(len(inside)) if rows.weight is None else rows.weight
    share = float((weight * inside).sum() / weight.sum())
    n = float(weight.sum() ** 2 / (weight**2).sum())
    spread = conformal.coverage * (1 - conformal.coverage)
    order = size.argsort(kind="stable")
    half = np.searchsorted(np.cumsum(weight[order]), weight.sum() / 2)
    found: dict[str, Any] = {
        "measured": share, "standard_error": math.sqrt(spread * (1 / n + 1 / taught)),
        "rows": len(inside), "mean_size": float((weight * size).sum() / weight.sum()),
        "median_size": float(size[order[min(int(half), len(order) - 1)]]),
        "deciles": by_decile(rows, inside, size, weight),
    }
    if bounds.dtype == bool:
        counts = np.bincount(size.astype(int), weights=weight, minlength=bounds.shape[1] + 1)
        found["sizes"] = (counts / weight.sum()).tolist()
    return found


def on_new_data(
    known: dict[str, Any], y: np.ndarray, prediction: np.ndarray, bounds: np.ndarray,
    weight: np.ndarray | None,
) -> dict[str, Any]:
    """The coverage of a bundle's bounds on labelled rows; ``known`` is what it says of them."""
    conformal = Conformal(known["coverage"], known["method"], known["sets"])
    rows = Evidence(y, weight, np.zeros(len(y), np.int64), prediction)
    found = measured(conformal, rows, bounds, known["calibration_rows"])
    found["measured_on"] = "these rows"
    return {"coverage": conformal.coverage, "text": _sentence(conformal, found), **found}


def by_decile(
    rows: Evidence, inside: np.ndarray, size: np.ndarray, weight: np.ndarray
) -> list[dict[str, Any]]:
    """Coverage and mean size by tenth of the predictions (of the surest label's probability)."""
    p = rows.prediction
    key = p if p.ndim == 1 else p.max(axis=1)
    order = key.argsort(kind="stable")
    share = (np.cumsum(weight[order]) - weight[order] / 2) / weight.sum()
    which = np.empty(len(key), np.int64)
    which[order] = np.minimum((share * DECILES).astype(np.int64), DECILES - 1)
    out = []
    for d in np.unique(which).tolist():
        mine = which == d
        w = weight[mine]
        n = float(w.sum() ** 2 / (w**2).sum())
        held = float((w * inside[mine]).sum() / w.sum())
        out.append({"decile": d + 1, "rows": int(mine.sum()), "measured": held,
                    "standard_error": math.sqrt(max(held * (1 - held), 1 / n / 4) / n),
                    "mean_size": float((w * size[mine]).sum() / w.sum()),
                    "prediction": float((w * key[mine]).sum() / w.sum())})
    return out


def _sentence(conformal: Conformal, found: dict[str, Any]) -> str:
    off = (found["measured"] - conformal.coverage) / found["standard_error"]
    what = "sets" if conformal.rule else "intervals"
    size = "mean number of labels" if conformal.rule else "mean width"
    verdict = "as promised" if abs(off) <= 2 else (
        "more than promised" if off > 0 else "LESS than promised")
    return (f"{what} that promise {conformal.coverage:.4g} hold {found['measured']:.4f} ± "
            f"{found['standard_error']:.4f} of {found['rows']:,} rows "
            f"({found['measured_on']}; {verdict}, {off:+.1f} standard errors); "
            f"{size} {found['mean_size']:.4g}")
