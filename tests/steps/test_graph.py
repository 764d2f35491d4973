"""Selectors, names, and how many passes learning takes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from common.harness import BINARY, Sample, learned, make, random_sample, values_of

from gpupipe.errors import ConfigError, DataError
from gpupipe.steps import Feature
from gpupipe.steps.base import select
from gpupipe.steps.graph import bind
from gpupipe.steps.graph import levels as scans_of
from gpupipe.steps.profile import take_profile
from gpupipe.steps.scan import View, learn

FEATURES = [
    Feature("age", "int64"), Feature("income", "float64"), Feature("income_2", "float32"),
    Feature("sex", "string"), Feature("native-country", "string"), Feature("when", "timestamp"),
    Feature("member", "bool"),
]


@pytest.mark.parametrize(("selector", "expected"), [
    ("age", ["age"]),
    (["sex", "age"], ["age", "sex"]),
    ("income*", ["income", "income_2"]),
    ("native-*", ["native-country"]),
    ("[as]*", ["age", "sex"]),
    ("numeric", ["age", "income", "income_2"]),
    ("categorical", ["sex", "native-country"]),
    ("boolean", ["member"]),
    ("datetime", ["when"]),
    ("float32", ["income_2"]),
    ("int64", ["age"]),
    (["numeric", "sex", "age"], ["age", "income", "income_2", "sex"]),
    ("all", [f.name for f in FEATURES]),
    ([], []),
])
def test_selectors_select_by_name_glob_role_and_type(selector, expected):
    assert [f.name for f in select(selector, FEATURES)] == expected


def test_a_role_or_type_may_select_nothing():
    assert select(["boolean", "float64"], FEATURES[3:5]) == []


def test_a_column_named_like_a_role_is_that_column():
    features = [Feature("numeric", "string"), Feature("x", "float64")]
    assert [f.name for f in select("numeric", features)] == ["numeric"]


@pytest.mark.parametrize(("selector", "near"), [
    ("incme", "income"), ("native_country", "native-country"), ("numerical", "numeric"),
    ("Sex", "sex"),
])
def test_a_name_that_selects_nothing_is_refused_with_the_nearest_one(selector, near):
    with pytest.raises(ConfigError, match=f"'{selector}' selects no column") as error:
        select(selector, FEATURES)
    assert error.value.hint == f"did you mean {near!r}?"


def test_a_glob_that_selects_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"'zzz\*' selects no column here; there are age, "):
        select("zzz*", FEATURES)


def test_an_error_names_the_position_of_its_step():
    with pytest.raises(ConfigError) as error:
        bind(FEATURES, [make("log"), make("scale", columns="nothing")], BINARY)
    assert error.value.position == 1


def test_all_leaves_out_what_a_step_does_not_take_but_a_name_does_not():
    graph = bind(FEATURES, [make("scale", columns="all")], BINARY)
    kinds = {n.feature.name: n.feature.dtype for n in graph.outputs}
    assert kinds["age"] == "float64"
    assert kinds["sex"] == "string"
    listed = bind(FEATURES, [make("scale", columns=["all"])], BINARY)
    assert [n.feature for n in listed.outputs] == [n.feature for n in graph.outputs]
    with pytest.raises(ConfigError, match="cannot take column 'sex': it is string"):
        bind(FEATURES, [make("scale", columns=["sex"])], BINARY)


def test_a_one_hot_column_can_only_be_selected_or_dropped():
    with pytest.raises(ConfigError, match="'sex': it was one-hot encoded by an earlier step"):
        bind(FEATURES, [make("one_hot", columns="sex"), make("ordinal", columns="sex")], BINARY)
    graph = bind(FEATURES, [make("one_hot", columns="sex"), make("drop", columns="sex")], BINARY)
    assert "sex" not in [n.feature.name for n in graph.outputs]


@pytest.mark.parametrize(("features", "step", "clash"), [
    ([Feature("x", "float64"), Feature("x_missing", "float64")],
     make("impute", columns="x", indicator=True), "x_missing"),
    ([Feature("t_year", "float64"), Feature("t", "timestamp")],
     make("datetime", parts=["year"]), "t_year"),
    ([Feature("t", "timestamp")], make("datetime", parts=["year", "year"]), "t_year"),
])
def test_two_columns_of_one_name_are_refused(features, step, clash):
    with pytest.raises(ConfigError, match=f"step '{step.name}' makes a second column named "
                                          f"'{clash}'"):
        bind(features, [step], BINARY)


def test_a_dropped_columns_name_is_free_again():
    features = [Feature("x", "float64"), Feature("x_missing", "float64")]
    graph = bind(features, [make("drop", columns="x_missing"), make("impute", indicator=True)],
                 BINARY)
    assert [n.feature.name for n in graph.outputs] == ["x", "x_missing"]


def test_select_drop_and_drop_constant_choose_columns():
    def left(*steps, constant=frozenset()):
        return [n.feature.name for n in bind(FEATURES, steps, BINARY, constant).outputs]

    assert left(make("select", columns=["sex", "num*", "numeric"][::2])) == [
        "age", "income", "income_2", "sex"]
    assert left(make("drop", columns=["income*", "when"])) == [
        "age", "sex", "native-country", "member"]
    assert "age" not in left(make("drop_constant"), constant=frozenset({"age"}))
    assert "age" in left(make("drop_constant", columns=["sex"]), constant=frozenset({"age"}))


def test_columns_with_one_value_or_none_are_constant_and_no_others():
    sample = Sample(pa.table({
        "same": [1, 1, 1], "text": ["a"] * 3, "null": pa.nulls(3, pa.float64()),
        "holes": pa.array([1.0, None, 1.0]), "two": [1, 1, 2], "zeros": [0.0, -0.0, 0.0],
        "yes": [True] * 3, "when": pa.array([5, 5, 5], pa.timestamp("us")),
    }), np.zeros(3, np.int64), np.zeros(3, np.uint8), 1)
    source = sample.rowed(part_rows=2)
    constant = take_profile(source.reader, target=None).constant()
    assert constant == {"same", "text", "null", "zeros", "yes", "when"}


# Passes over the data


def passes(sample: Sample, steps: list, folds: int = 3, profiled: bool = True):
    graph = bind(sample.features, steps, BINARY)
    buckets = tuple(range(folds))
    views = [View("final", buckets)]
    views += [View(str(k), tuple(b for b in buckets if b != k)) for k in buckets]
    source = Sample(sample.table, sample.target, (sample.bucket % folds).astype(np.uint8),
                    folds).rowed(part_rows=200, batch_rows=200)
    profile = take_profile(source.reader, target=None).states if profiled else None
    _, knowledge = learn([graph], views, source, profile)
    return graph, knowledge.scans


WIDE = random_sample(300, seed=0, buckets=60)
NUMBERS, TEXT = ["f", "i", "narrow"], ["s", "many"]
PASSES = {
    "nothing to learn": ([make("log"), make("hash", columns=TEXT)], 0),
    "one step": ([make("impute", columns=NUMBERS, strategy="mean")], 1),
    "many steps side by side": (
        [make("impute", columns=["f"]), make("scale", columns=["i"], method="min_max"),
         make("bin", columns=["narrow"]), make("one_hot", columns="s"),
         make("target_encode", columns="many")], 1),
    "a chain of two": ([make("clip", columns=NUMBERS, by="value", upper=100),
                        make("scale", columns=NUMBERS, method="min_max"),
                        make("scale", columns=NUMBERS)], 2),
    "a stateless step between": ([make("impute", columns=NUMBERS), make("log", columns=NUMBERS),
                                  make("scale", columns=NUMBERS, method="min_max")], 2),
    "a quantile of what a step made": ([make("impute", columns=NUMBERS),
                                        make("scale", columns=NUMBERS, method="robust")], 3),
    "the longest chain counts": (
        [make("impute", columns=NUMBERS, strategy="mean"), make("scale", columns=["f"]),
         make("bin", columns=["f"], strategy="uniform"), make("count", columns=TEXT)], 2),
    "moments of what was imputed follow from the column's own": (
        [make("impute", columns=NUMBERS, strategy="mean"), make("scale", columns=NUMBERS)], 1),
    "and so they do over two steps": (
        [make("impute", columns=["f"]), make("impute", columns=["f"], strategy="constant",
                                             fill_value=0), make("scale", columns=["f"])], 1),
    "a median of what a step made": ([make("scale", columns=["f"]), make("impute", columns=["f"])],
                                     3),
}


@pytest.mark.parametrize("folds", [2, 9])
@pytest.mark.parametrize("name", PASSES)
def test_passes_are_those_of_the_longest_chain_as_the_plan_promises(name, folds):
    steps, expected = PASSES[name]
    graph, scans = passes(WIDE, steps, folds)
    levels = scans_of(graph)
    assert len(scans) == len(levels) == expected
    assert all(levels)


def test_a_pass_reads_only_the_columns_that_still_learn():
    _, scans = passes(WIDE, [
        make("impute", columns=["f", "i"], strategy="mean"), make("scale", columns=["f"]),
        make("count", columns="s"), make("log", columns="narrow"),
        make("bin", columns=["f"], strategy="uniform"),
    ])
    assert [set(s) for s in scans] == [{"f", "i", "s"}, {"f"}]


def test_without_a_profile_a_quantile_takes_a_look_more():
    _, scans = passes(WIDE, [make("impute", columns=["f"])], profiled=False)
    assert len(scans) == 2


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent", "constant"])
def test_moments_that_follow_are_those_that_a_scan_would_find(strategy):
    fill = {"fill_value": -7.25} if strategy == "constant" else {}
    names = ["f", "wild", "narrow", "i", "b"]
    impute = make("impute", columns=names, strategy=strategy, **fill)
    graph, fitted, _ = learned(WIDE, [impute, make("scale", columns=names)])
    middle = values_of(*learned(WIDE, [impute])[:2], WIDE.table)
    full = Sample(pa.table({n: middle[n] for n in names}), WIDE.target, WIDE.bucket, WIDE.buckets)
    alone, scanned, _ = learned(full, [make("scale", columns=names)])
    found = [fitted.params[b.key] for b in graph.bound if b.step.name == "scale"]
    assert found == [scanned.params[b.key] for b in alone.bound]


def test_two_pipelines_share_their_passes():
    source = WIDE.rowed(part_rows=100)
    graphs = [bind(WIDE.features, steps, BINARY) for steps in (
        [make("scale", columns=["f"]), make("bin", columns=["f"], strategy="uniform")],
        [make("one_hot", columns="s"), make("scale", columns=["i"])],
    )]
    fitted, knowledge = learn(graphs, [View("all", tuple(range(60)))], source)
    assert len(knowledge.scans) == 2
    for graph, (own,) in zip(graphs, fitted, strict=True):
        alone = learned(WIDE, graph)[1]
        a, b = (values_of(graph, f, WIDE.table) for f in (own, alone))
        for name, values in a.items():
            np.testing.assert_array_equal(values, b[name])


def test_learning_from_a_table_without_rows_is_refused():
    empty = Sample(WIDE.table.slice(0, 0), np.zeros(0, np.int64), np.zeros(0, np.uint8), 1)
    with pytest.raises(DataError, match="no rows to learn from"):
        learned(empty, [make("scale")])
