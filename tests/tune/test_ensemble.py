"""Ensembles are held against what one would have chosen without having seen the rows."""

from __future__ import annotations

import numpy as np
import pytest
from common.quick import small_table, trained_on
from sklearn.metrics import root_mean_squared_error
from tune.test_search import searching

from gpupipe.evaluate.metrics import choose
from gpupipe.tune.ensemble import ensemble
from gpupipe.tune.search import Found
from gpupipe.tune.trial import Trial
from gpupipe.tune.workshop import Truth


def noisy(trials: int, n: int = 400) -> tuple[Found, Truth, np.ndarray]:
    """Trials that are all equally good, but for luck."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=n)
    fold = np.arange(n) % 4
    seen = [(y + rng.normal(size=n)).astype(np.float32) for _ in range(trials)]
    found = [Trial(i, "linear", {}, {}, score=-root_mean_squared_error(y, p), oof=p)
             for i, p in enumerate(seen)]
    metric = choose("regression", ["root_mean_squared_error"])[0]
    whole = Found(None, metric, found, found[0], {}, {}, 0, 0.0)  # type: ignore[arg-type]
    return whole, Truth(fold, y, None), np.array(seen, float)


def test_the_single_trial_too_is_chosen_on_the_other_folds():
    found, truth, seen = noisy(30)
    made = ensemble("blend", found, truth, "regression", size=8, confidence=0.95, resamples=200,
                    seed=0)
    alone = np.empty(len(truth.target))
    for k in range(4):
        inside = truth.fold == k
        errors = [root_mean_squared_error(truth.target[~inside], p[~inside]) for p in seen]
        alone[inside] = seen[int(np.argmin(errors))][inside]
    fair = root_mean_squared_error(truth.target, alone)
    lucky = min(root_mean_squared_error(truth.target, p) for p in seen)
    assert lucky < fair, "the best on all rows is lucky on them"
    own = root_mean_squared_error(truth.target, made.oof)
    assert made.gain.value == pytest.approx(fair - own)
    assert made.better(beyond_chance=False) and made.better(beyond_chance=True)


def test_with_cheaper_models_among_the_objectives_a_blend_has_to_be_better_beyond_chance():
    found, truth, _ = noisy(2, n=40)
    made = ensemble("blend", found, truth, "regression", size=2, confidence=0.999, resamples=200,
                    seed=0)
    assert made.gain.low < 0 < made.gain.value
    assert made.better(beyond_chance=False) and not made.better(beyond_chance=True)


def test_the_last_trials_are_the_best_of_each_boosted_family_with_smaller_steps(tmp_path):
    """And with more patience; of a family as it is, only where nothing else was trained."""
    tune = {"trials": 20, "models": ["xgboost", "forest", "lightgbm"],
            "space": {"forest.n_estimators": [3, 5]}}
    pytest.importorskip("lightgbm")
    model = {"kind": "xgboost", "params": {"max_depth": 2}}
    found = trained_on(small_table(), searching(tune=tune, model=model), tmp_path).chosen.found
    assert len(found.trials) == 20
    earlier, last = found.trials[:18], found.trials[18:]
    assert {t.kind for t in last} == {"xgboost", "lightgbm"}
    for t in last:
        best = max((o for o in earlier[3:] if o.kind == t.kind and o.score is not None),
                   key=lambda o: o.score)
        rate = best.params["learning_rate"] / 3
        assert t.params == {**best.params, "learning_rate": rate, "n_estimators": 6000,
                            "early_stopping_rounds": 3 * round(50 * 0.05 / rate)}


@pytest.mark.parametrize("own", [
    {"learning_rate": [0.2, 0.4]}, {"n_estimators": [3, 12]}, {"early_stopping_rounds": 5},
])
def test_no_smaller_steps_where_the_file_says_how_long_or_by_what_steps(own, tmp_path):
    tune = {"trials": 8, "models": ["xgboost"], "space": own}
    config = searching(tune=tune, model={"kind": "xgboost", "params": {}})
    found = trained_on(small_table(), config, tmp_path).chosen.found
    assert len(found.trials) == 8
    assert all(t.params.get("n_estimators") != 6000 for t in found.trials)
