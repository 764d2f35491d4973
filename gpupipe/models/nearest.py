"""The nearest of some points, found fast and the same for any number of rows at a time.

A matrix product proposes: it gives all squared distances at once, up to a known rounding error.
Where more points lie within that error of the nearest, the distances that decide are summed
feature by feature, whose order is always the same. So a row's neighbours do not depend on which
rows stand beside it, on threads or on the library behind the product. Ties go to the lower index.
"""

from __future__ import annotations

from collections.abc import Iterator

from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array

CELLS = 1 << 21
"""Distances worked out at a time."""
SMALL = 1 << 18
"""Multiplications in a matrix product that OpenBLAS does in the thread that calls it. Where
products are small anyway they are kept below that: waking threads for each takes longer."""
EPSILON = 2.0**-52


def assign(x: Array, points: Array) -> Array:
    """The index of the nearest point to each row: int64 ``[n]``."""
    xp = namespace(x)
    found = xp.zeros(x.shape[0], dtype="int64")
    for rows, apart, error in _proposals(x, points):
        best = apart.argmin(axis=1)
        mine = found[rows]
        mine[...] = best
        close = (apart <= apart.min(axis=1)[:, None] + error[:, None]).sum(axis=1) > 1
        unsure = xp.flatnonzero(close)
        if len(unsure):
            mine[unsure] = squared_distances(x[rows][unsure], points).argmin(axis=1)
    return found


def nearest(x: Array, points: Array, k: int = 1) -> tuple[Array, Array]:
    """Indices (int64) and squared distances (float64) of the ``k`` nearest points, nearest
    first: ``[n, k]`` each. There are at least ``k`` points."""
    xp = namespace(x)
    index = xp.zeros((x.shape[0], k), dtype="int64")
    found = xp.zeros((x.shape[0], k))
    for rows, apart, error in _proposals(x, points):
        limit = (apart.min(axis=1) if k == 1
                 else xp.partition(apart, k - 1, axis=1)[:, k - 1])
        row, point = xp.nonzero(apart <= (limit + error)[:, None])
        exact = _paired(x[rows], points, row, point)
        order = xp.lexsort(xp.stack([point.astype("float64"), exact, row.astype("float64")]))
        row, point, exact = row[order], point[order], exact[order]
        first = xp.searchsorted(row, xp.arange(apart.shape[0]))
        place = first[:, None] + xp.arange(k)
        index[rows], found[rows] = point[place], exact[place]
    return index, found


def squared_distances(x: Array, points: Array) -> Array:
    """Squared Euclidean distances ``[n, m]`` between rows of two float64 matrices, each summed
    feature by feature."""
    xp = namespace(x)
    out = xp.zeros((x.shape[0], points.shape[0]))
    columns = xp.ascontiguousarray(points.T)
    step = max(1, CELLS // 64 // max(1, int(points.shape[0])))  # a block stays in the cache
    for start in range(0, int(x.shape[0]), step):
        block = xp.ascontiguousarray(x[start : start + step].T)
        total = out[start : start + step]
        for mine, theirs in zip(block, columns, strict=True):
            apart = mine[:, None] - theirs
            apart *= apart
            total += apart
    return out


def _proposals(x: Array, points: Array) -> Iterator[tuple[slice, Array, Array]]:
    """For some rows after others: squared distances less the row's own square ``[b, m]``, and by
    how much two of them may be in the wrong order ``[b]``."""
    xp = namespace(x)
    # Both are moved by the points' middle, so that the error is small where all lie far from 0.
    middle = points.mean(axis=0)
    moved = points - middle
    sizes = (moved * moved).sum(axis=1)
    most = float(sizes.max())
    size = int(points.shape[0])
    step = max(1, min(CELLS // size, max(SMALL // (size * int(x.shape[1])), 256)))
    for start in range(0, int(x.shape[0]), step):
        rows = slice(start, start + step)
        own = x[rows] - middle
        apart = sizes - 2.0 * (own @ moved.T)
        # A sum of p products is off by at most p roundings of the size of the greatest term;
        # both ways of summing are, and both distances that are compared.
        error = 16.0 * (x.shape[1] + 4) * EPSILON * ((own * own).sum(axis=1) + most)
        yield rows, apart, error + 16.0 * EPSILON * float(xp.abs(middle).max()) ** 2


def _paired(x: Array, points: Array, row: Array, point: Array) -> Array:
    """Squared distances of pairs: feature by feature, as in `squared_distances`."""
    xp = namespace(x)
    total = xp.zeros(len(row))
    for mine, theirs in zip(xp.ascontiguousarray(x.T), xp.ascontiguousarray(points.T),
                            strict=True):
        apart = mine[row] - theirs[point]
        apart *= apart
        total += apart
    return total


def within(x: Array, points: Array, radius: float) -> Array:
    """About how many points lie within ``radius`` of each row: int64 ``[n]``."""
    xp = namespace(x)
    found = xp.zeros(x.shape[0], dtype="int64")
    middle = points.mean(axis=0)
    for rows, apart, _ in _proposals(x, points):
        own = ((x[rows] - middle) ** 2).sum(axis=1)
        found[rows] = (apart + own[:, None] <= radius * radius).sum(axis=1)
    return found
