"""Calibrators against scikit-learn, SciPy and by hand; order of rows and round trips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from gpupipe.codec import pack, unpack
from gpupipe.models.calibrators import (
    EPS,
    Beta,
    fit_calibrator,
    log_odds,
    pooled,
    restored_calibrator,
    smoothed,
)

BINARY = ("isotonic", "sigmoid", "beta", "temperature")
every_method = pytest.mark.parametrize("method", BINARY)


def rows(n: int = 3000, seed: int = 0, weighted: bool = False):
    """Overconfident probabilities, and labels of the right ones."""
    rng = np.random.default_rng(seed)
    right = rng.normal(-0.5, 1.2, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-right))).astype(np.int64)
    p = 1 / (1 + np.exp(-(2.2 * right + 0.7)))
    return p, y, rng.uniform(0.2, 3, n) if weighted else None


def rows_of_classes(n: int = 3000, classes: int = 4, seed: int = 0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, classes))
    right = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = (right.cumsum(1) < rng.random(n)[:, None]).sum(1)
    p = right**2.5 / (right**2.5).sum(1, keepdims=True)
    return p, y


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 9)), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_pooling_equals_scikit_learn_s(pairs):
    level, mass = (np.array(side) for side in zip(*pairs, strict=True))
    expected = IsotonicRegression().fit(np.arange(len(level)), level, mass)
    np.testing.assert_allclose(pooled(level, mass), expected.predict(np.arange(len(level))),
                               atol=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
def test_isotonic_is_scikit_learn_s_but_for_its_zeros_and_ones(weighted):
    p, y, weight = rows(weighted=weighted)
    p = p.round(2)  # ties
    reference = IsotonicRegression(out_of_bounds="clip").fit(p, y, weight)
    asked = np.linspace(-0.1, 1.1, 501)
    least = 1 / (len(p) + 2)
    made = fit_calibrator("isotonic", p, y, weight)
    expected = IsotonicRegression(out_of_bounds="clip").fit(
        reference.X_thresholds_, reference.y_thresholds_.clip(least, 1 - least))
    np.testing.assert_allclose(made(asked), expected.predict(asked), atol=1e-6)
    assert made(asked).min() >= least


def soft_reference(columns: np.ndarray, target: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """scikit-learn's regression on targets in 0..1: each row once as a yes, once as a no."""
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000)
    model.fit(np.vstack([columns, columns]), np.repeat([1, 0], len(target)),
              np.concatenate([weight * target, weight * (1 - target)]))
    return np.append(model.coef_[0], model.intercept_)


@pytest.mark.parametrize("weighted", [False, True])
def test_sigmoid_and_beta_equal_a_logistic_regression(weighted):
    p, y, weight = rows(weighted=weighted)
    w = np.ones(len(y)) if weight is None else weight
    target = smoothed(y.astype(float), w)
    slope, shift = soft_reference(log_odds(p)[:, None], target, w)
    made = fit_calibrator("sigmoid", p, y, weight)
    assert (made.slope, made.shift) == pytest.approx((slope, shift), rel=1e-4)
    a, b, c = soft_reference(np.column_stack([np.log(p), -np.log1p(-p)]), target, w)
    made = fit_calibrator("beta", p, y, weight)
    assert (made.a, made.b, made.c) == pytest.approx((a, b, c), rel=1e-3)


def test_platt_s_targets_are_those_of_his_section_2_2():
    y = np.array([1.0, 1, 0, 0, 0])
    np.testing.assert_allclose(smoothed(y, np.ones(5)), [3 / 4, 3 / 4, 1 / 5, 1 / 5, 1 / 5])


def test_a_temperature_is_the_least_log_loss():
    p, y = rows_of_classes()
    made = fit_calibrator("temperature", p, y)

    def loss(sharpness: float) -> float:
        z = p**sharpness
        return log_loss(y, z / z.sum(1, keepdims=True))

    best = minimize_scalar(loss, bounds=(0.05, 5), method="bounded", options={"xatol": 1e-9}).x
    assert made.sharpness == pytest.approx(best, rel=1e-4)
    assert made.sharpness == pytest.approx(1 / 2.5, rel=0.1)  # what was done to them
    assert (made(p).argmax(1) == p.argmax(1)).all()


def test_beta_has_no_negative_coefficient():
    rng = np.random.default_rng(1)
    p = rng.uniform(0.01, 0.99, 4000)
    y = (rng.random(4000) < np.abs(2 * p - 1) ** 0.3).astype(int)  # falls, then rises
    made = fit_calibrator("beta", p, y)
    assert isinstance(made, Beta) and made.a >= 0 and made.b >= 0 and made.a * made.b == 0
    assert (np.diff(made(np.sort(p))) >= -1e-12).all()


@every_method
def test_probabilities_that_are_off_get_better_on_other_rows(method):
    made = fit_calibrator(method, *rows(seed=1))
    p, y, _ = rows(seed=2)
    assert log_loss(y, made(p)) < log_loss(y, p) - 0.02


@every_method
@pytest.mark.parametrize("classes", [2, 4])
def test_the_order_of_the_rows_does_not_matter(method, classes):
    p, y, weight = rows(800, weighted=True)
    if classes > 2:
        p, y = rows_of_classes(800)
    order = np.random.default_rng(5).permutation(800)
    asked = p[:50]
    one = fit_calibrator(method, p, y, weight)
    other = fit_calibrator(method, p[order], y[order], weight[order])
    np.testing.assert_array_equal(one(asked), other(asked))


@every_method
@pytest.mark.parametrize("classes", [2, 4])
def test_what_is_kept_is_plain_and_gives_the_same_calibrator(method, classes):
    p, y, _ = rows() if classes == 2 else (*rows_of_classes(), None)
    made = fit_calibrator(method, p, y)
    arrays: dict[str, np.ndarray] = {}
    again = restored_calibrator(unpack(pack(made.payload(), arrays), arrays))
    np.testing.assert_array_equal(made(p), again(p))
    if classes > 2:
        np.testing.assert_allclose(made(p).sum(1), 1, rtol=1e-12)


@every_method
def test_nothing_is_infinite_where_classes_are_told_apart_or_one_is_missing(method):
    p = np.array([0.0, 1e-12, 0.2, 0.8, 1.0])
    for y in ([0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]):
        given_back = fit_calibrator(method, p, np.array(y))(np.array([0.0, 0.5, 1.0, EPS]))
        assert np.isfinite(given_back).all()
        assert (given_back >= 0).all() and (given_back <= 1).all()
