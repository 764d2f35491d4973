"""Text to typed columns; what cannot be read is told apart row by row."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.data import timestamps
from gpupipe.data.infer import INTEGER, NUMBER, fits_int64, unsigned_plus
from gpupipe.data.schema import ARROW_TYPES, DTYPES, DType
from gpupipe.errors import ConfigError, did_you_mean

_ALIASES: dict[str, DType] = {
    "int": "int64", "integer": "int64", "float": "float64", "double": "float64",
    "number": "float64", "str": "string", "text": "string", "object": "string",
    "category": "string", "categorical": "string", "datetime": "timestamp", "date": "timestamp",
    "datetime64": "timestamp", "boolean": "bool", "int32": "int64",
}
_TRUE = pa.array(["true", "t", "yes", "y", "1"])
_FALSE = pa.array(["false", "f", "no", "n", "0"])


def pinned_type(name: str, where: str = "data.types") -> DType:
    """The logical type that a user's word means; ConfigError where it means none."""
    word = str(name).strip().lower()
    if word in DTYPES:
        return word  # type: ignore[return-value]
    if word in _ALIASES:
        return _ALIASES[word]
    near = did_you_mean(word, [*DTYPES, *_ALIASES])
    raise ConfigError(
        f"there is no type {name!r}", where=where,
        hint=(f"did you mean {near!r}? " if near else "") + "types are " + ", ".join(DTYPES),
    )


def typed_column(
    column: pa.Array, missing: pa.Array, dtype: DType, form: str | None, pinned: bool,
) -> tuple[pa.Array, pa.Array | None]:
    """A text column as ``dtype``; and, where values failed, which rows (a bool array).

    ``column`` is a string array, plain or dictionary-encoded (then only its distinct values are
    read). Missing tokens become null, and so do NaN and the values that failed.
    """
    if pa.types.is_dictionary(column.type):
        typed, bad = typed_column(column.dictionary, missing, dtype, form, pinned)
        return typed.take(column.indices), None if bad is None else bad.take(column.indices)
    absent = pc.is_in(column, missing)
    values = pc.if_else(absent, None, column) if pc.any(absent).as_py() else column
    if dtype == "string":
        return values, None
    typed = (_PINNED if pinned else _READ)[dtype](values, form or "")
    if typed.null_count > values.null_count:
        bad = pc.and_(pc.is_null(typed), pc.is_valid(values))
        typed, bad = _nan_to_null(typed), bad
        return typed, bad
    return _nan_to_null(typed), None


def _nan_to_null(typed: pa.Array) -> pa.Array:
    if pa.types.is_floating(typed.type):
        nan = pc.is_nan(typed)
        if pc.any(nan).as_py():
            return pc.if_else(nan, None, typed)
    return typed


def _bool(values: pa.Array, form: str) -> pa.Array:
    return pc.equal(pc.utf8_lower(values), "true")


def _any_bool(values: pa.Array, form: str) -> pa.Array:
    word = pc.utf8_lower(values)
    yes, no = pc.is_in(word, _TRUE), pc.is_in(word, _FALSE)
    return pc.if_else(pc.or_(yes, no), yes, None)


def _number(values: pa.Array, dtype: DType) -> pa.Array:
    """Where every value is a number this is one cast; else the others become null."""
    if dtype != "int64":
        floats = timestamps.cast_all(values, pa.float64())
        if floats is not None:
            return floats.cast(ARROW_TYPES[dtype], safe=False)
    pattern = INTEGER if dtype == "int64" else NUMBER
    values = pc.if_else(pc.match_substring_regex(values, pattern), values, None)
    if dtype == "int64":
        values = unsigned_plus(values)
        digits = pc.replace_substring_regex(values, r"^(-?)0+(\d)", r"\1\2")
        return pc.if_else(fits_int64(digits), digits, None).cast(pa.int64())
    return values.cast(pa.float64()).cast(ARROW_TYPES[dtype], safe=False)


def _int(values: pa.Array, form: str) -> pa.Array:
    integers = timestamps.cast_all(values, pa.int64())
    # Arrow reads 0x1F too; digits in, the same digits out, or the slow way.
    if integers is not None and pc.all(pc.equal(integers.cast(pa.string()), values)).as_py():
        return integers
    return _number(values, "int64")


def _pinned_int(values: pa.Array, form: str) -> pa.Array:
    return _int(pc.replace_substring_regex(values, r"^([+-]?\d+)\.0*$", r"\1"), form)


def _float(values: pa.Array, form: str) -> pa.Array:
    return _number(values, "float64")


def _float32(values: pa.Array, form: str) -> pa.Array:
    return _number(values, "float32")


def _timestamp(values: pa.Array, form: str) -> pa.Array:
    if form == "iso":
        plain = timestamps.iso_fast(values)
        if plain is not None:
            return plain[0]
    return timestamps.parse(values, form)[0]


def _any_timestamp(values: pa.Array, form: str) -> pa.Array:
    """A pinned timestamp column: the column's form, or each value by the first form it is in."""
    if form:
        return _timestamp(values, form)
    plain = timestamps.iso_fast(values)
    if plain is not None:
        return plain[0]
    unclear = ("month/day", "day/month")
    found = [timestamps.parse(values, form)[0] for form in timestamps.FORMS if form not in unclear]
    return pc.coalesce(*found)


_Reader = Callable[[pa.Array, str], pa.Array]
_READ: dict[str, _Reader] = {
    "bool": _bool, "int64": _int, "float64": _float, "float32": _float32,
    "timestamp": _timestamp,
}
_PINNED: dict[str, _Reader] = {
    **_READ, "bool": _any_bool, "int64": _pinned_int, "timestamp": _any_timestamp,
}
