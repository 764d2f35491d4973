"""The tables that an experiment is read from, and prediction logs among them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gpupipe.console import reading
from gpupipe.data.dataset import Dataset
from gpupipe.data.ingest import ingest, ingest_plain
from gpupipe.data.sources import detect_format, resolve
from gpupipe.data.sources import reading as read_from
from gpupipe.errors import DataError

LOG = ("prediction_id", "unit_id", "variant", "shadow")
"""The columns by which a server's prediction log is known."""


def opened(source: object, needed: Collection[str], cache: Path, progress: Any = None) -> Dataset:
    """Any source as a dataset; columns that are not ``needed`` may be of any type.

    The files of a prediction log may differ in these: a model that came later has features of its
    own.
    """
    files = _log_files(source)
    with reading(progress) as report:
        if not files:
            return ingest_plain(source, needed, cache=cache, progress=report)
        wanted = {*needed, *LOG}
        parts: list[Dataset] = []
        for file in files:
            names = pq.read_schema(file).names
            parts.append(ingest(str(file), cache=cache, progress=report,
                                drop=[n for n in names if n not in wanted]))
    first = parts[0]
    for file, one in zip(files, parts, strict=True):
        for field in first.schema:
            if field not in one.schema.fields:
                raise DataError(
                    f"column {field.name!r} is not the {field.dtype} that it is in {files[0]}",
                    where=str(file), hint="leave the older files of the log out",
                )
    return replace(first, parts=tuple(p for one in parts for p in one.parts), source=str(source))


def _log_files(source: object) -> list[Path]:
    """The files of a prediction log; none where it is another source."""
    if not isinstance(source, (str, Path, list, tuple)):
        return []
    files = [f.path for f in resolve(source)]
    for file in files[:1]:
        with read_from(file), file.open("rb") as stream:
            head = stream.read(4096)
        if not head or detect_format(file, head) != "parquet":
            return []
        with read_from(file):
            if not all(name in pq.read_schema(file).names for name in LOG):
                return []
    return files
