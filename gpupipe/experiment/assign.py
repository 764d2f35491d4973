"""Which arm a unit is in: a function of its id and the experiment's salt, and of nothing else.

SHA-256 of salt and id puts a unit into one of 2^20 buckets, and arms are ranges of buckets, so
every server, batch job and notebook gives the same answer, without a table of who is where. Three
hashes with three salts are asked, which are independent of one another: where the unit lies in
the layer, whether it takes part, and in which arm. Because the second is not the third, a unit
that takes part keeps its arm while the share that takes part grows (Kohavi, Tang and Xu,
"Trustworthy Online Controlled Experiments", 2020, chapters 4 and 15; layers: Tang et al.,
"Overlapping experiment infrastructure", KDD 2010).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from hashlib import sha256
from numbers import Integral
from typing import Literal

from gpupipe.errors import ConfigError, DataError

BUCKET_BITS = 20
BUCKETS = 1 << BUCKET_BITS
"""Buckets of a line: shares are kept to a millionth."""

Why = Literal["assigned", "excluded", "other layer", "not ramped"]


@dataclass(frozen=True)
class Layer:
    """A part of the units that experiments of one layer divide among themselves.

    Two experiments of the same layer whose ranges do not meet never share a unit; layers of
    different names are independent of each other.

    Attributes
    ----------
    name : the layer's name.
    start, end : the range of the layer that this experiment may use, within 0 and 1.
    """

    name: str
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        _check_salt(self.name, "the layer's name")
        if not 0 <= self.start < self.end <= 1:
            raise ConfigError(
                f"a layer's range goes from a lower to a higher number within 0 and 1, and not "
                f"from {self.start} to {self.end}",
                hint="layer: {name: checkout, start: 0, end: 0.5}",
            )


@dataclass(frozen=True)
class Split:
    """How units are dealt out.

    Attributes
    ----------
    salt : what makes this experiment's dealing its own; most often its name.
    arms : arm -> share of the units that take part; two or more, which sum to 1.
    exposure : the share of units that takes part; a ramp raises it.
    layer : the part of the units that is free for this experiment; None is all of them.
    exclude : ids that never take part (test accounts, staff).

    Raises
    ------
    ConfigError : where shares are not positive or do not sum to 1.
    """

    salt: str
    arms: Mapping[str, float]
    exposure: float = 1.0
    layer: Layer | None = None
    exclude: Collection[str] = ()

    def __post_init__(self) -> None:
        _check_salt(self.salt, "the salt")
        if len(self.arms) < 2:
            raise ConfigError(
                f"an experiment has two arms or more, and here is {len(self.arms)}",
                hint="arms: {control: 0.5, treatment: 0.5}",
            )
        for name, share in self.arms.items():
            if not name or not 0 < share < 1:
                raise ConfigError(
                    f"the share of arm {name!r} has to lie between 0 and 1, and is {share}",
                    hint="an arm without units is left out",
                )
        total = sum(self.arms.values())
        if abs(total - 1) > 1e-6:
            raise ConfigError(
                f"the arms' shares have to sum to 1, and sum to {total:.6g}",
                hint="`exposure` is the share of units that take part, `arms` divide those",
            )
        if not 0 <= self.exposure <= 1:
            raise ConfigError(f"the exposure has to lie within 0 and 1, and is {self.exposure}")

    @cached_property
    def ends(self) -> tuple[tuple[int, str], ...]:
        """For each arm, the bucket at which it ends and its name, in order."""
        total = sum(map(_exact, self.arms.values()))
        ends, reached = [], Fraction(0)
        for name, share in self.arms.items():
            reached += _exact(share) / total
            ends.append((round(reached * BUCKETS), name))
        return tuple(ends)

    @cached_property
    def excluded(self) -> frozenset[str]:
        return frozenset(map(unit_text, self.exclude))


@dataclass(frozen=True)
class Assignment:
    """The arm of a unit, or None and why it has none."""

    arm: str | None
    why: Why = "assigned"


def assign(unit: str | int, split: Split) -> Assignment:
    """The arm of ``unit``: the same for every call, process, machine and year.

    Raises DataError where there is no id: a unit without one cannot be kept in its arm.

    >>> split = Split("new-ranker", {"control": 0.5, "treatment": 0.5})
    >>> assign("user-17", split)
    Assignment(arm='treatment', why='assigned')
    """
    text = unit_text(unit)
    if text in split.excluded:
        return Assignment(None, "excluded")
    layer = split.layer
    if layer is not None:
        start, end = (round(_exact(x) * BUCKETS) for x in (layer.start, layer.end))
        if not start <= bucket(text, f"layer/{layer.name}") < end:
            return Assignment(None, "other layer")
    if bucket(text, f"exposure/{split.salt}") >= round(_exact(split.exposure) * BUCKETS):
        return Assignment(None, "not ramped")
    place = bucket(text, f"arm/{split.salt}")
    return Assignment(next(name for end, name in split.ends if place < end))


def bucket(unit: str, salt: str) -> int:
    """One of ``BUCKETS`` places, by the first bits of SHA-256 of salt, a zero byte and id."""
    digest = sha256(f"{salt}\0{unit}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - BUCKET_BITS)


def unit_text(unit: str | int) -> str:
    """An id as it is hashed: a whole number as its decimal digits, so 17 and "17" are one unit.

    Raises DataError where it is neither text nor a whole number, or is empty.
    """
    if isinstance(unit, str) and unit:
        return unit
    if isinstance(unit, Integral) and not isinstance(unit, bool):
        return str(int(unit))
    raise DataError(
        f"a unit's id has to be text or a whole number, and is {unit!r}",
        hint="an id that is missing cannot keep a unit in its arm: give one, or leave it out",
    )


def moves(before: Split, after: Split) -> tuple[str, ...]:
    """The arms that some of their units would leave if ``after`` took the place of ``before``.

    Empty for a ramp, which raises the exposure alone. Where of two arms one grows, it keeps its
    units, and the other is named.

    Raises ConfigError where the salts differ: then every unit is dealt out anew.
    """
    if before.salt != after.salt:
        raise ConfigError(
            f"the salt changes from {before.salt!r} to {after.salt!r}: every unit would be dealt "
            "out anew", hint="keep the salt for as long as the experiment runs",
        )
    if after.exposure < before.exposure or not _within(before.layer, after.layer):
        return tuple(before.arms)
    return tuple(
        name for name, (start, end) in _ranges(before).items()
        if name not in after.arms or not (
            _ranges(after)[name][0] <= start and end <= _ranges(after)[name][1])
    )


def _within(before: Layer | None, after: Layer | None) -> bool:
    """Whether all units of the first are in the second."""
    if after is None or before is None:
        return after is None
    return before.name == after.name and after.start <= before.start and before.end <= after.end


def _ranges(split: Split) -> dict[str, tuple[int, int]]:
    starts = [0, *(end for end, _ in split.ends)]
    return {name: (start, end) for start, (end, name) in zip(starts, split.ends, strict=False)}


def _exact(share: float) -> Fraction:
    """A share as it was written: 0.1 is a tenth."""
    return Fraction(repr(float(share)))


def _check_salt(text: str, what: str) -> None:
    if not text or "\0" in text:
        raise ConfigError(f"{what} has to be a text, and is {text!r}")
