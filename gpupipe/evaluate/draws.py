"""How often each unit counts in each resample; drawn on the host, so alike for every device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gpupipe.evaluate.metrics import Classified, Scored, Summed
from gpupipe.evaluate.survival import Compared

Table = Scored | Classified | Summed | Compared

BLOCK = 1 << 18  # weights drawn at a time, so that they stay in the cache


def multinomial_counts(rng: np.random.Generator, size: int, units: int) -> np.ndarray:
    """How often each unit is drawn in ``size`` samples of ``units`` with replacement."""
    picks = rng.integers(0, units, (size, units), dtype=np.int64)
    picks += np.arange(size)[:, None] * units
    return np.bincount(picks.ravel(), minlength=size * units).reshape(size, units).astype(float)


def blocks(resamples: int, units: int) -> Iterator[int]:
    """Sizes of blocks of resamples that together make ``resamples``."""
    step = max(1, BLOCK // units)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)
