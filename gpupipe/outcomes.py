"""What the pipeline file says about targets that are no plain values: times with an event."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from gpupipe.config import PipelineConfig
from gpupipe.data.outcomes import seen_label, timed
from gpupipe.errors import DataError
from gpupipe.models.objectives import SPECIAL
from gpupipe.steps import Target
from gpupipe.steps.profile import Profile


def special_task(config: PipelineConfig) -> str | None:
    """The task that an event column, or the model's objective, makes of the target.

    None for a plain target. Raises ConfigError where one lacks the other.
    """
    objective = config.model.params.get("objective")
    task = SPECIAL.get(objective) if isinstance(objective, str) else None
    if config.data.event is None:
        if task is not None:
            raise config.fault(
                ("model",), f"objective {objective!r} needs to know which times are censored",
                "set data.event to the column that says whether the event was seen")
        return None
    return task or "survival"


def check_special(config: PipelineConfig, target: Target) -> None:
    """ConfigError for what a pipeline file asks and such a task does not have."""
    if special_task(config) is None:
        return
    asked = {
        "select": bool(config.select.methods), "calibrate": config.calibrate.method != "none",
        "intervals": config.intervals.coverage is not None,
        "ensemble": config.ensemble.kind in ("blend", "stack"),
    }
    for section, given in asked.items():
        if given:
            raise config.fault((section,), f"{section} is not for {target.task} targets",
                               "leave the section out")


def survival_targets(
    config: PipelineConfig, profile: Profile, times: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The times of each part's rows, negative where they are censored (see `data.outcomes`).

    Raises ConfigError for an event column that does not say which is which, DataError where a
    row with a time has no event, and for times that cannot be.
    """
    seen = _seen(config, profile)
    events = [_events(f.event, seen) for f in profile.facts if f.event is not None]
    together = signed(np.concatenate(times), np.concatenate(events), str(config.data.target),
                      str(config.data.event))
    if not (together > 0).any():
        raise DataError(f"event {config.data.event!r}: it was seen in no row that has a time",
                        hint="there is nothing to learn from times that are all censored")
    return np.split(together, np.cumsum([len(t) for t in times])[:-1])


def event_of(config: PipelineConfig, profile: Profile) -> dict[str, str] | None:
    """What a bundle keeps of the event: its column, its type, and the label that means seen."""
    column = config.data.event
    if column is None:
        return None
    return {"column": column, "dtype": profile.schema[column].dtype,
            "seen": _seen(config, profile)}


def _seen(config: PipelineConfig, profile: Profile) -> str:
    """The event's label that says that it was seen."""
    positive = None if config.data.positive is None else event_label(config.data.positive)
    pairs = [f.event for f in profile.facts if f.event is not None]
    labels = sorted({event_label(levels[int(at)].as_py()) for codes, levels in pairs
                     for at in np.unique(codes[codes >= 0])})
    try:
        return seen_label(labels, positive)
    except ValueError as error:
        message, hint = error.args
        raise config.fault(("data", "event"), f"event {config.data.event!r} {message}",
                           hint) from None


def _events(coded: tuple[np.ndarray, pa.Array], seen: str) -> np.ndarray:
    """1 where the event was seen, 0 where not, -1 where that is missing; int8 ``[n]``."""
    codes, levels = coded
    table = [int(event_label(v) == seen) for v in levels.to_pylist()]
    return np.array([*table, -1], np.int8)[codes]


def signed_column(time: pa.ChunkedArray, event: pa.ChunkedArray, names: tuple[str, str],
                  seen: str) -> np.ndarray:
    """The same of columns of a table to judge by: NaN where there is no time."""
    encoded = event.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    labels = [event_label(v) for v in encoded.dictionary.to_pylist()]
    if len({*labels, seen}) > 2:
        raise DataError(f"event {names[1]!r} has {len(labels):,} values, such as "
                        f"{' and '.join(map(repr, labels[:5]))}; it was seen where it is {seen!r}",
                        hint="an event was seen or was not: two values")
    return signed(time.cast(pa.float64()).to_numpy(), _events((codes, encoded.dictionary), seen),
                  *names)


def signed(time: np.ndarray, event: np.ndarray, target: str, column: str) -> np.ndarray:
    """Times, negative where they are censored; DataError where that is not known of a time."""
    time = np.where(np.isfinite(time), time, np.nan)
    lacking = int(((event < 0) & np.isfinite(time)).sum())
    if lacking:
        raise DataError(f"event {column!r} is missing in {lacking:,} rows that have a time",
                        hint="whether it was seen by then must be known: drop those rows")
    return timed(time, event == 1, target)


def event_label(value: object) -> str:
    """An event's label as text; whole numbers are written without a fraction."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
