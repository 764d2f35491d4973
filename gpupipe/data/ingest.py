"""Any source to a typed ``Dataset``: the one way in. The rules are in docs/data.md."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gpupipe.checkpoints import temporary_name
from gpupipe.data import cache as store
from gpupipe.data.casts import pinned_type
from gpupipe.data.dataset import Dataset
from gpupipe.data.json_rows import read_json
from gpupipe.data.schema import Schema
from gpupipe.data.sources import (
    FORMATS,
    SourceFile,
    detect_format,
    open_bytes,
    reading,
    resolve,
    total_size,
)
from gpupipe.data.tables import (
    NotPlain,
    arrow_tables,
    open_arrow,
    read_memory,
    read_parquet,
    typed_schema,
)
from gpupipe.data.text import (
    TextOptions,
    TextTable,
    decide_types,
    read_delimited,
    refuse_bad,
    typed_tables,
)
from gpupipe.engine.collections import is_collection, written
from gpupipe.errors import ConfigError, DataError, did_you_mean

MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "NULL", "null", "<NA>", "#N/A", "?")
"""What stands for a missing value in text unless ``missing`` says otherwise.

``None`` is not among them: it is a category in real tables (a company named None, no damage).
"""

Progress = Callable[[int, int, str], None]


def ingest(
    source: object, *, cache: Path, types: dict[str, str] | None = None,
    missing: list[str] | None = None, drop: Sequence[str] = (), format: str = "auto",
    delimiter: str = "auto", encoding: str = "auto", header: str | bool = "auto",
    max_bad_share: float = 0.001, progress: Progress | None = None,
) -> Dataset:
    """A typed dataset from files or from a table in memory.

    Parameters
    ----------
    source : a path, glob, folder (with Hive partitions) or a list of these; or a pandas, Polars
        or Arrow table, or any object with ``__arrow_c_stream__``; or a Dask or dask-cuDF data
        frame, whose partitions are written under ``cache`` first.
    cache : folder under which text becomes Parquet, once for the same bytes and options.
    types : column name -> type, instead of what would be inferred.
    missing : the tokens that mean "no value" in text, instead of ``MISSING``.
    drop : columns to leave out before anything about them is checked.
    format : auto, csv, json, parquet or arrow.
    delimiter, encoding, header : how text is written; ``auto`` finds out.
    max_bad_share : the share of rows that may be set aside as unreadable.
    progress : called with (bytes done, bytes in all, what is being done).

    Raises
    ------
    ConfigError : an option that cannot be, or a name that is no column.
    DataError : a source that is not there, damaged, not a table, or has too many bad rows.
    """
    if format not in FORMATS:
        near = did_you_mean(format, FORMATS)
        raise ConfigError(f"data.format cannot be {format!r}",
                          hint=f"did you mean {near!r}?" if near else "use " + ", ".join(FORMATS))
    if not 0 <= max_bad_share <= 1:
        raise ConfigError(f"data.max_bad_share must be from 0 to 1, not {max_bad_share}")
    for name, word in (types or {}).items():
        pinned_type(word, where=f"data.types.{name}")
    options = TextOptions(
        MISSING if missing is None else tuple(dict.fromkeys(map(str, missing))),
        {k: v for k, v in (types or {}).items() if k not in drop}, tuple(drop),
        {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter), encoding, header, max_bad_share,
    )
    if is_collection(source):
        source = str(written(source, cache, temporary_name(cache / "collection")))
    if hasattr(source, "__arrow_c_stream__"):
        return read_memory(source, options)
    files = resolve(source)
    kind = _format(files, format)
    shown = _shown(source)
    report = _Report(total_size(files), progress)
    if kind == "parquet":
        return read_parquet(files, options, shown, lambda n: report(n, "fingerprinting"))
    digest = store.content_digest(
        files, {"format": kind, **vars(options)}, lambda n: report(n, "fingerprinting"))
    folder = Path(cache) / digest
    found = store.cached(folder, digest, shown)
    if found is None:
        with store.new_folder(folder) as temporary:
            if kind == "arrow":
                _from_arrow(files, options, temporary, digest, shown, report)
            else:
                _from_text(kind, files, options, temporary, digest, shown, report)
        found = store.cached(folder, digest, shown)
    if found is None:
        raise DataError("the cached table vanished while it was made", where=str(folder),
                        hint="run again; nothing else may write in the cache")
    return found


def ingest_plain(
    source: object, needed: Collection[str] = (), drop: Sequence[str] = (), **how: Any
) -> Dataset:
    """`ingest`, without the columns that are no plain values (lists, say) and not ``needed``."""
    dropped = list(drop)
    while True:
        try:
            return ingest(source, drop=dropped, **how)
        except NotPlain as error:
            if error.column in needed:
                raise
            dropped.append(error.column)


def _from_text(kind: str, files: Sequence[SourceFile], options: TextOptions, folder: Path,
               digest: str, shown: str, report: _Report) -> None:
    with TemporaryDirectory(prefix=".spill-", dir=folder) as spill:
        table = TextTable(Path(spill), options)
        read = read_json if kind == "json" else read_delimited
        read(files, options, table, report)
        if table.bad and len(table.bad) > table.limit:
            refuse_bad(table.bad, table.rows, options.max_bad_share)
        report.start(table.rows)
        verdicts = decide_types(table, options, report)
        if not verdicts:
            raise DataError("every column is dropped", where=shown)
        schema = Schema.of({name: verdict.dtype for name, verdict in verdicts.items()})
        report.start(table.rows)
        parts = store.write_parts(folder, schema, typed_tables(table, verdicts, options, report))
        notes = [*table.notes, *(v.note for v in verdicts.values() if v.note)]
        store.write_meta(folder, schema, parts, notes, table.bad, digest, shown)


def _from_arrow(files: Sequence[SourceFile], options: TextOptions, folder: Path, digest: str,
                shown: str, report: _Report) -> None:
    if any(file.constants for file in files):
        raise DataError("Arrow files in Hive partitions are not read", where=shown,
                        hint="write the partitions as Parquet")
    schema = typed_schema(open_arrow(files[0].path)[0], options, str(files[0].path))
    for file in files[1:]:
        own = typed_schema(open_arrow(file.path)[0], options, str(file.path))
        for field in schema:
            if field.name not in own or own[field.name] != field:
                raise DataError(f"column {field.name!r} is not the {field.dtype} that it is in "
                                f"{files[0].path}", where=str(file.path),
                                hint="files of one source must have the same columns")
    report.start(report.total)
    parts = store.write_parts(
        folder, schema, arrow_tables(files, schema, lambda n: report(n, "writing")))
    store.write_meta(folder, schema, parts, [], [], digest, shown)


def _format(files: Sequence[SourceFile], wanted: str) -> str:
    """The one format of all the files; DataError where they differ."""
    kinds: dict[str, Path] = {}
    for file in files:
        with reading(file.path), open_bytes(file.path) as stream:
            head = stream.read(4096)
        if not head:
            raise DataError("the file is empty", where=str(file.path))
        kind = detect_format(file.path, head)
        if wanted != "auto" and kind != wanted:
            if kind in ("csv", "json") and wanted in ("csv", "json"):
                kind = wanted
            else:
                raise DataError(f"this is not {wanted} but {kind}", where=str(file.path),
                                hint="set data.format: auto")
        kinds.setdefault(kind, file.path)
    if len(kinds) > 1:
        listed = ", ".join(f"{path.name} is {kind}" for kind, path in kinds.items())
        raise DataError(f"the files are not all of one format: {listed}",
                        where=str(files[0].path.parent), hint="name the files, or use a glob")
    return next(iter(kinds))


def _shown(source: object) -> str:
    return ", ".join(map(str, source)) if isinstance(source, (list, tuple)) else str(source)


class _Report:
    """Hands progress on as (done, total, text); a new ``text`` starts from zero."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.progress, self.done, self.text = total, progress, 0, ""

    def start(self, total: int) -> None:
        self.total, self.done = max(total, 1), 0

    def __call__(self, amount: int, text: str) -> None:
        if text != self.text:
            self.done, self.text = 0, text
        self.done = min(self.done + amount, self.total)
        if self.progress is not None:
            self.progress(self.done, self.total, text)
