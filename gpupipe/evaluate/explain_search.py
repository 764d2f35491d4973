"""The search for slices: cuts of columns, a test for each slice, and how many looks were taken.

A slice's mean is held against that of all other rows (Welch's test, as in Chung, Kraska,
Polyzotis, Tae & Whang 2019, Slice Finder, ICDE) or against 0. So many looks find something by
chance; the p-values are adjusted by Benjamini & Hochberg (1995), JRSS B 57, which bounds the
share of false finds among those told.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gpupipe.evaluate.cells import EPS
from gpupipe.evaluate.explain_permutation import numbers_of

LEAST = 50
"""Rows of a slice that is looked at."""
LEVELS = 20
QUANTILES = 5
"""Parts of equal size into which a column of numbers is cut."""
PAIRED = 8
"""Columns whose pairs are looked at, the first ones."""
LEVEL = 0.05
"""The share of false finds that is allowed for."""
ALIKE = 0.8
"""Slices that share so much of their rows are told once."""
OFTEN = 2
"""So many of the slices told may have a part in common."""
NORMAL = 1.959964
Against = Literal["rest", "zero"]


@dataclass(frozen=True)
class Cut:
    """A column in few parts: the rows' codes, 0 and up, and what the parts are called."""

    column: str
    codes: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """A slice, a part of one column or of two, with how its mean compares.

    Attributes
    ----------
    mean, rest : of the slice's values, and of all other rows'.
    difference : of the two, or of ``mean`` and 0; ``low`` and ``high`` are its 95 % interval.
    p : one-sided against the rest, two-sided against 0.
    codes, code : the slice is the rows whose code it is.
    parents : for two columns: the codes of either cut, and the slice's own.
    """

    parts: tuple[tuple[str, str], ...]
    rows: int
    mean: float
    rest: float
    difference: float
    low: float
    high: float
    p: float
    codes: np.ndarray
    code: int
    parents: tuple[tuple[np.ndarray, int], ...] = ()

    @property
    def where(self) -> np.ndarray:
        return np.asarray(self.codes == self.code)

    @property
    def certain(self) -> float:
        """The least size of the difference that its interval allows."""
        return max(self.low, -self.high, 0.0)


@dataclass(frozen=True)
class Values:
    """What is compared: a number a row, with its weight, and its variance where that is known."""

    of_rows: np.ndarray
    weight: np.ndarray | None = None
    variance: np.ndarray | None = None

    def sums(self, codes: np.ndarray, size: int) -> np.ndarray:
        """By code: sums of w, w v, w^2, w^2 v, w^2 v^2, and w^2 times the variance or NaN."""
        v = self.of_rows
        w = np.ones(len(v)) if self.weight is None else self.weight
        known = np.full(len(v), np.nan) if self.variance is None else self.variance
        return np.stack([np.bincount(codes, weights=x, minlength=size) for x in (
            w, w * v, w * w, w * w * v, (w * v) ** 2, w * w * known)])


def label_of(value: Any) -> str:
    """A level as people read it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def cut_of(name: str, column: pa.ChunkedArray) -> Cut:
    """A column by its levels, the rarest as one; numbers of many values by fifths."""
    numbers = numbers_of(column)
    if numbers is None:
        encoded = column.combine_chunks()
        if not pa.types.is_dictionary(column.type):
            encoded = encoded.dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        names = [label_of(v) for v in encoded.dictionary.to_pylist()]
    else:
        codes, names = _number_codes(numbers, pa.types.is_timestamp(column.type))
    codes, names = np.where(codes < 0, len(names), codes), [*names, "(missing)"]
    count = np.bincount(codes, minlength=len(names))
    kept = sorted(range(len(names)), key=lambda c: (-count[c], names[c]))[:LEVELS]
    kept = [c for c in kept if count[c]]
    place = np.full(len(names), len(kept))
    place[kept] = np.arange(len(kept))
    return Cut(name, place[codes], (*(names[c] for c in kept), "(other levels)"))


def _number_codes(numbers: np.ndarray, moments: bool) -> tuple[np.ndarray, list[str]]:
    def name(value: float) -> str:
        return str(np.datetime64(int(value), "us"))[:16] if moments else f"{value:.4g}"

    missing = np.isnan(numbers)
    distinct = np.unique(numbers[~missing])
    if len(distinct) <= 2 * QUANTILES:
        place = np.searchsorted(distinct, np.where(missing, np.inf, numbers))
        return np.where(missing, -1, place), [name(v) for v in distinct]
    edges = np.unique(np.quantile(numbers[~missing], np.linspace(0, 1, QUANTILES + 1)))
    place = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, len(edges) - 2)
    names = [f"{name(a)} to {name(b)}" for a, b in itertools.pairwise(edges)]
    return np.where(missing, -1, place), names


def search(
    cuts: Sequence[Cut], values: Values, against: Against, least: int = LEAST,
    paired: int = PAIRED,
) -> list[Found]:
    """Every slice of enough rows: of each cut, and of the pairs of the first ``paired`` ones."""
    tested: list[Found] = []
    for cut in cuts:
        tested += _slices((cut,), cut.codes, values, against, least)
    for a, b in itertools.combinations(cuts[:paired], 2):
        both = a.codes * len(b.names) + b.codes
        tested += _slices((a, b), both, values, against, least)
    return tested


def significant(tested: Sequence[Found], values: Values) -> list[tuple[Found, float]]:
    """The finds at a false discovery rate of 5 %, with adjusted p; the surest difference first.

    A pair's slice is a find where it also differs, in the same direction, from what is left of
    either column's own slice: else that one says it all.
    """
    adjusted = benjamini_hochberg([f.p for f in tested])
    found = [(f, q) for f, q in zip(tested, adjusted, strict=True)
             if q <= LEVEL and _beyond_parents(f, values)]
    return sorted(found, key=lambda item: (-item[0].certain, item[0].parts))


def distinct(found: Sequence[tuple[Found, float]], shown: int) -> list[tuple[Found, float]]:
    """The first ``shown`` of them that tell something new.

    None is nearly the same rows as one before (by Jaccard's index), and none has a part that
    `OFTEN` of those before have.
    """
    kept: list[tuple[Found, float]] = []
    seen: Counter[tuple[str, str]] = Counter()
    for one, q in found:
        if len(kept) == shown:
            break
        where = one.where
        if max(seen[p] for p in one.parts) < OFTEN and not any(
            (where & k.where).sum() >= ALIKE * (where | k.where).sum() for k, _ in kept
        ):
            kept.append((one, q))
            seen.update(one.parts)
    return kept


def _slices(
    cuts: tuple[Cut, ...], codes: np.ndarray, values: Values, against: Against, least: int,
) -> list[Found]:
    """The slices of one cut, or of two, that have enough rows inside and outside."""
    size = int(np.prod([len(c.names) for c in cuts]))
    rows, sums = np.bincount(codes, minlength=size), values.sums(codes, size)
    mass = sums[0]
    chosen = np.flatnonzero((rows >= least) & (len(codes) - rows >= least)
                            & (mass > 0) & (mass.sum() - mass > 0))
    if not len(chosen):
        return []
    inside, outside = sums[:, chosen], sums.sum(1)[:, None] - sums[:, chosen]
    mean, rest = inside[1] / inside[0], outside[1] / outside[0]
    difference, error, freedom = _compared(inside, outside if against == "rest" else None)
    found = []
    for at, code in enumerate(chosen.tolist()):
        own = np.unravel_index(code, [len(c.names) for c in cuts])
        parts = tuple((c.column, c.names[i]) for c, i in zip(cuts, own, strict=True))
        parents = tuple((c.codes, int(i)) for c, i in zip(cuts, own, strict=True))
        d, e, f = float(difference[at]), float(error[at]), float(freedom[at])
        t = d / e if e else math.copysign(math.inf, d) if d else 0.0
        found.append(Found(
            parts, int(rows[code]), float(mean[at]), float(rest[at]), d, d - NORMAL * e,
            d + NORMAL * e, tail(t, f) if against == "rest" else 2 * tail(abs(t), f),
            codes, code, parents if len(cuts) > 1 else (),
        ))
    return found


def _compared(
    a: np.ndarray, b: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Difference of means (of the mean and 0), its standard error and degrees of freedom.

    Welch (1947), Biometrika 34; with weights, rows are counted as Kish's effective number. Where
    the rows' variances are known, they are used, and the test is the normal one.
    """
    means, variances, freedoms = [], [], []
    for w, wv, w2, w2v, w2v2, known in (a,) if b is None else (a, b):
        mean, n = wv / w, w * w / w2
        spread = np.maximum(w2v2 - 2 * mean * w2v + mean * mean * w2, 0.0) / (w * w)
        spread = spread * n / np.maximum(n - 1, EPS)
        means.append(mean)
        variances.append(np.where(np.isnan(known), spread, known / (w * w)))
        freedoms.append(np.where(np.isnan(known), np.maximum(n - 1, EPS), np.inf))
    total = np.sum(variances, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [v**2 / f for v, f in zip(variances, freedoms, strict=True)]
        freedom = total**2 / np.sum(parts, axis=0)
    difference = means[0] - (means[1] if b is not None else 0.0)
    return difference, np.sqrt(total), np.where(np.isfinite(freedom), freedom, 1e9)


def tail(t: float, freedom: float) -> float:
    """P(T > t) of Student's distribution, by Wallace's (1959) normal approximation.

    Ann. Math. Stat. 30, section 2: within a few percent from 10 degrees of freedom on.
    """
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    size = math.sqrt(freedom * math.log1p(t * t / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return 0.5 * math.erfc(math.copysign(size, t) / math.sqrt(2))


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjusted p-values: the least false discovery rate at which each is still a find."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * len(values) / np.arange(1, len(values) + 1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1.0)
    return [float(v) for v in adjusted]


def _beyond_parents(found: Found, values: Values) -> bool:
    """Whether a pair's slice differs from what is left of either column's own slice."""
    inside = found.where
    for codes, code in found.parents:
        apart = np.where(inside, 0, np.where(codes == code, 1, 2))
        sums = values.sums(apart, 3)
        if sums[0, 1] <= 0:
            return False  # the pair is the whole of one column's slice
        d, e, f = (float(v) for v in _compared(sums[:, 0], sums[:, 1]))
        if not (e > 0 and tail(math.copysign(1.0, found.difference) * d / e, f) <= LEVEL):
            return False
    return True
