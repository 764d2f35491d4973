"""Times with an event, from the pipeline file to the bundle: telco-churn, and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import xgboost
from common.quick import trained_on
from models.test_every_model import TARGETS, predict, problem
from sklearn.metrics import mean_squared_error

import gpupipe
from gpupipe.compare import compare
from gpupipe.config import parse_config
from gpupipe.errors import ConfigError, DataError, EnvironmentFault
from gpupipe.models import Training, model_of
from gpupipe.models.quantised import as_bounds
from gpupipe.scoring import evaluate
from gpupipe.workflow import run

FEW = {"n_estimators": 15, "learning_rate": 0.3, "max_depth": 3, "subsample": 1.0}
each_objective = pytest.mark.parametrize("objective", ["survival:aft", "survival:cox"])


def config(source, objective=None, data=None, **sections):
    given = {} if objective is None else {"objective": objective}
    return {
        "data": {"source": str(source), "target": "tenure", "event": "Churn", "key": "customerID",
                 "drop": ["TotalCharges"], **(data or {})},
        "split": {"holdout": 0.25, "folds": 2}, "model": {"params": {**FEW, **given}},
        "evaluate": {"resamples": 50}, "explain": {"rows": 0}, "engine": {"workers": 1}, **sections,
    }


@pytest.fixture(scope="module")
def telco(shared_data):
    return shared_data / "telco-churn" / "telco.csv"


@pytest.fixture(scope="module")
def runs(telco, tmp_path_factory):
    """A run of each objective, with explanations and slices."""
    folder = tmp_path_factory.mktemp("runs")
    return {objective: run(parse_config(config(
        telco, objective, explain={"rows": 60, "repeats": 2, "columns": 2},
        evaluate={"resamples": 50, "slices": ["Contract"]})), runs=folder)
        for objective in ("survival:aft", "survival:cox")}


def naive(time, seen, longer):
    """Harrell's index of all pairs at once, ``[n, n]``."""
    first = seen[:, None] & ((time[:, None] < time) | ((time[:, None] == time) & ~seen))
    right = (longer[:, None] < longer) + 0.5 * (longer[:, None] == longer)
    return (right * first).sum() / first.sum()


@each_objective
def test_a_run_tells_the_concordance_that_its_predictions_have(runs, objective):
    found = runs[objective]
    kept = pq.read_table(found.run / "predictions.parquet")
    kept = kept.filter(pc.less(kept["fold"], 0))
    sign = -1 if objective == "survival:cox" else 1
    expected = naive(kept["target"].to_numpy(), kept["event"].to_numpy(),
                     sign * kept["prediction"].to_numpy())
    assert list(found.metrics) == ["concordance_index"]
    score = found.metrics["concordance_index"]
    assert score["value"] == pytest.approx(expected, rel=1e-9)
    assert 0.84 < score["low"] < score["value"] < score["high"] < 0.9
    assert found.summary["baselines"]["constant"]["concordance_index"]["value"] == 0.5
    assert any("baseline 'linear' is left out" in note for note in found.summary["notes"])


@each_objective
def test_the_model_is_that_of_a_plain_xgboost(runs, telco, objective):
    bundle = gpupipe.load(runs[objective].bundle)
    table = csv.read_csv(telco)
    kept = pq.read_table(runs[objective].run / "predictions.parquet")
    train = np.sort(kept.filter(pc.greater_equal(kept["fold"], 0))["row"].to_numpy())
    x = bundle.features(table)
    time = table["tenure"].to_numpy().astype(float)[train]
    seen = np.array(table["Churn"].to_pylist())[train] == "Yes"
    types = ["c" if len(set(x[:, i])) < 6 and name != "SeniorCitizen" else "q"
             for i, name in enumerate(bundle.feature_names)]
    labels = {"label": np.where(seen, time, -time)} if objective == "survival:cox" else {
        "label_lower_bound": time, "label_upper_bound": np.where(seen, time, np.inf)}
    data = xgboost.QuantileDMatrix(x[train], feature_types=types, enable_categorical=True, **labels)
    native = {"objective": objective, "eta": 0.3, "max_depth": 3, "min_child_weight": 1.0,
              "colsample_bytree": 0.8, "max_cat_to_onehot": 8, "seed": 0, "nthread": 1,
              "seed_per_iteration": True, "tree_method": "hist"}
    expected = xgboost.train(native, data, 15).inplace_predict(x)
    np.testing.assert_allclose(bundle.predict(table), expected, rtol=1e-5)
    assert (bundle.predict(table) > 0).all()


@each_objective
def test_the_bundle_predicts_and_judges_as_the_run_did(runs, telco, objective, tmp_path):
    found, table = runs[objective], csv.read_csv(telco)
    kept = pq.read_table(found.run / "predictions.parquet")
    kept = kept.filter(pc.less(kept["fold"], 0))
    rows = table.take(kept["row"])
    bundle = gpupipe.load(found.bundle)
    assert {"tenure", "Churn", "customerID"}.isdisjoint(bundle.schema.names)
    np.testing.assert_allclose(bundle.predict(rows), kept["prediction"].to_numpy(), rtol=1e-12)
    one = bundle.predict_one(rows.slice(0, 1).to_pylist()[0])
    assert one == {"prediction": pytest.approx(bundle.predict(rows)[0])}
    judged = evaluate(found.bundle, rows)["metrics"]["concordance_index"]
    assert judged["value"] == pytest.approx(found.metrics["concordance_index"]["value"])
    with pytest.raises(DataError, match="no column 'Churn' to judge by"):
        evaluate(found.bundle, rows.drop_columns("Churn"))
    with pytest.raises(DataError, match=r"has 3 values.*it was seen where it is 'Yes'"):
        odd = pa.array(["Yes", "No", "Maybe"] * (rows.num_rows // 3 + 1))[: rows.num_rows]
        evaluate(found.bundle, rows.set_column(rows.column_names.index("Churn"), "Churn", odd))
    with pytest.raises(DataError, match="has no probabilities"):
        bundle.predict_proba(rows)


def test_a_report_says_what_a_prediction_is_and_shows_no_metric_of_values(runs):
    for objective, words in (("survival:aft", "A prediction is a time"),
                             ("survival:cox", "A prediction is a hazard ratio")):
        page = (runs[objective].run / "report.html").read_text()
        text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
        assert words in text and "the event seen where Churn is Yes" in text
        assert "RMSE" not in page and "R²" not in page
        told = json.loads((runs[objective].run / "explanations.json").read_text())
        assert told["shap"]["scale"] == {
            "survival:aft": "log time", "survival:cox": "log relative risk"}[objective]
        assert told["permutation"]["columns"] and "slices" not in told


def test_two_runs_of_one_task_are_compared(runs, telco, tmp_path):
    other = run(parse_config(config(telco, "survival:aft", data={
        "drop": ["TotalCharges", "Contract"]})), runs=tmp_path)
    found = compare(runs["survival:aft"].run, other.run).to_json()
    assert found["metrics"]["concordance_index"]["difference"]["high"] < 0
    assert "target_mean" not in json.dumps(found)


def test_what_is_learned_does_not_depend_on_the_layout(telco, tmp_path):
    found = [trained_on(telco, config(telco, engine={"batch_rows": n, "workers": w}), tmp_path)
             for n, w in ((1000, 1), (7043, 2))]
    np.testing.assert_array_equal(found[0].model.oof, found[1].model.oof)
    np.testing.assert_array_equal(*(t.target_of(t.oof_buckets)[0] for t in found))


# What a column of events may be


def table(**columns):
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    time = np.ceil(rng.exponential(np.exp(x)) * 10)
    return pa.table({"x": x, "key": np.arange(300), "time": time,
                     "event": rng.random(300) < 0.6, **columns})


def settings(**data):
    return config("t", data={"target": "time", "event": "event", "key": "key", "drop": [], **data})


EVENTS = np.random.default_rng(0).random(300) < 0.6
STATES = np.where(EVENTS, "dead", "alive").tolist()


@pytest.mark.parametrize(("column", "positive"), [
    (EVENTS, None), (EVENTS.astype(int), None), (EVENTS.astype(float), None),
    (np.where(EVENTS, "Yes", "no").tolist(), None), (STATES, "dead"), (np.where(EVENTS, 2, 1), 2),
])
def test_an_event_is_read_from_any_two_values(column, positive):
    found = trained_on(table(event=column), settings(positive=positive))
    y = np.concatenate([r.target for r in found.rowed.rows])
    np.testing.assert_array_equal(~np.signbit(y), EVENTS)
    assert found.target.task == "survival"
    assert "event" not in found.model.candidate.graph.raw


@pytest.mark.parametrize(("column", "data", "error", "words"), [
    (np.arange(300) % 3, {}, ConfigError, "has 3 values, such as '0' and '1' and '2'"),
    (STATES, {}, ConfigError, "which of them says"),
    (STATES, {"positive": "ded"}, ConfigError, "no label 'ded'"),
    (np.zeros(300, int), {}, ConfigError, "the event was seen in no row"),
    (pa.array([None] * 300, pa.int64()), {}, ConfigError, "has no value in any row"),
    (pa.array([None, *EVENTS[1:]], pa.bool_()), {}, DataError, "missing in 1 rows that have a"),
    (EVENTS, {"event": "evnt"}, ConfigError, "no column 'evnt'"),
    (EVENTS, {"event": "time"}, ConfigError, "is the target or the weight too"),
    (EVENTS, {"target": None}, ConfigError, "an event belongs to a time"),
    (EVENTS, {"task": "regression"}, ConfigError, "with an event the task is survival"),
])
def test_an_event_that_cannot_be_is_refused(column, data, error, words):
    with pytest.raises(error, match=words) as found:
        trained_on(table(event=column), settings(**data))
    assert found.value.hint


@pytest.mark.parametrize(("time", "words"), [
    (-1.0, "negative in 1 rows"), (0.0, "1 rows have their event at time 0"),
])
def test_a_time_that_cannot_be_is_refused(time, words):
    times = table()["time"].to_numpy().copy()
    times[int(np.flatnonzero(EVENTS)[0])] = time
    with pytest.raises(DataError, match=words) as found:
        trained_on(table(time=times, event=EVENTS), settings())
    assert found.value.hint


@each_objective
def test_rows_that_are_censored_at_0_or_have_no_time_are_allowed(objective):
    times = table()["time"].to_numpy().copy()
    censored = np.flatnonzero(~EVENTS)
    times[censored[:5]], times[censored[5]] = 0, np.nan
    made = settings()
    made["model"]["params"]["objective"] = objective
    found = trained_on(table(time=times, event=EVENTS), made)
    assert np.isfinite(found.model.oof).all()
    assert sum(len(r.target) for r in found.rowed.rows) == 300
    assert any("1 rows have no target" in note for note in found.notes)


@pytest.mark.parametrize(("sections", "words"), [
    ({"model": {"kind": "linear"}}, "'linear' is not for survival targets"),
    ({"model": {"params": {"objective": "reg:squarederror"}}}, "for regression targets"),
    ({"evaluate": {"metrics": ["r2"]}}, "for regression targets; this target is survival"),
    ({"calibrate": "isotonic"}, "calibrate is not for survival"),
    ({"intervals": {"coverage": 0.9}}, "intervals is not for survival"),
    ({"select": ["variance"]}, "select is not for survival"),
    ({"ensemble": "blend"}, "ensemble is not for survival"),
    ({"decide": {"metric": "f1"}}, "a threshold is for two labels"),
])
def test_what_survival_does_not_have_is_refused(sections, words):
    with pytest.raises(ConfigError, match=words):
        trained_on(table(event=EVENTS), {**settings(), **sections})


@each_objective
def test_an_objective_without_an_event_is_refused(objective):
    made = settings(event=None)
    made["model"]["params"]["objective"] = objective
    with pytest.raises(ConfigError, match="which times are censored") as error:
        trained_on(table(), made)
    assert "data.event" in error.value.hint


def test_a_search_tries_parameters_by_the_concordance():
    made = settings() | {"tune": {"trials": 2}, "model": {"kind": "xgboost", "params": FEW}}
    found = trained_on(table(event=EVENTS), made)
    trials = found.chosen.found.trials
    assert len(trials) == 2 and found.chosen.ensemble is None
    assert all(0.5 < t.score < 1 for t in trials)


def test_levels_are_encoded_by_their_mean_time():
    letters = np.array(list("abc"))[np.arange(300) % 3]
    made = settings() | {"features": [{"target_encode": {"columns": ["who"], "smooth": 0}}]}
    found = trained_on(table(event=EVENTS, who=letters.tolist()), made)
    (params,) = [p for p in found.model.fitted.params.values() if "encodings" in p]
    train = np.concatenate([np.isin(r.bucket, found.split.train) for r in found.rowed.rows])
    times = table()["time"].to_numpy()
    expected = [times[train & (letters == c)].mean() for c in params["levels"].to_pylist()]
    np.testing.assert_allclose(params["encodings"][-1][:3, 0], expected, rtol=1e-9)


# XGBoost


def test_coxs_model_is_of_one_process_and_aft_of_several():
    cox, aft = (model_of("xgboost", {"objective": o}) for o in ("survival:cox", "survival:aft"))
    assert aft.spreads and not cox.spreads
    with pytest.raises(EnvironmentFault, match="survival:cox compares rows") as error:
        cox.fit(problem("hazard"), None, TARGETS["hazard"], Training(processes=2))
    assert "engine.kind" in error.value.hint


def test_bins_in_files_know_the_censored_times(tmp_path):
    train = problem("survival", chunks=5)
    model = model_of("xgboost", {"n_estimators": 20, "objective": "survival:aft",
                                  "aft_loss_distribution": "logistic"})
    whole, spilled = (predict(model.fit(train, None, TARGETS["survival"], Training(
        3, 1, spill=spill)), train) for spill in (None, tmp_path))
    assert np.sqrt(mean_squared_error(np.log(whole), np.log(spilled))) < 0.05


def test_the_bounds_of_a_time_are_open_above_where_it_is_censored():
    found = as_bounds(np.array([2.0, -3.0, -0.0]))
    assert found["label_lower_bound"].tolist() == [2, 3, 0]
    assert found["label_upper_bound"].tolist() == [2, np.inf, np.inf]
