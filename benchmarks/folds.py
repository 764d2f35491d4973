"""One quantised matrix for all folds, or one for each: which is faster on this machine.

    python benchmarks/folds.py --rows 1000000 --features 22

``shared`` makes one `QuantileDMatrix` of all rows and trains every fold on it with the weights of
its judged rows set to zero. ``separate`` makes a matrix of each fold's training rows. Both train as
many trees; the AUC of the judged rows is printed for both, and the median seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import numpy as np
import xgboost
from sklearn.metrics import roc_auc_score

FOLDS = 5
PARAMS = {"objective": "binary:logistic", "max_depth": 6, "learning_rate": 0.1,
          "tree_method": "hist", "nthread": 2}  # fmt: skip


def table(rows: int, features: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, target and fold of each row."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, features)).astype(np.float32)
    odds = x[:, 0] + x[:, 1] * x[:, 2] - (x[:, 3] > 0.5)
    y = (rng.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.float32)
    return x, y, rng.integers(0, FOLDS, rows)


def shared(x: np.ndarray, y: np.ndarray, fold: np.ndarray, rounds: int) -> tuple[float, float]:
    began = time.perf_counter()
    data = xgboost.QuantileDMatrix(x, y, nthread=2)
    scores = np.empty(len(y))
    for k in range(FOLDS):
        data.set_weight((fold != k).astype(np.float32))
        booster = xgboost.train(PARAMS, data, rounds)
        scores[fold == k] = booster.inplace_predict(x[fold == k])
    return time.perf_counter() - began, float(roc_auc_score(y, scores))


def separate(x: np.ndarray, y: np.ndarray, fold: np.ndarray, rounds: int) -> tuple[float, float]:
    began = time.perf_counter()
    scores = np.empty(len(y))
    for k in range(FOLDS):
        data = xgboost.QuantileDMatrix(x[fold != k], y[fold != k], nthread=2)
        booster = xgboost.train(PARAMS, data, rounds)
        scores[fold == k] = booster.inplace_predict(x[fold == k])
    return time.perf_counter() - began, float(roc_auc_score(y, scores))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=22)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    x, y, fold = table(args.rows, args.features)
    ways = {"shared": shared, "separate": separate}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(args.runs):
        for name, way in ways.items():
            found[name].append(way(x, y, fold, args.rounds))
            print(name, *found[name][-1], file=sys.stderr, flush=True)
    print(json.dumps({
        name: {"seconds": round(statistics.median(s for s, _ in runs), 2),
               "auc": round(runs[0][1], 5)}
        for name, runs in found.items()
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
