"""Run one of the benchmarks, and say where its results are.

    python scripts/benchmark.py end_to_end --runs 5
    python scripts/benchmark.py five_fold --help
    python scripts/benchmark.py real_tables --data PATH --only housing taxis

What follows the name goes to the benchmark. Without --out, its results go to
runs/benchmarks/NAME-TIME.json. The exit code is the benchmark's. What each of them measures, what
it needs and how to read it is in benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("end_to_end", "five_fold", "real_tables", "dask_overhead", "serving", "drift_alarms",
         "monitor_scale")


def script(name: str) -> Path:
    return ROOT / "benchmarks" / f"{name}.py"


def about(name: str) -> str:
    """The first line of what a benchmark says of itself."""
    said = ast.get_docstring(ast.parse(script(name).read_text(encoding="utf-8"))) or ""
    return f"  {name:<14}{said.splitlines()[0]}"


def results(name: str, options: list[str]) -> tuple[Path, list[str]]:
    """Where the results go, and the options with that in them."""
    given = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    given.add_argument("--out", type=Path)
    out = given.parse_known_args(options)[0].out
    if out:
        return out, options
    out = Path("runs", "benchmarks", f"{name}-{datetime.now():%Y%m%d-%H%M%S}.json")
    return out, ["--out", str(out), *options]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="benchmarks:\n" + "\n".join(map(about, NAMES)),
    )
    parser.add_argument("name", choices=NAMES, help="which one")
    name = parser.parse_args(sys.argv[1:2]).name
    out, options = results(name, sys.argv[2:])
    started = time.time()
    ended = subprocess.run([sys.executable, script(name), *options], check=False)
    if out.exists() and out.stat().st_mtime >= started:
        print(f"results: {out.resolve()}")
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
