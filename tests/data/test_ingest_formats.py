"""One table, however it is written, is the same typed dataset."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpupipe.data.dataset import Dataset
from gpupipe.data.ingest import MISSING, ingest
from gpupipe.errors import DataError

# Text that is not taken for another type or for a missing value; delimiters, quotes, blanks and
# line ends in it are the point.
WORDS = st.text(
    st.sampled_from("abcxyzäß中 ,;|\t\"'\n.-:/"), min_size=1, max_size=12,
).map(lambda s: "w" + s + "w")
STAMPS = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59))
VALUES: dict[str, tuple[st.SearchStrategy[Any], pa.DataType]] = {
    "int64": (st.integers(-(2**63), 2**63 - 1), pa.int64()),
    "float64": (st.floats(allow_nan=False).filter(lambda x: x != int(x) if abs(x) < 1e15 else
                                                  False), pa.float64()),
    "bool": (st.booleans(), pa.bool_()),
    "string": (WORDS, pa.string()),
    "timestamp": (STAMPS, pa.timestamp("us")),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """One to five columns with nulls, at least one value in each; the first has no nulls."""
    rows = draw(st.integers(1, 12))
    columns: dict[str, pa.Array] = {"id": pa.array(range(rows), pa.int64())}
    for i, dtype in enumerate(draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1,
                                            max_size=4))):
        values, arrow = VALUES[dtype]
        drawn = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        if all(v is None for v in drawn):
            drawn[0] = draw(values)
        columns[f"{dtype} {i}"] = pa.array(drawn, arrow)
    return pa.table(columns)


def spelt(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, dt.datetime) else str(value)


def write_csv(table: pa.Table, delimiter: str, quoting: int, line_end: str) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    writer.writerow(table.column_names)
    writer.writerows([spelt(v) for v in row.values()] for row in table.to_pylist())
    return out.getvalue()


def plain(dataset: Dataset) -> tuple[dict[str, str], list[dict[str, Any]]]:
    return ({f.name: f.dtype for f in dataset.schema}, dataset.to_table().to_pylist())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(table=tables(), delimiter=st.sampled_from(",;\t|"),
       quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
       line_end=st.sampled_from(["\n", "\r\n"]),
       encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_any_table_is_the_same_from_csv_parquet_arrow_json_and_memory(
    table: pa.Table, delimiter: str, quoting: int, line_end: str, encoding: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    expected = ({n: n.split()[0] for n in table.column_names} | {"id": "int64"},
                table.to_pylist())
    text = write_csv(table, delimiter, quoting, line_end)
    (folder / "t.csv").write_bytes(text.encode(encoding))
    (folder / "t.csv.gz").write_bytes(gzip.compress(text.encode(encoding)))
    pq.write_table(table, folder / "t.parquet", row_group_size=5)
    pa.feather.write_feather(table, str(folder / "t.feather"))
    with pa.ipc.new_stream(str(folder / "t.arrows"), table.schema) as stream:
        stream.write_table(table, max_chunksize=4)
    records = [{k: spelt(v) if isinstance(v, dt.datetime) else v for k, v in row.items()}
               for row in table.to_pylist()]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "t.json").write_text(json.dumps(records, indent=2))
    for name in ("t.csv", "t.csv.gz", "t.parquet", "t.feather", "t.arrows", "t.jsonl", "t.json"):
        given_delimiter = {"delimiter": delimiter, "header": True} if "csv" in name else {}
        dataset = ingest(folder / name, cache=folder / "cache", **given_delimiter)
        assert plain(dataset) == expected, name
    assert plain(ingest(table, cache=folder)) == expected


def test_frames_of_other_libraries_are_one_dataset_with_one_fingerprint(tmp_path: Path) -> None:
    table = pa.table({"i": [1, 2, None], "s": ["x", None, "y"], "b": [True, False, None]})
    frames = [table, pl.from_arrow(table), table.to_pandas(types_mapper=pd.ArrowDtype),
              pa.concat_tables([table.slice(0, 1), table.slice(1)])]
    datasets = [ingest(frame, cache=tmp_path) for frame in frames]
    assert len({d.fingerprint for d in datasets}) == 1
    assert all(plain(d) == plain(datasets[0]) for d in datasets)
    other = ingest(table.slice(0, 2), cache=tmp_path)
    assert other.fingerprint != datasets[0].fingerprint


def test_the_index_of_a_pandas_frame_is_dropped(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index(["p", "q"], name="label"))
    assert ingest(frame, cache=tmp_path).schema.names == ["x"]
    assert ingest(frame.reset_index(), cache=tmp_path).schema.names == ["label", "x"]
    frame.rename_axis(None).to_parquet(tmp_path / "t.parquet")
    dataset = ingest(tmp_path / "t.parquet", cache=tmp_path)
    assert dataset.schema.names == ["x"] and "pandas index" in dataset.notes[0]


def test_aware_timestamps_become_utc_instants(tmp_path: Path) -> None:
    stamp = pa.scalar(dt.datetime(2020, 1, 1, 12), pa.timestamp("ms", "Europe/Berlin"))
    table = pa.table({"t": pa.array([stamp.as_py()], pa.timestamp("ms", "Europe/Berlin"))})
    pq.write_table(table, tmp_path / "t.parquet")
    for source in (table, tmp_path / "t.parquet"):
        (row,) = ingest(source, cache=tmp_path).to_table().to_pylist()
        assert row["t"] == stamp.as_py().astimezone(dt.UTC).replace(tzinfo=None)


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_hive_partitions_become_columns(suffix: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    for year in (2023, 2024):
        for place in ("a%20b", "__HIVE_DEFAULT_PARTITION__"):
            folder = root / f"year={year}" / f"place={place}"
            folder.mkdir(parents=True)
            if suffix == "parquet":
                pq.write_table(pa.table({"x": [year]}), folder / "part.parquet")
            elif suffix == "csv":
                (folder / "part.csv").write_text(f"x\n{year}\n")
            else:
                (folder / "part.jsonl").write_text(f'{{"x": {year}}}\n')
    (root / "_SUCCESS").write_text("")
    dataset = ingest(root, cache=tmp_path / "c")
    assert {f.name: f.dtype for f in dataset.schema} == {
        "x": "int64", "year": "int64", "place": "string"}
    rows = dataset.to_table().to_pylist()
    assert sorted((r["x"], r["year"], r["place"] or "") for r in rows) == [
        (y, y, p) for y in (2023, 2024) for p in ("", "a b")]


def test_files_of_one_source_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("a,b\n1,x\n")
    (tmp_path / "2.csv").write_text("a,b\n2.5,y\n")
    (tmp_path / "3.csv").write_text("3,z\n")
    dataset = ingest(str(tmp_path / "*.csv"), cache=tmp_path / "c")
    assert dataset.to_table().to_pylist() == [
        {"a": 1.0, "b": "x"}, {"a": 2.5, "b": "y"}, {"a": 3.0, "b": "z"}]


def test_parquet_is_read_where_it_lies(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a.b": [1, 2], "c": ["x", "y"], "d": [[1], [2]]}),
                   tmp_path / "t.parquet")
    dataset = ingest(tmp_path / "t.parquet", cache=tmp_path / "cache", drop=["d"],
                     types={"a.b": "float"})
    assert not (tmp_path / "cache").exists()
    assert dataset.to_table().to_pylist() == [{"a.b": 1.0, "c": "x"}, {"a.b": 2.0, "c": "y"}]


def test_large_tables_go_through_the_spill_and_come_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{i},{i / 8},word {i % 7},{'' if i % 3 else i}\n" for i in range(300_000))
    (tmp_path / "t.csv").write_text("a,b,c,d\n" + rows)
    held = ingest(tmp_path / "t.csv", cache=tmp_path / "held")
    monkeypatch.setattr("gpupipe.data.text.HELD", 0)
    monkeypatch.setattr("gpupipe.data.sources.CHUNK", 1 << 18)
    spilt = ingest(tmp_path / "t.csv", cache=tmp_path / "spilt")
    assert spilt.to_table().equals(held.to_table()) and spilt.rows == 300_000
    assert [p.rows for p in spilt.parts] == [131_072, 131_072, 37_856]
    assert len(list((tmp_path / "spilt").iterdir())) == 1


def test_none_is_no_missing_token() -> None:
    assert "None" not in MISSING


def test_a_partition_named_like_a_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x=1").mkdir()
    (tmp_path / "x=1" / "t.csv").write_text("x\n1\n")
    with pytest.raises(DataError, match="both in the file and in its folder"):
        ingest(tmp_path, cache=tmp_path / "c")
