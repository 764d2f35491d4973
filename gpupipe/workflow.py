"""The story of a run, top to bottom: plan, ingest, train, evaluate, bundle, report.

Every verb of the command line is one function here. A run is written under a temporary name
and renamed when it is whole, so a folder under ``runs/`` is always a finished run.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from gpupipe import predictions
from gpupipe.bundle import store
from gpupipe.bundle.golden import golden_rows
from gpupipe.bundle.scoring import Bundle
from gpupipe.checkpoints import Checkpoints, crash_point, sweep, temporary_name
from gpupipe.config import PipelineConfig, dump_config
from gpupipe.console import reading
from gpupipe.data.dataset import Dataset, on_disk
from gpupipe.data.ingest import ingest
from gpupipe.engine import performance
from gpupipe.engine.choose import Choice, choose
from gpupipe.engine.machine import peak_memory
from gpupipe.errors import DataError, EnvironmentFault
from gpupipe.evaluate.report import render_report
from gpupipe.explain import explain
from gpupipe.honesty import side_by_side
from gpupipe.judging import headline, judge, slices
from gpupipe.leakage import lint
from gpupipe.looks import look
from gpupipe.models import load_ahead
from gpupipe.plan import Plan, make_plan, plan_of, search_of
from gpupipe.prepare import prepare
from gpupipe.record import config_source, contents_of, manifest_of, report_of, states_of
from gpupipe.rows import dropped
from gpupipe.scoring import evaluate, predict
from gpupipe.timings import Timings
from gpupipe.training import Trained, check_fits, train

__all__ = [
    "Plan", "RunResult", "check", "cross_validate", "evaluate", "fingerprint", "plan", "predict",
    "run", "show",
]

GOLDEN_ROWS = 16
TRUST = ("leaderboard", "looks", "split_honesty")
"""Parts of the metrics that say how far to trust the others."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, and what it found."""

    run: Path
    summary: dict[str, Any] = field(repr=False)

    @property
    def bundle(self) -> Path:
        return self.run / "bundle"

    @property
    def report(self) -> Path:
        return self.run / "report.html"

    @property
    def metrics(self) -> dict[str, Any]:
        """Each metric's value and interval, of the holdout or else out of fold."""
        found: dict[str, Any] = self.summary["metrics"]
        return found

    def to_json(self) -> dict[str, Any]:
        return {"run": str(self.run), "bundle": str(self.bundle), "report": str(self.report),
                **self.summary}


def run(
    config: PipelineConfig, *, runs: Path = Path("runs"), source: object = None,
    progress: Any = None,
) -> RunResult:
    """Run a pipeline: everything lands in a new folder under ``runs``.

    Parameters
    ----------
    config : the pipeline.
    runs : the folder of runs; ``runs/latest`` will point at this one.
    source : a table in memory to use instead of ``data.source``.
    progress : see `gpupipe.console`.
    """
    _check_runs(runs)
    with _trained(config, runs / ".cache", source, progress) as (trained, choice):
        return _finished(config, runs, trained, choice)


def _finished(
    config: PipelineConfig, runs: Path, trained: Trained, choice: Choice
) -> RunResult:
    """What was trained, evaluated and written."""
    dataset, timings = trained.dataset, trained.timings
    planned = make_plan(choice, trained.model.candidate.graph, dataset.rows,
                        len(dataset.schema.fields), len(trained.split.folds), trained.layout,
                        search=search_of(config, trained.target.task))
    with timings.stage("evaluate"):
        metrics = judge(trained)
        sliced = slices(trained)
    with timings.stage("other splits"):
        if splits := side_by_side(trained):
            metrics["split_honesty"] = splits
    contents = contents_of(trained)
    with timings.stage("explain"):
        explained = explain(trained, contents)
    now = dt.datetime.now(dt.UTC)
    with _new_run(runs, config, now) as (folder, run_id):
        created = now.isoformat(timespec="seconds")
        manifest = manifest_of(trained, run_id, created, choice.to_json())
        if seen := look(trained, runs / ".cache", run_id, created):
            metrics["looks"] = seen
        with timings.stage("bundle"):
            store.write(folder / "bundle", contents, states_of(trained),
                        golden_rows(Bundle(contents, folder), _first_rows(dataset)))
            predictions.write(trained, folder / predictions.FILE)
        with timings.stage("report"):
            there = trained.rowed.engine.performance(timings.stages)
            page = render_report(report_of(trained, manifest, metrics, sliced, explained,  # type: ignore[arg-type]
                                           [*planned.lines(), *performance.lines(there)]))
            (folder / "report.html").write_text(page, encoding="utf-8")
        manifest |= {"timings": {s["stage"]: s["seconds"] for s in timings.stages},
                     "performance": there, "plan": planned.to_json(),
                     "peak_memory_bytes": peak_memory()}
        _write_json(folder / "manifest.json", manifest)
        _write_json(folder / "metrics.json", {**metrics, "slices": sliced})
        if explained:
            _write_json(folder / "explanations.json", explained)
        _write_json(folder / "config.json", dump_config(config))
    trained.checkpoints.prune()
    part = headline(metrics)
    return RunResult(runs / run_id, {
        "name": config.name, "task": trained.target.task, "rows": dataset.rows,
        "metrics": part.get("model", {}),
        "baselines": part.get("baselines", {}),
        **trained.finished.to_json(),
        "cross_validation": metrics.get("cross_validation", {}).get("model", {}),
        "evaluated_on": "holdout" if "holdout" in metrics else
        "cross_validation" if "cross_validation" in metrics else "training" if part else "nothing",
        **{part: metrics.get(part) for part in TRUST},
        "timings": manifest["timings"], "plan": planned.to_json(),
        "peak_memory_bytes": manifest["peak_memory_bytes"], "notes": manifest["notes"],
        "selection": manifest["selection"],
    })


def cross_validate(
    config: PipelineConfig, *, cache: Path | None = None, source: object = None,
    progress: Any = None,
) -> dict[str, Any]:
    """Train and judge the models of the folds, and none on all rows; write no run.

    The holdout is left alone. What was trained is kept under ``cache``: a later run on the same
    data trains the final model alone.

    Returns
    -------
    ``metrics`` and ``baselines`` out of fold, with intervals; ``folds``, the metrics of each.
    """
    if not config.split.folds:
        raise config.fault(("split", "folds"), "there are no folds to cross-validate with",
                           "set split.folds to 2 or more")
    cache = cache or Path("runs") / ".cache"
    _check_runs(cache.parent)
    with _trained(config, cache, source, progress, final=False) as (trained, _):
        with trained.timings.stage("evaluate"):
            metrics = judge(trained)
        trained.checkpoints.prune()
    part = metrics["cross_validation"]
    return {
        "name": config.name, "task": trained.target.task, "rows": part["rows"],
        "metrics": part["model"], "baselines": part["baselines"], "folds": metrics["folds"],
        **trained.finished.to_json(), "leaderboard": metrics.get("leaderboard"),
        "evaluated_on": "cross_validation", "notes": trained.notes,
        "timings": {s["stage"]: s["seconds"] for s in trained.timings.stages},
        "peak_memory_bytes": peak_memory(),
    }


def plan(config: PipelineConfig, *, progress: Any = None, cache: Path | None = None) -> Plan:
    """Where and how the pipeline would run, and what earlier runs have done of it already.

    Profiles the data, unless that was done before; learns and trains nothing.
    """
    choose(config.engine)  # what cannot be is told before any work
    cache = cache or Path("runs") / ".cache"
    dataset = ingested(config, cache, None, progress)
    choice = choose(config.engine, dataset.rows)
    ready = prepare(config, dataset, choice.here(), progress=progress,
                    checkpoints=_checkpoints(cache, dataset))
    return plan_of(ready, choice)


def check(config: PipelineConfig, *, progress: Any = None) -> list[dict[str, Any]]:
    """What does not fit, or is worth a look, before anything is trained.

    What the leak linter found has ``blocks``: whether a run would stop at it.
    """
    from gpupipe.inspect import inspect

    cache = Path("runs") / ".cache"
    dataset = ingested(config, cache, None, progress)
    choice = choose(config.engine, dataset.rows)
    ready = prepare(config, dataset, choice.here(), progress=progress,
                    checkpoints=_checkpoints(cache, dataset))
    check_fits(ready.layout(len(ready.graphs[0].outputs), choice.processes))
    apart = {*dropped(config, dataset), *(config.data.key or ())}
    found: list[dict[str, Any]] = [{"kind": "note", "message": n} for n in dataset.notes]
    for remark in inspect(dataset, config.data.target, progress=progress).remarks:
        if remark.kind in ("id", "constant", "duplicate"):
            columns = set(getattr(remark, "columns", ()))
            if not (columns and columns <= apart):
                found.append({"kind": remark.kind, "message": remark.text})
    stops = config.leaks.check == "block"
    return found + [
        {"kind": "leak", "message": f.text, **f.to_json(), "blocks": stops and f.blocks}
        for f in lint(ready)
    ]


def show(folder: Path) -> dict[str, Any]:
    """A run's manifest and metrics. DataError where it is not a whole run."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} is not a run: {Path(str(error.filename)).name} is missing",
                        hint="name a folder under runs/") from None
    except ValueError as error:
        raise DataError(f"{folder} is damaged: {error}") from None
    part = headline(metrics)
    return {"run": str(folder.resolve()), "manifest": manifest, "metrics": part.get("model", {}),
            "baselines": part.get("baselines", {}), "all_metrics": metrics}


def fingerprint(folder: Path) -> dict[str, str]:
    """The hashes of all that a run learned before training: ``all``, and by kind."""
    found: dict[str, str] = show(folder)["manifest"]["fingerprint"]
    return found


def ingested(config: PipelineConfig, cache: Path, source: object, progress: Any) -> Dataset:
    """The pipeline's table, typed. Text becomes Parquet under ``cache`` once.

    Columns to drop are read all the same, for they may tell equal rows apart; only where the
    table cannot be read with them (a nested column, say) are they left out beforehand.
    """
    data = config.data

    def read(drop: list[str]) -> Dataset:
        with reading(progress) as report:
            return ingest(
                config_source(config) if source is None else source, cache=cache,
                types=data.types, missing=data.missing, drop=drop, format=data.format,
                delimiter=data.delimiter, encoding=data.encoding, header=data.header,
                max_bad_share=data.max_bad_share, progress=report,
            )

    named = [d for d in data.drop if not set(d) & set("*?[")]
    try:
        return read([])
    except DataError:
        if not named:
            raise
        return replace(read(named), left_out=tuple(named))


@contextmanager
def _trained(
    config: PipelineConfig, cache: Path, source: object, progress: Any, final: bool = True,
) -> Iterator[tuple[Trained, Choice]]:
    """The trained models, while the engine is there on which they were, and what it is."""
    choose(config.engine)  # what cannot be is told before any work
    load_ahead(config.model.kind)
    timings = Timings()
    with timings.stage("ingest"):
        dataset = ingested(config, cache, source, progress)
    choice = choose(config.engine, dataset.rows)
    with choice.opened() as (engine, opened), scratch_folder(cache) as scratch:
        engine.warm(partial(load_ahead, config.model.kind))
        if opened.dashboard and progress is not None:
            progress.say(f"dashboard {opened.dashboard}")
        if opened.remote:
            dataset = on_disk(dataset, scratch)
        yield train(config, dataset, engine, progress=progress, timings=timings,
                    checkpoints=_checkpoints(cache, dataset), scratch=scratch, final=final), opened


def _checkpoints(cache: Path, dataset: Dataset) -> Checkpoints:
    """What earlier runs on the same data left."""
    return Checkpoints(cache.absolute() / "steps").given(data=dataset.fingerprint)


@contextmanager
def scratch_folder(cache: Path) -> Iterator[Path]:
    """A folder for what does not fit into memory, while a run goes on."""
    folder = temporary_name(cache.absolute() / "scratch")
    folder.mkdir(parents=True)
    sweep(cache)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _first_rows(dataset: Dataset) -> pa.Table:
    return next(dataset.stream(batch_rows=GOLDEN_ROWS))


def _check_runs(runs: Path) -> None:
    """EnvironmentFault, before any work is done, where no run could be written in the end."""
    latest, path = runs / "latest", runs.absolute()
    if latest.exists() and not latest.is_symlink():
        raise EnvironmentFault(
            "this should be the link to the newest run, and is something else",
            where=str(latest), hint="rename it, or keep runs in another folder",
        )
    nearest = next(p for p in (path, *path.parents) if p.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise EnvironmentFault(
            f"the folder of runs cannot be written: {nearest} is "
            f"{'read-only for you' if nearest.is_dir() else 'no folder'}",
            where=str(runs), hint="keep runs in another folder (--runs)",
        )


@contextmanager
def _new_run(
    runs: Path, config: PipelineConfig, now: dt.datetime
) -> Iterator[tuple[Path, str]]:
    """A folder to fill; when all went well it becomes ``runs/<id>`` and ``runs/latest``."""
    digest = hashlib.sha256(json.dumps(dump_config(config), sort_keys=True).encode()).hexdigest()
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", config.name).strip("-") or "run"
    run_id = f"{now:%Y%m%d-%H%M%S-%f}-{slug}-{digest[:6]}"
    temporary = temporary_name(runs / run_id)
    temporary.mkdir(parents=True)
    sweep(runs)
    try:
        yield temporary, run_id
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    crash_point("run written")
    temporary.rename(runs / run_id)
    crash_point("run renamed")
    pointer = temporary_name(runs / "latest")
    pointer.symlink_to(run_id)
    pointer.replace(runs / "latest")


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False, default=str), encoding="utf-8")
