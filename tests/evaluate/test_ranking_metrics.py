"""NDCG and MAP: scikit-learn's of every query, and whole queries are what is resampled."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.data.outcomes import grade_of, query_of, ranked
from gpupipe.errors import DataError
from gpupipe.evaluate import evaluate

NAMES = ["ndcg", "ndcg_at_10", "mean_average_precision"]


def by_hand(query, grade, score):
    """The three metrics of each query with a relevant row, by scikit-learn."""
    found = []
    for q in np.unique(query):
        g, s = grade[query == q], score[query == q]
        if g.max() == 0:
            continue
        # scikit-learn refuses a single row, whose order is right.
        ndcg = [1.0, 1.0] if len(g) == 1 else [
            sk.ndcg_score([g], [s]), sk.ndcg_score([g], [s], k=10)]
        found.append([*ndcg, sk.average_precision_score(g > 0, s)])
    return np.array(found)


@st.composite
def rankings(draw):
    n = draw(st.integers(1, 60))
    some = [st.lists(st.integers(0, most), min_size=n, max_size=n) for most in (3, 4, 5)]
    return tuple(np.array(draw(one), float) for one in some)


@given(rankings())
@settings(max_examples=100, deadline=None)
def test_metrics_are_the_means_of_scikit_learns_over_queries(drawn):
    query, grade, score = drawn
    expected = by_hand(query, grade, score)
    y = ranked(query.astype(int), grade, "grade")
    found = evaluate("ranking", y, score, metrics=NAMES, resamples=0)
    for i, name in enumerate(NAMES):
        if len(expected):
            assert found[name].value == pytest.approx(expected[:, i].mean(), rel=1e-12)
        else:
            assert "no query has a relevant row" in str(found[name].note)


def test_the_interval_is_that_of_a_bootstrap_of_queries():
    rng = np.random.default_rng(0)
    query, grade = rng.integers(0, 150, 2000), rng.integers(0, 3, 2000).astype(float)
    score = grade + 2 * rng.normal(size=2000)
    values = by_hand(query, grade, score)
    found = evaluate("ranking", ranked(query, grade, "g"), score, metrics=NAMES, resamples=2000)
    for i, name in enumerate(NAMES):
        drawn = rng.choice(values[:, i], (2000, len(values))).mean(axis=1)
        np.testing.assert_allclose([found[name].low, found[name].high],
                                   np.quantile(drawn, [0.025, 0.975]), atol=0.006)


def test_query_and_grade_are_one_number_and_two_again():
    query, grade = np.array([0, 5, 2**40]), np.array([0.0, 31.0, 7.0])
    y = ranked(query, grade, "g")
    assert query_of(y).tolist() == query.tolist()
    assert grade_of(y).tolist() == grade.tolist()
    assert np.isnan(ranked(query, np.array([np.nan, 1, 2]), "g")[0])


@pytest.mark.parametrize("grade", [-1.0, 0.5, 32.0])
def test_grades_that_cannot_be_are_refused(grade):
    with pytest.raises(DataError, match=f"1 rows have others, such as {grade:g}"):
        ranked(np.arange(2), np.array([1.0, grade]), "g")


def test_weights_of_rows_are_refused():
    with pytest.raises(DataError, match="no weights of rows"):
        evaluate("ranking", np.array([1.0, 2.0]), np.ones(2), weight=np.array([1.0, 2.0]))
