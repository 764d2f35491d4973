"""Champion, challengers and shadows: who answers whom, and what is logged of it."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from common.quick import COLUMNS, small_table
from serve.conftest import RECORDS
from serve.loading import Load
from serve.test_answers import stream
from serve.test_process import SLOW, metric, until

import gpupipe
from gpupipe.errors import ConfigError
from gpupipe.experiment.assign import Split, assign
from gpupipe.serve import load_settings
from gpupipe.serve.decode import ARROW
from gpupipe.serve.metrics import Metrics
from gpupipe.serve.predictions import SCHEMA, PredictionLog

CHALLENGERS = {"salt": "summer", "unit": "customer"}


def dealt(others, share: float = 0.3) -> dict:
    return {**CHALLENGERS, "challengers": [{"model": str(others[0]), "share": share}]}


def variant(client, unit) -> str:
    return client.predict({**RECORDS[0], "customer": unit}).json()["variant"]


def test_a_unit_stays_with_its_model_and_shares_are_kept(bundles, others, client):
    asked = client(bundles["binary"], **dealt(others))
    split = Split("summer", {"champion": 0.7, "challenger": 0.3})
    found = Counter()
    for n in range(100):
        unit = f"customer-{n}"
        found[variant(asked, unit)] += 1
        assert variant(asked, unit) == assign(unit, split).arm
    assert 15 <= found["challenger"] <= 45
    assert variant(asked, 17) == variant(asked, "17")  # a number is its digits
    assert variant(asked, None) == "champion"


def test_a_share_that_grows_keeps_its_units(bundles, others, client):
    small, large = (client(bundles["binary"], **dealt(others, share)) for share in (0.2, 0.5))
    units = [f"u{n}" for n in range(60)]
    before = {u for u in units if variant(small, u) == "challenger"}
    assert before < {u for u in units if variant(large, u) == "challenger"}


def test_a_unit_may_stand_in_a_header(bundles, others, client):
    asked = client(bundles["binary"], **{**dealt(others), "unit": "header:X-User"})
    split = Split("summer", {"champion": 0.7, "challenger": 0.3})
    for n in range(20):
        answer = asked.predict(RECORDS[0], RECORDS[1], **{"x-user": f"u{n}"}).json()
        assert answer["variant"] == assign(f"u{n}", split).arm
    assert asked.predict(RECORDS[0]).json()["variant"] == "champion"


def test_the_challenger_answers_as_it_would_alone(bundles, others, client):
    asked = client(bundles["binary"], **dealt(others))
    unit = next(u for u in map(str, range(100)) if variant(asked, u) == "challenger")
    both = asked.predict({**RECORDS[0], "customer": unit}).json()
    alone = client(others[0]).predict(RECORDS[0]).json()
    assert both["version"] == alone["version"]
    assert both["predictions"][0]["probability"] == alone["predictions"][0]["probability"]


def test_one_answer_never_comes_from_two_models(bundles, others, client):
    asked = client(bundles["binary"], **dealt(others))
    units = {variant(asked, str(n)): str(n) for n in range(50)}
    rows = [{**r, "customer": units[v]} for r, v in zip(
        RECORDS, ["champion", "champion", "challenger"], strict=False)]
    answer = asked.predict(*rows)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["row"], error["column"]) == ("unit", 2, "customer")
    assert asked.predict({**RECORDS[0], "customer": 1.5}).json()["error"]["code"] == "unit"
    table = small_table(2).select(list(COLUMNS)).append_column(
        "customer", pa.array([units["challenger"]] * 2))
    answer = asked.post("/predict", content=stream(table), headers={"content-type": ARROW})
    assert answer.json()["variant"] == "challenger"


@pytest.mark.parametrize(("settings", "words"), [
    ({"challengers": [{"model": "m", "share": 0.5}]}, "need `unit` and `salt`"),
    ({**CHALLENGERS, "challengers": [{"model": "m", "share": 1.0}]}, "less than 1"),
    ({**CHALLENGERS, "challengers": [{"model": "m", "share": 0.5, "name": "a"},
                                     {"model": "m", "share": 0.5, "name": "b"}]}, "nothing to the"),
    ({**CHALLENGERS, "challengers": [{"model": "m", "share": 0.1}] * 2}, "'challenger'"),
    ({"shadow": ["a", "b"]}, "'shadow'"), ({"limits": {"body": "much"}}, "size of memory"),
    ({"polls": "5s"}, "poll"), ({"poll": "5"}, "duration"),
])
def test_settings_that_do_not_fit_together_are_named(settings, words):
    with pytest.raises(ConfigError) as told:
        load_settings(None, {"champion": "c", **settings})
    assert words in str(told.value)


# The prediction log ------------------------------------------------------------------------------


def logged(folder: Path) -> pa.Table:
    return ds.dataset(folder, partitioning="hive").to_table().sort_by("prediction_id")


@pytest.fixture
def log(tmp_path):
    def make(client, features: bool = False, **more) -> PredictionLog:
        told: list[str] = []
        made = PredictionLog(tmp_path / "log", features, more.pop("every", 60),
                             more.pop("rows", 1000), client.app.metrics, told.append)
        made.told = told  # type: ignore[attr-defined]
        client.app.log = made
        made.start()
        return made

    return make


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_prediction_is_logged_as_the_contract_says(task, bundles, client, log):
    asked = client(bundles[task], unit="customer")
    made = log(asked)
    rows = [{**r, "customer": f"c{i}"} for i, r in enumerate(RECORDS[:5])]
    answers = [asked.predict(*rows[:3], **{"x-request-id": "mine"}), asked.predict(rows[3])]
    made.close()
    table = logged(made.folder)
    assert table.schema.names[: len(SCHEMA)] == SCHEMA.names
    assert table.select(SCHEMA.names).schema.equals(SCHEMA)
    predictions = sorted((p for a in answers for p in a.json()["predictions"]),
                         key=lambda p: p["id"])
    assert table["prediction_id"].to_pylist() == [p["id"] for p in predictions]
    assert sorted(table["unit_id"].to_pylist()) == ["c0", "c1", "c2", "c3"]
    assert table["request_id"].to_pylist().count("mine") == 3
    assert set(table["version"].to_pylist()) == {answers[0].json()["version"]}
    assert set(table["variant"].to_pylist()) == {"champion"}
    if task == "binary":
        assert table["score"].to_pylist() == [p["probability"] for p in predictions]
    elif task == "regression":
        assert table["score"].to_pylist() == [p["prediction"] for p in predictions]
        assert table["prediction"].null_count == 4
    else:
        assert table["score"].null_count == 4
        assert table["probabilities"].to_pylist() == [
            list(p["probabilities"].values()) for p in predictions]
    if task != "regression":
        assert table["prediction"].to_pylist() == [p["prediction"] for p in predictions]
    assert not [c for c in table.column_names if c.startswith("feature:")]


def test_features_are_logged_where_asked_and_score_the_same_again(bundles, client, log):
    asked = client(bundles["binary"])
    made, bundle = log(asked, features=True), gpupipe.load(bundles["binary"])
    asked.predict(*RECORDS[:20])
    asked.post("/predict", content=stream(small_table(7).select(list(COLUMNS))),
               headers={"content-type": ARROW})
    asked.predict({**RECORDS[0], "extra": "not the model's"})
    made.close()
    table = logged(made.folder)
    features = table.select([f"feature:{n}" for n in bundle.schema.names])
    features = features.rename_columns(bundle.schema.names)
    assert features.schema.equals(bundle.schema.to_arrow())
    assert bundle.scores(features).tolist() == table["score"].to_pylist()
    assert table.num_rows == 28 and "feature:extra" not in table.column_names


def test_a_log_that_cannot_be_written_breaks_no_answer_and_comes_back(bundles, client, log):
    asked = client(bundles["binary"])
    made = log(asked, every=0.05, rows=1)
    made.folder.write_text("a file is in the way")
    for _ in range(30):  # twenty rows are kept, the others dropped and counted
        assert asked.predict(RECORDS[0]).status_code == 200
    until(lambda: made.failing)
    assert asked.get("/health").json()["status"] == "degraded"
    text = asked.get("/metrics").text
    assert 'gpupipe_log_rows_total{outcome="dropped"} 10' in text
    assert "gpupipe_log_errors_total" in text
    made.folder.unlink()
    until(lambda: not made.failing)
    made.close()
    assert logged(made.folder).num_rows == 20
    assert asked.get("/health").json()["status"] == "ok"
    assert len(made.told) == 2


def test_the_log_is_written_by_time_and_whole_at_the_end(bundles, others, running, tmp_path):
    settings = tmp_path / "serve.yaml"
    settings.write_text(json.dumps({
        "champion": str(bundles["binary"]), "salt": "summer", "unit": "header:x-user",
        "challengers": [{"model": str(others[0]), "share": 0.5}],
        "shadow": [{"model": str(others[1]), "name": "night"}], "workers": 2,
        "log": {"path": "log", "features": True, "every": "500ms"}}))
    server = running("--config", str(settings))
    until(lambda: sum(r["event"] == "serving" for r in server.lines()) == 2)
    for n in range(20):
        assert server.predict(RECORDS[n], headers={"x-user": str(n)}).status_code == 200
    until(lambda: list((tmp_path / "log").glob("date=*/*.parquet")))
    with Load(server.port, RECORDS[0]) as load:
        until(lambda: load.account.statuses[200] > 100)
        server.signal()
        assert server.process.wait(40) == 0
    assert set(load.account.statuses) == {200} and not load.account.lost
    answered = 20 + 3 * load.account.statuses[200]
    table = logged(tmp_path / "log")
    own, shadow = (table.filter(pa.compute.equal(table["shadow"], s)) for s in (False, True))
    assert own.num_rows == answered and not list((tmp_path / "log").rglob("*.tmp"))
    assert len(set(table["prediction_id"].to_pylist())) == table.num_rows
    assert set(own["variant"].to_pylist()) == {"champion", "challenger"}
    assert set(shadow["variant"].to_pylist()) == {"night"}
    # a shadow's id is that of the answer, and its scores are those of its own model
    names = {i.partition("~")[0] for i in shadow["prediction_id"].to_pylist()}
    assert names <= set(own["prediction_id"].to_pylist()) and shadow.num_rows
    bundle = gpupipe.load(others[1])
    features = shadow.select([f"feature:{n}" for n in bundle.schema.names])
    assert bundle.scores(features.rename_columns(bundle.schema.names)).tolist() == shadow[
        "score"].to_pylist()


@pytest.mark.skipif(not SLOW, reason="GPUPIPE_SLOW=1 runs it")
def test_a_shadow_that_fails_or_is_slow_never_touches_the_answer(bundles, running, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(bundles["regression"], other)
    settings = tmp_path / "serve.yaml"
    settings.write_text(json.dumps({
        "champion": str(bundles["binary"]), "shadow": [str(other)], "log": {"path": "log"}}))
    server = running("--config", str(settings))
    with Load(server.port, RECORDS[0]) as load:
        until(lambda: load.account.statuses[200] > 100)
        shutil.rmtree(other)
        until(lambda: load.account.statuses[200] > 200)
    assert set(load.account.statuses) == {200} and not load.account.lost
    time.sleep(1.2)
    assert metric(server, "gpupipe_shadow_total", outcome="sent") > 0
    assert metric(server, "gpupipe_rows_total", variant="shadow") > 0


def test_metrics_have_unseen_values_nulls_and_scores(bundles, client):
    asked = client(bundles["binary"])
    asked.predict({**RECORDS[0], "s": "never seen", "f": None}, {**RECORDS[1], "s": "new too"})
    text = asked.get("/metrics").text
    assert 'gpupipe_unseen_values_total{column="s"} 2' in text
    nulls = 1 + (RECORDS[1]["f"] is None)
    assert f'gpupipe_nulls_total{{column="f"}} {nulls}' in text
    assert 'gpupipe_score_count{variant="champion"} 2' in text
    assert 'gpupipe_requests_total{route="/predict",method="POST",code="200"} 1' in text
    asked.post("/predict", content=b"{")
    assert 'gpupipe_rejections_total{reason="invalid_json"} 1' in asked.get("/metrics").text
    assert Metrics().text() == "\n"
