"""A/B tests by simulation: false finds under peeking, CUPED's intervals, and a large table.

    python benchmarks/experiment.py --out benchmarks/results/experiment.json

- ``peeking``: two arms without a difference, looked at after every batch. How often does any look
  find one? The always-valid sequence beside Welch's test at every look and at the last one alone.
  The same with an effect: how often it is found, after how many units, beside what `plan` says.
- ``cuped``: the width of the interval with a covariate over that without, beside sqrt(1 - rho^2),
  and how often both hold the true effect.
- ``ratio``: how often units that were dealt out by hash fail the test of the sample ratio.
- ``scale``: a table of many rows from Parquet, beside pandas and tea-tasting; needs ``--rows``.

All effects are judged by the functions that ``gpupipe experiment analyse`` uses.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.engine.pandas import PandasFrames
from gpupipe.experiment.assign import Split, assign
from gpupipe.experiment.cells import Reading
from gpupipe.experiment.config import MetricConfig
from gpupipe.experiment.corrections import sample_ratio
from gpupipe.experiment.effects import Estimate
from gpupipe.experiment.judge import Judge, effect
from gpupipe.experiment.power import Design, sequential_size
from gpupipe.experiment.sums import sums_of

ALPHA = 0.05
LAWS = {
    "normal": (lambda rng, size: rng.normal(5, 2, size), 4.0),
    "log-normal": (lambda rng, size: rng.lognormal(0, 1, size), (math.e - 1) * math.e),
    "share of 0.1": (lambda rng, size: (rng.random(size) < 0.1).astype(float), 0.09),
}
"""Law -> how to draw it, and its variance."""


def looks(
    rng: np.random.Generator, law: str, batches: int, batch: int, shift: float
) -> list[tuple[Estimate, Estimate]]:
    """Both arms' estimates after each batch."""
    share = law.startswith("share")
    arms = []
    for own in (0.0, shift):
        x = LAWS[law][0](rng, (batches, batch))
        if own and share:
            x = np.maximum(x, rng.random(x.shape) < own / 0.9)
        elif own:
            x = x + own
        n = batch * np.arange(1, batches + 1)
        mean = np.cumsum(x.sum(axis=1)) / n
        variance = mean * (1 - mean) if share else (
            np.cumsum((x * x).sum(axis=1)) - n * mean**2) / (n - 1)
        arms.append([Estimate(int(k), float(m), float(v), share)
                     for k, m, v in zip(n, mean, variance, strict=True)])
    return list(zip(*arms, strict=True))


def peeking(experiments: int, batches: int, batch: int) -> dict[str, Any]:
    metric = MetricConfig(name="y", kind="mean")
    tuning = float(batches * batch)  # half of all units that come
    judge = Judge(ALPHA, True, tuning)
    found: dict[str, Any] = {"experiments": experiments, "looks": batches,
                             "units_a_look": 2 * batch, "tuning": tuning, "laws": {}}
    for law, (_, variance) in LAWS.items():
        size = batches * batch  # an arm
        shift = 4 * math.sqrt(2 * variance / size)
        made: dict[str, Any] = {}
        for name, own in (("no effect", 0.0), ("an effect", shift)):
            rng = np.random.default_rng(1)
            hits, units, missed = Counter(), [], 0
            for _ in range(experiments):
                judged = [effect(metric, a, b, judge) for a, b in
                          looks(rng, law, batches, batch, own)]
                always = [e["p"] < ALPHA for e in judged]
                single = [e["fixed"]["p"] < ALPHA for e in judged]
                hits["sequential"] += any(always)
                hits["Welch at every look"] += any(single)
                hits["Welch at the last look"] += single[-1]
                missed += any(not e["difference"]["low"] <= own <= e["difference"]["high"]
                              for e in judged)
                stop = always.index(True) if any(always) else batches - 1
                units.append(2 * batch * (stop + 1))
            made[name] = {
                **{k: v / experiments for k, v in hits.items()},
                "sequences that ever left the truth out": missed / experiments,
                "mean units until stopped": statistics.mean(units),
            }
        planned = sequential_size(shift, variance, Design(ALPHA, 0.8), tuning)
        made["an effect"]["planned for 80 % power"] = {
            "maximal": planned.maximal, "expected": planned.expected}
        found["laws"][law] = made
    return found


def cuped(experiments: int, units: int) -> list[dict[str, float]]:
    fx, judge = PandasFrames(), Judge(ALPHA, False, 5_000.0)
    metric = MetricConfig(name="y", kind="mean", covariate="x")
    rows = []
    for rho in (0.0, 0.3, 0.5, 0.7, 0.9):
        rng = np.random.default_rng(int(100 * rho))
        widths, inside, plain_inside = [], 0, 0
        for _ in range(experiments):
            x = rng.normal(size=units)
            arm = rng.integers(0, 2, units)
            y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=units) + 0.1 * arm
            sums = sums_of([y, x, np.ones(units)], arm, 2, fx)
            reading = Reading.of(metric, sums[0].merge(sums[1]))
            ends = []
            for estimate in (reading.estimate, reading.plain):
                change = effect(metric, estimate(sums[0]), estimate(sums[1]), judge)["difference"]
                ends.append((change["low"], change["high"]))
            widths.append((ends[0][1] - ends[0][0]) / (ends[1][1] - ends[1][0]))
            inside += ends[0][0] <= 0.1 <= ends[0][1]
            plain_inside += ends[1][0] <= 0.1 <= ends[1][1]
        rows.append({"rho": rho, "width": statistics.mean(widths),
                     "theory": math.sqrt(1 - rho**2), "coverage": inside / experiments,
                     "coverage_without": plain_inside / experiments})
    return rows


def ratio(experiments: int, units: int) -> dict[str, float]:
    failed = 0
    for k in range(experiments):
        split = Split(f"experiment {k}", {"a": 0.5, "b": 0.5})
        counts = Counter(assign(f"user-{u}", split).arm for u in range(units))
        failed += sample_ratio({a: counts[a] for a in "ab"}, split.arms, 0.01).ok is False
    return {"experiments": experiments, "units": units, "alpha": 0.01,
            "failed": failed / experiments}


RIVAL = """
import sys, pandas as pd, tea_tasting as tt
table = pd.read_parquet(sys.argv[1])
found = tt.Experiment({"spent": tt.Mean("spent", "before"), "bought": tt.Mean("bought"),
                       "rate": tt.RatioOfMeans("clicks", "views"), "srm": tt.SampleRatio()},
                      variant="arm").analyze(table, control="control")
print(found["spent"].effect_size, found["spent"].pvalue)
"""
OURS = """
import sys
from gpupipe.experiment.workflow import analyse
from gpupipe.experiment.analyse import analyse as judged
from gpupipe.experiment.config import configured
from gpupipe.experiment.gather import gather
config = configured({"name": "x", "arm": "arm", "arms": {"control": 0.5, "new": 0.5},
    **({"unit": "user"} if sys.argv[2] == "units" else {}),
    "primary": {"name": "spent", "covariate": "before", "kind": "mean"},
    "secondary": [{"name": "bought"}, {"name": "rate", "kind": "ratio", "column": "clicks",
                                       "denominator": "views"}]})
found = judged(gather(config, sys.argv[1]))["metrics"][0]["effects"][0]
print(found["difference"]["value"], found["p"])
"""


def scale(rows: int, runs: int, folder: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, rng, step = folder / "units.parquet", np.random.default_rng(0), 1_000_000
    writer: pq.ParquetWriter | None = None
    for start in range(0, rows, step):
        n = min(step, rows - start)
        user = np.arange(start, start + n)
        arm = rng.integers(0, 2, n)
        before = rng.lognormal(size=n)
        views = 1 + rng.poisson(4, n)
        table = pa.table({
            "user": pa.array([f"user-{u:09}" for u in user]),
            "arm": pa.array(np.array(["control", "new"])[arm]), "before": before,
            "spent": before + rng.lognormal(size=n) * (1 + 0.01 * arm),
            "bought": rng.random(n) < 0.1, "views": views, "clicks": rng.binomial(views, 0.2),
        })
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table, row_group_size=131_072)
    assert writer is not None
    writer.close()
    ways = {"gpupipe, a row a unit": (OURS, "rows"), "gpupipe, rows to units": (OURS, "units"),
            "pandas and tea-tasting, a row a unit": (RIVAL, "")}
    taken: dict[str, list[dict[str, float]]] = {w: [] for w in ways}
    answers: dict[str, str] = {}
    for _ in range(runs):
        for way, (script, option) in ways.items():
            began = time.perf_counter()
            process = subprocess.Popen([sys.executable, "-c", script, str(path), option],
                                       stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            answers[way] = process.stdout.read().strip()
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"{way} failed")
            taken[way].append({"seconds": time.perf_counter() - began,
                               "cpu_seconds": usage.ru_utime + usage.ru_stime,
                               "peak_mb": usage.ru_maxrss / 1024})
    return {"rows": rows, "runs": runs, "answers": answers, "median": {
        way: {k: statistics.median(t[k] for t in of) for k in of[0]}
        for way, of in taken.items()}}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=2_000)
    parser.add_argument("--looks", type=int, default=50)
    parser.add_argument("--batch", type=int, default=200, help="units an arm between two looks")
    parser.add_argument("--rows", type=int, default=0, help="of the large table; 0: leave it out")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["peeking", "cuped", "ratio", "scale"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found: dict[str, Any] = {}
    if args.out and args.out.exists():
        found = json.loads(args.out.read_text())
    if "peeking" in args.only:
        found["peeking"] = peeking(args.experiments, args.looks, args.batch)
    if "cuped" in args.only:
        found["cuped"] = cuped(args.experiments, 2_000)
    if "ratio" in args.only:
        found["ratio"] = ratio(4_000, 2_000)
    if "scale" in args.only and args.rows:
        with tempfile.TemporaryDirectory() as folder:
            found["scale"] = scale(args.rows, args.runs, Path(folder))
    text = json.dumps(found, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    worst = max((law["no effect"]["sequential"] for law in found["peeking"]["laws"].values()),
                default=0.0) if "peeking" in found else 0.0
    return 0 if worst <= ALPHA else 4


if __name__ == "__main__":
    sys.exit(main())
