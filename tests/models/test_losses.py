"""Objectives, constraints and dart: what trees may minimise, and what is asked of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xgboost
from common.quick import settings, small_table, trained_on
from sklearn.metrics import mean_pinball_loss
from test_every_model import TARGETS, fit, predict, problem

from gpupipe.errors import ConfigError, DataError
from gpupipe.models import MODELS, Training, model_of
from gpupipe.models.base import TASKS
from gpupipe.models.boosting import best_round
from gpupipe.models.constraints import interaction, monotone
from gpupipe.models.objectives import CATBOOST, LIGHTGBM, SPECIAL, XGBOOST
from gpupipe.models.xgboost import DART, LOSSES

BOOSTERS = ("xgboost", "lightgbm", "catboost")
each_booster = pytest.mark.parametrize("kind", BOOSTERS)
VALUES = TARGETS["regression"]


def counts():
    """A problem whose target is a count."""
    train = problem("regression")
    return replace(train, target=np.random.default_rng(0).poisson(
        np.exp(train.target / 2)).astype(float))


# Objectives


@pytest.mark.parametrize(("objective", "params"), [
    ("reg:quantileerror", {"quantile_alpha": 0.8}),
    ("reg:tweedie", {"tweedie_variance_power": 1.3}),
    ("count:poisson", {"max_delta_step": 0.5}), ("reg:absoluteerror", {}),
    ("reg:pseudohubererror", {"huber_slope": 2.0}), ("reg:gamma", {}), ("reg:squaredlogerror", {}),
])
def test_xgboost_minimises_the_objective_that_was_named(objective, params):
    train = counts()
    train = replace(train, target=train.target + (objective == "reg:gamma"))
    found = predict(fit("xgboost", "regression", train, objective=objective, **params), train)
    data = xgboost.QuantileDMatrix(np.concatenate(train.chunks), train.target, max_bin=256)
    native = {"objective": objective, **params, "eta": 0.05, "subsample": 0.8, "seed": 3,
              "seed_per_iteration": True, "nthread": 2, "max_cat_to_onehot": 8}
    expected = xgboost.train(native, data, 20).inplace_predict(np.concatenate(train.chunks))
    np.testing.assert_array_equal(found, expected.astype(float))


@pytest.mark.parametrize(("kind", "params"), [
    ("xgboost", lambda a: {"objective": "reg:quantileerror", "quantile_alpha": a}),
    ("lightgbm", lambda a: {"objective": "quantile", "alpha": a}),
    ("catboost", lambda a: {"objective": f"Quantile:alpha={a}"}),
])
def test_a_quantile_has_its_share_of_rows_below_it(kind, params):
    train, valid = problem("regression", 2000), problem("regression", 2000, seed=1)
    at = {}
    for share in (0.1, 0.9):
        model = fit(kind, "regression", train, n_estimators=60, learning_rate=0.1, **params(share))
        at[share] = predict(model, valid)
        assert (valid.target <= at[share]).mean() == pytest.approx(share, abs=0.1)
    for share in at:
        losses = [mean_pinball_loss(valid.target, p, alpha=share) for p in at.values()]
        assert np.argmin(losses) == list(at).index(share)


@pytest.mark.parametrize(("kind", "objective", "y", "words"), [
    ("xgboost", "reg:tweedie", -1.0, r"not negative, and this one goes from -1 to"),
    ("xgboost", "count:poisson", -1.0, "not negative"), ("xgboost", "reg:gamma", 0.0, "positive"),
    ("xgboost", "reg:logistic", 2.0, "from 0 to 1"),
    ("xgboost", "reg:squaredlogerror", -1.0, "greater than -1"),
    ("lightgbm", "gamma", 0.0, "positive"), ("catboost", "Poisson", -3.0, "not negative"),
])
def test_a_target_that_does_not_suit_the_objective_is_refused(kind, objective, y, words):
    train = replace(problem("regression"), target=np.full(1200, 0.5))
    train.target[7] = y
    with pytest.raises(DataError, match=words):
        fit(kind, "regression", train, objective=objective)


@each_booster
def test_an_objective_of_another_task_is_refused(kind):
    table = {"xgboost": XGBOOST, "lightgbm": LIGHTGBM, "catboost": CATBOOST}[kind]
    for name, known in table.items():
        own = {"quantile_alpha": 0.5} if name == "reg:quantileerror" else {}
        for task in set(TASKS) - {known.task}:
            with pytest.raises(ConfigError, match=f"is for {known.task} targets") as error:
                fit(kind, task, problem(task), objective=name, **own)
            assert f"data.{'event' if name in SPECIAL else 'task'}" in str(error.value.hint)


@pytest.mark.parametrize(("kind", "params", "words", "hint"), [
    ("xgboost", {"objective": "reg:tweedy"}, "no objective 'reg:tweedy'", "reg:tweedie"),
    ("xgboost", {"objective": "binary:hinge"}, "no objective", "binary:logistic"),
    ("lightgbm", {"objective": "poison"}, "no objective 'poison'", "poisson"),
    ("catboost", {"objective": "Quantle:alpha=0.1"}, "no objective", "Quantile"),
    ("xgboost", {"objective": "reg:quantileerror"}, "one quantile", "quantile_alpha: 0.9"),
    ("xgboost", {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.9]}, "one quantile",
     "a model each"),
    ("xgboost", {"quantile_alpha": 0.3}, "belongs to objective", "objective: reg:quantileerror"),
    ("xgboost", {"aft_loss_distribution": "normal"}, "belongs to objective", "survival:aft"),
    ("xgboost", {"booster": "gblinear"}, "grows trees", "kind: linear"),
    ("xgboost", {"rate_drop": 0.1}, "parameter of booster: dart", "booster: dart"),
    ("xgboost", {"booster": "dart", "early_stopping_rounds": 5}, "cannot stop early",
     "n_estimators"),
    ("lightgbm", {"boosting_type": "dart", "early_stopping_rounds": 5}, "cannot stop early",
     "n_estimators"),
    ("xgboost", {"monotone_constraints": [1, 0]}, "maps names to 1", "age: 1"),
    ("catboost", {"monotone_constraints": {"x": 2}}, "maps names to 1", "age: 1"),
    ("lightgbm", {"interaction_constraints": ["x", "y"]}, "a list of groups", "city"),
])
def test_what_does_not_go_together_is_refused_before_any_work(kind, params, words, hint):
    with pytest.raises(ConfigError, match=words) as error:
        model_of(kind, params)
    assert hint in str(error.value.hint)


def test_the_round_of_a_metric_that_should_be_great_is_the_greatest():
    curves = [{"valid": [0.5, 0.9, 0.7], "maximise": True}, {"valid": [0.5, 0.8], "maximise": True}]
    assert best_round(curves) == 2
    assert best_round([{**c, "maximise": False} for c in curves]) == 1


@pytest.mark.parametrize(("kind", "metric"), [
    ("xgboost", "auc"), ("lightgbm", "auc"), ("catboost", "AUC"),
])
def test_rounds_stop_where_such_a_metric_is_greatest(kind, metric):
    train, valid = problem("binary", 500), problem("binary", 500, seed=1)
    curve = model_of(kind, {"eval_metric": metric, "early_stopping_rounds": 8}).fit(
        train, valid, TARGETS["binary"], Training(0, 1)).curve
    assert curve["metric"] == metric and curve["maximise"]
    assert best_round([curve]) == int(np.argmax(curve["valid"])) + 1 == len(curve["valid"]) - 8


# Dart


@pytest.mark.parametrize(("kind", "params"), [
    ("xgboost", {"booster": "dart", "rate_drop": 0.3, "skip_drop": 0.2}),
    ("lightgbm", {"boosting_type": "dart", "drop_rate": 0.3, "skip_drop": 0.2}),
])
def test_dart_drops_trees_and_comes_back_from_a_bundle(kind, params):
    train, valid = problem("binary"), problem("binary", 300, seed=1)
    model = model_of(kind, {**params, "n_estimators": 15})
    assert model.rounds == 15 and model_of(kind, params).rounds == 400
    fitted = model.fit(train, valid, TARGETS["binary"], Training(0, 1))
    assert len(fitted.curve["valid"]) == 15 == fitted.rounds
    again = MODELS[kind].restore(fitted.payload())
    np.testing.assert_array_equal(predict(again, valid), predict(fitted, valid))
    assert (predict(fit(kind, "binary", train, n_estimators=15), valid)
            != predict(fitted, valid)).any()
    if kind == "xgboost":
        assert DART - set(params) and fitted.booster.num_boosted_rounds() == 15


# Constraints


@each_booster
@pytest.mark.parametrize("direction", [1, -1])
def test_a_monotone_feature_moves_predictions_one_way(kind, direction):
    train = problem("regression")  # it grows with w, and falls with x
    signs = {"w": direction, "x": direction}
    model = fit(kind, "regression", train, n_estimators=40, monotone_constraints=signs)
    free = fit(kind, "regression", train, n_estimators=40)
    grid = np.repeat(np.concatenate(train.chunks)[:40], 50, axis=0)
    for column in (0, 1):
        rows = grid.copy()
        rows[:, column] = np.tile(np.linspace(-3, 3, 50, dtype=np.float32), 40)
        steps, own = (np.diff(m.predict(rows).reshape(40, 50)) * direction for m in (model, free))
        assert steps.min() >= -1e-5 and own.min() < -1e-3


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_features_of_other_groups_do_not_meet(kind):
    train = problem("regression")
    train = replace(train, target=train.target + 2 * np.concatenate(train.chunks)[:, 2]
                    * np.concatenate(train.chunks)[:, 3])
    groups = [["w", "x"], ["y"], ["z"]]
    model = fit(kind, "regression", train, n_estimators=30, interaction_constraints=groups)
    free = fit(kind, "regression", train, n_estimators=30)
    x = np.concatenate(train.chunks)[:200]

    def meet(m, a, b):
        values = m.booster.predict(xgboost.DMatrix(x), pred_interactions=True)
        return np.abs(values[:, a, b]).max()

    assert meet(model, 2, 3) < 1e-3 < 0.1 < meet(free, 2, 3)
    assert meet(model, 0, 1) > 1e-3


def test_a_name_is_a_features_or_that_of_the_column_it_was_made_of():
    rows = replace(problem("binary"), names=("age", "age_missing", "city_a", "city_b"),
                   origins=("age", "age", "city", "city"))
    assert monotone({"age": 1}, rows) == [1, 0, 0, 0]
    assert monotone({"city": -1, "age_missing": 1}, rows) == [0, 1, -1, -1]
    assert interaction([["age", "city_a"], ["city"]], rows) == [[0, 1, 2], [2, 3]]
    with pytest.raises(ConfigError, match="names 'cty'") as error:
        monotone({"cty": 1}, rows)
    assert error.value.hint == "did you mean 'city'?"
    with pytest.raises(ConfigError, match="interaction_constraints names 'wage'"):
        interaction([["age"], ["wage"]], rows)
    with pytest.raises(ConfigError, match="'z' holds codes"):
        monotone({"z": 1}, problem("binary", categorical=True))


@each_booster
def test_constraints_of_a_pipeline_name_its_columns(kind):
    steps = [{"impute": {"columns": ["f", "narrow", "i", "b"], "indicator": True}},
             {"one_hot": {"columns": "s"}}, {"drop": {"columns": "t"}}]
    model = {"kind": kind, "params": {"n_estimators": 5, "monotone_constraints": {
        "f": 1, "s": -1}}}
    trained = trained_on(small_table(), settings(model=model, features=steps))
    assert trained.final.rounds == 5
    model["params"]["monotone_constraints"] = {"fff": 1}
    with pytest.raises(ConfigError, match="names 'fff'"):
        trained_on(small_table(), settings(model=model, features=steps))


def test_the_parameters_of_objectives_are_named_once():
    assert set(LOSSES.values()) <= set(XGBOOST)
