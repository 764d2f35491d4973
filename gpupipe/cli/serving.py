"""The verb that serves a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpupipe.cli.options import Debug, Json
from gpupipe.cli.outcome import Answer


def serve(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", show_default="champion of the file",
                                   help="A run's or bundle's folder, or REGISTRY/NAME@ALIAS.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A file of settings: serve.yaml.")] = None,
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="The port; 0 takes a free one.", show_default="8000")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that answer.", show_default="1")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What paths and answers call it.")] = None,
    api_keys: Annotated[
        str | None, typer.Option("--api-key-file", help="A file with one key a line.")
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(help="The certificate, as PEM.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Its key, as PEM.")] = None,
    log: Annotated[str | None, typer.Option(help="The prediction log's folder.")] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log/--no-access-log", show_default="--access-log",
                                  help="A line of JSON on stderr for every request.")
    ] = None,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Serve a model over HTTP until SIGTERM. Flags stand over the file of settings."""
    from gpupipe.serve import load_settings
    from gpupipe.serve import serve as run

    flags = {"champion": model, "host": host, "port": port, "workers": workers, "name": name,
             "api_keys": api_keys, "tls_cert": tls_cert, "tls_key": tls_key, "log": log,
             "access_log": access_log}
    code = run(load_settings(config, flags))
    return Answer({"ok": code == 0}, lambda: None, code)
