"""Races: who ends, and who does not."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from gpupipe.tune.race import CHANCE, Race


def means(values):
    """What a search notes of folds' values: the mean of all so far, by how many they are."""
    return {k + 1: float(np.mean(values[: k + 1])) for k in range(len(values))}


def raced(kind, finished, maximise=True):
    race = Race(maximise)
    for values in finished:
        race.finish(kind, means(values))
    return race


HARD = np.array([0.80, 0.90, 0.70, 0.85, 0.75])
"""Folds differ far more than trials do."""
NOISE = np.array([0.001, -0.001, 0.0005, -0.0005, 0.0])


def test_a_trial_that_is_far_behind_ends_after_one_fold():
    race = raced("xgboost", [HARD, HARD - 0.002 + NOISE, HARD - 0.001 - NOISE])
    assert race.is_lost("xgboost", means(HARD[:1] - 0.02))
    assert not race.is_lost("xgboost", means(HARD[:1]))
    assert not race.is_lost("xgboost", means(HARD[:1] + 0.02))


def test_less_is_better_for_an_error():
    race = raced("xgboost", [HARD, HARD + 0.002 + NOISE, HARD + 0.001 - NOISE], maximise=False)
    assert race.is_lost("xgboost", means(HARD[:1] + 0.02))
    assert not race.is_lost("xgboost", means(HARD[:1] - 0.02))


def test_families_are_not_held_against_each_other():
    race = raced("xgboost", [HARD, HARD - 0.002 + NOISE, HARD - 0.001 - NOISE])
    assert not race.is_lost("forest", means(HARD[:4] - 0.2))


def test_nothing_ends_before_the_spread_is_known():
    """One other trial: the spread is that of the trial's own differences, once there are four."""
    race = raced("xgboost", [HARD])
    values = HARD - 0.02 + NOISE
    assert [race.is_lost("xgboost", means(values[:k])) for k in range(1, 5)] == [
        False, False, False, True]


def test_with_one_other_trial_the_rule_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    for _ in range(200):
        best, own = HARD + rng.normal(0, 0.01, 5), HARD + rng.normal(-0.005, 0.01, 5)
        p = ttest_1samp((own - best)[:4], 0, alternative="less").pvalue
        assert raced("svm", [best]).is_lost("svm", means(own[:4])) == (p < CHANCE)


def test_a_fold_without_a_value_is_no_reason_to_end_a_trial():
    whole = raced("xgboost", [HARD, HARD - 0.002 + NOISE])
    assert not whole.is_lost("xgboost", {})
    missing = raced("xgboost", [HARD[:2], HARD])  # one lost its values after two folds
    assert not missing.is_lost("xgboost", means(HARD[:3]))


@pytest.mark.parametrize("folds", [1, 2, 4])
def test_a_trial_as_good_as_the_best_is_ended_no_more_often_than_said(folds):
    """As often as `CHANCE` says, within three standard errors of 1,000 races."""
    rng = np.random.default_rng(folds)
    ended = 0
    for _ in range(1000):
        trials = HARD + rng.normal(0, 0.003, (9, 5))
        trials[2:] -= 0.02  # the first one is the best, and not by luck
        race = raced("xgboost", [trials[0], *trials[2:]])
        ended += race.is_lost("xgboost", means(trials[1, :folds]))
    assert abs(ended / 1000 - CHANCE) < 3 * np.sqrt(CHANCE * (1 - CHANCE) / 1000)
