"""``gpupipe models ...``: the verbs of the registry; see `verbs` for the pattern."""

from __future__ import annotations

from typing import Annotated

import typer

from gpupipe.cli.options import Debug, Json, example
from gpupipe.cli.outcome import Answer

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False,
    help="Versions of models in a registry, and aliases that are moved between them.",
    epilog="A registry is a folder, or a URL such as s3://BUCKET/PREFIX. Begin with: gpupipe "
    "models add models/churn runs/latest",
)

Model = Annotated[
    str, typer.Argument(metavar="REGISTRY/NAME", help="A registry, and a model's name in it.")
]
At = Annotated[
    str, typer.Argument(metavar="REGISTRY/NAME@VERSION", help="A version: a number or an alias.")
]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="champion, challenger, ...")]
Why = Annotated[str, typer.Option("--why", help="The reason, for the history.")]
By = Annotated[
    str | None, typer.Option("--by", help="Who does it.", show_default="this user and machine")
]


@app.command("list", **example("gpupipe models list models"))
def list_models(
    registry: Annotated[str, typer.Argument(metavar="REGISTRY", help="A folder or a URL.")],
    json: Json = False, debug: Debug = False,
) -> Answer:
    """List the models of a registry: their versions and what each alias points at."""
    from gpupipe import registry as room
    from gpupipe.cli import show_models as show

    found = room.listed(room.Registry(registry))
    return Answer(found, lambda: show.models(found))


@app.command("show", **example("gpupipe models show models/churn"))
def show_model(
    model: Annotated[
        str, typer.Argument(metavar="REGISTRY/NAME[@VERSION]", help="A model, or a version of it.")
    ],
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Show a model's versions, aliases and history; or all that is known of one version."""
    from gpupipe import registry as room
    from gpupipe.cli import show_models as show

    found = room.described(model)
    return Answer(found, lambda: show.model(found))


@app.command(**example("gpupipe models add models/churn runs/latest --why 'new prices'"))
def add(
    model: Model,
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or a bundle's.")],
    why: Why = "", by: By = None, json: Json = False, debug: Debug = False,
) -> Answer:
    """Add a run's bundle as a new version; the very same bundle again is the version it is."""
    from gpupipe import registry as room
    from gpupipe.cli import show
    from gpupipe.cli import show_models as showing

    root, name = room.split_name(model)
    made = room.add(room.Registry(root), name, show.trained(run), added=room.stamp(why, by))
    return Answer(made.to_json(), lambda: showing.added(model, made))


@app.command(**example("gpupipe models rollback models/churn champion --why 'complaints'"))
def rollback(
    model: Model, alias: Alias = "champion",
    to: Annotated[
        int | None, typer.Option(help="A version that the alias was at.", show_default="the one "
                                 "before the last move")
    ] = None,
    why: Why = "", by: By = None, json: Json = False, debug: Debug = False,
) -> Answer:
    """Move an alias back to the version it was at before. It is a move like any other."""
    from gpupipe import registry as room
    from gpupipe.cli import show_models as show

    root, name = room.split_name(model)
    moved = room.Registry(root).rollback(name, alias, to, moved=room.stamp(why, by))
    return Answer(moved.to_json(), lambda: show.moved(moved))


@app.command(**example("gpupipe models verify models/churn"))
def verify(
    model: Annotated[
        str, typer.Argument(metavar="REGISTRY/NAME[@VERSION]", help="A model, or a version of it.")
    ],
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Hash every file again, replay the golden rows, and follow the history from its start."""
    from gpupipe import registry as room
    from gpupipe.cli import show_models as show
    from gpupipe.console import bars

    found = room.verified(model, progress=bars())
    return Answer(found, lambda: show.verified(found))
