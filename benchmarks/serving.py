"""gpupipe's server beside `mlflow models serve` and a FastAPI app of the usual kind, under load.

    python3 -m venv rival && rival/bin/pip install mlflow xgboost fastapi "uvicorn[standard]"
    python benchmarks/serving.py --data ../shared/data --rival-python rival/bin/python \\
        --out benchmarks/results/serving.json

All serve a model of the same kind of the adult table: one-hot and target encodings, 500 trees. For
each contender the rate of requests (open_loop.py: an open loop, Poisson arrivals, keep-alive
connections on loopback) is stepped up and down to find the highest at which the p99 of latency,
counted from when each request was due, stays within each bound and no request fails.

In the first turn every configuration of every contender is tried (workers; a rival's function in a
thread or in the event loop); from the second on, the one that kept the highest rate stands for its
contender. `--like FILE` takes the choice of an earlier result instead. Contenders take turns, with
a server started anew for each; medians over the turns are compared. Logs go to a file at every
server's default level.

`--cores shared`: generator and server on all cores; `--cores apart`: on one core each.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from open_loop import (
    Generator,
    address_of,
    arrivals,
    await_port,
    ceiling,
    finite,
    free_port,
    request,
    summary,
)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TEXT = ("workclass", "education", "marital-status", "occupation", "relationship", "race", "sex",
        "native-country")
UP, DOWN = 1.1, 1.25
"""The ratio of one rate to the next."""
LOWER = 8
"""The most steps down."""
ENOUGH, LONGEST = 400, 20.0
"""The requests that a step should have, and the seconds that it may take for them."""
LIMIT = 3.0
"""What is asked of gpupipe: so many times the rate of each rival at the same p99."""

Result = dict[str, Any]
Record = dict[str, Any]


@dataclass(frozen=True)
class Contender:
    """A server in one configuration.

    Attributes
    ----------
    command : what starts it on a port. path : where it is asked.
    body : records as it wants them. answer : the probabilities in what it says.
    """

    name: str
    how: str
    command: Callable[[int], list[str]]
    environment: dict[str, str]
    path: str
    body: Callable[[list[Record]], Any]
    answer: Callable[[Any], list[float]]


def contenders(bundle: Path, models: Path, rival: str) -> list[Contender]:
    """Every configuration that is tried."""

    def gpupipe(workers: int) -> Contender:
        return Contender(
            "gpupipe", f"{workers} worker{'s' * (workers > 1)}",
            lambda port: [sys.executable, "-m", "gpupipe.cli", "serve", str(bundle), "--port",
                          str(port), "--workers", str(workers)],
            {"PYTHONPATH": str(ROOT)}, "/predict", lambda rows: {"records": rows},
            lambda said: [p["probability"] for p in said["predictions"]])

    def mlflow(workers: int) -> Contender:
        return Contender(
            "mlflow", f"{workers} worker{'s' * (workers > 1)}",
            lambda port: [str(Path(rival).parent / "mlflow"), "models", "serve", "-m",
                          str(models / "mlflow"), "--env-manager", "local", "-h", "127.0.0.1",
                          "-p", str(port), "-w", str(workers)],
            {"PATH": f"{Path(rival).absolute().parent}{os.pathsep}{os.environ['PATH']}"},
            "/invocations",
            lambda rows: {"dataframe_split": {"columns": list(rows[0]),
                                              "data": [list(r.values()) for r in rows]}},
            lambda said: [p[1] for p in said["predictions"]])

    def fastapi(workers: int, path: str, where: str) -> Contender:
        return Contender(
            "fastapi", f"{workers} worker{'s' * (workers > 1)}, {where}",
            lambda port: [rival, "-m", "uvicorn", "fastapi_app:app", "--app-dir",
                          str(HERE / "rivals"), "--port", str(port), "--workers", str(workers)],
            {"MODEL": str(models / "model.joblib")}, path, lambda rows: {"records": rows},
            lambda said: said["predictions"])

    return [
        *(gpupipe(w) for w in (1, 2)), *(mlflow(w) for w in (1, 2)),
        *(fastapi(w, path, where) for w in (1, 2) for path, where in (
            ("/predict", "in threads"), ("/predict_async", "in the event loop"))),
    ]


# What is served, and asked ---------------------------------------------------------------------


def prepared(data: Path, work: Path, rival: str) -> tuple[Path, Path]:
    """The bundle and the rivals' models, made where they are missing."""
    work.mkdir(parents=True, exist_ok=True)
    table, models = (data / "adult" / "adult.data").resolve(), work / "rivals"
    config = yaml.safe_load((HERE / "pipelines" / "adult_serving.yaml").read_text())
    config["data"]["source"] = str(table)
    pipeline = work / "pipeline.yaml"
    pipeline.write_text(yaml.safe_dump(config, sort_keys=False))
    if not (work / "runs" / "latest").exists():
        subprocess.run([sys.executable, "-m", "gpupipe.cli", "run", str(pipeline), "--runs",
                        str(work / "runs")], check=True, stdout=subprocess.DEVNULL,
                       env=os.environ | {"PYTHONPATH": str(ROOT)})
    if not (models / "mlflow").is_dir():
        subprocess.run([rival, "-W", "ignore", str(HERE / "rivals" / "adult_model.py"), str(table),
                        str(models)], check=True)
    return (work / "runs" / "latest").resolve() / "bundle", models


def people(data: Path, most: int = 5000) -> list[Record]:
    """Records of adult's test file without missing values: mlflow's signature takes none."""
    with (data / "adult" / "adult.test").open(newline="") as file:
        found = (r for r in csv.DictReader(file, skipinitialspace=True) if "?" not in r.values())
        return [{name: value if name in TEXT else int(value) for name, value in r.items()
                 if name != "outcome"} for r in islice(found, most)]


def bodies(contender: Contender, records: list[Record], rows: int) -> list[bytes]:
    """Bodies of so many rows each, all different."""
    return [json.dumps(contender.body(records[at : at + rows]), separators=(",", ":")).encode()
            for at in range(0, len(records) - rows + 1, rows)]


# One server under load -------------------------------------------------------------------------


@contextmanager
def served(contender: Contender, port: int, cores: set[int], log: Path) -> Iterator[int]:
    """The server, up and answering; its process."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            contender.command(port), stdout=file, stderr=file, start_new_session=True,
            env=os.environ | contender.environment,
            preexec_fn=lambda: os.sched_setaffinity(0, cores))
    try:
        await_port(port, process)
        yield process.pid
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        process.wait()


def asked(contender: Contender, port: int, body: bytes) -> list[float]:
    """The probabilities that a server answers."""
    url = f"http://127.0.0.1:{port}{contender.path}"
    made = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(made, timeout=30) as answer:
        return contender.answer(json.load(answer))


def busy(server: int) -> tuple[float, float, float]:
    """Seconds so far: wall, CPU of a process and all below it, CPU of everything on all cores."""
    tick = os.sysconf("SC_CLK_TCK")
    parent, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        pid = int(stat.parent.name)
        parent[pid], used[pid] = int(fields[1]), int(fields[11]) + int(fields[12])

    def below(pid: int) -> bool:
        return pid == server or (pid in parent and below(parent[pid]))

    own = sum(ticks for pid, ticks in used.items() if below(pid))
    cpu = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]))
    return time.perf_counter(), own / tick, (sum(cpu) - cpu[3] - cpu[4]) / tick


def capacity(generator: Generator) -> float:
    """Requests a second of a closed loop, every connection always busy: where the search begins."""
    generator.patience, rate, n = 60.0, 0.0, 64
    for _ in range(2):
        out = generator.fire(np.zeros(n))
        if (out.status != 200).any():
            index = int((out.status != 200).argmax())
            raise SystemExit(f"status {out.status[index]}: {out.samples.get(index, b'')[:400]!r}")
        rate = n / out.seconds
        n = max(64, round(rate * 2))
    generator.patience = 3.0
    return rate


def stepped(generator: Generator, server: int, seconds: float, bounds: Sequence[float]
            ) -> list[Result]:
    """What every rate gave: up until two in a row break the widest bound, then down until all
    bounds are kept, or to a sixth of where it began."""
    steps: list[Result] = []

    def step(rate: float) -> float:
        before = busy(server)
        # A slow server is watched for longer: of fewer requests than 100, the p99 is the slowest.
        out = generator.fire(arrivals(rate, 0.5 + max(seconds, min(ENOUGH / rate, LONGEST)),
                                      seed=len(steps)))
        after = busy(server)
        wall, own, whole = (b - a for a, b in zip(before, after, strict=True))
        found = {"rate": round(rate, 1)} | summary(out, 0.5)
        found["server_cpu"] = round(own / wall, 3)
        found["cpu_ms_a_request"] = round(1000 * own / max((out.status == 200).sum(), 1), 3)
        found["others_cpu"] = round(max(whole - own - out.cpu, 0) / wall, 3)
        steps.append(found)
        if found["errors"]:
            time.sleep(2)  # what the server still has to answer is no part of the next step
        return np.inf if found["errors"] else float(found["p99_ms"])

    start = rate = 0.75 * capacity(generator)
    misses = 0
    while misses < 2:
        misses = 0 if step(rate) <= max(bounds) else misses + 1
        rate *= UP
    for lower in range(1, LOWER + 1):
        # Whatever the last step gave: where the search began may have been too much by far.
        if all(kept(steps, b) for b in bounds):
            break
        step(start / DOWN**lower)
    return sorted(steps, key=lambda s: s["rate"])


def kept(steps: Sequence[Result], bound: float) -> Result | None:
    """The highest rate whose p99 is within the bound, without an error."""
    within = [s for s in steps if s["p99_ms"] <= bound and not s["errors"]]
    return max(within, key=lambda s: s["answered_per_s"], default=None)


def one_turn(
    contender: Contender, records: list[Record], rows: int, args: argparse.Namespace
) -> Result:
    """A server started, checked, and loaded."""
    cores = sorted(os.sched_getaffinity(0))
    own, its = (set(cores[:1]), set(cores[1:2])) if args.cores == "apart" else (set(cores),) * 2
    port = free_port()
    try:
        with served(contender, port, its, args.work / "servers.log") as server:
            sent = bodies(contender, records, rows)
            until = time.monotonic() + 60
            while True:  # a server may listen before it is ready
                try:
                    first = [asked(contender, port, body) for body in sent[:20]]
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.2)
            os.sched_setaffinity(0, own)
            url = f"http://127.0.0.1:{port}{contender.path}"
            generator = Generator(address_of(url), [request(url, b) for b in sent],
                                  args.connections)
            steps = stepped(generator, server, args.seconds, args.bounds)
            generator.close()
    finally:
        os.sched_setaffinity(0, set(cores))
    return {"contender": contender.name, "how": contender.how, "rows": rows,
            "load": round(os.getloadavg()[0], 2), "first": [p for one in first for p in one],
            "kept": {f"{b:g}": kept(steps, b) for b in args.bounds}, "steps": steps}


# The comparison --------------------------------------------------------------------------------


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


def rate_of(turn: Result, bound: float) -> float:
    found = turn["kept"][f"{bound:g}"]
    return float(found["answered_per_s"]) if found else 0.0


def compared(turns: Sequence[Result], rows: int, bounds: Sequence[float]) -> Result:
    """For each bound and contender the medians over the turns, and the ratio to each rival."""
    best = chosen(turns, rows)
    out: Result = {}
    for bound in bounds:
        table: Result = {}
        for name, how in best.items():
            own = [t for t in turns if (t["contender"], t["how"], t["rows"]) == (name, how, rows)]
            found = [t["kept"][f"{bound:g}"] for t in own]
            table[name] = {
                "how": how, "turns": len(own), "per_turn": [rate_of(t, bound) for t in own],
                "per_s": statistics.median(rate_of(t, bound) for t in own),
            } | {key: _median([f[key] for f in found if f])
                 for key in ("p50_ms", "p99_ms", "p999_ms", "others_cpu")}
            # Of all steps: it is there where no rate was kept, too, and others disturb it little.
            table[name]["cpu_ms_a_request"] = _median(
                [s["cpu_ms_a_request"] for t in own for s in t["steps"]])
        for rival in set(table) - {"gpupipe"} if "gpupipe" in table else ():
            least = table[rival]["per_s"]
            table[rival]["gpupipe_is"] = \
                round(table["gpupipe"]["per_s"] / least, 2) if least else None
        out[f"{bound:g}"] = table
    return out


def chosen(turns: Sequence[Result], rows: int) -> dict[str, str]:
    """The configuration of each contender that kept the highest rate in its first turn: at the
    middle bound, at wider ones where that tells nothing, or by what it answered at all."""

    def rates(turn: Result) -> list[float]:
        bounds = sorted(map(float, turn["kept"]))
        return [*(rate_of(turn, b) for b in bounds[len(bounds) // 2 :]),
                max(s["answered_per_s"] for s in turn["steps"])]

    best: dict[str, Result] = {}
    first: dict[tuple[str, str], Result] = {}
    for turn in turns:
        if turn["rows"] == rows:
            first.setdefault((turn["contender"], turn["how"]), turn)
    for (name, _), turn in first.items():
        if name not in best or rates(turn) > rates(best[name]):
            best[name] = turn
    return {name: turn["how"] for name, turn in best.items()}


def show(found: Result, rows: int) -> None:
    for bound, table in found.items():
        print(f"\n{rows} row{'s' * (rows > 1)} a request, p99 within {bound} ms")
        for name, t in table.items():
            ratio = f"   gpupipe {t['gpupipe_is']}x" if t.get("gpupipe_is") else ""
            print(f"  {name:<8} {t['per_s']:>9.1f}/s  p50 {t['p50_ms']} p99 {t['p99_ms']} "
                  f"p99.9 {t['p999_ms']} ms, CPU {t['cpu_ms_a_request']} ms a request  "
                  f"({t['how']}, {t['turns']} turns){ratio}")


def facts(args: argparse.Namespace) -> Result:
    rival = subprocess.run(
        [args.rival_python, "-c", "import importlib.metadata as m, json; print(json.dumps({n: "
         "m.version(n) for n in ('mlflow', 'fastapi', 'uvicorn', 'pandas', 'scikit-learn')}))"],
        check=True, capture_output=True, text=True).stdout
    return {"when": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(), "rivals": json.loads(rival),
            "cores": len(os.sched_getaffinity(0)), "placed": args.cores,
            "connections": args.connections, "seconds_a_step": args.seconds,
            "load_before": [round(v, 2) for v in os.getloadavg()], "nice": os.nice(0)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with adult/")
    parser.add_argument("--rival-python", required=True, metavar="PYTHON",
                        help="an interpreter with mlflow, FastAPI, uvicorn and XGBoost")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 100], help="rows a request")
    parser.add_argument("--bounds", type=float, nargs="+", default=[10, 25, 50, 100],
                        help="of p99, ms")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a step")
    parser.add_argument("--cores", choices=["shared", "apart"], default="shared")
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--only", nargs="+", choices=["gpupipe", "mlflow", "fastapi"])
    parser.add_argument("--like", type=Path, help="a result whose configurations are taken")
    parser.add_argument("--work", type=Path, default=Path("runs", "benchmarks", "serving"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    args.work = args.work.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    bundle, models = prepared(args.data, args.work, args.rival_python)
    known = [c for c in contenders(bundle, models, args.rival_python)
             if args.only is None or c.name in args.only]
    whole: Result = {"facts": facts(args), "generator": {}, "compared": {}, "turns": []}
    records, turns = people(args.data), whole["turns"]
    earlier = json.loads(args.like.read_text())["turns"] if args.like else []
    whole["tried"] = [{k: v for k, v in t.items() if k != "steps"} for t in earlier]
    one = json.dumps({"records": records[:1]}).encode()
    whole["generator"] = ceiling(one)
    for rows in args.rows:
        for number in range(args.turns):
            best = chosen(earlier, rows) or chosen(turns, rows)
            for contender in known:
                if best.get(contender.name, contender.how) != contender.how:
                    continue
                turn = one_turn(contender, records, rows, args)
                turns.append({"turn": number} | turn)
                print(f"{rows} rows, turn {number}, {contender.name}, {contender.how}: "
                      f"{ {b: rate_of(turn, float(b)) for b in turn['kept']} }", file=sys.stderr,
                      flush=True)
                whole["compared"][str(rows)] = compared(turns, rows, args.bounds)
                if args.out:
                    args.out.parent.mkdir(parents=True, exist_ok=True)
                    args.out.write_text(json.dumps(told(whole), indent=1) + "\n")
        show(whole["compared"][str(rows)], rows)
    ratios = [t["gpupipe_is"] for found in whole["compared"].values() for table in found.values()
              for t in table.values() if t.get("gpupipe_is")]
    return 0 if all(r >= LIMIT for r in ratios) else 1


def told(whole: Result) -> Result:
    """How far apart the contenders' answers are, in place of the answers that were looked at."""
    first = {t["contender"]: np.array(t["first"]) for t in whole["turns"]}
    apart = {f"{a} - {b}": float(np.abs(first[a] - first[b]).mean())
             for a in first for b in first if a < b and len(first[a]) == len(first[b])}
    return finite(whole | {"mean_difference_of_answers": apart, "turns": [
        {k: v for k, v in t.items() if k != "first"} for t in whole["turns"]]})


if __name__ == "__main__":
    sys.exit(main())
