"""Every metric equals scikit-learn's, and says so where it is not defined."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.errors import ConfigError, DataError
from gpupipe.evaluate import DEFAULT_METRICS, METRICS, evaluate

BINARY = {
    "roc_auc": (sk.roc_auc_score, "p"),
    "average_precision": (sk.average_precision_score, "p"),
    "log_loss": (lambda y, p, sample_weight: sk.log_loss(
        y, p, sample_weight=sample_weight, labels=[0, 1]), "p"),
    "brier_score_loss": (sk.brier_score_loss, "p"),
    "accuracy": (sk.accuracy_score, "label"),
    "balanced_accuracy": (sk.balanced_accuracy_score, "label"),
    "f1": (sk.f1_score, "label"),
    "precision": (sk.precision_score, "label"),
    "recall": (sk.recall_score, "label"),
    "matthews_corrcoef": (sk.matthews_corrcoef, "label"),
    "f1_macro": (lambda *a, **k: sk.f1_score(*a, average="macro", **k), "label"),
    "f1_weighted": (lambda *a, **k: sk.f1_score(*a, average="weighted", **k), "label"),
}


def one_vs_rest(average: str):
    return lambda y, p, sample_weight: np.average(
        [sk.roc_auc_score(y == c, p[:, c], sample_weight=sample_weight)
         for c in range(p.shape[1])],
        weights=np.bincount(y, sample_weight) if average == "weighted" else None,
    )


def top(k: int):
    return lambda y, p, sample_weight: sk.top_k_accuracy_score(
        y, p, k=k, sample_weight=sample_weight, labels=range(p.shape[1]))


MULTICLASS = {
    "accuracy": (sk.accuracy_score, "label"),
    "balanced_accuracy": (sk.balanced_accuracy_score, "label"),
    "f1_macro": (lambda *a, **k: sk.f1_score(*a, average="macro", **k), "label"),
    "f1_weighted": (lambda *a, **k: sk.f1_score(*a, average="weighted", **k), "label"),
    "matthews_corrcoef": (sk.matthews_corrcoef, "label"),
    "log_loss": (lambda y, p, sample_weight: sk.log_loss(
        y, p, sample_weight=sample_weight, labels=range(p.shape[1])), "p"),
    "brier_score_loss": (lambda y, p, sample_weight: sk.brier_score_loss(
        y, p, sample_weight=sample_weight, labels=range(p.shape[1]), scale_by_half=False), "p"),
    "roc_auc_ovr": (one_vs_rest("macro"), "p"),
    "roc_auc_ovr_weighted": (one_vs_rest("weighted"), "p"),
    "top_k_accuracy": (top(2), "p"),
    "top_3_accuracy": (top(3), "p"),
    "top_5_accuracy": (top(5), "p"),
}
REGRESSION = {
    "r2": sk.r2_score,
    "explained_variance": sk.explained_variance_score,
    "mean_squared_error": sk.mean_squared_error,
    "root_mean_squared_error": sk.root_mean_squared_error,
    "mean_absolute_error": sk.mean_absolute_error,
    "median_absolute_error": sk.median_absolute_error,
    "mean_absolute_percentage_error": sk.mean_absolute_percentage_error,
    "root_mean_squared_log_error": sk.root_mean_squared_log_error,
    "max_error": lambda y, p, sample_weight: sk.max_error(y, p),
}


def reference(function, *arrays, weight):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arrays, sample_weight=weight)


def test_every_registered_metric_has_a_reference_here():
    tested = ({("binary", n) for n in BINARY} | {("multiclass", n) for n in MULTICLASS}
              | {("regression", n) for n in REGRESSION}
              | {(task, "concordance_index") for task in ("survival", "hazard")})  # test_survival
    assert tested == set(METRICS)
    for task, names in DEFAULT_METRICS.items():
        assert all((task, name) in METRICS for name in names)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("rows", "levels"), [(37, 6), (900, 10_000), (30_000, 50), (30_000, 10**6)]
)
def test_binary_metrics_equal_scikit_learns(rows, levels, weighted):
    rng = np.random.default_rng(rows + levels)
    y = (rng.random(rows) < 0.3).astype(int)
    p = np.round(1 / (1 + np.exp(1 - 1.5 * y - rng.normal(size=rows))) * levels) / levels
    weight = rng.integers(0, 4, rows) * rng.random(rows) if weighted else None
    scores = evaluate("binary", y, p, weight=weight, metrics=list(BINARY), resamples=20)
    for name, (function, needs) in BINARY.items():
        expected = reference(function, y, p if needs == "p" else p > 0.5, weight=weight)
        assert scores[name].value == pytest.approx(expected, rel=1e-11, abs=1e-12), name
        assert scores[name].low <= scores[name].high


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("rows", "levels"), [(60, 5), (9_000, 10**6)])
def test_multiclass_metrics_equal_scikit_learns(rows, levels, weighted):
    rng = np.random.default_rng(rows)
    y = rng.permutation(np.arange(rows) % 6)
    raw = np.round(rng.random((rows, 6)) * levels) + 1
    raw[np.arange(rows), y] += rng.random(rows) * levels
    p = raw / raw.sum(1, keepdims=True)
    weight = rng.random(rows) + 0.1 if weighted else None
    scores = evaluate("multiclass", y, p, weight=weight, metrics=list(MULTICLASS), resamples=20)
    for name, (function, needs) in MULTICLASS.items():
        expected = reference(function, y, p if needs == "p" else p.argmax(1), weight=weight)
        assert scores[name].value == pytest.approx(expected, rel=1e-11), name


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [2, 5, 400, 401, 9_000, 9_001])
def test_regression_metrics_equal_scikit_learns(rows, weighted):
    rng = np.random.default_rng(rows)
    y = rng.gamma(2.0, 1000.0, rows) + 1e4
    p = np.round(y * rng.normal(1, 0.1, rows), -1)
    weight = rng.integers(1, 5, rows).astype(float) if weighted else None
    scores = evaluate("regression", y, p, weight=weight, metrics=list(REGRESSION), resamples=20)
    for name, function in REGRESSION.items():
        expected = reference(function, y, p, weight=weight)
        assert scores[name].value == pytest.approx(expected, rel=1e-9), name


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(1, 3)),
                min_size=1, max_size=30))
def test_the_weighted_median_error_is_the_median_of_the_repeated_rows(rows):
    y, p, weight = (np.array(c) for c in zip(*rows, strict=True))
    score = evaluate("regression", y, p, weight=weight.astype(float),
                     metrics=["median_absolute_error"], resamples=0)
    expected = np.median(np.repeat(np.abs(p - y), weight))
    assert score["median_absolute_error"].value == pytest.approx(expected, rel=1e-12)


def test_a_metric_that_is_not_defined_says_why_and_is_never_nan():
    scores = evaluate("binary", np.zeros(50, int), np.linspace(0, 0.4, 50))
    assert scores["roc_auc"].value is None
    assert scores["roc_auc"].note == "undefined: all rows are of one class"
    assert scores["precision"].note == "undefined: no row is predicted positive"
    assert scores["recall"].note == "undefined: no row is positive"
    assert scores["accuracy"].value == 1.0
    assert scores["log_loss"].value > 0
    scores = evaluate("multiclass", np.zeros(9, int), np.full((9, 3), 1 / 3),
                      classes=["a", "b", "<c>"])
    assert scores["roc_auc_ovr"].note == "undefined: no row is of class 'b', '<c>'"
    scores = evaluate("regression", np.full(40, 0.1), np.linspace(0, 1, 40))
    assert scores["r2"].note == "undefined: the target is constant"
    scores = evaluate("regression", np.arange(40.0), np.arange(40.0) + 1)
    assert "the target is 0" in scores["mean_absolute_percentage_error"].note
    for score in scores.values():
        assert score.value is None or np.isfinite(score.value)


def test_a_metric_that_is_undefined_in_some_resamples_says_in_how_many():
    y = np.array([1] + [0] * 20)
    score = evaluate("binary", y, np.linspace(1, 0, 21), metrics=["roc_auc"])["roc_auc"]
    assert score.value == 1.0
    # One positive row of 21 is missed by (20/21)^21 = 36 % of resamples.
    missed = int(score.note.split()[2])
    assert 300 < missed < 420


def test_unknown_and_unfit_metrics_are_refused():
    y, p = np.array([0, 1]), np.array([0.2, 0.8])
    with pytest.raises(ConfigError, match="did you mean 'roc_auc'"):
        evaluate("binary", y, p, metrics=["rocauc"])
    with pytest.raises(ConfigError, match="'r2' is for regression targets; this target is binary"):
        evaluate("binary", y, p, metrics=["r2"])


@pytest.mark.parametrize(("y", "p", "weight", "match"), [
    ([], [], None, "no rows"),
    ([0, 1], [0.2, np.nan], None, "not finite in 1 of 2"),
    ([0, 1], [0.2, 1.7], None, "probabilities run from 0.2 to 1.7"),
    ([0, 2], [0.2, 0.7], None, "class codes"),
    ([0, 1], [0.2], None, "do not fit 2 rows"),
    ([0, 1], [0.2, 0.3], [1.0, -1.0], "weights"),
])
def test_arrays_that_do_not_fit_are_refused(y, p, weight, match):
    with pytest.raises(DataError, match=match):
        evaluate("binary", np.array(y), np.array(p),
                 weight=None if weight is None else np.array(weight))
