"""The arithmetic of explanations against scikit-learn, SciPy and by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.inspection import partial_dependence
from sklearn.metrics import log_loss, roc_auc_score

from gpupipe.bundle.contributions import by_column
from gpupipe.evaluate.explain_dependence import curves_of, dependence, grid_of, scatter
from gpupipe.evaluate.explain_marks import offsets, shade, strip
from gpupipe.evaluate.explain_mistakes import described, most_wrong
from gpupipe.evaluate.explain_permutation import (
    cramers_v,
    permutation_importance,
    related,
)
from gpupipe.evaluate.explain_sampled import sampled_shapley
from gpupipe.evaluate.explain_search import (
    Cut,
    Values,
    benjamini_hochberg,
    cut_of,
    search,
    tail,
)
from gpupipe.evaluate.explain_shap import ranks, summary
from gpupipe.evaluate.explain_slices import (
    biased_slices,
    expected_losses,
    row_losses,
    worst_slices,
)


def mixed(n: int = 800, seed: int = 0) -> tuple[pa.Table, np.ndarray]:
    rng = np.random.default_rng(seed)
    a, b, noise = rng.normal(size=n), rng.integers(0, 5, n), rng.normal(size=n)
    word = np.array(["red", "green", "blue"])[rng.integers(0, 3, n)]
    y = (a + (word == "red") + 0.3 * b + rng.normal(size=n) > 1).astype(np.int64)
    return pa.table({"a": a, "b": pa.array(b, pa.int64()), "word": word, "noise": noise}), y


def encoded(table: pa.Table) -> np.ndarray:
    frame = table.to_pandas()
    return np.column_stack([frame["a"], frame["b"], frame["word"] == "red", frame["noise"]])


@pytest.fixture(scope="module")
def model():
    table, y = mixed()
    fitted = GradientBoostingClassifier(n_estimators=30, random_state=0).fit(encoded(table), y)
    return lambda rows: fitted.predict_proba(encoded(rows))[:, 1], table, y, fitted


# Partial dependence and ICE ------------------------------------------------------------------


def test_partial_dependence_and_ice_are_scikit_learns(model):
    score, table, _, fitted = model
    x = encoded(table)
    for column, position in (("a", 0), ("b", 1), ("noise", 3)):
        grid = grid_of(table.column(column), points=12)
        want = partial_dependence(fitted, x, [position], kind="both", method="brute",
                                  response_method="predict_proba",
                                  custom_values={position: np.asarray(grid.at)})
        found = dependence(table, column, score)
        curves = curves_of(table, column, grid, score)
        np.testing.assert_allclose(curves, want["individual"][0], atol=1e-12)
        np.testing.assert_allclose(curves.mean(axis=0), want["average"][0], atol=1e-12)
        assert found["lines"][3] == pytest.approx(
            list(curves_of(table, column, grid_of(table.column(column)), score)[3]), rel=1e-4)


def test_partial_dependence_of_a_category_sets_every_row_to_the_level(model):
    score, table, _, _ = model
    found = dependence(table, "word", score)
    assert not found["numeric"]
    for level, mean, share in zip(found["labels"], found["mean"], found["share"], strict=True):
        frame = table.to_pandas().assign(word=level)
        assert mean == pytest.approx(score(pa.Table.from_pandas(frame)).mean(), rel=1e-5)
        assert share == pytest.approx((table.to_pandas()["word"] == level).mean(), abs=1e-4)
    assert found["share"] == sorted(found["share"], reverse=True)


def test_weights_and_missing_values_enter_the_mean():
    table = pa.table({"x": pa.array([0.0, 1.0, None, 1.0]), "k": [1.0, 2.0, 3.0, 4.0]})

    def score(rows: pa.Table) -> np.ndarray:
        frame = rows.to_pandas()
        return np.where(frame["x"].isna(), 9.0, frame["x"] * frame["k"])

    found = dependence(table, "x", score, np.array([1.0, 0.0, 0.0, 3.0]))
    assert found["mean"] == [0.0, pytest.approx((1 * 1 + 4 * 3) / 4)]
    assert found["at_missing"] == [9.0]
    assert found["missing"] == 0.25
    assert found["spread"] == [0.0, pytest.approx(np.std([1, 2, 3, 4]), rel=1e-5)]
    dots = scatter(table, "x", found["labels"], True, np.arange(4.0))
    assert dots == {"at": [0.0, 1.0, None, 1.0], "shap": [0.0, 1.0, 2.0, 3.0]}


def test_whole_numbers_stay_whole_and_moments_stay_moments():
    values = pa.array(range(10_000), pa.int64())
    grid = grid_of(pa.chunked_array([values]))
    assert grid.values.type == pa.int64()
    assert len(grid.values) == 20
    moments = pa.chunked_array([pa.array([0, 10**15, None], pa.timestamp("us"))])
    grid = grid_of(moments)
    assert grid.values.to_pylist() == [pd.Timestamp(0), pd.Timestamp(10**9, unit="s")]
    assert grid.labels[0] == "1970-01-01 00:00"
    assert grid_of(pa.chunked_array([pa.array([3.0, 3.0, None])])) is None
    assert grid_of(pa.chunked_array([pa.array([None, None], pa.string())])) is None
    assert grid_of(pa.chunked_array([pa.array([True, False, True])])).labels == ["true", "false"]


def test_several_classes_have_a_curve_each():
    table = pa.table({"x": [0.0, 1.0, 2.0]})
    found = dependence(table, "x", lambda t: np.column_stack(
        [t["x"].to_numpy() / 2, 1 - t["x"].to_numpy() / 2]))
    assert found["mean"] == [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]]
    assert "lines" not in found


# Permutation importance ------------------------------------------------------------------------


def test_permutation_importance_is_the_drop_of_the_metric(model):
    score, table, y, _ = model
    found = permutation_importance("binary", "roc_auc", table, y, lambda t, at: score(t),
                                   table.column_names, repeats=4, seed=3)
    base = roc_auc_score(y, score(table))
    assert found["base"] == pytest.approx(base)
    orders = np.random.default_rng(3).permuted(np.tile(np.arange(800), (4, 1)), axis=1)
    drops = {c["column"]: c for c in found["columns"]}
    for column in ("a", "word"):
        want = []
        for order in orders:
            frame = table.to_pandas()
            frame[column] = frame[column].to_numpy()[order]
            want.append(base - roc_auc_score(y, score(pa.Table.from_pandas(frame))))
        assert drops[column]["drops"] == pytest.approx(want)
        assert drops[column]["drop"] == pytest.approx(np.mean(want))
        assert drops[column]["spread"] == pytest.approx(np.std(want))
    assert found["columns"][0]["column"] == "a"
    assert found["columns"][-1]["column"] == "noise"


def test_a_loss_that_rises_is_a_positive_drop(model):
    score, table, y, _ = model
    found = permutation_importance("binary", "log_loss", table, y, lambda t, at: score(t), ["a"])
    assert found["base"] == pytest.approx(log_loss(y, score(table)))
    assert found["columns"][0]["drop"] > 0.1


def test_the_scorer_is_told_which_rows_it_scores():
    table = pa.table({"x": np.arange(50.0)})
    y = np.arange(50.0)
    seen = []

    def score(rows: pa.Table, at: np.ndarray) -> np.ndarray:
        seen.append((rows.num_rows, at.tolist()))
        return y[at]  # by the row's own place: the column plays no part

    found = permutation_importance("regression", "r2", table, y, score, ["x"], repeats=2)
    assert found["columns"][0]["drops"] == [0.0, 0.0]
    assert seen == [(50, list(range(50))), (100, list(range(50)) * 2)]


def test_columns_that_say_the_same_are_named():
    rng = np.random.default_rng(1)
    n = 1000
    x = rng.normal(size=n)
    word = np.array(["u", "v", "w"])[rng.integers(0, 3, n)]
    table = pa.table({
        "x": x, "cube": pa.array(np.where(rng.random(n) < 0.1, np.nan, x**3), from_pandas=True),
        "other": rng.normal(size=n), "word": word, "code": pd.Series(word).str.upper(),
        "number": (word == "u") * 1.0 + (word == "v") * 7.0, "near": x + rng.normal(size=n) * 0.3,
    })
    found = related(table, table.column_names)
    pairs = {tuple(r["columns"]): r for r in found}
    assert set(pairs) == {("x", "cube"), ("x", "near"), ("cube", "near"), ("word", "code"),
                          ("word", "number"), ("code", "number")}
    frame = table.to_pandas()
    want = stats.spearmanr(frame["x"], frame["near"]).statistic
    assert pairs["x", "near"]["strength"] == pytest.approx(want, abs=1e-3)
    both = frame[["cube", "near"]].dropna()
    assert pairs["cube", "near"]["strength"] == pytest.approx(
        stats.spearmanr(both["cube"], both["near"]).statistic, abs=5e-3)
    assert pairs["x", "cube"]["strength"] == 1.0


def test_cramers_v_is_scipys_before_the_correction_and_near_zero_for_chance():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 500), rng.integers(0, 9, 500)
    assert cramers_v(a, a) == pytest.approx(1.0, abs=1e-12)
    raw = stats.contingency.association(pd.crosstab(a, b).to_numpy(), method="cramer")
    assert cramers_v(a, b) < raw / 2 < 0.1
    big = rng.integers(0, 4, 200_000)
    noisy = np.where(rng.random(200_000) < 0.5, big, rng.integers(0, 4, 200_000))
    raw = stats.contingency.association(pd.crosstab(big, noisy).to_numpy(), method="cramer")
    assert cramers_v(big, noisy) == pytest.approx(raw, abs=1e-3)
    assert cramers_v(np.zeros(9, int), np.arange(9)) == 0.0


# SHAP summaries --------------------------------------------------------------------------------


def test_a_columns_contribution_is_the_sum_of_its_features_row_by_row():
    values = np.array([[1.0, -1.0, 2.0], [0.5, 0.5, -4.0]])
    whole = by_column(values, [("c",), ("c",), ("d",)], ["d", "c"])
    np.testing.assert_array_equal(whole, [[2.0, 0.0], [-4.0, 1.0]])
    found = summary(values, np.array([[1.0, 0.0, np.nan], [0.0, 1.0, 3.0]]), ["c_x", "c_y", "d"],
                    ["c", "c", "d"], [False, True, False], whole, ["d", "c"], shown=2)
    assert [c["column"] for c in found["columns"]] == ["d", "c"]
    assert [c["size"] for c in found["columns"]] == [3.0, 0.5]
    assert [f["feature"] for f in found["features"]] == ["d", "c_x"]
    assert found["features"][0]["rank"] == [None, 0.5]
    assert found["features"][1]["rank"] == [1.0, 0.0]
    assert found["others"] == {"features": 1, "size": 0.75}


def test_of_several_outputs_the_sizes_are_summed_and_kept_apart():
    values = np.array([[[1.0, -2.0], [0.0, 0.0]], [[3.0, 0.0], [1.0, 1.0]]])
    found = summary(values, np.zeros((2, 2)), ["a", "b"], ["a", "b"], [False, False],
                    values, ["a", "b"])
    assert found["columns"][0] == {"column": "a", "size": 3.0, "parts": [2.0, 1.0]}
    assert "shap" not in found["features"][0]


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-3, 3)), min_size=1, max_size=30))
def test_ranks_keep_order_and_ties(values):
    x = np.array([np.nan if v is None else v for v in values], float)
    found = ranks(x)
    known = ~np.isnan(x)
    np.testing.assert_array_equal(np.isnan(found), ~known)
    if len(np.unique(x[known])) > 1:
        reference = stats.rankdata(x[known])
        span = reference.max() - reference.min()
        np.testing.assert_allclose(found[known], (reference - reference.min()) / span, atol=1e-12)


def exact_shapley(row: np.ndarray, starts: np.ndarray, f) -> np.ndarray:
    """By the definition, over all orders, each begun from every start."""
    out, k = np.zeros(len(row)), len(row)
    orders = list(itertools.permutations(range(k)))
    for start, order in itertools.product(starts, orders):
        now = start.copy()
        for c in order:
            before = f(now)
            now[c] = row[c]
            out[c] += f(now) - before
    return out / (len(starts) * len(orders))


def test_sampled_values_add_up_and_are_shapleys_where_orders_are_few():
    rng = np.random.default_rng(0)
    rows, starts = rng.normal(size=(7, 2)), rng.normal(size=(3, 2))

    def f(v: np.ndarray) -> float:
        return v[0] * v[1] + 2 * v[0]

    def score(table: pa.Table, at: np.ndarray) -> np.ndarray:
        return np.array([f(np.array([r["a"], r["b"]])) for r in table.to_pylist()])

    def as_table(v: np.ndarray) -> pa.Table:
        return pa.table({"a": v[:, 0], "b": v[:, 1], "name": ["x"] * len(v)})

    # Of two columns, an order and its reverse are all orders; three rounds take all three starts.
    values, base = sampled_shapley(as_table(rows), as_table(starts), score, ["a", "b"], rounds=3)
    np.testing.assert_allclose(values, [exact_shapley(r, starts, f) for r in rows], atol=1e-12)
    np.testing.assert_allclose(values.sum(axis=1) + base, [f(r) for r in rows], atol=1e-12)
    np.testing.assert_allclose(base, np.mean([f(s) for s in starts]), atol=1e-12)


def test_sampled_values_come_near_the_definition_for_more_columns():
    rng = np.random.default_rng(1)
    rows, starts = rng.normal(size=(2, 4)), rng.normal(size=(1, 4))

    def f(v: np.ndarray) -> float:
        return v[0] * v[1] + v[2] * v[3] * v[0] + v[3]

    names = list("abcd")

    def as_table(v: np.ndarray) -> pa.Table:
        return pa.table({n: v[:, i] for i, n in enumerate(names)})

    def score(table: pa.Table, at: np.ndarray) -> np.ndarray:
        values = np.column_stack([table[n].to_numpy() for n in names])
        assert (at == np.tile([0, 1], 5)).all()
        return np.column_stack([[f(v) for v in values], [-f(v) for v in values]])

    values, base = sampled_shapley(as_table(rows), as_table(starts), score, names, rounds=150)
    for row, found in zip(rows, values, strict=True):
        np.testing.assert_allclose(found[:, 0], exact_shapley(row, starts, f), atol=0.15)
    np.testing.assert_allclose(values[:, :, 0], -values[:, :, 1], atol=1e-12)
    np.testing.assert_allclose(values[:, :, 0].sum(axis=1) + base[:, 0], [f(r) for r in rows])


# Slices ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_adjusted_p_values_are_scipys(p):
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p), atol=1e-12)


@pytest.mark.parametrize("freedom", [10, 30, 200, 1e6])
@pytest.mark.parametrize("t", [-3.0, 0.0, 1.0, 2.0, 4.0])
def test_the_tail_is_nearly_students(t, freedom):
    assert tail(t, freedom) == pytest.approx(stats.t.sf(t, freedom), rel=0.04)


def test_a_slice_is_held_against_the_rest_by_welchs_test():
    rng = np.random.default_rng(2)
    values, codes = rng.exponential(size=300), rng.integers(0, 3, 300)
    values[codes == 1] += 0.4
    found = search([Cut("c", codes, ("u", "v", "w"))], Values(values), "rest", least=10)
    assert [f.parts for f in found] == [(("c", "u"),), (("c", "v"),), (("c", "w"),)]
    for k, one in enumerate(found):
        inside, rest = values[codes == k], values[codes != k]
        want = stats.ttest_ind(inside, rest, equal_var=False, alternative="greater")
        assert one.p == pytest.approx(want.pvalue, rel=0.02, abs=1e-12)
        interval = stats.ttest_ind(inside, rest, equal_var=False).confidence_interval(0.95)
        assert (one.low, one.high) == pytest.approx((interval.low, interval.high), abs=0.02)
        assert one.mean == pytest.approx(inside.mean())
        assert one.rest == pytest.approx(rest.mean())


def test_weights_count_as_rows_that_are_there_several_times():
    rng = np.random.default_rng(4)
    values, codes, times = rng.normal(size=400), rng.integers(0, 2, 400), rng.integers(1, 4, 400)
    cut = Cut("c", codes, ("u", "v"))
    (weighted, _) = search([cut], Values(values, times.astype(float)), "rest", least=1)
    repeated = Cut("c", np.repeat(codes, times), ("u", "v"))
    (plain, _) = search([repeated], Values(np.repeat(values, times)), "rest", least=1)
    assert weighted.difference == pytest.approx(plain.difference)
    # A row of weight 2 is one observation, not two: the interval is wider.
    assert weighted.high - weighted.low > plain.high - plain.low


def planted(n: int = 6000, seed: int = 0) -> tuple[list[Cut], np.ndarray, np.ndarray]:
    """A calibrated model, but where ``x`` is v and ``z`` is 1: there it knows nothing."""
    rng = np.random.default_rng(seed)
    cuts = [Cut("x", rng.integers(0, 4, n), tuple("tuvw")), Cut("z", rng.integers(0, 3, n),
                                                                ("0", "1", "2")),
            Cut("q", rng.integers(0, 5, n), tuple("abcde"))]
    p = rng.beta(0.4, 0.4, n)
    y = (rng.random(n) < p).astype(np.int64)
    lost = (cuts[0].codes == 2) & (cuts[1].codes == 1)
    y[lost] = rng.random(lost.sum()) < 0.5
    return cuts, y, p


def test_a_planted_weak_slice_of_two_columns_leads():
    cuts, y, p = planted()
    found = worst_slices("binary", y, p, cuts, metric="roc_auc")
    lead = found["slices"][0]
    assert lead["parts"] == [{"column": "x", "level": "v"}, {"column": "z", "level": "1"}]
    where = (cuts[0].codes == 2) & (cuts[1].codes == 1)
    assert lead["rows"] == where.sum()
    assert lead["value"] == pytest.approx(log_loss(y[where], p[where]))
    assert lead["rest"] == pytest.approx(log_loss(y[~where], p[~where]))
    assert lead["expected"] < 0.7 * lead["value"]
    assert lead["metric"]["value"] == pytest.approx(roc_auc_score(y[where], p[where]))
    assert found["tested"] == 4 + 3 + 5 + 12 + 20 + 15
    # What follows is what the planted slice itself makes of its two columns.
    assert all({"x", "z"} & {part["column"] for part in s["parts"]} for s in found["slices"])


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10_000))
def test_of_pure_chance_nothing_or_next_to_nothing_is_found(seed):
    rng = np.random.default_rng(seed)
    cuts = [Cut(f"c{i}", rng.integers(0, 5, 3000), tuple("abcde")) for i in range(6)]
    p = rng.beta(0.5, 0.5, 3000)
    y = (rng.random(3000) < p).astype(np.int64)
    assert worst_slices("binary", y, p, cuts)["found"] <= 2
    assert biased_slices("binary", y, p, cuts)["found"] <= 2


def test_a_slice_that_is_off_is_found_and_one_without_a_positive_is_no_proof():
    cuts, y, p = planted(seed=1)
    shifted = np.where(cuts[2].codes == 3, np.clip(p * 0.6, 0, 1), p)
    found = biased_slices("binary", y, shifted, cuts)
    lead = found["slices"][0]
    assert {"column": "q", "level": "d"} in lead["parts"]
    assert lead["difference"] < 0
    where = cuts[2].codes == 3
    single = next(s for s in found["slices"] if len(s["parts"]) == 1)
    error = math.sqrt((shifted * (1 - shifted))[where].sum()) / where.sum()
    assert single["high"] - single["low"] == pytest.approx(2 * 1.959964 * error)
    # 60 rows of probability 2 % without a positive: 1.2 were expected, and none is no wonder.
    cut = Cut("k", np.repeat([0, 1], [60, 3000]), ("few", "many"))
    p = np.full(3060, 0.02)
    y = np.concatenate([np.zeros(60), np.repeat([1, 0], [60, 2940])]).astype(np.int64)
    assert biased_slices("binary", y, p, [cut])["found"] == 0


def test_of_values_the_loss_is_the_absolute_error_and_bias_its_mean():
    rng = np.random.default_rng(0)
    y = rng.normal(size=2000)
    codes = rng.integers(0, 4, 2000)
    prediction = y + rng.normal(size=2000) * np.where(codes == 2, 2.0, 0.5) + (codes == 1) * 0.7
    cut = Cut("c", codes, tuple("abcd"))
    found = worst_slices("regression", y, prediction, [cut], metric="r2")
    assert [s["parts"][0]["level"] for s in found["slices"]] == ["c"]
    assert "expected" not in found["slices"][0]
    off = biased_slices("regression", y, prediction, [cut])
    assert [s["parts"][0]["level"] for s in off["slices"]] == ["b"]
    assert off["slices"][0]["difference"] == pytest.approx(0.7, abs=0.1)
    assert biased_slices("multiclass", y.astype(int), np.zeros((2000, 3)), [cut]) is None


def test_losses_are_the_logarithms_of_the_truths_probabilities():
    p = np.array([0.9, 0.2, 0.5])
    y = np.array([1, 1, 0])
    np.testing.assert_allclose(row_losses("binary", y, p), -np.log([0.9, 0.2, 0.5]))
    np.testing.assert_allclose(expected_losses("binary", p),
                               [stats.entropy([v, 1 - v]) for v in p])
    wide = np.column_stack([1 - p, p])
    np.testing.assert_allclose(row_losses("multiclass", y, wide), row_losses("binary", y, p))
    assert np.isfinite(row_losses("binary", np.array([1]), np.array([0.0]))).all()


def test_cuts_have_the_rarest_levels_together_and_numbers_by_fifths():
    levels = [*(f"l{i % 40:02}" for i in range(400)), *["top"] * 9, None]
    cut = cut_of("t", pa.chunked_array([pa.array(levels)]))
    assert len(cut.names) == 21
    assert cut.names[-1] == "(other levels)"
    assert (cut.codes == 20).sum() > 190
    numbers = cut_of("n", pa.chunked_array([pa.array([*range(100), None, float("nan")])]))
    assert numbers.names == ("0 to 19.8", "19.8 to 39.6", "39.6 to 59.4", "59.4 to 79.2",
                             "79.2 to 99", "(missing)", "(other levels)")
    assert np.bincount(numbers.codes).tolist() == [20, 20, 20, 20, 20, 2]
    few = cut_of("f", pa.chunked_array([pa.array([1, 1, 1, 2, 2, 3, None])]))
    assert few.names[:4] == ("1", "2", "(missing)", "3")
    flags = cut_of("b", pa.chunked_array([pa.array([True, False, True])]))
    assert flags.names[:2] == ("true", "false")


# Mistakes --------------------------------------------------------------------------------------


def test_the_most_confident_mistakes_come_first():
    y = np.array([1, 0, 1, 0, 1])
    p = np.array([0.1, 0.85, 0.8, 0.6, 0.1])
    at = most_wrong("binary", y, p, 3, order=np.array([5, 1, 1, 1, 2]))
    assert at.tolist() == [4, 0, 1]
    assert most_wrong("binary", y, p, 9, weight=np.array([1, 1, 1, 1, 0.0])).tolist() == [0, 1, 3]
    values = most_wrong("regression", np.array([0.0, 5.0]), np.array([1.0, 1.0]), 5)
    assert values.tolist() == [1, 0]
    table = pa.table({"a": [1.5, None], "s": ["x", None], "i": pa.array([3, None], pa.int64())})
    shap = np.array([[0.2, -0.9, 0.4], [-0.3, 0.1, -0.2]])
    found = described("binary", table, np.array([0, 1]), np.array([0.9, 0.2]), ["no", "yes"],
                      ["a", "s", "i"], shap)
    first, second = found["rows"]
    assert (first["truth"], first["prediction"]) == ("no", "yes")
    assert first["probability"] == pytest.approx(0.9)
    assert first["truth_probability"] == pytest.approx(0.1)
    assert [(r["column"], r["value"], r["effect"]) for r in first["reasons"]] == [
        ("i", 3, 0.4), ("a", 1.5, 0.2)]
    assert [(r["column"], r["effect"]) for r in second["reasons"]] == [("a", -0.3), ("i", -0.2)]
    assert second["values"] == {"a": None, "s": None, "i": None}


def test_reasons_for_several_classes_are_of_the_predicted_one():
    shap = np.zeros((1, 2, 3))
    shap[0, :, 1] = [0.5, -0.1]
    found = described("multiclass", pa.table({"a": [1], "b": [True]}), np.array([2]),
                      np.array([[0.1, 0.7, 0.2]]), ["x", "y", "z"], ["a", "b"], shap)
    (row,) = found["rows"]
    assert (row["truth"], row["prediction"]) == ("z", "y")
    assert row["reasons"] == [{"column": "a", "value": 1, "effect": 0.5}]
    assert row["values"]["b"] == "true"


def test_reasons_for_a_value_point_away_from_the_truth():
    shap = np.array([[3.0, -5.0]])
    found = described("regression", pa.table({"a": [1], "b": [2]}), np.array([10.0]),
                      np.array([6.0]), [], ["a", "b"], shap)
    assert found["rows"][0]["residual"] == -4
    assert found["rows"][0]["reasons"] == [{"column": "b", "value": 2, "effect": -5.0}]


# Marks -----------------------------------------------------------------------------------------


def test_dots_at_one_place_stand_aside_within_their_strip():
    found = offsets([1.0] * 5 + [50.0], 12)
    assert len(set(found[:5])) == 5
    assert found[5] == 0.0
    assert max(map(abs, offsets([0.0] * 400, 12))) <= 12 + 1e-9
    svg = strip([(0.0, "v0"), (1.0, "v4")], (-1, 2), "<x>")
    assert "&lt;x&gt;" in svg
    assert [shade(v) for v in (None, 0.0, 0.5, 1.0)] == ["s7", "v0", "v2", "v4"]
