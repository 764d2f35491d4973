"""``gpupipe skew``; see `verbs` for the pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gpupipe.cli.options import Debug, Json
from gpupipe.cli.outcome import Answer
from gpupipe.console import say, table


def skew(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run's folder, a bundle's, REGISTRY/NAME@ALIAS,"
                            " or REGISTRY/NAME for every version that the log names.")
    ],
    log: Annotated[
        str, typer.Argument(metavar="LOG", help="A prediction log with features: its folder, or "
                            "files of it.")
    ],
    name: Annotated[
        str | None, typer.Option(help="What the log calls the model.",
                                 show_default="the registry's name")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Compare the features with this table's, too.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Its column of keys; in the log a feature, or the unit's id.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="How far the scores may be apart.")
    ] = 0.0,
    source_tolerance: Annotated[
        float, typer.Option(help="How far a number may be from the table's, relative to it.")
    ] = 0.0,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Score logged requests again by the batch path, and say what differs.

    Ends with 4 where anything does.
    """
    from gpupipe import skew as room
    from gpupipe.console import bars

    found = room.skew(model, log, name=name, source=source, key=key, tolerance=tolerance,
                      source_tolerance=source_tolerance, progress=bars())
    return Answer(found, lambda: show(found), 4 if found["differs"] else 0)


def show(found: Mapping[str, Any]) -> None:
    """What was compared, and what differs."""
    for version in found["versions"]:
        parts = [("score", version["score"]), ("prediction", version["prediction"]),
                 *((f["name"], f) for f in version["features"])]
        table(["", "rows", "differ", "greatest"],
              [[n, *_counts(t), t["greatest"]] for n, t in parts if t],
              f"{version['model']} version {version['version']}, row path {version['row_path']}")
        if version["without_features"]:
            say(f"note    {version['without_features']:,} rows were logged without "
                f"{', '.join(version['lacking'][:5])}", "yellow")
    for other in found["other"]:
        say(f"note    {other['rows']:,} rows of {other['model']} version {other['version']} were "
            f"left out: {other['why']}", "yellow")
    if found["source"]:
        _show_source(found["source"])
    say("something differs" if found["differs"] else "nothing differs", "bold")


def _show_source(found: Mapping[str, Any]) -> None:
    table(["feature", "rows", "differ", "share", "greatest", "such as (logged, offline)"],
          [[f["name"], *_counts(f), f"{f['share']:.2%}", f["greatest"],
            "; ".join(f"{e['key']}: {e['logged']}, {e['offline']}" for e in f["examples"][:2])]
           for f in found["features"]], f"beside {found['source']}, by {found['log_key']}")
    if found["unmatched"]:
        say(f"note    {found['unmatched']:,} rows have a key that the table has not", "yellow")
    if found["absent"]:
        say(f"note    the table lacks {', '.join(found['absent'])}", "yellow")


def _counts(tally: Mapping[str, Any]) -> list[str]:
    return [f"{tally['rows']:,}", f"{tally['differ']:,}"]
