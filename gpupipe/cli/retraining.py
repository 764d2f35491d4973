"""The verb that retrains; see `verbs` for the pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpupipe.cli.options import Debug, Json
from gpupipe.cli.outcome import Answer


def retrain(
    pipeline: Annotated[
        Path, typer.Argument(metavar="PIPELINE", help="The pipeline file.")
    ] = Path("pipeline.yaml"),
    verdict: Annotated[
        Path | None, typer.Option(help="The verdict of `gpupipe monitor`: HISTORY/verdict.json.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option(metavar="REGISTRY/NAME", help="Where the challenger becomes a "
                                 "version.", show_default="a run alone")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The fresh data.", show_default="the pipeline's source")
    ] = None,
    gates: Annotated[
        Path | None, typer.Option(help="A YAML file with the gates.", show_default="the defaults")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Labelled data to ask the gates on.",
                                 show_default="the new run's holdout")
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Make it champion where the gates pass.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Retrain although no alert fires.")
    ] = False,
    runs: Annotated[Path, typer.Option(help="The folder that holds the runs.")] = Path("runs"),
    why: Annotated[str, typer.Option("--why", help="The reason, for the history.")] = "",
    by: Annotated[
        str | None, typer.Option("--by", help="Who does it.", show_default="this user and machine")
    ] = None,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Train the same pipeline on fresh data where an alert fires, as a challenger.

    The same verdict and data again do nothing. Ends with 4 where a gate does not pass.
    """
    from gpupipe.cli import show_models as show
    from gpupipe.config import load_config
    from gpupipe.console import bars

    config = load_config(pipeline)
    from gpupipe import retrain as room  # slow to import: a fault in the file is told first
    from gpupipe.registry.gates import read_gates

    done = room.retrain(
        config, verdict=verdict, registry=registry, source=data,
        gates=None if gates is None else read_gates(gates), judge=judge, promote=promote,
        force=force, runs=runs, why=why, by=by, progress=bars())
    return Answer(done.to_json(), lambda: show.retrained(done), done.code)
