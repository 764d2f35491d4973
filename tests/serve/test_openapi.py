"""The OpenAPI document is true: what it allows is answered, and what it forbids is refused."""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serve.conftest import RECORDS, TASKS

from gpupipe.serve.app import App
from gpupipe.serve.lines import Lines
from gpupipe.serve.metrics import Metrics
from gpupipe.serve.models import answering, deploy
from gpupipe.serve.settings import load_settings

SLOW = os.environ.get("GPUPIPE_SLOW")
EXAMPLES = 60 if SLOW else 8


@pytest.mark.parametrize("task", TASKS if SLOW else TASKS[:1])
def test_the_server_keeps_to_its_document(task, bundles):
    config = load_settings(None, {"champion": str(bundles[task]), "access_log": False})
    app = App(config, deploy(answering(config)), Metrics(), Lines())
    described = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) == 12
    for operation in operations:
        posts = bool(operation.body)
        for mode in GenerationMode:
            if posts or mode is GenerationMode.POSITIVE:
                hold(operation, mode, EXAMPLES if posts else 2)
    app.close()


def hold(operation: Any, mode: GenerationMode, examples: int) -> None:
    """Send what the document allows (or forbids), and hold the answers to all checks."""

    @settings(max_examples=examples, deadline=None, database=None,
              suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def held(case: schemathesis.Case) -> None:
        answer = case.call()
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])
        if mode is GenerationMode.POSITIVE and answer.status_code == 422:
            # JSON Schema cannot say that lists are of one length, that each input is there once,
            # what an Arrow stream is, or how far a float32 reaches.
            allowed = ("invalid_arrow", "invalid_request", "out_of_range")
            assert answer.json()["error"]["code"] in allowed, answer.text

    held()


def test_the_document_has_a_property_a_column_and_every_status(bundles, client):
    asked = client(bundles["binary"])
    found = asked.get("/openapi.json").json()
    record = found["components"]["schemas"]["Record"]
    assert list(record["properties"]) == record["required"] == list(RECORDS[0])
    types = {name: p["type"] for name, p in record["properties"].items()}
    assert types["i"] == ["integer", "null"] and types["b"] == ["boolean", "null"]
    assert set(found["paths"]["/predict"]["post"]["responses"]) == {
        "200", "405", "406", "408", "413", "415", "422", "500", "503"} - {"405", "500"}
    assert "swagger" in asked.get("/docs").text
