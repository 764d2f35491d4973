"""The verbs of watching a model: one function a verb and no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpupipe.cli.options import Debug, Json, Trained
from gpupipe.cli.outcome import Answer


def monitor(
    run: Trained,
    data: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATA]...", help="A prediction log, or tables: files, globs or "
                       "folders. Left out, what the history holds is judged.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Labels that came later: a table of prediction_id and the "
                                 "target's column.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Rows as they should be, such as the training data: judges "
                                 "all columns together, too.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="1d, 12h, 10000rows or all.", show_default="1d where there "
                                 "is a time, else all")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="The column that says when; a log has its own.")
    ] = None,
    history: Annotated[
        Path | None, typer.Option(help="The folder that keeps what was counted; what it holds "
                                  "is not read again.")
    ] = None,
    variant: Annotated[
        str, typer.Option(help="Whose rows of a prediction log are judged.")
    ] = "champion",
    rules: Annotated[
        Path | None, typer.Option(help="The pipeline file whose `monitor` section has the rules.")
    ] = None,
    prometheus: Annotated[
        Path | None, typer.Option(help="A file for Prometheus' textfile collector: NAME.prom.")
    ] = None,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Hold what comes in and goes out against what the model was trained on.

    Ends with 4 while an alert fires.
    """
    from gpupipe.cli import show, show_monitor
    from gpupipe.config import load_config
    from gpupipe.console import bars

    config = None if rules is None else load_config(rules)
    from gpupipe import monitor as room  # slow to import: a fault in the file is told first

    verdict = room.monitor(show.trained(run), data or None, labels=labels, against=against,
                           window=window, time=time, history=history, variant=variant,
                           rules=config, progress=bars())
    if prometheus is not None:
        room.write_prometheus(verdict, prometheus)
    found = {**verdict.to_json(), "alerts": dict(verdict.alerts)}
    return Answer(found, lambda: show_monitor.verdict(verdict), verdict.code)


def monitor_files(
    output: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write them.")],
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Write alert rules for Prometheus and a dashboard for Grafana: of servers and monitoring."""
    from gpupipe import monitor as room
    from gpupipe.console import say

    made = room.write_files(output)
    return Answer({"files": made}, lambda: say("\n".join(map(str, made))))


def dashboard(
    history: Annotated[Path, typer.Argument(metavar="HISTORY", help="The history's folder.")],
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("dashboard.html"),
    last: Annotated[int, typer.Option(min=1, max=120, help="The newest windows to show.")] = 60,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Write a page over a history: states by column and window, distributions then and now."""
    from gpupipe import monitor as room
    from gpupipe.console import say

    made = room.write_dashboard(history, output, last)
    return Answer(made, lambda: say(f"page    {output}"))
