"""Dates by integer arithmetic are pandas' dates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from gpupipe.engine.calendar import DAY, calendar_part
from gpupipe.engine.frames import CALENDAR_PARTS

EDGES = pd.to_datetime([
    "0001-01-01", "1582-10-15", "1600-02-29", "1699-12-31", "1900-02-28 23:59:59.999999",
    "1900-03-01", "1969-12-31 23:59:59.999999", "1970-01-01", "2000-02-29", "2000-12-31",
    "2024-12-31 12:34:56", "2100-03-01", "9999-12-31 23:59:59",
], format="ISO8601").to_numpy().astype("datetime64[us]").astype("int64")


@pytest.mark.parametrize("part", CALENDAR_PARTS)
def test_every_part_is_that_of_pandas(part):
    rng = np.random.default_rng(0)
    every_day = np.arange(-1_200_000, 200_000) * DAY + 1  # of the years -1316 to 2517
    ticks = np.concatenate([EDGES, rng.integers(-10**17, 10**17, 100_000), every_day])
    expected = getattr(pd.Series(ticks.view("datetime64[us]")).dt, part)
    found = calendar_part(ticks, part, np)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)
