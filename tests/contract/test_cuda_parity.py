"""On a GPU: what is learned is the CPU's to the last bit, and models agree with the CPU's."""

from __future__ import annotations

import numpy as np
import pytest
from contract.pipeline import (
    MODELS,
    judged_on,
    learn_everything,
    predictions,
    state_bytes,
    train_on,
)
from contract.test_reading import BY_HOST, DIRECT, columns_of, written

from gpupipe.data.reader import Reader
from gpupipe.engine.calendar import DAY
from gpupipe.engine.cudf import CudfFrames
from gpupipe.engine.frames import CALENDAR_PARTS, Column, Frames
from gpupipe.engine.memory import Memory
from gpupipe.engine.pandas import PandasFrames
from gpupipe.models import MODELS as FAMILIES
from gpupipe.models.cuda import device_of
from gpupipe.stats.moments import CrossProducts, Moments
from gpupipe.stats.quantiles import Extremes, Histogram
from gpupipe.stats.state import Rows

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def fx() -> Frames:
    return CudfFrames()


@pytest.mark.parametrize("kept", [False, True], ids=["streamed", "kept"])
def test_states_and_params_of_every_step_are_the_cpus(fx, kept):
    learn_everything(fx, kept=kept).assert_equal(learn_everything(PandasFrames(), kept=kept))


@pytest.mark.parametrize("statistic", [Moments(squares=True), Histogram(), Extremes()], ids=repr)
def test_statistics_of_many_extreme_numbers_are_the_cpus(fx, statistic):
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 2**64, 3_000_000, dtype=np.uint64).view(np.float64)
    bucket = rng.integers(0, 5, len(bits))
    here = statistic.partial([Column("float64", bits)], Rows(bucket, 5), PandasFrames())
    there = statistic.partial([Column("float64", fx.to_device(bits))],
                              Rows(fx.to_device(bucket), 5), fx)
    assert state_bytes(there) == state_bytes(here)


def test_sums_of_products_are_the_cpus(fx):
    rng = np.random.default_rng(6)
    pair = [rng.normal(size=500_000) * 10.0 ** rng.integers(-150, 150, 500_000) for _ in "ab"]
    bucket = rng.integers(0, 3, 500_000)
    here = CrossProducts().partial([Column("float64", c) for c in pair], Rows(bucket, 3),
                                   PandasFrames())
    there = CrossProducts().partial([Column("float64", fx.to_device(c)) for c in pair],
                                    Rows(fx.to_device(bucket), 3), fx)
    assert state_bytes(there) == state_bytes(here)


@pytest.mark.parametrize("part", CALENDAR_PARTS)
def test_dates_are_pandas_dates(fx, part):
    ticks = np.arange(-800_000, 200_000) * DAY + np.arange(1_000_000) * 86_399_999
    expected = PandasFrames().calendar(Column("timestamp", ticks), part).values
    found = fx.calendar(Column("timestamp", fx.to_device(ticks)), part).values
    np.testing.assert_array_equal(fx.to_host(found), expected)


@pytest.mark.parametrize("name", [*DIRECT, *BY_HOST])
def test_a_file_holds_the_same_on_the_device(fx, name, tmp_path):
    path = written(tmp_path, {name: {**DIRECT, **BY_HOST}[name]})
    expected = columns_of(path, PandasFrames(), tmp_path / "cache")
    assert columns_of(path, fx, tmp_path / "cache")[name] == expected[name]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("model", list(MODELS))
def test_a_model_trained_there_predicts_as_one_trained_here(fx, task, model, tmp_path):
    """Trees differ between devices in their last splits. Of an elastic net scikit-learn's solver
    stops after ``max_iter`` passes over few rows, before it is as far as the other one. Forests
    draw other rows, and send missing values another way."""
    expected = train_on(PandasFrames(), tmp_path, task, MODELS[model])
    found = train_on(fx, tmp_path, task, MODELS[model])
    assert found.fingerprint == expected.fingerprint
    if model == "constant":
        np.testing.assert_array_equal(predictions(found), predictions(expected))
    else:
        least = 0.8 if model == "forest" or (model, task) == ("net", "multiclass") else 0.95
        assert np.corrcoef(predictions(found), predictions(expected))[0, 1] > least


@pytest.mark.parametrize("model", list(MODELS))
def test_its_scores_are_the_same_on_a_cpu(fx, model, tmp_path):
    """Level 2: the same model on either device, to single precision."""
    trained = train_on(fx, tmp_path, "binary", MODELS[model])
    again = FAMILIES[trained.final.kind].restore(trained.final.payload())
    chunk = np.random.default_rng(0).normal(size=(50, len(again.names) if hasattr(
        again, "names") else 3)).astype("float32")
    there = fx.to_host(trained.final.predict(fx.to_device(chunk)))
    np.testing.assert_allclose(there, again.predict(chunk), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_metrics_are_the_same_where_predictions_lie_there(fx, task):
    expected, found = judged_on(PandasFrames(), task, True), judged_on(fx, task, True)
    for name, score in expected.items():
        assert found[name]["value"] == pytest.approx(score["value"], rel=1e-9), name


def test_a_matrix_that_does_not_fit_is_trained_from_pages(fx, tmp_path):
    found = train_on(fx, tmp_path, "binary", MODELS["xgboost"], memory=Memory(240 << 20, 1, 64))
    assert found.layout.bins == "disk"
    assert found.final.device == "cuda"


def test_chunks_stay_on_the_device(fx, tmp_path):
    trained = train_on(fx, tmp_path, "binary", MODELS["xgboost"])
    reader: Reader = trained.rowed.reader
    for batch in reader.batches(0, ["f", "s"]):
        assert {device_of(column.values) for column in batch.values()} == {"cuda"}
