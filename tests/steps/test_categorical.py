"""Encoders give what scikit-learn's give, and keep their rules for the unseen and the missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from common.harness import Sample, learned, make, values_of
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from gpupipe.steps.graph import feature_names

LAYOUT = {"part_rows": 4000, "batch_rows": 3000}


def sample_of(table: pa.Table) -> Sample:
    n = table.num_rows
    return Sample(table, np.zeros(n, np.int64), np.zeros(n, np.uint8), 1)


def encoded(train: pa.Table, table: pa.Table, name: str, **config) -> dict[str, np.ndarray]:
    graph, fitted, knowledge = learned(sample_of(train), [make(name, **config)], **LAYOUT)
    assert len(knowledge.scans) <= 1
    names = [n for n, _ in feature_names(graph, fitted)]
    out = values_of(graph, fitted, table)
    assert list(out) == names
    return out


@pytest.fixture(scope="module")
def adult(shared_data) -> pd.DataFrame:
    frame = pd.read_csv(shared_data / "adult" / "adult.data", skipinitialspace=True)
    return frame[["workclass", "education", "race", "native-country"]].astype(object)


def arrow(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def test_one_hot_equals_scikit_learns_on_every_level(adult):
    train, table = adult[:20_000], adult[20_000:]
    ours = encoded(arrow(train), arrow(table), "one_hot", max_levels=1000)
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(train)
    theirs = dict(zip(encoder.get_feature_names_out(), encoder.transform(table).T, strict=True))
    assert set(ours) == set(theirs)
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name])


@pytest.mark.parametrize("minimum", [50, 700])
def test_one_hot_with_min_frequency_equals_scikit_learns_infrequent_column(adult, minimum):
    train, table = adult[:20_000], adult[20_000:]
    ours = encoded(arrow(train), arrow(table), "one_hot", min_frequency=minimum, max_levels=1000)
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="infrequent_if_exist",
                            min_frequency=minimum).fit(train)
    theirs = dict(zip(encoder.get_feature_names_out(), encoder.transform(table).T, strict=True))
    renamed = {n.replace("_(other)", "_infrequent_sklearn"): v for n, v in ours.items()}
    assert set(renamed) == set(theirs)
    for name, values in renamed.items():
        np.testing.assert_array_equal(values, theirs[name])


def test_one_hot_with_max_levels_keeps_that_many_and_one_column_for_the_rest(adult):
    """scikit-learn's max_categories counts the infrequent column too."""
    train, table = adult[["education"]][:20_000], adult[["education"]][20_000:]
    ours = encoded(arrow(train), arrow(table), "one_hot", max_levels=4)
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="infrequent_if_exist",
                            max_categories=5).fit(train)
    theirs = dict(zip(encoder.get_feature_names_out(), encoder.transform(table).T, strict=True))
    renamed = {n.replace("_(other)", "_infrequent_sklearn"): v for n, v in ours.items()}
    assert len(renamed) == 5
    assert set(renamed) == set(theirs)
    for name, values in renamed.items():
        np.testing.assert_array_equal(values, theirs[name])


TRAIN = pa.table({"s": ["a", "a", "a", "b", "b", "c", None]})
NEW = pa.table({"s": ["a", "c", "never", None]})


@pytest.mark.parametrize(("train", "config", "expected"), [
    (TRAIN, {}, {"s_a": "1000", "s_b": "0000", "s_c": "0100", "s_(missing)": "0001"}),
    (TRAIN, {"max_levels": 2},
     {"s_a": "1000", "s_b": "0000", "s_(other)": "0110", "s_(missing)": "0001"}),
    (TRAIN, {"min_frequency": 4}, {"s_(other)": "1110", "s_(missing)": "0001"}),
    (TRAIN.slice(0, 6), {}, {"s_a": "1000", "s_b": "0000", "s_c": "0100"}),
    (TRAIN.slice(0, 6), {"min_frequency": 2}, {"s_a": "1000", "s_b": "0000", "s_(other)": "0110"}),
    (TRAIN.slice(6), {}, {"s_(missing)": "0001"}),
])
def test_one_hot_keeps_its_rule_for_rare_unseen_and_missing_levels(train, config, expected):
    found = encoded(train, NEW, "one_hot", **config)
    assert {n: "".join(str(int(x)) for x in v) for n, v in found.items()} == expected
    assert list(found) == list(expected)


def test_a_level_that_is_called_like_a_column_of_ours_keeps_its_own():
    train = pa.table({"s": ["(other)", "(other)", "a", "a", "b", "(missing)", None]})
    found = encoded(train, train, "one_hot", max_levels=2)
    assert list(found) == ["s_'(other)'", "s_a", "s_(other)", "s_(missing)"]
    assert found["s_'(other)'"].tolist() == [1, 1, 0, 0, 0, 0, 0]


def test_one_hot_names_booleans_and_numbers_plainly():
    table = pa.table({"b": [True, False, True], "i": [3, 3, -1]})
    found = encoded(table, table, "one_hot", columns=["b", "i"])
    assert list(found) == ["b_true", "b_false", "i_3", "i_-1"]


def test_ordinal_sorts_rows_into_the_same_sets_as_scikit_learn(adult):
    train, table = adult[:20_000], adult[20_000:]
    ours = encoded(arrow(train), arrow(table), "ordinal")
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan,
                             encoded_missing_value=np.nan).fit(train)
    theirs = encoder.transform(table)
    for i, name in enumerate(train):
        np.testing.assert_array_equal(np.isnan(ours[name]), np.isnan(theirs[:, i]))
        known = ~np.isnan(ours[name])
        pairs = set(zip(ours[name][known], theirs[known, i], strict=True))
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_ordinal_ranks_by_count_then_by_value(adult):
    ours = encoded(arrow(adult), arrow(adult), "ordinal")
    for name in adult:
        counts = adult[name].value_counts()
        order = sorted(counts.index, key=lambda v, c=counts: (-c[v], v.encode()))
        rank = {v: i for i, v in enumerate(order)}
        np.testing.assert_array_equal(ours[name], adult[name].map(rank).to_numpy(float))


@pytest.mark.parametrize(("config", "expected"), [
    ({}, [0, 2, np.nan, np.nan]), ({"max_levels": 1}, [0, 1, np.nan, np.nan]),
    ({"min_frequency": 2}, [0, 2, np.nan, np.nan]), ({"min_frequency": 9}, [0, 0, np.nan, np.nan]),
])
def test_ordinal_keeps_its_rule_for_rare_unseen_and_missing_levels(config, expected):
    np.testing.assert_array_equal(encoded(TRAIN, NEW, "ordinal", **config)["s"], expected)


def test_count_is_pandas_value_counts_with_missing_a_value_like_any_other(adult):
    frame = adult.where(adult != "Private", None)
    table = arrow(frame)
    ours = encoded(table, table, "count")
    share = encoded(table, table, "count", normalize=True)
    for name in frame:
        counts = frame[name].value_counts(dropna=False)
        text = {None if pd.isna(k) else k: v for k, v in counts.items()}
        expected = np.array([text[None if pd.isna(v) else v] for v in frame[name]], float)
        np.testing.assert_array_equal(ours[name], expected)
        np.testing.assert_allclose(share[name], expected / len(frame), rtol=1e-15)


def test_count_of_a_level_never_seen_is_zero():
    assert encoded(TRAIN, NEW, "count")["s"].tolist() == [3, 1, 0, 1]


def test_hash_needs_no_learning_spreads_evenly_and_keeps_missing():
    words = [f"user-{i}" for i in range(20_000)]
    table = pa.table({"s": [*words, None]})
    found = encoded(table, table, "hash", buckets=16)["s"]
    assert np.isnan(found[-1])
    sizes = np.bincount(found[:-1].astype(int), minlength=16)
    # Chi-squared with 15 degrees of freedom: above 37.7 once in a thousand.
    assert ((sizes - 1250) ** 2 / 1250).sum() < 37.7
    again = encoded(table, table.slice(5, 3), "hash", buckets=16)["s"]
    assert again.tolist() == found[5:8].tolist()


def test_an_integer_level_that_only_fills_masked_places_is_no_level():
    table = pa.table({"i": pa.array([1, 2, 2, None], pa.int64())})
    assert list(encoded(table, table, "one_hot", columns="i")) == ["i_2", "i_1", "i_(missing)"]


@pytest.mark.parametrize("kind", [pa.int64(), pa.float32(), pa.float64(), pa.bool_(), pa.string()])
@pytest.mark.parametrize("name", ["one_hot", "ordinal", "count", "hash"])
def test_an_all_null_column_of_any_type_can_be_encoded(name, kind):
    table = pa.table({"c": pa.nulls(4, kind)})
    assert all(len(v) == 4 for v in encoded(table, table, name, columns=["c"]).values())
