"""The verbs of the frame layer against pandas, for every type, with and without missing values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from common.harness import as_dataset, schema_of

from gpupipe.engine.frames import CALENDAR_PARTS, MISSING, UNKNOWN, Column
from gpupipe.engine.pandas import PandasFrames

FX = PandasFrames()
VALUES = {
    "float64": pa.array([1.5, None, -0.0, 0.0, float("inf"), float("nan"), 1.5]),
    "float32": pa.array([1.5, None, -0.0, 0.0, float("inf"), float("nan"), 0.1], pa.float32()),
    "int64": pa.array([3, None, 2**53 + 1, -7, 0, 3, 3]),
    "bool": pa.array([True, None, False, False, True, None, True]),
    "string": pa.array(["b", None, "", "a", "b", None, "漢字"]),
    "timestamp": pa.array([0, None, -1, 10**15, 0, None, 86_400_000_000], pa.timestamp("us")),
}
each_type = pytest.mark.parametrize("dtype", list(VALUES))


def column_of(array: pa.Array | pa.ChunkedArray) -> Column:
    """The column as a batch of a dataset hands it out."""
    table = pa.table({"x": array})
    (piece,) = as_dataset(table).stream()
    return FX.column(FX.frame(piece), "x", schema_of(table)["x"].dtype)


def plain(dtype: str) -> list:
    """What a column holds for us: NaN and infinity are missing, both zeros one value."""
    values = VALUES[dtype].cast(pa.int64()) if dtype == "timestamp" else VALUES[dtype]
    if dtype in ("float32", "float64"):
        return [v + 0.0 if v is not None and np.isfinite(v) else None for v in values.to_pylist()]
    return values.to_pylist()


@each_type
def test_a_column_is_arrays_of_the_promised_type(dtype):
    column = column_of(VALUES[dtype])
    kinds = {"string": "int32", "timestamp": "int64"}
    assert column.dtype == dtype
    assert column.values.dtype == kinds.get(dtype, dtype)
    assert len(column) == 7
    assert (column.levels is not None) == (dtype == "string")


@each_type
def test_is_missing_is_pandas_isna(dtype):
    expected = pd.isna(VALUES[dtype].to_pandas(integer_object_nulls=True))
    np.testing.assert_array_equal(FX.is_missing(column_of(VALUES[dtype])), expected)


@each_type
def test_without_a_missing_value_there_is_no_mask(dtype):
    column = column_of(VALUES[dtype].drop_null())
    assert column.missing is None
    if dtype not in ("float64", "float32"):
        assert not FX.is_missing(column).any()


@pytest.mark.parametrize("dtype", [d for d in VALUES if d != "string"])
def test_numbers_are_float64_with_nan_for_missing_and_infinite(dtype):
    found = FX.numbers(column_of(VALUES[dtype]))
    assert found.dtype == np.float64
    expected = [np.nan if v is None else float(v) for v in plain(dtype)]
    np.testing.assert_array_equal(found, expected)


@each_type
def test_factorize_gives_each_value_one_code_and_missing_none(dtype):
    codes, levels = FX.factorize(column_of(VALUES[dtype]))
    found = [None if c == MISSING else levels[int(c)].as_py() for c in codes]
    assert found == plain(dtype)
    assert len(levels.unique()) == len(levels)
    reference = pd.factorize(pd.Series(plain(dtype), dtype=object))[0]
    pairs = set(zip(codes.tolist(), reference.tolist(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@each_type
def test_lookup_finds_places_unknowns_and_missing(dtype):
    values = plain(dtype)
    known = list(dict.fromkeys(v for v in values if v is not None))[:2][::-1]
    kind = pa.string() if dtype == "string" else None
    found = FX.lookup(column_of(VALUES[dtype]), pa.array(known, kind))
    expected = [MISSING if v is None else known.index(v) if v in known else UNKNOWN
                for v in values]
    assert found.tolist() == expected


@each_type
def test_equal_values_have_equal_hashes_and_others_do_not(dtype):
    column = column_of(VALUES[dtype])
    hashed = FX.hash64(column).tolist()
    assert FX.hash64(column).dtype == np.uint64
    values = [None if v is None or v != v else v for v in VALUES[dtype].to_pylist()]
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            assert (hashed[i] == hashed[j]) == (a == b)


@pytest.mark.parametrize("part", CALENDAR_PARTS)
def test_calendar_is_pandas_dt(part):
    times = pd.Series(pd.to_datetime(["1969-07-20 20:17:40", "2000-02-29 00:00:00",
                                      "2024-12-31 23:59:59"]))
    found = FX.calendar(column_of(pa.Array.from_pandas(times)), part)
    assert found.dtype == "int64"
    assert found.values.tolist() == getattr(times.dt, part).tolist()


def test_calendar_keeps_what_is_missing():
    found = FX.calendar(column_of(VALUES["timestamp"]), "year")
    assert FX.is_missing(found).tolist() == [False, True, False, False, False, True, False]


@each_type
def test_every_verb_takes_an_empty_and_an_all_null_column(dtype):
    kind = VALUES[dtype].type
    column = column_of(pa.nulls(3, kind))
    assert FX.is_missing(column).all()
    assert (FX.lookup(column, pa.array(plain(dtype)).drop_null().unique()) == MISSING).all()
    assert len(set(FX.hash64(column).tolist())) == 1
    codes, _ = FX.factorize(column)
    assert (codes == MISSING).all()


def encoded(codes: list, words: list, index: pa.DataType) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, index), pa.array(words))


@pytest.mark.parametrize(("array", "expected"), [
    (encoded([0, 1, None], ["a", "b"], pa.uint8()), ["a", "b", None]),
    (encoded([0, 1, None], ["a", "b"], pa.int8()), ["a", "b", None]),
    (encoded([0, 1, 2], ["a", "a", "b"], pa.int32()), ["a", "a", "b"]),
    (encoded([0, 1, 2], ["a", None, "b"], pa.int32()), ["a", None, "b"]),
    (pa.chunked_array([encoded([0, 1], ["a", "b"], pa.int32()),
                       encoded([0, 1], ["c", "a"], pa.int32())]), ["a", "b", "c", "a"]),
    (pa.array(["a", None], pa.large_string()), ["a", None]),
    (pa.array(["a", None], pa.string_view()), ["a", None]),
])
def test_text_in_any_encoding_is_codes_into_distinct_levels(array, expected):
    column = column_of(array)
    levels = column.levels.to_pylist()
    assert column.values.dtype == np.int32
    assert len(set(levels)) == len(levels)
    assert None not in levels
    assert [None if c < 0 else levels[c] for c in column.values] == expected
