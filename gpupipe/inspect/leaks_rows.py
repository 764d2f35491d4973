"""Rows on both sides of a split that are one and the same thing: twins, and entities.

That two rows look alike is no leak in itself: in a table of few columns many do by chance. It is
one where the twin's target is the row's own, and that of the nearest row that is no twin is not:
then the model is asked what it was told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from gpupipe.inspect.findings import Finding
from gpupipe.inspect.leaks_columns import names_entities
from gpupipe.inspect.leaks_power import class_shares, crossed, kappa
from gpupipe.inspect.leaks_sample import Ints, Sample, ranked
from gpupipe.inspect.relations import Floats, Side, row_hashes
from gpupipe.inspect.text import by_group, flow

QUERIES = 1_000
"""So many rows that judge are held against all rows that train."""
NEAREST, APART = 8, 0.2
"""A twin is nearer than this share of the distance to the eighth nearest kind of row."""
TILE = 64
SHARE, FEW = 0.02, 20
"""Twins are reported from this share of the rows that judge, and this many, on."""
TWIN_KAPPA, OTHER_KAPPA = 0.93, 0.6
CONSTANT_KAPPA, CONSTANT_R2 = 0.9, 0.95
STICKY_KAPPA, STICKY_R2 = 0.3, 0.3


def row_findings(sample: Sample, told: Sequence[str]) -> Iterator[Finding]:
    """Twins and entities that straddle the split of ``sample``; columns that are ``told`` to
    leak do not count for twins."""
    if sample.by == "time":
        return  # what comes back later is what will come back later
    yield from _entities(sample)
    yield from _twins(sample, told)


def _entities(sample: Sample) -> Iterator[Finding]:
    for name, side in sample.sides.items():
        if name in sample.group or not names_entities(sample, name):
            continue
        power, covered = shared_target(sample, side)
        constant, sticky = (CONSTANT_R2, STICKY_R2) if sample.regression else (
            CONSTANT_KAPPA, STICKY_KAPPA)
        if covered < 0.1 or power < sticky:
            continue
        sure = power >= constant
        measure = "R2" if sample.regression else "kappa"
        yield Finding("entity", (name,), "block" if sure else "warn", (
            f"rows of one {name!r} fall on both sides of the split ({covered:.0%} of rows), and "
            f"{'share' if sure else 'partly share'} {sample.target!r} ({measure} {power:.3f})"),
            {measure.lower(): round(power, 4), "covered": round(covered, 4),
             "entities": side.distinct, "rows": sample.rows}, by_group([name]))


def shared_target(sample: Sample, side: Side) -> tuple[float, float]:
    """How far the target of an entity's rows in one half tells that in the other (Cohen's kappa,
    R squared), and the share of rows whose entity is in both."""
    groups = side.codes + 1
    size = int(groups.max(initial=0)) + 1
    inside = [np.bincount(groups[h], minlength=size) for h in (sample.half, ~sample.half)]
    both = (side.codes >= 0) & np.where(sample.half, inside[1][groups], inside[0][groups]) > 0
    if both.sum() < FEW:
        return 0.0, 0.0
    if sample.numbers is None:
        _, told = class_shares(groups, sample.labels, len(sample.classes), sample.half)
        power = kappa(sample.labels[both], told[both])
    else:
        y = sample.numbers
        spread = float(((y[both] - y[both].mean()) ** 2).sum())
        missed = float(((y - crossed(groups, y, sample.half))[both] ** 2).sum())
        power = 1 - missed / spread if spread else 0.0
    return power, float(both.mean())


def _twins(sample: Sample, told: Sequence[str]) -> Iterator[Finding]:
    names = [n for n in sample.features if n not in sample.unique and n not in told
             and sample.sides[n].distinct > 1]
    asked, known = np.flatnonzero(sample.judged), np.flatnonzero(~sample.judged)
    if len(names) < 2 or len(asked) < FEW:
        return
    rng, sides = np.random.default_rng(0), [sample.sides[n] for n in names]
    asked = np.sort(rng.permutation(asked)[:QUERIES])
    hashes = row_hashes(sides, sample.rows)
    known = known[np.unique(hashes[known], return_index=True)[1]]  # of equal rows the first
    if len(known) < NEAREST:
        return
    near, away = nearest_rows(places(sides, rng), asked, known)
    apart = away > APART * away[:, -1:]
    twins = ~apart[:, 0] & apart[:, -1]
    first = apart.argmax(axis=1)  # the nearest row that is no twin
    a, b, c = asked[twins], near[twins, 0], near[twins, first[twins]]
    if len(a) < max(FEW, SHARE * len(asked)) or not told_by_twins(sample, a, b, c):
        return
    exact = hashes[a] == hashes[b]
    rule, kind = "duplicates", "exact"
    fix: str | None = f"data: {{key: {flow(names)}}}"
    if exact.mean() <= 0.5:
        rule, kind, fix = "near-duplicates", "near", None
        fixed = [n for n, s in zip(names, sides, strict=True)
                 if (s.codes[a] == s.codes[b]).mean() >= 0.98]
        alike = row_hashes([sample.sides[n] for n in fixed], sample.rows)
        if len(np.unique(alike)) >= 0.3 * len(np.unique(hashes)):
            fix = by_group(fixed)
    text = (f"{len(a) / len(asked):.1%} of the rows that judge have a twin ({kind}) among those "
            f"that train, with the same {sample.target!r}")
    if fix is None:
        text += ": give twins a column in common, and split by: group on it"
    yield Finding(rule, (), "block", text, {
        "share": round(len(a) / len(asked), 4), "exact": round(float(exact.mean()), 4),
        "asked": len(asked), "rows": sample.rows}, fix)


def places(sides: list[Side], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Rows as points ``[n, d]``: numbers at their ranks, 0 to 2; each value of another column at
    a random direction of its own (a hashed one-hot), so that two of them are about 1 apart.

    Coordinates are whole numbers, small enough for every distance to be one below 2^24: then
    float32 adds up exactly, in any order.
    """
    parts, reach = [], 0.0
    for side in sides:
        if side.numbers is not None and side.distinct > 2:
            missing = np.isnan(side.numbers)
            parts.append(np.column_stack(
                [np.where(missing, 1.0, 2 * ranked(side.numbers)), missing]))
            reach += 5.0
        else:
            ways = rng.normal(size=(side.distinct + 1, 4))
            ways /= np.linalg.norm(ways, axis=1, keepdims=True) * np.sqrt(2)
            parts.append(ways[side.codes])
            reach += 0.5
    scale = max(1.0, np.floor(np.sqrt(2.0**21 / reach)))
    return np.rint(np.hstack(parts) * scale).astype(np.float32)


def nearest_rows(
    points: npt.NDArray[np.float32], asked: Ints, known: Ints
) -> tuple[Ints, Floats]:
    """The `NEAREST` rows of ``known`` to each one asked, nearest first, and their distances."""
    base = points[known]
    size, found = (base**2).sum(axis=1), []
    padding = np.full(-len(known) % TILE, np.inf, np.float32)
    for i in range(0, len(asked), 64):  # one matrix product a block
        away = np.hstack([size - 2 * (points[asked[i:i + 64]] @ base.T),
                          np.broadcast_to(padding, (len(asked[i:i + 64]), len(padding)))])
        # The nearest rows lie in the tiles of which the nearest rows are nearest.
        tiles = away.reshape(len(away), -1, TILE)
        some = _least(tiles.min(axis=2))
        inside = np.take_along_axis(tiles, some[:, :, None], axis=1).reshape(len(away), -1)
        place = (some[:, :, None] * TILE + np.arange(TILE)).reshape(len(away), -1)
        found.append(np.take_along_axis(place, _least(inside), axis=1))
    near = known[np.concatenate(found)]
    away = np.sqrt(((points[near] - points[asked][:, None]).astype(np.float64) ** 2).sum(axis=2))
    order = away.argsort(axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(away, order, axis=1)


def _least(values: npt.NDArray[np.float32]) -> Ints:
    """The places of the `NEAREST` least values of each row."""
    if values.shape[1] <= NEAREST:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.argpartition(values, NEAREST - 1, axis=1)[:, :NEAREST]


def told_by_twins(sample: Sample, rows: Ints, twins: Ints, others: Ints) -> bool:
    """Whether rows have their twins' target, and not that of others near by."""
    if sample.numbers is not None:
        y = sample.numbers
        return bool((y[rows] == y[twins]).mean() >= 0.9 and (y[rows] == y[others]).mean() <= 0.3)
    labels = sample.labels
    if (labels[rows] != np.bincount(labels).argmax()).sum() < FEW // 2:
        return False
    return kappa(labels[rows], labels[twins]) >= TWIN_KAPPA and \
        kappa(labels[rows], labels[others]) <= OTHER_KAPPA
