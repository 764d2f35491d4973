"""Nearest neighbours: scikit-learn's, exactly, and the same for any batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from real_tables import joined, real
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors

from gpupipe.errors import ConfigError, DataError
from gpupipe.models import Matrix, Training, model_of
from gpupipe.models.neighbours import Index
from gpupipe.steps import Target

BINARY = Target("binary", ("no", "yes"))


def fitted(train, target, **params):
    return model_of("neighbours", params).fit(train, None, target, Training())


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_votes_are_scikit_learns_on_real_tables(shared_data, task, weights, metric):
    train, target = real(shared_data, task, 900)
    new, _ = real(shared_data, task, 300, skip=900)
    params = {"n_neighbors": 7, "weights": weights, "metric": metric}
    # By brute force scikit-learn works distances out of products; a tree takes differences.
    library = KNeighborsRegressor if task == "regression" else KNeighborsClassifier
    reference = library(algorithm="kd_tree", **params).fit(joined(train), train.target)
    x = joined(new)
    found = np.concatenate([fitted(train, target, **params).predict(c) for c in new.chunks])
    clear = no_tie(joined(train), x, 7, metric)
    assert clear.mean() > 0.9
    if task == "regression":
        np.testing.assert_allclose(found[clear], reference.predict(x)[clear], rtol=1e-12)
    else:
        p = reference.predict_proba(x)
        expected = p[:, 1] if task == "binary" else p
        np.testing.assert_allclose(found[clear], expected[clear], rtol=0, atol=1e-12)


def no_tie(rows, new, k, metric) -> np.ndarray:
    """Where the k-th neighbour is nearer than the next one: scikit-learn breaks ties at random."""
    distance, _ = NearestNeighbors(n_neighbors=k + 1, metric=metric).fit(rows).kneighbors(new)
    return distance[:, k] > distance[:, k - 1] * (1 + 1e-6) + 1e-9


GRID = st.integers(-3, 3).map(float)
ANY = st.floats(-1e3, 1e3, width=32)


@given(rows=arrays(np.float32, st.tuples(st.integers(3, 80), st.just(3)), elements=GRID | ANY),
       new=arrays(np.float32, st.tuples(st.integers(0, 9), st.just(3)), elements=GRID | ANY),
       k=st.integers(1, 3), metric=st.sampled_from(["euclidean", "manhattan"]))
@settings(max_examples=60, deadline=None)
def test_the_neighbours_are_the_nearest_and_the_earlier_of_equals(rows, new, k, metric):
    near, distance = Index.of(rows, metric).nearest(new, k)
    for row, own, far in zip(new, near, distance, strict=True):
        apart = np.abs(rows.astype(float) - row)
        exact = np.zeros(len(rows))
        for column in (apart if metric == "manhattan" else apart * apart).T:
            exact += column
        order = np.lexsort((np.arange(len(rows)), exact))[:k]
        assert own.tolist() == order.tolist()
        best = exact[order] if metric == "manhattan" else np.sqrt(exact[order])
        assert far.tolist() == best.tolist()


@given(cuts=st.lists(st.integers(0, 60), max_size=5), weights=st.sampled_from(
    ["uniform", "distance"]))
@settings(max_examples=25, deadline=None)
def test_a_batch_of_any_size_gives_the_same_bits(cuts, weights):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 12)).astype(np.float32)
    x[::5] = np.rint(x[::5])
    train = Matrix((x,), (x[:, 0] > 0).astype(np.int64), rng.random(400), ("x",) * 12,
                   (False,) * 12)
    model = fitted(train, BINARY, weights=weights)
    new = rng.normal(size=(60, 12)).astype(np.float32)
    parts = np.split(new, sorted(cuts))
    np.testing.assert_array_equal(np.concatenate([model.predict(p) for p in parts]),
                                  model.predict(new))


def test_a_far_outlier_among_the_rows_costs_no_neighbour():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(3000, 5)).astype(np.float32)
    rows[7] = 1e6
    index = Index.of(rows, "euclidean")
    assert index.moved.dtype == np.float64
    near, _ = index.nearest(rows[:50], 2)
    assert near[:, 0].tolist() == list(range(50))


def test_a_weight_multiplies_a_vote_and_none_at_all_is_no_neighbour():
    x = np.array([[0.0], [1.0], [2.0], [50.0]], np.float32)
    train = Matrix((x,), np.array([0, 1, 1, 0]), np.array([3.0, 1.0, 0.0, 1.0]), ("x",), (False,))
    model = fitted(train, BINARY, n_neighbors=2)
    assert model.predict(np.zeros((1, 1), np.float32)).tolist() == [0.25]
    assert model.predict(np.full((1, 1), 2.0, np.float32)).tolist() == [0.25]


@pytest.mark.parametrize(("params", "words"), [
    ({"n_neighbors": 0}, "n_neighbors"), ({"n_neighbors": 2.5}, "n_neighbors"),
    ({"weights": "near"}, "weights"), ({"metric": "cosine"}, "metric"),
])
def test_what_makes_no_sense_is_refused_by_name(params, words):
    with pytest.raises(ConfigError, match=words):
        model_of("neighbours", params)


def test_fewer_rows_than_neighbours_are_told():
    train = Matrix((np.zeros((3, 1), np.float32),), np.array([0, 1, 0]), None, ("x",), (False,))
    with pytest.raises(DataError, match="3 training rows, fewer than 5 neighbours"):
        fitted(train, BINARY)
