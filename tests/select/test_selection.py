"""Pipelines that choose features: within each fold, into the bundle, the record and the report."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from common.quick import COLUMNS, settings, small_table, trained_on, write_bundle
from problems import PARAMS, TARGETS, chosen, problem

import gpupipe
from gpupipe.checkpoints import Checkpoints
from gpupipe.cli.show import selection as show_selection
from gpupipe.codec import pack, read_arrays, unpack, write_arrays
from gpupipe.config import load_config, parse_config
from gpupipe.errors import ConfigError
from gpupipe.models import Matrix, Training, model_of, packed, restored
from gpupipe.models.base import layers
from gpupipe.models.selected import FittedSelected, Selected, columns_of
from gpupipe.select import METHODS, Methods, selector_of
from gpupipe.workflow import run, show

NEW = small_table(97, seed=1).select(list(COLUMNS))
SELECT = [{"method": "mutual_information", "k": 2}]
ROWS = 3_000
FOLDS = {"holdout": 0.25, "folds": 3}


def selecting(kind: str = "xgboost", method: str = "mutual_information", **params) -> Selected:
    return Selected(model_of(kind, PARAMS[kind]),
                    Methods((METHODS[method].model_validate(params),)))


# The family ------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{"n_estimators": 15}, {"early_stopping_rounds": 5}])
def test_a_selected_model_is_the_inner_one_on_the_chosen_columns(params):
    train, valid = problem(), problem(n=900, seed=1)
    inner, how = model_of("xgboost", params), Training(0, 1)
    model = Selected(inner, Methods((METHODS["mutual_information"].model_validate({"k": 3}),)))
    found = model.fit(train, valid, TARGETS["binary"], how)
    columns = found.selection.columns
    assert len(columns) == 3
    plain = inner.fit(columns_of(train, columns), columns_of(valid, columns), TARGETS["binary"],
                      how)
    chunk = valid.chunks[0]
    for rounds in (None, 4):
        np.testing.assert_array_equal(found.predict(chunk, rounds),
                                      plain.predict(chunk[:, list(columns)], rounds))
    assert (found.rounds, found.curve) == (plain.rounds, plain.curve)
    assert getattr(model, "rounds", None) == inner.rounds
    assert (found.judged is None) == (plain.judged is None)
    assert {n for n, v in found.importances() if v > 0} <= set(found.selection.kept)
    assert {n for n, _ in found.importances()} == set(train.names)


def test_the_judged_rows_have_no_say():
    train, valid = problem(), problem(n=900, seed=1)
    upside = Matrix(valid.chunks, 1 - valid.target, None, valid.names, valid.categorical)
    first, second = (selecting(method="permutation").fit(train, v, TARGETS["binary"],
                                                         Training(0, 1))
                     for v in (valid, upside))
    assert first.selection.steps[0]["scores"] == second.selection.steps[0]["scores"]
    assert first.selection.columns == second.selection.columns


def test_a_stream_of_chunks_is_never_held_as_a_whole():
    train = problem(n=6000, chunks=6)
    alive: list[int] = []

    class Stream:
        def __iter__(self):
            for chunk in train.chunks:
                alive.append(len(chunk))
                yield chunk.copy()

    streamed = Matrix(Stream(), train.target, None, train.names, train.categorical, (), (),
                      train.bucket)
    model = selecting(k=2)
    found = model.fit(streamed, None, TARGETS["binary"], Training(0, 1))
    held = model.fit(train, None, TARGETS["binary"], Training(0, 1))
    assert found.selection.columns == held.selection.columns
    np.testing.assert_array_equal(found.predict(train.chunks[0]), held.predict(train.chunks[0]))
    assert len(alive) >= 18  # a pass to choose, and at least two for the bins


def test_the_fitted_form_survives_packing():
    found = selecting(k=2).fit(problem(), None, TARGETS["binary"], Training(0, 1))
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(pack(packed(found), arrays))
    again = restored(unpack(json.loads(text), read_arrays(write_arrays(arrays), 1 << 26)))
    assert isinstance(again, FittedSelected)
    assert again.selection == found.selection
    chunk = problem(seed=5).chunks[0]
    np.testing.assert_array_equal(again.predict(chunk), found.predict(chunk))
    assert again.importances() == found.importances()
    assert not again.without_log().selection.steps
    damaged = packed(found)
    damaged["selection"]["columns"] = [99]
    with pytest.raises(ValueError, match="columns that its matrix does not have"):
        restored(damaged)


def test_a_choice_is_saved_and_shared_by_models_that_it_does_not_ask(tmp_path, monkeypatch):
    how = Training(0, 1, checkpoints=Checkpoints(tmp_path).given(model="m", part="p"))
    train, target = problem(), TARGETS["binary"]
    first = selecting("xgboost", k=2).fit(train, None, target, how)
    selecting("xgboost", "permutation").fit(train, None, target, how)
    monkeypatch.setattr(Methods, "choose", None)  # nothing is chosen again
    assert selecting("linear", k=2)._scope(how.checkpoints).load("selection") == (
        first.selection.to_json())
    again = selecting("xgboost", k=2).fit(train, None, target, how)
    assert again.selection == first.selection
    with pytest.raises(TypeError):  # it asked another model
        selecting("linear", "permutation").fit(train, None, target, how)


def test_constrained_features_are_not_dropped():
    config = parse_config(settings("regression", select=SELECT, split=FOLDS, model={
        "kind": "xgboost", "params": {"n_estimators": 4, "monotone_constraints": {"narrow": 1}}}))
    trained = trained_on(small_table(), config)
    assert "narrow" in trained.final.selection.kept
    assert len(trained.final.selection.kept) <= 3


# Pipelines -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adult(shared_data) -> pa.Table:
    """Rows of a real table with columns of noise: draws, and shuffled columns of its own."""
    options = pa.csv.ConvertOptions(strings_can_be_null=True)
    table = pa.csv.read_csv(shared_data / "adult" / "adult.data", convert_options=options)
    table = table.rename_columns([n.strip() for n in table.column_names]).slice(0, ROWS)
    rng = np.random.default_rng(0)
    for i in range(4):
        table = table.append_column(f"noise {i}", pa.array(rng.normal(size=ROWS)))
    for name in ("age", "relationship", "occupation"):
        order = pa.array(rng.permutation(ROWS))
        table = table.append_column(f"shuffled {name}", table[name].take(order))
    return table


QUICK = {"mutual_information": {}, "permutation": {},
         "boruta": {"rounds": 12, "trees": 20}, "recursive": {"drop": 0.5, "least": 5}}
STRONG = {"age", "education-num", "capital-gain"}


@pytest.mark.parametrize(("kind", "method"), [
    ("xgboost", "mutual_information"), ("linear", "mutual_information"),
    ("xgboost", "permutation"), ("linear", "permutation"), ("xgboost", "boruta"),
    ("xgboost", "recursive")])
def test_noise_in_a_real_table_is_dropped_and_what_tells_is_kept(kind, method, adult, tmp_path):
    config = settings(select={"methods": [{"method": method, **QUICK[method]}]},
                      data={"target": "outcome", "drop": []}, split={"holdout": 0.2, "folds": 2},
                      model={"kind": kind, "params": {"n_estimators": 60} if kind == "xgboost"
                             else {}})
    trained = trained_on(adult, config, tmp_path / "cache")
    assert len(trained.model.selections) == 2
    for found in (*trained.model.selections, trained.final.selection):
        kept = set(found.kept)
        noise = {n for n in found.features if n.startswith(("noise", "shuffled"))}
        assert len(noise) == 7
        assert len(kept & noise) <= (3 if method == "recursive" else 1)
        assert kept & {"relationship", "marital-status"}
        assert method == "permutation" or len(STRONG & kept) >= 2
    bundle = write_bundle(trained, tmp_path / "bundle")
    assert set(bundle.schema.names) == set(trained.final.selection.kept)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("kind", ["xgboost", "linear"])
def test_a_bundle_holds_what_was_chosen_and_nothing_else(kind, task, tmp_path):
    config = settings(task, select=SELECT, model={"kind": kind, "params": PARAMS[kind]},
                      split=FOLDS)
    trained = trained_on(small_table(), config)
    before = write_bundle(trained, tmp_path / "bundle")
    after = gpupipe.load(tmp_path / "bundle")
    kept = trained.final.selection.kept
    assert set(after.schema.names) == {n.partition("_")[0] for n in kept}
    assert after.contents.model.kind == kind
    assert len(after.schema.names) <= 2
    few = NEW.select(after.schema.names)
    np.testing.assert_array_equal(after.scores(few), before.scores(NEW))
    y, _ = trained.target_of(trained.split.holdout)
    assert len(trained.model.holdout) == len(y)


def test_a_fresh_process_scores_the_same(tmp_path):
    trained = trained_on(small_table(), settings(select=SELECT, split=FOLDS))
    bundle = write_bundle(trained, tmp_path / "bundle")
    pq.write_table(NEW, tmp_path / "new.parquet")
    code = (
        "import sys, gpupipe, pyarrow.parquet as pq\nbundle = gpupipe.load(sys.argv[1])\n"
        "print(bundle.scores(pq.read_table(sys.argv[2])).tobytes().hex())\n"
        "assert not {'gpupipe.select', 'gpupipe.training', 'optuna'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "bundle"),
                           str(tmp_path / "new.parquet")], check=False, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == bundle.scores(NEW).tobytes().hex()


def test_names_that_collide_keep_their_features(tmp_path):
    table = small_table()
    table = table.add_column(0, "s_a", pa.array(np.arange(240) % 7))
    config = settings(select={"methods": SELECT, "keep": ["s"]}, split=FOLDS, features=[
        {"drop": {"columns": "t"}}, {"one_hot": {"columns": "s"}}])
    trained = trained_on(table, config)
    before = write_bundle(trained, tmp_path / "bundle")
    after = gpupipe.load(tmp_path / "bundle")
    assert isinstance(after.contents.model, FittedSelected)
    new = NEW.append_column("s_a", NEW["i"])
    assert "s_a.1" in after.feature_names
    np.testing.assert_array_equal(after.scores(new), before.scores(new))
    assert not after.contents.model.selection.steps


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> dict:
    """A whole run, and what `show` finds of it."""
    folder = tmp_path_factory.mktemp("runs")
    path = folder / "t.parquet"
    pq.write_table(small_table(), path)
    config = settings(select=["variance", *SELECT], split=FOLDS, evaluate={"baselines": []})
    config["data"]["source"] = str(path)
    first = run(parse_config(config), runs=folder / "runs")
    second = run(parse_config(config), runs=folder / "runs")
    return {"first": first, "second": second, "shown": show(first.run)}


def test_a_run_records_how_often_each_feature_was_chosen(done, capsys):
    found = done["shown"]["manifest"]["selection"]
    assert found == done["first"].summary["selection"]
    assert (found["trainings"], found["in"], found["out"]) == (3, 10, 2)
    assert found["out_by_fold"] == [2, 2, 2]
    assert sum(f["folds"] for f in found["features"]) == 6
    assert sum(f["final"] for f in found["features"]) == 2
    assert 0 <= found["stability"]["value"] <= 1
    assert [m["method"] for m in found["methods"]] == ["variance", "mutual_information"]
    assert found["seconds"] > 0
    assert done["shown"]["manifest"]["model"]["kind"] == "xgboost"
    show_selection(found)
    shown = capsys.readouterr().out
    assert "2 of 10 features chosen, stability" in shown and "3 of 3" in shown


def test_the_report_shows_the_frequencies(done):
    page = done["first"].report.read_text(encoding="utf-8")
    assert "Selection: 2 of 10 features" in page
    assert page.count(" of 3</td>") == 10
    assert "Nogueira" in page


def test_a_second_run_takes_the_choices_of_the_first(done):
    one, two = done["first"].summary["selection"], done["second"].summary["selection"]
    assert one == two  # what it took as well: it was not done again
    parts = [(r.bundle / "bundle.json").read_bytes() for r in (done["first"], done["second"])]
    assert json.loads(parts[0])["model"] == json.loads(parts[1])["model"]


@pytest.mark.parametrize("sections", [
    {"calibrate": "sigmoid"}, {"split": {"holdout": 0, "folds": 3}},
    {"intervals": {"coverage": 0.8}}, {"model": {"kind": "linear"}, "explain": {"rows": 60}},
    {"ensemble": {"kind": "blend", "size": 2}, "model": {"kind": "xgboost"}, "tune": {
        "trials": 3, "space": {"n_estimators": [3, 6]}}},
], ids=lambda s: next(iter(s)))
def test_a_selection_goes_with_all_that_comes_after_it(sections, tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(small_table(), path)
    config = settings(select=SELECT, evaluate={"baselines": []}, **{"split": FOLDS, **sections})
    config["data"]["source"] = str(path)
    done = run(parse_config(config), runs=tmp_path / "runs")
    bundle = gpupipe.load(done.bundle)  # its golden rows are replayed
    text = (done.bundle / "bundle.json").read_text()
    assert '"seconds"' not in text.partition('"states"')[0]
    if "ensemble" not in sections:
        assert not any(isinstance(m, FittedSelected) for m in layers(bundle.contents.model))
        assert len(bundle.schema.names) <= 2
        assert done.summary["selection"]["out"] == 2
    assert len(bundle.predict(NEW)) == 97
    assert "<svg" in done.report.read_text(encoding="utf-8")


def test_a_run_without_selection_says_nothing_of_one(tmp_path):
    trained = trained_on(small_table(), settings())
    assert list(trained.model.selections) == []
    assert trained.final.kind == "xgboost"


def test_a_search_tunes_the_selection(tmp_path):
    config = settings(
        split={"holdout": 0.25, "folds": 2}, select=SELECT, ensemble="none",
        model={"kind": "xgboost"}, tune={"trials": 8, "sampler": "random", "space": {
            "select.mutual_information.k": {"choices": [1, 3, 5]}, "n_estimators": [3, 6]}})
    trained = trained_on(small_table(), config)
    trials = trained.chosen.found.trials
    tried = {t.features.get("selection.mutual_information.k") for t in trials} - {None}
    assert tried <= {1, 3, 5} and len(tried) > 1
    best = trained.chosen.found.best.features.get("selection.mutual_information.k", 2)
    assert len(trained.final.selection.kept) == best
    assert [len(s.kept) for s in trained.model.selections] == [best, best]


# The pipeline file -----------------------------------------------------------------------------


def test_a_selection_is_written_short_or_long():
    def made(select) -> Methods:
        return selector_of(parse_config(settings(select=select)))

    assert made("boruta") == made(["boruta"]) == made({"methods": [{"method": "boruta"}]})
    assert made([{"method": "boruta", "rounds": 30}]).methods[0].rounds == 30
    assert made([]) is None
    assert made({"methods": "variance", "keep": "f", "unit": "column"}).by_column


@pytest.mark.parametrize(("text", "message", "hint"), [
    ("select: [borutta]", "unknown method of selection 'borutta'", "did you mean 'boruta'?"),
    ("select: [{method: boruta, round: 3}]", "unknown key 'round'", "did you mean 'rounds'?"),
    ("select: [{method: boruta, rounds: 1}]", "expected at least 5, found the number 1", None),
    ("select: [{rounds: 20}]", "a method of selection is its name", None),
    ("select: {methods: [variance], keep: [ff]}", "no feature is called 'ff'", "did you mean 'f'?"),
    ("select: {methods: [{method: mutual_information, k: 2, share: 0.5}]}", "two rules", None),
])
def test_faults_are_told_before_anything_is_learned(text, message, hint, tmp_path):
    path = tmp_path / "p.yaml"
    pq.write_table(small_table(), tmp_path / "t.parquet")
    path.write_text("data: {source: t.parquet, target: label, drop: [kind, amount]}\n" + text)
    with pytest.raises(ConfigError, match=message) as error:
        trained_on(small_table(), load_config(path), tmp_path / "cache")
    assert "p.yaml:2:" in str(error.value)
    assert hint is None or error.value.hint == hint


def test_a_search_of_what_no_method_has_is_refused(tmp_path):
    config = settings(split={"holdout": 0.25, "folds": 2}, select=SELECT, tune={
        "trials": 2, "space": {"select.boruta.rounds": [5, 9]}})
    with pytest.raises(ConfigError, match=r"no method under select has a parameter"):
        trained_on(small_table(), config)


def test_a_choice_of_one_seed_is_the_same_on_any_number_of_threads():
    facts = []
    for threads in (1, 2):
        model = selecting(method="boruta", rounds=6, trees=5)
        found = model.fit(problem(n=800), None, TARGETS["binary"], Training(0, threads))
        facts.append((found.selection.kept, found.selection.steps[0]["scores"]))
    assert facts[0] == facts[1]
    assert chosen(problem(n=800), ("boruta", {"rounds": 6, "trees": 5})).kept == facts[0][0]
