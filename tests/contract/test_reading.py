"""Parquet straight to the device: the same columns as by way of the host, and said where not."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contract.machine import standing_in
from contract.record import Record

from gpupipe.data.batches import read_by_host
from gpupipe.data.ingest import ingest
from gpupipe.data.reader import Reader
from gpupipe.engine.arrays import to_host
from gpupipe.engine.cudf import CudfFrames
from gpupipe.engine.frames import Frames
from gpupipe.engine.local import LocalEngine
from gpupipe.engine.pandas import PandasFrames

DIRECT = {
    "f": pa.array([1.5, None, -0.0, float("nan"), float("inf"), 0.0, 2.0]),
    "narrow": pa.array([1.5, None, -0.0, float("nan"), float("inf"), 0.1, 2.0], pa.float32()),
    "i": pa.array([3, None, 2**53 + 1, -7, 0, 3, 3]),
    "small": pa.array([3, None, 5, -7, 0, 3, 3], pa.int8()),
    "unsigned": pa.array([3, None, 5, 7, 0, 3, 2**32 - 1], pa.uint32()),
    "whole": pa.array([3, 1, 2, 4, 5, 6, 7]),
    "b": pa.array([True, None, False, False, True, None, True]),
    "s": pa.array(["b", None, "", "a", "b", None, "漢字"]),
    "empty": pa.array([None] * 7, pa.string()),
    "large": pa.array(["b", None, "", "a", "b", None, "漢字"], pa.large_string()),
    "coded": pa.array(["b", None, "", "a", "b", None, "漢字"]).dictionary_encode(),
    "us": pa.array([0, None, -1, 10**15, 0, None, 86_400_000_000], pa.timestamp("us")),
    "ms": pa.array([0, None, -1, 10**12, 0, None, 86_400_000], pa.timestamp("ms")),
}
BY_HOST = {
    "ns": pa.array([0, None, -1, 10**18, 0, None, 86_400], pa.timestamp("ns")),
    "zoned": pa.array([0, None, -1, 10**15, 0, None, 5], pa.timestamp("us", "UTC")),
    "date": pa.array([0, None, -1, 10_000, 0, None, 5], pa.date32()),
    "large int": pa.array([3, None, 2**63 - 1, 7, 0, 3, 3], pa.uint64()),
    "money": pa.array([Decimal("1.50"), None, *[Decimal("2.25")] * 5]),
    "half": pa.array(np.arange(7, dtype=np.float16)),
}


def columns_of(path: Path, fx: Frames, cache: Path, types: dict | None = None) -> dict:
    """Every column of a file as plain values, and the dataset."""
    dataset = ingest(str(path), cache=cache, types=types or {})
    engine = LocalEngine(1, 3)
    engine.fx = fx
    reader, found = Reader(dataset, engine), {}
    for index in range(len(dataset.parts)):
        for batch in reader.batches(index, dataset.schema.names):
            assert len({len(c) for c in batch.values()}) == 1
            for name, column in batch.items():
                found.setdefault(name, []).extend(plain(column, fx))
    return {"dataset": dataset, **found}


def plain(column, fx: Frames) -> list:
    values, missing = to_host(column.values), to_host(fx.is_missing(column))
    if column.levels is not None:
        assert column.levels.type == pa.string()
        return [None if m else column.levels[int(c)].as_py()
                for c, m in zip(values, missing, strict=True)]
    return [None if m else (str(v.dtype), v.item()) for v, m in zip(values, missing, strict=True)]


def written(folder: Path, columns: dict) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    pq.write_table(pa.table(columns), folder / "t.parquet", row_group_size=4)
    return folder / "t.parquet"


def direct(record: Record) -> bool:
    return any(use.name == "read_parquet" for use in record.uses)


@pytest.mark.parametrize("name", DIRECT)
def test_a_plain_column_goes_straight_to_the_device(name, tmp_path):
    path = written(tmp_path, {name: DIRECT[name]})
    expected = columns_of(path, PandasFrames(), tmp_path / "cache")
    with standing_in(models=False) as record:
        found = columns_of(path, CudfFrames(), tmp_path / "cache")
    assert found[name] == expected[name]
    assert direct(record)
    assert read_by_host(found["dataset"], [name]) == {}


@pytest.mark.parametrize("name", BY_HOST)
def test_a_column_that_needs_a_rule_is_read_by_the_host_and_named(name, tmp_path):
    path = written(tmp_path, {name: BY_HOST[name]})
    expected = columns_of(path, PandasFrames(), tmp_path / "cache")
    with standing_in(models=False) as record:
        found = columns_of(path, CudfFrames(), tmp_path / "cache")
    assert found[name] == expected[name]
    assert not direct(record)
    assert "has to become" in read_by_host(found["dataset"], [name])[name]


def test_both_ways_give_batches_of_the_same_rows(tmp_path):
    folder = tmp_path / "year=2024"
    path = written(folder, {**DIRECT, **BY_HOST})
    expected = columns_of(path.parent.parent, PandasFrames(), tmp_path / "cache")
    with standing_in(models=False) as record:
        found = columns_of(path.parent.parent, CudfFrames(), tmp_path / "cache")
    names = expected["dataset"].schema.names
    assert {n: found[n] for n in names} == {n: expected[n] for n in names}
    assert direct(record)
    assert set(read_by_host(found["dataset"], names)) == {*BY_HOST, "year"}


def test_a_pinned_type_is_made_by_the_host(tmp_path):
    digits = pa.array(["1", "2", None, "4", "5", "6", "7"])
    path = written(tmp_path, {"i": DIRECT["i"], "s": digits})
    types = {"i": "string", "s": "int"}
    expected = columns_of(path, PandasFrames(), tmp_path / "cache", types)
    with standing_in(models=False):
        found = columns_of(path, CudfFrames(), tmp_path / "cache", types)
    assert found["i"] == expected["i"]
    assert found["s"] == expected["s"]
