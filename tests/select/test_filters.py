"""Variance, correlation and mutual information, against scikit-learn, SciPy and pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import NAMES, chosen, numbers, problem
from scipy.stats import rankdata
from sklearn.feature_selection import VarianceThreshold, mutual_info_classif
from sklearn.metrics import mutual_info_score

from gpupipe.errors import ConfigError
from gpupipe.models import Matrix
from gpupipe.select import METHODS
from gpupipe.select.filters import SHARED_ROWS, binned, correlations, mutual_information, ranks


def of(x: np.ndarray, y: np.ndarray | None = None, names=None, parts=(), origins=(),
       categorical=None) -> Matrix:
    width = x.shape[1]
    names = names or tuple(f"c{i}" for i in range(width))
    y = np.arange(len(x)) % 2 if y is None else y
    return Matrix(tuple(np.array_split(x.astype(np.float32), 4)), y, None, names,
                  categorical or (False,) * width, origins, parts)


# Variance


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.2, 0.9])
def test_variance_keeps_what_scikit_learns_threshold_keeps(threshold):
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(0, s, 500) for s in (1, 0.5, 0.1, 0.01)]
                 + [np.full(500, 3.0), rng.random(500) < 0.1], axis=1).astype(np.float32)
    expected = VarianceThreshold(threshold).fit(x.astype(float))
    found = chosen(of(x), ("variance", {"threshold": threshold}))
    assert found.columns == tuple(np.flatnonzero(expected.get_support()))
    scores = list(found.steps[0]["scores"].values())
    np.testing.assert_allclose(scores[:4], expected.variances_[:4], rtol=1e-6)


def test_a_value_that_is_sometimes_missing_varies_and_one_that_always_is_does_not():
    x = np.ones((400, 3))
    x[::4, 1], x[:, 2] = np.nan, np.nan
    assert chosen(of(x), "variance").kept == ("c1",)


def test_a_rare_level_is_no_constant_where_few_of_the_rows_are_looked_at():
    x = np.zeros((4000, 2))
    x[1234, 0] = 1
    assert chosen(of(x), "variance", rows=100).kept == ("c0",)


def test_codes_are_dropped_only_where_there_is_a_single_one():
    x = np.stack([np.arange(300) % 50, np.full(300, 7)], axis=1)
    found = chosen(of(x, categorical=(True, True)), ("variance", {"threshold": 1e6}))
    assert found.kept == ("c0",)


# Correlation


@given(st.integers(0, 10_000), st.booleans())
def test_correlations_are_those_of_pandas_over_the_rows_that_have_both(seed, holes):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 5)) + 1e3
    if holes:
        x[rng.random(x.shape) < 0.2] = np.nan
    expected = pd.DataFrame(x).corr().to_numpy()
    np.testing.assert_allclose(correlations(x), expected, atol=1e-8)


@given(st.lists(st.one_of(st.integers(-3, 3), st.just(None)), min_size=1, max_size=40))
def test_ranks_are_scipys(values):
    column = np.array([np.nan if v is None else v for v in values], float)[:, None]
    there = ~np.isnan(column[:, 0])
    np.testing.assert_array_equal(ranks(column)[there, 0], rankdata(column[there, 0]))
    assert np.isnan(ranks(column)[~there]).all()


def test_columns_that_are_hardly_ever_there_together_are_not_compared():
    x = np.full((500, 2), np.nan)
    x[: SHARED_ROWS - 1] = np.arange(SHARED_ROWS - 1)[:, None]
    assert correlations(x)[0, 1] == 0


def twins(n: int = 2000) -> Matrix:
    """`a` and two of its likes (one of them bent, one noisier), and one that is like none."""
    rng = np.random.default_rng(1)
    a = rng.normal(size=n)
    x = np.stack([a + rng.normal(0, 0.2, n), a, np.exp(a), rng.normal(size=n)], axis=1)
    return of(x, (a + rng.normal(0, 0.3, n) > 0).astype(np.int64), ("noisy", "a", "bent", "other"))


def test_of_features_that_say_the_same_the_one_that_says_most_of_the_target_stays():
    found = chosen(twins(), ("correlation", {"threshold": 0.9}))
    assert found.kept in (("a", "other"), ("bent", "other"))
    assert "stands for" in found.steps[0]["note"]
    assert chosen(twins(), ("correlation", {"threshold": 0.9, "kind": "pearson"})).kept == (
        "a", "bent", "other")
    assert len(chosen(twins(), ("correlation", {"threshold": 1.0})).kept) == 4


def test_whatever_is_dropped_has_a_stand_in_among_the_kept():
    rng = np.random.default_rng(3)
    walk = np.cumsum(rng.normal(size=(800, 12)), axis=1)
    found = chosen(of(walk), ("correlation", {"threshold": 0.8, "kind": "pearson"}))
    size = np.abs(np.corrcoef(walk.astype(np.float32), rowvar=False))
    kept = list(found.columns)
    assert 1 < len(kept) < 12
    for c in set(range(12)) - set(kept):
        assert size[c, kept].max() > 0.8
    assert (size[np.ix_(kept, kept)] - np.eye(len(kept)) <= 0.8).all()


# Mutual information


@given(st.integers(0, 10_000))
def test_mutual_information_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, 300), rng.integers(0, 3, 300)
    found = mutual_information(a, b, np.ones(300))
    assert found == pytest.approx(mutual_info_score(a, b), abs=1e-12)
    weight = rng.integers(1, 4, 300)
    repeated = mutual_info_score(np.repeat(a, weight), np.repeat(b, weight))
    assert mutual_information(a, b, weight.astype(float)) == pytest.approx(repeated, abs=1e-12)


def test_scores_are_scikit_learns_less_what_shuffled_targets_give():
    rng = np.random.default_rng(5)
    y = rng.integers(0, 2, 3000)
    x = np.stack([np.where(rng.random(3000) < 0.3, y, rng.integers(0, 2, 3000)),
                  rng.integers(0, 4, 3000)], axis=1)
    expected = mutual_info_classif(x, y, discrete_features=True)
    scores = chosen(of(x, y), "mutual_information").steps[0]["scores"]
    # The mean under independence is about (levels - 1)(classes - 1) / 2n.
    assert scores["c0"] == pytest.approx(expected[0] - 1 / 6000, abs=3e-4)
    assert scores["c1"] == pytest.approx(expected[1] - 3 / 6000, abs=5e-4)


@given(st.lists(st.one_of(st.floats(-5, 5, width=32), st.just(float("nan")), st.just(0.0)),
                min_size=1, max_size=200), st.integers(2, 8))
def test_bins_keep_order_ties_and_missing_values_apart(values, bins):
    x = np.array(values, np.float32)
    codes = binned(x, bins)
    there = ~np.isnan(x)
    assert codes.min() == 0 and len(np.unique(codes)) == codes.max() + 1
    if there.any() and not there.all():
        assert set(codes[~there]) == {codes.max()} and codes[there].max() < codes.max()
    for value in np.unique(x[there]):
        assert len(np.unique(codes[x == value])) == 1
    if len(np.unique(x[there])) <= bins:
        assert len(np.unique(codes[there])) == len(np.unique(x[there]))


def test_a_value_that_most_rows_have_leaves_bins_for_the_others():
    x = np.where(np.arange(2000) % 20 == 0, np.arange(2000), 0).astype(np.float32)
    counts = np.bincount(binned(x, 16))
    assert counts.max() == 1901 and len(counts) >= 15


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_what_tells_nothing_is_dropped(task):
    found = chosen(problem(task), "mutual_information", task=task)
    assert {"strong", "weak"} <= set(found.kept)
    assert len(found.kept) <= 3


def test_noise_is_kept_about_as_often_as_was_allowed():
    kept = [len(chosen(of(np.random.default_rng(s).normal(size=(300, 20)),
                          np.random.default_rng(s + 1000).integers(0, 2, 300)),
                       "mutual_information", seed=s, keep=("c0",)).kept) > 1 for s in range(40)]
    assert np.mean(kept) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)


def test_the_best_k_or_share_are_kept():
    assert chosen(problem(), ("mutual_information", {"k": 1})).kept == ("strong",)
    quarter = chosen(problem(), ("mutual_information", {"share": 0.25}))
    assert quarter.kept == ("strong", "weak")
    with pytest.raises(ValueError, match="two rules"):
        METHODS["mutual_information"].model_validate({"k": 1, "share": 0.5})


def test_the_levels_of_a_one_hot_are_one_feature():
    rng = np.random.default_rng(2)
    level = rng.integers(0, 3, 2000)
    x = np.column_stack([np.eye(3)[level], rng.normal(size=2000)])
    y = (rng.random(2000) < np.array([0.2, 0.5, 0.8])[level]).astype(np.int64)
    train = of(x, y, ("s_a", "s_b", "s_c", "n"), ("s", "s", "s", "n"), ("s", "s", "s", "n"))
    found = chosen(train, "mutual_information")
    assert (found.features, found.kept, found.columns) == (("s", "n"), ("s",), (0, 1, 2))
    expected = mutual_info_score(level, y)
    assert found.steps[0]["scores"]["s"] == pytest.approx(expected - 2 / 4000, abs=5e-4)


# All of them


@pytest.mark.parametrize("method", ["variance", "correlation", "mutual_information"])
def test_chunks_do_not_matter(method):
    one, many = (chosen(problem(chunks=c), method) for c in (1, 7))
    assert (one.kept, one.steps[0]["scores"]) == (many.kept, many.steps[0]["scores"])


def test_nothing_is_not_a_choice():
    rng = np.random.default_rng(0)
    found = chosen(of(rng.normal(size=(200, 5))), "mutual_information")
    assert len(found.kept) == 1
    assert "the best one is kept" in found.steps[0]["note"]


def test_kept_names_stay_by_feature_column_or_glob():
    train = numbers(problem())
    assert set(chosen(train, "mutual_information", keep=("n1", "n[45]")).kept) >= {"n1", "n4", "n5"}
    made = Matrix(train.chunks, train.target, None, NAMES, train.categorical,
                  ("a", "b", "day", "day", "day", "c", "d", "e"), NAMES, train.bucket)
    assert set(chosen(made, "mutual_information", keep=("day",)).kept) >= {"n1", "n2", "n3"}
    together = chosen(made, ("mutual_information", {"k": 2}), keep=("day",), by_column=True)
    assert together.kept == ("a", "b", "day")
    assert together.columns == (0, 1, 2, 3, 4)


def test_other_parameters_by_name():
    from gpupipe.select import Methods

    methods = Methods((METHODS["boruta"](), METHODS["correlation"]()))
    other = methods.with_params({"boruta.rounds": 7, "correlation.threshold": 0.5})
    assert (other.methods[0].rounds, other.methods[1].threshold) == (7, 0.5)
    assert set(methods.space) == {f"{m.name}.{p}" for m in methods.methods for p in m.space}
    with pytest.raises(ConfigError, match=r"'boruta\.round'") as error:
        methods.with_params({"boruta.round": 7})
    assert error.value.hint == "did you mean 'boruta.rounds'?"
    with pytest.raises(ConfigError, match="at least 5"):
        methods.with_params({"boruta.rounds": 1})


@pytest.mark.parametrize("name", METHODS)
def test_the_ends_of_a_methods_space_are_fit_for_it(name):
    from gpupipe.models import Range

    for parameter, where in METHODS[name].space.items():
        assert parameter in METHODS[name].model_fields
        for value in (where.low, where.high) if isinstance(where, Range) else where.values:
            METHODS[name].model_validate({parameter: value})
