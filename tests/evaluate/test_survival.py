"""The concordance index: every pair by hand, its interval by Efron's bootstrap, and its order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.errors import ConfigError
from gpupipe.evaluate import evaluate
from gpupipe.evaluate.leaderboard import Entry, leaderboard
from gpupipe.evaluate.scores import paired_difference
from gpupipe.evaluate.survival import pairs_of


def by_hand(y, longer, weight):
    """Pairs and concordant pairs of each row, pair by pair (Harrell et al. 1982)."""
    time, seen = np.abs(y), ~np.signbit(y)
    pairs, concordant = np.zeros(len(y)), np.zeros(len(y))
    for first in np.flatnonzero(seen):
        for other in range(len(y)):
            later = time[other] > time[first]
            if later or (time[other] == time[first] and not seen[other]):
                right = (longer[first] < longer[other]) + 0.5 * (longer[first] == longer[other])
                for row in (first, other):
                    pairs[row] += weight[first] * weight[other]
                    concordant[row] += weight[first] * weight[other] * right
    return pairs, concordant


@st.composite
def rows(draw):
    n = draw(st.integers(1, 40))
    whole = st.lists(st.integers(0, 7), min_size=n, max_size=n)
    time, longer, weight = (np.array(draw(whole), float) for _ in range(3))
    seen = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return np.where(seen & (time > 0), time, -time), longer, weight + 1


@given(rows())
@settings(max_examples=150, deadline=None)
def test_the_pairs_of_every_row_are_those_that_are_counted_by_hand(drawn):
    for found, expected in zip(pairs_of(*drawn), by_hand(*drawn), strict=True):
        np.testing.assert_allclose(found, expected)


def test_an_example_has_the_value_that_it_has_by_hand():
    # By hand: rows 1 and 2, and 4 and 5, are the wrong way round; row 3 is censored before 4 to 6.
    y = np.array([1.0, 2.0, -3.0, 4.0, 5.0, -6.0])
    p = np.array([2.0, 1.0, 3.0, 5.0, 4.0, 6.0])
    pairs, concordant = by_hand(y, p, np.ones(6))
    assert (concordant.sum() / 2, pairs.sum() / 2) == (10.0, 12.0)
    assert evaluate("survival", y, p)["concordance_index"].value == pytest.approx(10 / 12)


def drawn(n=250, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    time = rng.exponential(np.exp(x)) + 0.01
    return x, np.where(rng.random(n) < 0.6, time, -time)


def test_the_greater_risk_is_the_earlier_event():
    x, y = drawn()
    time, risk = evaluate("survival", y, np.exp(x)), evaluate("hazard", y, np.exp(-x))
    assert time == risk
    assert evaluate("hazard", y, np.exp(x), resamples=0)["concordance_index"].value == (
        pytest.approx(1 - time["concordance_index"].value))


def test_the_interval_is_that_of_efrons_bootstrap_of_rows():
    x, y = drawn()
    found = evaluate("survival", y, x, resamples=2000)["concordance_index"]
    rng, values = np.random.default_rng(1), []
    for _ in range(2000):
        at = rng.integers(0, len(y), len(y))
        pairs, concordant = pairs_of(y[at], x[at], np.ones(len(y)))
        values.append(concordant.sum() / pairs.sum())
    np.testing.assert_allclose([found.low, found.high], np.quantile(values, [0.025, 0.975]),
                               atol=0.006)


def test_two_models_are_compared_on_the_same_resamples():
    x, y = drawn()
    noise = x + np.random.default_rng(2).normal(size=len(x))
    away = paired_difference("survival", "concordance_index", y, x, noise)
    assert 0 < away.low < away.value < away.high
    board = leaderboard("survival", "concordance_index",
                        [Entry("good", "a", oof=x), Entry("poor", "b", oof=noise)], y)
    assert [p.rank for p in board.places] == [1, 2]


def test_rows_of_weight_zero_do_not_count_and_others_count_as_copies():
    x, y = drawn(60)
    weight = np.random.default_rng(3).integers(0, 3, len(y))
    copies = np.repeat(np.arange(len(y)), weight)
    # Copies of a row are no pairs of each other: an event at one time, or both censored.
    one = evaluate("survival", y, x, weight=weight, resamples=0)
    many = evaluate("survival", y[copies], x[copies], resamples=0)
    assert one["concordance_index"].value == pytest.approx(many["concordance_index"].value)


def test_rows_that_cannot_be_compared_have_no_concordance():
    found = evaluate("survival", np.array([-1.0, -2.0, 3.0]), np.arange(3.0))["concordance_index"]
    assert found.value is None
    assert "no two rows can be compared" in str(found.note)


def test_a_metric_of_values_is_refused():
    with pytest.raises(ConfigError, match="for regression targets; this target is survival"):
        evaluate("survival", np.ones(3), np.ones(3), metrics=["root_mean_squared_error"])
