"""Predictions as bodies of answers: JSON, Arrow, tensors of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pyarrow as pa

from gpupipe.bundle import Bundle
from gpupipe.serve.faults import misfit

Prediction = dict[str, Any]
"""As `Bundle.described` gives it, with its ``id``."""
JSON_TYPES = orjson.OPT_SERIALIZE_NUMPY


def json_body(
    model: str, version: str, variant: str, request_id: str, predictions: Sequence[Prediction]
) -> bytes:
    """The answer of ``/predict``."""
    return orjson.dumps({
        "model": model, "version": version, "variant": variant, "request_id": request_id,
        "predictions": predictions,
    }, option=JSON_TYPES)


def arrow_table(predictions: Sequence[Prediction], classes: Sequence[str]) -> pa.Table:
    """Predictions as a table: ``prediction_id`` and the columns that `gpupipe predict` writes."""
    columns: dict[str, Any] = {}
    for key in predictions[0]:
        values = [p[key] for p in predictions]
        if key == "id":
            columns["prediction_id"] = pa.array(values, pa.string())
        elif key == "probabilities":
            columns |= {f"probability_{c}": pa.array([v[c] for v in values], pa.float64())
                        for c in classes}
        elif key == "set":
            columns |= {f"in_set_{c}": pa.array([c in v for v in values], pa.bool_())
                        for c in classes}
        elif key in ("low", "high"):
            columns[f"prediction_{key}"] = pa.array(values, pa.float64())
        else:
            columns[key] = pa.array(values)
    return pa.table(columns)


def arrow_body(predictions: Sequence[Prediction], classes: Sequence[str]) -> bytes:
    """The same as an Arrow IPC stream."""
    table = arrow_table(predictions, classes)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


DATATYPES = {"string": "BYTES", "double": "FP64", "int64": "INT64", "bool": "BOOL"}
"""The tensor type of each Arrow type of `arrow_table`."""


def tensors_body(
    model: str, version: str, variant: str, request_id: str, predictions: Sequence[Prediction],
    classes: Sequence[str], wanted: Sequence[str] | None,
) -> bytes:
    """The answer of ``/v2/models/NAME/infer``: an output of shape ``[n]`` a column.

    Raises Refused (422) for a wanted output that there is not.
    """
    table = arrow_table(predictions, classes)
    names = table.column_names if wanted is None else list(dict.fromkeys(wanted))
    absent = [n for n in names if n not in table.column_names]
    if absent:
        raise misfit("invalid_request", f"there is no output {absent[0][:80]!r}",
                     hint=f"the outputs are {', '.join(table.column_names)}")
    return orjson.dumps({
        "model_name": model, "model_version": version, "id": request_id,
        "parameters": {"variant": variant},
        "outputs": [{"name": n, "datatype": DATATYPES[str(table.schema.field(n).type)],
                     "shape": [table.num_rows], "data": table.column(n).to_pylist()}
                    for n in names],
    })


def outputs_of(bundle: Bundle) -> list[tuple[str, str]]:
    """Names and tensor types of a bundle's outputs, as `tensors_body` gives them."""
    if bundle.outputs:
        return [("prediction_id", "BYTES"), *((name, "FP64") for name in bundle.outputs)]
    label = "BYTES" if bundle.classes else "FP64"
    found = [("prediction_id", "BYTES"), ("prediction", label)]
    if bundle.task == "binary":
        found.append(("probability", "FP64"))
    else:
        found += [(f"probability_{c}", "FP64") for c in bundle.classes]
    if bundle.coverage is not None:
        found += [(f"in_set_{c}", "BOOL") for c in bundle.classes] or [
            ("prediction_low", "FP64"), ("prediction_high", "FP64")]
    return found
