"""Trees of other libraries as an XGBoost model: the same predictions, SHAP values, importances."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import catboost
import lightgbm
import numpy as np
import pyarrow as pa
import pytest
import xgboost
from common.quick import settings, small_table, trained_on, write_bundle
from hypothesis import given
from hypothesis import settings as rules
from hypothesis import strategies as st
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from test_every_model import TARGETS, fit, predict, problem

import gpupipe
from gpupipe.errors import ConfigError, DataError, EnvironmentFault
from gpupipe.models import Matrix, Training, libraries, model_of
from gpupipe.models.base import TASKS
from gpupipe.models.catboost import unfolded
from gpupipe.models.forest import FEATURES
from gpupipe.models.trees import above, booster_of

each_task = pytest.mark.parametrize("task", TASKS)
FORESTS = ("forest", "extra_trees")
TREES = (*FORESTS, "lightgbm", "catboost")


def holey(task: str, seed: int = 0) -> Matrix:
    """A problem whose features have missing values, zeros, ties and large numbers."""
    train = problem(task, chunks=2, seed=seed, weight=np.random.default_rng(1).uniform(1, 3, 1200))
    for chunk in train.chunks:
        chunk[::5, 1] = np.nan
        chunk[::3, 2] = 0.0
        chunk[1::3, 2] = chunk[1::3, 2].round()
        chunk[:, 3] *= np.float32(1e7)
    return train


def new_rows() -> np.ndarray:
    """Rows with missing values where training saw none, and numbers at the bounds of float32."""
    x = np.concatenate(holey("binary", seed=7).chunks)
    x[::4, 0] = np.nan
    x[::9, 3] = np.nan
    x[5], x[6] = np.finfo(np.float32).max, np.finfo(np.float32).min
    return x


@pytest.fixture
def made(monkeypatch) -> dict[str, object]:
    """The library's own model, as soon as its trees are read."""
    kept: dict[str, object] = {}

    def spy(cls: type, method: str) -> None:
        real = getattr(cls, method)

        def call(self, *args, **options):
            if method != "fit" or hasattr(self, "n_estimators"):
                kept["model"] = self
            return real(self, *args, **options)

        monkeypatch.setattr(cls, method, call)

    spy(lightgbm.Booster, "model_to_string")
    spy(catboost.CatBoost, "save_model")
    for forest in (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier,
                   ExtraTreesRegressor):
        spy(forest, "fit")
    return kept


def own_predictions(kind: str, task: str, model, x: np.ndarray) -> np.ndarray:
    if kind == "lightgbm":
        return model.predict(x)
    if kind in FORESTS and task == "regression":
        return model.predict(x)
    if kind in FORESTS:
        found = model.predict_proba(x)
    else:
        wanted = "RawFormulaVal" if task == "regression" else "Probability"
        found = model.predict(x, prediction_type=wanted)
    return found[:, 1] if task == "binary" else found


@each_task
@pytest.mark.parametrize("kind", TREES)
def test_predictions_are_the_librarys_own(kind, task, made):
    train, x = holey(task), new_rows()
    model = fit(kind, task, train)
    if kind in FORESTS:
        x = np.where(np.isnan(x) & ~np.isnan(train.chunks[0]).any(axis=0), 0, x).astype("f4")
    expected = own_predictions(kind, task, made["model"], x)
    np.testing.assert_allclose(model.predict(x), expected, rtol=2e-6, atol=2e-6)


@each_task
def test_lightgbms_sets_of_codes_are_xgboosts(task, made):
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 70, 1200)
    train = problem(task, chunks=1, categorical=True)
    train.chunks[0][:, 3] = codes
    train.chunks[0][::11, 3] = np.nan
    signal = train.target + np.isin(codes, [2, 3, 5, 31, 32, 33, 64, 69]) * 2.0
    y = signal if task == "regression" else np.minimum(signal, len(TARGETS[task].classes) - 1)
    train = replace(train, target=y.astype(train.target.dtype))
    model = fit("lightgbm", task, train, min_data_per_group=5, cat_smooth=1.0)
    x = train.chunks[0].copy()
    x[:300, 3] = rng.integers(-3, 200, 300)  # and codes that training never saw
    np.testing.assert_allclose(model.predict(x), made["model"].predict(x), rtol=2e-6, atol=2e-6)
    text = model.booster.save_raw("json").decode()
    assert '"split_type":[1' in text or ",1," in text.partition('"split_type"')[2][:40]
    shap = model.booster.predict(xgboost.DMatrix(
        x, feature_types=["q", "q", "q", "c"], enable_categorical=True), pred_contribs=True)
    expected = made["model"].predict(x, pred_contrib=True)
    np.testing.assert_allclose(shap.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


@each_task
@pytest.mark.parametrize("kind", TREES)
def test_importances_are_the_librarys_own(kind, task, made):
    train = holey(task)
    found = dict(fit(kind, task, train).importances())
    model, x = made["model"], np.concatenate(train.chunks)
    if kind == "lightgbm":
        own = model.feature_importance("gain")
    elif kind in FORESTS:
        own = model.feature_importances_
    else:
        own = model.get_feature_importance(catboost.Pool(x, train.target, weight=train.weight))
    np.testing.assert_allclose([found[n] for n in train.names], own / own.sum(), atol=1e-4)


@each_task
@pytest.mark.parametrize("kind", ["lightgbm", "catboost"])
def test_shap_values_are_the_librarys_own(kind, task, made):
    train = holey(task)
    found = fit(kind, task, train).booster.predict(
        xgboost.DMatrix(train.chunks[0]), pred_contribs=True)
    if kind == "lightgbm":
        expected = made["model"].predict(train.chunks[0], pred_contrib=True)
    else:
        expected = made["model"].get_feature_importance(
            catboost.Pool(train.chunks[0]), type="ShapValues")
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


@each_task
def test_shap_values_of_a_forest_add_up_to_its_prediction(task):
    train = holey(task)
    model = fit("forest", task, train)
    found = model.booster.predict(xgboost.DMatrix(train.chunks[0][:50]), pred_contribs=True)
    np.testing.assert_allclose(found.sum(axis=-1), model.predict(train.chunks[0][:50]), atol=1e-5)


@rules(max_examples=300)
@given(st.floats(allow_nan=False), st.floats(width=32, allow_nan=False, allow_infinity=False),
       st.integers(-2, 2))
def test_a_rule_on_doubles_is_one_on_singles(threshold, x, steps):
    """Also at the threshold itself, and at the float32 next to it."""
    with np.errstate(over="ignore"):
        near = np.float32(threshold)
    for _ in range(abs(steps)):
        with np.errstate(over="ignore"):
            near = np.nextafter(near, np.float32(np.sign(steps) * np.inf))
    for value in (np.float32(x), near):
        if np.isfinite(value):
            assert (value < above(np.array([threshold]))[0]) == (float(value) <= threshold)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_an_oblivious_tree_is_unfolded_as_catboost_numbers_its_leaves(depth):
    rng = np.random.default_rng(depth)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    x[::6] = np.nan
    splits = [(int(rng.integers(3)), ["AsIs", "AsFalse", "AsTrue"][d % 3], float(b))
              for d, b in enumerate(rng.normal(size=depth).astype(np.float32))]
    values, weights = rng.normal(size=2**depth), rng.integers(0, 9, 2**depth).astype(float)
    leaf = np.zeros(len(x), int)
    for d, (feature, missing, border) in enumerate(splits):
        column = x[:, feature]
        leaf += np.where(np.isnan(column), missing == "AsTrue", column > border) << d
    found = booster_of([[unfolded(splits, values, weights)]], 3, "identity").inplace_predict(x)
    np.testing.assert_allclose(found, values[leaf], rtol=1e-6)


@pytest.mark.parametrize(("kind", "objective"), [
    ("lightgbm", "poisson"), ("lightgbm", "tweedie"), ("lightgbm", "gamma"),
    ("lightgbm", "quantile"), ("lightgbm", "regression_l1"), ("catboost", "Poisson"),
    ("catboost", "Tweedie:variance_power=1.4"), ("catboost", "Quantile:alpha=0.8"),
    ("catboost", "MAE"),
])
def test_other_objectives_predict_what_the_library_does(kind, objective, made):
    train = problem("regression")
    positive = Matrix(train.chunks, np.exp(train.target), None, train.names, train.categorical)
    model = fit(kind, "regression", positive, objective=objective)
    x = np.concatenate(train.chunks)
    own = made["model"].predict(x)
    if kind == "catboost":
        own = made["model"].predict(x, prediction_type="RawFormulaVal")
        own = np.exp(own) if objective[0] in "PT" else own
    np.testing.assert_allclose(model.predict(x), own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_logarithm_that_was_learned_is_the_mean_again(weighted, made):
    """The exponential of what CatBoost predicts, times that of what is left, on the average."""
    train = problem("regression")
    weight = np.random.default_rng(1).uniform(1, 3, 1200) if weighted else None
    positive = Matrix(train.chunks, np.exp(train.target), weight, train.names, train.categorical)
    model = fit("catboost", "regression", positive, positive, objective="LogRMSE")
    own = made["model"].predict(np.concatenate(train.chunks))
    smear = np.average(np.exp(train.target - own), weights=weight)
    assert smear > 1.05
    found = predict(model, positive)
    np.testing.assert_allclose(found, np.exp(own) * smear, rtol=1e-5)
    assert np.average(found, weights=weight) == pytest.approx(
        np.average(positive.target, weights=weight), rel=0.05)
    errors = train.target - np.log(found / smear)
    assert model.curve["valid"][-1] == pytest.approx(
        np.average(errors**2, weights=weight) ** 0.5, rel=1e-4)


def test_a_logarithm_needs_a_target_above_0():
    with pytest.raises(DataError, match=r"'LogRMSE' needs a target that is positive"):
        fit("catboost", "regression", problem("regression"), objective="LogRMSE")
    above = replace(problem("regression"), target=np.exp(problem("regression").target))
    with pytest.raises(DataError, match="goes from 0 to"):  # of the rows that it is judged by
        fit("catboost", "regression", above, replace(above, target=np.append(above.target[1:], 0)),
            objective="LogRMSE")
    one = replace(problem("regression"), target=np.full(1200, 7.5))
    np.testing.assert_allclose(predict(fit("catboost", "regression", one, objective="LogRMSE"),
                                       one), 7.5, rtol=1e-6)


@pytest.mark.parametrize("kind", TREES)
@each_task
def test_a_class_that_no_row_has_is_never_predicted(kind, task):
    """As in a fold that lacks a rare class."""
    if task == "regression":
        return
    train = problem(task)
    present = train.target == 1 if task == "binary" else train.target != 1
    x = np.concatenate(train.chunks)[present]
    part = Matrix((x,), train.target[present], None, train.names, train.categorical)
    scores = fit(kind, task, part).predict(x)
    if task == "binary":
        assert (scores > 0.99).all()
    else:
        assert scores.shape == (len(x), 3)
        assert scores[:, 1].max() < 0.02


def test_lightgbm_that_can_split_nothing_has_a_curve_all_the_same():
    train = problem("binary", 40)
    model = model_of("lightgbm", {"min_child_samples": 100}).fit(
        train, train, TARGETS["binary"], Training(0, 1))
    assert model.rounds == 1 and len(model.curve["valid"]) == 1
    assert np.ptp(predict(model, train)) == 0


@pytest.mark.parametrize("kind", ["lightgbm", "catboost"])
class TestRounds:
    def test_training_stops_early_at_the_validation_part_and_keeps_its_curve(self, kind):
        train, valid = problem("binary", 400), problem("binary", 400, seed=1)
        model = model_of(kind, {"learning_rate": 0.5, "early_stopping_rounds": 5}).fit(
            train, valid, TARGETS["binary"], Training(0, 1))
        curve = model.curve["valid"]
        assert 5 < len(curve) < 200
        assert model.curve["every"] == 1
        assert abs(int(np.argmin(curve)) - (len(curve) - 6)) <= 1
        y = valid.target
        for rounds in (1, len(curve)):
            p = np.concatenate([model.predict(c, rounds) for c in valid.chunks])
            loss = -np.log(np.where(y == 1, p, 1 - p)).mean()
            assert loss == pytest.approx(curve[rounds - 1], rel=1e-4)

    def test_as_many_rounds_as_were_asked_for(self, kind):
        train = problem("binary", 300)
        assert fit(kind, "binary", train, n_estimators=7).rounds == 7
        how = Training(0, 1, rounds=4)
        assert model_of(kind, {}).fit(train, None, TARGETS["binary"], how).rounds == 4

    def test_threads_do_not_matter(self, kind):
        train = holey("binary")
        one, two = (model_of(kind, {"n_estimators": 8}).fit(
            train, None, TARGETS["binary"], Training(0, t)) for t in (1, 2))
        np.testing.assert_array_equal(predict(one, train), predict(two, train))

    def test_it_does_not_train_on_the_cpu_in_silence(self, kind):
        with pytest.raises(ConfigError, match="trains on the CPU alone"):
            model_of(kind, {}).fit(problem("binary"), None, TARGETS["binary"],
                                   Training(device="cuda"))

    def test_without_its_library_it_says_what_to_install(self, kind, monkeypatch):
        libraries.optional_library.cache_clear()
        monkeypatch.setitem(sys.modules, kind, None)
        with pytest.raises(EnvironmentFault) as error:
            fit(kind, "binary", problem("binary"))
        assert error.value.hint == f"pip install 'gpupipe[{kind}]'"
        libraries.optional_library.cache_clear()

    def test_aliases_mean_the_same(self, kind):
        train = problem("binary")
        names = {"lightgbm": {"min_child_samples": "min_data_in_leaf", "reg_lambda": "lambda_l2",
                              "learning_rate": "eta"},
                 "catboost": {"max_depth": "depth", "reg_lambda": "l2_leaf_reg",
                              "learning_rate": "eta"}}[kind]
        values = {"min_child_samples": 40, "reg_lambda": 20.0, "learning_rate": 0.2,
                  "max_depth": 3}
        for name, alias in names.items():
            a, b = (fit(kind, "binary", train, **{n: values[name]}) for n in (name, alias))
            np.testing.assert_array_equal(predict(a, train), predict(b, train))


def test_a_forest_is_scikit_learns():
    train = holey("regression")
    x = np.concatenate(train.chunks)
    reference = RandomForestRegressor(20, min_samples_leaf=2, max_features=FEATURES["regression"],
                                      random_state=3)
    expected = reference.fit(x, train.target, train.weight).predict(x)
    np.testing.assert_allclose(fit("forest", "regression", train).predict(x), expected, rtol=1e-5,
                               atol=1e-6)


@pytest.mark.parametrize(("rows", "given", "expected"), [
    (1200, {}, {"bootstrap": False}), (1200, {"max_samples": 0.5}, {"bootstrap": True}),
    (400_000, {}, {"bootstrap": True, "max_samples": 0.25}),
    (400_000, {"bootstrap": False}, {"bootstrap": False, "max_samples": None}),
])
def test_random_cuts_are_of_all_rows_unless_they_are_many(rows, given, expected):
    made = model_of("extra_trees", given)._estimator("regression", Training(seed=3), rows)
    assert isinstance(made, ExtraTreesRegressor)
    assert {n: getattr(made, n) for n in expected} == expected
    assert made.max_features == 1.0


@pytest.mark.parametrize("kind", ["lightgbm", "catboost", "xgboost", *FORESTS])
@each_task
def test_a_target_of_one_value_is_predicted(kind, task):
    train = problem(task)
    one = Matrix(train.chunks, np.full(1200, 1, train.target.dtype), None, train.names,
                 train.categorical)
    scores = predict(fit(kind, task, one), one)
    np.testing.assert_allclose(scores[:, 1] if task == "multiclass" else scores, 1, atol=0.05)


def test_a_forest_hands_on_what_scikit_learn_refuses():
    with pytest.raises(ConfigError, match="scikit-learn refused to train"):
        fit("forest", "binary", problem("binary"), min_samples_leaf=0)
    with pytest.raises(ConfigError, match="class_weight is for classes"):
        fit("forest", "regression", problem("regression"), class_weight="balanced")


def test_lightgbm_and_catboost_hand_on_what_is_refused():
    with pytest.raises(ConfigError, match="LightGBM refused to train"):
        fit("lightgbm", "binary", problem("binary"), num_leaves=-3)
    with pytest.raises(ConfigError, match="CatBoost refused to train") as error:
        fit("catboost", "binary", problem("binary"), max_depth=99)
    assert "\n" not in error.value.message
    with pytest.raises(ConfigError, match="kind: forest"):
        model_of("lightgbm", {"boosting_type": "rf"})
    with pytest.raises(DataError, match="not negative"):
        fit("lightgbm", "regression", problem("regression"), objective="poisson")
    with pytest.raises(ConfigError, match="is for regression targets"):
        fit("catboost", "binary", problem("binary"), objective="MAE")


BLOCKED = """
import sys
for name in ("lightgbm", "catboost", "sklearn", "treelite"):
    sys.modules[name] = None
import numpy as np, pyarrow.parquet as pq, gpupipe
table = pq.read_table(sys.argv[1])
for folder in sys.argv[2:]:
    print(np.asarray(gpupipe.load(folder).scores(table)).tobytes().hex())
"""


def test_bundles_of_all_families_score_the_same_where_training_libraries_are_missing(tmp_path):
    """Criterion: a fresh process without the extras, nor scikit-learn."""
    table, new = small_table(), small_table(97, seed=1)
    pa.parquet.write_table(new, tmp_path / "new.parquet")
    folders, expected = [], []
    for kind in gpupipe.models.MODELS:
        for task in gpupipe.models.MODELS[kind].tasks:
            if task not in TASKS:
                continue
            params = {"n_estimators": 5} if kind in (*TREES, "xgboost") else {}
            trained = trained_on(table, settings(task, model={"kind": kind, "params": params}))
            folders.append(tmp_path / f"{kind}-{task}")
            expected.append(write_bundle(trained, folders[-1]).scores(new).tobytes().hex())
    done = subprocess.run([sys.executable, "-c", BLOCKED, str(tmp_path / "new.parquet"),
                           *map(str, folders)], capture_output=True, text=True, check=False,
                          cwd=Path(gpupipe.__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == expected


def test_a_model_of_trees_is_a_model_of_xgboosts_own_format(tmp_path):
    """Whoever has the booster's bytes can score with XGBoost alone."""
    train = holey("multiclass")
    model = fit("lightgbm", "multiclass", train)
    (tmp_path / "m.ubj").write_bytes(model.payload()["booster"])
    booster = xgboost.Booster(model_file=str(tmp_path / "m.ubj"))
    again = json.loads(booster.save_raw("json"))["learner"]
    assert again["objective"]["name"] == "multi:softprob"
    found = booster.predict(xgboost.DMatrix(train.chunks[0]))
    np.testing.assert_allclose(found, model.predict(train.chunks[0]), atol=1e-6)
