"""The proof with a GPU, by one command: the gpu tests, parity on real tables, a benchmark.

    python scripts/gpu_check.py --out gpu-check

- suite: ``pytest -m gpu``, which runs every step, statistic and model on the device;
- parity: ``gpupipe parity`` of CPU against GPU on real tables: three that scikit-learn carries with
  it, and those in the folder ``--tables`` (adult, bank marketing, diamonds) that are there;
- benchmark: a table of ``--rows`` rows by make_data.py, from Parquet to a judged model: the CPU
  engine, the GPU engine and a hand-written script (benchmarks/rivals/cudf_xgboost.py) on the same
  machine, each in a fresh process.

It keeps to ``--budget`` seconds: a part that has no time left says so, and does not pass.
gpu_check.json and gpu_check.html are written after every part, so that what was found is there
whatever happens. Exit code 0: all passed; 4: something did not; 5: there is no GPU that can be
used, with `gpupipe doctor`'s words.

``--rehearse`` goes through all of it without a GPU, CPU against CPU, and proves nothing but that
the script works.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from gpupipe.checkpoints import temporary_name
from gpupipe.cli import show
from gpupipe.doctor import diagnose
from gpupipe.evaluate.page import Card, Mark, Page, Section, Table, render_page

ROOT = Path(__file__).resolve().parents[1]
RIVAL = ROOT / "benchmarks" / "rivals" / "cudf_xgboost.py"
PREPROCESSING = {
    "gpupipe": ("profile", "split", "learn the steps", "final matrix"),
    "rival": ("read", "split", "numeric", "target_encode", "matrix"),
}
"""The stages, as each names them, from the file to the matrix."""
PATIENCE = {"suite": 150.0, "parity": 75.0, "benchmark": 240.0}
"""The most seconds of the suite, of each table's parity and of each contender's run."""
BEFORE_BENCHMARK = 0.5
"""The share of the budget that suite and parity may use up: the benchmark needs the rest."""
AUC_SLACK = 0.002
"""Contenders on the same features may differ by so much: their folds are not the same rows."""


@dataclass
class Part:
    """One thing that was checked: whether it passed, what was found, how long it took."""

    name: str
    passed: bool
    found: str
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """What all parts share.

    Attributes
    ----------
    folder : where the answers go; ``scratch`` is for what is not kept.
    deadline : in `time.monotonic` seconds; ``half_time`` is that of suite and parity.
    sides : the names of the two sides of parity.
    """

    folder: Path
    scratch: Path
    deadline: float
    half_time: float
    sides: tuple[str, str]
    rehearsal: bool
    tables: Path
    rows: int
    trees: int

    def run(
        self, command: Sequence[str | Path], most: float, deadline: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of this environment. TimeoutError where there is no time for it."""
        left = min(most, deadline - time.monotonic())
        if left <= 1:
            raise TimeoutError("there was no time left for it")
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        process = subprocess.Popen(
            [str(c) for c in command], cwd=self.scratch, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            process.communicate()
            raise TimeoutError(f"it was not done after {left:.0f} seconds") from None
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def attempt(name: str, work: Callable[[], Part]) -> Part:
    """A part, with its seconds; a failure is a part that did not pass."""
    started = time.perf_counter()
    try:
        part = work()
    except (TimeoutError, OSError, ValueError, KeyError, ElementTree.ParseError) as error:
        part = Part(name, False, f"{type(error).__name__}: {error}" if not isinstance(
            error, TimeoutError) else str(error))
    part.seconds = round(time.perf_counter() - started, 1)
    return part


# The suite ----------------------------------------------------------------------------------------


def suite(check: Check) -> Part:
    """The tests marked ``gpu``: all must pass, and there must be some."""
    report = check.folder / "gpu-tests.xml"
    report.unlink(missing_ok=True)  # of an earlier check
    tests = [ROOT / "tests" / "engine" / "test_gpu.py"] if check.rehearsal else [
        ROOT / "tests", "-m", "gpu"]
    done = check.run([sys.executable, "-m", "pytest", *tests, "-q", "--rootdir", ROOT, "-p",
                      "no:cacheprovider", f"--junitxml={report}"], PATIENCE["suite"],
                     check.half_time)
    if not report.exists():
        return Part("suite", False, last_line(done) or "pytest said nothing")
    top = ElementTree.parse(report).getroot()
    counts = {k: sum(int(s.get(k) or 0) for s in top.iter("testsuite"))
              for k in ("tests", "failures", "errors", "skipped")}
    ran = counts["tests"] - counts["skipped"]
    failed = [f"{c.get('classname')}::{c.get('name')}" for c in top.iter("testcase")
              if c.find("failure") is not None or c.find("error") is not None]
    found = f"{ran} tests ran, {len(failed)} failed"
    return Part("suite", ran > 0 and not failed, found + (f": {failed[0]}" if failed else ""),
                facts={**counts, "failed": failed})


# Parity -------------------------------------------------------------------------------------------


def real_tables(check: Check) -> dict[str, dict[str, Any]]:
    """The ``data`` section of each real table that is here."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from sklearn import datasets

    found: dict[str, dict[str, Any]] = {}
    for name, load in (("breast_cancer", datasets.load_breast_cancer),
                       ("wine", datasets.load_wine), ("diabetes", datasets.load_diabetes)):
        path = check.scratch / f"{name}.parquet"
        pq.write_table(pa.Table.from_pandas(load(as_frame=True).frame), path)
        found[name] = {"source": str(path), "target": "target"}
    for name, file, data in (
        ("adult", "adult/adult.data", {"target": "outcome", "positive": ">50K"}),
        ("bank", "bank-marketing/bank-full.csv", {"target": "y", "positive": "yes"}),
        ("diamonds", "diamonds/diamonds.csv", {"target": "price"}),
    ):
        if (check.tables / file).exists():
            found[name] = {"source": str(check.tables / file), **data}
    return found


def parity(check: Check, name: str, data: dict[str, Any]) -> Part:
    """One table's certificate."""
    pipeline = check.scratch / f"{name}.yaml"
    pipeline.write_text(yaml.safe_dump({
        "name": name, "data": data, "split": {"holdout": 0.3, "folds": 2},
        "model": {"kind": "xgboost", "params": {"n_estimators": check.trees}},
        "evaluate": {"baselines": ["linear"]},
    }, sort_keys=False))
    folder = check.folder / "parity" / name
    left, right = check.sides
    done = check.run([sys.executable, "-m", "gpupipe.cli", "parity", pipeline, "--left", left,
                      "--right", right, "--output", folder, "--json"], PATIENCE["parity"],
                     check.half_time)
    answer = answer_of(done)
    levels = ", ".join(f"{v['name']} {'holds' if v['holds'] else 'does not hold: ' + v['found']}"
                       for v in answer["levels"])
    return Part(name, answer["holds"], levels, facts={
        "rows": answer["data"]["rows"], "levels": answer["levels"],
        "certificate": f"parity/{name}/certificate.html",
        "seconds": {side: answer[side]["seconds"] for side in ("left", "right")},
    })


# The benchmark ------------------------------------------------------------------------------------


def start_table(check: Check) -> tuple[Path, subprocess.Popen[str]]:
    """The benchmark's table, on its way while the other parts run."""
    path = check.scratch / "table.parquet"
    maker = ROOT / "scripts" / "make_data.py"
    return path, subprocess.Popen(
        [sys.executable, maker, "--rows", str(check.rows), "--out", path], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )


def contender(check: Check, name: str, table: Path) -> Part:
    """One run in a fresh process: wall seconds, preprocessing seconds and AUC."""
    if name == "rival":
        command: list[str | Path] = [sys.executable, RIVAL, table]
    else:
        pipeline = yaml.safe_load(
            (ROOT / "benchmarks" / "pipelines" / "two_million.yaml").read_text())
        pipeline["data"]["source"] = str(table)
        pipeline["model"]["params"]["n_estimators"] = check.trees
        on_gpu = name == "gpu" and not check.rehearsal
        pipeline["engine"] = {"device": "cuda" if on_gpu else "cpu"}
        path = check.scratch / f"{name}.yaml"
        path.write_text(yaml.safe_dump(pipeline, sort_keys=False))
        runs = temporary_name(check.scratch / "runs")  # a new folder: nothing is known beforehand
        command = [sys.executable, "-m", "gpupipe.cli", "run", path, "--runs", runs, "--json"]
    started = time.perf_counter()
    done = check.run(command, PATIENCE["benchmark"], check.deadline)
    wall = time.perf_counter() - started
    answer = answer_of(done)
    stages = answer["seconds"] if name == "rival" else answer["timings"]
    auc = answer["auc"] if name == "rival" else answer["metrics"]["roc_auc"]["value"]
    named = PREPROCESSING["rival" if name == "rival" else "gpupipe"]
    preprocessing = sum(stages[s] for s in named)
    return Part(name, True, f"{wall:.1f} s end to end, {preprocessing:.1f} s of preprocessing, "
                f"AUC {auc:.4f}", facts={"wall_s": round(wall, 2), "auc": auc, "stages": stages,
                                         "preprocessing_s": round(preprocessing, 2)})


def compared(runs: Sequence[Part]) -> list[Part]:
    """What the runs mean: how many times faster, and that all learned equally well."""
    best: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.passed and run.facts["wall_s"] < best.get(run.name, {"wall_s": 1e9})["wall_s"]:
            best[run.name] = run.facts
    parts = []
    for measure, words in (("preprocessing_s", "preprocessing"), ("wall_s", "end to end")):
        for other in ("cpu", "rival"):
            if "gpu" in best and other in best:
                ratio = best[other][measure] / best["gpu"][measure]
                parts.append(Part(f"{words}, {other} / gpu", True, f"{ratio:.2f}",
                                  facts={"ratio": round(ratio, 3)}))
    scores = {name: facts["auc"] for name, facts in best.items()}
    if len(scores) > 1:
        apart = max(scores.values()) - min(scores.values())
        parts.append(Part("AUC", apart <= AUC_SLACK, f"at most {apart:.5f} apart"))
    return parts


# What is written ----------------------------------------------------------------------------------


def answer_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object that a command printed. ValueError with its error where there is none."""
    start = done.stdout.find("{")
    if start < 0:
        raise ValueError(last_line(done) or f"exit code {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout[start:])
    if "error" in answer:
        raise ValueError(answer["error"]["message"])
    return answer


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else ""


def write(check: Check, about: dict[str, Any], sections: dict[str, list[Part]]) -> None:
    """The JSON and the page, each whole or not at all."""
    passed = all(p.passed for parts in sections.values() for p in parts)
    data = {"passed": passed, **about,
            **{name: [asdict(p) for p in parts] for name, parts in sections.items()}}
    for name, text in (("gpu_check.json", json.dumps(data, indent=1, ensure_ascii=False)),
                       ("gpu_check.html", page_of(about, sections, passed))):
        beside = temporary_name(check.folder / name)
        beside.write_text(text, encoding="utf-8")
        beside.replace(check.folder / name)


def page_of(about: dict[str, Any], sections: dict[str, list[Part]], passed: bool) -> str:
    titles = {"suite": "Tests on the device", "parity": "Parity on real tables",
              "benchmark": "Benchmark", "ratios": "What it means"}
    cards, tables = [], []
    for name, parts in sections.items():
        good = all(p.passed for p in parts)
        count = f"{sum(p.passed for p in parts)} of {len(parts)} passed"
        cards.append(Card(titles[name], Mark("passed" if good else "did not pass", good), count,
                          parts[0].found if len(parts) == 1 else ""))
        rows = [(p.name, Mark("passed" if p.passed else "did not pass", p.passed), p.found,
                 p.seconds) for p in parts]
        tables.append(Section(name, titles[name], [
            Table("", ("what", "verdict", "found", "seconds"), rows)]))
    stages = [Table(f"{run.name}, {run.facts['wall_s']} s", ("stage", "seconds"),
                    list(run.facts["stages"].items()), folded=True)
              for run in sections.get("benchmark", ()) if run.facts]
    if stages:
        tables.append(Section("stages", "Stages of each run", stages))
    gpu = about["gpu"]["why"]
    return render_page(Page(
        "GPU check", "rehearsal" if about["rehearsal"] else "GPU check", about["created"],
        "A rehearsal without a GPU: CPU against CPU." if about["rehearsal"] else f"On {gpu}.",
        Mark("passed" if passed else "did not pass", passed), cards,
        [("rows", f"{about['rows']:,}"), ("seconds", f"{about['seconds']:.0f}"),
         ("cores", str(about["cores"]))], tables,
    ))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), help="folder of the answers")
    parser.add_argument("--budget", type=float, default=500.0, help="seconds in all; default 500")
    parser.add_argument("--rows", type=int, default=20_000_000, help="of the benchmark's table")
    parser.add_argument("--trees", type=int, default=100, help="of every model")
    parser.add_argument("--tables", type=Path, default=ROOT.parent / "shared" / "data",
                        help="folder of real tables; those that are missing are left out")
    parser.add_argument("--rehearse", action="store_true", help="without a GPU: CPU against CPU")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    started = time.monotonic()
    diagnosis = diagnose()
    if not (diagnosis.gpu.usable or args.rehearse):
        show.diagnosis(diagnosis)
        return 5
    args.out.mkdir(parents=True, exist_ok=True)
    about: dict[str, Any] = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"), "rehearsal": args.rehearse,
        "rows": args.rows, "seconds": 0.0, "cores": len(os.sched_getaffinity(0)),
        "gpu": diagnosis.gpu.to_json(), "machine": diagnosis.to_json()["findings"],
    }
    sections: dict[str, list[Part]] = {}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as scratch:
        check = Check(args.out.resolve(), Path(scratch), started + args.budget,
                      started + BEFORE_BENCHMARK * args.budget, ("cpu", "local") if args.rehearse
                      else ("cpu", "cuda"), args.rehearse, args.tables, args.rows, args.trees)

        def add(section: str, part: Part) -> None:
            sections.setdefault(section, []).append(part)
            about["seconds"] = round(time.monotonic() - started, 1)
            write(check, about, sections)
            print(f"{'ok' if part.passed else '!!'}  {section} {part.name}: {part.found} "
                  f"({part.seconds} s)", flush=True)

        table, making = start_table(check)
        try:
            add("suite", attempt("suite", partial(suite, check)))
            for name, data in real_tables(check).items():
                add("parity", attempt(name, partial(parity, check, name, data)))
            made = attempt("table", partial(wait_for, check, making))
            add("benchmark", made)
            # The GPU twice: the first run of a machine compiles and loads more.
            names = ["gpu", "gpu", "cpu"] if args.rehearse else [
                "gpu", "rival", "gpu", "rival", "cpu"]
            for name in names if made.passed else ():
                add("benchmark", attempt(name, partial(contender, check, name, table)))
            for part in compared([p for p in sections["benchmark"] if p is not made]):
                add("ratios", part)
        finally:
            making.kill()
            making.communicate()
    print(f"{args.out / 'gpu_check.html'}, {args.out / 'gpu_check.json'}")
    return 0 if all(p.passed for parts in sections.values() for p in parts) else 4


def wait_for(check: Check, making: subprocess.Popen[str]) -> Part:
    """The table, once it is there."""
    try:
        said, _ = making.communicate(timeout=max(1.0, check.deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError("the table was not written in time") from None
    lines = said.strip().splitlines()
    told = lines[-1].partition(": ")[2] or lines[-1] if lines else "nothing was said"
    return Part("table", making.returncode == 0, told)


if __name__ == "__main__":
    sys.exit(main())
