"""Rows ranked within queries, from the pipeline file to the bundle: films of a year by rating."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import xgboost
from common.quick import trained_on
from models.test_every_model import TARGETS, predict, problem
from sklearn.metrics import average_precision_score, ndcg_score

import gpupipe
from gpupipe.compare import compare
from gpupipe.config import parse_config
from gpupipe.data.outcomes import grade_of, query_of
from gpupipe.errors import ConfigError, DataError, EnvironmentFault
from gpupipe.models import Training, model_of
from gpupipe.scoring import evaluate
from gpupipe.workflow import run

FEW = {"n_estimators": 15, "learning_rate": 0.3, "max_depth": 3, "subsample": 1.0}
each_objective = pytest.mark.parametrize("objective", ["rank:ndcg", "rank:pairwise", "rank:map"])


def config(objective="rank:ndcg", data=None, split=None, **sections):
    return {
        "data": {"source": "t", "target": "grade", "key": "id", **(data or {})},
        "split": {"holdout": 0.25, "folds": 2, "group": ["year"], **(split or {})},
        "model": {"params": {**FEW, "objective": objective}},
        "evaluate": {"resamples": 50}, "explain": {"rows": 0}, "engine": {"workers": 1},
        "leaks": {"check": "off"}, **sections,
    }


@pytest.fixture(scope="module")
def films(shared_data):
    """Films with the year and month of their release and, as grade, their rating's quarter."""
    found = json.loads((shared_data / "movies" / "movies.json").read_text())
    kept = ("IMDB Rating", "Release Date", "Production Budget", "US Gross", "Running Time min",
            "Major Genre", "MPAA Rating", "IMDB Votes")
    table = pa.Table.from_pylist([{k: row[k] for k in kept} for row in found])
    rating = table["IMDB Rating"].cast(pa.float64())
    table = table.filter(pc.is_valid(rating))
    rating = table["IMDB Rating"].to_numpy()
    dates = [str(d) for d in table["Release Date"].to_pylist()]
    return pa.table({
        "id": np.arange(table.num_rows), "year": [d[-4:] + d[:3] for d in dates],
        "grade": np.searchsorted(np.quantile(rating, [0.25, 0.5, 0.75]), rating),
        "budget": table["Production Budget"], "gross": table["US Gross"],
        "minutes": table["Running Time min"], "genre": table["Major Genre"],
        "mpaa": table["MPAA Rating"], "votes": table["IMDB Votes"],
    })


@pytest.fixture(scope="module")
def runs(films, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return run(parse_config(config(explain={"rows": 60, "columns": 2})), runs=folder, source=films)


def judged(found):
    kept = pq.read_table(found.run / "predictions.parquet")
    return kept.filter(pc.less(kept["fold"], 0))


def test_a_run_tells_the_metrics_that_its_predictions_have(runs):
    kept = judged(runs)
    query, grade, score = (kept[n].to_numpy() for n in ("query", "target", "prediction"))
    ndcg, precision = [], []
    for q in np.unique(query):
        g, s = grade[query == q], score[query == q]
        if g.max() > 0:
            ndcg.append(ndcg_score([g], [s]) if len(g) > 1 else 1.0)
            precision.append(average_precision_score(g > 0, s))
    assert len(ndcg) > 40
    assert runs.metrics["ndcg"]["value"] == pytest.approx(np.mean(ndcg), rel=1e-9)
    assert runs.metrics["mean_average_precision"]["value"] == pytest.approx(np.mean(precision))
    assert runs.metrics["ndcg"]["low"] > runs.summary["baselines"]["constant"]["ndcg"]["value"]
    assert set(runs.metrics) == {"ndcg", "ndcg_at_10", "mean_average_precision"}


def test_no_query_is_on_both_sides_of_a_split(runs, films):
    kept = pq.read_table(runs.run / "predictions.parquet")
    years = films["year"].take(kept["row"]).to_pylist()
    fold = kept["fold"].to_pylist()
    assert len(set(zip(years, fold, strict=True))) == len(set(years))
    assert len(set(zip(years, kept["query"].to_pylist(), strict=True))) == len(set(years))


@each_objective
def test_the_model_is_that_of_a_plain_xgboost_on_sorted_rows(films, objective):
    if objective == "rank:map":
        films = films.set_column(2, "grade", pc.greater(films["grade"], 2).cast(pa.int64()))
    trained = trained_on(films, config(objective, features=[
        {"drop": {"columns": "categorical"}}]))
    y = np.concatenate([r.target for r in trained.rowed.rows])
    train = np.concatenate([np.isin(r.bucket, trained.split.train) for r in trained.rowed.rows])
    names = ["budget", "gross", "minutes", "votes"]
    x = np.column_stack([films[n].cast(pa.float64()).to_numpy() for n in names]).astype(np.float32)
    assert trained.final.names == tuple(names)
    order = np.flatnonzero(train)[np.argsort(query_of(y[train]), kind="stable")]
    data = xgboost.QuantileDMatrix(x[order], label=grade_of(y[order]), qid=query_of(y[order]))
    native = {"objective": objective, "eta": 0.3, "max_depth": 3, "seed": 0, "nthread": 1,
              "seed_per_iteration": True}
    expected = xgboost.train(native, data, 15).inplace_predict(x[~train])
    np.testing.assert_allclose(trained.model.holdout, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.unique(query_of(y), return_inverse=True)[1],
                                  query_of(y))


def test_the_bundle_scores_and_judges_as_the_run_did(runs, films):
    kept, bundle = judged(runs), gpupipe.load(runs.bundle)
    rows = films.take(kept["row"])
    np.testing.assert_allclose(bundle.predict(rows), kept["prediction"].to_numpy(), rtol=1e-12)
    found = evaluate(runs.bundle, rows)["metrics"]
    for name, score in runs.metrics.items():
        assert found[name]["value"] == pytest.approx(score["value"])
    with pytest.raises(DataError, match=r"'year'"):
        evaluate(runs.bundle, rows.drop_columns("year"))


def test_a_report_says_what_a_score_is(runs):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", (runs.run / "report.html").read_text()))
    assert "A prediction is a score: of the rows of one year" in text
    assert "no whole queries: no column is permuted" in text
    assert "RMSE" not in text


def test_two_runs_are_compared(runs, films, tmp_path):
    other = run(parse_config(config("rank:pairwise")), runs=tmp_path, source=films)
    found = compare(runs.run, other.run).to_json()
    assert set(found["metrics"]) == {"ndcg", "ndcg_at_10", "mean_average_precision"}


def test_what_training_says_of_the_validation_rows_is_in_their_own_order():
    train, valid = problem("ranking"), problem("ranking", 600, seed=1)
    model = model_of("xgboost", {**FEW, "objective": "rank:ndcg"})
    fitted = model.fit(train, valid, TARGETS["ranking"], Training(3, 1))
    np.testing.assert_allclose(fitted.judged, predict(fitted, valid), rtol=1e-6, atol=1e-6)
    assert fitted.curve["metric"].startswith("ndcg") and fitted.curve["maximise"]


def test_what_is_learned_does_not_depend_on_the_layout(films):
    found = [trained_on(films, config(engine={"batch_rows": n, "workers": w}))
             for n, w in ((500, 1), (10_000, 2))]
    np.testing.assert_array_equal(found[0].model.oof, found[1].model.oof)


@pytest.mark.parametrize(("given", "words", "hint"), [
    ({"split": {"group": None}}, "nothing says which rows are of one", "split.group"),
    ({"split": {"by": "random"}}, "would cut them", "split.by: group"),
    ({"data": {"weight": "votes"}}, "a ranking has no weight", "data.weight"),
    ({"data": {"event": "votes"}}, "a ranking has no event", "data.event"),
    ({"intervals": {"coverage": 0.9}}, "intervals is not for ranking", "leave it out"),
    ({"evaluate": {"metrics": ["r2"]}}, "this target is ranking", "ndcg"),
])
def test_what_a_ranking_does_not_have_is_refused(films, given, words, hint):
    with pytest.raises(ConfigError, match=words) as error:
        trained_on(films, config(**given))
    assert hint in error.value.hint


@pytest.mark.parametrize(("objective", "least"), [("rank:ndcg", -1), ("rank:map", 0)])
def test_grades_that_cannot_be_are_refused(films, objective, least):
    table = films.set_column(2, "grade", pc.add(films["grade"], least))
    with pytest.raises(DataError, match="whole numbers from 0 to") as error:
        trained_on(table, config(objective))
    assert error.value.hint


def test_a_ranking_is_trained_by_one_process_and_in_memory():
    model = model_of("xgboost", {"objective": "rank:ndcg"})
    assert not model.streams and not model.spreads
    with pytest.raises(EnvironmentFault, match="compares rows with each other"):
        model.fit(problem("ranking"), None, TARGETS["ranking"], Training(processes=2))
    train = problem("ranking")
    with pytest.raises(DataError, match="no weights of rows"):
        model.fit(problem("ranking", weight=np.ones(1200)), None, TARGETS["ranking"], Training())
    streamed = type(train)(iter(train.chunks), train.target, None, train.names, train.categorical)
    with pytest.raises(EnvironmentFault, match="trained in memory") as error:
        model.fit(streamed, None, TARGETS["ranking"], Training())
    assert "engine.memory" in error.value.hint
    with pytest.raises(ConfigError, match="belongs to an objective that ranks"):
        model_of("xgboost", {"ndcg_exp_gain": False})
