"""Which calibration is taken, and that it is judged on rows that it did not see."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from gpupipe.decide.calibration import METHODS, calibrate
from gpupipe.decide.evidence import Evidence

QUICK = {"resamples": 200}


def evidence(bent: float, n: int = 4000, seed: int = 0, ordered: bool = False) -> Evidence:
    rng = np.random.default_rng(seed)
    right = rng.normal(-0.3, 1.5, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-right))).astype(np.int64)
    return Evidence(y, None, rng.integers(0, 5, n), 1 / (1 + np.exp(-bent * right)), ordered)


def test_probabilities_that_are_right_are_kept_and_that_is_said():
    rows = evidence(1.0)
    made = calibrate(rows, "binary", "auto", **QUICK)
    assert made.calibrator is None and made.prediction is rows.prediction
    assert "does not improve" in made.text and "raw probabilities kept" in made.text
    assert set(made.found["tried"]) == set(METHODS)


def test_the_best_of_all_is_taken_where_probabilities_are_off():
    rows = evidence(2.5)
    made = calibrate(rows, "binary", "auto", **QUICK)
    assert made.calibrator is not None and "improves the log loss out of fold by" in made.text
    assert made.method == min(made.found["tried"], key=made.found["tried"].get)
    part = made.found["out_of_fold"]
    assert part["before"]["log_loss"] == pytest.approx(log_loss(rows.y, rows.prediction))
    assert part["after"]["log_loss"] == pytest.approx(log_loss(rows.y, made.prediction))
    assert part["after"]["brier_score_loss"] == pytest.approx(
        brier_score_loss(rows.y, made.prediction))
    gain = part["difference"]["log_loss"]
    assert gain["low"] < gain["value"] < gain["high"] < 0
    assert part["after"]["ece"] < part["before"]["ece"] / 3


def test_a_method_by_its_name_is_applied_and_said_not_to_help():
    made = calibrate(evidence(1.0), "binary", "isotonic", **QUICK)
    assert made.calibrator is not None and made.method == "isotonic"
    assert "does not improve" in made.text and "the pipeline file names it" in made.text


@pytest.mark.parametrize("method", METHODS)
def test_a_fold_s_own_labels_do_not_touch_its_probabilities(method):
    rows = evidence(2.0, 600)
    mine = rows.fold == 2
    flipped = Evidence(np.where(mine, 1 - rows.y, rows.y), None, rows.fold, rows.prediction)
    before, after = (calibrate(r, "binary", method, resamples=0).prediction
                     for r in (rows, flipped))
    np.testing.assert_array_equal(before[mine], after[mine])
    assert (before[~mine] != after[~mine]).any()


def test_folds_in_time_learn_from_earlier_ones_alone():
    rows = evidence(2.0, 1000, ordered=True)
    assert not rows.judged[rows.fold == 0].any() and rows.judged[rows.fold > 0].all()
    later = rows.fold == 4
    changed = Evidence(np.where(later, 1 - rows.y, rows.y), None, rows.fold, rows.prediction, True)
    before, after = (calibrate(r, "binary", "sigmoid", resamples=0).prediction
                     for r in (rows, changed))
    np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(before[rows.fold == 0], rows.prediction[rows.fold == 0])


def test_several_classes():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3000, 3))
    right = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = (right.cumsum(1) < rng.random(3000)[:, None]).sum(1)
    p = right**3 / (right**3).sum(1, keepdims=True)
    made = calibrate(Evidence(y, None, np.arange(3000) % 5, p), "multiclass", "auto", **QUICK)
    assert made.method == "temperature" and made.calibrator is not None
    assert made.found["out_of_fold"]["after"]["log_loss"] == pytest.approx(
        log_loss(y, made.prediction))
