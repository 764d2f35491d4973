"""How well one column alone tells the target, on rows that it did not learn from.

Two estimates, of which the better one counts. By value (or quantile bin): the target's mean
among the rows of the other half of the buckets. By neighbour: rows sorted by the column, each
held against the next one of another bucket (1 - von Neumann's ratio, Annals of Mathematical
Statistics 12, 1941); it needs no bins, so an exact function of any shape comes out at 1.

Because both cross buckets of the real split, a column whose values never straddle it (the group
of a group split) has no power.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpupipe.inspect.leaks_sample import Bools, Sample, ranked
from gpupipe.inspect.relations import BINS, Codes, Floats, Side, auc

Buckets = npt.NDArray[np.integer]

CLASSES = 4
"""The area under the ROC curve is the mean over so many of the most frequent classes."""


@dataclass(frozen=True)
class Power:
    """A column's power.

    Attributes
    ----------
    value : area under the ROC curve, or R squared (of values or ranks, the greater).
    kappa : Cohen's kappa of the label that it tells (Educational and Psychological Measurement
        20, 1960); of a regression, R squared again.
    errors : the share of rows whose label it does not tell; NaN for a regression.
    """

    value: float
    kappa: float
    errors: float

    def numbers(self, regression: bool) -> dict[str, float]:
        """As evidence."""
        if regression:
            return {"r2": round(self.value, 5)}
        return {"auc": round(self.value, 5), "kappa": round(self.kappa, 5),
                "errors": round(self.errors, 5)}

    def text(self, regression: bool) -> str:
        if regression:
            return f"R2 {self.value:.4f}"
        return f"AUC {self.value:.4f}, another label in {self.errors:.2%} of rows"


NONE = Power(0.0, 0.0, 1.0)


def power_of(sample: Sample, side: Side) -> Power:
    """The power of a column over the rows of ``sample``."""
    if side.distinct < 2 and not (side.codes < 0).any():
        return NONE
    groups = grouped(side, sample.rows)
    if sample.numbers is not None:
        found = [explained(groups, y, sample.half) for y in (sample.numbers, sample.ranks)]
        if side.numbers is not None:
            found.append(neighbours(side, sample.ranks, sample.bucket))
            found.append(straight(side, sample.numbers))
        share = float(max(0.0, *found))
        return Power(share, share, float("nan"))
    shares, told = class_shares(groups, sample.labels, len(sample.classes), sample.half)
    area = mean_auc(shares, sample.labels, len(sample.classes))
    best = kappa(sample.labels, told), float((told != sample.labels).mean())
    if continuous(side):
        if len(sample.classes) == 2:
            area = max(area, by_size(side, sample.labels == 1))
        left, right = pairs(side, sample.bucket)
        if len(left):
            a, b = sample.labels[left], sample.labels[right]
            best = max(best, (kappa(a, b), float((a != b).mean())))
    return Power(area, *best)


def continuous(side: Side) -> bool:
    """Whether a column's values are better told apart by order than one by one."""
    return side.numbers is not None and side.distinct > BINS


def grouped(side: Side, rows: int) -> Codes:
    """Codes of a column's values, or of quantile bins of at least 20 rows; null is 0."""
    if not continuous(side):
        return side.codes + 1
    assert side.numbers is not None
    known = side.numbers[~np.isnan(side.numbers)]
    bins = int(np.clip(rows // 20, 10, BINS))
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, side.numbers, side="right") + 1
    return np.where(np.isnan(side.numbers), 0, place).astype(np.int64)


def crossed(groups: Codes, target: Floats, half: Bools) -> Floats:
    """Each row's group mean of the target among the rows of the other half."""
    size = int(groups.max(initial=0)) + 1
    out = np.empty(len(target))
    for this, other in ((half, ~half), (~half, half)):
        counts = np.bincount(groups[other], minlength=size)
        sums = np.bincount(groups[other], weights=target[other], minlength=size)
        overall = target[other].mean() if other.any() else 0.0
        # A twentieth of a row's worth of the overall mean: for groups that the other half lacks.
        out[this] = ((sums + 0.05 * overall) / (counts + 0.05))[groups[this]]
    return out


def explained(groups: Codes, target: Floats, half: Bools) -> float:
    """R squared of the other half's group means."""
    spread = float(((target - target.mean()) ** 2).sum())
    if not spread:
        return 0.0
    return 1 - float(((target - crossed(groups, target, half)) ** 2).sum()) / spread


def straight(side: Side, target: Floats) -> float:
    """R squared of a straight line, where most rows have a value."""
    assert side.numbers is not None
    known = np.isfinite(side.numbers)
    x, y = side.numbers[known], target[known]
    if known.mean() < 0.5 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1] ** 2) * float(known.mean())


def pairs(side: Side, bucket: Buckets) -> tuple[Codes, Codes]:
    """Rows that are next to each other by the column's value, and of two buckets."""
    assert side.numbers is not None
    known = np.flatnonzero(~np.isnan(side.numbers))
    # Ties in an order of their own: that of the file could be the target's.
    shuffled = known[np.random.default_rng(0).permutation(len(known))]
    order = shuffled[np.argsort(side.numbers[shuffled], kind="stable")]
    left, right = order[:-1], order[1:]
    apart = bucket[left] != bucket[right]
    return left[apart], right[apart]


def neighbours(side: Side, target: Floats, bucket: Buckets) -> float:
    """The share of the target's variance that a row shares with the next one, times the share
    of rows that have a value."""
    left, right = pairs(side, bucket)
    if len(left) < 20:
        return 0.0
    both = np.concatenate([target[left], target[right]])
    if not both.var():
        return 0.0
    known = float((~np.isnan(side.numbers)).mean())  # type: ignore[arg-type]
    return (1 - float(((target[left] - target[right]) ** 2).mean()) / (2 * both.var())) * known


def class_shares(
    groups: Codes, labels: Codes, classes: int, half: Bools
) -> tuple[Floats, Codes]:
    """Each row's shares of the classes ``[n, classes]`` in its group of the other half, and the
    class that is the most frequent there."""
    size = int(groups.max(initial=0)) + 1
    out, told = np.empty((len(labels), classes)), np.empty(len(labels), np.int64)
    for this, other in ((half, ~half), (~half, half)):
        flat = np.bincount(groups[other] * classes + labels[other], minlength=size * classes)
        counts = flat.reshape(size, classes).astype(np.float64)
        counts += 0.05 * (counts.sum(axis=0) + 1e-9) / max(1.0, counts.sum())
        shares = counts / counts.sum(axis=1, keepdims=True)
        out[this], told[this] = shares[groups[this]], shares.argmax(axis=1)[groups[this]]
    return out, told


def by_size(side: Side, positive: Bools) -> float:
    """The area under the ROC curve of a number itself, whichever way round; the rows without
    one come last."""
    assert side.numbers is not None
    x = side.numbers
    low = np.nanmin(x) - 1.0 if np.isfinite(x).any() else 0.0
    area = auc(positive, np.where(np.isnan(x), low, x))
    return max(area, 1 - area)


def mean_auc(shares: Floats, labels: Codes, classes: int) -> float:
    """The area under the ROC curve of the positive class, or the mean of the usual classes."""
    counts = np.bincount(labels, minlength=classes)
    usual = [1] if classes == 2 else np.argsort(-counts, kind="stable")[:CLASSES]
    weights = [float(min(counts[c], counts.sum() - counts[c])) for c in usual]
    if not sum(weights):
        return 0.5
    return float(np.average([auc(labels == c, shares[:, c]) for c in usual], weights=weights))


def kappa(first: Codes, second: Codes) -> float:
    """How far two labelings agree beyond chance: 1 always, 0 as chance has it."""
    size = int(max(first.max(initial=0), second.max(initial=0))) + 1
    shares = [np.bincount(f, minlength=size) / max(1, len(f)) for f in (first, second)]
    chance = float(shares[0] @ shares[1])
    return 0.0 if chance >= 1 else (float((first == second).mean()) - chance) / (1 - chance)


def monotone(side: Side, target: Floats) -> float:
    """The rank correlation (Spearman's) of a column with the target, squared."""
    assert side.numbers is not None
    known = ~np.isnan(side.numbers)
    x, y = ranked(side.numbers[known]), ranked(target[known])
    if len(x) < 20 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1] ** 2)
