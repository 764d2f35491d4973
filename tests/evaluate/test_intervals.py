"""The fast bootstrap agrees with resampling every row, covers, and is cheap."""

from __future__ import annotations

import time

import numpy as np
import pytest
import sklearn.metrics as sk

from gpupipe.evaluate import evaluate, paired_difference, slice_scores
from gpupipe.evaluate.metrics import choose
from gpupipe.evaluate.samples import sample


def binary_rows(n, seed=0, rate=0.2):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < rate).astype(int)
    return y, 1 / (1 + np.exp(2 - 1.5 * y - rng.normal(size=n)))


def plain_bootstrap(function, arrays, resamples, seed):
    rng, n = np.random.default_rng(seed), len(arrays[0])
    draws = [rng.integers(0, n, n) for _ in range(resamples)]
    return np.array([function(*(a[d] for a in arrays)) for d in draws])


def assert_same_interval(score, boot, tolerance=0.16):
    """Endpoints agree to a share of the half-width: both are from some hundred resamples."""
    low, high = np.quantile(boot, [0.025, 0.975])
    room = tolerance * (high - low) / 2
    assert abs(score.low - low) < room, (score, low, high)
    assert abs(score.high - high) < room, (score, low, high)


@pytest.mark.parametrize("rate", [0.3, 0.01])
def test_binary_cells_give_the_row_bootstraps_interval(rate):
    y, p = binary_rows(8_000, seed=3, rate=rate)
    scores = evaluate("binary", y, p, resamples=4000, seed=1)
    for name, function in {
        "roc_auc": sk.roc_auc_score,
        "average_precision": sk.average_precision_score,
        "brier_score_loss": lambda y, p: np.mean((p - y) ** 2),
        "f1": lambda y, p: 2 * np.sum(y * (p > 0.5)) / (np.sum(y) + np.sum(p > 0.5)),
    }.items():
        assert_same_interval(scores[name], plain_bootstrap(function, (y, p), 500, 5))


def test_weighted_binary_cells_give_the_row_bootstraps_interval():
    y, p = binary_rows(9_000, seed=4)
    weight = np.random.default_rng(6).gamma(0.7, size=9_000)
    scores = evaluate("binary", y, p, weight=weight, resamples=4000)
    for name, function in {
        "roc_auc": lambda y, p, w: sk.roc_auc_score(y, p, sample_weight=w),
        "log_loss": lambda y, p, w: sk.log_loss(y, p, sample_weight=w),
    }.items():
        assert_same_interval(scores[name], plain_bootstrap(function, (y, p, weight), 400, 7))


def test_a_loss_that_varies_within_cells_keeps_its_variance():
    """Few cells: nearly all of the loss's variance lies within them."""
    y, p = binary_rows(50_000, seed=8)
    fine = evaluate("binary", y, p, metrics=["log_loss"], resamples=4000)["log_loss"]
    few = evaluate("binary", y, p, metrics=["log_loss"], resamples=4000, units=32)["log_loss"]
    assert few.high - few.low == pytest.approx(fine.high - fine.low, rel=0.06)


def test_multiclass_groups_give_the_row_bootstraps_interval():
    rng = np.random.default_rng(1)
    n, c = 7_000, 4
    y = rng.choice(c, n, p=[0.5, 0.3, 0.15, 0.05])
    raw = rng.random((n, c)) + 0.1
    raw[np.arange(n), y] += 0.5
    p = raw / raw.sum(1, keepdims=True)
    scores = evaluate("multiclass", y, p, resamples=4000)
    for name, function in {
        "accuracy": lambda y, p: np.mean(p.argmax(1) == y),
        "f1_macro": lambda y, p: sk.f1_score(y, p.argmax(1), average="macro"),
        "log_loss": lambda y, p: -np.mean(np.log(p[np.arange(len(y)), y])),
        "roc_auc_ovr": lambda y, p: sk.roc_auc_score(y, p, multi_class="ovr"),
    }.items():
        boot = plain_bootstrap(function, (y, p), 300, 3)
        assert_same_interval(scores[name], boot, tolerance=0.22)


def test_regression_groups_of_sorted_rows_give_the_row_bootstraps_interval():
    rng = np.random.default_rng(2)
    y = np.sort(rng.gamma(2, 100, 9_000)) + 1
    p = y * rng.normal(1, 0.2, 9_000)
    scores = evaluate("regression", y, p, resamples=4000)
    for name, function in {
        "r2": sk.r2_score,
        "root_mean_squared_error": sk.root_mean_squared_error,
        "median_absolute_error": sk.median_absolute_error,
        "mean_absolute_percentage_error": sk.mean_absolute_percentage_error,
    }.items():
        boot = plain_bootstrap(function, (y, p), 400, 9)
        assert_same_interval(scores[name], boot, tolerance=0.2)


@pytest.mark.parametrize("rows", [300, 6_000])
def test_ninety_percent_intervals_cover_the_truth_nine_times_in_ten(rows):
    """The truth is known from two normal scores: AUC = Phi(1.5 / sqrt 2)."""
    truth, trials, covered = 0.855578, 250, 0
    for seed in range(trials):
        y, p = binary_rows(rows, seed=seed, rate=0.4)
        score = evaluate("binary", y, p, metrics=["roc_auc"], confidence=0.9, resamples=200,
                         seed=seed, units=512)["roc_auc"]
        covered += score.low <= truth <= score.high
    # Binomial(250, .9): four standard deviations are 7.6 points.
    assert 0.824 < covered / trials < 0.976


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_same_seed_gives_the_same_interval_and_another_gives_another(task):
    y, p = binary_rows(9_000)
    if task == "multiclass":
        p = np.stack([1 - p, p], axis=1)
    name = "log_loss" if task != "regression" else "r2"
    first, again, other = (evaluate(task, y, p, metrics=[name], resamples=200, seed=s)[name]
                           for s in (0, 0, 1))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.value == other.value


def test_400_000_rows_by_1000_resamples_of_all_binary_metrics_take_under_a_second():
    y, p = binary_rows(400_000)
    start = time.process_time()
    scores = evaluate("binary", y, p)
    assert time.process_time() - start < 1.0
    assert len(scores) == 10


def test_the_interval_of_a_perfect_model_stays_within_bounds():
    y = np.tile([0, 1], 20_000)
    p = np.where(y == 1, 0.9, 0.1) + np.random.default_rng(0).normal(0, 0.01, 40_000)
    for score in evaluate("binary", y, p, metrics=["roc_auc", "average_precision"]).values():
        assert (score.value, score.low, score.high) == (1.0, 1.0, 1.0)


def test_a_maximum_has_a_value_and_no_interval():
    score = evaluate("regression", np.arange(99.0), np.arange(99.0) * 1.1)["max_error"]
    assert score.value == pytest.approx(9.8)
    assert score.low is None
    assert "not valid for a maximum" in score.note


@pytest.mark.parametrize("rows", [2_000, 8_000])
@pytest.mark.parametrize("metric", ["roc_auc", "log_loss"])
def test_paired_differences_agree_with_the_paired_row_bootstrap(rows, metric):
    y, a = binary_rows(rows, seed=11)
    rng = np.random.default_rng(12)
    b = 1 / (1 + np.exp(-(np.log(a / (1 - a)) + rng.normal(0, 0.5, rows))))
    function = {"roc_auc": sk.roc_auc_score, "log_loss": sk.log_loss}[metric]
    score = paired_difference("binary", metric, y, a, b, resamples=4000)
    boot = plain_bootstrap(lambda y, a, b: function(y, a) - function(y, b), (y, a, b), 300, 13)
    assert score.value == pytest.approx(function(y, a) - function(y, b))
    assert_same_interval(score, boot, tolerance=0.24)
    apart = [evaluate("binary", y, p, metrics=[metric])[metric] for p in (a, b)]
    assert score.high - score.low < apart[0].high - apart[0].low


def test_paired_differences_of_regressions_share_their_resamples():
    rng = np.random.default_rng(0)
    y = rng.normal(size=30_000)
    p = y + rng.normal(size=30_000)
    same = paired_difference("regression", "r2", y, p, p.copy())
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_resamples_of_rows_are_multinomial():
    y, p = binary_rows(50)
    [block] = list(sample("binary", y, [p], None, ["accuracy"]).resampled(400, 0))
    table = block[0]
    assert np.all(table.weight == 50)
    assert table.true.mean(0)[1] == pytest.approx(y.sum(), rel=0.05)
    assert [m.name for m in choose("binary", ["f1", "f1"])] == ["f1"]


def test_slices_show_the_largest_levels_and_fold_the_rest():
    y, p = binary_rows(20_000)
    rng = np.random.default_rng(5)
    codes = np.minimum(rng.geometric(0.1, 20_000) - 1, 49)
    codes[:7] = -1
    rows = slice_scores("binary", y, p, codes, [f"<{i}>" for i in range(50)], limit=5,
                        resamples=50)
    assert [r["level"] for r in rows[:2]] == ["<0>", "<1>"]
    assert rows[-1]["kind"] == "other"
    assert sum(r["rows"] for r in rows) == 20_000
    where = codes == 0
    assert rows[0]["scores"]["roc_auc"]["value"] == pytest.approx(
        sk.roc_auc_score(y[where], p[where]))
    assert rows[0]["target_mean"] == pytest.approx(y[where].mean())


def test_a_small_slice_is_shown_and_marked():
    y, p = binary_rows(500)
    codes = np.zeros(500, int)
    codes[:7], codes[7:8] = -1, 1
    rows = slice_scores("binary", y, p, codes, ["a", "b"], resamples=50)
    assert [(r["level"], r["rows"], r["small"]) for r in rows] == [
        ("a", 492, False), ("(missing)", 7, True), ("b", 1, True)]
    assert rows[2]["scores"]["roc_auc"]["note"] == "undefined: all rows are of one class"
