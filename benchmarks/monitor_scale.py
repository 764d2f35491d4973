"""Ten million predictions of thirty features in one scan: time and peak memory, beside Evidently.

    python benchmarks/monitor_scale.py --out benchmarks/results/monitor_scale.json
    python benchmarks/monitor_scale.py --evidently VENV/bin/python --rows 10000000 --few 1000000

A log of ``--rows`` predictions over ten days (24 columns of floats, 3 of whole numbers, 3 of text)
is watched by `gpupipe monitor --window 1d`. Evidently judges the first ``--few`` rows of it against
the same training rows, with its drift preset; gpupipe judges those too, by turns. Each run is a
process of its own, from start to exit; peak memory is the kernel's. Exit code 1 if more than 1 GiB
is taken, or gpupipe is not ten times as fast on the rows that both judge.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import gpupipe

DATA = Path(__file__).parent / "data" / "monitor"
TRAIN = 50_000
GROUP = 131_072
START = 1_700_006_400_000_000
DAY = 86_400_000_000
LIMIT = 1 << 30


def features(n: int, rng: np.random.Generator) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for i in range(24):
        values = rng.lognormal(0, 1, n) if i % 3 == 0 else rng.normal(10 * i, 1 + i, n)
        found[f"n{i}"] = pa.array(values, mask=rng.random(n) < 0.05) if i % 8 == 7 else values
    for i in range(3):
        found[f"k{i}"] = rng.integers(0, 20 * (i + 1), n)
    for i in range(3):
        levels = pa.array([f"level {j}" for j in range(5 * (i + 1))])
        codes = rng.integers(0, len(levels), n).astype(np.int32)
        found[f"s{i}"] = pa.DictionaryArray.from_arrays(codes, levels)
    return found


def trained() -> Path:
    """A run on `TRAIN` rows."""
    latest = DATA / "runs" / "latest"
    if not latest.exists():
        DATA.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        table = features(TRAIN, rng)
        signal = np.asarray(table["n1"]) / 10 + rng.logistic(size=TRAIN)
        table["y"] = np.where(signal > np.median(signal), "yes", "no").tolist()
        pq.write_table(pa.table(table), DATA / "train.parquet")
        gpupipe.run({
            "data": {"source": str(DATA / "train.parquet"), "target": "y"}, "explain": False,
            "model": {"kind": "xgboost", "n_estimators": 20}, "split": {"folds": 3},
            "evaluate": {"baselines": [], "resamples": 50}}, runs=DATA / "runs")
    return latest


def log(rows: int, name: str) -> Path:
    """A prediction log of so many rows, in one file, over ten days."""
    path = DATA / name
    if path.exists() and pq.read_metadata(path).num_rows == rows:
        return path
    rng, done, writer = np.random.default_rng(1), 0, None
    whole = 10_000_000
    while done < rows:
        n = min(GROUP, rows - done)
        number = np.arange(done, done + n)
        ids = pa.array(number).cast(pa.string())
        table: dict[str, Any] = {
            "prediction_id": ids, "request_id": ids, "unit_id": pa.nulls(n, pa.string()),
            "time": pa.array(START + number * (10 * DAY // whole), pa.timestamp("us", "UTC")),
            "model": pa.repeat("pipeline", n), "version": pa.repeat("1", n),
            "variant": pa.repeat("champion", n), "shadow": np.zeros(n, bool),
            "score": rng.beta(2, 2, n), "prediction": pa.repeat("yes", n)}
        table |= {f"feature:{c}": v for c, v in features(n, rng).items()}
        made = pa.table(table)
        writer = writer or pq.ParquetWriter(path, made.schema, compression="lz4")
        writer.write_table(made, row_group_size=GROUP)
        done += n
    assert writer is not None
    writer.close()
    return path


def measured(command: list[str]) -> dict[str, Any]:
    """Wall and CPU seconds, and the peak memory, of a process; its last line as JSON."""
    started = time.perf_counter()
    read, write = os.pipe()
    child = subprocess.Popen(command, stdout=write, stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as out:
        text = out.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if child.returncode not in (0, 4):
        raise SystemExit(f"{command[:3]} ended with {child.returncode}")
    answer = json.loads(text.strip().splitlines()[-1])
    return {"wall": seconds, "cpu": usage.ru_utime + usage.ru_stime,
            "peak_mib": usage.ru_maxrss / 1024, "answer": answer}


def watched(run: Path, path: Path) -> dict[str, Any]:
    """`gpupipe monitor` on a log."""
    found = measured([sys.executable, "-m", "gpupipe.cli", "monitor", str(run), str(path),
                      "--window", "1d", "--json"])
    answer = found.pop("answer")
    return {**found, "rows": answer["scanned"]["rows"], "windows": len(answer["windows"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--few", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--evidently", help="the Python of an environment with evidently")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    run = trained()
    few, many = log(asked.few, "few.parquet"), log(asked.rows, "many.parquet")
    result: dict[str, Any] = {"features": 30, "load_before": os.getloadavg()[0]}
    ours, theirs = [], []
    script = Path(__file__).parent / "rivals" / "evidently_report.py"
    for _ in range(asked.runs):
        ours.append(watched(run, few))
        if asked.evidently:
            theirs.append(measured([asked.evidently, str(script), str(DATA / "train.parquet"),
                                    str(few), str(asked.few)]))
    result["few"] = {"rows": asked.few, "gpupipe": ours, "evidently": theirs}
    result["many"] = watched(run, many)
    failed = []
    if result["many"]["peak_mib"] > LIMIT / 2**20:
        failed.append(f"{result['many']['peak_mib']:.0f} MiB were taken")
    for key in ("wall", "cpu", "peak_mib") if theirs else ():
        medians = [statistics.median(r[key] for r in runs) for runs in (ours, theirs)]
        result["few"][f"{key}_ratio"] = medians[1] / medians[0]
    if theirs and result["few"]["wall_ratio"] < 10:
        failed.append(f"{result['few']['wall_ratio']:.1f} times as fast as Evidently")
    result["failed"] = failed
    print(json.dumps(result, indent=1))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
