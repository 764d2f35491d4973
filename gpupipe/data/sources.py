"""Where the bytes are: files, globs, folders and Hive partitions, and what kind each one is."""

from __future__ import annotations

import codecs
import glob
import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import pyarrow as pa

from gpupipe.errors import ConfigError, DataError

CHUNK = 8 << 20
"""Bytes read at a time: also about the size of the blocks that are parsed at a time."""

READABLE = (
    ".csv", ".tsv", ".tab", ".psv", ".data", ".parquet", ".pq", ".arrow", ".feather", ".ipc",
    ".arrows", ".json", ".jsonl", ".ndjson",
)
"""Endings that a folder's files must have to be read; ``.gz`` and ``.zst`` may follow them."""

FORMATS = ("auto", "csv", "json", "parquet", "arrow")

# What a file that cannot be read looks like, and what to do about it.
_REFUSED: tuple[tuple[bytes, str, str], ...] = (
    (b"SQLite format 3\0", "a SQLite database", "export the table to CSV or Parquet first"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook",
     "unpack it, or save the sheet as CSV, and name that file"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV"),
    (b"ORC", "an ORC file", "convert it to Parquet"),
    (b"Obj\x01", "an Avro file", "convert it to Parquet"),
    (b"\x89HDF", "an HDF5 file", "convert it to Parquet"),
    (b"BZh", "a bzip2 file", "unpack it, or compress it with gzip or zstd"),
    (b"\xfd7zXZ", "an xz file", "unpack it, or compress it with gzip or zstd"),
    (b"\x80\x04", "a pickle, which can run code when it is read", "save the table as Parquet"),
    (b"\x80\x05", "a pickle, which can run code when it is read", "save the table as Parquet"),
    (b"%PDF", "a PDF", "export the table to CSV"),
    (b"\x89PNG", "a PNG image", "name a table instead"),
)
_BOMS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class SourceFile:
    """A file to read, and the Hive partition values (still text) that its path spells."""

    path: Path
    constants: tuple[tuple[str, str | None], ...] = ()


def resolve(source: object) -> list[SourceFile]:
    """The files that a path, a glob, a folder or a list of these names, in sorted order.

    Raises DataError where nothing is there, or nothing in a folder can be read.
    """
    if isinstance(source, (list, tuple)):
        if not source:
            raise DataError("the list of sources is empty")
        return [file for one in source for file in resolve(one)]
    if not isinstance(source, (str, os.PathLike)):
        raise ConfigError(
            f"a source cannot be of type {type(source).__name__}",
            hint="name a file, glob or folder, or pass a pandas, Polars or Arrow table",
        )
    path = Path(source)
    with reading(path):
        if path.is_dir():
            return _folder(path)
        if path.exists():
            if not path.is_file():
                raise DataError("this is not a regular file", where=str(path))
            return [SourceFile(path)]
    pattern = str(path)
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute or not
    if matches:
        return [f for m in matches for f in ([SourceFile(Path(m), _hive(Path(m), Path()))]
                if not Path(m).is_dir() else _folder(Path(m)))]
    near = _similar_name(path)
    raise DataError(
        "no file matches this pattern" if glob.has_magic(pattern) else "there is no such file",
        where=str(path), hint=f"did you mean {near!r}?" if near else "check the path",
    )


def _similar_name(path: Path) -> str | None:
    from gpupipe.errors import did_you_mean

    if not path.parent.is_dir():
        return None
    return did_you_mean(path.name, sorted(p.name for p in path.parent.iterdir()))


def _folder(folder: Path) -> list[SourceFile]:
    found: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        hidden = any(p.startswith((".", "_")) for p in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        (found if readable_name(path) else others).append(path)
    if not found:
        seen = ", ".join(p.name for p in others[:5]) or "no files at all"
        raise DataError(
            f"nothing in this folder can be read; it holds {seen}", where=str(folder),
            hint="files in a folder need one of the endings " + " ".join(READABLE)
            + " (.gz or .zst may follow)",
        )
    return [SourceFile(path, _hive(path, folder)) for path in found]


def readable_name(path: Path) -> bool:
    name = path.name.lower()
    for packed in (".gz", ".zst"):
        name = name.removesuffix(packed)
    return name.endswith(READABLE)


def _hive(path: Path, below: Path) -> tuple[tuple[str, str | None], ...]:
    """``year=2024/month=1/x.parquet`` -> (("year", "2024"), ("month", "1"))."""
    parts = path.relative_to(below).parts[:-1] if below != Path() else path.parts[:-1]
    pairs = [p.split("=", 1) for p in parts if "=" in p and not p.startswith("=")]
    return tuple(
        (unquote(k), None if v == "__HIVE_DEFAULT_PARTITION__" else unquote(v)) for k, v in pairs
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what can go wrong while a file is read into one DataError that names it."""
    try:
        yield
    except PermissionError:
        raise DataError("this file may not be read (permission denied)", where=str(path)) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"the compressed file is damaged or cut short: {error}", where=str(path),
            hint="fetch the file again",
        ) from None
    except pa.ArrowException as error:
        text = str(error).strip().splitlines()[0]
        raise DataError(f"the file is damaged or cut short: {text}", where=str(path)) from None
    except OSError as error:
        what = "the compressed file is damaged or cut short"  # Arrow's errors have no number
        raise DataError(
            f"{what}: {error}" if error.errno is None
            else f"the file cannot be read: {error.strerror}", where=str(path),
        ) from None


def head_of(path: Path, size: int = 16) -> bytes:
    with reading(path), path.open("rb") as file:
        return file.read(size)


@contextmanager
def open_bytes(
    path: Path, counted: Callable[[int], None] | None = None
) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked where it is gzip or zstd. ``counted`` hears the bytes read."""
    magic = head_of(path, 4)
    with path.open("rb") as file:
        raw: Any = file if counted is None else _Counted(file, counted)
        if magic[:2] == b"\x1f\x8b":
            yield gzip.GzipFile(fileobj=raw)  # type: ignore[misc]
        elif magic == b"\x28\xb5\x2f\xfd":
            yield pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
        else:
            yield raw


class _Counted:
    """A file that tells how much of it was read: progress in packed bytes."""

    closed = False

    def __init__(self, raw: IO[bytes], counted: Callable[[int], None]) -> None:
        self.raw, self.counted = raw, counted

    def read(self, size: int = -1) -> bytes:
        data = self.raw.read(size)
        self.counted(len(data))
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """The file belongs to ``open_bytes``."""


def detect_format(path: Path, head: bytes) -> str:
    """One of FORMATS from the first bytes (unpacked), or a DataError saying what the file is."""
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    for magic, what, hint in _REFUSED:
        if head.startswith(magic):
            raise DataError(f"this is {what}, not a table that can be read",
                            where=str(path), hint=hint)
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if name.endswith((".json", ".jsonl", ".ndjson")):
        return "json"
    # A CSV line hardly ever starts like this, a JSON record always does.
    if text.startswith(b"{") and text[1:].lstrip().startswith((b'"', b"}")):
        return "json"
    if text.startswith(b"[") and text[1:].lstrip().startswith(b"{"):
        return "json"
    return "csv"


def detect_encoding(path: Path, head: bytes, encoding: str) -> tuple[str, int]:
    """The encoding and the length of the byte-order mark; refuses what is not text."""
    for bom, name in _BOMS:
        if head.startswith(bom):
            return (name if encoding == "auto" or encoding.lower().startswith("utf") else encoding,
                    len(bom))
    if encoding != "auto":
        try:
            return codecs.lookup(encoding).name, 0
        except LookupError:
            raise ConfigError(
                f"there is no text encoding named {encoding!r}",
                hint="data.encoding takes Python's names: utf-8, cp1252, latin-1, utf-16, ...",
            ) from None
    control = sum(head.count(bytes([c])) for c in [*range(1, 9), *range(14, 27), *range(28, 32)])
    nul = head.count(b"\0")
    if max(nul, control) > 3 and max(nul, control) * 20 > len(head):
        wide = nul * 4 > len(head) > 2 * nul - 4
        raise DataError(
            "this is a binary file, not text" if not wide
            else "this looks like UTF-16 text without a byte-order mark",
            where=str(path),
            hint="name a CSV, JSON, Parquet or Arrow file" if not wide
            else "set data.encoding: utf-16-le",
        )
    return "utf-8", 0


def utf8_chunks(path: Path, stream: IO[bytes], encoding: str, bom: int) -> Iterator[bytes]:
    """The file's text as UTF-8 in chunks, checked as it goes.

    Raises DataError naming line and byte where the text is not in ``encoding``.
    """
    utf8 = encoding == "utf-8"
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    offset, lines, pending, skip = 0, 1, False, bom
    with reading(path):
        while True:
            chunk = stream.read(CHUNK)
            final = not chunk
            if skip:
                chunk, skip, offset = chunk[skip:], 0, skip
            if utf8 and not pending and chunk.isascii():
                text = chunk
            else:
                before = decoder.getstate()[0]
                try:
                    decoded = decoder.decode(chunk, final)
                except UnicodeDecodeError as error:
                    bad = (before + chunk)[error.start : error.start + 1]
                    line = lines + error.object[: error.start].decode(encoding, "ignore").count(
                        "\n")
                    raise DataError(
                        f"byte 0x{bad.hex()} at offset {offset - len(before) + error.start} is "
                        f"not {encoding.upper()} text", where=f"{path}:{line}",
                        hint="set data.encoding (or init --encoding) to what it is in: cp1252, ...",
                    ) from None
                pending = bool(decoder.getstate()[0])
                text = chunk if utf8 else decoded.encode()
            offset += len(chunk)
            lines += text.count(b"\n")
            if text:
                yield text
            if final:
                return


def total_size(files: Sequence[SourceFile]) -> int:
    size = 0
    for file in files:
        with reading(file.path):
            size += file.path.stat().st_size
    return size
