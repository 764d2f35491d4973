"""The demo's data: a synthetic churn table (scripts/make_demo.py writes it) and its pipeline."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from gpupipe.errors import ConfigError

MEMBERS = ("churn.csv", "pipeline.yaml")


def write_demo(folder: Path) -> Path:
    """Write the demo's files into ``folder``; return the path of its pipeline file.

    Files that are there and the same stay; ConfigError where one differs, since it may be
    the user's own.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError("this is a file; name a folder", where=str(folder)) from None
    contents = {name: files(__package__).joinpath(name).read_bytes() for name in MEMBERS}
    for name, content in contents.items():
        path = folder / name
        if path.exists() and path.read_bytes() != content:
            raise ConfigError(
                "this file is there already and is not the demo's", where=str(path),
                hint=f"`gpupipe run {folder / 'pipeline.yaml'}` runs it as it is; "
                "or name another folder",
            )
    for name, content in contents.items():
        beside = folder / f".{name}.partial"
        beside.write_bytes(content)
        os.replace(beside, folder / name)  # noqa: PTH105
    return folder / "pipeline.yaml"
