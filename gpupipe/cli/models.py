"""``gpupipe models ...``: the verbs of the registry; see `verbs` for the pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpupipe.cli.options import Debug, Json, Trained, example
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


@app.command(**example("gpupipe models promote models/churn@7 champion --data labelled.parquet"))
def promote(
    model: At, alias: Alias = "champion",
    data: Annotated[
        str | None, typer.Option(help="Labelled data: the gates are asked on it.")
    ] = None,
    gates: Annotated[
        Path | None, typer.Option(help="A YAML file with the gates.", show_default="those of the "
                                  "options, where there is --data")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="The metric that decides.")] = None,
    mode: Annotated[str | None, typer.Option(help="better or no_worse.")] = None,
    margin: Annotated[float | None, typer.Option(help="By how much, in its unit.")] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="A column in whose levels it may not be "
                                       "worse. Several times for several.")
    ] = None,
    latency: Annotated[
        float | None, typer.Option(help="So many times the champion's time for a row at most.")
    ] = None,
    drift: Annotated[
        str | None, typer.Option(help="A verdict of `gpupipe monitor` that may raise no alert.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="The version or alias to be held against.",
                                 show_default="where ALIAS points now")
    ] = None,
    expect: Annotated[
        int | None, typer.Option(help="Move only if ALIAS points at this version now.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Move it although a gate does not pass.")
    ] = False,
    why: Why = "", by: By = None, json: Json = False, debug: Debug = False,
) -> Answer:
    """Point an alias at a version, where the gates let it.

    Ends with 4 where a gate does not pass, and where somebody else moved the alias meanwhile.
    """
    from gpupipe import registry as room
    from gpupipe.cli import show_models as show
    from gpupipe.console import bars
    from gpupipe.registry import gates as rules
    from gpupipe.registry.promotion import promote as move

    flags = {"metric": metric, "mode": mode, "margin": margin, "slices": slices,
             "latency": latency, "drift": drift}
    asked = rules.read_gates(gates, **flags) if gates or data or any(
        v is not None for v in flags.values()) else None
    registry, version = room.version_of(model)
    done = move(registry, version.name, version.version, alias, gates=asked, data=data,
                against=against, expect=expect, force=force, moved=room.stamp(why, by),
                progress=bars())
    return Answer(done.to_json(), lambda: show.promoted(done), 0 if done.done else 4)


@app.command(**example("gpupipe models compare models/churn@champion models/churn@7 --data l.csv"))
def compare(
    left: Trained, right: Trained,
    data: Annotated[str, typer.Option(help="Labelled data.")],
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="A column whose levels are told, too.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write the comparison as an HTML page, too.")
    ] = None,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Compare two models on the same labelled data; differences are the second minus the first."""
    from gpupipe import registry as room
    from gpupipe.cli import show
    from gpupipe.compare.page import write_page
    from gpupipe.console import bars

    found = room.compared(left, right, data, slices or (), progress=bars())
    if page is not None:
        write_page(found, page)
    return Answer(found, lambda: show.compared(found, page))


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


@app.command(**example("gpupipe models export models/churn@champion --format onnx --output churn"))
def export(
    model: Trained,
    format: Annotated[str, typer.Option(help="mlflow, onnx or xgboost.")],
    output: Annotated[Path, typer.Option(help="The folder to write; it must not be there yet.")],
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Write a model in the format of another tool."""
    from gpupipe import exports as room
    from gpupipe.bundle import load
    from gpupipe.cli import show
    from gpupipe.cli import show_models as showing

    done = room.export(load(show.trained(model)), format, output)
    return Answer(done, lambda: showing.exported(done))
