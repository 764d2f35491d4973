"""Naive Bayes: scikit-learn's from exact sums, whichever way the rows are cut."""

from __future__ import annotations

import numpy as np
import pytest
from common.quick import settings as pipeline
from common.quick import small_table, trained_on
from hypothesis import given, settings
from hypothesis import strategies as st
from real_tables import joined, real
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB

from gpupipe.errors import ConfigError, DataError
from gpupipe.models import Matrix, Training, model_of
from gpupipe.models.naive_bayes import Sums
from gpupipe.steps import Target


def fitted(train, target, **params):
    return model_of("naive_bayes", params).fit(train, None, target, Training())


def predicted(model, rows):
    return np.concatenate([model.predict(c) for c in rows.chunks])


REFERENCES = {
    "gaussian": ({"var_smoothing": 1e-6}, GaussianNB(var_smoothing=1e-6)),
    "uniform prior": ({"fit_prior": False, "distribution": "bernoulli"},
                      BernoulliNB(fit_prior=False)),
    "bernoulli": ({"distribution": "bernoulli", "binarize": 0.3, "alpha": 0.5},
                  BernoulliNB(binarize=0.3, alpha=0.5)),
    "multinomial": ({"distribution": "multinomial", "alpha": 2.0}, MultinomialNB(alpha=2.0)),
    "complement": ({"distribution": "complement"}, ComplementNB()),
    "complement norm": ({"distribution": "complement", "norm": True}, ComplementNB(norm=True)),
}


@pytest.mark.parametrize("name", REFERENCES)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_probabilities_are_scikit_learns_on_real_tables(shared_data, task, weighted, name):
    params, reference = REFERENCES[name]
    train, target = real(shared_data, task, 600, weighted)
    new, _ = real(shared_data, task, 200, skip=600)
    if params.get("distribution") in ("multinomial", "complement"):
        train, new = (Matrix(tuple(np.rint(np.abs(4 * c)) for c in m.chunks), m.target, m.weight,
                             m.names, m.categorical) for m in (train, new))
    reference.fit(joined(train), train.target, sample_weight=train.weight)
    expected = reference.predict_proba(joined(new))
    found = predicted(fitted(train, target, **params), new)
    if weighted and name == "gaussian":  # scikit-learn's smoothing leaves the weights out
        np.testing.assert_allclose(found, expected[:, 1] if task == "binary" else expected,
                                   atol=1e-5)
    else:
        np.testing.assert_allclose(found, expected[:, 1] if task == "binary" else expected,
                                   rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, 300), max_size=6),
       weighted=st.booleans())
@settings(max_examples=15, deadline=None)
def test_any_cut_any_order_and_any_merge_give_the_same_sums(seed, cuts, weighted):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(300, 3)) * np.exp2(rng.integers(-20, 20, (300, 1)))).astype(np.float32)
    y, order = rng.integers(0, 3, 300), rng.permutation(300)
    weight = rng.random(300) if weighted else None
    whole, parts = Sums(3, 3), []
    whole.add(x, y, weight, True)
    for rows in np.split(order, sorted(cuts)):
        part = Sums(3, 3)
        part.add(x[rows], y[rows], None if weight is None else weight[rows], True)
        parts.append(part)
    total = parts.pop(0)
    for part in reversed(parts):
        total.merge(part)
    for name in ("weight", "first", "second"):
        np.testing.assert_array_equal(getattr(total, name), getattr(whole, name))


def test_three_hundred_classes_are_told_apart():
    rng = np.random.default_rng(0)
    y = np.arange(1500) % 300
    x = (y[:, None] + rng.normal(0, 0.1, (1500, 2))).astype(np.float32)
    target = Target("multiclass", tuple(map(str, range(300))))
    train = Matrix((x,), y, None, ("a", "b"), (False, False))
    expected = GaussianNB().fit(x.astype(float), y).predict_proba(x.astype(float))
    np.testing.assert_allclose(predicted(fitted(train, target), train), expected, atol=1e-8)


@pytest.mark.parametrize("distribution", ["gaussian", "bernoulli", "multinomial", "complement"])
def test_a_class_without_rows_is_never_predicted_and_constant_features_do_no_harm(distribution):
    x = np.ones((20, 2), np.float32)
    train = Matrix((x,), np.arange(20) % 2 * 2, None, ("a", "b"), (False, False))
    scores = fitted(train, Target("multiclass", ("a", "b", "c")),
                    distribution=distribution).predict(x)
    np.testing.assert_allclose(scores, np.tile([0.5, 0.0, 0.5], (20, 1)))


def test_counts_below_zero_are_refused_by_name():
    train = Matrix((np.array([[1.0, -2.0]], np.float32),), np.zeros(1, np.int64), None,
                   ("good", "bad"), (False, False))
    with pytest.raises(DataError, match="below 0 in bad") as error:
        fitted(train, Target("binary", ("n", "y")), distribution="multinomial")
    assert "min_max" in str(error.value.hint)


def test_values_are_not_for_it():
    train = Matrix((np.ones((2, 1), np.float32),), np.ones(2), None, ("x",), (False,))
    with pytest.raises(ConfigError, match="'naive_bayes' is not for regression"):
        fitted(train, Target("regression", (), 0.0, 1.0))


def test_a_pipeline_with_a_numeric_target_is_refused_before_anything_is_learned():
    with pytest.raises(ConfigError, match="'naive_bayes' is not for regression") as error:
        trained_on(small_table(60), pipeline("regression", model={"kind": "naive_bayes"}))
    assert "linear" in str(error.value.hint) and "naive_bayes" not in str(error.value.hint)


@pytest.mark.parametrize(("params", "words"), [
    ({"distribution": "poisson"}, "distribution"), ({"alpha": -1}, "alpha"),
    ({"var_smoothing": "much"}, "var_smoothing"),
])
def test_what_makes_no_sense_is_refused_by_name(params, words):
    with pytest.raises(ConfigError, match=words):
        model_of("naive_bayes", params)
