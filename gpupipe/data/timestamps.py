"""Dates and times from text: ISO 8601 and a few written-down common forms, on whole columns."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_TIME = (
    r"(?:[Tt ] *(?P<H>\d{1,2})(?::(?P<M>\d{2})(?::(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?)?"
    r" ?(?P<p>[AaPp][Mm])? ?(?P<z>[Zz]|[+-]\d{2}(?::?\d{2})?)?)?$"
)
_YEAR = r"(?P<y>\d{4}|\d{2})"

FORMS: dict[str, str] = {
    "iso": r"^(?P<y>\d{4})[-/](?P<m>\d{1,2})[-/](?P<d>\d{1,2})" + _TIME,
    "dotted": r"^(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})" + _TIME,
    "month name first": r"^(?P<b>[A-Za-z]{3,9})\.? +(?P<d>\d{1,2}),? +" + _YEAR + _TIME,
    "day, month name": r"^(?P<d>\d{1,2})[- ]+(?P<b>[A-Za-z]{3,9})\.?,?[- ]+" + _YEAR + _TIME,
    "month/day": r"^(?P<m>\d{1,2})[-/](?P<d>\d{1,2})[-/]" + _YEAR + _TIME,
    "day/month": r"^(?P<d>\d{1,2})[-/](?P<m>\d{1,2})[-/]" + _YEAR + _TIME,
}
"""The forms that are understood; a column must be in one of them throughout."""

_MONTHS = ["january", "february", "march", "april", "may", "june", "july", "august",
           "september", "october", "november", "december"]
_NAMES = pa.array([m[:3] for m in _MONTHS] + _MONTHS + ["sept"])
_NAME_MONTH = pa.array([*range(1, 13), *range(1, 13), 9], pa.int64())
_DAYS = pa.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], pa.int64())
_SECOND = 1_000_000
_US, _UTC = pa.timestamp("us"), pa.timestamp("us", "UTC")


def cast_all(values: pa.Array, arrow: pa.DataType) -> pa.Array | None:
    """The values cast, or None where one of them cannot be.

    The first few are tried alone: a cast that fails makes an error message for each value.
    """
    try:
        values.slice(0, 64).cast(arrow)
        return values.cast(arrow)
    except pa.ArrowInvalid:
        return None


def iso_fast(values: pa.Array) -> tuple[pa.Array, bool] | None:
    """All values as ``timestamp[us]`` in UTC and whether they had offsets; None if not plain."""
    for arrow, aware in ((_US, False), (_UTC, True)):
        stamps = cast_all(values, arrow)
        if stamps is not None:
            return stamps.cast(_US), aware
    return None


def parse(values: pa.Array, form: str) -> tuple[pa.Array, pa.Array]:
    """Microseconds since 1970 in UTC (null where ``values`` is not in ``form``), and awareness.

    Two-digit years follow POSIX: 69..99 are 1969..1999, 00..68 are 2000..2068. Digits of a
    second past the sixth are cut. The second array says which values had an offset.
    """
    parts = pc.extract_regex(values, FORMS[form])
    named = {parts.type.field(i).name for i in range(parts.type.num_fields)}

    def text(key: str) -> pa.Array:
        return pc.struct_field(parts, key)

    def number(key: str) -> pa.Array:
        column = text(key)
        return pc.if_else(pc.equal(column, ""), "0", column).cast(pa.int64())

    year = number("y")
    short = pc.equal(pc.binary_length(text("y")), 2)
    century = pc.if_else(pc.less(year, 69), 2000, 1900)
    year = pc.if_else(short, pc.add(year, century), year)
    if "b" in named:
        month = pc.take(_NAME_MONTH, pc.index_in(pc.utf8_lower(text("b")), _NAMES))
    else:
        month = number("m")
    month = pc.if_else(pc.and_(pc.greater_equal(month, 1), pc.less_equal(month, 12)), month, None)
    year = pc.if_else(pc.greater_equal(year, 1), year, None)
    day, hour, minute, second = (number(k) for k in "dHMS")
    leap = pc.and_(
        pc.equal(_modulo(year, 4), 0),
        pc.or_(pc.not_equal(_modulo(year, 100), 0), pc.equal(_modulo(year, 400), 0)),
    )
    length = pc.take(_DAYS, pc.subtract(month, 1))
    length = pc.if_else(pc.and_(pc.equal(month, 2), leap), 29, length)
    half = pc.utf8_lower(text("p"))
    twelve = pc.not_equal(half, "")
    hour_ok = pc.if_else(
        twelve, pc.and_(pc.greater_equal(hour, 1), pc.less_equal(hour, 12)),
        pc.less_equal(hour, 23),
    )
    hour = pc.if_else(twelve, pc.add(_modulo(hour, 12), pc.if_else(pc.equal(half, "pm"), 12, 0)),
                      hour)
    offset, offset_ok = _offset(text("z"))
    ok = pc.and_(pc.greater_equal(day, 1), pc.less_equal(day, length))
    for check in (hour_ok, offset_ok, pc.less_equal(minute, 59), pc.less_equal(second, 59)):
        ok = pc.and_(ok, check)
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(text("f"), 6, "0"), 0, 6).cast(pa.int64())
    seconds = pc.add(pc.add(pc.multiply(hour, 3600), pc.multiply(minute, 60)), second)
    seconds = pc.add(pc.subtract(seconds, offset), pc.multiply(_day_number(year, month, day),
                                                               86_400))
    ticks = pc.add(pc.multiply(seconds, _SECOND), fraction)
    stamps = pc.if_else(pc.fill_null(ok, False), ticks, None).cast(_US)
    return stamps, pc.not_equal(text("z"), "")


def _modulo(a: pa.Array, b: int) -> pa.Array:
    return pc.subtract(a, pc.multiply(pc.divide(a, b), b))  # for a >= 0


def _offset(zone: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Seconds east of UTC of ``""``, ``Z``, ``+hh``, ``+hhmm`` or ``+hh:mm``, and validity."""
    digits = pc.utf8_rpad(pc.replace_substring_regex(zone, r"[^0-9]", ""), 4, "0")
    hours = pc.utf8_slice_codeunits(digits, 0, 2).cast(pa.int64())
    minutes = pc.utf8_slice_codeunits(digits, 2, 4).cast(pa.int64())
    east = pc.add(pc.multiply(hours, 3600), pc.multiply(minutes, 60))
    signed = pc.if_else(pc.starts_with(zone, "-"), pc.negate(east), east)
    return signed, pc.and_(pc.less_equal(hours, 23), pc.less_equal(minutes, 59))


def _day_number(year: pa.Array, month: pa.Array, day: pa.Array) -> pa.Array:
    """Days since 1970-01-01 in the proleptic Gregorian calendar.

    Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil.
    """
    shifted = pc.less_equal(month, 2)
    y = pc.if_else(shifted, pc.subtract(year, 1), year)
    era = pc.divide(y, 400)
    yoe = pc.subtract(y, pc.multiply(era, 400))
    m = pc.add(month, pc.if_else(shifted, 9, -3))
    doy = pc.add(pc.divide(pc.add(pc.multiply(m, 153), 2), 5), pc.subtract(day, 1))
    doe = pc.add(pc.subtract(pc.add(pc.multiply(yoe, 365), pc.divide(yoe, 4)),
                             pc.divide(yoe, 100)), doy)
    return pc.subtract(pc.add(pc.multiply(era, 146_097), doe), 719_468)
