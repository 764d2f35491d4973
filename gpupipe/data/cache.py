"""The folder of one ingest: typed Parquet, its description, its quarantine; whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gpupipe.checkpoints import crash_point, temporary_name
from gpupipe.data.dataset import Dataset, Quarantine, parquet_dataset
from gpupipe.data.delimited import BadRow
from gpupipe.data.schema import Schema
from gpupipe.data.sources import CHUNK, SourceFile, reading
from gpupipe.errors import DataError

VERSION = 1
"""Goes into every digest; raise it when the rules of ingest change."""

ROW_GROUP = 131_072
PART_ROWS = 16 * ROW_GROUP


def content_digest(
    files: Sequence[SourceFile], options: Mapping[str, object], tick: Callable[[int], None],
) -> str:
    """SHA-256 over the files' bytes, their Hive values and the reader's options."""
    digest = hashlib.sha256(f"gpupipe ingest {VERSION}\n".encode())
    digest.update(json.dumps(options, sort_keys=True, default=sorted).encode())
    for file in files:
        digest.update(json.dumps(["file", file.constants]).encode())
        with reading(file.path), file.path.open("rb") as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
                tick(len(chunk))
    return digest.hexdigest()


def cached(folder: Path, fingerprint: str, source: str) -> Dataset | None:
    """The dataset in ``folder``, or None where there is none (or not a whole one)."""
    try:
        data = json.loads((folder / "meta.json").read_text("utf-8"))
        paths = [folder / name for name in data["parts"]]
        if any(p.stat().st_size != size for p, size in zip(paths, data["parts"].values(),
                                                           strict=True)):
            return None
        quarantine = Quarantine(
            str(folder / "quarantine.jsonl") if data["quarantine"]["count"] else None,
            data["quarantine"]["count"], data["quarantine"]["reasons"],
        )
        return parquet_dataset(paths, Schema.from_json(data["schema"]), fingerprint, source,
                               tuple(data["notes"]), quarantine)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, DataError):
        return None


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the name ``folder`` when the block ends well.

    Whoever renames first wins; the loser's work, being the same, is thrown away.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(folder)
        temporary.mkdir()
    except OSError as error:
        raise DataError(f"the cache cannot be written: {error.strerror}",
                        where=str(folder.parent)) from None
    try:
        yield temporary
        if folder.exists() and not _whole(folder):
            aside = temporary_name(folder)
            with suppress(OSError):  # another process may have done so just now
                folder.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
        crash_point("ingest written")
        try:
            temporary.rename(folder)
        except OSError:
            if not _whole(folder):
                raise
    except OSError as error:
        raise DataError(f"the cache cannot be written: {error.strerror or error}",
                        where=str(folder.parent), hint="is the disk full?") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _whole(folder: Path) -> bool:
    return cached(folder, "", "") is not None


def write_parts(
    folder: Path, schema: Schema, tables: Iterator[pa.Table],
) -> dict[str, int]:
    """Write tables as ``part-00000.parquet``, ... in row groups of 131,072 rows.

    Returns each part's name and size. A table with no rows still leaves one (empty) part.
    """
    arrow = schema.to_arrow()
    parts: dict[str, int] = {}
    writer: pq.ParquetWriter | None = None
    waiting: list[pa.Table] = []
    rows = written = 0

    def flush(last: bool) -> None:
        nonlocal writer, waiting, rows, written
        table = pa.concat_tables(waiting) if waiting else arrow.empty_table()
        while table.num_rows >= ROW_GROUP or (last and (table.num_rows or not parts)):
            if writer is None:
                name = f"part-{len(parts):05d}.parquet"
                parts[name] = 0
                writer = pq.ParquetWriter(folder / name, arrow, compression="snappy",
                                          use_dictionary=True)
            group = table.slice(0, ROW_GROUP).combine_chunks()
            writer.write_table(group, row_group_size=ROW_GROUP)
            table, written = table.slice(ROW_GROUP), written + group.num_rows
            if written % PART_ROWS == 0 or (last and not table.num_rows):
                writer.close()
                writer = None
        waiting, rows = ([table] if table.num_rows else []), table.num_rows

    try:
        for table in tables:
            waiting.append(table)
            rows += table.num_rows
            if rows >= ROW_GROUP:
                flush(last=False)
        flush(last=True)
    finally:
        if writer is not None:
            writer.close()
    return {name: (folder / name).stat().st_size for name in parts}


def write_meta(folder: Path, schema: Schema, parts: dict[str, int], notes: Sequence[str],
               bad: Sequence[BadRow], digest: str, source: str) -> None:
    """Write ``quarantine.jsonl`` (where there are bad rows) and, last, ``meta.json``."""
    bad = sorted(bad, key=lambda row: (row.file, row.line))
    if bad:
        with (folder / "quarantine.jsonl").open("w", encoding="utf-8") as file:
            for row in bad:
                record = {k: v for k, v in asdict(row).items() if v is not None}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
    reasons: dict[str, int] = {}
    for row in bad:
        reason = row.reason if row.column is None else f"{row.column}: {row.reason}"
        reasons[reason] = reasons.get(reason, 0) + 1
    meta = {
        "schema": schema.to_json(), "parts": parts, "notes": list(notes), "digest": digest,
        "source": source, "version": VERSION,
        "quarantine": {"count": len({(r.file, r.line) for r in bad}), "reasons": reasons},
    }
    text = json.dumps(meta, indent=1, ensure_ascii=False)
    with (folder / "meta.json").open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
