"""A server's own log: its lists of probabilities are no metric, and in nobody's way."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from gpupipe.experiment.workflow import analyse
from gpupipe.serve.predictions import SCHEMA


def test_a_log_is_analysed_although_it_has_lists_of_probabilities(tmp_path):
    n = 400
    log = pa.table({
        "prediction_id": [f"p{i}" for i in range(n)], "request_id": [f"r{i}" for i in range(n)],
        "unit_id": [f"u{i}" for i in range(n)],
        "time": pa.array([1_700_000_000_000_000 + i for i in range(n)], pa.timestamp("us", "UTC")),
        "model": ["m"] * n, "version": ["1"] * n,
        "variant": ["champion", "challenger"] * (n // 2), "shadow": [False] * n,
        "score": pa.nulls(n, pa.float64()), "probabilities": [[0.2, 0.3, 0.5]] * n,
        "prediction": ["a"] * n,
    }).cast(SCHEMA)
    folder = tmp_path / "log" / "date=2023-11-14"
    folder.mkdir(parents=True)
    pq.write_table(log, folder / "part-1.parquet")
    outcomes = pa.table({"prediction_id": [f"p{i}" for i in range(n)],
                         "value": [float(i % 2) + i % 7 for i in range(n)]})
    found = analyse(str(tmp_path / "log"), given={"metrics": ["value"]}, outcomes=outcomes,
                    on="prediction_id")
    assert {a["name"]: a["units"] for a in found["arms"]} == {"champion": 200, "challenger": 200}
    assert abs(found["metrics"][0]["effects"][0]["difference"]["value"] - 1) < 0.2
