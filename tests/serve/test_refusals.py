"""What does not fit is refused with row and column, and nothing that a client sends is a 5xx."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from common.quick import COLUMNS, small_table
from serve.conftest import RECORDS
from serve.test_answers import stream

from gpupipe.serve.decode import ARROW
from gpupipe.serve.faults import CODES

GOOD = RECORDS[0]
TABLE = small_table(5, seed=3).select(list(COLUMNS))


def records(*rows) -> bytes:
    return json.dumps({"records": list(rows)}).encode()


def spelled(column: str, text: str, row: int = 0) -> bytes:
    """Rows with one value spelled as ``text``."""
    marked = [dict(GOOD) for _ in range(row + 1)]
    marked[row][column] = "@@"
    return records(*marked).replace(b'"@@"', text.encode())


VALUES = [
    ("f", '"1.5"', "wrong_type"), ("f", "true", "wrong_type"), ("f", "[1]", "wrong_type"),
    ("f", "{}", "wrong_type"), ("f", "NaN", "not_finite"), ("f", "Infinity", "not_finite"),
    ("f", "-Infinity", "not_finite"), ("i", "1.5", "wrong_type"), ("i", '"1"', "wrong_type"),
    ("i", "true", "wrong_type"), ("i", "9223372036854775808", "out_of_range"),
    ("i", "-9223372036854775809", "out_of_range"), ("i", "1e300", "out_of_range"),
    ("i", "99999999999999999999999999", "out_of_range"), ("b", "1", "wrong_type"),
    ("b", '"true"', "wrong_type"), ("s", "1", "wrong_type"), ("s", "false", "wrong_type"),
    ("s", '["a"]', "wrong_type"), ("t", "0", "wrong_type"), ("t", '"yesterday"', "wrong_type"),
    ("narrow", "1e300", "out_of_range"), ("narrow", '"1"', "wrong_type"),
    ("t", '"2026-02-30"', "wrong_type"), ("t", '"0001-01-01T00:00:00+14:00"', "wrong_type"),
]


@pytest.mark.parametrize(("column", "text", "code"), VALUES)
@pytest.mark.parametrize("row", [0, 2])
def test_a_value_that_does_not_fit_is_named(column, text, code, row, shared):
    answer = shared.post("/predict", content=spelled(column, text, row))
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["row"], error["column"]) == (code, row, column)
    assert code in CODES[422]


@pytest.mark.parametrize(("column", "text"), [
    ("f", "1e308"), ("f", "9007199254740993"), ("f", "18446744073709551615"), ("f", "-0.0"),
    ("f", "123456789012345678901234567890"), ("narrow", "3.4e38"), ("i", "3.0"),
    ("i", "9223372036854775807"), ("i", "-9223372036854775808"), ("s", '"\\u0000"'),
    ("s", '"' + "x" * 10_000 + '"'), ("t", '"2026-01-31"'), ("t", '"9999-12-31T23:59:59Z"'),
    ("t", '"0001-01-01T00:00:00Z"'), *[(c, "null") for c in COLUMNS],
])
def test_odd_values_of_the_right_type_are_answered(column, text, shared):
    answer = shared.post("/predict", content=spelled(column, text))
    assert answer.status_code == 200, answer.text


BODIES = [
    b"", b"{", b"[]", b"null", b"1", b'"a"', b"{}", b'{"records": []}', b'{"records": null}',
    b'{"records": {}}', b'{"records": [1]}', b'{"records": [[]]}', b'{"columns": {}}',
    b'{"columns": []}', b'{"columns": {"f": 1}}', b'{"columns": {"f": [1], "i": [1, 2]}}',
    b'{"columns": {"f": []}}', b'{"records": [], "columns": {}}', b'{"record": []}',
    b"[" * 100_000, b'{"records":' * 20_000, b'{"records": [' + b"[" * 1500 + b"]" * 1500 + b"]}",
    b"\xff\xfe\x00", b'{"records": [{"\xff": 1}]}', b'{"records": [{"s": "\\ud800"}]}',
    b'{"records": [{"f": ' + b"9" * 5000 + b"}]}", b"\x00" * 100, b"{'records': []}",
    b'{"records": [{}]}', records({}), records({k: GOOD[k] for k in COLUMNS[1:]}),
]


@pytest.mark.parametrize("path", ["/predict", "/v2/models/m/infer"])
@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_body_that_is_no_request_is_a_422(body, path, shared):
    answer = shared.post(path, content=body)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert error["code"] in CODES[422] and error["message"] and len(answer.content) < 2000


def test_a_missing_column_is_named_with_one_that_is_near(shared):
    record = {("F" if k == "f" else k): v for k, v in GOOD.items()}
    error = shared.predict(GOOD, record).json()["error"]
    assert (error["code"], error["row"], error["column"]) == ("missing_column", 1, "f")
    assert "'F'" in error["hint"]


def test_of_a_key_that_is_there_twice_the_last_counts(shared):
    asked = shared
    twice = records(GOOD).replace(b'"f":', b'"f": 99.5, "f":')
    plain = asked.predict(GOOD).json()["predictions"][0]["probability"]
    assert asked.post("/predict", content=twice).json()["predictions"][0]["probability"] == plain


TENSOR = {"name": "f", "datatype": "FP64", "shape": [1], "data": [1.0]}


@pytest.mark.parametrize("change", [
    {"name": 1}, {"datatype": "FP65"}, {"datatype": None}, {"shape": [2]}, {"shape": [1, 2]},
    {"shape": [-1]}, {"shape": "1"}, {"shape": [1.0]}, {"shape": []}, {"shape": [1, 1, 1]},
    {"data": None}, {"data": {}}, {"data": ["a"]}, {"data": [True]}, {"data": [[1.0]]},
    {"shape": [10**30]},
])
def test_a_tensor_that_does_not_fit_is_a_422(change, shared):
    answer = shared.post(
        "/v2/models/m/infer", json={"inputs": [{**TENSOR, **change}]})
    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("more", [{"id": 1}, {"id": "x" * 200}, {"outputs": {}},
                                  {"outputs": ["a"]}, {"parameters": []},
                                  {"outputs": [{"name": "other"}]}])
def test_the_rest_of_an_inference_request_is_checked_too(more, shared):
    asked = shared
    about = asked.get("/v2/models/m").json()
    inputs = [{"name": i["name"], "datatype": i["datatype"], "shape": [1],
               "data": [GOOD[i["name"]]]} for i in about["inputs"]]
    assert asked.post("/v2/models/m/infer", json={"inputs": inputs}).status_code == 200
    assert asked.post("/v2/models/m/infer", json={"inputs": inputs, **more}).status_code == 422
    twice = [*inputs, inputs[0]]
    assert asked.post("/v2/models/m/infer", json={"inputs": twice}).status_code == 422


def bad_streams() -> dict[str, bytes]:
    whole = stream(TABLE)
    rng = np.random.default_rng(0)
    nulls = pa.table({name: pa.nulls(1, pa.null()) for name in COLUMNS})
    many = stream(pa.table({name: pa.nulls(1000, pa.null()) for name in COLUMNS})).replace(
        (1000).to_bytes(8, "little"), (2**40).to_bytes(8, "little"))
    wide = pa.table({"f": pa.array(np.zeros(3_000_000))})
    out_of_reach = pa.DictionaryArray.from_arrays(
        pa.array([0, 77, 0, 0, 0], pa.int32()), ["a"], safe=False)
    found = {
        "empty": b"", "json": b'{"records": []}', "cut": whole[: len(whole) // 2],
        "head alone": whole[:16], "no batch": stream(TABLE.slice(0, 0)), "nulls": stream(nulls),
        "2^40 rows of nothing": many,
        "zstd bomb": stream(wide, options=pa.ipc.IpcWriteOptions(compression="zstd")),
        "indices out of reach": stream(TABLE.set_column(4, "s", out_of_reach)),
        "nested": stream(TABLE.set_column(0, "f", pa.array([[1.0]] * 5))),
        "text for a number": stream(TABLE.set_column(0, "f", pa.array(["one"] * 5))),
        "binary": stream(TABLE.set_column(4, "s", pa.array([b"\xff"] * 5))),
        "twice": stream(pa.Table.from_arrays([*TABLE.columns, TABLE.column(0)],
                                             names=[*TABLE.column_names, "f"])),
        "lacks": stream(TABLE.drop(["f"])),
        "uint64": stream(TABLE.set_column(2, "i", pa.array([2**64 - 1] * 5, pa.uint64()))),
        "fraction": stream(TABLE.set_column(2, "i", pa.array([0.5] * 5))),
        "legacy": whole.replace(b"\xff\xff\xff\xff", b"", 1),
    }
    for n in range(60):
        bent = bytearray(whole)
        for place in rng.integers(0, len(bent), rng.integers(1, 6)):
            bent[place] = rng.integers(0, 256)
        found[f"bent {n}"] = bytes(bent)
    return found


STREAMS = bad_streams()


@pytest.mark.parametrize("name", STREAMS)
def test_a_bad_arrow_stream_is_refused_or_harmless(name, shared):
    answer = shared.post("/predict", content=STREAMS[name],
                                            headers={"content-type": ARROW})
    bent = name.startswith("bent") or name == "nulls"
    assert answer.status_code == 422 or (bent and answer.status_code == 200), answer.text
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]


def test_an_arrow_stream_may_have_dictionaries_zones_and_other_integers(shared):
    asked = shared
    plain = asked.post("/predict", content=stream(TABLE), headers={"content-type": ARROW}).json()
    other = TABLE.set_column(4, "s", TABLE.column("s").dictionary_encode())
    other = other.set_column(2, "i", other.column("i").cast(pa.int8()))
    other = other.set_column(5, "t", other.column("t").cast(pa.timestamp("us", "UTC")))
    for sent in (other, other.select(COLUMNS[::-1])):
        body = asked.post("/predict", content=stream(sent), headers={"content-type": ARROW}).json()
        assert [p["probability"] for p in body["predictions"]] == [
            p["probability"] for p in plain["predictions"]]


def test_limits_are_kept_to(bundles, client):
    asked = client(bundles["binary"], limits={"rows": 3, "body": "2kB"})
    assert asked.predict(*[GOOD] * 3).status_code == 200
    too_many = asked.predict(*[GOOD] * 4)
    assert (too_many.status_code, too_many.json()["error"]["code"]) == (422, "too_many_rows")
    long = asked.predict({**GOOD, "s": "x" * 3000})
    assert (long.status_code, long.json()["error"]["code"]) == (413, "body_too_large")
    table = asked.post("/predict", content=stream(TABLE), headers={"content-type": ARROW})
    assert table.json()["error"]["code"] == "too_many_rows"
    columns = {name: [GOOD[name]] * 4 for name in COLUMNS}
    assert asked.post("/predict", json={"columns": columns}).status_code == 422


@pytest.mark.parametrize(("headers", "status"), [
    ({"content-type": "text/csv"}, 415), ({"content-encoding": "gzip"}, 415),
    ({"accept": "text/html"}, 406), ({"content-type": "application/json; charset=utf-8"}, 200),
    ({"accept": "text/html, */*;q=0.1"}, 200), ({"content-encoding": "identity"}, 200),
    ({"content-type": ARROW}, 422),
])
def test_media_types_are_said(headers, status, shared):
    answer = shared.post("/predict", content=records(GOOD), headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_method_is_a_405_that_names_the_right_one(method, shared):
    answer = shared.request(method, "/predict")
    assert answer.status_code == 405 and answer.headers["allow"] == "POST"
    answer = shared.request("POST", "/metrics")
    assert answer.status_code == 405 and answer.headers["allow"] == "GET"
    assert shared.get("/other").json()["error"]["code"] == "not_found"


def test_keys_are_asked_for_but_for_health(bundles, client, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# mine\nfirst-key-of-16-characters\n\nsecond-key-of-16-characters\n")
    asked = client(bundles["binary"], api_keys=str(keys))
    for path in ("/metrics", "/docs", "/openapi.json", "/v2", "/v2/models/pipeline", "/other"):
        assert asked.get(path).status_code == 401
    for path in ("/health", "/health/live", "/health/ready", "/v2/health/live"):
        assert asked.get(path).status_code == 200
    refused = asked.predict(GOOD)
    assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
    for headers, status in (
        ({"x-api-key": "first-key-of-16-characters"}, 200),
        ({"authorization": "Bearer second-key-of-16-characters"}, 200),
        ({"authorization": "bearer second-key-of-16-characters"}, 200),
        ({"authorization": "Basic second-key-of-16-characters"}, 401),
        ({"x-api-key": "first-key-of-16-character"}, 401), ({"x-api-key": "# mine"}, 401),
        ({"x-api-key": ""}, 401), ({"authorization": "Bearer"}, 401),
        ({"x-api-key": "ü" * 20}, 401),
    ):
        given = {k: v.encode("latin-1") for k, v in headers.items()}
        assert asked.predict(GOOD, **given).status_code == status, headers
    assert asked.post("/admin/reload").status_code == 401


def test_a_reload_by_request_needs_keys(shared):
    assert shared.post("/admin/reload").status_code == 403
