"""What a linear model can be told: its penalty, and a solver for what does not fit into memory."""

from __future__ import annotations

import numpy as np
import pytest
from real_tables import joined, real
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression
from test_every_model import TARGETS, problem

from gpupipe.errors import ConfigError, DataError
from gpupipe.models import Matrix, Training, model_of
from gpupipe.models.dense import blocks
from gpupipe.steps import Target


def fitted(train, target, **params):
    return model_of("linear", params).fit(train, None, target, Training(seed=3))


def predicted(model, rows):
    return np.concatenate([model.predict(c) for c in rows.chunks])


def log_loss(p, y):
    chosen = np.where(y == 1, p, 1 - p) if p.ndim == 1 else p[np.arange(len(y)), y]
    return -np.log(chosen).mean()


# Penalties


@pytest.mark.parametrize(("params", "reference"), [
    ({"penalty": "l2", "C": 0.3}, {"C": 0.3}),
    ({"penalty": "l1", "C": 0.1}, {"C": 0.1, "l1_ratio": 1.0, "solver": "saga"}),
    ({"penalty": "elasticnet", "l1_ratio": 0.4}, {"l1_ratio": 0.4, "solver": "saga"}),
    ({"penalty": None}, {"C": np.inf}),
], ids=["l2", "l1", "elasticnet", "none"])
@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_penalty_is_scikit_learns(shared_data, task, params, reference):
    train, target = real(shared_data, task, 300, weighted=True)
    x = joined(train)
    model = LogisticRegression(random_state=3, max_iter=300, **reference)
    expected = model.fit(x, train.target, sample_weight=train.weight).predict_proba(x)
    found = predicted(fitted(train, target, max_iter=300, **params), train)
    np.testing.assert_allclose(found, expected[:, 1] if task == "binary" else expected, atol=1e-12)


@pytest.mark.parametrize(("params", "reference"), [
    ({"penalty": "l1", "alpha": 2e3}, Lasso(alpha=2e3)), ({"penalty": None}, LinearRegression()),
], ids=["lasso", "none"])
def test_a_lasso_and_plain_least_squares_are_scikit_learns(shared_data, params, reference):
    train, target = real(shared_data, "regression", 400)
    expected = reference.fit(joined(train), train.target).predict(joined(train))
    np.testing.assert_allclose(predicted(fitted(train, target, **params), train), expected,
                               rtol=1e-8)


@pytest.mark.parametrize(("params", "words"), [
    ({"penalty": "l2", "l1_ratio": 0.5}, "disagree"),
    ({"penalty": "l1", "l1_ratio": 0.0}, "disagree"),
    ({"penalty": None, "l1_ratio": 1.0}, "disagree"), ({"penalty": "elasticnet"}, "l1_ratio None"),
    ({"penalty": "elasticnet", "l1_ratio": 1.0}, "l1_ratio"), ({"penalty": "l3"}, "penalty"),
    ({"solver": "adam"}, "solver"),
])
def test_what_contradicts_itself_is_refused(params, words):
    with pytest.raises(ConfigError, match=words):
        model_of("linear", params)


# Stochastic gradient descent


@pytest.mark.parametrize("params", [{}, {"C": 0.01}, {"penalty": "l1", "C": 0.1},
                                    {"class_weight": "balanced"}], ids=str)
@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_sgd_comes_near_the_exact_solver_in_the_same_parameters(shared_data, task, params):
    train, target = real(shared_data, task, 3000)
    exact = predicted(fitted(train, target, **params), train)
    near = predicted(fitted(train, target, solver="sgd", **params), train)
    least = log_loss(exact, train.target)
    assert log_loss(near, train.target) < least * (1.02 if task == "binary" else 1.05)
    if task == "binary":
        assert np.abs(near - exact).mean() < 0.02


@pytest.mark.parametrize("params", [{}, {"alpha": 1e4}, {"penalty": "l1", "alpha": 3e3},
                                    {"fit_intercept": False}], ids=str)
def test_sgd_comes_near_ridge_and_lasso_in_the_same_parameters(shared_data, params):
    train, target = real(shared_data, "regression", 3000)
    y = train.target
    exact = predicted(fitted(train, target, **params), train)
    near = predicted(fitted(train, target, solver="sgd", **params), train)
    assert ((near - y) ** 2).mean() < 1.05 * ((exact - y) ** 2).mean()
    assert np.corrcoef(near, exact)[0, 1] > 0.99


@pytest.mark.parametrize("task", model_of("linear", {}).tasks)
def test_sgd_learns_the_same_from_any_chunks_that_are_made_anew_each_time(task):
    whole = problem(task, 2500, chunks=1, weight=np.linspace(0.5, 2, 2500))

    class Streamed:
        passes = 0

        def __iter__(self):
            Streamed.passes += 1
            yield from np.array_split(whole.chunks[0], 17)

    streamed = Matrix(Streamed(), whole.target, whole.weight, whole.names, whole.categorical)
    a, b = (fitted(m, TARGETS[task], solver="sgd") for m in (whole, streamed))
    np.testing.assert_array_equal(a.coefficients, b.coefficients)
    assert Streamed.passes > 5
    assert model_of("linear", {"solver": "sgd"}).streams
    assert not model_of("linear", {}).streams


def test_sgd_knows_a_weight_from_a_repeated_row(shared_data):
    train, target = real(shared_data, "binary", 2000)
    heavy = np.where(train.target == 1, 3.0, 1.0)
    weighted = Matrix(train.chunks, train.target, heavy, train.names, train.categorical)
    exact = predicted(fitted(weighted, target), train)
    near = predicted(fitted(weighted, target, solver="sgd"), train)
    assert abs(near.mean() - exact.mean()) < 0.02


def test_sgd_gives_a_class_without_rows_nothing():
    train = problem("multiclass", 600)
    few = np.where(train.target == 2, 0, train.target)
    part = Matrix(train.chunks, few, None, train.names, train.categorical)
    scores = predicted(fitted(part, TARGETS["multiclass"], solver="sgd"), train)
    assert (scores[:, 2] == 0).all() and scores[:, 1].max() > 0.5
    four = Target("multiclass", ("a", "b", "c", "d"))
    scores = predicted(fitted(train, four, solver="sgd"), train)
    assert (scores[:, 3] == 0).all()
    np.testing.assert_allclose(scores.sum(axis=1), 1)


def test_sgd_that_does_not_come_to_rest_says_so():
    with pytest.raises(ConfigError, match="did not come to rest") as error:
        fitted(problem("regression"), TARGETS["regression"], solver="sgd", eta0=50.0)
    assert "eta0 lower" in str(error.value.hint)


def test_sgd_refuses_a_gpu_and_holes():
    how = Training(device="cuda")
    with pytest.raises(ConfigError, match="trains on the CPU") as error:
        model_of("linear", {"solver": "sgd"}).fit(problem("binary"), None, TARGETS["binary"], how)
    assert "engine.device" in str(error.value.hint)
    train = problem("binary")
    train.chunks[2][3, 1] = np.nan
    with pytest.raises(DataError, match="missing values, found in x"):
        fitted(train, TARGETS["binary"], solver="sgd")


@pytest.mark.parametrize("chunks", [1, 3, 40])
@pytest.mark.parametrize("rows", [1, 7, 100, 1000])
def test_blocks_hold_the_rows_in_order(chunks, rows):
    train = problem("binary", 250, chunks=chunks)
    found = list(blocks("linear", train, rows))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), joined(train))
    assert [len(x) for x, _ in found[:-1]] == [rows] * (len(found) - 1)
    for x, where in found:
        assert len(x) == where.stop - where.start
    assert [w.start for _, w in found] == list(range(0, 250, rows))
