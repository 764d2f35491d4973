"""Drift of all columns together: seen where no column moves, and not where nothing does."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from common.watched import table
from scipy import stats
from sklearn.decomposition import PCA

from gpupipe.config.monitor import MonitorConfig
from gpupipe.errors import DataError
from gpupipe.monitor import monitor
from gpupipe.monitor.multivariate import _area, domain_classifier, reconstruction


def test_the_area_is_scipy_s_mann_whitney_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 120).astype(float), rng.integers(1, 10, 80).astype(float)
    area, variance = _area(a, b)
    expected = stats.mannwhitneyu(a, b, method="asymptotic", use_continuity=False)
    assert area == pytest.approx(expected.statistic / (120 * 80))
    assert 2 * stats.norm.sf(abs(area - 0.5) / variance**0.5) == pytest.approx(expected.pvalue)


def correlated(n: int, rho: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4))
    x[:, 1] = rho * x[:, 0] + (1 - rho**2) ** 0.5 * x[:, 1]
    return x.astype(np.float32)


def test_a_lost_correlation_is_seen_by_both_and_by_no_column():
    then, now = correlated(2000, 0.9, 0), correlated(1500, 0.0, 1)
    assert all(stats.ks_2samp(then[:, i], now[:, i]).pvalue > 0.01 for i in range(4))
    for test in (domain_classifier, reconstruction):
        found = test(then, now)
        assert found.p < 1e-6 and found.effect > 0.05


def test_reconstruction_errors_are_those_of_scikit_learn_s_components():
    then, now = correlated(1000, 0.9, 2), correlated(800, 0.5, 3)
    half, held = then[::2].astype(float), then[1::2].astype(float)
    mean, spread = half.mean(axis=0), half.std(axis=0)
    pca = PCA(0.9).fit((half - mean) / spread)
    errors = []
    for x in (now.astype(float), held):
        z = (x - mean) / spread
        back = (z @ pca.components_.T) @ pca.components_
        errors.append(((z - back) ** 2).sum(axis=1))
    assert reconstruction(then, now).value == pytest.approx(_area(*errors)[0])


def test_without_drift_neither_says_anything_more_often_than_it_should():
    p = [test(correlated(600, 0.5, 10 + i), correlated(500, 0.5, 900 + i)).p
         for i in range(25) for test in (domain_classifier, reconstruction)]
    assert np.mean(np.array(p) < 0.05) <= 0.14  # three deviations above the level
    assert min(p) > 1e-4


def test_a_window_whose_columns_are_all_ok_may_be_an_alert(bundle, tmp_path):
    train, rows = table(4000, 50), table(3000, 51)
    x = rows["x"].to_numpy().copy()
    x = np.sort(x)[np.argsort(np.argsort(rows["k"].to_numpy() + np.random.default_rng(0).random(
        3000)))]  # the same values of x, but now they rise with k
    tied = rows.set_column(0, "x", pa.array(x))
    calm = monitor(bundle, rows, against=train, window="all")
    assert calm.state == "ok"
    found = monitor(bundle, tied, against=train, window="all", history=tmp_path / "h")
    states = {c.column: c.state for c in found.windows[0].columns}
    assert states["(all columns)"] == "alert"
    assert {states[c] for c in ("x", "z", "s", "k")} == {"ok"}
    assert found.findings[0]["measure"] == "domain_classifier"
    again = monitor(bundle, history=tmp_path / "h")
    assert [w.to_json() for w in again.windows] == [w.to_json() for w in found.windows]
    order = pa.array(np.random.default_rng(1).permutation(3000))
    shuffled = monitor(bundle, tied.take(order), against=train, window="all")
    assert [w.to_json() for w in shuffled.windows] == [w.to_json() for w in found.windows]
    quiet = MonitorConfig(thresholds={"domain_classifier": {"warn": 0.9, "alert": 0.9},
                                      "reconstruction": {"warn": 0.9, "alert": 0.9}})
    quietly = monitor(bundle, tied, against=train, window="all", rules=quiet)
    assert next(c.state for c in quietly.windows[0].columns if c.column == "(all columns)") == "ok"
    with pytest.raises(DataError, match="fewer than 200 rows"):
        monitor(bundle, rows, against=train.slice(0, 50), window="all")
