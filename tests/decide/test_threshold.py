"""Thresholds against scikit-learn's metrics at each of them, and what they bring out of fold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from gpupipe.config.choosing import DecideConfig
from gpupipe.decide.evidence import Evidence
from gpupipe.decide.threshold import decide, rule_of, sweep, value_of
from gpupipe.errors import ConfigError

SCIKIT = {"f1": sk.f1_score, "matthews_corrcoef": sk.matthews_corrcoef,
          "balanced_accuracy": sk.balanced_accuracy_score, "accuracy": sk.accuracy_score,
          "f1_macro": lambda y, p, **k: sk.f1_score(y, p, average="macro", **k)}


def evidence(n: int = 400, seed: int = 0, weighted: bool = False) -> Evidence:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.2).astype(np.int64)
    p = 1 / (1 + np.exp(-(rng.normal(size=n) + 1.5 * y - 2)))
    return Evidence(y, rng.uniform(0.1, 2, n) if weighted else None, np.arange(n) % 5,
                    p.round(2))


def best_by_hand(rows: Evidence, score) -> float:
    at = np.unique(np.concatenate([[0.0, 1.0], rows.prediction]))
    return max(score((rows.prediction > t).astype(int)) for t in at)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", SCIKIT)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_the_threshold_of_a_metric_is_the_best_there_is(name, weighted):
    rows = evidence(weighted=weighted)

    def score(labels: np.ndarray) -> float:
        return float(SCIKIT[name](rows.y, labels, sample_weight=rows.weight))

    found = sweep(rule_of(DecideConfig(metric=name)), rows)
    at, value = found.at[found.best], found.values[name][found.best]
    assert value == pytest.approx(best_by_hand(rows, score))
    assert score((rows.prediction > at).astype(int)) == pytest.approx(value)
    for t, v in zip(found.at[::7], found.values[name][::7], strict=True):
        if np.isfinite(v):
            assert v == pytest.approx(score((rows.prediction > t).astype(int)))


def test_a_cost_is_the_mean_over_rows_and_its_threshold_is_the_cheapest():
    rows = evidence(2000)
    rule = rule_of(DecideConfig(cost={"false_positive": 1.0, "false_negative": 6.0}))

    def saved(labels: np.ndarray) -> float:
        wrong = labels != rows.y
        return -float((wrong * np.where(rows.y == 1, 6.0, 1.0)).mean())

    made = decide(rule, rows, rows, resamples=100)
    assert -made.found["best"]["cost"] == pytest.approx(best_by_hand(rows, saved))
    assert rule.theory == pytest.approx(1 / 7)
    brings = made.found["brings"]["cost"]
    assert brings["usual"] == pytest.approx(-saved((rows.prediction > 0.5).astype(int)))
    assert brings["chosen"] == pytest.approx(-saved(made.labels))
    gain = brings["difference"]
    assert gain["value"] == pytest.approx(brings["chosen"] - brings["usual"])
    assert gain["low"] < gain["value"] < gain["high"] < 0


@pytest.mark.parametrize(("lead", "other"), [("precision", "recall"), ("recall", "precision")])
def test_a_demand_is_met_with_the_most_of_the_other(lead, other):
    rows = evidence(1000)
    made = decide(rule_of(DecideConfig(**{lead: 0.6})), rows, rows, resamples=50)
    of = {"precision": sk.precision_score, "recall": sk.recall_score}
    best = 0.0
    for t in np.unique(rows.prediction):
        labels = (rows.prediction > t).astype(int)
        if labels.any() and of[lead](rows.y, labels) >= 0.6:
            best = max(best, of[other](rows.y, labels))
    labels = (rows.prediction > made.threshold).astype(int)
    assert of[lead](rows.y, labels) >= 0.6
    assert of[other](rows.y, labels) == pytest.approx(best)


def test_a_demand_that_no_threshold_meets_is_refused():
    rng = np.random.default_rng(0)
    rows = Evidence(rng.integers(0, 2, 500), None, np.arange(500) % 5, rng.random(500).round(1))
    with pytest.raises(ConfigError, match=r"no threshold has a precision of 0\.99 out"):
        decide(rule_of(DecideConfig(precision=0.99)), rows, rows, resamples=0)


def test_what_it_brings_is_judged_by_thresholds_of_other_folds():
    rows = evidence(1000)
    rule, mine = rule_of(DecideConfig(metric="f1")), rows.fold == 3
    flipped = Evidence(np.where(mine, 1 - rows.y, rows.y), None, rows.fold, rows.prediction)
    before, after = (decide(rule, r, r, resamples=0) for r in (rows, flipped))
    np.testing.assert_array_equal(before.labels[mine], after.labels[mine])
    assert before.threshold != after.threshold
    for k in range(5):
        cut = sweep(rule, rows.rows(rows.fold != k))
        own = rows.fold == k
        np.testing.assert_array_equal(before.labels[own],
                                      rows.prediction[own] > cut.at[cut.best])
    assert before.found["brings"]["f1"]["chosen"] == pytest.approx(
        sk.f1_score(rows.y, before.labels))


def test_a_metric_of_labels_is_scikit_learn_s():
    rows = evidence(weighted=True)
    labels = (rows.prediction > 0.3).astype(float)
    for name, reference in SCIKIT.items():
        metric = rule_of(DecideConfig(metric=name)).metrics[name]
        assert value_of(metric, rows, labels) == pytest.approx(
            reference(rows.y, labels, sample_weight=rows.weight))


def test_a_metric_that_no_threshold_changes_is_refused():
    with pytest.raises(ConfigError, match="no threshold changes the metric 'roc_auc'") as error:
        rule_of(DecideConfig(metric="roc_auc"))
    assert "matthews_corrcoef" in error.value.hint


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_one_score_for_all_rows(p):
    y = np.array([0, 1, 1, 1, 0] * 20)
    rows = Evidence(y, None, np.arange(100) // 20, np.full(100, p))
    made = decide(rule_of(DecideConfig(metric="accuracy")), rows, rows, resamples=0)
    assert 0 <= made.threshold <= 1
    found = (rows.prediction > made.threshold).astype(int)
    assert (found == y).mean() == pytest.approx(made.found["best"]["accuracy"])
