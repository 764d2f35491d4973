"""The contract of every model family, and what the families owe their own libraries."""

from __future__ import annotations

import inspect
import json
from functools import cache

import numpy as np
import pytest
import xgboost
from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge

from gpupipe.checkpoints import Checkpoints
from gpupipe.codec import pack, read_arrays, unpack, write_arrays
from gpupipe.data.outcomes import ranked, timed
from gpupipe.errors import ConfigError, DataError
from gpupipe.models import MODELS, FittedModel, Matrix, Training, model_of
from gpupipe.models.objectives import XGBOOST, default_of
from gpupipe.models.quantised import pages
from gpupipe.models.xgboost import DEFAULTS, PARAMETERS
from gpupipe.steps import Target

pytestmark = pytest.mark.long

TARGETS = {
    "binary": Target("binary", ("no", "yes")),
    "multiclass": Target("multiclass", ("a", "b", "c")),
    "regression": Target("regression", (), 0.0, 5.0),
    "survival": Target("survival", (), 5.0, 5.0), "hazard": Target("hazard", (), 5.0, 5.0),
    "ranking": Target("ranking", (), 1.5, 1.5),
}
each_model = pytest.mark.parametrize(
    "kind", [kind for kind, model in MODELS.items() if "unsupervised" not in model.tasks])
each_task = pytest.mark.parametrize("task", [t for t in TARGETS if t != "ranking"])
each_model_and_task = pytest.mark.parametrize(
    ("kind", "task"), [(kind, task) for kind, family in MODELS.items() for task in family.tasks
                       if task in TARGETS])
PARAMS: dict[str, dict] = {
    "xgboost": {"n_estimators": 20}, "lightgbm": {"n_estimators": 20}, "forest": {
        "n_estimators": 20}, "extra_trees": {"n_estimators": 20},
    "catboost": {"n_estimators": 20, "learning_rate": 0.3},
}
"""What keeps a family quick here; a new one runs with its defaults."""


def problem(task: str, n: int = 1200, seed: int = 0, weight: np.ndarray | None = None,
            chunks: int = 3, categorical: bool = False) -> Matrix:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    if categorical:
        x[:, 3] = rng.integers(0, 12, n)
    signal = x[:, 0] - 0.5 * x[:, 1] + rng.normal(0, 0.7, n)
    time = timed(np.exp(signal), rng.random(n) < 0.6, "time")
    y = {"binary": (signal > 0.3).astype(np.int64), "regression": signal.astype(float),
         "multiclass": np.digitize(signal, [-0.5, 0.8]).astype(np.int64),
         "survival": time, "hazard": time,
         "ranking": ranked(np.arange(n) % 60, np.digitize(signal, [-1, 0, 1]) + 0.0, "y")}[task]
    return Matrix(tuple(np.array_split(x, chunks)), y, weight, ("w", "x", "y", "z"),
                  (False, False, False, categorical))


def fit(kind: str, task: str, train: Matrix, valid: Matrix | None = None, **params) -> FittedModel:
    ranks = {"objective": "rank:ndcg"} if (kind, task) == ("xgboost", "ranking") else {}
    model = model_of(kind, {**PARAMS.get(kind, {}), **ranks, **params})
    return model.fit(train, valid, TARGETS[task], Training(seed=3, threads=threads_of(kind)))


def threads_of(kind: str) -> int:
    """Others' threads wait for each other for long where the machine does other work too."""
    return 2 if kind in ("xgboost", "linear") else 1


@cache
def trained(kind: str, task: str) -> FittedModel:
    """The model of `problem`'s rows that tests may share: they only read it."""
    return fit(kind, task, problem(task))


def predict(model: FittedModel, rows: Matrix) -> np.ndarray:
    return np.concatenate([model.predict(c) for c in rows.chunks])


@each_model_and_task
class TestEveryModel:
    def test_predictions_have_the_promised_shape_and_are_probabilities(self, kind, task):
        scores = predict(trained(kind, task), problem(task))
        assert scores.dtype == np.float64
        assert scores.shape == ((1200, 3) if task == "multiclass" else (1200,))
        assert np.isfinite(scores).all()
        if task in ("survival", "hazard"):
            assert (scores > 0).all()
        elif task not in ("regression", "ranking"):
            assert ((scores >= 0) & (scores <= 1)).all()
        if task == "multiclass":
            np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)

    def test_a_model_survives_the_bundle_to_the_last_bit(self, kind, task):
        new, model = problem(task, 300, seed=9), trained(kind, task)
        arrays: dict[str, np.ndarray] = {}
        text = json.dumps(pack(model.payload(), arrays))
        payload = unpack(json.loads(text), read_arrays(write_arrays(arrays), 1 << 26))
        restored = MODELS[kind].restore(payload)
        np.testing.assert_array_equal(predict(restored, new), predict(model, new))
        assert restored.importances() == model.importances()
        assert (restored.kind, restored.rounds) == (kind, model.rounds)

    def test_a_row_is_scored_alone_as_in_company(self, kind, task):
        train, model = problem(task), trained(kind, task)
        whole = predict(model, train)
        first = train.chunks[0]
        alone = np.concatenate([model.predict(first[i : i + 1]) for i in range(5)])
        np.testing.assert_allclose(alone, whole[:5], rtol=1e-13, atol=1e-15)
        assert len(model.predict(first[:0])) == 0

    def test_chunks_do_not_matter(self, kind, task):
        new = problem(task, 100, seed=4)
        whole = fit(kind, task, problem(task, chunks=1))
        np.testing.assert_array_equal(predict(whole, new), predict(trained(kind, task), new))

    def test_weights_matter_and_a_weight_of_one_does_not(self, kind, task):
        if task == "ranking":
            return  # rows of a query have no weights
        plain = predict(trained(kind, task), problem(task))
        ones = predict(fit(kind, task, problem(task, weight=np.ones(1200))), problem(task))
        np.testing.assert_array_equal(plain, ones)
        if (kind, task) == ("constant", "hazard"):
            return  # the risk of each is that of all
        y = problem(task).target
        heavy = np.where(y >= np.quantile(y, 0.8), 10.0, 1.0)
        tilted = predict(fit(kind, task, problem(task, weight=heavy)), problem(task))
        share = tilted[:, 2] - plain[:, 2] if task == "multiclass" else tilted - plain
        timed = task in ("survival", "hazard")  # the heavy rows are events: late ones, or risks
        assert (abs(share).mean() if timed else share.mean()) > 0.05

    def test_importances_name_features_and_sum_to_one(self, kind, task):
        found = trained(kind, task).importances()
        if found:
            assert {name for name, _ in found} == {"w", "x", "y", "z"}
            assert sum(v for _, v in found) == pytest.approx(1)
            assert found[0][0] == "w"
            assert [v for _, v in found] == sorted((v for _, v in found), reverse=True)

    def test_training_twice_gives_the_same_model(self, kind, task):
        train = problem(task)
        np.testing.assert_array_equal(predict(fit(kind, task, train), train),
                                      predict(trained(kind, task), train))


@each_model
def test_an_unknown_parameter_is_refused(kind):
    with pytest.raises(ConfigError, match=rf"model '{kind}' has no parameter 'surprise'"):
        model_of(kind, {"surprise": 1})


@pytest.mark.parametrize(("kind", "wrong", "right"), [
    ("xgboost", "max_deph", "max_depth"), ("xgboost", "learning_rat", "learning_rate"),
    ("linear", "max_itr", "max_iter"), ("linear", "fit_intercep", "fit_intercept"),
])
def test_a_misspelt_parameter_meets_the_nearest_one(kind, wrong, right):
    with pytest.raises(ConfigError) as error:
        model_of(kind, {wrong: 1})
    assert error.value.hint == f"did you mean {right!r}?"


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "catboost"])
@pytest.mark.parametrize("rate", [0, -0.1, float("nan"), "fast", True])
def test_a_learning_rate_that_is_none_is_refused(kind, rate):
    with pytest.raises(ConfigError, match=f"learning_rate of model '{kind}' is {rate!r}"):
        model_of(kind, {"learning_rate": rate})


def test_an_unknown_model_meets_the_nearest_one():
    with pytest.raises(ConfigError, match="unknown model 'xgbost'") as error:
        model_of("xgbost", {})
    assert error.value.hint == "did you mean 'xgboost'?"


# Constant


def test_constant_predicts_the_weighted_shares_or_mean():
    weight = np.random.default_rng(0).uniform(0, 2, 1200)
    for task in ("binary", "multiclass", "regression"):
        train = problem(task, weight=weight)
        found = predict(fit("constant", task, train), train)[0]
        y = train.target
        if task == "regression":
            assert found == pytest.approx(np.average(y, weights=weight), rel=1e-12)
        else:
            shares = [weight[y == c].sum() / weight.sum() for c in range(y.max() + 1)]
            np.testing.assert_allclose(found, shares[1] if task == "binary" else shares, rtol=1e-12)


# Linear


@pytest.mark.parametrize("params", [{}, {"C": 0.01}, {"fit_intercept": False},
                                    {"class_weight": "balanced"},
                                    {"l1_ratio": 0.5, "C": 0.1, "max_iter": 300}], ids=str)
@pytest.mark.parametrize("task", ["binary", "multiclass"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_linear_equals_scikit_learns_logistic_regression(task, params):
    train = problem(task, weight=np.random.default_rng(1).uniform(0.5, 2, 1200))
    x = np.concatenate(train.chunks).astype(float)
    settings = {"max_iter": 1000, **params}
    solver = "saga" if "l1_ratio" in params else "lbfgs"
    reference = LogisticRegression(solver=solver, random_state=3, **settings)
    expected = reference.fit(x, train.target, sample_weight=train.weight).predict_proba(x)
    found = predict(fit("linear", task, train, **params), train)
    np.testing.assert_allclose(found, expected[:, 1] if task == "binary" else expected, rtol=0,
                               atol=1e-12)


@pytest.mark.parametrize("params", [{}, {"alpha": 30.0}, {"l1_ratio": 0.3, "alpha": 0.05},
                                    {"l1_ratio": 1.0, "alpha": 0.05}], ids=str)
def test_linear_equals_scikit_learns_ridge_and_elastic_net(params):
    train = problem("regression")
    x = np.concatenate(train.chunks).astype(float)
    net = "l1_ratio" in params
    # Ridge takes tol and max_iter for its iterative solvers only.
    reference = ElasticNet(random_state=3, max_iter=1000, **params) if net else Ridge(
        **{"alpha": 1.0, **params})
    expected = reference.fit(x, train.target).predict(x)
    np.testing.assert_allclose(predict(fit("linear", "regression", train, **params), train),
                               expected, rtol=0, atol=1e-12)


def test_linear_scores_far_from_the_border_without_overflow():
    train = problem("binary")
    model = fit("linear", "binary", train, C=1e6)
    far = np.array([[1e6, 0, 0, 0], [-1e6, 0, 0, 0]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert model.predict(far).tolist() == [1.0, 0.0]


def test_linear_refuses_missing_values_and_codes_by_name():
    train = problem("binary")
    train.chunks[1][3, 2] = np.nan
    with pytest.raises(DataError, match=r"missing values, found in y\n") as error:
        fit("linear", "binary", train)
    assert "impute" in str(error.value.hint)
    with pytest.raises(DataError, match="category codes: z"):
        fit("linear", "binary", problem("binary", categorical=True))


def test_linear_hands_on_what_scikit_learn_refuses():
    with pytest.raises(ConfigError, match="scikit-learn refused to train"):
        fit("linear", "binary", problem("binary"), C=-1.0)


# XGBoost


def test_a_constant_time_is_all_time_at_risk_by_the_number_of_events():
    weight = np.random.default_rng(0).uniform(0, 2, 1200)
    train = problem("survival", weight=weight)
    found = predict(fit("constant", "survival", train), train)
    expected = (weight * abs(train.target)).sum() / weight[train.target > 0].sum()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def plain(train: Matrix, task: str, rounds: int, **params) -> xgboost.Booster:
    native = {**DEFAULTS, **params, "seed": 3, "nthread": 2, "objective": default_of(task, XGBOOST),
              "seed_per_iteration": True}
    if task == "multiclass":
        native["num_class"] = 3
    native["colsample_bytree"] = 1.0  # every feature, where there are few
    types = ["c" if c else "q" for c in train.categorical]
    labels = {"label": train.target}
    if task == "survival":
        upper = np.where(train.target > 0, train.target, np.inf)
        labels = {"label_lower_bound": abs(train.target), "label_upper_bound": upper}
    data = xgboost.QuantileDMatrix(
        np.concatenate(train.chunks), weight=train.weight, feature_types=types,
        enable_categorical=True, max_bin=native["max_bin"], **labels,
    )
    return xgboost.train(native, data, num_boost_round=rounds)


@each_task
@pytest.mark.parametrize("params", [{}, {"max_depth": 3, "reg_lambda": 5.0, "gamma": 0.1}], ids=str)
@pytest.mark.parametrize("categorical", [False, True])
def test_xgboost_equals_a_plain_xgboost_on_the_same_matrix(task, params, categorical):
    weight = np.random.default_rng(1).uniform(0.5, 2, 1200)
    train = problem(task, weight=weight, categorical=categorical, chunks=1)
    train.chunks[0][::7, 1] = np.nan
    found = predict(fit("xgboost", task, train, **params), train)
    expected = plain(train, task, 20, **params).inplace_predict(train.chunks[0]).astype(float)
    if task == "multiclass":  # what float32 rounded away is given back
        expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(found, expected)


def test_the_bins_of_a_large_matrix_are_as_good_from_a_part_of_its_rows(monkeypatch):
    train = problem("binary", chunks=3)
    whole = predict(fit("xgboost", "binary", train), train)
    monkeypatch.setattr("gpupipe.models.quantised.CUT_ROWS", train.rows // 4)
    part = predict(fit("xgboost", "binary", train), train)
    assert (part != whole).any()
    log_loss = [-np.log(np.where(train.target == 1, p, 1 - p)).mean() for p in (whole, part)]
    assert abs(log_loss[0] - log_loss[1]) < 0.02


def test_the_parameters_are_those_of_the_installed_xgboost():
    signature = inspect.signature(xgboost.XGBModel.__init__).parameters
    assert set(signature) - {"self", "kwargs"} <= PARAMETERS


def test_every_other_row_of_a_matrix_is_taken_across_its_chunks():
    train = problem("regression", weight=np.arange(1200.0), chunks=7)
    third = train.every(3)
    np.testing.assert_array_equal(np.concatenate(third.chunks), np.concatenate(train.chunks)[::3])
    np.testing.assert_array_equal(third.weight, train.weight[::3])
    np.testing.assert_array_equal(third.target, train.target[::3])


@pytest.mark.parametrize(("alias", "name", "value"), [
    ("eta", "learning_rate", 0.3), ("lambda", "reg_lambda", 9.0), ("alpha", "reg_alpha", 2.0),
    ("min_split_loss", "gamma", 5.0), ("num_boost_round", "n_estimators", 5),
])
def test_xgboosts_own_aliases_mean_the_same(alias, name, value):
    train = problem("binary")
    default = predict(fit("xgboost", "binary", train), train)
    a = predict(model_of("xgboost", {"n_estimators": 20, alias: value}).fit(
        train, None, TARGETS["binary"], Training(3, 2)), train)
    b = predict(fit("xgboost", "binary", train, **{name: value}), train)
    np.testing.assert_array_equal(a, b)
    assert (a != default).any()


@pytest.mark.parametrize("name", ["n_jobs", "random_state", "device", "missing", "callbacks"])
def test_xgboost_refuses_what_the_pipeline_decides(name):
    with pytest.raises(ConfigError, match=f"does not take '{name}' here"):
        model_of("xgboost", {name: 1})


def test_xgboost_hands_on_what_xgboost_refuses_in_its_own_words():
    with pytest.raises(ConfigError, match="XGBoost refused to train") as error:
        fit("xgboost", "binary", problem("binary"), max_depth=-3)
    assert "\n" not in error.value.message
    assert ".cc" not in error.value.message


def test_xgboost_stops_early_at_the_validation_part_and_keeps_its_curve():
    train, valid = problem("binary", 400), problem("binary", 400, seed=1)
    model = model_of("xgboost", {"learning_rate": 0.5, "early_stopping_rounds": 5}).fit(
        train, valid, TARGETS["binary"], Training(0, 2))
    assert model.curve is not None
    curve = model.curve["valid"]
    assert len(curve) < 200
    assert int(np.argmin(curve)) == len(curve) - 6
    first = predict(model, valid)
    few = np.concatenate([model.predict(c, 3) for c in valid.chunks])
    assert (first != few).any()


class Killed(BaseException):
    """What ends a training in the middle."""


@each_task
@pytest.mark.parametrize("params", [
    {"subsample": 0.7, "colsample_bytree": 0.5, "colsample_bylevel": 0.5, "n_estimators": 80},
    {"num_parallel_tree": 2, "subsample": 0.5, "n_estimators": 60}, {"early_stopping_rounds": 60},
], ids=str)
def test_a_killed_training_goes_on_to_the_very_same_model(task, params, tmp_path, monkeypatch):
    train, valid = problem(task), problem(task, 400, seed=1)
    model = model_of("xgboost", {"learning_rate": 0.1, **params})
    whole = model.fit(train, valid, TARGETS[task], Training(3, 2))
    monkeypatch.setattr("gpupipe.checkpoints.SAVE_SECONDS", 0.0)
    how = Training(3, 2, checkpoints=Checkpoints(tmp_path).given(data="d"))
    save, saved = Checkpoints.save, []

    def save_and_die(self, kind, value):
        save(self, kind, value)
        saved.append(value["rounds"])
        raise Killed

    monkeypatch.setattr(Checkpoints, "save", save_and_die)
    for _ in range(2):  # killed at round 25, and again at round 50
        with pytest.raises(Killed):
            model.fit(train, valid, TARGETS[task], how)
    monkeypatch.setattr(Checkpoints, "save", save)
    resumed = model.fit(train, valid, TARGETS[task], how)
    assert saved == [25, 50]
    assert resumed.payload() == whole.payload()
    assert resumed.curve == whole.curve


def test_xgboost_learns_the_same_quality_from_bins_in_files(tmp_path):
    train = problem("binary", 1200, chunks=5)
    whole = predict(fit("xgboost", "binary", train), train)
    how = Training(3, 2, spill=tmp_path)
    spilled = model_of("xgboost", {"n_estimators": 20}).fit(train, None, TARGETS["binary"], how)
    log_loss = [-np.log(np.where(train.target == 1, p, 1 - p)).mean()
                for p in (whole, predict(spilled, train))]
    assert abs(log_loss[0] - log_loss[1]) < 0.02


def test_pages_hold_the_rows_of_the_chunks_in_order(monkeypatch):
    monkeypatch.setattr("gpupipe.models.quantised.PAGE_ROWS", 10)
    rows = np.arange(57, dtype=np.float32).reshape(-1, 1)
    chunks = np.split(rows, [4, 8, 9, 30, 31, 38])
    made = list(pages(chunks))
    np.testing.assert_array_equal(np.concatenate(made), rows)
    assert len(made) < len(chunks) and all(len(p) <= 10 or len(p) in (19, 21) for p in made)


def test_xgboost_trains_as_many_rounds_as_were_asked_for():
    train = problem("binary", 300)
    assert fit("xgboost", "binary", train, n_estimators=7).rounds == 7
    how = Training(0, 2, rounds=4)
    assert model_of("xgboost", {}).fit(train, None, TARGETS["binary"], how).rounds == 4
