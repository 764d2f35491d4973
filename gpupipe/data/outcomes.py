"""Targets that say two things of a row, as one float64: they travel as any other target does.

- **survival**: the time, negative where the row is censored (its event had not come by then).
  It is the convention of XGBoost's ``survival:cox``. A row that is censored at 0 has -0.0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpupipe.engine.arrays import Array, namespace
from gpupipe.errors import DataError

SURVIVAL = ("survival", "hazard")
"""Tasks of a time and whether its event was seen: predicted is the time, or the relative risk."""
SEEN, CENSORED = ("1", "true", "yes"), ("0", "false", "no")
"""Values of an event column that need no explanation, in any case of letters."""


def timed(time: np.ndarray, seen: np.ndarray, name: str) -> np.ndarray:
    """Times, negative where ``seen`` is not: float64 ``[n]``, NaN where the time is missing.

    Parameters
    ----------
    time, seen : float64 and bool ``[n]``.
    name : the column of times, for errors.

    Raises DataError for a negative time, and for an event at time 0: it has no logarithm, and
    no time in which anybody was at risk of it.
    """
    wrong = int((time < 0).sum())
    if wrong:
        raise DataError(f"the times in {name!r} are negative in {wrong:,} rows",
                        hint="a time is counted from the row's own start: at least 0")
    wrong = int(((time == 0) & seen).sum())
    if wrong:
        raise DataError(f"{wrong:,} rows have their event at time 0 of {name!r}", hint="drop "
                        "them, or give them a part of the unit: half a day where days are counted")
    return np.where(seen, time, -time)


def time_of(y: Array) -> Array:
    """The times, float64 ``[n]``."""
    return abs(y)


def seen_of(y: Array) -> Array:
    """Whether the event was seen, bool ``[n]``."""
    return ~namespace(y).signbit(y)


def seen_label(labels: Sequence[str], positive: str | None) -> str:
    """Which of an event column's labels says that the event was seen.

    ``positive`` names it; without it the labels must be 1 and 0, true and false, or yes and no.
    Raises ValueError(message, hint) where that is not clear, or there are more than two.
    """
    told = " and ".join(map(repr, labels[:5]))
    if not labels:
        raise ValueError("has no value in any row", "name another column")
    if len(labels) > 2:
        raise ValueError(f"has {len(labels):,} values, such as {told}; an event was seen or was "
                         "not", "name a column of two values")
    if positive is not None:
        if positive not in labels:
            raise ValueError(f"has no label {positive!r}; it has {told}",
                             "data.positive is the label that says that the event was seen")
        return positive
    seen = [v for v in labels if v.lower() in SEEN]
    if len(seen) + sum(v.lower() in CENSORED for v in labels) < len(labels) or len(seen) > 1:
        raise ValueError(f"has the labels {told}: which of them says that the event was seen?",
                         "set data.positive to it")
    if not seen:
        raise ValueError(f"has the label {told} alone: the event was seen in no row",
                         "there is nothing to learn from times that are all censored")
    return seen[0]
