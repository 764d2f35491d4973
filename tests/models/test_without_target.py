"""The families that learn without a target: one contract, and what each owes its reference."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import cluster, decomposition, ensemble
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from gpupipe.codec import pack, read_arrays, unpack, write_arrays
from gpupipe.config.unsupervised import UNSUPERVISED
from gpupipe.errors import ConfigError, DataError, EnvironmentFault
from gpupipe.models import MODELS, Matrix, Training, model_of, packed, restored
from gpupipe.models.density import born
from gpupipe.models.exact import Gram
from gpupipe.models.isolation_forest import path_length
from gpupipe.models.nearest import assign, nearest, squared_distances, within
from gpupipe.models.umap import FittedUMAP, strengths
from gpupipe.steps import Target

TARGET = Target("unsupervised")
NAMES = ("w", "x", "y", "z")
PARAMS = {
    "kmeans": {"n_clusters": 4}, "dbscan": {"eps": 0.9}, "hdbscan": {"min_cluster_size": 25},
    "isolation_forest": {"n_estimators": 30, "contamination": 0.05}, "pca": {},
    "truncated_svd": {"n_components": 3},
}
each_kind = pytest.mark.parametrize("kind", list(PARAMS))


def rows(n: int = 600, seed: int = 0) -> np.ndarray:
    """Four clouds of different size and width, and some noise: float32 ``[n, 4]``."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(4, 4)) * 4
    which = rng.choice(4, n, p=[0.4, 0.3, 0.2, 0.1])
    x = centres[which] + rng.normal(size=(n, 4)) * (0.3 + 0.15 * which[:, None])
    x[:: 15] = rng.uniform(-9, 9, size=x[:: 15].shape)
    return x.astype(np.float32)


def matrix(x: np.ndarray, chunks: int = 3, weight: np.ndarray | None = None) -> Matrix:
    return Matrix(tuple(np.array_split(x, chunks)), np.zeros(len(x), np.int8), weight, NAMES,
                  (False,) * x.shape[1])


def fit(kind: str, x: np.ndarray, chunks: int = 3, weight: np.ndarray | None = None, **params):
    model = model_of(kind, {**PARAMS.get(kind, {}), **params})
    return model.fit(matrix(x, chunks, weight), None, TARGET, Training(seed=3, threads=2))


def umap_of(x: np.ndarray) -> FittedUMAP:
    """A map that needs no umap-learn: the first two columns."""
    return FittedUMAP("umap", x, x[:, :2].copy(), 10, NAMES)


def made(kind: str, x: np.ndarray):
    return umap_of(x) if kind == "umap" else fit(kind, x)


# The contract ---------------------------------------------------------------------------------


def test_the_pipeline_file_knows_the_families_that_need_no_target():
    registered = {k for k, m in MODELS.items() if m.tasks == ("unsupervised",)}
    assert registered == set(UNSUPERVISED) == {*PARAMS, "umap"}
    assert all("unsupervised" not in MODELS[k].tasks for k in set(MODELS) - registered)


@pytest.mark.parametrize("kind", [*PARAMS, "umap"])
class TestEveryFamily:
    def test_what_is_found_has_the_promised_columns(self, kind):
        x = rows()
        found = made(kind, x).predict(x)
        model = made(kind, x)
        assert found.dtype == np.float64 and found.shape == (600, len(model.outputs))
        assert np.isfinite(found).all()
        finds = MODELS[kind].finds
        assert finds == model.finds
        if finds == "clusters":
            assert model.outputs == ("cluster", "distance")
            assert (found[:, 0] == np.floor(found[:, 0])).all() and (found[:, 1] >= 0).all()
            sizes = np.bincount(found[found[:, 0] >= 0, 0].astype(int))
            assert (np.diff(sizes) <= 0).all()  # cluster 0 is the largest
        elif finds == "anomalies":
            assert model.outputs == ("anomaly_score", "is_anomaly")
            assert ((found[:, 0] > 0) & (found[:, 0] < 1)).all()
            assert set(found[:, 1]) == {0.0, 1.0}
        else:
            assert model.outputs == tuple(f"component_{i}" for i in range(found.shape[1]))

    def test_a_model_survives_the_bundle_to_the_last_bit(self, kind):
        model, new = made(kind, rows()), rows(200, seed=9)
        arrays: dict[str, np.ndarray] = {}
        text = json.dumps(pack(packed(model), arrays))
        again = restored(unpack(json.loads(text), read_arrays(write_arrays(arrays), 1 << 26)))
        np.testing.assert_array_equal(again.predict(new), model.predict(new))
        assert (again.outputs, again.kind) == (model.outputs, kind)

    def test_a_row_is_scored_alone_as_in_company(self, kind):
        model, new = made(kind, rows()), rows(300, seed=5)
        whole = model.predict(new)
        for step in (1, 7, 128):
            parts = [model.predict(new[i : i + step]) for i in range(0, 60 if step == 1 else 300,
                                                                     step)]
            found = np.concatenate(parts)
            np.testing.assert_array_equal(found, whole[: len(found)])
        assert model.predict(new[:0]).shape == (0, whole.shape[1])


@each_kind
def test_chunks_do_not_matter_and_training_twice_gives_the_same_model(kind):
    x, new = rows(), rows(100, seed=4)
    scores = [fit(kind, x, chunks=c).predict(new) for c in (1, 1, 4, 37)]
    for other in scores[1:]:
        np.testing.assert_array_equal(other, scores[0])


@each_kind
def test_the_number_of_threads_does_not_matter(kind):
    x, new = rows(), rows(100, seed=4)
    model = model_of(kind, PARAMS[kind])
    one, two = (model.fit(matrix(x), None, TARGET, Training(3, threads)).predict(new)
                for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


@each_kind
def test_missing_values_and_codes_are_refused_by_name(kind):
    x = rows()
    x[7, 2] = np.nan
    with pytest.raises(DataError, match="missing values, found in y"):
        fit(kind, x)
    coded = Matrix((rows(),), np.zeros(600, np.int8), None, NAMES, (False, False, False, True))
    with pytest.raises(DataError, match="category codes: z"):
        model_of(kind, PARAMS[kind]).fit(coded, None, TARGET, Training())


@pytest.mark.parametrize("kind", [k for k in PARAMS if k not in ("kmeans", "dbscan")])
def test_weights_are_refused_where_they_have_no_meaning(kind):
    with pytest.raises(ConfigError, match=f"model '{kind}' takes no weights"):
        fit(kind, rows(), weight=np.ones(600))


@pytest.mark.parametrize("kind", UNSUPERVISED)
def test_a_misspelt_parameter_meets_the_nearest_one(kind):
    name = {"kmeans": "n_clusters", "dbscan": "eps", "hdbscan": "min_samples", "umap": "min_dist",
            "isolation_forest": "contamination"}.get(kind, "n_components")
    with pytest.raises(ConfigError) as error:
        model_of(kind, {name + "x": 1})
    assert error.value.hint == f"did you mean {name!r}?"


# The nearest of some points -------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 40), st.integers(1, 6),
       st.sampled_from([0.0, 1e4, 1e8]), st.sampled_from([1, 10, 1000]))
def test_the_nearest_are_those_of_plain_sums_ties_to_the_lower_index(seed, n, m, p, far, grain):
    rng = np.random.default_rng(seed)
    x = (rng.integers(-grain, grain + 1, (n, p)) / 8 + far)
    points = (rng.integers(-grain, grain + 1, (m, p)) / 8 + far)
    apart = squared_distances(x, points)
    np.testing.assert_allclose(apart, ((x[:, None] - points) ** 2).sum(axis=2), rtol=1e-12)
    k = int(rng.integers(1, m + 1))
    order = np.argsort(apart, axis=1, kind="stable")[:, :k]
    index, squares = nearest(x, points, k)
    np.testing.assert_array_equal(index, order)
    np.testing.assert_array_equal(squares, np.take_along_axis(apart, order, axis=1))
    np.testing.assert_array_equal(assign(x, points), apart.argmin(axis=1))


def test_neighbours_are_scikit_learns():
    x, new = rows().astype(float), rows(80, seed=3).astype(float)
    apart, index = NearestNeighbors(n_neighbors=7).fit(x).kneighbors(new)
    found, squares = nearest(new, x, 7)
    np.testing.assert_array_equal(found, index)
    np.testing.assert_allclose(np.sqrt(squares), apart, rtol=1e-12)
    np.testing.assert_array_equal(within(new, x, 1.0), [
        len(r) for r in NearestNeighbors(radius=1.0).fit(x).radius_neighbors(new)[1]])


# Exact sums -----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 50), st.integers(1, 4), st.integers(1, 9))
def test_sums_are_the_same_for_any_order_and_chunks(seed, n, p, chunks):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, p)) * 10.0 ** rng.integers(-6, 6, p)).astype(np.float32).astype(float)
    one = Gram.of(lambda: [x])
    shuffled = rng.permutation(x)
    other = Gram.of(lambda: np.array_split(shuffled, chunks))
    assert one.rows == other.rows
    np.testing.assert_array_equal(one.mean(), other.mean())
    np.testing.assert_array_equal(one.covariance(1), other.covariance(1))
    np.testing.assert_allclose(one.mean(), x.mean(axis=0), rtol=1e-9, atol=1e-12 * np.abs(x).max())
    size = np.sqrt(np.outer(x.var(axis=0), x.var(axis=0)))
    np.testing.assert_allclose(one.covariance(0), np.atleast_2d(np.cov(x.T, ddof=0)),
                               rtol=1e-9, atol=1e-9 * size.max())
    np.testing.assert_allclose(one.products(), x.T @ x, rtol=1e-9, atol=1e-9 * (x.T @ x).max())


def test_sums_keep_what_lies_far_from_zero():
    x = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32).astype(float) + 2.0**18
    np.testing.assert_allclose(Gram.of(lambda: [x]).covariance(1), np.cov(x.T), rtol=1e-6,
                               atol=1e-6)


# Components -----------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"n_components": 2}, {"n_components": 0.9},
                                    {"n_components": 3, "whiten": True}], ids=str)
def test_pca_equals_scikit_learns(params):
    x, new = rows(), rows(100, seed=8).astype(float)
    model = fit("pca", x, **params)
    reference = decomposition.PCA(svd_solver="full", **params).fit(x.astype(float))
    expected = reference.transform(new)
    np.testing.assert_allclose(model.predict(new.astype(np.float32)), expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(model.axes, reference.components_, rtol=0, atol=1e-10)
    for name in ("explained_variance", "explained_variance_ratio", "singular_values"):
        np.testing.assert_allclose(getattr(model, name), getattr(reference, name + "_"), rtol=1e-9)
    np.testing.assert_allclose(model.inverse(expected), reference.inverse_transform(expected),
                               rtol=0, atol=1e-9)


def test_truncated_svd_equals_scikit_learns():
    x, new = rows() + 3, rows(100, seed=8) + 3
    model = fit("truncated_svd", x)
    reference = decomposition.TruncatedSVD(3, algorithm="arpack", random_state=0).fit(
        x.astype(float))
    np.testing.assert_allclose(model.predict(new), reference.transform(new.astype(float)), rtol=0,
                               atol=1e-7)
    for name in ("explained_variance", "explained_variance_ratio", "singular_values"):
        np.testing.assert_allclose(getattr(model, name), getattr(reference, name + "_"), rtol=1e-9)


@pytest.mark.parametrize("kind", ["pca", "truncated_svd"])
@pytest.mark.parametrize("wanted", [0, 5, True, "mle"])
def test_a_number_of_components_that_cannot_be_is_refused(kind, wanted):
    with pytest.raises(ConfigError, match=r"n_components is .*expected a whole number from 1 to 4"):
        fit(kind, rows(), n_components=wanted)


# k-means --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_kmeans_equals_scikit_learns_from_the_same_centres(weighted):
    x = rows(2000)
    weight = np.random.default_rng(1).uniform(0, 3, 2000) if weighted else None
    model = fit("kmeans", x, weight=weight, n_clusters=5, init=x[:5].tolist(), tol=0.0)
    reference = cluster.KMeans(5, init=x[:5].astype(float), n_init=1, tol=0.0).fit(
        x.astype(float), sample_weight=weight)
    np.testing.assert_allclose(model.centres, reference.cluster_centers_, rtol=0, atol=1e-10)
    found = model.predict(x)
    np.testing.assert_array_equal(found[:, 0], reference.labels_)
    np.testing.assert_allclose(found[:, 1], reference.transform(x.astype(float)).min(axis=1),
                               rtol=0, atol=1e-9)


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_kmeans_finds_clusters_as_good_as_scikit_learns(init):
    x, seeds = rows(800), range(4)
    losses = []
    for seed in seeds:
        model = model_of("kmeans", {"n_clusters": 6, "init": init, "n_init": 2})
        found = model.fit(matrix(x), None, TARGET, Training(seed=seed)).predict(x)
        losses.append((found[:, 1] ** 2).sum())
    reference = [cluster.KMeans(6, init=init, n_init=2, random_state=s).fit(x).inertia_
                 for s in seeds]
    assert min(losses) <= min(reference) * 1.01


def test_kmeans_goes_over_all_rows_from_a_sample_of_them(monkeypatch):
    x = rows(3000)
    monkeypatch.setattr("gpupipe.models.kmeans.SAMPLE_ROWS", 400)
    model = fit("kmeans", x, tol=0.0)
    np.testing.assert_array_equal(fit("kmeans", x, chunks=11, tol=0.0).centres, model.centres)
    monkeypatch.undo()
    again = fit("kmeans", x, init=model.centres.tolist(), max_iter=1)
    np.testing.assert_allclose(again.centres, model.centres, rtol=0, atol=1e-9)  # a fixed point


def test_kmeans_begins_an_empty_cluster_anew_at_the_farthest_row():
    x = rows(300)
    far = np.full((1, 4), 1e3)
    model = fit("kmeans", x, n_clusters=3, init=[*x[:2].tolist(), *far.tolist()])
    assert len(np.unique(model.predict(x)[:, 0])) == 3


def test_a_weight_is_as_many_rows_for_kmeans_and_dbscan():
    x = rows(400)
    weight = np.random.default_rng(2).integers(1, 4, 400)
    many = np.repeat(x, weight, axis=0)
    new = rows(100, seed=6)
    init = x[:4].tolist()
    np.testing.assert_allclose(
        fit("kmeans", x, weight=weight.astype(float), init=init).predict(new),
        fit("kmeans", many, init=init).predict(new), rtol=0, atol=1e-9)
    one, other = (fit("dbscan", x, weight=weight.astype(float)).predict(new),
                  fit("dbscan", many).predict(new))
    np.testing.assert_array_equal(one[:, 0] >= 0, other[:, 0] >= 0)
    np.testing.assert_array_equal(one[:, 1], other[:, 1])


@pytest.mark.parametrize(("params", "match"), [
    ({"n_clusters": 0}, "n_clusters is 0"), ({"init": "kmeans"}, "init is 'kmeans'"),
    ({"init": [[0.0, 1.0]]}, "n_clusters x features"),
])
def test_kmeans_refuses_what_cannot_be(params, match):
    with pytest.raises(ConfigError, match=match):
        fit("kmeans", rows(), **params)


def test_kmeans_says_that_there_are_too_few_rows():
    with pytest.raises(DataError, match="fewer than 4 distinct rows"):
        fit("kmeans", np.repeat(rows(3), 50, axis=0))


# Density --------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"eps": 1.5, "min_samples": 12}], ids=str)
def test_dbscan_gives_training_rows_what_training_gave_them(params):
    x = rows()
    reference = cluster.DBSCAN(**{**PARAMS["dbscan"], **params}).fit(x.astype(float))
    found = fit("dbscan", x, **params).predict(x)[:, 0]
    np.testing.assert_array_equal(found < 0, reference.labels_ < 0)
    core = reference.core_sample_indices_
    assert adjusted_rand_score(found[core], reference.labels_[core]) == 1.0


def test_dbscan_gives_new_rows_the_nearest_core_samples_cluster_within_eps():
    x, new = rows(), rows(300, seed=7)
    model = fit("dbscan", x)
    reference = cluster.DBSCAN(eps=0.9).fit(x.astype(float))
    core = reference.core_sample_indices_
    apart, index = NearestNeighbors(n_neighbors=1).fit(x[core].astype(float)).kneighbors(
        new.astype(float))
    found = model.predict(new)
    np.testing.assert_allclose(found[:, 1], apart[:, 0], rtol=1e-12)
    np.testing.assert_array_equal(found[:, 0] >= 0, apart[:, 0] <= 0.9)
    near = apart[:, 0] <= 0.9
    assert 20 < near.sum() < 290
    assert adjusted_rand_score(found[near, 0], reference.labels_[core][index[near, 0]]) == 1.0


def test_dbscan_says_how_far_neighbours_are_where_there_is_no_core_sample():
    with pytest.raises(DataError, match="no core sample") as error:
        fit("dbscan", rows(), eps=1e-6)
    assert "half of the rows have so many within" in str(error.value.hint)


def test_dbscan_is_refused_where_all_neighbours_would_not_fit(monkeypatch):
    monkeypatch.setattr("gpupipe.models.density.memory_limit", lambda: 10_000)
    with pytest.raises(EnvironmentFault, match="GiB of neighbours"):
        fit("dbscan", rows(), eps=50.0)


@pytest.mark.parametrize("params", [
    {}, {"min_cluster_size": 10, "min_samples": 3}, {"cluster_selection_method": "leaf"},
    {"cluster_selection_epsilon": 1.0}, {"min_cluster_size": 300, "allow_single_cluster": True},
], ids=str)
def test_hdbscan_gives_training_rows_what_training_gave_them(params):
    x = rows()
    reference = cluster.HDBSCAN(**{**PARAMS["hdbscan"], **params}, copy=True).fit(x.astype(float))
    found = fit("hdbscan", x, **params).predict(x)[:, 0]
    np.testing.assert_array_equal(found < 0, reference.labels_ < 0)
    assert adjusted_rand_score(found, reference.labels_) == 1.0


def test_hdbscan_places_new_rows_by_mutual_reachability():
    x, new = rows().astype(float), rows(200, seed=7).astype(float)
    model = fit("hdbscan", x.astype(np.float32))
    found = model.predict(new.astype(np.float32))
    apart = np.sqrt(((new[:, None] - x) ** 2).sum(axis=2))
    own = np.sort(apart, axis=1)[:, model.min_samples - 1]
    reach = np.maximum(np.maximum(own[:, None], model.core), apart)
    np.testing.assert_allclose(found[:, 1], reach.min(axis=1), rtol=1e-12)
    for row, (cluster_found, _) in enumerate(found):
        label = model.label[reach[row] == reach[row].min()]
        birth = np.where(label >= 0, model.birth[label], -np.inf)
        expected = np.where(reach[row].min() <= birth, label, -1)
        assert cluster_found in expected
    assert 0 < (found[:, 0] < 0).sum() < 200


def test_a_cluster_is_born_where_it_joins_others():
    # 0-1 at 1, 2-3 at 2, both at 5; 4 (noise) joins at 9.
    merges = (np.array([0, 2, 5, 7]), np.array([1, 3, 6, 4]), np.array([1.0, 2.0, 5.0, 9.0]))
    np.testing.assert_array_equal(born(merges, np.array([0, 0, 1, 1, -1])), [5.0, 5.0])
    np.testing.assert_array_equal(born(merges, np.array([0, 0, 0, 0, -1])), [9.0])
    np.testing.assert_array_equal(born(merges, np.array([0, 0, 0, 0, 0])), [np.inf])


def test_hdbscan_says_that_there_is_no_cluster():
    with pytest.raises(DataError, match="no cluster of 500 rows"):
        fit("hdbscan", rows(), min_cluster_size=500)


# Isolation forest -----------------------------------------------------------------------------


@pytest.mark.parametrize("params", [
    {"contamination": "auto"}, {}, {"max_features": 0.5, "max_samples": 64, "bootstrap": True},
    {"max_samples": 600},
], ids=str)
def test_an_isolation_forest_equals_scikit_learns(params):
    x, new = rows(), rows(200, seed=2)
    reference = ensemble.IsolationForest(**{**PARAMS["isolation_forest"], **params},
                                         random_state=3).fit(x)
    found = fit("isolation_forest", x, **params).predict(new)
    np.testing.assert_allclose(found[:, 0], -reference.score_samples(new), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(found[:, 1] > 0, reference.predict(new) == -1)


def test_the_path_length_is_that_of_the_paper():
    assert path_length(np.array([1]))[0] == 0 and path_length(np.array([2]))[0] == 1
    harmonic = sum(1 / i for i in range(1, 256))
    assert path_length(np.array([256]))[0] == pytest.approx(2 * harmonic - 2 * 255 / 256, abs=5e-3)


@pytest.mark.parametrize("share", [0.0, 0.6, 1, "some"])
def test_a_share_of_anomalies_that_cannot_be_is_refused(share):
    with pytest.raises(ConfigError, match="contamination is"):
        model_of("isolation_forest", {"contamination": share})


# UMAP -----------------------------------------------------------------------------------------


def test_umap_names_the_extra_that_it_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(EnvironmentFault, match="needs umap-learn") as error:
        fit("umap", rows())
    assert error.value.hint == "pip install 'gpupipe[umap]'"


def test_umaps_strengths_add_up_to_log2_of_the_neighbours():
    apart = np.sort(np.abs(np.random.default_rng(0).normal(size=(50, 15))), axis=1)
    found = strengths(apart)
    np.testing.assert_allclose(found.sum(axis=1), np.log2(15), rtol=1e-9)
    assert (found[:, 0] == 1).all() and (np.diff(found, axis=1) <= 0).all()
    np.testing.assert_array_equal(strengths(np.ones((2, 4))), 1.0)


def test_umap_puts_a_training_row_where_it_was_and_a_new_one_among_its_neighbours():
    x, new = rows(), rows(100, seed=3)
    model = umap_of(x)
    np.testing.assert_array_equal(model.predict(x), x[:, :2])
    index, _ = nearest(new.astype(float), x.astype(float), 10)
    near = x[index][:, :, :2]
    found = model.predict(new)
    assert ((found >= near.min(axis=1)) & (found <= near.max(axis=1))).all()


def test_umap_learn_itself():
    pytest.importorskip("umap")
    x = rows(300)
    one, two = (fit("umap", x, n_epochs=50) for _ in range(2))
    np.testing.assert_array_equal(one.places, two.places)
    np.testing.assert_array_equal(one.predict(x), one.places.astype(float))


# Without the libraries ------------------------------------------------------------------------


def test_every_family_scores_in_a_process_without_scikit_learn(tmp_path):
    x, new = rows(), rows(50, seed=4)
    np.save(tmp_path / "new.npy", new)
    for kind in (*PARAMS, "umap"):
        arrays: dict[str, np.ndarray] = {}
        text = json.dumps(pack(packed(made(kind, x)), arrays))
        (tmp_path / f"{kind}.json").write_text(text)
        (tmp_path / f"{kind}.npz").write_bytes(write_arrays(arrays))
        np.save(tmp_path / f"{kind}.npy", made(kind, x).predict(new))
    code = (
        "import sys\n"
        "for name in ('sklearn', 'scipy', 'umap', 'xgboost'): sys.modules[name] = None\n"
        "import json, numpy as np\nfrom pathlib import Path\n"
        "from gpupipe.codec import read_arrays, unpack\nfrom gpupipe.models import restored\n"
        "folder = Path(sys.argv[1]); new = np.load(folder / 'new.npy')\n"
        "for file in sorted(folder.glob('*.json')):\n"
        "    arrays = read_arrays(file.with_suffix('.npz').read_bytes(), 1 << 26)\n"
        "    found = restored(unpack(json.loads(file.read_text()), arrays)).predict(new)\n"
        "    assert (found == np.load(file.with_suffix('.npy'))).all(), file\n"
        "    print(file.stem)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True,
                          text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted([*PARAMS, "umap"])
