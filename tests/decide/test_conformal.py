"""Conformal margins: the theorem itself, on every set of numbers; sets and widths by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.decide.evidence import Evidence
from gpupipe.decide.intervals import Conformal, conform, ends_of, measured, reach
from gpupipe.errors import ConfigError
from gpupipe.models.wrappers import set_scores, widened


@given(st.lists(st.floats(-1e6, 1e6), min_size=12, max_size=60, unique=True),
       st.floats(0.1, 0.9))
@settings(max_examples=200, deadline=None)
def test_of_n_plus_one_scores_exactly_the_promised_number_is_within_the_others_reach(s, coverage):
    scores, n = np.array(s), len(s) - 1
    if math.ceil(coverage * (n + 1) - 1e-9) > n:
        return
    within = sum(scores[i] <= reach(np.delete(scores, i), None, coverage) for i in range(n + 1))
    assert within == math.ceil(coverage * (n + 1) - 1e-9)


@given(st.lists(st.floats(0, 100), min_size=12, max_size=50), st.floats(0.1, 0.9))
@settings(max_examples=100, deadline=None)
def test_equal_weights_are_no_weights_and_no_order_matters(s, coverage):
    scores = np.array(s)
    plain = reach(scores, None, coverage)
    assert reach(scores, np.full(len(s), 3.0), coverage) == plain
    order = np.random.default_rng(0).permutation(len(s))
    assert reach(scores[order], None, coverage) == plain


def test_too_few_rows_for_the_coverage_is_an_error_that_says_how_many_it_takes():
    with pytest.raises(ConfigError, match=r"a coverage of 0.95 takes 19 rows .* there are 18"):
        reach(np.arange(18.0), None, 0.95)
    assert reach(np.arange(19.0), None, 0.95) == 18.0


def test_margins_that_cross_meet_in_the_middle():
    ends = np.array([[0.0, 10.0], [0.0, 1.0]])
    np.testing.assert_array_equal(widened(ends, -2.0), [[2, 8], [0.5, 0.5]])
    np.testing.assert_array_equal(widened(ends, 1.0), [[-1, 11], [-1, 2]])


def test_scores_of_sets_by_hand():
    p = np.array([[0.5, 0.2, 0.3]])
    np.testing.assert_allclose(set_scores("lac", p), [[0.5, 0.8, 0.7]])
    np.testing.assert_allclose(set_scores("aps", p), [[0.5, 1.0, 0.8]])
    np.testing.assert_allclose(set_scores("lac", np.array([0.9])), [[0.9, 0.1]])


def uneven(n: int, seed: int) -> tuple[Evidence, np.ndarray]:
    """A target whose spread grows with its mean; quantiles that are a little too narrow."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(1, 10, n)
    y = mean * (1 + 0.3 * rng.standard_normal(n))
    quantiles = np.stack([mean * 0.55, mean * 1.45], axis=1)
    return Evidence(y, None, np.arange(n) % 5, mean), quantiles


@pytest.mark.parametrize("cqr", [False, True])
def test_coverage_is_as_promised_over_many_draws(cqr):
    shares = []
    for seed in range(40):
        rows, quantiles = uneven(400, seed)
        new, their_quantiles = uneven(2000, 1000 + seed)
        ends = ends_of(rows.prediction, quantiles if cqr else None)
        theirs = ends_of(new.prediction, their_quantiles if cqr else None)
        made = conform(Conformal(0.9, "cqr" if cqr else "cross"), rows, ends, (new, theirs))
        shares.append(made.found["measured"])
        assert made.found["measured"] == pytest.approx(made.covers(new.y).mean())
    error = np.std(shares, ddof=1) / math.sqrt(len(shares))
    assert abs(np.mean(shares) - 0.9) < 3 * error + 1 / 400
    # The stated standard error is what the shares vary by.
    assert made.found["standard_error"] == pytest.approx(np.std(shares, ddof=1), rel=0.4)


def test_quantiles_give_wide_intervals_where_the_target_varies_much():
    rows, quantiles = uneven(4000, 0)
    plain = conform(Conformal(0.9, "cross"), rows, ends_of(rows.prediction, None), None).found
    cqr = conform(Conformal(0.9, "cqr"), rows, ends_of(rows.prediction, quantiles), None).found
    assert cqr["deciles"][-1]["mean_size"] > 2 * cqr["deciles"][0]["mean_size"]
    assert max(abs(d["measured"] - 0.9) for d in cqr["deciles"]) < 0.05
    assert max(abs(d["measured"] - 0.9) for d in plain["deciles"]) > 0.08
    assert cqr["mean_size"] < plain["mean_size"]


def test_without_a_holdout_each_fold_is_judged_by_the_scores_of_the_others():
    rows, _ = uneven(500, 3)
    ends = ends_of(rows.prediction, None)
    made = conform(Conformal(0.8, "cross"), rows, ends, None)
    assert made.found["measured_on"] == "out of fold"
    error = np.abs(rows.y - rows.prediction)
    for k in range(5):
        margin = reach(error[rows.fold != k], None, 0.8)
        np.testing.assert_allclose(made.out_of_fold[rows.fold == k, 1],
                                   rows.prediction[rows.fold == k] + margin)


def test_split_takes_the_errors_of_the_last_fold():
    rows, _ = uneven(500, 3)
    made = conform(Conformal(0.8, "split"), rows, ends_of(rows.prediction, None), None)
    last = rows.fold == 4
    assert made.margin == reach(np.abs(rows.y - rows.prediction)[last], None, 0.8)
    assert made.found["calibration_rows"] == 100


@pytest.mark.parametrize("rule", ["lac", "aps"])
def test_sets_hold_the_promised_share_of_labels(rule):
    rng = np.random.default_rng(0)

    def draw(n: int) -> Evidence:
        z = 1.5 * rng.normal(size=(n, 6))
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return Evidence((p.cumsum(1) < rng.random(n)[:, None]).sum(1), None, np.arange(n) % 5, p)

    rows, new = draw(4000), draw(8000)
    made = conform(Conformal(0.85, "cross", rule), rows, rows.prediction, (new, new.prediction))
    off = made.found["measured"] - 0.85
    assert abs(off) < 3.5 * made.found["standard_error"]
    assert made.holdout.dtype == bool and made.holdout.shape == (8000, 6)
    assert sum(made.found["sizes"]) == pytest.approx(1)
    assert made.found["mean_size"] == pytest.approx(made.holdout.sum(1).mean())


def test_weights_count_in_the_measured_coverage():
    rows = Evidence(np.array([0.0, 5.0]), np.array([3.0, 1.0]), np.array([0, 1]), np.zeros(2))
    bounds = np.array([[-1.0, 1.0], [-1.0, 1.0]])
    found = measured(Conformal(0.9, "cross"), rows, bounds, 100)
    assert found["measured"] == 0.75
