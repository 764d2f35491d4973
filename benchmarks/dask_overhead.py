"""What a Dask cluster costs where one process would do: the same pipeline on both engines.

    python benchmarks/dask_overhead.py --runs 5 --out benchmarks/results/dask_overhead.json

local   gpupipe run benchmarks/pipelines/two_million.yaml with two threads
dask    the same on a LocalCluster of its own, of one worker with two threads

Both take turns, each run a fresh process, measured as in end_to_end.py: the cluster's start and end
are part of it. Memory is that of the larger process alone. Exit code 1 if a run failed, the AUCs
differ, or the cluster takes more than LIMIT times as long.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import end_to_end
import yaml
from end_to_end import PIPELINE, Result, arguments, summarise, table, take_turns, written

LIMIT = 1.25  # wall time, dask / local, at most


def command(**engine: object) -> Callable[[Path, Path], list[str]]:
    """The pipeline file with this engine."""

    def made(data: Path, folder: Path) -> list[str]:
        config = yaml.safe_load(PIPELINE.read_text())
        config["data"]["source"] = str(data)
        config["engine"] = engine
        pipeline = folder / "pipeline.yaml"
        pipeline.write_text(yaml.safe_dump(config, sort_keys=False))
        return [sys.executable, "-m", "gpupipe.cli", "run", str(pipeline), "--json"]

    return made


CONTENDERS = {"local": command(kind="local", workers=2, device="cpu"),
              "dask": command(kind="dask", workers=1, device="cpu")}


def main() -> int:
    end_to_end.CONTENDERS.update(CONTENDERS)  # where run_once looks for them
    args = arguments(__doc__ or "", list(CONTENDERS), 5)
    runs = take_turns(args)
    summary = summarise(runs)
    checks: list[Result] = []
    if len(summary) == len(CONTENDERS):
        ratio = summary["dask"]["wall_s"] / summary["local"]["wall_s"]
        same = summary["dask"]["auc"] == summary["local"]["auc"]
        checks.append({"what": "wall, dask / local", "value": round(ratio, 3), "limit": LIMIT,
                       "same_auc": same, "ok": ratio <= LIMIT and same})
    print(table(summary, []))
    for check in checks:
        print(f"\nwall, dask / local {check['value']:.3f}, at most {LIMIT}; AUC "
              f"{'the same' if check['same_auc'] else 'DIFFERS'}: "
              f"{'ok' if check['ok'] else 'MISSED'}")
    written(args, summary, checks, runs)
    return 1 if any("error" in r for r in runs) or not all(c["ok"] for c in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
