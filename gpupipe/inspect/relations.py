"""How columns relate in a sample: which add up to the target, which say the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]

BINS = 200
MISSING_WORDS = (-1, -9, -99, -999, -9999, 99, 999, 9999, 99999, 999999)


@dataclass(frozen=True)
class Side:
    """One column of the sample: a code for each distinct value (-1: null), and, for numbers
    and times, the values as float64 (NaN: null or not finite)."""

    codes: Codes
    distinct: int
    numbers: Floats | None

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Side:
        encoded = pc.dictionary_encode(column.combine_chunks())
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([]).dictionary_encode()
        codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        numbers = None
        if not pa.types.is_string(column.type):
            ticks = pa.types.is_timestamp(column.type)
            plain = column.cast(pa.int64()) if ticks else column
            numbers = plain.cast(pa.float64(), safe=False).to_numpy().astype(np.float64)
            numbers[~np.isfinite(numbers)] = np.nan
        return cls(codes, len(encoded.dictionary), numbers)

    def groups(self) -> Codes:
        """Codes for at most `BINS` quantile bins of numbers, else for each value; null is 0."""
        if self.numbers is None or self.distinct <= BINS:
            return self.codes + 1
        known = self.numbers[~np.isnan(self.numbers)]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1]))
        bins = np.searchsorted(edges, self.numbers, side="right") + 1
        return np.where(np.isnan(self.numbers), 0, bins).astype(np.int64)


def crossed_means(groups: Codes, target: Floats) -> Floats:
    """Each row's group mean of the target among the rows of the other half."""
    half = np.arange(len(target)) % 2 == 0
    size = int(groups.max(initial=0)) + 1
    predicted = np.empty(len(target))
    for this, other in ((half, ~half), (~half, half)):
        counts = np.bincount(groups[other], minlength=size)
        sums = np.bincount(groups[other], weights=target[other], minlength=size)
        overall = target[other].mean() if other.any() else 0.0
        means = (sums + overall) / (counts + 1.0)  # one row's worth of the overall mean
        predicted[this] = means[groups[this]]
    return predicted


def auc(positive: npt.NDArray[np.bool_], score: Floats) -> float:
    """Area under the ROC curve; ties count half (Mann-Whitney)."""
    n = int(positive.sum())
    if n == 0 or n == len(positive):
        return 0.5
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2.0
    above = ranks[place][positive].sum() - n * (n + 1) / 2.0
    return float(above / (n * (len(positive) - n)))


def linear_sum(
    columns: dict[str, Side], target: Floats
) -> tuple[list[str], float, bool] | None:
    """Two to four columns whose weighted sum is nearly the target, by forward selection; None
    where there are none. Nearly: R squared, on rows that the weights were not fitted to, over
    .995; or over .98 with all weights about 1 or -1, as when a total is added up.

    Returns
    -------
    The columns, R squared, and whether all weights are about 1 or -1.
    """
    usable = {
        name: side.numbers for name, side in columns.items()
        if side.numbers is not None and np.isnan(side.numbers).mean() < 0.2 and side.distinct > 1
    }
    if len(usable) < 2:
        return None
    names = list(usable)
    matrix = np.column_stack([usable[n] for n in names])
    whole = ~np.isnan(matrix).any(axis=1) & ~np.isnan(target)
    matrix, y = matrix[whole], target[whole]
    if len(y) < 100:
        return None
    scale = matrix.std(axis=0)
    matrix = (matrix - matrix.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    fit = np.arange(len(y)) % 2 == 0
    y = y - y[fit].mean()
    spread = float((y[~fit] ** 2).sum())
    chosen: list[int] = []
    found: tuple[list[str], float, bool] | None = None
    residual = y
    for _ in range(min(4, len(names))):
        pull = np.abs(matrix[fit].T @ residual[fit])
        pull[chosen] = -1.0
        chosen.append(int(pull.argmax()))
        design = np.column_stack([matrix[:, chosen], np.ones(len(y))])
        weights = np.linalg.lstsq(design[fit], y[fit], rcond=None)[0]
        residual = y - design @ weights
        share = 1 - float((residual[~fit] ** 2).sum()) / spread if spread else 0.0
        parts = np.abs(weights[:-1]) / np.where(scale > 0, scale, 1.0)[chosen]
        plain = bool((np.abs(parts - 1) < 0.25).all())
        near = share > 0.995 or (share > 0.98 and plain)
        if near and len(chosen) > 1 and (found is None or share > found[1] + 0.002):
            found = [names[i] for i in chosen], share, plain
    return found


def repeated_rows(sides: list[Side]) -> float:
    """The share of the sample's rows that repeat an earlier one (a lower bound for the table)."""
    hashed = row_hashes(sides, len(sides[0].codes))
    return 1 - len(np.unique(hashed)) / max(1, len(hashed))


def row_hashes(sides: list[Side], rows: int) -> npt.NDArray[np.uint64]:
    """A hash of each row ``[n]``: equal rows of the sample have equal ones."""
    hashed = np.zeros(rows, np.uint64)
    for i, side in enumerate(sides):
        odd = np.uint64((0x9E3779B97F4A7C15 * (2 * i + 3)) % 2**64 | 1)
        mixed = (hashed ^ side.codes.astype(np.uint64)) * odd
        hashed = mixed ^ (mixed >> np.uint64(29))
    return hashed


def same_information(columns: dict[str, Side]) -> list[tuple[str, str, bool]]:
    """Pairs that say the same: (kept, repeated, equal values); each value of one goes with
    one value of the other, nulls with nulls. Columns of nearly unique values must be equal.
    """
    pairs, repeated = [], set()
    names = [n for n, side in columns.items() if side.distinct > 1]
    for i, first in enumerate(names):
        if first in repeated:
            continue
        a = columns[first]
        for second in names[i + 1:]:
            b = columns[second]
            if a.distinct != b.distinct or not np.array_equal(a.codes < 0, b.codes < 0):
                continue
            # Codes are given out in order of first appearance, so a one-to-one pair of
            # columns has the very same codes.
            if not np.array_equal(a.codes, b.codes):
                continue
            equal = (
                a.numbers is not None and b.numbers is not None
                and np.array_equal(a.numbers, b.numbers, equal_nan=True)
            )
            if equal or a.distinct < 0.5 * len(a.codes):
                pairs.append((first, second, equal))
                repeated.add(second)
    return pairs


def out_of_order(side: Side, target: Side, regression: bool) -> bool:
    """Whether a number of few values relates to the target by value, not by size: the values'
    means explain far more than a straight line does."""
    known = target.codes >= 0
    if side.numbers is None or not 3 <= side.distinct <= 30:
        return False
    known = known & ~np.isnan(side.numbers)
    x = side.numbers[known]
    if regression:
        assert target.numbers is not None
        y = target.numbers[known]
    else:
        counts = np.bincount(target.codes[known], minlength=target.distinct)
        y = (target.codes[known] == counts.argmax()).astype(np.float64)
    if len(x) < 200 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return False
    line = float(np.corrcoef(x, y)[0, 1] ** 2)
    spread = float(((y - y.mean()) ** 2).sum())
    values = 1 - float(((y - crossed_means(side.groups()[known], y)) ** 2).sum()) / spread
    return values > 3 * line + 0.002


def sentinel(side: Side) -> tuple[float, float] | None:
    """A number that stands for "missing" or "never", and its share of rows: a usual one at the
    edge and apart from all others, or a zero far below every other value."""
    if side.numbers is None or side.distinct < 5:
        return None
    numbers = side.numbers[~np.isnan(side.numbers)]
    values, counts = np.unique(numbers, return_counts=True)
    body = numbers[(numbers != values[0]) & (numbers != values[-1])]
    if not len(body):
        return None
    low, high = float(values[0]), float(values[-1])
    if low in MISSING_WORDS and low < 0 <= values[1] and counts[0] >= 0.002 * len(numbers):
        return low, float(counts[0] / len(numbers))
    if high in MISSING_WORDS and counts[-1] >= 0.002 * len(numbers) and high > 2 * values[-2]:
        return high, float(counts[-1] / len(numbers))
    apart = values[1] > 1.5 * float(body.std())
    if low == 0 and apart and side.distinct > 50 and 2 <= counts[0] <= 0.05 * len(numbers):
        return 0.0, float(counts[0] / len(numbers))
    return None
