"""However a row reaches a bundle, it scores the same to the last bit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from common.quick import COLUMNS, FEW, settings, small_table, trained_on, write_bundle

import gpupipe
from gpupipe.bundle import scoring
from gpupipe.errors import DataError

NEW = small_table(60, seed=2).select(list(COLUMNS))
MODELS = {"xgboost": FEW, "linear": {}}


@pytest.fixture(scope="module", params=[(k, t) for k in MODELS for t in (
    "binary", "multiclass", "regression")], ids="-".join)
def bundle(request, tmp_path_factory) -> gpupipe.Bundle:
    kind, task = request.param
    folder = tmp_path_factory.mktemp("made") / "bundle"
    config = settings(task, model={"kind": kind, "params": MODELS[kind]})
    write_bundle(trained_on(small_table(), config), folder)
    return gpupipe.load(folder)


def same(bundle: gpupipe.Bundle, table: object, expected: pa.Table = NEW) -> None:
    assert bundle.features(table).tobytes() == bundle.features(expected).tobytes()
    assert bundle.scores(table).tobytes() == bundle.scores(expected).tobytes()


def test_one_record_a_list_of_records_and_a_table_agree(bundle):
    records = NEW.to_pylist()
    together = bundle.predict_records(records)
    assert together == [bundle.predict_one(r) for r in records]
    assert [r["prediction"] for r in together] == bundle.predict(NEW).tolist()
    scores = bundle.scores(NEW)
    for record, score in zip(together, scores, strict=True):
        if bundle.task == "binary":
            assert record["probability"] == score
        elif bundle.task == "multiclass":
            assert list(record["probabilities"].values()) == score.tolist()


def test_batches_of_any_size_agree(bundle, monkeypatch):
    whole = bundle.scores(NEW)
    for rows in (1, 7, 60):
        monkeypatch.setattr(scoring, "PIECE_ROWS", rows)
        assert bundle.scores(NEW).tobytes() == whole.tobytes()


ENCODED = NEW.set_column(4, "s", NEW.column("s").dictionary_encode())
LARGE = NEW.set_column(4, "s", NEW.column("s").cast(pa.large_string()))
VIEW = NEW.set_column(4, "s", NEW.column("s").cast(pa.string_view()))
NANOSECONDS = NEW.set_column(5, "t", NEW.column("t").cast(pa.timestamp("ns")))
ZONED = NEW.set_column(5, "t", NEW.column("t").cast(pa.timestamp("us", "Asia/Tokyo")))
AS_OTHERS = {
    "extra columns": NEW.append_column("more", pa.array(["x"] * 60)),
    "another order": NEW.select(list(COLUMNS)[::-1]),
    "chunks": pa.concat_tables([NEW.slice(0, 13), NEW.slice(13)]),
    "an offset": pa.concat_tables([NEW, NEW]).combine_chunks().slice(60),
    "narrow integers": NEW.set_column(2, "i", NEW.column("i").cast(pa.int8())),
    "dictionaries": ENCODED, "large strings": LARGE, "string views": VIEW,
    "nanoseconds": NANOSECONDS, "a time zone": ZONED,
    "floats for doubles": NEW.set_column(1, "narrow", NEW.column("narrow").cast(pa.float64())),
    "a record batch": NEW.combine_chunks().to_batches()[0],
    "pandas": NEW.to_pandas(),
    "nullable pandas": NEW.to_pandas().convert_dtypes(),
    "Arrow in pandas": NEW.to_pandas(types_mapper=pd.ArrowDtype),
    "categories": NEW.to_pandas().astype({"s": "category"}),
    "whole numbers as floats": NEW.set_column(2, "i", NEW.column("i").cast(pa.float64())),
    "polars": pl.from_arrow(NEW),
}


@pytest.mark.parametrize("how", AS_OTHERS)
def test_other_types_of_the_same_values_score_the_same(bundle, how):
    same(bundle, AS_OTHERS[how])


def test_all_values_missing_and_levels_never_seen_are_scored(bundle):
    empty = pa.table({n: pa.nulls(3, NEW.schema.field(n).type) for n in COLUMNS})
    assert np.isfinite(bundle.scores(empty)).all()
    same(bundle, pa.table({n: pa.nulls(3) for n in COLUMNS if n != "s"} | {
        "s": pa.nulls(3, pa.string())}), empty)
    strange = NEW.set_column(4, "s", pa.array(["never seen"] * 60))
    assert np.isfinite(bundle.scores(strange)).all()
    assert len(bundle.scores(NEW.slice(0, 0))) == 0


@pytest.mark.parametrize(("table", "words"), [
    (NEW.drop_columns(["f", "s"]), ["columns 'f', 's'"]),
    (NEW.rename_columns(["F", *COLUMNS[1:]]), ["'f'", "did you rename 'F'?"]),
    (NEW.set_column(2, "i", pa.array(["x"] * 60)), ["'i'", "int64"]),
    (NEW.set_column(2, "i", pa.array([0.5] * 60)), ["'i'", "int64"]),
    (NEW.set_column(0, "f", pa.array([[1.0]] * 60)), ["'f'", "list"]),
    (NEW.set_column(4, "s", pa.array([b"x"] * 60)), ["'s'", "binary"]),
    (NEW.set_column(5, "t", pa.array(["soon"] * 60)), ["'t'", "timestamp"]),
    ([1, 2], ["expected a table", "list"]),
])
def test_a_table_that_does_not_fit_is_one_clear_error(bundle, table, words):
    with pytest.raises(DataError) as caught:
        bundle.scores(table)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(("change", "words"), [
    ({"i": 0.5}, ["'i'", "int64"]), ({"i": "7"}, ["'i'", "int64"]), ({"s": 3}, ["'s'", "string"]),
    ({"i": 2**63}, ["'i'", "int64"]), ({"f": "x"}, ["'f'", "float64"]),
    ({"b": "yes"}, ["'b'", "bool"]), ({"f": [1.0]}, ["'f'"]), ({"t": "soon"}, ["'t'"]),
])
def test_a_record_that_does_not_fit_is_one_clear_error(bundle, change, words):
    with pytest.raises(DataError) as caught:
        bundle.predict_one({**NEW.to_pylist()[0], **change})
    assert all(word in str(caught.value) for word in words), str(caught.value)
    with pytest.raises(DataError, match="record 1 lacks column 'f'"):
        bundle.predict_records([NEW.to_pylist()[0], {"i": 1}])
