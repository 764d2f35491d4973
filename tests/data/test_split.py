"""A row's bucket is a function of the row, and every split keeps its promise."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from common.harness import as_dataset, random_sample
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.data.reader import Reader
from gpupipe.data.split import CROSSFIT, Split, hash_split, place_of, time_split
from gpupipe.engine.hashing import mix64
from gpupipe.engine.local import LocalEngine
from gpupipe.errors import DataError
from gpupipe.steps.profile import row_hash, take_profile


def keys_of(table: pa.Table, columns: list[str] | None = None, part_rows: int = 10**6,
            batch_rows: int = 10**6) -> np.ndarray:
    """Row hashes in row order, through the profile."""
    reader = Reader(as_dataset(table, part_rows), LocalEngine(1, batch_rows))
    profile = take_profile(reader, target=None, key=columns)
    return np.concatenate([f.key for f in profile.facts])


def buckets_of(split: Split, place: np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
    return split.assign(place, group)


def hashes(n: int, seed: int = 0) -> np.ndarray:
    return mix64(np.arange(n, dtype=np.uint64) + np.uint64(seed * 10**9), np)


def split_at_random(keys: np.ndarray, seed: int = 0, holdout: float = 0.2, folds: int = 5,
                    group: np.ndarray | None = None, classes: int = 1, parts: int = 1
                    ) -> tuple[Split, np.ndarray]:
    place = place_of(keys, seed)
    group = np.zeros(len(keys), np.int64) if group is None else group
    split = hash_split("random", np.array_split(place, parts), np.array_split(group, parts),
                       classes, holdout, folds, seed)
    return split, buckets_of(split, place, group)


# What a row is


def test_a_rows_key_does_not_depend_on_order_parts_or_batches():
    table = random_sample(500, seed=0).table
    expected = keys_of(table)
    order = np.random.default_rng(1).permutation(500)
    np.testing.assert_array_equal(keys_of(table.take(order), part_rows=37, batch_rows=10),
                                  expected[order])


def test_a_rows_key_does_not_depend_on_the_order_of_columns():
    table = random_sample(200, seed=0).table
    np.testing.assert_array_equal(keys_of(table.select(table.column_names[::-1])), keys_of(table))


def test_equal_numbers_have_equal_keys_in_every_type():
    values = [0, 1, -7, 2**31 - 1, -(2**31), None]
    kinds = [pa.int32(), pa.int64(), pa.float64()]
    first, *others = (keys_of(pa.table({"x": pa.array(values, kind)})) for kind in kinds)
    for other in others:
        np.testing.assert_array_equal(first, other)
    exact = [0.0, 1.5, -2.25, None]
    np.testing.assert_array_equal(keys_of(pa.table({"x": pa.array(exact, pa.float32())})),
                                  keys_of(pa.table({"x": pa.array(exact, pa.float64())})))


def test_text_has_one_key_dictionary_encoded_or_not():
    words = pa.array(["a", "", None, "漢字", "a", "a longer word than eight bytes"])
    plain, encoded = keys_of(pa.table({"s": words})), keys_of(
        pa.table({"s": words.dictionary_encode()}))
    np.testing.assert_array_equal(plain, encoded)
    np.testing.assert_array_equal(keys_of(pa.table({"s": words.cast(pa.large_string())})), plain)
    assert len(set(plain.tolist())) == 5


def test_both_zeros_have_one_key_and_so_have_all_nans_and_nulls():
    payloads = np.array([0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001], np.uint64)
    x = np.concatenate([[0.0, -0.0], payloads.view(np.float64)])
    keys = keys_of(pa.table({"x": pa.array(x), "s": ["same"] * 5}))
    assert keys[0] == keys[1]
    assert keys[2] == keys[3] == keys[4] != keys[0]
    null = keys_of(pa.table({"x": pa.array([None], pa.float64()), "s": ["same"]}))
    assert null[0] == keys[2]


def test_a_value_in_another_column_makes_another_row():
    a = keys_of(pa.table({"x": [1, 2, None], "y": [2, 1, 3]}))
    b = keys_of(pa.table({"x": [1, 2, 3], "y": [2, 1, None]}))
    assert a[0] != a[1]
    assert a[2] != b[2]


def test_every_column_of_the_key_and_no_other_counts():
    table = pa.table({"id": [1, 1, 2], "v": [1.0, 2.0, 1.0]})
    by_id = keys_of(table, ["id"])
    assert by_id[0] == by_id[1] != by_id[2]
    both = keys_of(table, ["id", "v"])
    assert len(set(both.tolist())) == 3


# Random splits


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8), st.sampled_from([0.0, 0.1, 0.33]),
       st.integers(1, 5))
def test_the_same_rows_fall_into_the_same_buckets_in_any_order_and_partition(
    seed, folds, holdout, parts
):
    keys = hashes(400, seed % 7)
    split, bucket = split_at_random(keys, seed, holdout, folds)
    order = np.random.default_rng(seed).permutation(400)
    again, shuffled = split_at_random(keys[order], seed, holdout, folds, parts=parts)
    assert split.to_json() == again.to_json()
    np.testing.assert_array_equal(shuffled, bucket[order])


def test_duplicates_stay_together():
    rng = np.random.default_rng(0)
    table = pa.table({"x": rng.integers(0, 50, 2000), "s": rng.choice(["a", "b", None], 2000)})
    keys = keys_of(table)
    _, bucket = split_at_random(keys)
    by_row: dict = {}
    for row, b in zip(table.to_pylist(), bucket, strict=True):
        by_row.setdefault(tuple(row.values()), set()).add(int(b))
    assert len(by_row) > 100
    assert all(len(found) == 1 for found in by_row.values())


@pytest.mark.parametrize("n", [100, 1_003, 50_000])
@pytest.mark.parametrize(("holdout", "folds"), [(0.2, 5), (0.0, 3), (0.25, 0)])
def test_shares_are_right_to_a_row_or_two_to_the_minus_sixteen(n, holdout, folds):
    split, bucket = split_at_random(hashes(n), 0, holdout, folds)
    inner = folds or CROSSFIT
    sizes = np.bincount(bucket, minlength=split.buckets)
    assert sizes[split.nowhere] == 0
    # A share lies between two cuts, each right to the rows that share a place.
    allowed = 2 * max(1, n / 65_536)
    if holdout:
        assert abs(sizes[0] - n * holdout) <= allowed
    wanted = n * (1 - holdout) / inner
    assert (abs(sizes[list(split.train)] - wanted) <= 2 * allowed).all()


def test_each_fold_is_judged_by_what_the_others_trained():
    split, _ = split_at_random(hashes(1000), folds=4)
    assert [f.valid for f in split.folds] == [(b,) for b in split.train]
    for fold in split.folds:
        assert set(fold.train) | set(fold.valid) == set(split.train)
        assert not set(fold.train) & (set(fold.valid) | set(split.holdout))


def test_a_seed_changes_the_split():
    keys = hashes(5_000)
    found = [split_at_random(keys, seed)[1] for seed in (0, 1, 2)]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        # Two independent splits into .2 + 5 x .16 agree in .2^2 + 5 x .16^2 = .168 of the rows.
        assert 0.14 < (found[a] == found[b]).mean() < 0.20


def test_a_split_is_blind_to_what_the_row_holds():
    """Neighbouring numbers and names do not end up in the same bucket more often than not."""
    table = pa.table({"id": np.arange(20_000)})
    _, bucket = split_at_random(keys_of(table, ["id"]))
    assert 0.15 < (bucket[:-1] == bucket[1:]).mean() < 0.185


# Stratified splits


def test_stratified_shares_are_right_to_a_row_within_each_class():
    rng = np.random.default_rng(0)
    group = rng.choice([0, 1, 2, -1], 10_000, p=[0.9, 0.07, 0.01, 0.02])
    split, bucket = split_at_random(hashes(10_000), group=group, classes=3)
    for code in range(3):
        sizes = np.bincount(bucket[group == code], minlength=split.buckets)
        n = sizes.sum()
        assert abs(sizes[0] - 0.2 * n) <= 1 + n / 65_536
        assert (abs(sizes[1:6] - 0.16 * n) <= 2 + n / 65_536).all()
    assert (bucket[group < 0] == split.nowhere).all()
    assert (bucket[group >= 0] != split.nowhere).all()


def test_a_stratified_split_is_a_function_of_the_row():
    group = np.random.default_rng(0).integers(0, 3, 3000)
    keys = hashes(3000)
    order = np.random.default_rng(1).permutation(3000)
    _, bucket = split_at_random(keys, group=group, classes=3)
    _, again = split_at_random(keys[order], group=group[order], classes=3, parts=4)
    np.testing.assert_array_equal(again, bucket[order])


def test_a_row_without_a_target_takes_part_in_nothing_and_moves_no_cut():
    keys, known = hashes(1000), np.arange(1000) % 3 > 0
    split, bucket = split_at_random(keys, group=np.where(known, 0, -1))
    without, rest = split_at_random(keys[known])
    assert split.to_json() == without.to_json()
    np.testing.assert_array_equal(bucket[known], rest)


# Group splits


def test_a_group_is_never_torn():
    rng = np.random.default_rng(0)
    table = pa.table({"who": rng.integers(0, 300, 6000), "x": rng.normal(size=6000)})
    reader = Reader(as_dataset(table, 1000), LocalEngine(2, 300))
    profile = take_profile(reader, target=None, group=["who"])
    keys = np.concatenate([f.group for f in profile.facts])
    split = hash_split("group", [place_of(keys, 0)], [np.zeros(6000, np.int64)], 1, 0.2, 5, 0)
    bucket = split.assign(place_of(keys, 0))
    who = table.column("who").to_numpy()
    assert all(len(set(bucket[who == w])) == 1 for w in range(300))
    assert abs((bucket == 0).mean() - 0.2) < 0.01


def test_too_few_groups_are_refused_by_name():
    keys = np.repeat(hashes(2), 50)
    with pytest.raises(DataError, match="too few groups") as error:
        hash_split("group", [place_of(keys, 0)], [np.zeros(100, np.int64)], 1, 0.2, 5, 0)
    assert error.value.hint


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_rows_are_refused(n):
    with pytest.raises(DataError, match="too few distinct rows"):
        split_at_random(hashes(n), folds=5)


# Time splits


def split_by_time(times: np.ndarray, holdout: float = 0.2, folds: int = 4, gap: float = 0.0,
                  known: np.ndarray | None = None) -> tuple[Split, np.ndarray]:
    known = np.ones(len(times), bool) if known is None else known
    split = time_split([times], [known], holdout, folds, gap, "when", 0)
    return split, split.assign(times, np.where(known, 0, -1))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.0, 0.2, 0.5]), st.integers(0, 6),
       st.sampled_from([0.0, 1.0, 12.5]))
def test_what_trains_a_fold_lies_strictly_before_it_less_the_gap(seed, holdout, folds, gap):
    rng = np.random.default_rng(seed)
    times = np.round(rng.uniform(0, 1000, 400))
    split, bucket = split_by_time(times, holdout, folds, gap)
    pairs = [(f.train, f.valid) for f in split.folds]
    pairs += [(split.train, split.holdout)] if split.holdout else []
    for train, judged in pairs:
        last = times[np.isin(bucket, train)].max()
        first = times[np.isin(bucket, judged)].min()
        assert last < first - gap
    assert not (bucket == split.nowhere).any()


def test_time_shares_are_right_to_a_row_and_the_blocks_cover_everything():
    times = np.random.default_rng(0).permutation(1000).astype(float)
    split, bucket = split_by_time(times, 0.2, 4)
    assert (bucket == split.holdout[0]).sum() == 200
    assert times[bucket == split.holdout[0]].min() == 800
    for i, fold in enumerate(split.folds):
        np.testing.assert_array_equal(np.sort(times[np.isin(bucket, fold.valid)]),
                                      np.arange(160.0) + 160 * (i + 1))
        np.testing.assert_array_equal(np.sort(times[np.isin(bucket, fold.train)]),
                                      np.arange(160.0 * (i + 1)))


def test_a_time_split_is_a_function_of_the_moment():
    times = np.round(np.random.default_rng(0).uniform(0, 50, 500))
    split, bucket = split_by_time(times, gap=3)
    order = np.random.default_rng(1).permutation(500)
    parts = np.array_split(times[order], 3)
    again = time_split(parts, [np.ones(len(p), bool) for p in parts], 0.2, 4, 3, "when", 0)
    assert again.to_json() == split.to_json()
    for moment in np.unique(times):
        assert len(set(bucket[times == moment])) == 1


def test_rows_within_the_gap_train_nothing_that_judges_after_it():
    times = np.arange(100.0)
    split, bucket = split_by_time(times, 0.2, 0, gap=10)
    assert times[np.isin(bucket, split.train)].max() == 69
    assert times[np.isin(bucket, split.holdout)].min() == 80


def test_a_missing_moment_is_refused_by_column():
    with pytest.raises(DataError, match=r"split.time: column 'when' is missing in 2 rows"):
        split_by_time(np.array([1.0, np.nan, 3.0, np.nan]))


@pytest.mark.parametrize("times", [np.zeros(50), np.array([1.0, 2.0]), np.repeat([1.0, 2.0], 50)])
def test_too_few_moments_are_refused(times):
    with pytest.raises(DataError, match="too few distinct moments") as error:
        split_by_time(times)
    assert error.value.hint


def test_a_time_split_without_any_target_is_refused():
    with pytest.raises(DataError, match="no row has a target"):
        split_by_time(np.arange(10.0), known=np.zeros(10, bool))


def test_row_hash_salts_each_column_by_its_name():
    fx = LocalEngine(1).fx
    frame = fx.frame(pa.table({"a": [1, 2], "b": [1, 2]}))
    batch = {n: fx.column(frame, n, "int64") for n in "ab"}
    assert (row_hash(batch, ["a"], fx) != row_hash(batch, ["b"], fx)).all()
    assert (row_hash(batch, ["a", "b"], fx) == row_hash(batch, ["b", "a"], fx)).all()
