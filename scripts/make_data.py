"""Write a deterministic benchmark table of any number of rows, in bounded memory.

    python scripts/make_data.py --rows 2_000_000 --seed 0 --out benchmarks/data/two_million.parquet

Columns
    num_0 .. num_9      float64 of ten shapes (normal, log-normal, uniform, ...), 5 % null each
    str_5 .. str_100000 string categoricals; the number is how many levels the column has
    int_10 .. int_50000 integer categoricals, likewise
    time                timestamp[us] within 2024
    target              int8, 0 or 1

The target is a Bernoulli draw whose log-odds add up: curves, thresholds and products of the
numerics, one effect for every level of every categorical, and a daily and a weekly rhythm. The
columns with thousands of levels carry about half of the signal and their codes carry none, so a
model has to learn the level effects (target encoding) to see it. Nulls hide a value at random
after the target was drawn. The AUC of the true log-odds, printed at the end, is about 0.85: no
model can do better.

Rows come in blocks of 131,072 (one Parquet row group each), each from its own random stream, so
that a table of n rows is the beginning of every longer table with the same seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

BLOCK_ROWS = 131_072
NULL_SHARE = 0.05
NUMERICS = tuple(f"num_{i}" for i in range(10))
STRING_LEVELS = (5, 50, 1_000, 20_000, 100_000)
INTEGER_LEVELS = (10, 100, 2_000, 10_000, 50_000)
INTERCEPT = -1.0
# 2024-01-01, and the number of microseconds in that year.
EPOCH_US, YEAR_US = 1_704_067_200_000_000, 366 * 86_400_000_000

SCHEMA = pa.schema(
    [(name, pa.float64()) for name in NUMERICS]
    + [(f"str_{k}", pa.string()) for k in STRING_LEVELS]
    + [(f"int_{k}", pa.int64()) for k in INTEGER_LEVELS]
    + [("time", pa.timestamp("us")), ("target", pa.int8())]
)

Floats = npt.NDArray[Any]
# Standard normals to the column's own shape: ten kinds that real tables have.
SHAPES: tuple[Callable[[Floats], Floats], ...] = (
    lambda z: z,
    lambda z: np.exp(z),
    lambda z: 100 * z + 5_000,
    lambda z: np.round(np.exp(6 + z), 2),
    lambda z: np.floor(np.abs(10 * z)),
    lambda z: np.tanh(z),
    lambda z: z**3,
    lambda z: np.round(z, 1),
    lambda z: 1e-6 * z,
    lambda z: z * np.abs(z) - 3,
)


class Categorical:
    """A column of ``levels`` levels whose frequencies fall like 1/sqrt(rank).

    Attributes: ``effects`` (levels,) float64, each level's log-odds; ``names``, the level's label
    in the table: a string, or an integer code that is unrelated to rank and effect.
    """

    def __init__(self, index: int, levels: int, text: bool, seed: int) -> None:
        rng = np.random.default_rng([seed, 1, index])
        # The wide columns matter most: 100,000 levels must be worth learning.
        spread = 0.25 if levels <= 100 else 0.62
        self.levels = levels
        self.effects = rng.normal(0.0, spread, levels)
        codes = rng.permutation(levels)
        if text:
            width = len(str(levels - 1))
            self.names = pa.array([f"s{levels}-{code:0{width}d}" for code in codes.tolist()])
        else:
            self.names = pa.array(codes, pa.int64())

    def draw(self, rng: np.random.Generator) -> tuple[pa.Array, Floats]:
        """One block: the column, and what it adds to the log-odds."""
        rank = (self.levels * rng.random(BLOCK_ROWS) ** 2).astype(np.int64)
        return self.names.take(pa.array(rank)), self.effects[rank]


def numeric_signal(z: Floats) -> Floats:
    """Log-odds of the ten latent normals ``z`` (10, rows): curves, steps, interactions."""
    return np.asarray(
        0.45 * np.sin(2 * z[0])
        + 0.30 * (np.abs(z[1]) - 0.8)
        + 0.35 * z[2] * z[3]
        + 0.40 * (z[4] > 0.5)
        - 0.25 * (z[5] ** 2 - 1)
        + 0.40 * np.where(z[6] > 0, z[7], -z[7])
        + 0.35 * z[8]
        + 0.30 * np.tanh(2 * z[9])
    )


def time_signal(microseconds: npt.NDArray[np.int64]) -> Floats:
    """Log-odds of a timestamp: an evening peak, and quieter weekends."""
    hour = microseconds // 3_600_000_000 % 24
    weekday = (microseconds // 86_400_000_000 + 3) % 7  # 1970-01-01 was a Thursday (3)
    return np.asarray(0.5 * np.cos(2 * np.pi * (hour - 19) / 24) - 0.3 * (weekday >= 5))


def block(
    index: int, categoricals: dict[str, Categorical], seed: int
) -> tuple[pa.Table, Floats]:
    """Block ``index`` as a table of ``BLOCK_ROWS`` rows, and its true log-odds."""
    rng = np.random.default_rng([seed, 0, index])
    columns: dict[str, pa.Array] = {}
    z = rng.standard_normal((len(NUMERICS), BLOCK_ROWS))
    log_odds = INTERCEPT + numeric_signal(z)
    for name, shape, values in zip(NUMERICS, SHAPES, z, strict=True):
        columns[name] = pa.array(shape(values), mask=rng.random(BLOCK_ROWS) < NULL_SHARE)
    for name, categorical in categoricals.items():
        columns[name], effect = categorical.draw(rng)
        log_odds += effect
    time = EPOCH_US + rng.integers(0, YEAR_US, BLOCK_ROWS)
    columns["time"] = pa.array(time, pa.timestamp("us"))
    log_odds += time_signal(time)
    target = rng.random(BLOCK_ROWS) < 1 / (1 + np.exp(-log_odds))
    columns["target"] = pa.array(target.astype(np.int8))
    return pa.table(columns, schema=SCHEMA), log_odds


class TruthAuc:
    """AUC of the true log-odds, from two histograms (10,000 bins; ties count a half)."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, 10_000), np.int64)

    def add(self, log_odds: Floats, target: npt.NDArray[np.int8]) -> None:
        bins = np.clip((log_odds + 15) / 30 * 10_000, 0, 9_999).astype(np.int64)
        for label in (0, 1):
            self.counts[label] += np.bincount(bins[target == label], minlength=10_000)

    def value(self) -> float:
        negative, positive = self.counts.astype(np.float64)
        below = np.cumsum(negative) - negative / 2
        return float((below * positive).sum() / (negative.sum() * positive.sum()))


def write(out: Path, rows: int, seed: int, progress: bool = False) -> dict[str, float]:
    """Write ``rows`` rows to ``out`` (``.csv`` or Parquet); return the facts about the table.

    The file appears under its name only when it is whole.
    """
    categoricals = {
        f"{kind}_{levels}": Categorical(i, levels, kind == "str", seed)
        for i, (kind, levels) in enumerate(
            [("str", k) for k in STRING_LEVELS] + [("int", k) for k in INTEGER_LEVELS]
        )
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.unfinished")
    truth, positives = TruthAuc(), 0
    writer: Any = (
        pyarrow.csv.CSVWriter(unfinished, SCHEMA)
        if out.suffix == ".csv"
        else pq.ParquetWriter(unfinished, SCHEMA, compression="snappy")
    )
    try:
        with writer:
            for start in range(0, rows, BLOCK_ROWS):
                table, log_odds = block(start // BLOCK_ROWS, categoricals, seed)
                table = table.slice(0, rows - start)
                writer.write_table(table)
                target = table["target"].to_numpy()
                truth.add(log_odds[: len(target)], target)
                positives += int(target.sum())
                if progress:
                    done = min(start + BLOCK_ROWS, rows)
                    print(f"\r{done:,} of {rows:,} rows", end="", file=sys.stderr, flush=True)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    if progress:
        print(file=sys.stderr)
    return {
        "rows": rows,
        "bytes": out.stat().st_size,
        "positive_share": positives / rows,
        "truth_auc": truth.value(),
    }


def row_count(text: str) -> int:
    """``2_000_000`` or ``2000000``, at least 1."""
    rows = int(text)
    if rows < 1:
        raise argparse.ArgumentTypeError("at least one row")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=row_count, default=2_000_000, help="default 2_000_000")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument(
        "--out", type=Path, required=True, help="a name ending in .csv makes CSV, else Parquet"
    )
    args = parser.parse_args()
    facts = write(args.out, args.rows, args.seed, progress=sys.stderr.isatty())
    print(
        f"{args.out}: {facts['rows']:,} rows, {facts['bytes'] / 1e6:.1f} MB, "
        f"{facts['positive_share']:.1%} positive, AUC of the truth {facts['truth_auc']:.4f}"
    )


if __name__ == "__main__":
    main()
