"""What the steps on two columns do."""

from __future__ import annotations

import numpy as np

from gpupipe.engine.frames import Column, Frames
from gpupipe.stats.state import Rows
from gpupipe.transforms.base import Output, Params, Settings, transform_of_two

LARGEST = float(np.finfo(np.float32).max)
"""The largest feature that a model takes."""


@transform_of_two("ratio")
def ratio(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames,
    other: Column,
) -> tuple[Output, ...]:
    """``a / b``; missing where that is no number, or too large for a model."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        values = fx.numbers(column) / fx.numbers(other)
    return (Column("float64", fx.xp.where(fx.xp.abs(values) <= LARGEST, values, fx.xp.nan)),)
