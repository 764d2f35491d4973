"""What XGBoost costs by itself, by the way its training matrix is fed (CPU).

    python benchmarks/feeding.py matrix.npy target.npy --out feeding.json

``matrix.npy`` is (rows, features) float32 in C order, ``target.npy`` (rows,). Every way runs in
a fresh process and reports the seconds to build the matrix and to train 100 trees of depth 6,
the CPU seconds of both, how often a ``DataIter`` was read through, and the memory: ``source_mb``
is the process's peak before XGBoost was called (the source loaded), ``peak_mb`` its peak at the
end. The ``iter-file`` ways never hold the source, as a streaming pipeline would not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb

BATCH_ROWS = 131_072
WAYS = (
    "dmatrix-c", "dmatrix-f", "dmatrix-arrow",
    "quantile-c", "quantile-f", "quantile-arrow",
    "iter-c", "iter-f", "iter-arrow", "iter-file-c", "iter-file-arrow", "iter-file-extmem",
)  # fmt: skip


def peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Batches(xgb.DataIter):
    """A DataIter over ``make()``, counting how often it is read."""

    def __init__(self, make: Callable[[], Iterator[tuple[Any, Any]]], **options: Any) -> None:
        super().__init__(**options)
        self.make, self.passes = make, 0
        self.batches = make()

    def reset(self) -> None:
        self.batches = self.make()
        self.passes += 1

    def next(self, input_data: Callable[..., Any]) -> bool:
        for X, y in self.batches:
            input_data(data=X, label=y)
            return True
        return False


def arrow(X: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.table({f"f{i}": np.ascontiguousarray(X[:, i]) for i in range(X.shape[1])})


def sliced(X: Any, y: np.ndarray) -> Iterator[tuple[Any, Any]]:
    for start in range(0, len(y), BATCH_ROWS):
        stop = min(start + BATCH_ROWS, len(y))
        batch = X[start:stop] if isinstance(X, np.ndarray) else X.slice(start, stop - start)
        yield batch, y[start:stop]


def from_file(path: Path, y: np.ndarray, convert: Callable[[Any], Any]) -> Iterator[Any]:
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        (rows, width), _, _ = np.lib.format.read_array_header_1_0(file)
        for start in range(0, rows, BATCH_ROWS):
            n = min(BATCH_ROWS, rows - start)
            X = np.fromfile(file, np.float32, n * width).reshape(n, width)
            yield convert(X), y[start : start + n]


def measure(way: str, matrix: Path, target: Path, max_bin: int, scratch: Path) -> dict[str, Any]:
    kind, *_, layout = way.split("-")
    y = np.load(target)
    data: Any = None
    if not way.startswith("iter-file"):
        X = np.load(matrix)
        data = {"c": lambda: X, "f": lambda: np.asfortranarray(X), "arrow": lambda: arrow(X)}[
            layout
        ]()
        del X
    source_mb, cpu, started = peak_mb(), cpu_seconds(), time.perf_counter()
    batches = None
    if kind == "dmatrix":
        D = xgb.DMatrix(data, y, nthread=2)
    elif kind == "quantile":
        D = xgb.QuantileDMatrix(data, y, nthread=2, max_bin=max_bin)
    elif not way.startswith("iter-file"):
        batches = Batches(lambda: sliced(data, y))
        D = xgb.QuantileDMatrix(batches, nthread=2, max_bin=max_bin)
    elif layout == "extmem":
        batches = Batches(
            lambda: from_file(matrix, y, lambda X: X), cache_prefix=str(scratch / "cache")
        )
        D = xgb.ExtMemQuantileDMatrix(batches, nthread=2, max_bin=max_bin)
    else:
        convert = arrow if layout == "arrow" else lambda X: X
        batches = Batches(lambda: from_file(matrix, y, convert))
        D = xgb.QuantileDMatrix(batches, nthread=2, max_bin=max_bin)
    built, built_mb, built_cpu = time.perf_counter(), peak_mb(), cpu_seconds()
    params = {
        "objective": "binary:logistic", "max_depth": 6, "learning_rate": 0.1,
        "tree_method": "hist", "nthread": 2, "max_bin": max_bin,
    }  # fmt: skip
    xgb.train(params, D, num_boost_round=100)
    return {
        "way": way,
        "max_bin": max_bin,
        "build_s": round(built - started, 2),
        "train_s": round(time.perf_counter() - built, 2),
        "build_cpu_s": round(built_cpu - cpu, 2),
        "train_cpu_s": round(cpu_seconds() - built_cpu, 2),
        "passes": batches.passes if batches else None,
        "source_mb": source_mb,
        "built_mb": built_mb,
        "peak_mb": peak_mb(),
        "load": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("matrix", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--max-bins", nargs="+", type=int, default=[256])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--in-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_process:
        result = measure(args.ways[0], args.matrix, args.target, args.max_bins[0], Path.cwd())
        print(json.dumps(result))
        return
    results = []
    for max_bin in args.max_bins:
        for way in args.ways:
            run = subprocess.run(
                [sys.executable, __file__, str(args.matrix), str(args.target), "--in-process",
                 "--ways", way, "--max-bins", str(max_bin)],
                stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            results.append(json.loads(run.stdout.splitlines()[-1]))
            print(*(f"{k}={v}" for k, v in results[-1].items()), sep="  ", flush=True)
    if args.out:
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
