"""gpupipe against its rivals, from a Parquet file to a trained and judged model.

    python benchmarks/end_to_end.py --runs 5 --out benchmarks/results/end_to_end.json
    python benchmarks/end_to_end.py --only sklearn polars --runs 3

The contenders take turns (A B C A B C ...), each run a fresh process in an empty folder with the
same environment. Measured from outside, by the kernel: wall time from start to exit, user + system
CPU time, and peak resident memory (the largest process of the run). The table is made first where
it is missing. Medians decide; every single run is in the JSON.

A contender that fails is reported with the end of its error output and exit code 1, and the
others still run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PIPELINE = HERE / "pipelines" / "two_million.yaml"
PACKAGES = ("numpy", "pandas", "polars", "pyarrow", "sklearn", "xgboost")
# What is asked of gpupipe: (measure, rival) -> the largest ratio to that rival.
LIMITS = {
    ("wall_s", "sklearn"): 0.6,
    ("wall_s", "polars"): 1.1,
    ("peak_mb", "sklearn"): 0.6,
    ("peak_mb", "polars"): 0.6,
}
AUC_SLACK = 0.001

Result = dict[str, Any]


def gpupipe_command(data: Path, folder: Path) -> list[str]:
    """The pipeline file, pointed at ``data``; relative sources start at the pipeline file."""
    config = yaml.safe_load(PIPELINE.read_text())
    config["data"]["source"] = str(data)
    pipeline = folder / "pipeline.yaml"
    pipeline.write_text(yaml.safe_dump(config, sort_keys=False))
    return [sys.executable, "-m", "gpupipe.cli", "run", str(pipeline), "--json"]


def script_command(name: str) -> Callable[[Path, Path], list[str]]:
    return lambda data, _folder: [sys.executable, str(HERE / "rivals" / name), str(data)]


CONTENDERS: dict[str, Callable[[Path, Path], list[str]]] = {
    "gpupipe": gpupipe_command,
    "sklearn": script_command("sklearn_pipeline.py"),
    "polars": script_command("polars_xgboost.py"),
}


def outcome(stdout: str) -> tuple[float, dict[str, Any]]:
    """AUC and seconds a stage, from what a contender printed last."""
    said = json.loads(stdout[stdout.index("{") :])
    if "auc" in said:
        return said["auc"], said["seconds"]
    return said["metrics"]["roc_auc"]["value"], said["timings"]


def run_once(name: str, data: Path) -> Result:
    """One run in a fresh process; ``error`` is set where it failed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        command = CONTENDERS[name](data, folder)
        # The package of this checkout, whether it is installed or not; all get the same.
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        load = os.getloadavg()[0]
        out, err = folder / "stdout", folder / "stderr"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            started = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=stdout, stderr=stderr
            )
            # wait4 speaks of this child and what it waited for; ru_maxrss is in KiB on Linux.
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait again
        result: Result = {
            "contender": name,
            "wall_s": round(wall, 3),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
            "user_s": round(usage.ru_utime, 3),
            "system_s": round(usage.ru_stime, 3),
            "peak_mb": round(usage.ru_maxrss / 1024, 1),
            "load_before": round(load, 2),
        }
        try:
            if process.returncode != 0:
                raise ValueError(f"exit code {process.returncode}")
            result["auc"], result["stages"] = outcome(out.read_text())
        except (ValueError, KeyError) as fault:
            tail = err.read_text(errors="replace").strip().splitlines()[-5:]
            result["error"] = "\n".join([f"{type(fault).__name__}: {fault}", *tail])
    return result


def summarise(runs: Sequence[Result]) -> dict[str, Result]:
    """Per contender: how many runs, and the median of each measure and stage."""
    summary: dict[str, Result] = {}
    for name in dict.fromkeys(r["contender"] for r in runs):
        own = [r for r in runs if r["contender"] == name and "error" not in r]
        if not own:
            continue
        summary[name] = {"runs": len(own)} | {
            key: statistics.median(r[key] for r in own)
            for key in ("wall_s", "cpu_s", "peak_mb", "auc")
        }
        summary[name]["stages"] = {
            stage: round(statistics.median(r["stages"][stage] for r in own), 3)
            for stage, value in own[0]["stages"].items()
            if isinstance(value, (int, float)) and all(stage in r["stages"] for r in own)
        }
    return summary


def verdicts(summary: dict[str, Result]) -> list[Result]:
    """gpupipe against the limits of LIMITS, where both sides ran."""
    found: list[Result] = []
    ours = summary.get("gpupipe")
    if ours is None:
        return found
    for (measure, rival), limit in LIMITS.items():
        if rival in summary:
            ratio = ours[measure] / summary[rival][measure]
            found.append({"what": f"{measure} / {rival}", "value": round(ratio, 3),
                          "limit": limit, "ok": ratio <= limit})  # fmt: skip
    if "sklearn" in summary:
        gain = ours["auc"] - summary["sklearn"]["auc"]
        found.append({"what": "auc - sklearn", "value": round(gain, 5),
                      "limit": -AUC_SLACK, "ok": gain >= -AUC_SLACK})  # fmt: skip
    return found


def table(summary: dict[str, Result], checks: Sequence[Result]) -> str:
    lines = [f"{'median':<10}{'runs':>5}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}{'AUC':>9}"]
    for name, row in summary.items():
        lines.append(
            f"{name:<10}{row['runs']:>5}{row['wall_s']:>9.2f}{row['cpu_s']:>9.2f}"
            f"{row['peak_mb']:>9.0f}{row['auc']:>9.4f}"
        )
    lines.append("")
    for name, row in summary.items():
        stages = "  ".join(f"{stage} {value:.2f}" for stage, value in row["stages"].items())
        lines.append(f"{name:<10}{stages}")
    if checks:
        lines += ["", "gpupipe against its rivals"]
    for check in checks:
        word = "ok" if check["ok"] else "MISSED"
        bound = "at least" if check["what"].startswith("auc") else "at most"
        lines.append(f"  {check['what']:<20}{check['value']:>9}   {bound} {check['limit']}  {word}")
    return "\n".join(lines)


def facts(data: Path) -> Result:
    """What a reader needs to judge the numbers."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: import_module(name).__version__ for name in PACKAGES},
        "cores": len(os.sched_getaffinity(0)),
        "data": {"name": data.name, "bytes": data.stat().st_size},
        "threads": {k: v for k, v in os.environ.items() if k.endswith("_NUM_THREADS")},
    }


def arguments(about: str, contenders: Sequence[str], runs: int) -> argparse.Namespace:
    """The options of a benchmark on one table, which is made where it is missing."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE / "data" / "two_million.parquet")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of a table yet to be made")
    parser.add_argument("--runs", type=int, default=runs, help=f"of each contender; default {runs}")
    parser.add_argument("--only", nargs="+", choices=contenders, default=list(contenders))
    parser.add_argument("--out", type=Path, help="write every run and the summary as JSON")
    args = parser.parse_args()
    if not args.data.exists():
        maker = ROOT / "scripts" / "make_data.py"
        subprocess.run(
            [sys.executable, maker, "--rows", str(args.rows), "--out", args.data], check=True
        )
    args.data = args.data.resolve()
    return args


def take_turns(
    args: argparse.Namespace, more: Callable[[Result], None] = lambda run: None
) -> list[Result]:
    """Every run, as they came; ``more`` adds to what was measured of one, or its ``error``."""
    runs: list[Result] = []
    for turn in range(args.runs):
        for name in args.only:
            last = run_once(name, args.data)
            if "error" not in last:
                more(last)
            runs.append(last)
            told = last.get("error") or f"AUC {last['auc']:.4f}"
            print(
                f"{turn + 1}/{args.runs} {name:<12} {last['wall_s']:7.2f} s  "
                f"CPU {last['cpu_s']:6.2f} s  peak {last['peak_mb']:6.0f} MB  "
                f"load before {last['load_before']:.2f}  {told}",
                file=sys.stderr,
                flush=True,
            )
    return runs


def written(
    args: argparse.Namespace, summary: dict[str, Result], checks: Sequence[Result],
    runs: Sequence[Result],
) -> None:
    """Everything as JSON, where ``--out`` says so."""
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"facts": facts(args.data), "summary": summary, "checks": checks, "runs": runs}
        args.out.write_text(json.dumps(whole, indent=1) + "\n")


def main() -> int:
    args = arguments(__doc__ or "", list(CONTENDERS), 5)
    runs = take_turns(args)
    summary = summarise(runs)
    checks = verdicts(summary)
    print(table(summary, checks))
    written(args, summary, checks, runs)
    return 1 if any("error" in r for r in runs) or not all(c["ok"] for c in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
