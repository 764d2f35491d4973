"""A record, a list of records and a table: one answer, to the last bit, whatever the values."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from common.quick import (
    COLUMNS,
    FEW,
    MODEL_PARAMS,
    STEPS_IN_USE,
    settings,
    small_table,
    trained_on,
    write_bundle,
)
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import gpupipe
from gpupipe.bundle import scoring
from gpupipe.bundle.scoring import FEW_RECORDS
from gpupipe.bundle.tables import records_table
from gpupipe.config.unsupervised import UNSUPERVISED
from gpupipe.errors import DataError
from gpupipe.models import MODELS
from gpupipe.models.base import TASKS
from gpupipe.scorer.many import LEAST_ROWS
from gpupipe.scorer.rows import RowPath

FOLDS = {"holdout": 0.25, "folds": 2}
TREES = ("xgboost", "lightgbm", "catboost", "forest", "extra_trees")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"step {name}": ("binary", {"features": steps}) for name, steps in STEPS_IN_USE.items()},
    "step target_encode, three classes": (
        "multiclass", {"features": STEPS_IN_USE["target_encode"]}),
    **{f"{kind}, {task}": (task, {"model": {"kind": kind, "params": MODEL_PARAMS[kind]}})
       for kind in MODEL_PARAMS for task in MODELS[kind].tasks if task in TASKS},
    "depth that has no words": ("regression", {"model": {"kind": "xgboost", "params": {
        "n_estimators": 2, "max_depth": 20, "min_child_weight": 0, "reg_lambda": 0}}}),
    "dart": ("binary", {"model": {"kind": "xgboost", "params": {
        **FEW, "booster": "dart", "rate_drop": 0.5}}}),
    "codes": ("regression", {"features": [{"ordinal": {"columns": ["s", "i"]}},
                                          {"drop": {"columns": "t"}}],
                             "model": {"kind": "xgboost", "params": {
                                 **FEW, "n_estimators": 20, "max_cat_to_onehot": 1}}}),
    "poisson": ("regression", {"model": {"kind": "xgboost", "params": {
        **FEW, "objective": "reg:pseudohubererror"}}}),
    "calibrated": ("binary", {"calibrate": "isotonic", "split": FOLDS}),
    "calibrated by beta": ("binary", {"calibrate": "beta", "split": FOLDS}),
    "calibrated, three classes": ("multiclass", {"calibrate": "sigmoid", "split": FOLDS}),
    "temperature": ("multiclass", {"calibrate": "temperature", "split": FOLDS}),
    "intervals": ("regression", {"intervals": {"coverage": 0.8}, "split": FOLDS}),
    "quantiles": ("regression", {"intervals": {"coverage": 0.8, "method": "cqr"}, "split": FOLDS}),
    "sets": ("multiclass", {"intervals": {"coverage": 0.8}, "split": FOLDS}),
    "threshold": ("binary", {"decide": {"metric": "f1"}, "split": FOLDS}),
    "selected": ("regression", {"select": [{"method": "mutual_information", "k": 2}],
                                "split": FOLDS}),
    "blend": ("binary", {"ensemble": "blend", "split": FOLDS, "tune": {
        "trials": 3, "models": ["linear", "xgboost"], "sampler": "random",
        "space": {"n_estimators": 5}}}),
}
COMPILED = [name for name in CASES if name.startswith(("step", *TREES, "codes", "calibrated",
                                                       "temperature", "poisson", "intervals",
                                                       "quantiles", "sets", "threshold",
                                                       "selected"))]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, gpupipe.Bundle]:
    """Bundles by the name of their case, made when they are first asked for."""
    return {}


@pytest.fixture
def bundle(request, bundles, tmp_path_factory) -> gpupipe.Bundle:
    name = request.param
    if name not in bundles:
        task, sections = CASES[name]
        folder: Path = tmp_path_factory.mktemp("made") / "bundle"
        write_bundle(trained_on(small_table(), settings(task, **sections)), folder)
        bundles[name] = gpupipe.load(folder)
    return bundles[name]


def test_every_step_and_family_is_tried_here():
    # families that learn without a target are tried in tests/test_unsupervised.py
    assert set(MODELS) == set(MODEL_PARAMS) | set(UNSUPERVISED)


odd_numbers = st.one_of(
    st.none(), st.floats(), st.floats(width=32), st.integers(-4, 4), st.booleans(),
    st.sampled_from([0.0, -0.0, 1e300, -1e300, 5e-324, 3.5e38, 2**53, 2**53 + 1, -(2**63), 2**63,
                     10**30, float(2**24) + 1, "1", np.float64(1.5), np.int64(2)]))
odd_times = st.one_of(
    st.none(), st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)),
    st.datetimes(timezones=st.just(UTC)), st.integers(-(10**15), 10**15),
    st.just(datetime(2020, 2, 29, 23, 59, tzinfo=timezone(timedelta(hours=9)))),
    st.just("2020-01-01"))
odd_texts = st.one_of(
    st.none(), st.sampled_from(["", "a", "ß", "漢字", "a b"]), st.text(max_size=3),
    st.sampled_from(["\ud800", "\0", "\0\0\0\0\0", b"a", 3, ["a"], float("nan"), np.str_("a")]))
records = st.fixed_dictionaries({
    "f": odd_numbers, "narrow": odd_numbers, "i": odd_numbers,
    "b": st.one_of(st.none(), st.booleans(), st.sampled_from([0, 1, "yes", 1.0, np.True_])),
    "s": odd_texts, "t": odd_times,
})
plain = st.fixed_dictionaries({
    "f": st.one_of(st.none(), st.floats(), st.sampled_from([0.0, 1.0, np.inf])),
    "narrow": st.one_of(st.none(), st.floats(width=32)),
    "i": st.one_of(st.none(), st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1)),
    "b": st.one_of(st.none(), st.booleans()),
    "s": st.one_of(st.none(), st.sampled_from(["", "a", "ß", "漢字", "a b"]), st.text(max_size=2)),
    "t": st.one_of(st.none(), st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))),
})


def answers(bundle: gpupipe.Bundle, record: dict[str, Any]) -> list[str]:
    """What each of the ways in says: a prediction to the last bit, or that it does not fit."""
    def one() -> Any:
        return bundle.predict_one(record)

    def few() -> Any:
        return bundle.predict_records([record, record])[1]

    def many() -> Any:
        return bundle.predict_records([record] * (FEW_RECORDS + 1))[-1]

    def table() -> Any:
        return bundle.described(*bundle.scored(records_table([record], bundle.schema)))[0]

    found = []
    for way in (one, few, many, table):
        try:
            found.append(repr(way()))
        except DataError:
            found.append("does not fit")
    return found


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning",
                            "ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("bundle", CASES, indirect=True)
@hypothesis_settings(max_examples=12, deadline=None,
                     suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(record={"f": 1.0, "narrow": 2**53, "i": 1, "b": True, "s": "a", "t": None})
@given(record=st.one_of(plain, plain, records))
def test_every_way_in_gives_one_answer(bundle, record):
    assert len(set(answers(bundle, record))) == 1, answers(bundle, record)


@pytest.mark.parametrize("bundle", COMPILED, indirect=True)
def test_trees_and_steps_are_compiled(bundle):
    assert (bundle.row_path, bundle.row_path_reason) == ("compiled", "")


@pytest.mark.parametrize(("bundle", "why"), [
    ("linear, binary", "a model 'linear'"), ("depth that has no words", "leaves, more than 64"),
    ("dart", "weights of their own"), ("blend", "a model 'linear'"),
], indirect=["bundle"])
def test_what_has_no_tables_says_so(bundle, why):
    assert bundle.row_path == "library"
    assert why in bundle.row_path_reason


@pytest.mark.parametrize("bundle", ["xgboost, multiclass"], indirect=True)
def test_a_row_path_that_differs_in_a_bit_is_not_taken(bundle, monkeypatch):
    honest = RowPath.scored

    def off(self: RowPath, record: dict[str, Any]) -> Any:
        scores, bounds = honest(self, record)
        return np.nextafter(scores, 1), bounds

    monkeypatch.setattr(RowPath, "scored", off)
    again = gpupipe.load(bundle.path)
    assert again.row_path == "batch" and "scores" in again.row_path_reason
    record = small_table().select(list(COLUMNS)).to_pylist()[3]
    monkeypatch.undo()
    assert again.predict_one(record) == bundle.predict_one(record)


@pytest.mark.parametrize("bundle", ["step one_hot"], indirect=True)
def test_a_record_without_a_column_is_named_whether_or_not_the_model_looks_at_it(bundle):
    record = small_table().select(list(COLUMNS)).to_pylist()[0]
    for name in bundle.schema.names:
        with pytest.raises(DataError, match=f"record 0 lacks column '{name}'"):
            bundle.predict_one({k: v for k, v in record.items() if k != name})
    assert bundle.predict_one({**record, "more": object()}) == bundle.predict_one(record)


@pytest.mark.parametrize("bundle", ["xgboost, binary", "xgboost, multiclass", "linear, regression"],
                         indirect=True)
def test_many_threads_score_with_one_bundle(bundle):
    rows = small_table(200, seed=3).select(list(COLUMNS)).to_pylist()
    expected, wrong = [bundle.predict_one(r) for r in rows], []

    def work() -> None:
        for _ in range(5):
            if [bundle.predict_one(r) for r in rows] != expected:
                wrong.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def wild_table(n: int) -> pa.Table:
    """Rows with missing values, levels never seen, infinities and extremes."""
    rng, table = np.random.default_rng(6), small_table(n, seed=6).select(list(COLUMNS))
    odd = rng.choice([np.inf, -np.inf, 0.0, -0.0, 1e300, -1e300, 5e-324, np.nan], n)
    wild = np.where(rng.random(n) < 0.2, odd, table["f"].to_numpy())
    texts = np.where(rng.random(n) < 0.2, "never seen", table["s"].to_pandas().fillna("ß"))
    whole = np.where(rng.random(n) < 0.2, rng.integers(-(2**62), 2**62, n), 1)
    return table.set_column(0, "f", pa.array(wild)).set_column(
        4, "s", pa.array(texts.tolist(), mask=rng.random(n) < 0.2)).set_column(
        2, "i", pa.array(whole, mask=rng.random(n) < 0.2))


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning",
                            "ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("bundle", CASES, indirect=True)
def test_many_rows_score_as_few_do(bundle, monkeypatch):
    monkeypatch.setattr(scoring, "cores", lambda: 1)
    table = wild_table(LEAST_ROWS + 500)
    few = [bundle.scores(table.slice(i, 700)) for i in range(0, table.num_rows, 700)]
    assert bundle.scores(table).tobytes() == np.concatenate(few).tobytes()
    assert bundle.scored(table)[0].tobytes() == np.concatenate(few).tobytes()


MANY = ["xgboost, binary", "xgboost, regression", "forest, regression", "calibrated", "codes"]


@pytest.mark.parametrize("bundle", MANY, indirect=True)
def test_tables_of_many_rows_go_by_words(bundle, monkeypatch):
    assert bundle._rows.path.many is not None
    monkeypatch.setattr(scoring, "cores", lambda: 2)
    monkeypatch.setattr(type(bundle.contents.model), "predict", None)  # not asked
    assert len(bundle.scores(wild_table(LEAST_ROWS))) == LEAST_ROWS


@pytest.mark.parametrize("bundle", ["xgboost, binary"], indirect=True)
def test_tables_of_several_pieces_are_scored_in_order(bundle, monkeypatch):
    table = small_table(2_000, seed=4).select(list(COLUMNS))
    whole = bundle.scores(table)
    monkeypatch.setattr(scoring, "PIECE_ROWS", 77)
    monkeypatch.setattr(scoring, "cores", lambda: 3)
    assert bundle.scores(table).tobytes() == whole.tobytes()
    assert np.concatenate([bundle.scores(table.slice(i, 50)) for i in range(0, 2_000, 50)]
                          ).tobytes() == whole.tobytes()
