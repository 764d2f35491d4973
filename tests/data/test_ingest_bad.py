"""Bad sources: each is one clear error, and leaves nothing half-written in the cache."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.data.ingest import ingest
from gpupipe.errors import DataError

GOOD = b"a,b\n" + b"".join(b"%d,x%d\n" % (i, i) for i in range(3000))


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def zipped() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    return sink.getvalue()


TABLE = pa.table({"a": list(range(1000)), "b": ["x"] * 1000})
NESTED = pa.table({"a": [1], "b": [[1, 2]]})
TWICE = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])

BAD_FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "empty": ("t.csv", b"", ["t.csv", "empty"]),
    "only a byte-order mark": ("t.csv", b"\xef\xbb\xbf", ["empty"]),
    "only blanks": ("t.csv", b" \n\n  \n", ["empty"]),
    "only a header": ("t.csv", b"a,b\n", ["header", "not one row"]),
    "not UTF-8": ("t.csv", b"a,b\n1,x\n2,\xe9\n", ["t.csv:3", "0xe9", "offset 10", "cp1252"]),
    "UTF-8 cut short": ("t.csv", b"a,b\n1,\xe2\x82", ["t.csv:2", "UTF-8"]),
    "binary": ("t.csv", bytes(range(256)) * 20, ["binary"]),
    "UTF-16 without its mark": ("t.csv", "a,b\n1,2\n".encode("utf-16-le") * 9, ["utf-16-le"]),
    "ragged": ("t.csv", b"a,b\n1,2\n3\n4,5,6\n", [
        "t.csv:3", "2 of 3 rows", "66.67%", "1 field where 2 are expected",
        "t.csv:4: 3 fields", "max_bad_share"]),
    "a NUL byte": ("t.csv", b"a,b\n1,2\n3,\x004\n", ["t.csv:3", "NUL byte"]),
    "an open quote": ("t.csv", b'a,b\n1,2\n3,"4\n5,6\n', ["t.csv:3", "quoted field is not closed"]),
    "a stray carriage return": ("t.csv", b"a,b\n1,2\n3,x\ry\n", ["t.csv:3", "carriage return"]),
    "gzip cut short": ("t.csv.gz", gzip.compress(GOOD)[:-200], ["t.csv.gz", "damaged or cut"]),
    "gzip of rubbish": ("t.csv.gz", b"\x1f\x8b\x08rubbish", ["damaged or cut"]),
    "zstd of rubbish": ("t.csv.zst", b"\x28\xb5\x2f\xfdrubbish!", ["damaged or cut"]),
    "Parquet cut short": ("t.parquet", parquet(TABLE)[:-50], ["t.parquet", "damaged or cut"]),
    "Arrow cut short": ("t.arrow", arrow(TABLE)[:-300], ["t.arrow", "damaged or cut"]),
    "nested Parquet": ("t.parquet", parquet(NESTED), ["'b'", "list", "data.drop: [b]"]),
    "nested Arrow": ("t.arrow", arrow(NESTED), ["'b'", "list", "data.drop: [b]"]),
    "binary column": ("t.parquet", parquet(pa.table({"a": [b"x"]})), ["'a'", "binary"]),
    "a name twice in Arrow": ("t.arrow", arrow(TWICE), ["two columns called 'a'"]),
    "Parquet without rows": ("t.parquet", parquet(TABLE.slice(0, 0)), ["no rows"]),
    "SQLite": ("t.csv", b"SQLite format 3\0" + bytes(100), ["SQLite", "export"]),
    "Excel": ("t.xlsx", zipped(), ["Excel workbook", "CSV"]),
    "a pickle": ("t.csv", b"\x80\x04\x95rubbish", ["pickle", "Parquet"]),
    "broken JSON line": ("t.jsonl", b'{"a": 1}\n{"a": \n', ["t.jsonl:2", "not JSON"]),
    "JSON that is no object": ("t.jsonl", b'{"a": 1}\n[1]\n', ["t.jsonl:2", "not a JSON object"]),
    "broken JSON array": ("t.json", b'[{"a": 1},\n{"a": ]', ["t.json:2", "breaks off"]),
    "unclosed JSON array": ("t.json", b'[{"a": 1},\n{"a": 2}\n', ["t.json:2", "comma"]),
    "JSON with rubbish after": ("t.json", b'[{"a": 1}] x', ["after the end"]),
    "empty JSON array": ("t.json", b"[]", ["not one record"]),
    "JSON of empty objects": ("t.jsonl", b"{}\n{}\n", ["no keys"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_one_clear_error_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    name, content, words = BAD_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        ingest(tmp_path / name, cache=tmp_path / "cache")
    assert caught.value.exit_code == 3
    assert all(word in str(caught.value) for word in words), str(caught.value)
    cache = tmp_path / "cache"
    assert not cache.exists() or list(cache.iterdir()) == []


def _folder_of_text(path: Path) -> object:
    (path / "notes.txt").write_text("x")
    return path


def _mixed_formats(path: Path) -> object:
    (path / "a.csv").write_bytes(GOOD)
    (path / "b.parquet").write_bytes(parquet(TABLE))
    return path


def _other_columns(path: Path) -> object:
    (path / "a.csv").write_text("a,b\n1,2\n")
    (path / "b.csv").write_text("a,c\n1,2\n")
    return [path / "a.csv", path / "b.csv"]


def _other_types(path: Path) -> object:
    (path / "a.parquet").write_bytes(parquet(pa.table({"a": [1], "b": [1]})))
    (path / "b.parquet").write_bytes(parquet(pa.table({"a": [1], "b": ["x"]})))
    return str(path / "*.parquet")


def _missing_column(path: Path) -> object:
    (path / "a.parquet").write_bytes(parquet(pa.table({"a": [1], "b": [1]})))
    (path / "b.parquet").write_bytes(parquet(pa.table({"a": [1]})))
    return path


def _device(path: Path) -> object:
    os.mkfifo(path / "pipe.csv")
    return path / "pipe.csv"


BAD_SOURCES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no such file": (lambda p: p / "nope.csv", ["nope.csv", "no such file"]),
    "a near name": (lambda p: (_folder_of_text(p), p / "note.txt")[1], ["mean 'notes.txt'"]),
    "no match": (lambda p: str(p / "*.csv"), ["pattern"]),
    "an empty folder": (lambda p: p, ["no files at all"]),
    "a folder of other things": (_folder_of_text, ["notes.txt", "endings"]),
    "mixed formats": (_mixed_formats, ["a.csv is csv", "b.parquet is parquet"]),
    "other columns": (_other_columns, ["b.csv", "'c'", "'b'"]),
    "other types": (_other_types, ["b.parquet", "'b'", "string", "int64"]),
    "a missing column": (_missing_column, ["b.parquet", "'b'"]),
    "an empty list": (lambda p: [], ["empty"]),
    "a pipe": (_device, ["not a regular file"]),
    "an unreadable file": (lambda p: Path("/proc/self/mem"), ["cannot be read"]),
    "mixed types in pandas": (lambda p: pd.DataFrame({"x": [1, "a"]}), ["DataFrame", "x"]),
    "nested pandas": (lambda p: pd.DataFrame({"x": [[1], [2]]}), ["'x'", "list"]),
    "an empty table": (lambda p: TABLE.slice(0, 0), ["no rows"]),
    "a name twice": (lambda p: TWICE, ["two columns called 'a'"]),
    "a name twice in pandas": (
        lambda p: pd.DataFrame([[1, 2]], columns=["a", "a"]), ["DataFrame", "uplicate"]),
}


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_a_bad_source_is_one_clear_error(case: str, tmp_path: Path) -> None:
    make, words = BAD_SOURCES[case]
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError) as caught:
        ingest(make(tmp_path / "in"), cache=tmp_path / "cache")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_unsigned_integer_past_int64_is_an_error_when_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([2**63], pa.uint64())}), tmp_path / "t.parquet")
    dataset = ingest(tmp_path / "t.parquet", cache=tmp_path)
    with pytest.raises(DataError, match="'a'"):
        dataset.to_table()


QUARANTINED = {
    "too few fields": (b"7\n", "1 field where 2 are expected", "7"),
    "too many fields": (b"7,8,9\n", "3 fields where 2 are expected", "7,8,9"),
    "a NUL byte": (b"7,\x00\n", "a NUL byte", "7,\x00"),
    "an open quote": (b'7,"x\n', "a quoted field is not closed", '7,"x'),
    "a word": (b"seven,x\n", "'seven' is not a whole number", "seven,x"),
}


@pytest.mark.parametrize("case", QUARANTINED)
@pytest.mark.parametrize("before", [b"", b'7,"two\nlines"\n', b"\n\n"])
def test_a_bad_row_among_thousands_is_set_aside_under_its_line(
    case: str, before: bytes, tmp_path: Path
) -> None:
    row, reason, text = QUARANTINED[case]
    path = tmp_path / "t.csv"
    path.write_bytes(GOOD + before + row + GOOD[4:])
    dataset = ingest(path, cache=tmp_path / "c")
    assert dataset.rows == 6000 + before.startswith(b"7")
    assert dataset.quarantine.count == 1 and dataset.quarantine.path is not None
    (record,) = map(json.loads, Path(dataset.quarantine.path).read_text().splitlines())
    assert record["line"] == 3002 + before.count(b"\n")
    assert (record["reason"], record["text"]) == (reason, text)
    assert record["file"] == str(path)
    assert record.get("column") == ("a" if case == "a word" else None)


def test_line_numbers_hold_past_the_first_block(tmp_path: Path) -> None:
    line = b"12345,some words to fill the line up to sixty or so bytes\n"
    many = 300_000  # 17 MB: three blocks
    (tmp_path / "t.csv").write_bytes(
        b"a,b\n" + line * many + b'1,"x\ny"\n\n1,2,3\n' + line * 10 + b"bad,x\n")
    dataset = ingest(tmp_path / "t.csv", cache=tmp_path / "c")
    assert dataset.rows == many + 11 and dataset.quarantine.path is not None
    records = list(map(json.loads, Path(dataset.quarantine.path).read_text().splitlines()))
    assert [r["line"] for r in records] == [many + 5, many + 16]


def test_a_second_ingest_of_the_same_bytes_reads_the_cache(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(GOOD)
    told: list[str] = []
    first = ingest(tmp_path / "t.csv", cache=tmp_path / "c")
    again = ingest(tmp_path / "t.csv", cache=tmp_path / "c",
                   progress=lambda done, total, text: told.append(text))
    assert again == first and set(told) == {"fingerprinting"}
    other = ingest(tmp_path / "t.csv", cache=tmp_path / "c", missing=["x1"])
    assert other.fingerprint != first.fingerprint


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(GOOD)
    first = ingest(tmp_path / "t.csv", cache=tmp_path / "c")
    (tmp_path / "c" / first.fingerprint / "part-00000.parquet").write_bytes(b"PAR1")
    assert ingest(tmp_path / "t.csv", cache=tmp_path / "c").to_table().num_rows == 3000
    assert [p.name for p in (tmp_path / "c").iterdir()] == [first.fingerprint]


def test_two_processes_at_once_do_not_harm_each_other(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(GOOD)
    code = ("import sys, pathlib; from gpupipe.data.ingest import ingest; "
            "d = ingest(sys.argv[1], cache=pathlib.Path(sys.argv[2])); "
            "print(d.to_table().num_rows, d.fingerprint)")
    command = [sys.executable, "-c", code, str(tmp_path / "t.csv"), str(tmp_path / "c")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0] and len(said) == 1
    assert len(list((tmp_path / "c").iterdir())) == 1


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from('a1,"\n\r \0;\t#-é.'), max_size=60),
       share=st.sampled_from([0.0, 1.0]), chunk=st.sampled_from([8 << 20, 7]))
def test_no_text_whatever_ends_in_anything_but_a_table_or_a_data_error(
    text: str, share: float, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "t.csv").write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpupipe.data.sources.CHUNK", chunk)
        try:
            dataset = ingest(folder / "t.csv", cache=folder / "c", max_bad_share=share)
        except DataError:
            assert not list((folder / "c").glob("*"))
            return
    assert dataset.to_table().num_rows == dataset.rows
    assert share or dataset.quarantine.count == 0
