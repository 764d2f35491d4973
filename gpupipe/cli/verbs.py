"""One function per verb and no logic: each calls one room of the house and shows its answer.

Rooms are imported inside the verbs, so that ``gpupipe --help`` does not wait for libraries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpupipe.cli import experiment, models, retraining, serving, skew
from gpupipe.cli import monitor as monitoring
from gpupipe.cli.options import Debug, Json, Source, Trained
from gpupipe.cli.options import example as _example
from gpupipe.cli.outcome import Answer

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False,
    help="From raw tables to a model you can trust: one pipeline file, any device.",
    epilog="Begin with: gpupipe demo. Every command takes --json, --debug and --help.",
)

File = Annotated[Path, typer.Argument(metavar="PIPELINE", help="The pipeline file.")]
Runs = Annotated[Path, typer.Option("--runs", help="The folder that holds the runs.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder (runs/latest).")]

TRAIN, SCORE, WATCH, MACHINE = "Train", "Score and serve", "Watch and improve", "Trust and tools"
"""The panels of ``--help``, in the order of a model's life."""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gpupipe {version('gpupipe')}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None: ...


@app.command(**_example("gpupipe init churn.csv --target churned", TRAIN))
def init(
    source: Source,
    target: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    output: Annotated[Path, typer.Option(help="The file to write.")] = Path("pipeline.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    encoding: Annotated[
        str | None, typer.Option(help="The text's encoding, where it is not UTF-8: cp1252, ...")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="What stands between fields, where it is not found.")
    ] = None,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Look at a table and write a short pipeline file for it."""
    from gpupipe import inspect
    from gpupipe.cli import show
    from gpupipe.console import bars

    reader = {"encoding": encoding, "delimiter": delimiter}
    proposal = inspect.propose(
        source, target, output, force=force, progress=bars(),
        reader={k: v for k, v in reader.items() if v is not None},
    )
    return Answer(proposal.to_json(), lambda: show.proposal(proposal))


@app.command(**_example("gpupipe check pipeline.yaml", TRAIN))
def check(
    pipeline: File = Path("pipeline.yaml"), json: Json = False, debug: Debug = False
) -> Answer:
    """Read the pipeline file and its data, and say what does not fit. Trains nothing.

    Ends with 4 where the target leaks and a run would stop.
    """
    from gpupipe.cli import show
    from gpupipe.config import load_config
    from gpupipe.console import bars

    config = load_config(pipeline)
    from gpupipe import workflow  # slow to import: a fault in the file is told first

    findings = workflow.check(config, progress=bars())
    ok = not any(f.get("blocks") for f in findings)
    return Answer({"ok": ok, "findings": findings},
                  lambda: show.findings(pipeline, findings), 0 if ok else 4)


@app.command(**_example("gpupipe plan pipeline.yaml", TRAIN))
def plan(
    pipeline: File = Path("pipeline.yaml"), runs: Runs = Path("runs"), json: Json = False,
    debug: Debug = False,
) -> Answer:
    """Say where and how the pipeline would run: device, passes, memory, what is done already."""
    from gpupipe.cli import show
    from gpupipe.config import load_config
    from gpupipe.console import bars

    config = load_config(pipeline)
    from gpupipe import workflow  # slow to import: a fault in the file is told first

    planned = workflow.plan(config, progress=bars(), cache=runs / ".cache")
    return Answer(planned.to_json(), lambda: show.lines(planned.lines()))


@app.command(**_example("gpupipe run pipeline.yaml --register models/churn", TRAIN))
def run(
    pipeline: File = Path("pipeline.yaml"), runs: Runs = Path("runs"),
    register: Annotated[
        str | None, typer.Option(metavar="REGISTRY/NAME", help="Add the bundle as a version, too.")
    ] = None,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Train, evaluate and bundle: everything lands in a new folder under RUNS."""
    from gpupipe.cli import show
    from gpupipe.config import load_config
    from gpupipe.console import bars
    from gpupipe.registry.names import split_name

    config, place = load_config(pipeline), register and split_name(register)
    from gpupipe import workflow  # slow to import: a fault in the file is told first

    result = workflow.run(config, runs=runs, progress=bars())
    answer = result.to_json()
    if place:
        from gpupipe.registry import Registry, add

        answer["registered"] = f"{register}@{add(Registry(place[0]), place[1], result.run).version}"
    return Answer(answer, lambda: show.result(result, answer.get("registered")))


@app.command("cross-validate", **_example("gpupipe cross-validate pipeline.yaml", TRAIN))
def cross_validate(
    pipeline: File = Path("pipeline.yaml"), runs: Runs = Path("runs"),
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Judge the pipeline by its folds alone. Trains no final model, writes no run.

    A run after it trains the final model alone: those of the folds are kept under RUNS.
    """
    from gpupipe.cli import show
    from gpupipe.config import load_config
    from gpupipe.console import bars

    config = load_config(pipeline)
    from gpupipe import workflow  # slow to import: a fault in the file is told first

    found = workflow.cross_validate(config, cache=runs / ".cache", progress=bars())
    return Answer(found, lambda: show.cross_validated(pipeline, runs, found))


@app.command(**_example("gpupipe predict runs/latest new.parquet --output scores.parquet", SCORE))
def predict(
    run: Trained, source: Source,
    output: Annotated[
        Path | None, typer.Option(
            help="The file to write, .parquet or .csv; or a folder.", show_default="predictions"
            ".parquet; with workers, the folder predictions")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Score with so many Dask workers, to a folder.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Score with the workers of this Dask scheduler.")
    ] = None,
    contributions: Annotated[
        bool, typer.Option("--contributions", help="Say what each column adds to each score.")
    ] = False,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Score a table of any size with a trained pipeline."""
    from gpupipe import workflow
    from gpupipe.cli import show
    from gpupipe.config import EngineConfig
    from gpupipe.console import bars

    engine = EngineConfig(kind="dask" if workers or address else "auto",
                          workers=workers or "auto", address=address)
    output = output or Path("predictions.parquet" if engine.kind == "auto" else "predictions")
    written = workflow.predict(show.trained(run), source, output, engine=engine,
                               contributions=contributions, progress=bars())
    return Answer(written, lambda: show.written(output, written))


@app.command(**_example("gpupipe evaluate runs/latest labelled.csv", SCORE))
def evaluate(
    run: Trained, source: Source, json: Json = False, debug: Debug = False
) -> Answer:
    """Judge a trained pipeline on labelled data."""
    from gpupipe import workflow
    from gpupipe.cli import show
    from gpupipe.console import bars

    judged = workflow.evaluate(show.trained(run), source, progress=bars())
    return Answer(judged, lambda: show.judged(judged))


@app.command("show", **_example("gpupipe show runs/latest", TRAIN))
def show_run(
    run: Run = Path("runs/latest"), json: Json = False, debug: Debug = False
) -> Answer:
    """Show a run: its metrics, data, device and timings."""
    from gpupipe import workflow
    from gpupipe.cli import show

    shown = workflow.show(show.trained(run))
    return Answer(shown, lambda: show.run(shown))


@app.command(**_example("gpupipe compare runs/RUN runs/latest --page compare.html", TRAIN))
def compare(
    left: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    right: Annotated[Path, typer.Argument(metavar="RUN", help="The run to hold against it.")],
    page: Annotated[
        Path | None, typer.Option(help="Write the comparison as an HTML page, too.")
    ] = None,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Compare two runs on the rows that both judged; differences are the second minus the first."""
    from gpupipe import compare as room
    from gpupipe.cli import show
    from gpupipe.compare.page import write_page

    found = room.compare(show.trained(left), show.trained(right)).found
    if page is not None:
        write_page(found, page)
    return Answer(found, lambda: show.compared(found, page))


app.command(**_example("gpupipe serve runs/latest --port 8000 --workers 2", SCORE))(serving.serve)
app.add_typer(models.app, name="models", rich_help_panel=SCORE)
app.command(**_example("gpupipe monitor runs/latest logs/ --window 1d --history watched", WATCH))(
    monitoring.monitor)
app.command(**_example("gpupipe dashboard watched --output dashboard.html", WATCH))(
    monitoring.dashboard)
app.command("monitor-files", **_example("gpupipe monitor-files monitoring/", WATCH))(
    monitoring.monitor_files)
app.command(**_example("gpupipe skew models/churn predictions --source features.parquet --key id",
                       WATCH))(skew.skew)
app.command(**_example("gpupipe retrain pipeline.yaml --verdict watched/verdict.json --registry "
                       "models/churn --data new.parquet", WATCH))(retraining.retrain)
app.add_typer(experiment.app, name="experiment", rich_help_panel=WATCH)


@app.command(**_example("gpupipe fingerprint runs/latest", MACHINE))
def fingerprint(
    run: Run = Path("runs/latest"), json: Json = False, debug: Debug = False
) -> Answer:
    """Print one hash of all that a run learned before training.

    It is the same for the same rows in any order, layout, batch size and number of workers.
    """
    from gpupipe import workflow
    from gpupipe.cli import show

    found = workflow.fingerprint(show.trained(run))
    return Answer(found, lambda: show.lines([found["all"]]))


@app.command(**_example("gpupipe parity pipeline.yaml --left cpu --right cuda", MACHINE))
def parity(
    pipeline: File = Path("pipeline.yaml"),
    left: Annotated[str | None, typer.Option(help="cpu, cuda, local or dask.")] = None,
    right: Annotated[str | None, typer.Option(help="The side to hold against it.")] = None,
    seeds: Annotated[int, typer.Option(help="Trainings behind the metrics' deviation.")] = 3,
    output: Annotated[Path, typer.Option(help="The folder of the certificate.")] = Path("parity"),
    runs: Runs = Path("runs"), json: Json = False, debug: Debug = False,
) -> Answer:
    """Run the pipeline on two devices or engines, compare them step by step, and certify it.

    CPU against GPU where there is one, else the local engine against Dask.
    """
    from gpupipe.cli import show
    from gpupipe.config import load_config
    from gpupipe.console import bars

    config = load_config(pipeline)
    from gpupipe import parity as room  # slow to import: a fault in the file is told first

    names = room.sides(left, right)
    engines = [room.engine_of(name, config.engine) for name in names]
    found = room.parity(config, *engines, names=names, seeds=seeds, cache=runs / ".cache",
                        progress=bars())
    data, page = room.write(found, output)
    answer = {**found.to_json(), "certificate": str(data), "page": str(page)}
    return Answer(answer, lambda: show.certificate(found, page), 0 if found.holds else 4)


@app.command(**_example("gpupipe doctor", MACHINE))
def doctor(json: Json = False, debug: Debug = False) -> Answer:
    """Say what works on this machine and how to mend the rest."""
    from gpupipe.cli import show
    from gpupipe.doctor import diagnose

    diagnosis = diagnose()
    return Answer(
        diagnosis.to_json(), lambda: show.diagnosis(diagnosis), 0 if diagnosis.healthy else 5
    )


@app.command(**_example("gpupipe demo", MACHINE))
def demo(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder to write to.")
    ] = Path("gpupipe-demo"),
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Write a small churn table and its pipeline file, and run it."""
    from gpupipe import workflow
    from gpupipe.cli import show
    from gpupipe.config import load_config
    from gpupipe.console import bars
    from gpupipe.data.demo import write_demo

    pipeline = write_demo(folder)
    result = workflow.run(load_config(pipeline), runs=folder / "runs", progress=bars())
    return Answer(result.to_json(), lambda: show.result(result))


@app.command(**_example("gpupipe schema > pipeline.schema.json", MACHINE))
def schema(json: Json = False, debug: Debug = False) -> Answer:
    """Print the JSON Schema of the pipeline file, for editors."""
    from gpupipe.cli import show
    from gpupipe.config import json_schema

    described = json_schema()
    return Answer(described, lambda: show.document(described))
