"""Curves equal scikit-learn's, and stay small and plain."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as sk

from gpupipe.evaluate.curves import CLASSES, POINTS, curves


def binary_rows(n, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(int)
    return y, 1 / (1 + np.exp(1 - 1.5 * y - rng.normal(size=n))), rng.random(n) + 0.5


def size(value):
    return len(json.dumps(value, allow_nan=False))


def test_binary_curves_lie_on_scikit_learns():
    y, p, w = binary_rows(5_000)
    found = curves("binary", y, p, weight=w, classes=["no", "yes"])
    [roc] = found["roc"]
    fpr, tpr, _ = sk.roc_curve(y, p, sample_weight=w, drop_intermediate=False)
    along = np.add(roc["fpr"], roc["tpr"])
    assert np.interp(along, fpr + tpr, tpr) == pytest.approx(roc["tpr"], abs=1e-5)
    assert roc["auc"] == pytest.approx(sk.roc_auc_score(y, p, sample_weight=w))
    precision, recall, _ = sk.precision_recall_curve(y, p, sample_weight=w)
    known = {round(r, 6): v for r, v in zip(recall, precision, strict=True)}
    pr = found["precision_recall"]
    matched = [known[round(r, 6)] for r in pr["recall"] if round(r, 6) in known]
    assert len(matched) > 100
    assert all(np.diff(pr["recall"]) > 0)
    assert pr["base_rate"] == pytest.approx(np.average(y, weights=w))
    assert max(len(roc["fpr"]), len(pr["recall"])) <= POINTS + 2
    counts = sk.confusion_matrix(y, p > 0.5, sample_weight=w)
    assert np.array(found["confusion"]["counts"]) == pytest.approx(counts)


def test_calibration_bins_hold_all_rows_and_intervals_hold_the_observed_share():
    y, p, _ = binary_rows(8_000, seed=1)
    bins = curves("binary", y, p)["calibration"]["bins"]
    assert len(bins) == 10
    assert sum(b["rows"] for b in bins) == 8_000
    assert all(b["low"] < b["observed"] < b["high"] for b in bins)
    assert bins[0]["rows"] == pytest.approx(800, abs=2)
    # statsmodels' and R's binom: Wilson interval of 5 of 20.
    y, p = np.array([1] * 5 + [0] * 15), np.full(20, 0.25)
    [only] = curves("binary", y, p)["calibration"]["bins"]
    assert (only["low"], only["high"]) == pytest.approx((0.1118, 0.4687), abs=1e-4)


def test_the_score_histogram_and_the_gain_curve_count_every_row():
    y, p, _ = binary_rows(3_000, seed=2)
    found = curves("binary", y, p)
    assert sum(map(sum, (s["counts"] for s in found["score_histogram"]["series"]))) == 3_000
    gain = found["gain"]
    top = np.argsort(-p)[:600]
    assert gain["found"][20] == pytest.approx(y[top].sum() / y.sum(), abs=1e-3)
    assert gain["lift"][20] == pytest.approx(gain["found"][20] / 0.2, rel=1e-4)


def test_one_class_leaves_out_the_curves_that_do_not_exist():
    found = curves("binary", np.zeros(9, int), np.linspace(0, 1, 9))
    assert "roc" not in found
    assert "calibration" in found


def test_many_classes_fold_into_thirty():
    rng = np.random.default_rng(0)
    y = np.minimum(rng.geometric(0.1, 4_000) - 1, 44)
    p = rng.dirichlet(np.ones(45), 4_000)
    found = curves("multiclass", y, p)
    counts = np.array(found["confusion"]["counts"])
    assert counts.shape == (CLASSES, CLASSES)
    assert counts.sum() == 4_000
    assert found["confusion"]["classes"][-1] == "other (16)"
    assert len(found["roc"]) == 8
    assert size(found) < 60_000


def test_regression_curves_count_what_they_leave_out():
    rng = np.random.default_rng(3)
    y = rng.gamma(2, 100, 50_000)
    p = y + rng.normal(0, 20, 50_000)
    found = curves("regression", y, p)
    density = found["predicted_actual"]
    assert np.sum(density["counts"]) / 50_000 == pytest.approx(1 - density["outside"])
    assert density["outside"] < 0.005
    assert density["x"] == density["y"]
    assert [d["rows"] for d in found["deciles"]] == [5_000] * 10
    first = np.argsort(p)[:5_000]
    assert found["deciles"][0]["absolute_error"] == pytest.approx(np.abs(p - y)[first].mean())
    assert size(found) < 60_000


def test_constant_predictions_still_have_curves():
    y = np.arange(100.0)
    found = curves("regression", y, np.full(100, 49.5))
    assert sum(found["residual_histogram"]["counts"]) >= 98
    assert size(found)
    assert size(curves("binary", (y > 50).astype(int), np.full(100, 0.49)))
