"""Steps on two columns: ratios, by hand; what an explanation and a bundle make of them."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from common.harness import BINARY, Sample, learned, make, values_of
from common.quick import settings, small_table, trained_on, write_bundle

import gpupipe
from gpupipe.bundle import store
from gpupipe.bundle.contributions import by_column, column_contributions, owners
from gpupipe.errors import ConfigError, DataError
from gpupipe.steps import Feature, Target
from gpupipe.steps.graph import Bound, Fitted, Node, bind, levels
from gpupipe.transforms.pairs import LARGEST

FEATURES = [Feature("a", "float64"), Feature("b", "int64"), Feature("c", "float32")]


def sample(**columns: pa.Array) -> Sample:
    n = len(next(iter(columns.values())))
    return Sample(pa.table(columns), np.zeros(n, np.int64), np.zeros(n, np.uint8), 1)


def test_it_is_the_earlier_column_by_the_later_one_and_missing_where_that_is_no_number():
    a = [6.0, 1.0, None, 5.0, math.inf, 0.0, 1e300, -3.0, 1.0]
    b = [3, 0, 2, None, 2, 0, 1, 2, 3]
    graph, fitted, known = learned(sample(a=pa.array(a), b=pa.array(b)), [make("ratio")])
    out = values_of(graph, fitted, pa.table({"a": pa.array(a), "b": pa.array(b)}))
    assert list(out) == ["a", "b", "a_per_b"], "the columns stay"
    nan = math.nan
    np.testing.assert_array_equal(
        out["a_per_b"], [2.0, nan, nan, nan, nan, nan, nan, -1.5, 1 / 3])
    assert known.scans == [], "there is nothing to learn"


def test_what_a_float32_just_holds_stays():
    a = pa.array([LARGEST, LARGEST, -LARGEST])
    graph, fitted, _ = learned(sample(a=a, b=pa.array([1.0, 0.5, 1.0])), [make("ratio")])
    out = values_of(graph, fitted, pa.table({"a": a, "b": pa.array([1.0, 0.5, 1.0])}))["a_per_b"]
    np.testing.assert_array_equal(out, [LARGEST, math.nan, -LARGEST])


def test_every_two_columns_in_the_tables_order():
    graph = bind(FEATURES, [make("ratio", columns=["c", "a", "b"])], BINARY)
    assert [n.feature.name for n in graph.outputs] == [
        "a", "b", "c", "a_per_b", "a_per_c", "b_per_c"]
    assert graph.raw == ["a", "b", "c"]
    assert [n.origin for n in graph.outputs] == [
        "a", "b", "c", "a_per_b", "a_per_c", "b_per_c"], "a ratio belongs to no column"
    assert graph.stages[0][1:] == (("a", "b", "c"), ("a_per_b", "a_per_c", "b_per_c"))
    alone = bind(FEATURES[:1], [make("ratio")], BINARY)
    assert [n.feature.name for n in alone.outputs] == ["a"], "a role may select one, or none"
    for one in ("a", ["a*"]):
        with pytest.raises(ConfigError, match=r"takes two columns or more, and .* selects 'a' al"):
            bind(FEATURES, [make("ratio", columns=one)], BINARY)


def test_what_is_made_of_a_ratio_belongs_to_it():
    steps = [make("ratio", columns=["a", "b"]),
             make("impute", columns="a_per_b", indicator=True)]
    graph = bind(FEATURES, steps, BINARY)
    assert {n.feature.name: n.origin for n in graph.outputs} == {
        "a": "a", "b": "b", "c": "c", "a_per_b": "a_per_b", "a_per_b_missing": "a_per_b"}


def test_a_key_stays_short_where_columns_meet_again_and_again():
    node = Node(Feature("a", "float64"))
    for _ in range(60):
        node = Node(Feature("r", "float64"), Bound(make("ratio"), node, (node,)))
    assert len(node.key) < 1_000
    assert node.raws == ("a",)


def test_a_scan_waits_for_both_columns():
    steps = [make("impute", columns="a"), make("impute", columns="b", strategy="constant",
                                               fill_value=1), make("ratio", columns=["a", "b"]),
             make("scale", columns="a_per_b")]
    graph = bind(FEATURES, steps, BINARY)
    assert [sorted(scan) for scan in levels(graph)] == [["impute(a)"], ["scale(a_per_b)"]]


def test_a_name_that_is_taken_is_refused():
    taken = [*FEATURES, Feature("a_per_b", "float64")]
    with pytest.raises(ConfigError, match="step 'ratio' makes a second column named 'a_per_b'"):
        bind(taken, [make("ratio", columns=["a", "b"])], BINARY)
    with pytest.raises(ConfigError, match="'a_per_b'") as twice:
        bind(FEATURES, [make("ratio", columns=["a", "b"]), make("ratio", columns=["a", "b", "c"])],
             BINARY)
    assert "name every two columns once" in twice.value.hint
    with pytest.raises(ConfigError, match="step 'ratio' cannot take column 's'"):
        bind([*FEATURES, Feature("s", "string")], [make("ratio", columns=["a", "s"])], BINARY)


def test_what_a_ratio_adds_is_its_columns_in_equal_parts(tmp_path):
    whole = by_column(np.array([[1.0, 4.0]]), [("d",), ("c", "d")], ["c", "d"])
    np.testing.assert_array_equal(whole, [[2.0, 3.0]])
    table = small_table()
    config = settings("regression", features=[
        {"ratio": {"columns": ["f", "narrow"]}}, {"ordinal": {"columns": "s"}},
        {"drop": {"columns": "t"}}])
    write_bundle(trained_on(table, config, tmp_path / "cache"), tmp_path / "bundle")
    bundle = gpupipe.load(tmp_path / "bundle")
    assert ("f", "narrow") in owners(bundle)
    found = column_contributions(bundle, table)
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base, bundle.scores(table),
                               rtol=1e-4)


def test_a_bundle_whose_ratio_has_one_column_is_refused(tmp_path):
    graph = bind(FEATURES, [make("ratio", columns=["a", "b"])], BINARY)
    fitted = Fitted({bound.key: {} for bound in graph.bound})
    told = store._describe(graph, fitted)
    again, _ = store._rebuild(told, Target("binary", ("0", "1")))
    assert [n.key for n in again.outputs] == [n.key for n in graph.outputs]
    for nowhere in (-1, 0, 7):
        odd = {**told["steps"][0], "others": [
            {"from": ["step", nowhere, 0], **told["steps"][0]["input_feature"]}]}
        with pytest.raises(DataError, match=rf"of step {nowhere}, which does not come before it"):
            store._rebuild({**told, "steps": [odd]}, Target("binary", ("0", "1")))
    del told["steps"][0]["others"]
    with pytest.raises(DataError, match=r"'ratio' in bundle\.json is malformed: it has 1 columns"):
        store._rebuild(told, Target("binary", ("0", "1")))
