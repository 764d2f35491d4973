"""SHAP values add up to the margin, for every task, with categories and missing values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from models.test_every_model import fit, predict, problem

from gpupipe.models.base import TASKS
from gpupipe.models.calibrators import fit_calibrator
from gpupipe.models.contributions import (
    Unexplained,
    affordable_rows,
    contributions_of,
    tree_work,
)
from gpupipe.models.wrappers import Calibrated, Picked


def margin_of(model, rows) -> np.ndarray:
    """Log-odds (of several classes up to a row's constant) or values, from the predictions."""
    scores = predict(model, rows)
    if model.task == "regression":
        return scores
    return np.log(scores) if scores.ndim == 2 else np.log(scores / (1 - scores))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["xgboost", "linear"])
def test_contributions_and_base_add_up_to_the_margin(kind, task):
    train = problem(task, categorical=kind == "xgboost")
    if kind == "xgboost":
        for chunk in train.chunks:
            chunk[::7, 1] = np.nan
            chunk[::5, 3] = np.nan
    model = fit(kind, task, train)
    chunk = train.chunks[0]
    found = contributions_of(model, chunk)
    total = found.values.sum(axis=1) + found.base
    want = margin_of(model, train)[: len(chunk)]
    if task == "multiclass":
        assert found.values.shape == (len(chunk), 4, 3)
        total, want = (m - m.mean(axis=1, keepdims=True) for m in (total, want))
    np.testing.assert_allclose(total, want, atol=2e-5)
    assert found.scale == ("target" if task == "regression" else "log-odds")


def test_the_first_rounds_alone_can_be_explained():
    train = problem("regression")
    model = fit("xgboost", "regression", train)
    found = contributions_of(model, train.chunks[0], 5)
    want = model.predict(train.chunks[0], 5)
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base, want, atol=1e-5)
    assert np.abs(contributions_of(model, train.chunks[0]).values - found.values).max() > 1e-3


def test_tree_contributions_are_the_shapley_values_of_the_trees():
    """Against the definition: all orders of the features, absent ones weighted by cover."""
    train = problem("regression", 300)
    model = fit("xgboost", "regression", train, n_estimators=3, max_depth=3)
    row = train.chunks[0][:1]
    trees = model.booster.trees_to_dataframe()
    base = float(contributions_of(model, row).base[0])

    def value(known: frozenset[int]) -> float:
        return sum(walk(t, trees[trees.Tree == t].set_index("ID"), f"{t}-0", known)
                   for t in trees.Tree.unique())

    def walk(tree, nodes, at, known) -> float:
        node = nodes.loc[at]
        if node.Feature == "Leaf":
            return float(node.Gain)
        feature = int(node.Feature[1:])
        if feature in known:
            down = node.Yes if row[0, feature] < np.float32(node.Split) else node.No
            return walk(tree, nodes, down, known)
        yes, no = nodes.loc[node.Yes].Cover, nodes.loc[node.No].Cover
        return (yes * walk(tree, nodes, node.Yes, known)
                + no * walk(tree, nodes, node.No, known)) / (yes + no)

    want = np.zeros(4)
    for order in itertools.permutations(range(4)):
        for i, feature in enumerate(order):
            before = frozenset(order[:i])
            want[feature] += value(before | {feature}) - value(before)
    want /= math.factorial(4)
    found = contributions_of(model, row)
    np.testing.assert_allclose(found.values[0], want, atol=1e-5)
    assert base + want.sum() == pytest.approx(float(model.predict(row)[0]), abs=1e-5)


def test_a_linear_models_values_are_measured_from_the_mean_of_the_rows():
    train = problem("regression")
    model = fit("linear", "regression", train)
    x = train.chunks[0].astype(float)
    found = contributions_of(model, train.chunks[0]).centred()
    np.testing.assert_allclose(found.values, (x - x.mean(axis=0)) * model.coefficients[0],
                               atol=1e-10)
    np.testing.assert_allclose(found.base, model.predict(train.chunks[0]).mean(), atol=1e-10)


def test_what_has_no_contributions_says_why():
    train = problem("binary")
    with pytest.raises(Unexplained, match="'constant' has no exact"):
        contributions_of(fit("constant", "binary", train), train.chunks[0])
    one_class = problem("binary")
    one_class.target[:] = 1
    with pytest.raises(Unexplained, match="lacked a class"):
        contributions_of(fit("linear", "binary", one_class), train.chunks[0])
    vector = fit("xgboost", "multiclass", problem("multiclass"),
                 multi_strategy="multi_output_tree")
    with pytest.raises(Unexplained, match="XGBoost"):
        contributions_of(vector, train.chunks[0])


def test_the_objective_says_what_the_margin_is_in():
    train = problem("regression")
    train.target[:] = np.abs(train.target)
    assert contributions_of(fit("xgboost", "regression", train, objective="reg:tweedie"),
                            train.chunks[0]).scale == "log target"


def test_rows_are_fewer_where_trees_are_many_and_deep():
    train = problem("binary")
    small, large = (fit("xgboost", "binary", train, n_estimators=n, max_depth=d)
                    for n, d in ((5, 3), (60, 7)))
    leaves = sum(text.count("leaf") for text in large.booster.get_dump())
    work = tree_work(large.booster, large.rounds)
    assert leaves * 2 < work < leaves * 12
    assert tree_work(large.booster, large.rounds // 2) == pytest.approx(work / 2)
    assert affordable_rows(small, 1000, 100) == 1000
    assert 100 <= affordable_rows(large, 10**6, 100) < 10**6

    class Endless:
        def contribution_work(self) -> float:
            return 1e9

    with pytest.raises(Unexplained, match="too many leaves"):
        affordable_rows(Endless(), 1000, 100)


def test_what_holds_a_model_has_its_contributions():
    train = problem("binary")
    inner = fit("linear", "binary", train)
    wide = np.column_stack([np.zeros((len(train.chunks[0]), 2)), train.chunks[0]])
    held = Calibrated(Picked(inner, np.array([2, 3, 4, 5])), fit_calibrator(
        "sigmoid", inner.predict(train.chunks[0]), train.target[: len(train.chunks[0])]))
    found, own = contributions_of(held, wide), contributions_of(inner, train.chunks[0])
    np.testing.assert_array_equal(found.values[:, 2:], own.values)
    np.testing.assert_array_equal(found.values[:, :2], 0)
    assert found.scale == "uncalibrated log-odds"
    with pytest.raises(Unexplained, match="'constant'"):
        contributions_of(Picked(fit("constant", "binary", train), np.arange(4)), wide)


def test_a_forest_is_explained_in_the_units_of_its_leaves():
    train = problem("binary")
    model = fit("forest", "binary", train, n_estimators=5, max_depth=4)
    found = contributions_of(model, train.chunks[0])
    np.testing.assert_allclose(found.values.sum(axis=1) + found.base,
                               model.predict(train.chunks[0]), atol=1e-5)
    assert found.scale == "probability"
    assert tree_work(model.booster, model.rounds) > 0
