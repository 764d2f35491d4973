"""When a stream of errors changed: ADWIN and the Page-Hinkley test.

Both see one number after another and need no windows: they say at which number the mean has
changed. ADWIN keeps a window of the stream that it cuts where two halves differ; Page-Hinkley adds
up how far numbers stray from their mean.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np

LONGEST = 100_000
"""A stream of more numbers is looked at as the means of so many blocks."""


@dataclass
class Adwin:
    """ADWIN2: Bifet & Gavaldà 2007, Learning from time-changing data with adaptive windowing.

    The window lies in buckets of 1, 2, 4, ... numbers, at most ``most`` of a size, so it takes
    O(log n) memory. Every ``clock`` numbers each cut of it is looked at: where the means of both
    sides differ by more than chance allows (``delta``, by the bound of the paper's section 4.2),
    the older buckets are dropped.

    Attributes
    ----------
    delta : the chance of a false cut.
    grace, least : numbers that the window, and each side of a cut, must have.
    """

    delta: float = 0.002
    clock: int = 32
    most: int = 5
    grace: int = 10
    least: int = 5
    total: float = 0.0
    variance: float = 0.0
    width: int = 0
    rows: list[deque[tuple[float, float]]] = field(default_factory=lambda: [deque()])
    _time: int = 0

    def update(self, value: float) -> bool:
        """Take in a number. Whether the mean has changed."""
        self._time += 1
        self._insert(value)
        if self._time % self.clock or self.width <= self.grace:
            return False
        return self._shrink()

    @property
    def mean(self) -> float:
        """The mean of the window."""
        return self.total / self.width if self.width else 0.0

    def _insert(self, value: float) -> None:
        if self.width:
            self.variance += self.width * (value - self.mean) ** 2 / (self.width + 1)
        self.width += 1
        self.total += value
        self.rows[0].append((value, 0.0))
        level = 0
        while len(self.rows[level]) > self.most:
            if level + 1 == len(self.rows):
                self.rows.append(deque())
            n = 1 << level
            (a, va), (b, vb) = self.rows[level].popleft(), self.rows[level].popleft()
            # The sum of squares of both about their common mean.
            self.rows[level + 1].append((a + b, va + vb + (a - b) ** 2 / (2 * n)))
            level += 1

    def _shrink(self) -> bool:
        changed, again = False, True
        while again and self.width > self.grace:
            again = False
            older, n0 = 0.0, 0
            for level in range(len(self.rows) - 1, -1, -1):
                for total, _ in self.rows[level]:
                    n0 += 1 << level
                    older += total
                    n1 = self.width - n0
                    if n1 < self.least:
                        break
                    if n0 >= self.least and self._differ(n0, n1, older):
                        self._drop()
                        changed = again = True
                        break
                if again or self.width - n0 < self.least:
                    break
        return changed

    def _differ(self, n0: int, n1: int, older: float) -> bool:
        difference = abs(older / n0 - (self.total - older) / n1)
        chance = math.log(2 * math.log(self.width) / self.delta)
        harmonic = 1 / (n0 - self.least + 1) + 1 / (n1 - self.least + 1)
        spread = self.variance / self.width
        return difference > math.sqrt(2 * harmonic * spread * chance) + 2 / 3 * chance * harmonic

    def _drop(self) -> None:
        """Forget the oldest bucket."""
        level = len(self.rows) - 1
        while not self.rows[level]:
            level -= 1
        total, variance = self.rows[level].popleft()
        n = 1 << level
        self.width -= n
        self.total -= total
        rest = self.total / self.width
        self.variance -= variance + n * self.width * (total / n - rest) ** 2 / (n + self.width)
        self.variance = max(self.variance, 0.0)
        while len(self.rows) > 1 and not self.rows[-1]:
            self.rows.pop()


@dataclass
class PageHinkley:
    """The test of Page 1954, Continuous inspection schemes, Biometrika 41, for a rise of the mean.

    The sum of (value - mean so far - ``delta``) forgets slowly (by ``alpha`` a number); where it
    rises ``threshold`` above its least value, the mean has risen, and the test begins anew.
    """

    delta: float = 0.005
    threshold: float = 50.0
    alpha: float = 1 - 1e-4
    grace: int = 30
    mean: float = 0.0
    n: int = 0
    total: float = 0.0
    low: float = math.inf

    def update(self, value: float) -> bool:
        """Take in a number. Whether the mean has risen."""
        self.n += 1
        self.mean += (value - self.mean) / self.n
        self.total = self.alpha * self.total + value - self.mean - self.delta
        self.low = min(self.low, self.total)
        if self.n >= self.grace and self.total - self.low > self.threshold:
            self.mean, self.n, self.total, self.low = 0.0, 0, 0.0, math.inf
            return True
        return False


@dataclass(frozen=True)
class Change:
    """A change that a detector found: at which number of the stream, and the means about it."""

    by: str
    at: int
    before: float
    after: float

    @property
    def risen(self) -> bool:
        return self.after > self.before


def changes(errors: np.ndarray, delta: float = 0.002) -> list[Change]:
    """What both detectors find in a stream of errors, float64 ``[n]`` in the order of time.

    Errors are scaled to their range, or to five standard deviations of absolute errors, for which
    ADWIN's bound is made. ``before`` and ``after`` are means of the errors as they are, from the
    last change up to this, and from this to the next.
    """
    if not len(errors):
        return []
    block = -(-len(errors) // LONGEST)
    stream = errors
    if block > 1:
        whole = len(errors) // block * block
        stream = errors[:whole].reshape(-1, block).mean(axis=1)
    low, high = float(stream.min()), float(np.quantile(stream, 0.999))
    scaled = np.clip((stream - low) / ((high - low) or 1.0), 0.0, 1.0)
    found: list[tuple[str, int]] = []
    deviation = float(scaled.std()) or 1.0
    detectors: dict[str, Adwin | PageHinkley] = {
        "adwin": Adwin(delta), "page_hinkley": PageHinkley(0.05 * deviation, 50 * deviation)}
    for name, detector in detectors.items():
        found += [(name, i) for i, v in enumerate(scaled.tolist()) if detector.update(v)]
    told = []
    for name in detectors:
        at = [i for by, i in found if by == name]
        if name == "adwin":
            at = _first_of_runs(at)
        edges = [0, *at, len(stream)]
        for k, i in enumerate(at):
            before, after = stream[edges[k]:i], stream[i:edges[k + 2]]
            if len(before) and len(after):
                told.append(Change(name, i * block, float(before.mean()), float(after.mean())))
    return sorted(told, key=lambda c: c.at)


def _first_of_runs(at: list[int], near: int = 32 * 10) -> list[int]:
    """While ADWIN's window empties it cuts again and again: one change is told once."""
    kept: list[int] = []
    last = -math.inf
    for i in at:
        if i - last > near:
            kept.append(i)
        last = i
    return kept
