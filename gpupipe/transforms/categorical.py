"""What the steps on categories do: one_hot, ordinal, count, hash and target_encode.

A level that training never saw has code -2 (`engine.frames.UNKNOWN`), a missing value -1; tables
with a row a level have that of the unknown and that of the missing at their end.
"""

from __future__ import annotations

import numpy as np

from gpupipe.engine.frames import Array, Block, Column, Frames
from gpupipe.stats.state import Rows
from gpupipe.transforms.base import FLAG, Output, Params, Settings, number, transform, whole


@transform("one_hot", max_levels=whole(1, 10_000), min_frequency=whole(1))
def one_hot(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """A 0/1 column for each of ``names``: the levels, the other ones, the missing ones."""
    levels, names = params["levels"], params["names"]
    codes = fx.lookup(column, levels)
    xp, k = fx.xp, len(levels)
    other = k if params["other"] else -1
    missing = len(names) - 1 if params["missing"] else -1
    codes = xp.where(codes == -2, other, xp.where(codes == -1, missing, codes))
    values = (codes[:, None] == xp.arange(len(names))[None, :]).astype("float32")
    return (Block(tuple(names), values),)


@transform("ordinal", max_levels=whole(1), min_frequency=whole(1))
def ordinal(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """The level's position, or ``keep`` past that; missing where unknown or missing."""
    codes = fx.lookup(column, params["levels"])
    missing = codes < 0
    codes = fx.xp.where(missing, 0, fx.xp.minimum(codes, params["keep"]))
    return (Column("int64", codes, missing if bool(missing.any()) else None),)


@transform("count", normalize=FLAG)
def count(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """The level's entry in ``values``."""
    codes = fx.lookup(column, params["levels"])
    return (Column("float64", fx.to_device(params["values"])[codes]),)


@transform("hash", buckets=whole(2, 2**24))
def hash_(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """The value's hash, modulo ``buckets``."""
    xp = fx.xp
    buckets = settings.get("buckets", 1_024)
    codes: Array = (fx.hash64(column) % xp.uint64(buckets)).astype("int64")
    missing = fx.is_missing(column)
    codes = xp.where(missing, 0, codes)
    return (Column("int64", codes, missing if bool(missing.any()) else None),)


@transform("target_encode", smooth=number(0, "auto"), frequent=number(1, None))
def target_encode(
    settings: Settings, column: Column, params: Params, rows: Rows | None, fx: Frames
) -> tuple[Output, ...]:
    """A level's encodings: those without a training row's own bucket, and else the last ones."""
    codes = fx.lookup(column, params["levels"])
    encodings = fx.to_device(params["encodings"])
    table = fx.xp.full(codes.shape, len(params["buckets"]), dtype="int64")
    if rows is not None:
        which = np.full(rows.buckets, len(params["buckets"]), np.int64)
        which[params["buckets"]] = np.arange(len(params["buckets"]))
        table = fx.to_device(which)[rows.bucket]
    return tuple(Column("float64", encodings[table, codes, k]) for k in range(encodings.shape[2]))
