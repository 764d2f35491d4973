"""Classical tests of two models on the same rows, beside the paired bootstrap."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

EXACT = 2_000
"""Up to so many rows on which two models disagree, McNemar's test is the exact binomial one."""


@dataclass(frozen=True)
class Significance:
    """A two-sided test of "both models are alike": its name, metric, statistic and p-value."""

    name: str
    metric: str
    statistic: float
    p: float
    about: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def delong(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> Significance | None:
    """ROC AUC of ``b`` against ``a`` on the same rows.

    DeLong, DeLong & Clarke-Pearson (1988, Biometrics 44): the areas' covariance is that of the
    placement values of positives and of negatives. The statistic is standard normal. None where a
    class has fewer than two rows, or where the areas do not vary.
    """
    positive = y == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        return None
    own, rest = zip(*(_placements(positive, p) for p in (a, b)), strict=True)
    areas = [float(v.mean()) for v in own]
    covariance = np.cov(np.stack(own)) / m + np.cov(np.stack(rest)) / n
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= 1e-18:
        return None
    z = (areas[1] - areas[0]) / math.sqrt(variance)
    return Significance("DeLong", "roc_auc", z, two_sided(z),
                        f"z of the areas' difference over {m:,} positives and {n:,} negatives")


def _placements(positive: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For positives the share of negatives below them, for negatives the converse; ties half."""
    up, down = np.sort(p[positive]), np.sort(p[~positive])

    def below(values: np.ndarray, of: np.ndarray) -> np.ndarray:
        left, right = (np.searchsorted(of, values, side) for side in ("left", "right"))
        return np.asarray((left + right) / 2 / len(of))

    return below(p[positive], down), 1 - below(p[~positive], up)


def mcnemar(right_a: np.ndarray, right_b: np.ndarray) -> Significance | None:
    """Accuracy of two models, from where each is right (bool ``[n]``).

    McNemar (1947, Psychometrika 12): of the rows on which one alone is right, as many should fall
    to either. The exact binomial test; with more than `EXACT` such rows the normal one with
    Edwards' correction. None where there is no such row.
    """
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    total, fewer = only_a + only_b, min(only_a, only_b)
    if not total:
        return None
    z = math.copysign(max(abs(only_b - only_a) - 1, 0), only_b - only_a) / math.sqrt(total)
    if total <= EXACT:
        p = min(1.0, 2 * sum(math.comb(total, k) for k in range(fewer + 1)) / 2**total)
    else:
        p = two_sided(z)
    return Significance("McNemar", "accuracy", z, p,
                        f"{only_b:,} rows the second alone has right, {only_a:,} the first alone")


def two_sided(z: float) -> float:
    """P(a standard normal is at least as far from 0 as ``z``)."""
    return math.erfc(abs(z) / math.sqrt(2))
