"""Numeric steps give what scikit-learn and NumPy give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from common.harness import BINARY, Sample, learned, make, values_of
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import KBinsDiscretizer, MinMaxScaler, RobustScaler, StandardScaler

from gpupipe.errors import ConfigError, DataError
from gpupipe.stats import tables
from gpupipe.steps import Feature, numeric
from gpupipe.steps.graph import bind
from gpupipe.steps.scan import View, learn


def sample_of(table: pa.Table, buckets: int = 1) -> Sample:
    n = table.num_rows
    bucket = np.random.default_rng(0).integers(0, buckets, n).astype(np.uint8)
    return Sample(table, np.zeros(n, np.int64), bucket, buckets)


@pytest.fixture(scope="module", params=["random", "housing", "diamonds"])
def numbers(request) -> Sample:
    """Float columns with missing values."""
    if request.param == "random":
        rng = np.random.default_rng(5)
        frame = pd.DataFrame({
            "normal": rng.normal(1e6, 1, 3000), "skewed": rng.lognormal(0, 3, 3000),
            "few": rng.integers(0, 5, 3000).astype(float), "same": np.full(3000, 7.5),
        })
        frame = frame.mask(rng.random(frame.shape) < 0.1)
    else:
        path = next((request.getfixturevalue("shared_data") / request.param).glob("*.csv"))
        frame = pd.read_csv(path).select_dtypes("number").astype(float)[:10_000]
    return sample_of(pa.Table.from_pandas(frame, preserve_index=False), buckets=3)


def columns_of(sample: Sample, index: np.ndarray | None = None) -> np.ndarray:
    matrix = sample.table.to_pandas().to_numpy(float)
    return matrix if index is None else matrix[index]


def ours(sample: Sample, name: str, train=(0, 1), **config) -> tuple[np.ndarray, np.ndarray]:
    """Our transform of all rows as a matrix, and which rows were learned from."""
    names = sample.table.column_names
    graph, fitted, _ = learned(sample, [make(name, columns=names, **config)], train=train,
                               part_rows=1000, batch_rows=700)
    out = values_of(graph, fitted, sample.table)
    return np.column_stack(list(out.values())), np.isin(sample.bucket, train)


@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent", "constant"])
def test_impute_equals_simple_imputer(numbers, strategy):
    fill = {"fill_value": -9.5} if strategy == "constant" else {}
    found, train = ours(numbers, "impute", strategy=strategy, **fill)
    x = columns_of(numbers)
    expected = SimpleImputer(strategy=strategy, **fill).fit(x[train]).transform(x)
    if strategy == "mean":
        np.testing.assert_allclose(found, expected, rtol=1e-13)
    else:
        np.testing.assert_array_equal(found, expected)


def test_impute_with_indicator_equals_simple_imputers_indicator(numbers):
    names = numbers.table.column_names
    step = make("impute", columns=names, indicator=True)
    graph, fitted, _ = learned(numbers, [step], part_rows=5000, batch_rows=5000)
    out = values_of(graph, fitted, numbers.table)
    x = columns_of(numbers)
    for i, name in enumerate(names):
        np.testing.assert_array_equal(out[f"{name}_missing"], np.isnan(x[:, i]).astype(float))


@pytest.mark.parametrize("strategy", ["most_frequent", "constant"])
def test_impute_of_text_equals_simple_imputer(strategy, shared_data):
    frame = pd.read_csv(shared_data / "taxis" / "taxis.csv").select_dtypes(exclude="number")
    frame = frame[["payment", "pickup_zone", "dropoff_borough"]].astype(object)
    frame = frame.where(frame.notna(), None)
    sample = sample_of(pa.Table.from_pandas(frame, preserve_index=False))
    fill = {"fill_value": "?"} if strategy == "constant" else {}
    step = make("impute", columns="categorical", strategy=strategy, **fill)
    graph, fitted, _ = learned(sample, [step], part_rows=500)
    out = values_of(graph, fitted, sample.table)
    imputer = SimpleImputer(strategy=strategy, missing_values=None, **fill)
    expected = imputer.fit_transform(frame.to_numpy())
    for i, name in enumerate(frame):
        assert out[name].tolist() == expected[:, i].tolist()


def test_counts_survive_a_text_imputation_over_many_batches():
    words = ["b", "b", None, "a", "b", None, "c", "b"] * 30
    sample = sample_of(pa.table({"s": words}))
    chain = [make("impute", columns="s", strategy="most_frequent"), make("count", columns="s")]
    graph, fitted, _ = learned(sample, chain, part_rows=7, batch_rows=3)
    assert values_of(graph, fitted, sample.table)["s"][:4].tolist() == [180, 180, 180, 30]


@pytest.mark.parametrize("values", [[np.inf, np.inf, np.inf, 1.0, 2.0, 1.0], [1.0, -np.inf, 1.0]])
@pytest.mark.parametrize("strategy", ["mean", "median", "most_frequent"])
def test_an_infinity_is_treated_as_missing_and_never_imputed(values, strategy):
    sample = sample_of(pa.table({"x": values}))
    graph, fitted, _ = learned(sample, [make("impute", strategy=strategy)])
    out = values_of(graph, fitted, sample.table)["x"]
    finite = [v for v in values if np.isfinite(v)]
    fill = {"mean": np.mean, "median": np.median, "most_frequent": lambda v: 1.0}[strategy](finite)
    assert out.tolist() == [v if np.isfinite(v) else fill for v in values]


@pytest.mark.parametrize(("dtype", "fill"), [("string", 3.0), ("float64", "x"), ("int64", "0")])
def test_a_fill_value_of_the_wrong_type_is_refused(dtype, fill):
    step = make("impute", columns=["c"], strategy="constant", fill_value=fill)
    with pytest.raises(ConfigError, match=rf"cannot fill {dtype} column 'c'"):
        bind([Feature("c", dtype)], [step], BINARY)


def test_the_mean_of_text_is_refused():
    with pytest.raises(ConfigError, match="the mean of text column 'c'"):
        bind([Feature("c", "string")], [make("impute", columns="c", strategy="mean")], BINARY)


def test_most_frequent_of_a_column_without_end_says_so_instead_of_guessing(monkeypatch):
    statistic = tables.Vocabulary(5)
    monkeypatch.setattr(numeric, "Vocabulary", lambda: statistic)
    monkeypatch.setattr("gpupipe.steps.base.Vocabulary", lambda: statistic)
    sample = sample_of(pa.table({"x": np.arange(10.0)}))
    with pytest.raises(DataError, match="distinct values"):
        learned(sample, [make("impute", strategy="most_frequent")])


@pytest.mark.parametrize(("method", "scaler"), [
    ("standard", StandardScaler()), ("min_max", MinMaxScaler()), ("robust", RobustScaler()),
])
def test_scale_equals_scikit_learns_scaler(numbers, method, scaler):
    found, train = ours(numbers, "scale", method=method)
    x = columns_of(numbers)
    expected = scaler.fit(x[train]).transform(x)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("magnitude", [1e-200, 1e-5, 1.0, 1e200])
def test_scale_works_at_any_magnitude(magnitude):
    x = np.random.default_rng(0).normal(size=500) * magnitude
    sample = sample_of(pa.table({"x": x}))
    graph, fitted, _ = learned(sample, [make("scale")])
    out = values_of(graph, fitted, sample.table)["x"]
    np.testing.assert_allclose([out.mean(), out.std()], [0, 1], atol=1e-12)


@pytest.mark.parametrize(("lower", "upper"), [(0.01, 0.99), (None, 0.5), (0.25, None), (0, 1)])
def test_clip_limits_to_numpys_quantiles_of_the_training_rows(numbers, lower, upper):
    found, train = ours(numbers, "clip", lower=lower, upper=upper)
    x = columns_of(numbers)
    for i in range(x.shape[1]):
        bounds = [None if q is None else np.nanquantile(x[train, i], q) for q in (lower, upper)]
        np.testing.assert_array_equal(found[:, i], np.clip(x[:, i], *bounds))


def test_clip_by_value_limits_to_the_values():
    sample = sample_of(pa.table({"x": [-5.0, None, 0.5, 9.0]}))
    graph, fitted, knowledge = learned(sample, [make("clip", by="value", lower=-1, upper=1)])
    np.testing.assert_array_equal(values_of(graph, fitted, sample.table)["x"],
                                  [-1, np.nan, 0.5, 1])
    assert knowledge.scans == []


def test_log_is_log1p_and_its_mirror_image(numbers):
    found, _ = ours(numbers, "log")
    x = columns_of(numbers)
    np.testing.assert_allclose(found, np.copysign(np.log1p(abs(x)), x), rtol=1e-15)


@pytest.mark.parametrize("bins", [2, 5, 10])
@pytest.mark.parametrize("strategy", ["quantile", "uniform"])
@pytest.mark.filterwarnings("ignore:Bins whose width:UserWarning")
@pytest.mark.filterwarnings("ignore:Feature .* is constant:UserWarning")
def test_bin_equals_k_bins_discretizer(numbers, strategy, bins):
    found, train = ours(numbers, "bin", strategy=strategy, bins=bins)
    x = columns_of(numbers)
    for i in range(x.shape[1]):
        here = ~np.isnan(x[:, i])
        extra = {"quantile_method": "linear"} if strategy == "quantile" else {}
        binner = KBinsDiscretizer(bins, encode="ordinal", strategy=strategy, subsample=None,
                                  **extra).fit(x[train & here, i : i + 1])
        edges = binner.bin_edges_[0][1:-1]
        expected = binner.transform(x[here, i : i + 1])[:, 0]
        # scikit-learn's quantiles go by percent and may be an ulp off; only values that lie on
        # an edge can tell.
        on_edge = np.isclose(x[here, i][:, None], edges[None, :], rtol=1e-12).any(axis=1)
        np.testing.assert_array_equal(found[here, i][~on_edge], expected[~on_edge])
        assert np.isnan(found[~here, i]).all()


def test_bin_cuts_exactly_at_numpys_quantiles(numbers):
    found, train = ours(numbers, "bin", bins=10)
    x = columns_of(numbers)
    for i in range(x.shape[1]):
        edges = np.unique(np.nanquantile(x[train, i], np.linspace(0, 1, 11)))[1:-1]
        expected = np.searchsorted(edges, x[:, i], side="right").astype(float)
        np.testing.assert_array_equal(found[:, i], np.where(np.isnan(x[:, i]), np.nan, expected))


def test_quantiles_are_exact_even_where_the_training_rows_are_unlike_the_rest():
    """A window sized for random folds is too narrow here; a further look finds the answer."""
    x = np.sort(np.random.default_rng(0).lognormal(0, 4, 20_000))
    bucket = (np.arange(20_000) // 5_000).astype(np.uint8)
    sample = Sample(pa.table({"x": x}), np.zeros(20_000, np.int64), bucket, 4)
    graph = bind(sample.features, [make("impute", strategy="median")], BINARY)
    views = [View("all", (0, 1, 2, 3)), View("oldest", (0,)), View("newest", (3,))]
    fitted, _ = learn([graph], views, sample.rowed(part_rows=6000, batch_rows=6000))
    for view, own in zip(views, fitted[0], strict=True):
        (params,) = own.params.values()
        assert params["fill"] == np.median(x[np.isin(bucket, view.train)])
