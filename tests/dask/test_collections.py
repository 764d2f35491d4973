"""Dask data frames are sources, and what predictions of them are."""

from __future__ import annotations

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from common.quick import settings, small_table

import gpupipe
from gpupipe import workflow


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    # Dask makes text of what pandas keeps as objects: booleans with missing values.
    return small_table(600).to_pandas().assign(b=np.arange(600) % 3 == 0)


@pytest.fixture(scope="module")
def collection(frame):
    return dd.from_pandas(frame, npartitions=4)


@pytest.fixture(autouse=True)
def threads():
    with dask.config.set(scheduler="threads"):
        yield


def test_a_run_on_a_collection_learns_what_one_on_its_rows_does(frame, collection, tmp_path):
    one = gpupipe.run(settings(), frame, runs=tmp_path / "frame")
    other = gpupipe.run(settings(), collection, runs=tmp_path / "collection")
    assert workflow.fingerprint(one.run) == workflow.fingerprint(other.run)
    again = gpupipe.run(settings(), collection, runs=tmp_path / "collection")
    assert any("used again" in note for note in again.summary["notes"])
    assert len(list((tmp_path / "collection" / ".cache").glob("collection-*"))) == 1


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_predictions_of_a_collection_are_those_of_its_rows(task, frame, collection, tmp_path):
    bundle = gpupipe.load(gpupipe.run(settings(task), frame, runs=tmp_path).bundle)
    made = bundle.predict(collection)
    assert isinstance(made, dd.Series)
    assert made.compute().tolist() == bundle.predict(frame).tolist()
    assert made.dtype == made.compute().dtype
    features = bundle.features(collection)
    np.testing.assert_array_equal(features.compute().to_numpy(), bundle.features(frame))
    if task != "regression":
        shares = bundle.predict_proba(collection).compute()
        assert list(shares.columns) == bundle.classes
        np.testing.assert_array_equal(shares.to_numpy(), bundle.predict_proba(frame))
        assert (shares.index == frame.index).all()


def test_the_estimator_takes_collections(frame, collection):
    x, y = ["f", "i", "s"], "label"
    one = gpupipe.Pipeline(model_params={"n_estimators": 5}).fit(frame[x], frame[y])
    other = gpupipe.Pipeline(model_params={"n_estimators": 5}).fit(collection[x], collection[y])
    assert (other.predict(collection[x]).compute() == one.predict(frame[x])).all()
    np.testing.assert_array_equal(other.predict_proba(collection[x]).compute().to_numpy(),
                                  one.predict_proba(frame[x]))
    np.testing.assert_array_equal(other.transform(collection[x]).compute().to_numpy(),
                                  one.transform(frame[x]))


def test_a_collection_that_fails_leaves_nothing_behind(frame, collection, tmp_path):
    broken = collection.map_partitions(lambda rows: 1 / 0, meta=collection._meta)
    with pytest.raises(ZeroDivisionError):
        gpupipe.run(settings(), broken, runs=tmp_path)
    assert not list((tmp_path / ".cache").glob(".*"))
    (tmp_path / ".cache" / ".odd.tmp").mkdir()  # whoever made it: it is not swept, nor in the way
    gpupipe.run(settings(), frame, runs=tmp_path)
    assert (tmp_path / ".cache" / ".odd.tmp").is_dir()
