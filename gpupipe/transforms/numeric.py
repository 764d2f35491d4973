"""What the steps on numbers do: impute, scale, clip, log and bin."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gpupipe.engine.frames import Column, Frames
from gpupipe.stats.state import Rows
from gpupipe.transforms.base import (
    FLAG,
    VALUE,
    Output,
    Params,
    Settings,
    number,
    one_of,
    transform,
    whole,
)


@transform("impute", strategy=one_of("mean", "median", "most_frequent", "constant"),
           fill_value=VALUE, indicator=FLAG)
def impute(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """Missing values become ``fill``; with ``indicator`` a second column says which they were."""
    fill = params["fill"]
    if column.dtype == "string":
        missing = fx.is_missing(column)
        levels = column.levels
        assert levels is not None
        at = levels.index(fill or "").as_py()
        # A missing code is -1, and so takes the last entry: the fill value's own code.
        table = np.append(np.arange(len(levels)), at if at >= 0 else len(levels))
        if at < 0:
            levels = pa.concat_arrays([levels, pa.array([fill or ""], pa.string())])
        codes = fx.to_device(table.astype(np.int32))[column.values]
        filled = Column("string", codes, None, levels)
    else:
        values = fx.numbers(column)
        missing = fx.xp.isnan(values)
        filled = Column("float64", fx.xp.where(missing, fill or 0.0, values))
    if not settings.get("indicator"):
        return (filled,)
    return filled, Column("float64", missing.astype("float64"))


@transform("scale", method=one_of("standard", "min_max", "robust"))
def scale(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """``(x - centre) / spread``."""
    return (Column("float64", (fx.numbers(column) - params["centre"]) / params["spread"]),)


@transform("clip", by=one_of("quantile", "value"), lower=number(-np.inf, None),
           upper=number(-np.inf, None))
def clip(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """Values held within ``lower`` and ``upper``; None leaves that side open."""
    values = fx.numbers(column)
    if params["lower"] is not None or params["upper"] is not None:
        values = fx.xp.clip(values, params["lower"], params["upper"])
    return (Column("float64", values),)


@transform("log")
def log(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """``sign(x) * log(1 + |x|)``."""
    values = fx.numbers(column)
    size = fx.on_host(np.log1p, fx.xp.abs(values))
    return (Column("float64", fx.xp.sign(values) * size),)


@transform("bin", strategy=one_of("quantile", "uniform"), bins=whole(2, 65_535))
def bin_(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """The number of the interval between ``edges`` that a value falls into."""
    values = fx.numbers(column)
    missing = fx.xp.isnan(values)
    codes = fx.xp.searchsorted(fx.to_device(params["edges"]), values, side="right")
    codes = fx.xp.where(missing, 0, codes).astype("int64")
    return (Column("int64", codes, missing if bool(missing.any()) else None),)
