"""The server answers what the bundle answers, however rows are sent."""

from __future__ import annotations

import json
from datetime import datetime

import pyarrow as pa
import pytest
from common.quick import COLUMNS, small_table
from serve.conftest import RECORDS, TASKS

import gpupipe
from gpupipe.serve.decode import ARROW

TABLE = small_table(40, seed=3).select(list(COLUMNS))


def expected(bundle: gpupipe.Bundle) -> list[dict]:
    return bundle.predict_records(TABLE.to_pylist())


def without_ids(predictions: list[dict]) -> list[dict]:
    return [{k: v for k, v in p.items() if k != "id"} for p in predictions]


def stream(table: pa.Table, **options) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("task", TASKS)
def test_records_columns_and_arrow_are_answered_as_the_bundle_answers(task, bundles, client):
    bundle, asked = gpupipe.load(bundles[task]), client(bundles[task])
    columns = {name: [r[name] for r in RECORDS] for name in COLUMNS}
    for answer in (
        asked.post("/predict", json={"records": RECORDS}),
        asked.post("/predict", json={"columns": columns}),
        asked.post("/predict", content=stream(TABLE), headers={"content-type": ARROW}),
    ):
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert without_ids(body["predictions"]) == expected(bundle)
        assert len({p["id"] for p in body["predictions"]}) == len(RECORDS)
        assert body["version"] == answer.headers["x-model-version"]
        assert body["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_in_arrow_has_the_columns_of_gpupipe_predict(task, bundles, client):
    from gpupipe.scoring import scored_table

    bundle = gpupipe.load(bundles[task])
    answer = client(bundles[task]).post("/predict", json={"records": RECORDS},
                                        headers={"accept": ARROW})
    assert answer.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.drop(["prediction_id"]).equals(
        scored_table(bundle, TABLE, [], 0).drop(["row"]))


@pytest.mark.parametrize("task", TASKS)
def test_the_open_inference_protocol_has_a_tensor_a_column(task, bundles, client):
    bundle, asked = gpupipe.load(bundles[task]), client(bundles[task], name="churn")
    about = asked.get("/v2/models/churn").json()
    assert [i["name"] for i in about["inputs"]] == bundle.schema.names
    for shape, data in (([40], lambda v: v), ([40, 1], lambda v: v), ([40, 1], lambda v: [v])):
        inputs = [{"name": i["name"], "datatype": i["datatype"], "shape": shape,
                   "data": [data(r[i["name"]]) for r in RECORDS]} for i in about["inputs"]]
        answer = asked.post("/v2/models/churn/infer", json={"id": "mine", "inputs": inputs})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["model_name"], body["id"]) == ("churn", "mine")
        assert [(o["name"], o["datatype"]) for o in body["outputs"]] == [
            (o["name"], o["datatype"]) for o in about["outputs"]]
        found = {o["name"]: o["data"] for o in body["outputs"]}
        assert found["prediction"] == [p["prediction"] for p in expected(bundle)]
        if task == "binary":
            assert found["probability"] == [p["probability"] for p in expected(bundle)]
    only = asked.post("/v2/models/churn/infer", json={
        "inputs": inputs, "outputs": [{"name": "prediction"}]}).json()
    assert [o["name"] for o in only["outputs"]] == ["prediction"]
    assert asked.get("/v2/models/churn/ready").json()["ready"] is True
    assert asked.get("/v2/models/other").status_code == 404
    assert asked.post("/v2/models/other/infer", json={"inputs": inputs}).status_code == 404


def test_a_request_id_is_kept_where_it_is_sane(bundles, client):
    asked = client(bundles["binary"])
    assert asked.predict(RECORDS[0], **{"x-request-id": "a-1"}).headers["x-request-id"] == "a-1"
    for odd in ("a b", "x" * 200, 'a"b'):
        answer = asked.predict(RECORDS[0], **{"x-request-id": odd})
        assert answer.headers["x-request-id"] != odd
    first, second = (asked.predict(RECORDS[0]).headers["x-request-id"] for _ in range(2))
    assert first != second


def test_other_fields_are_ignored_and_counted(bundles, client):
    asked = client(bundles["binary"])
    plain = asked.predict(RECORDS[0]).json()["predictions"]
    more = asked.predict({**RECORDS[0], "extra": 1, "another": []}).json()["predictions"]
    assert without_ids(plain) == without_ids(more)
    assert "gpupipe_ignored_fields_total 2" in asked.get("/metrics").text


def test_log_lines_are_json_and_hold_no_value_of_a_row(bundles, client, capfdbinary):
    asked = client(bundles["binary"], access_log=True)
    odd = '/"\\\n\x00ü\u2028'
    asked.predict({**RECORDS[0], "s": "secret"}, **{"x-request-id": "mine"})
    asked.get("/%22%5C%0A%00%C3%BC%E2%80%A8")
    asked.predict({**RECORDS[0], "f": "secret"})
    asked.app.lines.tell("odd", path=odd, value=object)
    asked.app.lines.flush()
    text = capfdbinary.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    assert [r["event"] for r in lines] == ["request"] * 3 + ["odd"]
    assert lines[0]["request_id"] == "mine" and lines[0]["status"] == 200
    assert b"secret" not in text
    for line in lines:
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
