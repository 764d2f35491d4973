"""Casts and calendars."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from common.harness import BINARY, Sample, learned, make, values_of

from gpupipe.engine.frames import CALENDAR_PARTS
from gpupipe.errors import ConfigError, DataError
from gpupipe.steps import Feature
from gpupipe.steps.graph import bind


def transformed(table: pa.Table, name: str, **config) -> dict[str, np.ndarray]:
    n = table.num_rows
    sample = Sample(table, np.zeros(n, np.int64), np.zeros(n, np.uint8), 1)
    graph, fitted, knowledge = learned(sample, [make(name, **config)])
    assert knowledge.scans == []
    return values_of(graph, fitted, table)


TIMES = pd.Series(pd.to_datetime([
    "1969-12-31 23:59:59.999999", "1970-01-01", "1900-02-28 12:30:15", "1900-03-01",
    "2000-02-29 23:00:01", "2024-02-29", "2023-12-31 23:59:59", "1582-10-15", "2262-04-11",
    None, "2016-12-31 00:00:00.000001",
], format="ISO8601")).astype("datetime64[us]")


@pytest.mark.parametrize("part", CALENDAR_PARTS)
def test_calendar_parts_are_those_of_pandas_in_any_century(part):
    rng = np.random.default_rng(0)
    ticks = pd.Series(rng.integers(-(6 * 10**16), 2 * 10**17, 2000).view("datetime64[us]"))
    times = pd.concat([TIMES, ticks], ignore_index=True)
    out = transformed(pa.table({"t": pa.Array.from_pandas(times)}), "datetime", parts=[part])
    np.testing.assert_array_equal(out[f"t_{part}"], getattr(times.dt, part).to_numpy(float))


def test_the_timestamp_part_is_seconds_since_1970():
    out = transformed(pa.table({"t": pa.Array.from_pandas(TIMES)}), "datetime", parts=["timestamp"])
    ticks = TIMES.to_numpy().view("int64") / 1e6
    np.testing.assert_array_equal(out["t_timestamp"], np.where(TIMES.isna(), np.nan, ticks))


def test_a_time_zone_is_taken_to_utc_first():
    aware = pd.Series(pd.to_datetime(["2024-03-31 00:30", "2024-03-31 03:30"])).dt.tz_localize(
        "Europe/Rome")
    table = pa.table({"t": pa.Array.from_pandas(aware)})
    out = transformed(table, "datetime", parts=["day", "hour"])
    utc = aware.dt.tz_convert("UTC").dt
    assert out["t_day"].tolist() == utc.day.tolist()
    assert out["t_hour"].tolist() == utc.hour.tolist()


def test_cyclic_parts_lie_on_the_unit_circle_and_neighbours_are_near():
    days = pd.Series(pd.date_range("2023-01-01", "2024-12-31", freq="7h")).astype("datetime64[us]")
    out = transformed(pa.table({"t": pa.Array.from_pandas(days)}), "datetime", cyclic=True,
                      parts=["month", "hour", "year"])
    for part in ("month", "hour"):
        np.testing.assert_allclose(out[f"t_{part}_sin"] ** 2 + out[f"t_{part}_cos"] ** 2, 1)
    months = days.dt.month.to_numpy()
    point = {m: (out["t_month_sin"][months == m][0], out["t_month_cos"][months == m][0])
             for m in range(1, 13)}
    steps = [np.hypot(*np.subtract(point[m], point[m % 12 + 1])) for m in range(1, 13)]
    np.testing.assert_allclose(steps, steps[0])
    assert "t_year" in out


@pytest.mark.parametrize(("values", "to", "expected"), [
    (["1.5", None, "-2e3", "nan"], "float64", [1.5, np.nan, -2000, np.nan]),
    (["7", "-3", None], "int64", [7, -3, np.nan]),
    (["true", "0", "False", None], "bool", [1, 0, 0, np.nan]),
    ([1, None, 30], "string", ["1", None, "30"]),
    ([True, None, False], "string", ["true", None, "false"]),
    ([1.5, None, 2.0, np.inf], "string", ["1.5", None, "2", None]),
    ([0, 5, None], "bool", [0, 1, np.nan]),
    ([0.0, 0.5, np.nan], "bool", [0, 1, np.nan]),
    ([True, False, None], "int64", [1, 0, np.nan]),
    ([3.0, np.nan, -4.0], "int64", [3, np.nan, -4]),
    ([None, None], "float64", [np.nan, np.nan]),
])
def test_cast_changes_the_type_and_keeps_what_is_missing(values, to, expected):
    kind = pa.string() if values == [None, None] else None
    out = transformed(pa.table({"c": pa.array(values, kind)}), "cast", to=to)["c"]
    np.testing.assert_array_equal(out, np.array(expected, object if to == "string" else float))


def test_cast_keeps_every_digit_of_a_large_integer():
    big = [2**53 + 1, 2**62 + 1, -(2**63)]
    for column in (pa.array(big), pa.array([str(b) for b in big])):
        n = len(big)
        sample = Sample(pa.table({"c": column}), np.zeros(n, np.int64), np.zeros(n, np.uint8), 1)
        chain = [make("cast", columns="c", to="int64"), make("cast", columns="c", to="string")]
        graph, fitted, _ = learned(sample, chain)
        assert values_of(graph, fitted, sample.table)["c"].tolist() == [str(b) for b in big]


@pytest.mark.parametrize(("values", "to"), [
    (["1", "x"], "float64"), (["1.5"], "int64"), ([1.5, 2.0], "int64"), (["maybe"], "bool"),
])
def test_cast_refuses_what_would_be_lost(values, to):
    with pytest.raises(DataError, match="step 'cast'"):
        transformed(pa.table({"c": values}), "cast", to=to)


@pytest.mark.parametrize("to", ["string", "bool"])
def test_cast_refuses_a_timestamp_as_text(to):
    with pytest.raises(ConfigError, match="timestamp 't'"):
        bind([Feature("t", "timestamp")], [make("cast", columns="t", to=to)], BINARY)


def test_a_timestamp_casts_to_microseconds():
    out = transformed(pa.table({"t": pa.array([5, None], pa.timestamp("us"))}), "cast", to="int64")
    np.testing.assert_array_equal(out["t"], [5, np.nan])
