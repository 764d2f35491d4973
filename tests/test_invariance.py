"""The same rows, however they are stored or worked on: the same splits, numbers and features."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from common.quick import settings, small_table, trained_on
from hypothesis import HealthCheck, given
from hypothesis import settings as budget
from hypothesis import strategies as st

from gpupipe.steps.graph import feature_names, params_digest
from gpupipe.training import Trained

STEPS = [
    {"impute": {"columns": "numeric", "strategy": "median", "indicator": True}},
    {"scale": {"columns": "numeric"}}, {"target_encode": {"columns": "categorical"}},
]


def outcome(trained: Trained) -> dict[str, Any]:
    """What may not depend on the layout: buckets by row, learned numbers, features, the cut."""
    by_row: dict[int, set[int]] = {}
    for facts, rows in zip(trained.profile.facts, trained.rowed.rows, strict=True):
        for key, bucket in zip(facts.key.tolist(), rows.bucket.tolist(), strict=True):
            by_row.setdefault(key, set()).add(bucket)
    assert all(len(buckets) == 1 for buckets in by_row.values())
    fitted, graph = trained.model.fitted, trained.model.candidate.graph
    return {
        "buckets": sorted((k, min(v)) for k, v in by_row.items()),
        "params": {b.key: params_digest(fitted.params[b.key]) for b in graph.bound},
        "features": feature_names(graph, fitted), "cuts": trained.split.cuts.tolist(),
        "states": states_digest(trained),
    }


def states_digest(trained: Trained) -> str:
    digest = hashlib.sha256()
    for key in sorted(trained.profile.states, key=str):
        for name, value in sorted(trained.profile.states[key].arrays().items()):
            digest.update(f"{key}{name}".encode())
            digest.update(params_digest({"x": value}).encode())
    return digest.hexdigest()


def constant(task: str, **sections: Any) -> dict[str, Any]:
    """A pipeline whose model costs nothing: what is compared comes before it."""
    return settings(task, **{"model": {"kind": "constant"}, "features": STEPS,
                             "split": {"folds": 3}, **sections})


def write(table: pa.Table, folder: Path, files: int, row_group: int) -> Path:
    folder.mkdir()
    size = -(-table.num_rows // files)
    for i in range(files):
        piece = table.slice(i * size, size)
        if piece.num_rows:
            pq.write_table(piece, folder / f"{i}.parquet", row_group_size=row_group)
    return folder


TABLE = small_table(60).drop_columns(["t"])
EXPECTED = {task: outcome(trained_on(TABLE, constant(task)))
            for task in ("binary", "multiclass", "regression")}


@pytest.mark.parametrize("task", EXPECTED)
@budget(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_files_order_row_groups_batches_and_workers(task, data, tmp_path_factory):
    order = np.array(data.draw(st.permutations(range(TABLE.num_rows))))
    table = TABLE.take(pa.array(order))
    folder = write(table, tmp_path_factory.mktemp("layout") / "t",
                   data.draw(st.integers(1, 4)), data.draw(st.sampled_from([5, 23, 1000])))
    engine = {"workers": data.draw(st.sampled_from([1, 2])),
              "batch_rows": data.draw(st.sampled_from([4, 19, 131_072]))}
    source = data.draw(st.sampled_from([str(folder), table]))
    found = outcome(trained_on(source, constant(task, engine=engine)))
    assert found == EXPECTED[task]


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow", "feather", "pandas", "polars"])
def test_any_kind_of_source(kind, tmp_path):
    import polars

    # Text holds no empty strings apart from missing ones, and spells every float32 as a double.
    text = pa.array([w or None for w in TABLE.column("s").to_pylist()])
    table = TABLE.set_column(4, "s", text).drop_columns(["narrow"])
    path = tmp_path / f"t.{kind}"
    source: Any = str(path)
    if kind == "csv":
        pyarrow.csv.write_csv(table, path)
    elif kind == "parquet":
        pq.write_table(table, path)
    elif kind in ("arrow", "feather"):
        pyarrow.feather.write_feather(table, path, compression="uncompressed")
    else:
        source = table.to_pandas() if kind == "pandas" else polars.from_arrow(table)
    if kind == "pandas":  # pandas turns integers and booleans with holes into other things
        source = source.astype({"i": "Int64", "b": "boolean"})
    expected = outcome(trained_on(table, constant("binary")))
    assert outcome(trained_on(source, constant("binary"), tmp_path / "c")) == expected


@pytest.mark.parametrize("name", ["adult", "diamonds"])
def test_real_tables(name, shared_data, tmp_path):
    path = {"adult": "adult/adult.data", "diamonds": "diamonds/diamonds.csv"}[name]
    target, task = {"adult": ("outcome", "binary"), "diamonds": ("price", "regression")}[name]
    config = constant(task, data={"target": target, "drop": []})
    first = trained_on(str(shared_data / path), config, tmp_path / "c")
    expected = outcome(first)
    table = first.dataset.to_table()
    order = np.random.default_rng(0).permutation(table.num_rows)
    shuffled = write(table.take(pa.array(order)), tmp_path / "t", 5, 3_000)
    engine = {"workers": 2, "batch_rows": 2_500}
    assert outcome(trained_on(str(shuffled), {**config, "engine": engine})) == expected
    assert outcome(trained_on(table.to_pandas(), config)) == expected


def test_the_split_is_another_for_another_seed_and_the_params_follow():
    other = outcome(trained_on(TABLE, constant("binary", seed=1)))
    assert other["buckets"] != EXPECTED["binary"]["buckets"]
    assert other["params"] != EXPECTED["binary"]["params"]
    assert other["states"] == EXPECTED["binary"]["states"]
