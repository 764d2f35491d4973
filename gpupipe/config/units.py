"""Durations and sizes as people write them: "7d", "12h", "2GiB"."""

from __future__ import annotations

import re

_MICROSECONDS = {
    "us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "min": 60_000_000,
    "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000,
}
_BYTES: dict[str, int] = {"b": 1} | {
    prefix + suffix: base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024), ("", 1024))
}


def microseconds_of(duration: str) -> int:
    """The microseconds in a duration such as "7d", "12h", "30m", "1.5s".

    Raises ValueError (message, hint) where it is not one.
    """
    number, unit = _split(duration)
    if unit not in _MICROSECONDS:
        raise ValueError(
            f"{duration!r} is not a duration",
            "write a number and one of us, ms, s, m, h, d, w: 7d, 12h, 30m",
        )
    return round(number * _MICROSECONDS[unit])


def bytes_of(size: str) -> int:
    """The bytes in a size such as "2GiB", "500MB", "64k".

    Raises ValueError (message, hint) where it is not one.
    """
    number, unit = _split(size)
    if unit.lower() not in _BYTES or number <= 0:
        raise ValueError(f"{size!r} is not a size of memory", "write it like 2GiB or 500MB")
    return round(number * _BYTES[unit.lower()])


def _split(text: str) -> tuple[float, str]:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", text)
    return (float(match[1]), match[2]) if match else (0.0, "")
