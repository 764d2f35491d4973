"""The OpenAPI document, written from the bundle's schema."""

from __future__ import annotations

from typing import Any

from gpupipe.bundle import Bundle
from gpupipe.serve import decode
from gpupipe.serve.faults import CODES
from gpupipe.serve.models import Deployment
from gpupipe.serve.rows import LEAST, MOST
from gpupipe.serve.settings import ServeConfig

Json = dict[str, Any]
FORMATS = {"float64": "double", "float32": "float"}
TENSORS = {"float64": "FP64", "float32": "FP64", "int64": "INT64", "bool": "BOOL",
           "string": "BYTES", "timestamp": "BYTES"}
ID_HEADER: Json = {"X-Request-Id": {"schema": {"type": "string"}}}


def tensor_type(dtype: str) -> str:
    """The Open Inference Protocol's name of a column type."""
    return TENSORS[dtype]


def value_schema(dtype: str) -> Json:
    """JSON Schema of one value of a column; null is a missing one."""
    if dtype in FORMATS:  # without bounds: an integer just above one is read as the bound
        return {"type": ["number", "null"], "format": FORMATS[dtype]}
    if dtype == "int64":
        return {"type": ["integer", "null"], "minimum": LEAST, "maximum": MOST}
    if dtype == "bool":
        return {"type": ["boolean", "null"]}
    if dtype == "timestamp":
        return {"type": ["string", "null"], "format": "date-time"}
    return {"type": ["string", "null"]}


def document(deployment: Deployment, settings: ServeConfig, keys: bool) -> Json:
    """The whole document."""
    model = deployment.champion
    bundle, rows = model.bundle, settings.limits.rows
    record: Json = {
        "type": "object", "properties": {f.name: value_schema(f.dtype) for f in bundle.schema},
        "required": bundle.schema.names,
        "description": "A row: every column of the model, null for a missing value. "
                       "Other fields are ignored, and counted.",
    }
    columns: Json = {
        "type": "object", "required": bundle.schema.names, "minProperties": 1,
        "properties": {f.name: {"type": "array", "items": value_schema(f.dtype), "minItems": 1,
                                "maxItems": rows} for f in bundle.schema},
        "additionalProperties": {"type": "array", "minItems": 1, "maxItems": rows},
        "description": "Lists of the same length, one a column.",
    }
    schemas: Json = {
        "Record": record, "Columns": columns,
        "PredictRequest": {"oneOf": [
            {"type": "object", "required": ["records"], "additionalProperties": False,
             "properties": {"records": {"type": "array", "minItems": 1, "maxItems": rows,
                                        "items": _ref("Record")}}},
            {"type": "object", "required": ["columns"], "additionalProperties": False,
             "properties": {"columns": _ref("Columns")}},
        ]},
        "Prediction": prediction_schema(bundle),
        "PredictResponse": _object(
            model={"type": "string"}, version={"type": "string"}, variant={"type": "string"},
            request_id={"type": "string"},
            predictions={"type": "array", "items": _ref("Prediction")}),
        "InferRequest": infer_schema(bundle, rows),
        "InferResponse": _object(
            model_name={"type": "string"}, model_version={"type": "string"},
            id={"type": "string"}, parameters={"type": "object"},
            outputs={"type": "array", "items": _object(
                name={"type": "string"}, datatype={"type": "string"},
                shape={"type": "array", "items": {"type": "integer"}}, data={"type": "array"})}),
        "Error": _object(
            error=_object(
                code={"type": "string", "enum": [c for codes in CODES.values() for c in codes]},
                message={"type": "string"}, hint={"type": ["string", "null"]},
                row={"type": ["integer", "null"]}, column={"type": ["string", "null"]}),
            request_id={"type": "string"}),
    }
    components: Json = {"schemas": schemas}
    described: Json = {
        "openapi": "3.1.0",
        "info": {"title": model.name, "version": model.version, "description":
                 f"A {bundle.task} model served by gpupipe. Missing values are null; NaN and "
                 "Infinity are no JSON and refused."},
        "paths": _paths(model.name), "components": components,
    }
    if keys:
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, item in described["paths"].items():
            for operation in item.values():
                operation["security"] = [] if "health" in path else [{"bearer": []}, {"key": []}]
                if "health" not in path:
                    operation["responses"]["401"] = _error("No valid key.")
    return described


def prediction_schema(bundle: Bundle) -> Json:
    """JSON Schema of one prediction."""
    identity: Json = {"id": {"type": "string"}}
    number: Json = {"type": ["number", "null"]}
    if bundle.outputs:
        return {"type": "object", "properties": identity, "required": ["id"]}
    if not bundle.classes:
        found = {**identity, "prediction": number}
    elif bundle.task == "binary":
        found = {**identity, "prediction": {"enum": bundle.classes}, "probability": number}
    else:
        found = {**identity, "prediction": {"enum": bundle.classes}, "probabilities":
                 _object(**dict.fromkeys(bundle.classes, number))}
    if bundle.coverage is not None:
        found |= {"set": {"type": "array", "items": {"enum": bundle.classes}}} if bundle.classes \
            else {"low": number, "high": number}
    return _object(**found)


def infer_schema(bundle: Bundle, rows: int) -> Json:
    """JSON Schema of a request of the Open Inference Protocol."""
    tensors = []
    for f in bundle.schema:
        value = value_schema(f.dtype)
        tensors.append({
            "type": "object", "required": ["name", "datatype", "shape", "data"],
            "properties": {
                "name": {"const": f.name}, "datatype": {"const": tensor_type(f.dtype)},
                "shape": {"type": "array", "minItems": 1, "maxItems": 2,
                          "items": {"type": "integer", "minimum": 1, "maximum": rows}},
                "data": {"type": "array", "items": value, "minItems": 1, "maxItems": rows},
                "parameters": {"type": "object"}},
        })
    return {
        "type": "object", "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "maxLength": 128}, "parameters": {"type": "object"},
            "inputs": {"type": "array", "minItems": len(tensors),
                       "items": {"anyOf": tensors}, "description":
                       "A tensor of shape [n] or [n, 1] for every column."},
            "outputs": {"type": "array", "items": {
                "type": "object", "required": ["name"],
                "properties": {"name": {"type": "string"}}}},
        },
    }


def _paths(name: str) -> Json:
    def get(about: str, schema: Json | None = None, *, ready: bool = False,
            text: bool = False) -> Json:
        content: Json = {"text/plain": {"schema": {"type": "string"}}} if text else \
            {"application/json": {"schema": schema or {"type": "object"}}}
        responses = {"200": {"description": about, "headers": ID_HEADER, "content": content}}
        if ready:
            responses["503"] = _error("Not ready.")
        return {"get": {"summary": about, "responses": responses}}

    arrow: Json = {decode.ARROW: {"schema": {"type": "string", "format": "binary"}}}
    answers = {"X-Model-Name", "X-Model-Version", "X-Model-Variant", "X-Request-Id"}
    headers: Json = {h: {"required": True, "schema": {"type": "string"}} for h in sorted(answers)}
    refusals = {
        "406": _error("Neither JSON nor Arrow is accepted."),
        "408": _error("The body did not arrive in time."),
        "413": _error("Too many bytes."),
        "415": _error("Neither JSON nor Arrow was sent, or it was compressed."),
        "422": _error("The body does not fit the model; row and column say where."),
        "503": _error("Too many requests wait; Retry-After says when to come back.",
                      {"Retry-After": {"required": True, "schema": {"type": "string"}}}),
    }
    model = f"/v2/models/{name}"
    return {
        "/predict": {"post": {
            "summary": "Predictions of rows.",
            "parameters": [{"name": "X-Request-Id", "in": "header", "required": False,
                            "schema": {"type": "string"}}],
            "requestBody": {"required": True, "content": {
                "application/json": {"schema": _ref("PredictRequest")}, **arrow}},
            "responses": {"200": {
                "description": "A prediction for each row, in their order.", "headers": headers,
                "content": {"application/json": {"schema": _ref("PredictResponse")}, **arrow}},
                **refusals}}},
        f"{model}/infer": {"post": {
            "summary": "Predictions, by the Open Inference Protocol.",
            "requestBody": {"required": True, "content": {
                "application/json": {"schema": _ref("InferRequest")}}},
            "responses": {"200": {
                "description": "A tensor for each output.", "headers": headers,
                "content": {"application/json": {"schema": _ref("InferResponse")}}},
                **refusals}}},
        "/v2": get("The server, by the Open Inference Protocol."),
        model: get("The model's inputs and outputs."),
        f"{model}/ready": get("Whether the model answers.", ready=False) | {},
        "/v2/health/live": get("Whether the server runs."),
        "/v2/health/ready": get("Whether the server answers."),
        "/health": get("The state of models and prediction log."),
        "/health/live": get("Whether the server runs."),
        "/health/ready": get("Whether the server takes requests.", ready=True),
        "/metrics": get("Prometheus metrics.", text=True),
        "/admin/reload": {"post": {
            "summary": "Look for other versions now.", "responses": {
                "202": {"description": "They are looked for.", "content": {
                    "application/json": {"schema": {"type": "object"}}}},
                "403": _error("The server has no keys.")}}},
    }


def _error(about: str, headers: Json | None = None) -> Json:
    return {"description": about, "headers": {**ID_HEADER, **(headers or {})},
            "content": {"application/json": {"schema": _ref("Error")}}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}
