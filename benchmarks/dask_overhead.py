"""What a Dask cluster costs where one process would do: the same pipeline on both engines.

    python benchmarks/dask_overhead.py --runs 5 --out benchmarks/results/dask_overhead.json

local   gpupipe run benchmarks/pipelines/two_million.yaml with two threads
dask    the same on a LocalCluster of its own, of one worker with two threads

Both take turns, each run a fresh process, measured as in end_to_end.py: the cluster's start and end
are part of it. Memory is that of the larger process alone. Exit code 1 if a run failed, the AUCs
differ, or the cluster takes more than LIMIT times as long.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import end_to_end
import yaml
from end_to_end import HERE, PIPELINE, ROOT, Result, facts, run_once, summarise, table

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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=HERE / "data" / "two_million.parquet")
    parser.add_argument("--rows", type=int, default=2_000_000, help="of a table yet to be made")
    parser.add_argument("--runs", type=int, default=5, help="of each engine; default 5")
    parser.add_argument("--out", type=Path, help="write every run and the summary as JSON")
    args = parser.parse_args()
    if not args.data.exists():
        maker = ROOT / "scripts" / "make_data.py"
        subprocess.run(
            [sys.executable, maker, "--rows", str(args.rows), "--out", args.data], check=True
        )
    data = args.data.resolve()
    end_to_end.CONTENDERS.update(CONTENDERS)  # where run_once looks for them
    runs: list[Result] = []
    for turn in range(args.runs):
        for name in CONTENDERS:
            runs.append(last := run_once(name, data))
            print(f"{turn + 1}/{args.runs} {name:<6} {last['wall_s']:7.2f} s  "
                  f"{last.get('error', '')}", file=sys.stderr, flush=True)
    summary = summarise(runs)
    if any("error" in r for r in runs):
        print("\n".join(r["error"] for r in runs if "error" in r))
        return 1
    ratio = summary["dask"]["wall_s"] / summary["local"]["wall_s"]
    same = summary["dask"]["auc"] == summary["local"]["auc"]
    check: Result = {"what": "wall, dask / local", "value": round(ratio, 3), "limit": LIMIT,
                     "ok": ratio <= LIMIT and same}
    print(table(summary, []))
    print(f"\nwall, dask / local {ratio:.3f}, at most {LIMIT}; "
          f"AUC {'the same' if same else 'DIFFERS'}: {'ok' if check['ok'] else 'MISSED'}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        whole = {"facts": facts(data), "summary": summary, "checks": [check], "runs": runs}
        args.out.write_text(json.dumps(whole, indent=1) + "\n")
    return 0 if check["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
