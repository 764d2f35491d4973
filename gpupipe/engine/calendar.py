"""A timestamp taken apart by integer arithmetic, for array libraries that have no dates.

cuDF has the fields of pandas' ``.dt``, but not all of them (``day_of_week`` is not
implemented), and years of 16 bits. Source of the day arithmetic: H. Hinnant,
"chrono-Compatible Low-Level Date Algorithms", civil_from_days.
"""

from __future__ import annotations

from typing import Any

Array = Any

SECOND = 1_000_000
DAY = 86_400 * SECOND
CLOCK = {"hour": (3_600 * SECOND, 24), "minute": (60 * SECOND, 60), "second": (SECOND, 60)}
"""A unit's microseconds, and how many of it there are before it begins again."""


def calendar_part(ticks: Array, part: str, xp: Any) -> Array:
    """A part (`frames.CALENDAR_PARTS`) of microseconds since 1970: int64 ``[n]``, as pandas'.

    ``ticks`` is int64. Division rounds down, so that it holds before 1970 as well.
    """
    if part in CLOCK:
        unit, period = CLOCK[part]
        return ticks // unit % period
    days = ticks // DAY
    if part == "day_of_week":
        return (days + 3) % 7  # 1970 began on a Thursday, and a week on Monday
    year, month, day = _date(days, xp)
    if part == "day_of_year":
        return days - _days_before(year) + 1
    parts = {"year": year, "quarter": (month + 2) // 3, "month": month, "day": day}
    return parts[part]


def _date(days: Array, xp: Any) -> tuple[Array, Array, Array]:
    """Year, month and day of days since 1970, each int64."""
    shifted = days + 719_468  # the era's years begin in March, so leap days come last
    era = shifted // 146_097
    of_era = shifted - era * 146_097
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    march_month = (5 * of_year + 2) // 153
    day = of_year - (153 * march_month + 2) // 5 + 1
    month = xp.where(march_month < 10, march_month + 3, march_month - 9)
    return year_of_era + era * 400 + (month <= 2), month, day


def _days_before(year: Array) -> Array:
    """Days from 1970 to the first of January."""
    past = year - 1
    return past * 365 + past // 4 - past // 100 + past // 400 - 719_162
