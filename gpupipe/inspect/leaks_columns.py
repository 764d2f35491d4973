"""Single columns that tell the target: copies, functions of it, IDs, what is filled in afterwards.

A run is stopped by a column only where nothing honest is likely to look like it: it tells the
target almost without error (`SURE`), and at most one other column comes near (`SHARED`): in a
table that is easy (network attacks, or the sides of a stone and its weight) many do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from gpupipe.inspect.columns import looks_like_id
from gpupipe.inspect.findings import Finding
from gpupipe.inspect.leaks_power import Power, kappa, power_of, straight
from gpupipe.inspect.leaks_sample import Sample
from gpupipe.inspect.relations import Codes, Side
from gpupipe.inspect.text import drop

SURE, SURE_KAPPA, SURE_R2 = 0.99, 0.9, 0.995
"""Area under the ROC curve with Cohen's kappa, or R squared, of a column that tells the target."""
EXACT = 0.9995
SHARED, MANY = 0.97, 2
"""Where so many other columns reach that, the table is easy and none of them stops a run."""
STRONG, STRONG_R2, SHOWN = 0.8, 0.6, 5
ID, ID_KAPPA, ID_R2 = 0.9, 0.6, 0.8
"""An ID should tell nothing: this much stops a run."""
FILLED, OTHERS, PURE = 0.5, 0.005, 0.9
"""Filled in for at least this share of a class, for at most this share of the others, and mostly
for the class."""
FEW = 30
TIMES = ("year", "month", "week", "day", "hour", "date", "time", "timestamp")
"""Numbers called so tell when a row is of, even where they count the rows."""


def column_findings(sample: Sample) -> Iterator[Finding]:
    """What single features of ``sample`` tell of the target."""
    for name in sample.gaps:
        yield Finding("missing-with-target", (name,), "warn", (
            f"{name!r} is missing exactly where {sample.target!r} is: both are known only "
            "afterwards?"), {}, drop(name))
    powers = {name: power_of(sample, side) for name, side in sample.inputs().items()}
    ids = [n for n in powers if names_rows(sample, n)]
    for name in ids:
        yield from _id(sample, name, powers[name])
    sure = [*_filled(sample), *(f for n in sample.features if n not in ids
                                for f in _spelled(sample, n))]
    yield from sure
    told = {n for f in sure for n in f.columns}
    apart = {*ids, *told, *(n for n in powers if names_entities(sample, n)
                            or sample.dtypes[n] == "timestamp" or n == sample.time)}
    yield from _powers(sample, {n: p for n, p in powers.items() if n not in apart})


def names_rows(sample: Sample, name: str) -> bool:
    """Whether a column has its own value in (nearly) every row, and is called like an ID or
    counts the rows."""
    if name not in sample.unique:
        return False
    side = sample.sides[name]
    if looks_like_id(name) or side.numbers is None:
        return looks_like_id(name) or sample.dtypes[name] == "string"
    known = side.numbers[~np.isnan(side.numbers)]
    return name.lower() not in TIMES and bool(np.ptp(known) + 1 <= 2 * sample.total)


def names_entities(sample: Sample, name: str) -> bool:
    """Whether a column is called like an ID and its values come back: 20 of them or more, in
    two rows or more each."""
    side = sample.sides[name]
    rows = int((side.codes >= 0).sum())
    return (looks_like_id(name) and name not in sample.unique
            and sample.dtypes[name] in ("int64", "string")
            and side.distinct >= 20 and rows >= 1.5 * side.distinct)


def certain(power: Power, regression: bool) -> bool:
    """Whether a column tells the target almost without error."""
    if regression:
        return power.value >= SURE_R2
    return power.value >= SURE and power.kappa >= SURE_KAPPA


def _powers(sample: Sample, powers: Mapping[str, Power]) -> Iterator[Finding]:
    regression, ranking = sample.regression, sorted(powers, key=lambda n: (-powers[n].value, n))
    near = [n for n in ranking if powers[n].value >= SHARED]
    strong = 0
    for name in ranking:
        power, side = powers[name], sample.sides[name]
        copied = _copies(sample, side, power)
        others = [n for n in near if n != name]
        if copied or certain(power, regression):
            easy = len(others) >= MANY and power.value < EXACT and not copied
            rule = "target-copy" if copied else "target-function"
            what = "repeats" if copied else "alone tells"
            text = f"{name!r} {what} {sample.target!r} ({power.text(regression)})"
            if easy:
                text += f"; so nearly do {', '.join(map(repr, others[:3]))}"
            yield Finding(rule, (name,), "warn" if easy else "block", text,
                          power.numbers(regression) | {"rows": sample.rows}, drop(name))
        elif power.value >= (STRONG_R2 if regression else STRONG) and strong < SHOWN:
            strong += 1
            yield Finding("strong", (name,), "warn", (
                f"{name!r} alone tells {sample.target!r} well ({power.text(regression)}): is it "
                "known at the time of predicting?"),
                power.numbers(regression) | {"rows": sample.rows}, drop(name))


def _copies(sample: Sample, side: Side, power: Power) -> bool:
    """Whether a column's values are the target's, by other names or on another scale."""
    if sample.numbers is not None:
        return side.numbers is not None and straight(side, sample.numbers) >= EXACT
    known = side.codes >= 0
    if side.distinct != len(sample.classes) or known.mean() < 0.9:
        return False
    return kappa(sample.labels[known], renamed(side.codes[known], sample.labels[known])) >= \
        SURE_KAPPA and power.kappa >= SURE_KAPPA


def renamed(codes: Codes, labels: Codes) -> Codes:
    """Each code as the label that it most often goes with."""
    size, classes = int(codes.max(initial=0)) + 1, int(labels.max(initial=0)) + 1
    counts = np.bincount(codes * classes + labels, minlength=size * classes)
    return np.asarray(counts.reshape(size, classes).argmax(axis=1)[codes])


def _id(sample: Sample, name: str, power: Power) -> Iterator[Finding]:
    """An ID by whose size, or spelling, the target can be told."""
    found = [("its order", power)]
    found += [(f"its {how}", power_of(sample, side))
              for how, side in sample.spelled.get(name, {}).items()]
    how, best = max(found, key=lambda f: (f[1].kappa, f[1].value))
    if sample.regression:
        severity = "block" if best.value >= ID_R2 else "warn" if best.value >= 0.2 else None
    else:
        sure = best.value >= ID and best.kappa >= ID_KAPPA
        severity = "block" if sure or best.kappa >= SURE_KAPPA else \
            "warn" if best.value >= 0.65 or best.kappa >= 0.3 else None
    if severity:
        yield Finding("id-order", (name,), severity, (  # type: ignore[arg-type]
            f"{name!r} names rows, and {how} tells {sample.target!r} "
            f"({best.text(sample.regression)})"),
            best.numbers(sample.regression) | {"by": how, "rows": sample.rows}, drop(name))


def _spelled(sample: Sample, name: str) -> Iterator[Finding]:
    """A text that spells the target out."""
    for how, side in sample.spelled.get(name, {}).items():
        power = power_of(sample, side)
        if certain(power, sample.regression):
            yield Finding("target-function", (name,), "block", (
                f"the {how} of {name!r} tells {sample.target!r} "
                f"({power.text(sample.regression)})"),
                power.numbers(sample.regression) | {"by": how, "rows": sample.rows}, drop(name))
            return


def _filled(sample: Sample) -> Iterator[Finding]:
    """Columns that are filled in, or left out, for one class alone: written down afterwards."""
    if sample.regression:
        return
    every = np.bincount(sample.labels, minlength=len(sample.classes)).astype(np.float64)
    for name, side in sample.inputs().items():
        for present, how in ((side.codes >= 0, "filled in"), (side.codes < 0, "missing")):
            counts = np.bincount(sample.labels[present], minlength=len(sample.classes))
            label, rows = int(counts.argmax()), int(counts.sum())
            others = sample.rows - every[label]
            if counts[label] < FEW or others * rows < FEW * sample.rows:
                continue
            covered, rest = counts[label] / every[label], (rows - counts[label]) / others
            if covered >= FILLED and rest <= OTHERS and counts[label] >= PURE * rows:
                yield Finding("filled-by-target", (name,), "block", (
                    f"{name!r} is {how} in {covered:.0%} of the rows of "
                    f"{sample.classes[label]!r} and in {rest:.2%} of the others: it is written "
                    "down afterwards"),
                    {"class": sample.classes[label], "covered": round(float(covered), 4),
                     "others": round(float(rest), 5), "rows": sample.rows}, drop(name))
                break
