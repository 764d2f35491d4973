"""Options and arguments that verbs share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Trained = Annotated[
    str, typer.Argument(metavar="MODEL", help="A run's folder (runs/latest), a bundle's, or a "
                        "version in a registry: REGISTRY/NAME@ALIAS.")
]
Source = Annotated[str, typer.Argument(metavar="SOURCE", help="A file, a glob or a folder.")]


def example(line: str, panel: str | None = None) -> dict[str, Any]:
    """What a verb's help ends with, and the panel of verbs that it is listed in."""
    return {"epilog": f"Example: {line}", "rich_help_panel": panel}
