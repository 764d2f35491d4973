"""Real tables: the schema and rows that are expected, and pandas' values; every messy file."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gpupipe.data.ingest import MISSING, ingest
from gpupipe.errors import GpupipeError

pytestmark = pytest.mark.long

N, F, S, B, T = "int64", "float64", "string", "bool", "timestamp"
ADULT = [N, S, N, S, N, S, S, S, S, S, N, N, N, S, S]
KDD = [N, S, S, S, *[N] * 20, *[F] * 7, N, N, *[F] * 8, S]

TABLES: dict[str, tuple[int, list[str]]] = {
    "adult/adult.data": (32_561, ADULT),
    "adult/adult.test": (16_281, ADULT),
    "bank-marketing/bank-full.csv": (45_211, [N, S, S, S, S, N, S, S, S, N, S, N, N, N, N, S, S]),
    "credit-default/credit.csv": (30_000, [N, F, *[N] * 10, *[F] * 12, N]),
    "telco-churn/telco.csv": (7_043, [S, S, N, S, S, N, *[S] * 12, F, F, S]),
    "diamonds/diamonds.csv": (53_940, [F, S, S, S, F, F, N, F, F, F]),
    "housing/housing.csv": (20_640, [*[F] * 9, S]),
    "taxis/taxis.csv": (6_433, [T, T, N, *[F] * 5, *[S] * 6]),
    "electricity/electricity.csv": (45_312, [N, *[F] * 6, N]),
    "birdstrikes/birdstrikes.csv": (10_000, [S, S, S, T, S, S, S, S, S, S, N, N, N, N]),
    "cookie-cats/cookie_cats.csv": (90_189, [N, S, N, B, B]),
    "kddcup99/kddcup.data_10_percent.gz": (494_021, KDD),
    "nycflights13/weather.csv": (26_115, [S, N, N, N, N, F, F, F, N, F, F, F, F, F, T]),
    "nycflights13/planes.csv": (3_322, [S, N, S, S, S, N, N, N, S]),
    "nycflights13/airports.csv": (1_458, [S, S, F, F, N, N, S, S]),
    "nycflights13/airlines.csv": (16, [S, S]),
    "flights/flights-200k.arrow": (200_000, [N, N, "float32"]),
    "nycflights13/flights_100k_sample.parquet": (
        100_000, [N, N, N, F, F, F, F, N, F, S, N, S, S, S, F, N, N, N, T]),
    "movies/movies.json": (3_201, [S, N, N, N, N, T, S, N, S, S, S, S, S, N, F, N]),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_real_table_has_its_rows_and_types(name: str, shared_data: Path, tmp_path: Path) -> None:
    rows, dtypes = TABLES[name]
    dataset = ingest(shared_data / name, cache=tmp_path)
    assert dataset.rows == rows and dataset.quarantine.count == 0
    assert [field.dtype for field in dataset.schema] == dtypes
    if "csv" in name or "adult" in name:
        _same_as_pandas(dataset.to_table(), shared_data / name)


def _same_as_pandas(table: Any, path: Path) -> None:
    """Every cell, read by pandas as text and cast by it."""
    text = pd.read_csv(path, sep=";" if "bank" in path.name else ",", skipinitialspace=True,
                       keep_default_na=False, na_values=list(MISSING), dtype=str)
    assert list(text.columns) == table.column_names
    for name in table.column_names:
        column, expected = table.column(name), text[name].str.strip().replace("", None)
        kind = str(column.type)
        if kind.startswith(("int", "double")):
            number = [None if pd.isna(v) else (float if kind == "double" else int)(v)
                      for v in expected]
            assert column.to_pylist() == number, name
        elif kind == "bool":
            assert column.to_pylist() == [v == "True" for v in expected], name
        elif kind.startswith("timestamp"):
            stamps = pd.to_datetime(expected, utc=True).dt.tz_localize(None)
            assert column.to_pandas().astype("datetime64[us]").equals(
                stamps.astype("datetime64[us]")), name
        else:
            found = [None if pd.isna(v) else v for v in expected]
            assert column.to_pylist() == found, name


def test_the_dates_of_movies_are_read_whatever_their_century(
    shared_data: Path, tmp_path: Path
) -> None:
    table = ingest(shared_data / "movies/movies.json", cache=tmp_path).to_table()
    raw = json.loads((shared_data / "movies/movies.json").read_text())
    expected = [pd.to_datetime(r["Release Date"]) for r in raw]
    assert table.column("Release Date").to_pylist() == [
        None if pd.isna(v) else v.to_pydatetime() for v in expected]
    assert table.column("Title").to_pylist() == [
        None if r["Title"] is None else str(r["Title"]) for r in raw]


def verdict_of(path: Path, cache: Path) -> dict[str, Any]:
    """What becomes of a file: rows and types (counted, where there are many), or the error."""
    try:
        dataset = ingest(path, cache=cache)
    except GpupipeError as error:
        where = (error.where or "").removeprefix(str(path.parent) + "/")
        return {"refused": type(error).__name__, "where": where, "message": error.message}
    columns: dict[str, Any] = {field.name: field.dtype for field in dataset.schema}
    if len(columns) > 30:
        columns = {"count": len(columns), **Counter(sorted(columns.values()))}
    verdict: dict[str, Any] = {"rows": dataset.rows, "columns": columns}
    if dataset.notes:
        verdict["notes"] = list(dataset.notes[:3])
    return verdict


VERDICTS = Path(__file__).with_name("messy_verdicts.json")


def test_every_messy_file_has_the_verdict_that_is_written_down(
    shared_data: Path, tmp_path: Path
) -> None:
    found = {path.name: verdict_of(path, tmp_path)
             for path in sorted((shared_data / "messy-csv").iterdir())}
    if os.environ.get("GPUPIPE_WRITE_VERDICTS"):  # to be read before it is committed
        lines = [f" {json.dumps(k, ensure_ascii=False)}: {json.dumps(v, ensure_ascii=False)}"
                 for k, v in found.items()]
        VERDICTS.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    assert found == json.loads(VERDICTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "encoding", "rows", "columns"), [
    ("latin1.csv", "latin-1", 2, 2), ("table-with-accents.csv", "cp1252", 638, 8),
    ("table-infer-iso-8859-7.csv", "iso-8859-7", 4, 3), ("issue-811.csv", "latin-1", 7904, 26),
])
def test_a_file_refused_for_its_encoding_is_read_when_that_is_named(
    name: str, encoding: str, rows: int, columns: int, shared_data: Path, tmp_path: Path
) -> None:
    dataset = ingest(shared_data / "messy-csv" / name, cache=tmp_path, encoding=encoding)
    assert (dataset.rows, len(dataset.schema.names)) == (rows, columns)
