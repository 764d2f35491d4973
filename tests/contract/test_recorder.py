"""The pipeline on `CudfFrames`, with stand-ins for RAPIDS: it never leaves the device unasked,
and what it learns is what `PandasFrames` learns, to the last bit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from common.test_every_step import EXAMPLES
from contract import cupy_standin
from contract.machine import standing_in
from contract.pipeline import MODELS, judged_on, learn_everything, predictions, train_on
from contract.record import HostCopy, Record, Use

from gpupipe.data.batches import read_by_host
from gpupipe.engine.cudf import CudfFrames
from gpupipe.engine.memory import Memory
from gpupipe.engine.pandas import PandasFrames
from gpupipe.errors import EnvironmentFault


def test_every_step_learns_the_same_to_the_last_bit():
    expected = learn_everything(PandasFrames())
    with standing_in() as record:
        found = learn_everything(CudfFrames())
    found.assert_equal(expected)
    assert set(EXAMPLES) <= {label.split()[0] for label in found.params}
    assert Use("cupy", "bincount", 1, ("minlength",)) in record.uses


def test_columns_that_stay_on_the_device_share_a_dictionary_there():
    text = ["one_hot", "count", "target_encode", "impute text then one_hot"]
    expected = learn_everything(PandasFrames(), text, kept=True)
    with standing_in():
        learn_everything(CudfFrames(), text, kept=True).assert_equal(expected)


@pytest.mark.parametrize(("task", "model"), [
    ("binary", "xgboost"), ("multiclass", "xgboost"), ("regression", "xgboost"),
    ("binary", "linear"), ("regression", "net"), ("regression", "constant"),
    ("regression", "lasso"), ("multiclass", "neighbours"), ("regression", "neighbours"),
    ("binary", "svm"), ("multiclass", "svm"), ("regression", "poly"), ("multiclass", "linear svm"),
    ("binary", "gaussian"), ("multiclass", "bernoulli"),
])
def test_a_model_is_trained_and_judged_without_a_copy_to_the_host(task, model, tmp_path):
    expected = train_on(PandasFrames(), tmp_path, task, MODELS[model])
    with standing_in() as record:
        found = train_on(CudfFrames(), tmp_path, task, MODELS[model])
    assert Use("cudf", "read_parquet", 1, ("columns", "dataset_kwargs", "row_groups",
                                           "use_pandas_metadata")) in record.uses
    assert found.fingerprint == expected.fingerprint
    np.testing.assert_allclose(predictions(found), predictions(expected), rtol=1e-6, atol=1e-9)
    assert np.isfinite(predictions(found)).all()


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_a_forest_is_trained_there_and_scored_anywhere(task, tmp_path):
    """Missing values go another way there: the predictions are alike, and not the same."""
    expected = train_on(PandasFrames(), tmp_path, task, MODELS["forest"])
    with standing_in():
        found = train_on(CudfFrames(), tmp_path, task, MODELS["forest"])
    assert found.fingerprint == expected.fingerprint
    assert np.corrcoef(predictions(found).ravel(), predictions(expected).ravel())[0, 1] > 0.8


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_predictions_are_judged_where_they_lie(task, weighted):
    expected = judged_on(PandasFrames(), task, weighted)
    with standing_in(models=False):
        assert judged_on(CudfFrames(), task, weighted) == expected


def test_a_matrix_that_does_not_fit_is_streamed_to_pages(tmp_path):
    with standing_in() as record:
        found = train_on(CudfFrames(), tmp_path, "binary", MODELS["xgboost"],
                         memory=Memory(240 << 20, 1, 64))
    assert found.layout.bins == "disk"
    assert any(use.owner == "xgboost.ExtMemQuantileDMatrix" for use in record.uses)


def test_what_the_host_has_to_read_is_said(tmp_path):
    with standing_in():
        trained = train_on(CudfFrames(), tmp_path, "binary", MODELS["constant"])
    assert read_by_host(trained.dataset, trained.dataset.schema.names) == {}
    assert not [n for n in trained.notes if "read by the host" in n]


def test_frames_are_made_anew_in_another_process():
    with standing_in():
        again = pickle.loads(pickle.dumps(CudfFrames()))
        assert again.device == "cuda"
        assert MemoryError in again.out_of_memory


def test_without_a_device_there_is_no_such_frame_layer(monkeypatch):
    monkeypatch.setattr("gpupipe.engine.cudf.cuda_devices", lambda: 0)
    with pytest.raises(EnvironmentFault, match="no CUDA device"):
        CudfFrames()


class TestTheStandInRefuses:
    """What CuPy refuses, and what it does in silence."""

    cupy = cupy_standin.make(Record())
    array = cupy.arange(6)

    @pytest.mark.parametrize("misuse", [
        lambda a, xp: np.asarray(a), lambda a, xp: np.concatenate([a, np.arange(2)]),
        lambda a, xp: a + np.arange(6), lambda a, xp: a[np.arange(2)],
        lambda a, xp: xp.where(np.arange(6) > 2, a, 0), lambda a, xp: a.tolist(),
        lambda a, xp: list(a), lambda a, xp: a.view("datetime64[us]"),
        lambda a, xp: a.astype("int8") > 2**40, lambda a, xp: xp.searchsorted(a, np.int64(2)),
        lambda a, xp: a.get(), lambda a, xp: np.add.reduce(a),
    ])
    def test_it(self, misuse):
        misuse = type(misuse)(misuse.__code__, {"np": np, "__name__": "gpupipe.steps.somewhere",
                                                "__builtins__": __builtins__})
        with pytest.raises((HostCopy, TypeError, OverflowError, NotImplementedError)):
            misuse(self.array, self.cupy)
