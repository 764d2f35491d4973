"""Evidently's data drift report of one table against another, as its documentation has it.

    python evidently_report.py REFERENCE.parquet CURRENT.parquet ROWS

Reads the first ROWS rows of the feature columns; prints ``{"seconds", "drifted"}`` as JSON.
"""

import json
import sys
import time
import warnings

import pyarrow.parquet as pq
from evidently import Dataset, Report
from evidently.presets import DataDriftPreset

warnings.simplefilter("ignore")


def main() -> None:
    started = time.perf_counter()
    reference_file, current_file, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
    prefix = "feature:"
    names = [n for n in pq.read_schema(current_file).names if n.startswith(prefix)]
    file, batches, left = pq.ParquetFile(current_file), [], rows
    for batch in file.iter_batches(131_072, columns=names):
        batches.append(batch.slice(0, left))
        left -= batches[-1].num_rows
        if left <= 0:
            break
    import pyarrow as pa

    current = pa.Table.from_batches(batches).to_pandas()
    current.columns = [n.removeprefix(prefix) for n in current.columns]
    reference = pq.read_table(reference_file, columns=list(current.columns)).to_pandas()
    report = Report([DataDriftPreset()])
    found = report.run(Dataset.from_pandas(current), Dataset.from_pandas(reference)).dict()
    print(json.dumps({"seconds": time.perf_counter() - started,
                      "drifted": found["metrics"][0]["value"]["count"]}))


main()
