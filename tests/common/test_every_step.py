"""The contract that every registered step keeps by being registered.

A new step is tested as soon as it has an example here; a step without one fails.
"""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from common.harness import (
    BINARY,
    Sample,
    batch_of,
    digests,
    learned,
    make,
    random_sample,
    values_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gpupipe.codec import pack, read_arrays, unpack, write_arrays
from gpupipe.engine.arrays import to_host
from gpupipe.engine.frames import Block, Column
from gpupipe.errors import ConfigError
from gpupipe.stats import quantiles
from gpupipe.stats.state import Rows
from gpupipe.steps import STEPS, Feature, Step, Target
from gpupipe.steps.base import ROLES
from gpupipe.steps.graph import Fitted, Graph, bind, params_digest
from gpupipe.steps.profile import take_profile
from gpupipe.steps.scan import View, learn

NUMBERS = ["f", "wild", "narrow", "i", "big", "b"]
TEXT = ["s", "many"]
ANY = [*NUMBERS, *TEXT]

EXAMPLES: dict[str, list[dict]] = {
    "impute": [
        {"columns": NUMBERS, "strategy": "mean"},
        {"columns": NUMBERS, "strategy": "median", "indicator": True},
        {"columns": ANY, "strategy": "most_frequent"},
        {"columns": NUMBERS, "strategy": "constant", "fill_value": -1.5},
        {"columns": TEXT, "strategy": "constant", "fill_value": "none", "indicator": True},
    ],
    "scale": [{"columns": NUMBERS, "method": m} for m in ("standard", "min_max", "robust")],
    "clip": [{"columns": NUMBERS, "lower": 0.05, "upper": 0.9}, {"columns": NUMBERS, "upper": 0.5},
             {"columns": NUMBERS, "by": "value", "lower": -1}],
    "log": [{"columns": NUMBERS}],
    "bin": [{"columns": NUMBERS, "bins": 4}, {"columns": ["f", "i"], "strategy": "uniform"}],
    "one_hot": [{"columns": ANY}, {"columns": ANY, "max_levels": 2},
                {"columns": ANY, "min_frequency": 3}],
    "ordinal": [{"columns": ANY}, {"columns": ANY, "max_levels": 2, "min_frequency": 2}],
    "count": [{"columns": ANY}, {"columns": ANY, "normalize": True}],
    "hash": [{"columns": ANY, "buckets": 7}],
    "target_encode": [{"columns": ANY}, {"columns": ANY, "smooth": 2.5},
                      {"columns": ANY, "smooth": 0}],
    "select": [{"columns": ["f", "s"]}],
    "drop": [{"columns": "s"}],
    "drop_constant": [{}],
    "copy": [{"columns": ANY}, {"columns": NUMBERS, "suffix": "too"}],
    "cast": [{"columns": NUMBERS, "to": "string"}, {"columns": ["i", "b"], "to": "float64"},
             {"columns": ["i", "big", "b"], "to": "int64"}, {"columns": NUMBERS, "to": "bool"}],
    "ratio": [{"columns": NUMBERS}, {"columns": ["i", "f"]}],
    "datetime": [
        {"parts": ["year", "quarter", "month", "day", "day_of_week", "day_of_year", "hour",
                   "minute", "second", "timestamp"]},
        {"cyclic": True},
    ],
}
CHAINS = {
    "impute then scale": [("impute", {"strategy": "mean"}), ("scale", {"columns": "numeric"})],
    "impute then robust scale": [("impute", {}), ("scale", {"method": "robust"})],
    "target_encode then scale": [("target_encode", {"columns": TEXT}),
                                 ("scale", {"columns": TEXT})],
    "impute then bin": [("impute", {"columns": NUMBERS}), ("bin", {"columns": NUMBERS, "bins": 5})],
    "impute text then one_hot": [("impute", {"columns": TEXT, "strategy": "most_frequent"}),
                                 ("one_hot", {"columns": TEXT})],
    "bin then target_encode": [("bin", {"columns": ["f", "i"], "bins": 3}),
                               ("target_encode", {"columns": ["f", "i"]})],
    "ratio then impute then scale": [("ratio", {"columns": ["f", "i"]}),
                                     ("impute", {"columns": "f_per_i", "strategy": "median"}),
                                     ("scale", {"columns": "f_per_i"})],
    "impute then ratio then scale": [("impute", {"columns": ["f", "i"], "strategy": "mean"}),
                                     ("ratio", {"columns": ["i", "f"]}),
                                     ("scale", {"columns": "f_per_i"})],
    "clip, log, impute, scale, clip": [
        ("clip", {"lower": 0.01, "upper": 0.99}), ("log", {}), ("impute", {"strategy": "median"}),
        ("scale", {}), ("clip", {"lower": 0.1}),
    ],
}
CASES = [(name, config) for name, configs in EXAMPLES.items() for config in configs]
each_case = pytest.mark.parametrize(
    ("name", "config"), CASES, ids=[f"{n}-{json.dumps(c, default=str)}" for n, c in CASES]
)
SAMPLE = random_sample(300, seed=1)
ARRAY_TYPES = {"float32": "float32", "float64": "float64", "int64": "int64", "bool": "bool",
               "string": "int32", "timestamp": "int64"}


def test_every_registered_step_has_an_example():
    assert set(EXAMPLES) == set(STEPS)


def graphs_of(name: str, sample: Sample) -> list[Graph]:
    return [bind(sample.features, [make(name, **c)], BINARY) for c in EXAMPLES[name]]


@pytest.mark.parametrize("name", EXAMPLES)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_partitioning_order_and_workers_give_the_same_params(name, data):
    n = data.draw(st.integers(1, 60))
    seed = data.draw(st.integers(0, 2**32 - 1))
    sample = random_sample(n, seed, missing=data.draw(st.sampled_from([0.0, 0.3, 0.9])))
    shuffled = sample.take(np.random.default_rng(data.draw(st.integers(0, 9))).permutation(n))
    views = [View("final", (0, 1, 2)), View("fold", (0, 2)), View("one bucket", (3,))]
    graphs = graphs_of(name, sample)
    once, _ = learn(graphs, views, sample.rowed(part_rows=n, batch_rows=n))
    parts = shuffled.rowed(
        part_rows=data.draw(st.integers(1, n)), batch_rows=data.draw(st.integers(1, n)),
        workers=data.draw(st.sampled_from([1, 3])), kept=data.draw(st.booleans()),
    )
    again, _ = learn(graphs, views, parts)
    for a, b in zip(once, again, strict=True):
        assert [digests(f) for f in a] == [digests(f) for f in b]


HONEST = [*EXAMPLES, *CHAINS]


@pytest.mark.parametrize(("name", "profiled"), [
    *((name, False) for name in HONEST), ("clip", True), ("impute then robust scale", True),
])
def test_a_folds_params_are_those_of_learning_from_its_training_rows_alone(name, profiled):
    sample = random_sample(300, seed=3, buckets=5)
    if name in CHAINS:
        graphs = [bind(sample.features, [make(n, **c) for n, c in CHAINS[name]], BINARY)]
    else:
        graphs = graphs_of(name, sample)
    # Bucket 0 is a holdout, 4 is of rows that take part in nothing.
    views = [View("final", (1, 2, 3)), View("fold 1", (2, 3)), View("fold 2", (1, 3)),
             View("fold 3", (1, 2))]
    source = sample.rowed(part_rows=100)
    profile = None
    if profiled:
        profile = take_profile(source.reader, target=None).states
    together, _ = learn(graphs, views, source, profile)
    for v, view in enumerate(views):
        alone, _ = learn(graphs, [view], sample.training(view.train).rowed())
        for g in range(len(graphs)):
            assert digests(together[g][v]) == digests(alone[g][0]), view.name


@pytest.mark.parametrize("name", ["impute", "scale", "clip", "bin", "impute then robust scale"])
def test_a_look_between_changes_nothing(name, monkeypatch):
    """Columns that are crowded take a scan more, and learn the same in every fold."""
    sample = random_sample(300, seed=6, buckets=4)
    views = [View("final", (1, 2, 3)), View("fold 1", (2, 3)), View("one bucket", (3,))]
    graphs = (graphs_of(name, sample) if name in EXAMPLES else
              [bind(sample.features, [make(n, **c) for n, c in CHAINS[name]], BINARY)])
    plain, known = learn(graphs, views, sample.rowed(part_rows=100))
    monkeypatch.setattr(quantiles, "CROWDED", 1)
    between, more = learn(graphs, views, sample.rowed(part_rows=70))
    assert len(more.scans) > len(known.scans)
    for a, b in zip(plain, between, strict=True):
        assert [digests(f) for f in a] == [digests(f) for f in b]


@pytest.mark.parametrize("target", [
    Target("regression", (), 0.5, 3.0), Target("multiclass", ("a", "b", "c")),
], ids=lambda t: t.task)
def test_a_folds_target_encoding_is_honest_for_every_task(target):
    sample = random_sample(400, seed=4, buckets=4)
    rng = np.random.default_rng(4)
    y = rng.uniform(-2.5, 3.5, 400) if target.task == "regression" else rng.integers(0, 3, 400)
    sample = Sample(sample.table, y, sample.bucket, 4)
    graph = bind(sample.features, [make("target_encode", columns=ANY)], target)
    views = [View("final", (1, 2, 3)), View("fold", (1, 3))]
    together, _ = learn([graph], views, sample.rowed(part_rows=50))
    for v, view in enumerate(views):
        alone, _ = learn([graph], [view], sample.training(view.train).rowed())
        assert digests(together[0][v]) == digests(alone[0][0])


def fitted_case(name: str, config: dict) -> tuple[Graph, Fitted]:
    graph, fitted, _ = learned(SAMPLE, [make(name, **config)], train=(0, 1, 2))
    return graph, fitted


UNSEEN = random_sample(5, seed=2, missing=0.0).table.set_column(
    6, "s", pa.array(["never", "seen", "before", "(missing)", "a"])
)
TABLES = {
    "training": SAMPLE.table, "empty": SAMPLE.table.slice(0, 0),
    "one row": SAMPLE.table.slice(7, 1),
    "all null": pa.table([pa.nulls(3, f.type) for f in SAMPLE.table.schema],
                         SAMPLE.table.schema),
    "unseen": UNSEEN,
}


@each_case
def test_outputs_are_what_was_promised_for_any_batch_and_the_batch_stays_as_it_was(name, config):
    graph, fitted = fitted_case(name, config)
    for label, table in TABLES.items():
        n = table.num_rows
        for rows in (None, Rows(np.zeros(n, np.uint8), SAMPLE.buckets, np.zeros(n, np.int64))):
            batch = batch_of(table, rows)
            before = snapshot(batch)
            for node in graph.outputs:
                value = batch.value(node, fitted)
                feature = node.feature
                if feature.dtype == "block":
                    assert isinstance(value, Block), label
                    assert value.values.dtype == np.float32
                    assert value.values.shape == (n, len(value.names))
                    continue
                assert isinstance(value, Column)
                assert value.dtype == feature.dtype, label
                assert value.values.dtype == ARRAY_TYPES[feature.dtype], label
                assert len(value) == n
                assert value.missing is None or value.missing.dtype == bool
                assert (value.levels is not None) == (feature.dtype == "string")
                if value.levels is not None:
                    assert len(set(value.levels.to_pylist())) == len(value.levels)
                    assert ((value.values >= -1) & (value.values < len(value.levels))).all()
            assert snapshot(batch) == before, label


def snapshot(batch) -> list:
    """The bytes of every raw column."""
    return [
        (name, to_host(c.values).tobytes(), c.dtype,
         None if c.missing is None else to_host(c.missing).tobytes(),
         None if c.levels is None else tuple(c.levels.to_pylist()))
        for name, c in batch.columns.items()
    ]


@each_case
@pytest.mark.parametrize("what", ["empty", "one row", "all null"])
def test_learning_from_next_to_nothing_gives_params_that_transform(name, config, what):
    table = TABLES[what]
    n = table.num_rows
    sample = Sample(table, np.zeros(n, np.int64), np.zeros(n, np.uint8), 2)
    if what == "empty":  # a training part without rows, beside rows of another bucket
        sample = Sample(SAMPLE.table, SAMPLE.target, np.ones(300, np.uint8), 2)
    graph, fitted, _ = learned(sample, [make(name, **config)], train=(0,))
    out = values_of(graph, fitted, SAMPLE.table)
    assert all(len(v) == 300 for v in out.values())


@each_case
def test_a_config_survives_json(name, config):
    step = make(name, **config)
    again = STEPS[name].model_validate_json(step.model_dump_json())
    assert again == step
    assert again.model_dump_json() == step.model_dump_json()


@each_case
def test_params_survive_the_bundle_to_the_last_bit(name, config):
    graph, fitted = fitted_case(name, config)
    expected = values_of(graph, fitted, SAMPLE.table)
    restored = Fitted()
    for bound in graph.bound:
        exported = bound.step.export(fitted.params[bound.key])
        arrays: dict[str, np.ndarray] = {}
        text = json.dumps(pack(exported, arrays))
        back = unpack(json.loads(text), read_arrays(write_arrays(arrays), 1 << 24))
        assert params_digest(back) == params_digest(exported)
        restored.params[bound.key] = back
    for column, values in values_of(graph, restored, SAMPLE.table).items():
        np.testing.assert_array_equal(values, expected[column])


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_column_of_the_wrong_type_is_refused_by_name(name):
    accepts = STEPS[name].accepts
    refused = [dtype for dtype in ROLES["all"] if dtype not in accepts]
    if name in ("select", "drop", "drop_constant", "cast"):
        assert not refused
    for dtype in refused:
        config = {**EXAMPLES[name][0], "columns": ["odd one"]}
        with pytest.raises(ConfigError) as error:
            bind([Feature("odd one", dtype)], [make(name, **config)], BINARY)
        for word in (repr(name), "'odd one'", dtype):
            assert word in error.value.message
        assert error.value.hint


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_unknown_parameter_is_refused(name):
    with pytest.raises(ValidationError, match="extra_forbidden"):
        make(name, **EXAMPLES[name][0], surprise=1)


@pytest.mark.parametrize(("name", "config"), [
    ("impute", {"strategy": "constant", "fill_value": float("nan")}),
    ("clip", {"by": "value", "lower": float("inf")}),
    ("target_encode", {"smooth": -1}), ("target_encode", {"smooth": float("nan")}),
    ("bin", {"bins": 1}), ("hash", {"buckets": 1}), ("one_hot", {"max_levels": 0}),
    ("clip", {}), ("clip", {"lower": 0.9, "upper": 0.1}), ("clip", {"upper": 1.5}),
    ("impute", {"fill_value": 3}), ("impute", {"strategy": "constant"}),
])
def test_impossible_parameters_are_refused(name, config):
    with pytest.raises(ValidationError):
        make(name, **config)


def test_a_step_is_frozen_and_hashable_plain_data():
    step: Step = make("scale")
    with pytest.raises(ValidationError):
        step.method = "robust"  # type: ignore[attr-defined]
    assert hash(step) == hash(make("scale"))
