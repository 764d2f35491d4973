"""Rows on both sides of a split that are one and the same thing: twins, and entities.

That two rows look alike is no leak in itself: in a table of few columns many do by chance. It is
one where the twin's target is the row's own, and that of a row's nearest neighbour otherwise is
not: then the model is asked what it was told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gpupipe.inspect.findings import Finding
from gpupipe.inspect.leaks_columns import names_entities
from gpupipe.inspect.leaks_power import class_shares, crossed, kappa
from gpupipe.inspect.leaks_sample import Bools, Ints, Sample, ranked
from gpupipe.inspect.relations import Floats, Side
from gpupipe.inspect.text import by_group, flow

QUERIES = 1_000
"""So many rows that judge are held against all rows that train."""
ALIKE, CLOSE = 0.9, 0.01
"""Twins agree in this share of what tells rows apart; a number may stray by this share of ranks."""
SHARE, FEW = 0.01, 20
"""Twins are reported from this share of the rows that judge, and this many, on."""
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
    if len(names) < 2 or len(asked) < FEW or len(known) < FEW:
        return
    rng = np.random.default_rng(0)
    asked = np.sort(rng.permutation(asked)[:QUERIES])
    sides = [sample.sides[n] for n in names]
    scaled = [None if s.numbers is None else np.where(
        np.isnan(s.numbers), np.nan, ranked(s.numbers)) for s in sides]
    nearest = known[nearest_rows(sides, scaled, asked, known, rng)]
    matches = np.column_stack([_matches(s, r, asked, nearest)
                               for s, r in zip(sides, scaled, strict=True)])
    some = rng.permutation(sample.rows)
    by_chance = np.array([_matches(s, r, some, np.roll(some, 1)).mean()
                          for s, r in zip(sides, scaled, strict=True)])
    weight = -np.log2(np.clip(by_chance, 1 / sample.rows, 1.0))
    if not weight.sum():
        return
    twins = matches @ weight / weight.sum() >= ALIKE
    if twins.sum() < max(FEW, SHARE * len(asked)) or not told_by_twins(
            sample, asked, nearest, twins):
        return
    same = np.all([s.codes[asked] == s.codes[nearest] for s in sides], axis=0)
    exact = bool(same[twins].mean() > 0.5)
    fixed = [n for n, s in zip(names, sides, strict=True)
             if (s.codes[asked[twins]] == s.codes[nearest[twins]]).all()]
    telling = sum(w for n, w in zip(names, weight, strict=True) if n in fixed)
    fix = f"data: {{key: {flow(names)}}}" if exact else by_group(fixed) if telling >= np.log2(
        sample.total) else "name what the rows are of in a column, and split by: group on it"
    yield Finding("duplicates" if exact else "near-duplicates", (), "block", (
        f"{twins.mean():.1%} of the rows that judge have a{'n exact' if exact else ' near'} twin "
        f"among those that train, with the same {sample.target!r}"),
        {"share": round(float(twins.mean()), 4), "exact": round(float(same.mean()), 4),
         "asked": len(asked), "rows": sample.rows}, fix)


def _matches(side: Side, ranks: Floats | None, first: Ints, second: Ints) -> Bools:
    """Which pairs of rows agree in a column."""
    same = side.codes[first] == side.codes[second]
    if ranks is None or side.distinct <= 2:
        return np.asarray(same)
    return np.asarray(same | (np.abs(ranks[first] - ranks[second]) <= CLOSE))


def nearest_rows(
    sides: list[Side], scaled: list[Floats | None], asked: Ints, known: Ints,
    rng: np.random.Generator,
) -> Ints:
    """For each row asked the place in ``known`` of the nearest one.

    Numbers lie at their ranks; each of another column's values at a random direction of its own
    (a hashed one-hot), so that two of them are about 1 apart. One matrix product does the rest.
    """
    parts = []
    for side, ranks in zip(sides, scaled, strict=True):
        if ranks is not None and side.distinct > 2:
            parts.append(np.column_stack([np.nan_to_num(ranks, nan=0.5) * 2, np.isnan(ranks)]))
        else:
            directions = rng.normal(size=(side.distinct + 1, 4))
            directions /= np.linalg.norm(directions, axis=1, keepdims=True) * np.sqrt(2)
            parts.append(directions[side.codes])
    points = np.hstack(parts).astype(np.float32)
    base = points[known]
    size = (base**2).sum(axis=1) / 2
    found = [(points[asked[i:i + 128]] @ base.T - size).argmax(axis=1)
             for i in range(0, len(asked), 128)]
    return np.asarray(np.concatenate(found))


def told_by_twins(sample: Sample, asked: Ints, nearest: Ints, twins: Bools) -> bool:
    """Whether twins have one target, and other nearest neighbours have not."""
    if sample.numbers is not None:
        spread = 2 * float(sample.numbers.var())
        missed = (sample.numbers[asked] - sample.numbers[nearest]) ** 2
        same = sample.numbers[asked] == sample.numbers[nearest]
        rest_same = float(same[~twins].mean()) if (~twins).any() else 0.0
        rest = 1 - float(missed[~twins].mean()) / spread if (~twins).any() else 0.0
        copied = float(same[twins].mean()) >= 0.9 and rest_same <= 0.5
        return copied or (1 - float(missed[twins].mean()) / spread >= 0.999 and rest <= 0.97)
    a, b = sample.labels[asked], sample.labels[nearest]
    usual = np.bincount(sample.labels).argmax()
    if (a[twins] != usual).sum() < FEW // 2:
        return False
    rest = kappa(a[~twins], b[~twins]) if (~twins).sum() >= FEW else 0.0
    return kappa(a[twins], b[twins]) >= 0.98 and rest <= 0.85
