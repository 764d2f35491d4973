"""Drift of all columns together, where each of them may look as it did.

It takes rows, and a bundle has none: they are of a table that the user names (``--against``: the
training data, or any rows that are as they should be). A sample of it and one of each window are
looked at as the model sees them, as its features:

- **domain_classifier**: trees learn to tell window from reference. The mean of the ROC AUCs on
  folds that they did not learn from is a half without drift (Lopez-Paz & Oquab 2017, Revisiting
  classifier two-sample tests, ICLR); given the trees each is a Mann-Whitney statistic, whose
  variance is known.
- **reconstruction**: the principal components of half of the reference that have nine tenths of its
  variance; whether rows of the window lie further from them than those of the other half
  (Mann-Whitney again).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from gpupipe.bundle.scoring import Bundle
from gpupipe.errors import DataError
from gpupipe.monitor.counts import Counts
from gpupipe.monitor.measures import Found
from gpupipe.monitor.scan import ROWS, Observed, Scan, arrow_table
from gpupipe.monitor.sources import pieces_of
from gpupipe.monitor.windows import Windows
from gpupipe.steps.profile import row_hash

SAMPLE = 2_000
"""Rows of the reference and of each window, chosen by their hash."""
LEAST = 200
FOLDS = 4
TREES = {"max_depth": 3, "eta": 0.2, "subsample": 1.0, "objective": "binary:logistic",
         "nthread": 1, "seed": 0, "verbosity": 0}
ROUNDS = 30
VARIANCE = 0.9


@dataclass(frozen=True)
class _Sampled:
    """The features of some rows ``[n, features]``, their hashes and windows."""

    features: np.ndarray
    hashes: np.ndarray
    window: np.ndarray


@dataclass(frozen=True)
class _Sample:
    """Samples a part: of a window that share of its rows that ``share`` has for it."""

    scan: Scan
    share: Mapping[int, float]

    def __call__(self, part: tuple[int, int]) -> list[_Sampled]:
        bundle, fx = self.scan.bundle, self.scan.engine.fx
        names, found = bundle.schema.names, []
        for rows in self.scan.batches(part):
            if any(c not in rows.columns for c in names):
                continue
            hashes = fx.to_host(row_hash(rows.columns, names, fx))
            window = fx.to_host(rows.window)
            own, code = np.unique(window, return_inverse=True)
            limit = np.array([int(self.share.get(int(w), 0.0) * 2**53) for w in own], np.uint64)
            kept = np.flatnonzero((hashes >> np.uint64(11)) < limit[code])
            if len(kept):
                table = arrow_table(rows.columns, bundle, fx).take(kept)
                found.append(_Sampled(bundle.features(table), hashes[kept], window[kept]))
        return found


def _sampled(scan: Scan, observed: Observed) -> _Sampled | None:
    """A sample of every window, in an order that is that of the rows' hashes."""
    rows = observed.counts.get(ROWS, Counts())
    share = {w: min(1.0, SAMPLE / int(rows.of_group(w, 0)[1].sum())) for w in observed.windows()}
    parts = [(i, p) for i, piece in enumerate(scan.pieces)
             for p in range(len(piece.dataset.parts))]
    found = [s for _, part in sorted(scan.engine.map(_Sample(scan, share), parts)) for s in part]
    if not found:
        return None
    features, hashes, window = (np.concatenate([getattr(s, name) for s in found])
                                for name in ("features", "hashes", "window"))
    order = np.lexsort((hashes, window))
    return _Sampled(features[order], hashes[order], window[order])


def reference_rows(source: Any, scan: Scan, cache: Path) -> np.ndarray:
    """The features of a sample of a table that is as data should be: float32 ``[n, features]``."""
    bundle: Bundle = scan.bundle
    pieces = pieces_of(source, bundle, cache)
    total = sum(p.dataset.rows for p in pieces)
    whole = Scan(bundle, scan.reference, pieces, Windows(None, "rows"), (), scan.engine,
                 scan.variant)
    everything = Counts.of(np.zeros(1), np.zeros(1), np.array([8]), np.array([total]))
    found = _sampled(whole, Observed({ROWS: everything}))
    if found is None or len(found.features) < LEAST:
        raise DataError(f"there are fewer than {LEAST} rows with the model's columns to hold "
                        "windows against", where=pieces[0].dataset.source,
                        hint="give --against a table with all columns that the model takes")
    return found.features


def multivariate(
    scan: Scan, observed: Observed, reference: np.ndarray
) -> dict[int, dict[str, Found]]:
    """What both tests find in each window that has rows enough, by the windows of the scan."""
    sampled = _sampled(scan, observed)
    found: dict[int, dict[str, Found]] = {}
    if sampled is None:
        return found
    for window in np.unique(sampled.window).tolist():
        mine = sampled.window == window
        if mine.sum() >= LEAST:
            found[window] = {
                "domain_classifier": domain_classifier(reference, sampled.features[mine]),
                "reconstruction": reconstruction(reference, sampled.features[mine])}
    return found


def domain_classifier(then: np.ndarray, now: np.ndarray) -> Found:
    """How well trees tell the rows of two matrices apart: the AUC, and by how much it is above 1/2.

    Matrices are float32 ``[n, features]``, NaN for missing.
    """
    import xgboost as xgb

    x = np.concatenate([then, now])
    y = np.repeat([0, 1], [len(then), len(now)])
    fold = np.concatenate([np.arange(len(then)), np.arange(len(now))]) % FOLDS
    areas, variances = [], []
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        booster = xgb.train(TREES, xgb.DMatrix(x[train], y[train]), ROUNDS)
        score = booster.predict(xgb.DMatrix(x[test]))
        area, variance = _area(score[y[test] == 1], score[y[test] == 0])
        areas.append(area)
        variances.append(variance)
    area = float(np.mean(areas))
    error = math.sqrt(float(np.sum(variances))) / FOLDS
    return Found(area, max(area - 0.5 - error, 0.0), float(special.ndtr(-(area - 0.5) / error)))


def reconstruction(then: np.ndarray, now: np.ndarray) -> Found:
    """How often a row of the window lies further from the reference's principal components."""
    fitted, held = then[::2].astype(np.float64), then[1::2].astype(np.float64)
    mean = np.nanmean(fitted, axis=0, where=np.isfinite(fitted)) if len(fitted) else 0.0
    mean = np.where(np.isfinite(mean), mean, 0.0)
    spread = np.nanstd(np.where(np.isfinite(fitted), fitted, np.nan), axis=0)
    spread = np.where(np.isfinite(spread) & (spread > 0), spread, 1.0)

    def standard(x: np.ndarray) -> np.ndarray:
        # Beyond ten deviations one value would be all that is seen of a row.
        z = (x - mean) / spread
        return np.clip(np.where(np.isfinite(z), z, 0.0), -10.0, 10.0)

    _, size, parts = np.linalg.svd(standard(fitted), full_matrices=False)
    power = np.cumsum(size**2) / max(float((size**2).sum()), 1e-300)
    kept = parts[: int(np.searchsorted(power, VARIANCE)) + 1]
    kept = kept[: max(1, parts.shape[1] - 1)]

    def error(x: np.ndarray) -> np.ndarray:
        z = standard(x)
        return np.asarray(((z - z @ kept.T @ kept) ** 2).sum(axis=1))

    area, variance = _area(error(now.astype(np.float64)), error(held))
    deviation = math.sqrt(variance)
    return Found(area, max(area - 0.5 - deviation, 0.0),
                 float(special.ndtr(-(area - 0.5) / deviation)))


def _area(above: np.ndarray, below: np.ndarray) -> tuple[float, float]:
    """P(one of ``above`` > one of ``below``), ties half, and its variance where both are alike.

    Mann & Whitney 1947, with the correction for ties.
    """
    n, m = len(above), len(below)
    both = np.concatenate([above, below])
    _, code, count = np.unique(both, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[code]
    area = (float(rank[:n].sum()) - n * (n + 1) / 2) / (n * m)
    total = n + m
    ties = float((count.astype(float) ** 3 - count).sum()) / (total * (total - 1))
    return area, max((total + 1 - ties) / (12 * n * m), 1e-12)
