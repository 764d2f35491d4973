"""Support vector machines: scikit-learn's, by our own arithmetic, for any batch."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_tables import joined, real
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR
from sklearn.utils.class_weight import compute_sample_weight
from test_every_model import TARGETS, problem

from gpupipe.codec import pack, read_arrays, unpack, write_arrays
from gpupipe.errors import ConfigError, DataError
from gpupipe.models import Matrix, Training, model_of, packed, restored
from gpupipe.models.platt import folds_of
from gpupipe.steps import Target


def fitted(train, target, seed=3, **params):
    return model_of("svm", params).fit(train, None, target, Training(seed=seed))


def predicted(model, rows):
    return np.concatenate([model.predict(c) for c in rows.chunks])


KERNELS = [
    ({"C": 2.0}, SVC(C=2.0)), ({"gamma": 0.2}, SVC(gamma=0.2)),
    ({"kernel": "poly", "degree": 2, "coef0": 1.0, "gamma": "auto"},
     SVC(kernel="poly", degree=2, coef0=1.0, gamma="auto")),
    ({"kernel": "linear", "tol": 1e-6, "max_iter": 20_000},
     LinearSVC(tol=1e-6, random_state=3, max_iter=20_000)),
]
each_kernel = pytest.mark.parametrize(("params", "reference"), KERNELS,
                                      ids=["rbf", "gamma", "poly", "linear"])


@each_kernel
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_probabilities_are_scikit_learns_calibrated_out_of_fold(
    shared_data, task, weighted, params, reference
):
    train, target = real(shared_data, task, 400, weighted)
    new, _ = real(shared_data, task, 200, skip=400)
    fold = folds_of(train.target, 5, 3)
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(5)]
    calibrated = CalibratedClassifierCV(reference, cv=splits, ensemble=False)
    calibrated.fit(joined(train), train.target, sample_weight=train.weight)
    p = calibrated.predict_proba(joined(new))
    found = predicted(fitted(train, target, **params), new)
    np.testing.assert_allclose(found, p[:, 1] if task == "binary" else p, rtol=0, atol=2e-3)
    machine = reference.fit(joined(train), train.target, sample_weight=train.weight)
    margins = fitted(train, target, **params).machine.margins(new.chunks[0])
    expected = machine.decision_function(new.chunks[0].astype(float))
    np.testing.assert_allclose(margins, expected.reshape(margins.shape), atol=1e-6)


def test_weights_of_classes_move_the_border_and_not_how_likely_a_class_is(shared_data):
    """scikit-learn counts the classes of each fold anew, which for two large ones is the same."""
    train, target = real(shared_data, "binary", 400)
    fold = folds_of(train.target, 5, 3)
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(5)]
    reference = CalibratedClassifierCV(SVC(class_weight="balanced"), cv=splits, ensemble=False)
    expected = reference.fit(joined(train), train.target).predict_proba(joined(train))[:, 1]
    found = predicted(fitted(train, target, class_weight="balanced"), train)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)
    assert abs(found.mean() - train.target.mean()) < 0.01


@pytest.mark.parametrize(("params", "reference"), [
    ({"C": 3.0, "epsilon": 0.05}, SVR(C=3.0, epsilon=0.05)),
    ({"kernel": "linear", "tol": 1e-6, "max_iter": 50_000},
     LinearSVR(epsilon=0.1, tol=1e-6, max_iter=50_000, random_state=3)),
], ids=["rbf", "linear"])
@pytest.mark.parametrize("scaled", [True, False])
def test_values_are_scikit_learns(shared_data, params, reference, scaled):
    train, target = real(shared_data, "regression", 400)
    new, _ = real(shared_data, "regression", 200, skip=400)
    if not scaled:
        train = Matrix(train.chunks, train.target / 1e5, None, train.names, train.categorical)
    x = joined(train)
    whole = TransformedTargetRegressor(reference, transformer=StandardScaler()) if scaled \
        else reference
    expected = whole.fit(x, train.target).predict(joined(new))
    found = predicted(fitted(train, target, scale_target=scaled, **params), new)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@given(cuts=st.lists(st.integers(0, 50), max_size=5), kernel=st.sampled_from(["rbf", "poly"]),
       task=st.sampled_from(["binary", "multiclass", "regression"]))
@settings(max_examples=20, deadline=None)
def test_a_batch_of_any_size_gives_the_same_bits(cuts, kernel, task):
    model = MACHINES.setdefault((kernel, task), None) or fitted(
        problem(task, 150), TARGETS[task], kernel=kernel)
    MACHINES[kernel, task] = model
    new = problem(task, 50, seed=5, chunks=1).chunks[0]
    parts = np.split(new, sorted(cuts))
    np.testing.assert_array_equal(np.concatenate([model.predict(p) for p in parts]),
                                  model.predict(new))


MACHINES: dict = {}


def test_blocks_of_new_rows_do_not_matter(monkeypatch):
    model = fitted(problem("multiclass", 150), TARGETS["multiclass"])
    new = problem("multiclass", 64, chunks=1).chunks[0]
    whole = model.predict(new)
    monkeypatch.setattr("gpupipe.models.machines.VALUES_AT_ONCE", 500)
    np.testing.assert_array_equal(model.predict(new), whole)


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_balanced_classes_are_weights_of_their_rows(shared_data, kernel):
    train, target = real(shared_data, "multiclass", 400)
    x, y = joined(train), train.target
    if kernel == "rbf":
        reference = SVC(class_weight="balanced").fit(x, y)
    else:  # liblinear weighs a class's own rows by its class_weight, but not the rest's by theirs
        reference = LinearSVC(random_state=3, tol=1e-3).fit(
            x, y, sample_weight=compute_sample_weight("balanced", y))
    expected = reference.decision_function(x)
    model = fitted(train, target, kernel=kernel, class_weight="balanced")
    found = np.concatenate([model.machine.margins(c) for c in train.chunks])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_weights_by_label_are_those_of_scikit_learn_by_code():
    train = problem("binary", 200)
    model = fitted(train, TARGETS["binary"], class_weight={"yes": 3.0})
    reference = SVC(class_weight={1: 3.0}).fit(joined(train), train.target)
    np.testing.assert_allclose(model.machine.margins(train.chunks[0])[:, 0],
                               reference.decision_function(train.chunks[0]), atol=1e-6)
    with pytest.raises(ConfigError, match="names 'maybe', which is no class"):
        fitted(train, TARGETS["binary"], class_weight={"maybe": 3.0})


@pytest.mark.parametrize("kernel", ["rbf", "linear"])
def test_classes_without_rows_or_with_few_are_lived_with(kernel):
    train = problem("multiclass", 200)
    four = Target("multiclass", ("a", "b", "c", "d"))
    few = train.target.copy()
    few[few == 2] = 0
    scores = predicted(fitted(Matrix(train.chunks, few, None, train.names, train.categorical),
                              four, kernel=kernel), train)
    assert (scores[:, 2:] == 0).all() and scores[:, :2].min() > 0
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    one = few.copy()
    one[np.flatnonzero(one == 0)[0]] = 2  # a single row: out of fold nobody knows its class
    scores = predicted(fitted(Matrix(train.chunks, one, None, train.names, train.categorical),
                              four, kernel=kernel), train)
    assert np.isfinite(scores).all() and scores[:, 2].max() < 0.2
    alone = predicted(fitted(Matrix(train.chunks, 0 * few + 1, None, train.names,
                                    train.categorical), four, kernel=kernel), train)
    assert (alone[:, 1] == 1).all() and alone.sum() == 200


def test_rows_without_weight_are_as_if_they_were_not_there():
    train = problem("binary", 200, chunks=1)
    weight = (np.arange(200) % 3 > 0).astype(float)
    kept = weight > 0
    part = Matrix((train.chunks[0][kept],), train.target[kept], None, train.names,
                  train.categorical)
    whole = Matrix(train.chunks, train.target, weight, train.names, train.categorical)
    np.testing.assert_array_equal(fitted(whole, TARGETS["binary"]).predict(train.chunks[0]),
                                  fitted(part, TARGETS["binary"]).predict(train.chunks[0]))


def test_values_within_epsilon_need_no_support_vector():
    train = problem("regression", 60)
    flat = Matrix(train.chunks, np.full(60, 7.0), None, train.names, train.categorical)
    model = fitted(flat, TARGETS["regression"])
    assert predicted(model, train).tolist() == [7.0] * 60
    again = restored(json_and_back(packed(model)))
    assert predicted(again, train).tolist() == [7.0] * 60


def json_and_back(payload):
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(pack(payload, arrays))
    return unpack(json.loads(text), read_arrays(write_arrays(arrays), 1 << 26))


def test_more_rows_than_a_kernel_can_learn_from_are_refused_with_a_way_out():
    train = problem("binary", 200)
    with pytest.raises(DataError, match="200 rows to learn from") as error:
        fitted(train, TARGETS["binary"], max_rows=100)
    assert "kernel to linear" in str(error.value.hint)
    assert predicted(fitted(train, TARGETS["binary"], max_rows=100, kernel="linear"),
                     train).shape == (200,)


@pytest.mark.parametrize(("params", "words"), [
    ({"kernel": "sigmoid"}, "kernel"), ({"gamma": -1}, "gamma"), ({"cv": 1}, "cv"),
    ({"degree": 2.5}, "degree"), ({"class_weight": 3}, "class_weight"),
    ({"C": -1.0}, "scikit-learn refused to train"),
])
def test_what_makes_no_sense_is_refused_by_name(params, words):
    with pytest.raises(ConfigError, match=words):
        fitted(problem("binary", 50), TARGETS["binary"], **params)


def test_only_the_linear_kernel_weighs_features():
    train = problem("binary", 200)
    assert fitted(train, TARGETS["binary"]).importances() == []
    assert fitted(train, TARGETS["binary"], kernel="linear").importances()[0][0] == "w"
