"""Methods that look at features without a model: variance, correlation, mutual information."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from gpupipe.config.check import Misfit
from gpupipe.models.base import OneOf, Range, Space
from gpupipe.select.base import Method, Unit, Verdict, register
from gpupipe.select.evidence import Evidence, generator

SHARED_ROWS = 30
"""Two columns are compared where at least so many rows have a value in both."""
BINS = 16
"""Bins of numbers, for mutual information."""


@register("variance")
class Variance(Method):
    """Drop what hardly varies.

    A feature's score is the variance of its values, or that of having one, whichever is
    greater: a column that is 1 or missing varies. One of several columns has the greatest of
    theirs. Codes have no variance: they are dropped only where there is a single one.
    """

    space: ClassVar[Space] = {"threshold": Range(1e-6, 1e-1, log=True)}
    threshold: Annotated[float, Field(ge=0)] = 0.0
    """What the variance must exceed. At 0, constants are dropped: of all training rows."""

    def choose(self, evidence: Evidence) -> Verdict:
        x = evidence.host.astype(np.float64)
        varied = (evidence.high > evidence.low) | ((evidence.gaps > 0) & (evidence.gaps < 1))
        holes = np.isnan(x)
        count = np.maximum((~holes).sum(axis=0), 1)
        values = np.where(holes, 0.0, x)
        mean = values.sum(axis=0) / count
        spread = (np.where(holes, 0.0, x - mean) ** 2).sum(axis=0) / count
        there = 1 - holes.mean(axis=0)
        score = np.maximum(spread, there * (1 - there))
        keep, scores = [], []
        for unit in evidence.units:
            at = list(unit.columns)
            enough = self.threshold == 0 or unit.codes or (score[at] > self.threshold).any()
            keep.append(bool(varied[at].any() and enough))
            scores.append(np.nan if unit.codes else float(score[at].max()))
        return Verdict(np.array(keep), np.array(scores), self.threshold)


@register("correlation")
class Correlation(Method):
    """Of features that say the same, keep the one that says most of the target.

    Features are taken in the order of their mutual information with the target; one is dropped
    where its correlation with a kept one is above ``threshold`` in size. So whatever is dropped
    has a stand-in among the kept. Codes, and features of several columns, are left alone.
    Correlations are of the rows that have both values.
    """

    space: ClassVar[Space] = {"threshold": Range(0.7, 0.99), "kind": OneOf(("spearman", "pearson"))}
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.95
    """The size from which a correlation is one too many."""
    kind: Literal["spearman", "pearson"] = "spearman"
    """Of ranks, or of values."""

    def choose(self, evidence: Evidence) -> Verdict:
        units = evidence.units
        single = [i for i, u in enumerate(units) if len(u.columns) == 1 and not u.codes]
        x = evidence.host[:, [units[i].columns[0] for i in single]]
        size = np.abs(correlations(ranks(x) if self.kind == "spearman" else x))
        y = target_codes(evidence, BINS)
        scores = np.array([mutual_information(codes_of(evidence, u, BINS), y, evidence.weight)
                           for u in units])
        keep = np.ones(len(units), bool)
        order = sorted(range(len(single)), key=lambda s: (-scores[single[s]], s))
        kept: list[int] = []
        stand_ins: dict[str, list[str]] = {}
        for s in order:
            twins = [k for k in kept if size[s, k] > self.threshold]
            if twins:
                keep[single[s]] = False
                stand_ins.setdefault(units[single[twins[0]]].name, []).append(
                    units[single[s]].name)
            else:
                kept.append(s)
        note = "; ".join(f"{name} stands for {', '.join(others[:5])}"
                         + (f" and {len(others) - 5} more" if len(others) > 5 else "")
                         for name, others in list(stand_ins.items())[:20])
        return Verdict(keep, scores, None, note)


def ranks(x: np.ndarray) -> np.ndarray:
    """Average ranks of each column's values, from 1; NaN stays NaN."""
    out = np.full(x.shape, np.nan)
    for c in range(x.shape[1]):
        there = ~np.isnan(x[:, c])
        _, inverse, counts = np.unique(x[there, c], return_inverse=True, return_counts=True)
        out[there, c] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return out


def correlations(x: np.ndarray) -> np.ndarray:
    """Pearson's correlation of each two columns over the rows that have both, float64.

    0 where fewer than `SHARED_ROWS` have, or one of them does not vary there. Rounded to twelve
    decimals: what a sum's order changes is below.
    """
    there = ~np.isnan(x)
    m = there.astype(np.float64)
    # Centred and scaled by each column's own rows first, so that no digits are lost.
    count = np.maximum(m.sum(axis=0), 1)
    z = np.where(there, x, 0.0).astype(np.float64)
    z = np.where(there, z - z.sum(axis=0) / count, 0.0)
    scale = np.sqrt((z**2).sum(axis=0) / count)
    z = z / np.where(scale > 0, scale, 1)
    n = m.T @ m
    joint = np.maximum(n, 1)
    left = z.T @ m  # the sum of a over the rows that have a and b
    squares = (z**2).T @ m
    cross = z.T @ z - left * left.T / joint
    spread = np.maximum(squares - left**2 / joint, 0)
    sized = np.sqrt(spread * spread.T)
    varies = spread > 1e-9 * joint
    usable = (n >= SHARED_ROWS) & varies & varies.T
    found = np.where(usable, cross / np.where(sized > 0, sized, 1), 0.0)
    np.fill_diagonal(found, 1.0)
    return np.round(np.clip(found, -1, 1), 12)


@register("mutual_information")
class MutualInformation(Method):
    """Keep what tells of the target by itself.

    Numbers and a numeric target are cut at quantiles, a missing value is a level of its own,
    and the mutual information is that of the table of counts, in nats, less its mean over
    shuffled targets (a table of many cells has some by chance). Without ``k`` and ``share``, a
    feature is kept that stands out from the shuffles further, in standard deviations, than any
    feature does in any of them but a share ``alpha`` (the max-T test of P. H. Westfall and
    S. S. Young, "Resampling-Based Multiple Testing", 1993).
    """

    space: ClassVar[Space] = {"share": Range(0.1, 1.0), "bins": OneOf((8, 16, 32))}
    k: Annotated[int, Field(ge=1)] | None = None
    """Keep the best ``k`` features."""
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Keep the best share of them."""
    bins: Annotated[int, Field(ge=2)] = BINS
    """Bins of numbers."""
    shuffles: Annotated[int, Field(ge=5)] = 20
    """How often the target is shuffled."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The chance that noise is kept."""

    @model_validator(mode="after")
    def _one_rule(self) -> MutualInformation:
        if self.k is not None and self.share is not None:
            raise Misfit("k and share are two rules", "keep one of them", "share")
        return self

    def choose(self, evidence: Evidence) -> Verdict:
        y = target_codes(evidence, self.bins)
        tables = [codes_of(evidence, u, self.bins) for u in evidence.units]
        w = evidence.weight
        found = np.array([mutual_information(t, y, w) for t in tables])
        null = np.empty((self.shuffles, len(tables)))
        for turn in range(self.shuffles):
            shuffled = generator(evidence.how, 1, turn).permutation(y)
            null[turn] = [mutual_information(t, shuffled, w) for t in tables]
        mean, spread = null.mean(axis=0), null.std(axis=0, ddof=1)
        spread = np.where(spread > 0, spread, np.inf)  # of a constant: never above its noise
        scores = found - mean
        if self.k is not None or self.share is not None:
            count = self.k or max(1, round((self.share or 0) * len(tables)))
            best = sorted(range(len(tables)), key=lambda i: (-scores[i], i))[:count]
            return Verdict(np.isin(np.arange(len(tables)), best), scores)
        most = np.sort(((null - mean) / spread).max(axis=1))
        at = min(int(np.ceil((1 - self.alpha) * (self.shuffles + 1))), self.shuffles) - 1
        return Verdict(scores / spread > most[at], scores, None,
                       f"noise reaches {most[at]:.2g} standard deviations")


def mutual_information(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    """The mutual information of two codes (int64 ``[n]``, from 0), in nats, by weighted counts."""
    wide = int(b.max()) + 1
    table = np.bincount(a * wide + b, weights=weight, minlength=(int(a.max()) + 1) * wide)
    p = table.reshape(-1, wide) / weight.sum()
    expected = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    held = p > 0
    return float((p[held] * np.log(p[held] / expected[held])).sum())


def target_codes(evidence: Evidence, bins: int) -> np.ndarray:
    """The target as codes: its classes, or its quantiles."""
    y = evidence.y
    return y.astype(np.int64) if evidence.target.task != "regression" else binned(y, bins)


def codes_of(evidence: Evidence, unit: Unit, bins: int) -> np.ndarray:
    """A unit as codes, int64 ``[n]``: one for each combination of its columns' bins."""
    key = unit, bins
    if key not in evidence.memo:
        columns = [compact(np.nan_to_num(x, nan=-1)) if unit.codes else binned(x, bins)
                   for x in evidence.host[:, list(unit.columns)].T]
        evidence.memo[key] = columns[0] if len(columns) == 1 else np.unique(
            np.stack(columns, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    found: np.ndarray = evidence.memo[key]
    return found


def compact(values: np.ndarray) -> np.ndarray:
    """Distinct values as 0, 1, ... in their order."""
    found: np.ndarray = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return found


def binned(values: np.ndarray, bins: int) -> np.ndarray:
    """Codes of numbers: their own where there are at most ``bins`` distinct ones.

    Else a value that more than a bin's share of the rows have is a bin of its own, and the rest
    is cut at its quantiles into as many as are left. Missing ones have the last code.
    """
    there = ~np.isnan(values)
    distinct, inverse, counts = np.unique(values[there], return_inverse=True, return_counts=True)
    of = np.arange(len(distinct))
    if len(distinct) > bins:
        heavy = counts > counts.sum() / bins
        rest = np.where(heavy, 0, counts)
        left = max(bins - int(heavy.sum()), 2)
        middle = (np.cumsum(rest) - rest / 2) / rest.sum()
        of = np.where(heavy, left + np.cumsum(heavy), (middle * left).astype(np.int64))
    codes = np.full(len(values), int(of.max(initial=-1)) + 1, np.int64)
    codes[there] = of[inverse]
    return compact(codes)
