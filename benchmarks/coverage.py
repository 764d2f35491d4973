"""What intervals promise and what they hold, and what calibration does, on real tables.

    python benchmarks/coverage.py --data ../shared/data --out benchmarks/results/coverage.json
    python benchmarks/coverage.py --data ../shared/data --only diamonds --seeds 5

Each table is split by each seed into a fifth of holdout and five folds; intervals (sets for
classes) at a coverage of 0.9 are made of the rest, and measured on the holdout. Over the seeds,
the mean coverage is held against 0.9 with its standard error, that of a mean of so many splits
(each seed draws other rows for everything). ``cross`` may be above what it promises.

Calibration is judged twice: on folds that it did not see, which is what decides, and on the
holdout. Exit code 1 if a mean coverage is below what was promised by more than two standard
errors, or above it where there is a theorem.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.checkpoints import Checkpoints
from gpupipe.config import parse_config
from gpupipe.engine.local import LocalEngine
from gpupipe.engine.machine import cores
from gpupipe.errors import GpupipeError
from gpupipe.training import Trained, train
from gpupipe.workflow import ingested

PROMISED = 0.9
INTERVALS = {  # table: (source, target, columns that give the target away)
    "diamonds": ("diamonds/diamonds.csv", "price", []),
    "housing": ("housing/housing.csv", "median_house_value", []),
    "taxis": ("taxis/taxis.csv", "fare", ["total", "tip"]),
    "movies": ("movies/movies.json", "IMDB Rating", ["Rotten Tomatoes Rating", "IMDB Votes"]),
}
SETS = {
    "adult": ("adult/adult.data", "outcome", []),
    "telco-churn": ("telco-churn/telco.csv", "Churn", ["customerID"]),
    "credit-default": ("credit-default/credit.csv", "Y", ["ID"]),
}
ROUNDS = 80
METHODS = ("cross", "split", "cqr")
FAMILIES: dict[str, dict[str, Any]] = {
    "xgboost": {"n_estimators": ROUNDS, "learning_rate": 0.15},
    "overfitted xgboost": {"n_estimators": 400, "learning_rate": 0.3, "max_depth": 8},
    "linear": {},
}
"""What is calibrated: a model that is nearly right, one that is far too sure, a straight one."""


def trained(
    data: Path, table: tuple[str, str, list[str]], seed: int, cache: Path, **sections: Any
) -> Trained:
    """A pipeline that was trained on a table, split by a seed."""
    source, target, drop = table
    config = parse_config({
        "data": {"source": str(data / source), "target": target, "drop": drop},
        "split": {"holdout": 0.2, "folds": 5}, "seed": seed,
        "evaluate": {"baselines": [], "resamples": 500}, **sections,
    })
    engine = LocalEngine(cores(), config.engine.batch_rows)
    dataset = ingested(config, cache, None, None)
    # The methods of one seed have their folds' models in common.
    known = Checkpoints(cache / "steps").given(data=dataset.fingerprint)
    return train(config, dataset, engine, baselines=False, checkpoints=known)


def family(name: str) -> dict[str, Any]:
    return {"kind": name.split()[-1], "params": FAMILIES[name]}


def measure_coverage(
    data: Path, names: list[str], kinds: list[str], seeds: int, cache: Path
) -> list[dict[str, Any]]:
    """Mean coverage over seeds by table and method, in standard errors off what is promised."""
    rows = []
    for name in names:
        methods = [m for m in kinds if name in INTERVALS or m != "cqr"]
        found: dict[str, list[dict[str, Any]]] = {m: [] for m in methods}
        for seed in range(seeds):
            for method in methods:
                made = trained(data, (INTERVALS | SETS)[name], seed, cache,
                               model=family("xgboost"),
                               intervals={"coverage": PROMISED, "method": method})
                assert made.finished.intervals is not None
                found[method].append(made.finished.intervals.found)
        rows += [summary(name, method, each) for method, each in found.items()]
    return rows


def summary(name: str, method: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """What the seeds of one table and method measured, together."""
    shares = np.array([f["measured"] for f in found])
    error = float(shares.std(ddof=1) / np.sqrt(len(shares)))
    deciles = np.array([[d["measured"] for d in f["deciles"]] for f in found]).mean(axis=0)
    within = np.mean([abs(f["measured"] - PROMISED) <= 2 * f["standard_error"] for f in found])
    row = {
        "table": name, "method": method, "seeds": len(found), "promised": PROMISED,
        "measured": float(shares.mean()), "standard_error": error,
        "off": float((shares.mean() - PROMISED) / error),
        "deviation_over_seeds": float(shares.std(ddof=1)),
        "stated_standard_error": float(np.mean([f["standard_error"] for f in found])),
        "single_runs_within_two": float(within),
        "mean_size": float(np.mean([f["mean_size"] for f in found])),
        "decile_coverage": deciles.round(4).tolist(), "each": shares.round(5).tolist(),
    }
    print(f"{name:<16}{method:<7}{row['measured']:.4f} ± {error:.4f} ({row['off']:+.1f})  size "
          f"{row['mean_size']:<10.4g} deciles {deciles.min():.3f}-{deciles.max():.3f}  single "
          f"runs within two of their own: {within:.0%}", flush=True)
    return row


def measure_calibration(data: Path, names: list[str], cache: Path) -> list[dict[str, Any]]:
    """What ``calibrate: auto`` says out of fold, and whether the holdout bears it out."""
    rows = []
    for name in names:
        for kind in FAMILIES:
            made = trained(data, SETS[name], 0, cache, model=family(kind), calibrate="auto")
            calibration = made.finished.calibration
            assert calibration is not None
            told = calibration.to_json()
            row = {"table": name, "model": kind, "text": calibration.text,
                   "tried": told["tried"], "out_of_fold": _losses(told["out_of_fold"])}
            if "holdout" in told:
                row["holdout"] = _losses(told["holdout"])
            rows.append(row)
            print(f"{name:<16}{kind:<20}{calibration.text}", flush=True)
            if "holdout" in told:
                print(f"{'':<36}on the holdout: log loss {row['holdout']['log_loss']}, ECE "
                      f"{row['holdout']['ece']}", flush=True)
    return rows


def _losses(part: dict[str, Any]) -> dict[str, Any]:
    return {loss: [round(part[side][loss], 5) for side in ("before", "after")]
            for loss in ("log_loss", "brier_score_loss", "ece")} | {
                "difference": part["difference"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of real tables")
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--only", nargs="*", choices=[*INTERVALS, *SETS], help="these tables")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=20, help="splits of each table (20)")
    parser.add_argument("--skip", choices=["coverage", "calibration"], help="leave one part out")
    options = parser.parse_args()
    names = options.only or [*INTERVALS, *SETS]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        try:
            if options.skip != "coverage":
                result["coverage"] = measure_coverage(options.data, names, options.methods,
                                                      options.seeds, Path(cache))
            if options.skip != "calibration":
                result["calibration"] = measure_calibration(
                    options.data, [n for n in names if n in SETS], Path(cache))
        except GpupipeError as error:
            print(error, file=sys.stderr)
            return error.exit_code
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    # What has a theorem is to be exact; cross promises no less, and is a little over.
    off = [r for r in result.get("coverage", ())
           if r["off"] < -2 or (r["method"] != "cross" and r["off"] > 2)]
    for r in off:
        print(f"{r['table']}, {r['method']}: {r['off']:+.1f} standard errors off")
    return int(bool(off))


if __name__ == "__main__":
    sys.exit(main())
