"""gpupipe.Pipeline held to scikit-learn's own contract, and used as its users would."""

from __future__ import annotations

import doctest
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, check_cv, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import gpupipe
import gpupipe.estimator
from gpupipe import Pipeline

FEW = {"n_estimators": 10, "learning_rate": 0.3}
"""Few trees: the checks ask for behaviour, and fit some hundred times."""
EXACT = {**FEW, "subsample": 1.0, "colsample_bytree": 1.0}
"""Without the sampling that makes XGBoost's trees depend on how many rows there are."""

WEIGHTS = "check_sample_weight_equivalence_on_dense_data"
EXPECTED_FAILURES = {
    "xgboost": {
        WEIGHTS: "XGBoost samples rows by position (subsample 0.8), so n equal rows draw other "
        "trees than one row of weight n, as in scikit-learn's own random forests. Without "
        "sampling the two agree to float32, which a test below holds them to."
    },
    "linear": {
        WEIGHTS: "Weights reach the model. The medians and scales of the default steps are of "
        "the rows, whatever these weigh, so they differ where rows are repeated. Without steps "
        "the two agree, which a test below holds them to."
    },
}


def expected_failures(estimator: Pipeline) -> dict[str, str]:
    return EXPECTED_FAILURES[estimator.model]


@parametrize_with_checks(
    [
        Pipeline("classification", model_params=FEW, n_jobs=1),
        Pipeline("regression", model_params=FEW, n_jobs=1),
        Pipeline("classification", model="linear", n_jobs=1),
        Pipeline("regression", model="linear", n_jobs=1),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_estimator_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def adult(shared_data) -> tuple[pd.DataFrame, pd.Series, pd.DataFrame, pd.Series]:
    """X, y of the UCI training file, and of its test file."""
    made = []
    for name in ("adult.data", "adult.test"):
        table = pd.read_csv(shared_data / "adult" / name, skipinitialspace=True, na_values="?")
        made += [table, table.pop("outcome").str.rstrip(".")]
    return tuple(made)


@pytest.fixture(scope="module")
def small(adult) -> tuple[pd.DataFrame, pd.Series]:
    return adult[0].iloc[:3000], adult[1].iloc[:3000]


@pytest.fixture(scope="module")
def fitted(small) -> Pipeline:
    return Pipeline(model_params=FEW, n_jobs=1).fit(*small)


def weighted_and_repeated(estimator: Pipeline) -> tuple[Pipeline, Pipeline, np.ndarray]:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    weight = rng.integers(0, 5, 60)
    one = clone(estimator).fit(X, y, sample_weight=weight)
    return one, clone(estimator).fit(X.repeat(weight, axis=0), y.repeat(weight)), X


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize(("model", "more"), [("xgboost", {"model_params": EXACT}),
                                             ("linear", {"features": []})])
def test_a_weight_of_n_is_n_rows_and_a_weight_of_0_is_none(task, model, more):
    one, many, X = weighted_and_repeated(Pipeline(task, model=model, n_jobs=1, **more))
    method = "predict" if task == "regression" else "predict_proba"
    rtol = 1e-5 if model == "xgboost" else 1e-3  # float32 sums; an iteration's tolerance
    np.testing.assert_allclose(getattr(one, method)(X), getattr(many, method)(X), rtol=rtol,
                               atol=1e-6)


def test_adult_is_learned_as_well_as_xgboost_can(adult):
    X, y, X_test, y_test = adult
    params = {"n_estimators": 100, "learning_rate": 0.15}
    pipeline = Pipeline(model_params=params, n_jobs=1).fit(X, y)
    assert list(pipeline.classes_) == ["<=50K", ">50K"]
    assert roc_auc_score(y_test, pipeline.predict_proba(X_test)[:, 1]) > 0.924
    assert pipeline.score(X_test, y_test) > 0.868


def test_diamonds_are_priced_with_their_text_columns_as_they_are(shared_data):
    table = pd.read_csv(shared_data / "diamonds" / "diamonds.csv").sample(8000, random_state=0)
    X, y = table.drop(columns="price"), table["price"]
    pipeline = Pipeline("regression", model_params={"n_estimators": 100, "learning_rate": 0.15},
                        n_jobs=1)
    assert cross_val_score(pipeline, X, y, cv=3).min() > 0.96


def test_cross_validation_stratifies_a_classifier_and_not_a_regressor(small):
    X, y = small
    assert is_classifier(Pipeline()) and not is_regressor(Pipeline())
    assert is_regressor(Pipeline("regression")) and not is_classifier(Pipeline("regression"))
    splitter = check_cv(3, y, classifier=is_classifier(Pipeline()))
    assert isinstance(splitter, StratifiedKFold)
    scores = cross_val_score(Pipeline(model_params=FEW, n_jobs=1), X, y, cv=3, scoring="roc_auc")
    assert scores.min() > 0.85


def test_grid_search_reaches_the_models_parameters_and_the_steps(small):
    X, y = small
    search = GridSearchCV(
        Pipeline(model_params=FEW, n_jobs=1),
        {"model__max_depth": np.array([1, 5]),
         "features": [None, [{"drop": {"columns": "age"}}, "ordinal"]]},
        cv=2, scoring="neg_log_loss", error_score="raise",
    ).fit(X, y)
    assert search.best_params_["model__max_depth"] == 5
    assert search.best_estimator_.model_params == {**FEW, "max_depth": 5}
    depth_one = search.cv_results_["mean_test_score"][search.cv_results_["rank_test_score"] > 2]
    assert (depth_one < search.best_score_).all()


def test_set_params_keeps_the_other_model_params_and_the_dict_it_was_given():
    given = {"max_depth": 3}
    pipeline = Pipeline(model_params=given).set_params(model__eta=0.1, task="regression")
    assert given == {"max_depth": 3}
    assert pipeline.get_params()["model__eta"] == 0.1
    assert clone(pipeline).model_params == {"max_depth": 3, "eta": 0.1}
    with pytest.raises(ValueError, match="Invalid parameter 'depth'"):
        pipeline.set_params(depth=1)


def test_a_pipeline_ends_or_begins_a_scikit_learn_pipeline(small):
    X, y = small
    numbers = X[["age", "education-num", "hours-per-week"]]
    last = make_pipeline("passthrough", Pipeline(model_params=FEW, n_jobs=1)).fit(X, y)
    assert last.score(X, y) > 0.85
    steps = [{"impute": {"columns": "numeric"}}, {"scale": {"columns": "numeric"}}]
    first = make_pipeline(Pipeline(model="constant", features=steps, n_jobs=1),
                          LogisticRegression()).fit(numbers, y)
    assert first.score(numbers, y) > 0.75


def test_every_kind_of_table_gives_the_same_model(small, fitted):
    X, y = small
    expected = fitted.predict_proba(X)
    others = [(pl.from_pandas(X), pl.Series(y.to_list())),
              (pa.Table.from_pandas(X, preserve_index=False), y.to_list()),
              (X.set_index(pd.Index(X.index.to_numpy()[::-1] * 2, name="row")),
               y.to_numpy(dtype=object))]
    for table, labels in others:
        same = clone(fitted).fit(table, labels)
        assert list(same.feature_names_in_) == list(X.columns)
        np.testing.assert_array_equal(same.predict_proba(table), expected)
        np.testing.assert_array_equal(fitted.predict_proba(table), expected)


def test_arrays_of_text_and_numbers_are_named_x0_and_on(small, fitted):
    X, y = small
    values = X.astype(object).where(X.notna(), None).to_numpy()
    pipeline = clone(fitted).fit(values, y)
    assert not hasattr(pipeline, "feature_names_in_")
    assert pipeline.n_features_in_ == 14
    names = [f"x{i}" for i in range(14)]
    assert pipeline.get_feature_names_out().tolist() == names
    named = X.set_axis(names, axis=1)
    expected = clone(fitted).fit(named, y).predict_proba(named)
    np.testing.assert_array_equal(pipeline.predict_proba(values), expected)


def test_threads_and_batches_do_not_change_the_model(small, fitted):
    X, y = small
    other = clone(fitted).set_params(n_jobs=2, batch_rows=700).fit(X, y)
    np.testing.assert_array_equal(other.transform(X), fitted.transform(X))
    np.testing.assert_allclose(other.predict_proba(X), fitted.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize("labels", [
    [True, False], [3, 1, 2], [1.0, 2.0], ["no", "yes", "maybe"],
    pd.Categorical(["b", "a", "c"]), np.array(["x", "y"], dtype="U1"),
])
def test_labels_come_back_as_they_were_given(labels):
    y = np.repeat(np.asarray(labels), 20)
    X = np.unique(y, return_inverse=True)[1].reshape(-1, 1) * 1.0
    pipeline = Pipeline(model_params=EXACT | {"min_child_weight": 0}, n_jobs=1).fit(X, y)
    assert pipeline.classes_.dtype == y.dtype == pipeline.predict(X).dtype
    assert pipeline.classes_.tolist() == sorted(set(y.tolist()))
    assert pipeline.predict(X).tolist() == y.tolist()
    np.testing.assert_allclose(pipeline.predict_proba(X).sum(axis=1), 1, rtol=1e-12)


def test_a_regressor_has_no_probabilities_and_forgets_the_classes_of_an_earlier_fit():
    X, y = load_iris(return_X_y=True)
    pipeline = Pipeline(model_params=FEW, n_jobs=1).fit(X, y)
    pipeline.set_params(task="regression").fit(X, y)
    assert not hasattr(pipeline, "predict_proba")
    assert not hasattr(pipeline, "classes_")
    assert pipeline.score(X, y) > 0.9


def test_transform_gives_the_features_in_the_container_asked_for(small, fitted):
    X, _ = small
    names = fitted.get_feature_names_out()
    plain = fitted.transform(X)
    assert plain.dtype == np.float32 and plain.shape == (3000, len(names))
    held = clone(fitted).set_output(transform="pandas").fit(*small).transform(X.iloc[5:9])
    assert list(held.columns) == list(names) and list(held.index) == [5, 6, 7, 8]
    np.testing.assert_array_equal(held.to_numpy(), plain[5:9])
    frame = clone(fitted).set_output(transform="polars").fit(*small).transform(X)
    assert isinstance(frame, pl.DataFrame)


def test_default_steps_number_text_as_an_ordinal_encoder_does(small, fitted):
    X, _ = small
    encoder = OrdinalEncoder(encoded_missing_value=np.nan)
    wanted = encoder.fit_transform(X[["sex", "race"]])
    at = [list(fitted.get_feature_names_out()).index(n) for n in ("sex", "race")]
    found = fitted.transform(X)[:, at]
    for column in (0, 1):  # a one-to-one relation, whichever numbers are used
        pairs = set(zip(found[:, column], wanted[:, column], strict=True))
        assert len(pairs) == X[["sex", "race"][column]].nunique()


def test_importances_are_shares_in_the_order_of_the_features(fitted):
    shares = pd.Series(fitted.feature_importances_, fitted.get_feature_names_out())
    assert shares.sum() == pytest.approx(1)
    assert {"marital-status", "relationship"} & set(shares.nlargest(2).index)
    assert not hasattr(Pipeline(model="constant").fit(*load_iris(return_X_y=True)),
                       "feature_importances_")


def test_a_text_column_that_names_rows_is_left_out_and_said_so(small):
    X, y = small
    pipeline = Pipeline(model_params=FEW, n_jobs=1).fit(X.assign(id=[f"r{i}" for i in X.index]), y)
    assert "id" not in pipeline.get_feature_names_out()
    assert any("'id' is left out" in note for note in pipeline.notes_)


def test_columns_may_be_called_y_and_sample_weight():
    X = pd.DataFrame({"y": np.arange(40.0), "sample_weight": ["a", "b"] * 20, "y_": range(40)})
    pipeline = Pipeline(model_params=FEW, n_jobs=1)
    pipeline.fit(X, X["y"] > 20, sample_weight=np.full(40, 2.0))
    assert pipeline.get_feature_names_out().tolist() == ["y", "sample_weight", "y_"]


def test_a_saved_bundle_scores_the_same_and_names_the_labels(small, fitted, tmp_path):
    X, _ = small
    fitted.save(tmp_path / "bundle")
    bundle = gpupipe.load(tmp_path / "bundle")
    assert bundle.classes == ["<=50K", ">50K"]
    np.testing.assert_array_equal(bundle.predict_proba(X), fitted.predict_proba(X))
    assert bundle.predict(X).tolist() == fitted.predict(X).tolist()
    with pytest.raises(FileExistsError):
        fitted.save(tmp_path / "bundle")
    with pytest.raises(NotFittedError):
        Pipeline().save(tmp_path / "other")
    assert [p.name for p in Path(tmp_path).iterdir()] == ["bundle"]


def test_a_pickled_pipeline_is_whole_and_small(small, fitted, tmp_path):
    X, _ = small
    data = pickle.dumps(fitted)
    assert len(data) < 1_000_000
    again = pickle.loads(data)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    again.save(tmp_path / "bundle")


def test_the_notebook_view_shows_the_steps_and_the_model(fitted):
    steps = [{"impute": {"columns": "numeric", "strategy": "mean"}}, "ordinal"]
    html = Pipeline(features=steps, model="linear")._repr_html_()
    assert html.index("impute</div>") < html.index("ordinal</div>") < html.index("linear</div>")
    assert "mean" in html
    assert "ordinal</div>" in fitted._repr_html_() and "native-country" in fitted._repr_html_()
    inside = make_pipeline("passthrough", Pipeline(features=steps, model_params=FEW))
    assert "impute</div>" in inside._repr_html_()
    assert repr(Pipeline(model="linear")) == "Pipeline(model='linear')"


def test_tags_tell_what_goes_in():
    tags = get_tags(Pipeline()).input_tags
    assert tags.allow_nan and tags.string and tags.categorical and not tags.sparse


IRIS = load_iris(return_X_y=True, as_frame=True)
FAULTS = {
    "unknown model": (lambda X, y: Pipeline(model="xgbost").fit(X, y), "did you mean 'xgboost'"),
    "unknown step": (lambda X, y: Pipeline(features=["imputer"]).fit(X, y),
                     r"(?s)features\[0\].*did you mean 'impute'"),
    "unknown parameter": (lambda X, y: Pipeline(model_params={"n_estimator": 1}).fit(X, y),
                          "did you mean 'n_estimators'"),
    "unknown task": (lambda X, y: Pipeline("classify").fit(X, y), "task must be one of"),
    "no column": (lambda X, y: Pipeline(features=[{"scale": {"columns": "petal"}}]).fit(X, y),
                  "'petal' selects no column"),
    "params no mapping": (lambda X, y: Pipeline(model_params=5).fit(X, y), "expected a mapping"),
    "features no list": (lambda X, y: Pipeline(features="impute").fit(X, y), "expected a list"),
    "no threads": (lambda X, y: Pipeline(n_jobs=0).fit(X, y), "n_jobs == 0"),
    "no batch": (lambda X, y: Pipeline(batch_rows=0).fit(X, y), "batch_rows"),
    "two columns of one name": (lambda X, y: Pipeline().fit(pd.concat([X, X], axis=1), y),
                                "column"),
    "a constant target": (lambda X, y: Pipeline("regression").fit(X, y * 0),
                          "same value in every row"),
    "one class": (lambda X, y: Pipeline().fit(X, y * 0), "one class"),
    "no column left": (lambda X, y: Pipeline().fit(X * 0, y), "no feature is left"),
    "negative weight": (lambda X, y: Pipeline().fit(X, y, sample_weight=y - 1.0), "[Nn]egative"),
    "empty table": (lambda X, y: Pipeline().fit(X.iloc[:0], y[:0]), r"0 sample\(s\).*minimum of 2"),
    "mixed column": (lambda X, y: Pipeline().fit(np.array([["a", 1], [2, 2]], dtype=object), y[:2]),
                     "column 0 of X mixes types"),
    "other length": (lambda X, y: Pipeline().fit(X, y[:5]), "inconsistent numbers of samples"),
    "numbers for labels": (lambda X, y: Pipeline().fit(X, y + 0.5), "Unknown label type"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_value_error_that_says_what_is_wrong(fault):
    use, words = FAULTS[fault]
    with pytest.raises(ValueError, match=words):
        use(*IRIS)


def test_sparse_nested_and_deep_input_is_refused_in_scikit_learns_way():
    X, y = (part.to_numpy() for part in IRIS)
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        Pipeline().fit(sparse.csr_array(X), y)
    with pytest.raises(ValueError, match="Found array with dim 3"):
        Pipeline().fit(X[:, :, None], y)
    nested = X.astype(object)
    nested[0, 0] = {"a": 1}
    with pytest.raises(TypeError, match="must be a string or a real number, not 'dict'"):
        Pipeline().fit(nested, y)


def test_new_data_must_have_the_columns_of_the_old(small, fitted):
    X, _ = small
    with pytest.raises(ValueError, match="must be in the same order"):
        fitted.predict(X[X.columns[::-1]])
    with pytest.raises(ValueError, match="seen at fit time, yet now missing:\n- age"):
        fitted.predict(X.drop(columns="age"))
    with pytest.raises(ValueError, match="column 'age': a value of type"):
        fitted.predict(X.assign(age="old"))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        fitted.predict(X.astype(object).where(X.notna(), None).to_numpy())
    with pytest.raises(NotFittedError):
        Pipeline().predict(X)


def test_the_examples_in_the_docstrings_run():
    found = doctest.testmod(gpupipe.estimator)
    assert found.attempted and not found.failed
