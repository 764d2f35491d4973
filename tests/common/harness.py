"""What the tests of steps share: a table of every type, and a short way to learn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.data.dataset import Dataset, memory_dataset
from gpupipe.data.normalise import logical_type
from gpupipe.data.reader import Reader
from gpupipe.data.schema import Field, Schema
from gpupipe.engine.frames import Block, Frames
from gpupipe.engine.local import LocalEngine
from gpupipe.stats.state import Rows
from gpupipe.steps import STEPS, Feature, Step, Target
from gpupipe.steps.graph import Batch, Fitted, Graph, bind, params_digest
from gpupipe.steps.scan import Knowledge, PartRows, Rowed, View, learn

BINARY = Target("binary", ("no", "yes"))


@dataclass(frozen=True)
class Sample:
    """An Arrow table whose rows know their target and bucket."""

    table: pa.Table
    target: np.ndarray
    bucket: np.ndarray
    buckets: int

    def take(self, index: np.ndarray) -> Sample:
        return Sample(self.table.take(pa.array(index)), self.target[index], self.bucket[index],
                      self.buckets)

    def training(self, buckets: Sequence[int]) -> Sample:
        """Only the rows in some buckets."""
        return self.take(np.flatnonzero(np.isin(self.bucket, list(buckets))))

    @property
    def features(self) -> list[Feature]:
        return [Feature(f.name, f.dtype) for f in schema_of(self.table)]

    def rowed(
        self, part_rows: int = 64, batch_rows: int = 64, workers: int = 1, kept: bool = False
    ) -> Rowed:
        """The sample in parts; ``kept``: its columns stay in memory, text on one dictionary."""
        dataset = as_dataset(self.table, part_rows)
        reader = Reader(dataset, LocalEngine(workers, batch_rows))
        if kept:
            assert reader.keep(dataset.schema.names)
            for index in range(len(dataset.parts)):
                list(reader.batches(index, dataset.schema.names))
            reader.share([f.name for f in dataset.schema if f.dtype == "string"])
        rows = tuple(
            PartRows(self.bucket[i : i + part_rows], self.target[i : i + part_rows])
            for i in range(0, self.table.num_rows, part_rows)
        )
        return Rowed(reader, rows, self.buckets)


def schema_of(table: pa.Table) -> Schema:
    return Schema(tuple(Field(f.name, logical_type(f.type)) for f in table.schema))


def as_dataset(table: pa.Table, part_rows: int = 131_072) -> Dataset:
    return memory_dataset(table, schema_of(table), "", "the test's table", part_rows=part_rows)


def make(name: str, **params: Any) -> Step:
    return STEPS[name].model_validate(params)


def learned(
    sample: Sample, steps: Sequence[Step] | Graph, train: Sequence[int] | None = None,
    target: Target = BINARY, **layout: int,
) -> tuple[Graph, Fitted, Knowledge]:
    """What a chain of steps learns from the rows in buckets ``train`` (default: all)."""
    graph = steps if isinstance(steps, Graph) else bind(sample.features, steps, target)
    view = View("final", tuple(range(sample.buckets) if train is None else train))
    fitted, knowledge = learn([graph], [view], sample.rowed(**layout))
    return graph, fitted[0][0], knowledge


def batch_of(table: pa.Table, rows: Rows | None = None) -> Batch:
    """A whole table as one batch."""
    engine = LocalEngine(1, max(table.num_rows, 1))
    dataset = as_dataset(table)
    whole = pa.concat_tables(list(dataset.stream())) if table.num_rows else (
        schema_of(table).to_arrow().empty_table()
    )
    if not table.num_rows:
        whole = pa.Table.from_arrays(
            [c.dictionary_encode() if pa.types.is_string(c.type) else c for c in whole.columns],
            names=whole.column_names,
        )
    frame = engine.fx.frame(whole)
    columns = {f.name: engine.fx.column(frame, f.name, f.dtype) for f in dataset.schema}
    return Batch(columns, None if rows is None else rows_on(engine.fx, rows), engine.fx)


def rows_on(fx: Frames, rows: Rows) -> Rows:
    """The same rows, where the frame layer's arrays lie."""
    target = None if rows.target is None else fx.to_device(rows.target)
    return Rows(fx.to_device(rows.bucket), rows.buckets, target)


def values_of(
    graph: Graph, fitted: Fitted, table: pa.Table, rows: Rows | None = None
) -> dict[str, np.ndarray]:
    """Every output as plain arrays: numbers with NaN for missing, text as objects with None."""
    batch = batch_of(table, rows)
    out: dict[str, np.ndarray] = {}
    for node in graph.outputs:
        value = batch.value(node, fitted)
        if isinstance(value, Block):
            for i, level in enumerate(value.names):
                out[f"{node.feature.name}_{level}"] = batch.fx.to_host(value.values)[:, i]
        elif value.dtype == "string":
            out[node.feature.name] = np.array([*value.levels.to_pylist(), None], object)[
                batch.fx.to_host(value.values)
            ]
        else:
            out[node.feature.name] = batch.fx.to_host(batch.fx.numbers(value))
    return out


def digests(fitted: Fitted) -> dict[str, str]:
    return {key: params_digest(params) for key, params in fitted.params.items()}


SPECIAL = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e300, -1e300, 5e-324, 1e-200, 2.0**53 + 2]


def random_sample(n: int, seed: int, buckets: int = 4, missing: float = 0.2) -> Sample:
    """``n`` rows of every type with missing, repeated and extreme values."""
    rng = np.random.default_rng(seed)

    def column(values: Any, arrow: pa.DataType) -> pa.Array:
        return pa.array(values, arrow, mask=rng.random(n) < missing)

    wild = np.where(rng.random(n) < 0.2, rng.choice(SPECIAL, n), rng.normal(size=n))
    words = np.array(["", "a", "b", "ß", "漢字", "a\x00b", "(other)", "missing"])
    table = pa.table({
        "f": column(rng.normal(100, 15, n).round(1), pa.float64()),
        "wild": column(wild, pa.float64()),
        "narrow": column(rng.normal(size=n).astype(np.float32), pa.float32()),
        "i": column(rng.integers(-3, 4, n), pa.int64()),
        "big": column(rng.integers(2**53, 2**62, n), pa.int64()),
        "b": column(rng.random(n) < 0.3, pa.bool_()),
        "s": column(words[rng.integers(0, len(words), n) ** 2 % len(words)].tolist(), pa.string()),
        "many": column([f"level {i}" for i in rng.integers(0, max(n // 2, 1), n)], pa.string()),
        "t": column(rng.integers(-(10**16), 10**16, n), pa.timestamp("us")),
    })
    return Sample(table, rng.integers(0, 2, n), rng.integers(0, buckets, n).astype(np.uint8),
                  buckets)


Config = Mapping[str, Any]
