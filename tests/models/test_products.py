"""Products that no order of adding changes, and Platt's sigmoid."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import _SigmoidCalibration

from gpupipe.models.platt import folds_of, sigmoid
from gpupipe.models.products import product, sliced


@given(seed=st.integers(0, 2**32 - 1), width=st.sampled_from([1, 2, 7, 64, 300]),
       cuts=st.lists(st.integers(0, 40), max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_batch_any_order_of_columns_and_any_scale_of_a_row_give_the_same_bits(
    seed, width, cuts
):
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(40, width)) * np.exp2(rng.integers(-30, 30, (40, 1)))
    right = rng.normal(size=(9, width)) * np.exp2(rng.integers(-9, 9, (1, width)))
    right[0] = 0
    whole = product(sliced(left), sliced(right))
    parts = [product(sliced(p), sliced(right)) for p in np.split(left, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    order = rng.permutation(width)
    np.testing.assert_array_equal(product(sliced(left[:, order]), sliced(right[:, order])), whole)


@pytest.mark.parametrize(("width", "bits"), [
    (1, 26), (2, 26), (100, 23), (1024, 21), (1 << 17, 18)])
def test_as_many_bits_as_a_sum_has_room_for(width, bits):
    x = np.random.default_rng(0).uniform(-1, 1, (2, width))
    assert sliced(x).bits == bits
    assert width * 4**bits <= 2**53
    exact = float(sum((Fraction(a) * Fraction(b) for a, b in zip(x[0], x[1], strict=True)),
                      Fraction(0))) if width <= 1024 else float(x[0] @ x[1])
    error = abs(product(sliced(x[:1]), sliced(x[1:]))[0, 0] - exact)
    assert error <= 2 * width * 4.0**-bits


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_sigmoid_is_scikit_learns(scale, weighted):
    rng = np.random.default_rng(1)
    margin = rng.normal(size=500) * scale
    positive = rng.random(500) < 1 / (1 + np.exp(-1.5 * margin / scale + 0.4))
    weight = rng.uniform(0.1, 3, 500) if weighted else None
    a, b = sigmoid(margin, positive, weight)
    reference = _SigmoidCalibration().fit(margin, positive.astype(int), sample_weight=weight)
    expected = reference.predict(margin)
    np.testing.assert_allclose(1 / (1 + np.exp(a * margin + b)), expected, atol=3e-5)


def test_margins_that_tell_nothing_give_the_share_and_perfect_ones_stay_finite():
    positive = np.arange(100) < 30
    a, b = sigmoid(np.zeros(100), positive, None)
    assert 1 / (1 + np.exp(b)) == pytest.approx(0.3, abs=0.01)
    a, b = sigmoid(np.where(positive, 1.0, -1.0), positive, None)
    assert np.isfinite([a, b]).all() and 1 / (1 + np.exp(a + b)) > 0.95
    assert np.isfinite(sigmoid(np.zeros(0), np.zeros(0, bool), None)).all()


def test_folds_spread_every_class_evenly_and_follow_the_seed():
    y = np.repeat([0, 1, 2], [50, 11, 3])
    fold = folds_of(y, 5, 7)
    for label in range(3):
        counts = np.bincount(fold[y == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(fold, folds_of(y, 5, 7))
    assert (fold != folds_of(y, 5, 8)).any()
