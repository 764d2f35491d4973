"""Platt scaling: probabilities from the margins of a classifier that gives none itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Floats = np.ndarray


def folds_of(y: np.ndarray, count: int, seed: int) -> np.ndarray:
    """A fold number for each row, ``[n]``: each class spread evenly, in an order drawn by seed."""
    rng = np.random.default_rng(seed)
    fold = np.empty(len(y), np.int64)
    for label in np.unique(y):
        mine = np.flatnonzero(y == label)
        fold[rng.permutation(mine)] = np.arange(len(mine)) % count
    return fold


def out_of_fold(
    margins: Callable[[np.ndarray, np.ndarray], Floats], fold: np.ndarray, width: int
) -> Floats:
    """Margins ``[n, width]`` of every row by a machine that has not seen it.

    ``margins(learned, judged)`` takes masks of rows; it gives NaN for a class that is not
    among the learned ones.
    """
    found = np.full((len(fold), width), np.nan)
    for number in range(int(fold.max()) + 1):
        judged = fold == number
        found[judged] = margins(~judged, judged)
    return found


def sigmoids(
    margins: Floats, y: np.ndarray, weight: Floats | None
) -> Floats:
    """For each column of margins the ``a, b`` of ``P = 1 / (1 + exp(a margin + b))``: ``[m, 2]``.

    One column tells class 1 from class 0; of several each tells its class from all others.
    Rows without a margin take no part.
    """
    out = np.empty((margins.shape[1], 2))
    for column in range(margins.shape[1]):
        known = np.isfinite(margins[:, column])
        positive = y[known] == (1 if margins.shape[1] == 1 else column)
        out[column] = sigmoid(margins[known, column], positive,
                              None if weight is None else weight[known])
    return out


def sigmoid(margin: Floats, positive: np.ndarray, weight: Floats | None) -> tuple[float, float]:
    """``a`` and ``b`` by Newton's method with backtracking (Lin, Lin and Weng, "A note on Platt's
    probabilistic outputs for support vector machines", Machine Learning 68, 2007).

    Targets are Platt's: the shares of each class after one more row of either.
    """
    w = np.ones(len(margin)) if weight is None else weight
    ones, zeros = float(w[positive].sum()), float(w[~positive].sum())
    t = np.where(positive, (ones + 1) / (ones + 2), 1 / (zeros + 2))
    scale = float(np.abs(margin).max(initial=0.0)) or 1.0
    f = np.stack([margin / scale, np.ones(len(margin))])
    ab = np.array([0.0, np.log((zeros + 1) / (ones + 1))])
    loss = _loss(ab, f, t, w)
    for _ in range(100):
        p = 1 / (1 + np.exp(np.clip(ab @ f, -700, 700)))
        gradient = f @ (w * (t - p))
        if np.abs(gradient).max(initial=0.0) < 1e-9 * max(1.0, float(w.sum())):
            break
        curvature = (f * (w * p * (1 - p))) @ f.T + 1e-12 * np.eye(2)
        step, size = -np.linalg.solve(curvature, gradient), 1.0
        while size > 1e-10:
            moved = ab + size * step
            better = _loss(moved, f, t, w)
            if better < loss + 1e-4 * size * float(gradient @ step):
                break
            size /= 2
        else:
            break  # no step of any size helps: the minimum, as far as float64 can tell
        ab, loss = moved, better
    return float(ab[0] / scale), float(ab[1])


def _loss(ab: Floats, f: Floats, t: Floats, w: Floats) -> float:
    """The weighted cross-entropy of targets ``t``."""
    z = ab @ f
    return float((w * (np.logaddexp(0, z) - (1 - t) * z)).sum())
