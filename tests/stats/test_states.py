"""Every state merges in any partitioning and order to the same bits, and is exact."""

from __future__ import annotations

import contextlib
import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.engine.frames import Column
from gpupipe.engine.pandas import PandasFrames
from gpupipe.stats import moments, quantiles, tables
from gpupipe.stats.state import Rows, State

FX = PandasFrames()
floats = st.floats(width=64) | st.sampled_from([0.0, -0.0, 1e308, 5e-324, 2.0**53 + 2, math.nan])


def column(values: list[float]) -> Column:
    return Column("float64", np.array(values, np.float64))


def text(values: list[str | None]) -> Column:
    frame = FX.frame(pa.table({"x": pa.array(values, pa.string()).dictionary_encode()}))
    return FX.column(frame, "x", "string")


def same(a: State, b: State) -> bool:
    left, right = a.canonical().arrays(), b.canonical().arrays()
    return left.keys() == right.keys() and all(
        (left[k].equals(right[k]) if isinstance(left[k], pa.Array)
         else np.array_equal(left[k], right[k])) for k in left
    )


NUMERIC = [
    moments.Moments(squares=True), quantiles.Histogram(), quantiles.Extremes(),
    quantiles.Window(((32000, 32768), (33000, 48000))),
    quantiles.Zoom(((32000, 32768), (33000, 48000))),
    quantiles.Window(((32000, 32768), (33000, 48000)), ((0, 4000), (10, 90))),
    tables.Vocabulary(limit=4), tables.TargetCounts(3), tables.TargetSums(0.5, 2.0),
]


@pytest.mark.parametrize("statistic", NUMERIC, ids=lambda s: type(s).__name__)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_partition_in_any_order_gives_the_same_state(statistic, data):
    values = data.draw(st.lists(floats, max_size=40))
    n = len(values)
    bucket = np.array(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), np.int64)
    if isinstance(statistic, tables.TargetSums):
        target = np.resize([0.1, 2.5, -1.5, 0.3], n)
    else:
        target = np.resize([0, 2, 1], n)
    order = np.array(data.draw(st.permutations(range(n))), np.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=4)))
    x = np.array(values, np.float64)

    def partial(index: np.ndarray) -> State:
        rows = Rows(bucket[index], 3, target[index])
        return statistic.partial([Column("float64", x[index])], rows, FX)

    whole = partial(np.arange(n))
    pieces = [partial(p) for p in np.split(order, cuts)]
    merged = pieces[0]
    for piece in pieces[1:]:
        merged = piece.merge(merged)
    assert same(whole, merged)
    split = [partial(np.flatnonzero(bucket == b)) for b in range(3)]
    assert same(whole, split[2].merge(split[0]).merge(split[1]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), max_size=50))
def test_sums_are_those_of_fsum_and_squares_are_exact(values):
    state = moments.Moments(squares=True).partial(
        [column(values)], Rows(np.zeros(len(values), np.int64), 1), FX
    )
    exact = sum((Fraction(v) for v in values), Fraction(0))
    assert state.total() == exact
    with contextlib.suppress(OverflowError):
        assert float(state.total()) == math.fsum(values)
    assert state.total_of_squares() == sum((Fraction(v) ** 2 for v in values), Fraction(0))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(floats, floats), max_size=30))
def test_cross_products_are_exact_where_both_columns_have_a_value(pairs):
    state = moments.CrossProducts().partial(
        [column([a for a, _ in pairs]), column([b for _, b in pairs])],
        Rows(np.zeros(len(pairs), np.int64), 1), FX,
    )
    both = [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    assert int(state.count[0]) == len(both)
    total = state.total_of_products()
    assert total == sum((Fraction(a) * Fraction(b) for a, b in both), Fraction(0))


def test_mean_and_variance_equal_numpys_to_the_last_digits():
    rng = np.random.default_rng(0)
    x = rng.normal(1e9, 1e-3, 5000)
    state = moments.Moments(squares=True).partial(
        [Column("float64", x)], Rows(np.zeros(5000, np.int64), 1), FX
    )
    assert state.mean() == math.fsum(x) / 5000
    exact = [Fraction(v) for v in x]
    mean = sum(exact, Fraction(0)) / 5000
    assert state.variance() == float(sum(((v - mean) ** 2 for v in exact), Fraction(0)) / 5000)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(allow_infinity=False, width=64) | st.integers(-3, 3).map(float),
                min_size=1, max_size=60),
       st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.77, 1.0]))
def test_quantiles_in_two_looks_are_numpys(values, q):
    rows = Rows(np.zeros(len(values), np.int64), 1)
    histogram = quantiles.Histogram().partial([column(values)], rows, FX)
    window = quantiles.window_for(histogram, [q])
    state = window.partial([column(values)], rows, FX).canonical()
    found = quantiles.exact_quantile(window, state, q)
    finite = [v for v in values if not math.isnan(v)]
    if not finite:
        assert math.isnan(found)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            expected = np.quantile(finite, q)
        assert found == expected or (math.isnan(expected))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.floats(allow_infinity=False, width=64) | st.floats(999, 1001)
                | st.integers(998, 1002).map(float), min_size=1, max_size=80),
       st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.77, 1.0]), min_size=1, unique=True),
       st.sampled_from([0.0, 0.5, 6.0]))
def test_quantiles_of_a_crowded_window_are_numpys_too(values, asked, slack):
    rows = Rows(np.zeros(len(values), np.int64), 1)
    histogram = quantiles.Histogram().partial([column(values)], rows, FX)
    wide = quantiles.window_for(histogram, asked)
    zoom = quantiles.Zoom(wide.spans).partial([column(values)], rows, FX)
    narrow = quantiles.narrowed(wide, zoom, histogram, asked, slack)
    state = narrow.partial([column(values)], rows, FX).canonical()
    whole = wide.partial([column(values)], rows, FX).canonical()
    assert state.counts.sum() == whole.counts.sum()
    for q in asked:
        found = quantiles.exact_quantile(narrow, state, q)
        expected = quantiles.exact_quantile(wide, whole, q)
        assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_a_crowded_column_is_looked_at_between():
    """A million values near 1,000 are in a bin or two; few of them have to be told apart."""
    values = np.random.default_rng(0).normal(1_000, 1, 1_100_000)
    rows = Rows(np.zeros(len(values), np.int64), 1)
    histogram = quantiles.Histogram().partial([column(values)], rows, FX)
    wide = quantiles.window_for(histogram, [0.5])
    assert quantiles.crowded(wide, histogram)
    zoom = quantiles.Zoom(wide.spans).partial([column(values)], rows, FX)
    narrow = quantiles.narrowed(wide, zoom, histogram, [0.5])
    state = narrow.partial([column(values)], rows, FX).canonical()
    assert len(state.levels) < len(values) / 50
    assert quantiles.exact_quantile(narrow, state, 0.5) == np.quantile(values, 0.5)


def test_a_narrow_window_says_so_instead_of_guessing():
    rows = Rows(np.zeros(3, np.int64), 1)
    window = quantiles.Window(((0, 5),))
    state = window.partial([column([1.0, 2.0, 3.0])], rows, FX).canonical()
    assert quantiles.exact_quantile(window, state, 0.5) is None


def test_bins_never_decrease_and_are_narrow():
    x = np.sort(np.concatenate([np.random.default_rng(1).normal(size=2000) * 10.0**e
                                for e in range(-30, 30)]))
    bins = quantiles.bin_of(x, FX)
    assert (np.diff(bins) >= 0).all()
    edges = quantiles.bin_edges()
    assert (edges[bins] <= x.astype(np.float32)).all()
    assert (edges[bins + 1] >= x.astype(np.float32)).all()


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.sampled_from(["a", "b", "ß", "", "漢字", None]), max_size=30),
       cut=st.integers(0, 30))
def test_vocabularies_count_text_and_rank_by_count_then_value(values, cut):
    def partial(v):
        return tables.Vocabulary().partial([text(v)], Rows(np.zeros(len(v), np.int64), 1), FX)

    state = partial(values[cut:]).merge(partial(values[:cut])).ranked()
    expected = sorted({v for v in values if v is not None},
                      key=lambda v: (-values.count(v), v.encode()))
    assert state.levels.to_pylist() == expected
    assert state.counts[0].tolist() == [values.count(v) for v in expected]


def test_subtracting_a_fold_equals_merging_the_others():
    rng = np.random.default_rng(2)
    x, bucket = rng.normal(size=1000), rng.integers(0, 4, 1000)
    for statistic in (moments.Moments(squares=True), quantiles.Histogram(),
                      tables.TargetCounts(2)):
        rows = Rows(bucket, 4, (x > 0).astype(np.int64))
        state = statistic.partial([Column("float64", np.round(x, 1))], rows, FX)
        assert same(state.only([0, 1, 2, 3]).subtract(state.only([2])), state.only([0, 1, 3]))


def test_extremes_refuse_to_subtract():
    state = quantiles.Extremes().partial([column([1.0])], Rows(np.zeros(1, np.int64), 1), FX)
    with pytest.raises(TypeError, match="extreme"):
        state.subtract(state)
