"""Metrics without a target against scikit-learn's and SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.stats import spearmanr
from sklearn import metrics as reference
from sklearn.manifold import trustworthiness

from gpupipe.errors import ConfigError
from gpupipe.evaluate import clusters


def clustered(seed: int, n: int = 80, k: int = 5, p: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, n)
    label[0] = k  # alone in its cluster
    return rng.normal(size=(n, p)) + label[:, None] * rng.normal(size=p), label


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_clusterings_are_measured_as_by_scikit_learn(seed, chunks):
    x, label = clustered(seed)
    np.testing.assert_allclose(clusters.silhouettes(x, label),
                               reference.silhouette_samples(x, label), atol=1e-9)
    noisy = np.concatenate([label, [-1, -1]])  # noise counts for nothing
    with_noise = np.concatenate([x, [[90.0] * 3, [-90.0] * 3]])
    found = clusters.spread(lambda: zip(np.array_split(with_noise, chunks),
                                        np.array_split(noisy, chunks), strict=True))
    assert found["davies_bouldin_score"] == pytest.approx(
        reference.davies_bouldin_score(x, label), rel=1e-7)
    assert found["calinski_harabasz_score"] == pytest.approx(
        reference.calinski_harabasz_score(x, label), rel=1e-9)


def test_fewer_than_two_clusters_have_no_spread():
    x = np.zeros((4, 2))
    assert clusters.spread(lambda: [(x, np.array([-1, 0, 0, 0]))]) == {}
    assert clusters.spread(lambda: [(x, np.arange(4))]) == {}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6))
def test_agreement_is_the_adjusted_rand_index(seed, a, b):
    rng = np.random.default_rng(seed)
    left, right = rng.integers(-1, a, 60), rng.integers(-1, b, 60)
    assert clusters.adjusted_rand(left, right) == pytest.approx(
        reference.adjusted_rand_score(left, right), abs=1e-12)
    assert clusters.adjusted_rand(left, left * 7 + 3) == 1.0


def test_scores_are_compared_by_spearmans_correlation():
    rng = np.random.default_rng(0)
    a = rng.integers(0, 12, 100).astype(float)
    b = a + rng.integers(0, 9, 100)
    assert clusters.rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert np.isnan(clusters.rank_correlation(a, np.ones(100)))


def test_components_are_compared_by_their_principal_angles():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 3)), rng.normal(size=(50, 2))
    angles = subspace_angles(a - a.mean(axis=0), b - b.mean(axis=0))
    assert clusters.subspace_similarity(a, b) == pytest.approx(np.mean(np.cos(angles) ** 2))
    turned = a @ np.linalg.qr(rng.normal(size=(3, 3)))[0] * -4 + 7
    assert clusters.subspace_similarity(a, turned) == pytest.approx(1)


def test_trustworthiness_is_scikit_learns():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 6))
    found = x[:, :2] + rng.normal(size=(90, 2)) / 4
    assert clusters.trustworthiness(x, found) == pytest.approx(trustworthiness(x, found), rel=1e-12)
    assert np.isnan(clusters.trustworthiness(x[:10], found[:10]))


def test_explained_variance_is_that_of_all_columns_together():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)) * [1, 5, 0.1]
    again = x + rng.normal(size=(60, 3)) / 3
    assert clusters.explained_variance(x, again) == pytest.approx(
        reference.r2_score(x, again, multioutput="variance_weighted"))


def test_a_misspelt_metric_meets_the_nearest_one():
    with pytest.raises(ConfigError, match="no metric 'silhouete_score' of clusters") as error:
        clusters.choose("clusters", ["silhouete_score"])
    assert error.value.hint == "did you mean 'silhouette_score'?"
    with pytest.raises(ConfigError, match="no metric 'roc_auc' of anomalies"):
        clusters.choose("anomalies", ["roc_auc"])
