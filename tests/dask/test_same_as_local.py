"""The common suite on a cluster of processes: what is learned there is what is learned here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import test_layouts
from common.harness import BINARY, digests, make, random_sample
from common.quick import TARGETS, settings, small_table
from common.test_every_step import CHAINS, EXAMPLES
from test_layouts import TABLES, learned, pipeline

from gpupipe.config import parse_config
from gpupipe.data.dataset import Dataset, on_disk
from gpupipe.data.ingest import ingest
from gpupipe.data.reader import Reader
from gpupipe.engine.local import LocalEngine
from gpupipe.engine.memory import Memory
from gpupipe.judging import judge
from gpupipe.models import MODELS
from gpupipe.steps import STEPS
from gpupipe.steps.graph import bind
from gpupipe.steps.scan import Rowed, View, learn
from gpupipe.training import train

pytestmark = pytest.mark.long

SLOW = bool(os.environ.get("GPUPIPE_SLOW"))


def in_parts(table: pa.Table, folder: Path, rows: int) -> Dataset:
    """The table in a Parquet file whose row groups have so many rows."""
    pq.write_table(table, folder / "t.parquet", row_group_size=rows)
    return ingest(str(folder / "t.parquet"), cache=folder)


def test_every_step_learns_the_same(engine_of, tmp_path):
    assert set(EXAMPLES) == set(STEPS)
    sample = random_sample(300, seed=5, buckets=4)
    chains = [[make(name, **c)] for name, configs in EXAMPLES.items() for c in configs]
    chains += [[make(n, **c) for n, c in chain] for chain in CHAINS.values()]
    graphs = [bind(sample.features, chain, BINARY) for chain in chains]
    views = [View("final", (1, 2, 3)), View("fold 1", (2, 3)), View("fold 2", (1, 3))]
    here = sample.rowed(part_rows=40)
    engine = engine_of(16)
    there = Rowed(Reader(on_disk(here.dataset, tmp_path), engine), here.rows, here.buckets)
    engine.pin(there.rows)
    one, _ = learn(graphs, views, here)
    other, _ = learn(graphs, views, there)
    for chain, a, b in zip(chains, one, other, strict=True):
        assert [digests(f) for f in a] == [digests(f) for f in b], chain


EVERY_TASK = ("xgboost", "linear")
"""The others go the same way for every task: one of each is trained here."""


@pytest.mark.parametrize(("task", "kind"), [
    (task, kind) for kind, family in MODELS.items()
    for task in [t for t in TARGETS if t in family.tasks][: None if kind in EVERY_TASK else 1]])
def test_every_model_is_trained_there(kind, task, engine_of, tmp_path):
    trees = kind in ("xgboost", "lightgbm", "catboost", "forest", "extra_trees")
    params = {"n_estimators": 20, "max_depth": 3} if trees else {}
    config = parse_config(settings(task, split={"folds": 2}, model={"kind": kind, "params": params},
                                   evaluate={"baselines": ["constant"]}))
    dataset = in_parts(small_table(1_500), tmp_path, 200)
    here = train(config, dataset, LocalEngine(1, 200))
    there = train(config, dataset, engine_of(200))
    assert here.fingerprint == there.fingerprint
    assert list(here.outcomes) == list(there.outcomes)
    for name, outcome in here.outcomes.items():
        other = there.outcomes[name]
        assert outcome.oof.shape == other.oof.shape
        assert outcome.holdout.shape == other.holdout.shape
        # One worker trains a fold as this process does; bins cut by two differ a little.
        np.testing.assert_array_equal(outcome.oof, other.oof)
        assert other.final.payload().keys() == outcome.final.payload().keys()
    metric = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}[task]
    one, other = (judge(t)["holdout"]["model"][metric]["value"] for t in (here, there))
    assert other == pytest.approx(one, abs=0.03)


@pytest.mark.parametrize("split", [
    {"by": "stratified"}, {"by": "random"}, {"by": "group", "group": "s"},
    {"by": "time", "time": "t", "gap": "1d"},
], ids=lambda s: s["by"])
def test_every_split_is_the_same(split, engine_of, tmp_path):
    config = settings(split={"holdout": 0.25, "folds": 3, **split})
    moments = pa.array(np.arange(900) * 10**11, pa.timestamp("us"))
    table = small_table(900).set_column(5, "t", moments)
    dataset = in_parts(table, tmp_path, 100)
    here = learned(dataset, config, tmp_path, LocalEngine(1, 100))
    assert learned(dataset, config, tmp_path, engine_of(100)) == here


@pytest.mark.parametrize("name", TABLES)
def test_a_real_table_has_one_fingerprint(name, engine_of, shared_data, tmp_path):
    """Some rows of each table, or with GPUPIPE_SLOW=1 all of them; text kept and streamed."""
    source, target = TABLES[name]
    dataset = ingest(str(shared_data / source), cache=tmp_path)
    if not SLOW:
        dataset = in_parts(dataset.to_table().slice(0, test_layouts.SAMPLE), tmp_path, 1_000)
    config = pipeline(target)
    here = learned(dataset, config, tmp_path, LocalEngine(2), baselines=SLOW)
    for keep in (True, False):
        found = learned(dataset, config, tmp_path, engine_of(3_000), keep, baselines=SLOW)
        assert found == here, keep


def test_a_table_in_memory_is_written_to_disk_for_the_workers(tmp_path):
    table = small_table(500)
    dataset = ingest(table, cache=tmp_path)
    written = on_disk(dataset, tmp_path)
    assert written.fingerprint == dataset.fingerprint
    assert written.to_table().equals(dataset.to_table())
    assert on_disk(written, tmp_path).parts == written.parts


def test_trained_together_is_as_good_as_trained_alone(engine_of, tmp_path):
    """The final model's rows are dealt out to two workers, and every one of them counts."""
    config = parse_config(settings("regression", model={
        "kind": "xgboost", "params": {"n_estimators": 60, "max_depth": 4, "subsample": 1.0,
                                      "colsample_bytree": 1.0}}))
    dataset = in_parts(small_table(4_000), tmp_path, 500)
    here = train(config, dataset, LocalEngine(1), baselines=False)
    there = train(config, dataset, engine_of(), baselines=False)
    assert there.outcomes["model"].final.rounds == 60
    one, other = (judge(t)["holdout"]["model"]["r2"]["value"] for t in (here, there))
    assert other == pytest.approx(one, abs=0.02)


@pytest.mark.parametrize("by", ["stratified", "time"])
def test_folds_that_one_worker_cannot_hold_are_trained_by_all_together(
    by, engine_of, tmp_path, monkeypatch
):
    table = small_table(4_000)
    moments = pa.array(np.arange(4_000) * 10**11, pa.timestamp("us"))
    dataset = in_parts(table.set_column(5, "t", moments), tmp_path, 400)
    split = {"folds": 2, "by": by} | ({"time": "t"} if by == "time" else {})
    config = parse_config(settings(split=split, model={"kind": "xgboost"}))
    here = train(config, dataset, LocalEngine(1), baselines=False)
    lay_out = Memory.lay_out
    monkeypatch.setattr(Memory, "lay_out", lambda self, rows, *given: replace(
        lay_out(self, rows, *given), limit=0 if rows == 4_000 else 1 << 40))
    there = train(config, dataset, engine_of(), baselines=False)
    assert there.layout.together and "in each of 2" in there.layout.why
    assert there.fingerprint == here.fingerprint
    one, other = (judge(t)["cross_validation"]["model"]["roc_auc"]["value"] for t in (here, there))
    assert other == pytest.approx(one, abs=0.03)
