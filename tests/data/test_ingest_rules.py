"""The rules of docs/data.md, one case a line: text in, types and values out."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from gpupipe.data.dataset import Dataset
from gpupipe.data.ingest import ingest
from gpupipe.errors import ConfigError, DataError

INF = float("inf")


def column_of(values: list[str], tmp_path: Path, **options: Any) -> tuple[str, list[Any], Dataset]:
    """Ingest a CSV of an index and one column ``x``; its type and values."""
    lines = ["row,x", *(f"{i},{value}" for i, value in enumerate(values))]
    path = tmp_path / "column.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    dataset = ingest(path, cache=tmp_path / "cache", **options)
    return dataset.schema["x"].dtype, dataset.to_table(["x"]).column(0).to_pylist(), dataset


def day(*parts: int) -> dt.datetime:
    return dt.datetime(*parts)  # type: ignore[arg-type]


INFERRED = {
    "truth values in three spellings": (["true", "FALSE", "True"], "bool", [True, False, True]),
    "truth values with nulls": (["true", "", "false"], "bool", [True, None, False]),
    "0 and 1 are integers": (["0", "1"], "int64", [0, 1]),
    "yes and no are words": (["yes", "no"], "string", ["yes", "no"]),
    "integers with nulls": (["1", "", "-3"], "int64", [1, None, -3]),
    "plus signs": (["+5", "1"], "int64", [5, 1]),
    "minus zero": (["-0", "1"], "int64", [0, 1]),
    "the ends of int64": ([str(2**63 - 1), str(-(2**63))], "int64", [2**63 - 1, -(2**63)]),
    "integers and floats": (["1", "2.5"], "float64", [1.0, 2.5]),
    "floats of every spelling": (
        [".5", "5.", "-1e5", "1E-3", "+.5"], "float64", [0.5, 5.0, -1e5, 1e-3, 0.5]),
    "infinities": (["inf", "-INF", "Infinity", "1"], "float64", [INF, -INF, INF, 1.0]),
    "a huge integer among floats": (["18446744073709551616", "1.5"], "float64", [2.0**64, 1.5]),
    "leading zeros": (["007", "12"], "string", ["007", "12"]),
    "hexadecimal": (["0x1F", "0x20"], "string", ["0x1F", "0x20"]),
    "a lone word among few numbers": (["1", "2", "abc"], "string", ["1", "2", "abc"]),
    "truth values and numbers": (["true", "1"], "string", ["true", "1"]),
    "every missing token": (
        ["", "NA", "N/A", "n/a", "NaN", "nan", "-NaN", "NULL", "null", "<NA>", "#N/A", "?", "1"],
        "int64", [None] * 12 + [1]),
    "None is a value": (["None", "", "x"], "string", ["None", None, "x"]),
    "nothing but missing": (["", "NA"], "float64", [None, None]),
    "blanks around values": (["  1 ", "\t2"], "int64", [1, 2]),
    "quoted blanks stay": (['" a "', "b"], "string", [" a ", "b"]),
    "quoted missing tokens": (['""', '"NA"', "x"], "string", [None, None, "x"]),
    "quotes in quotes": (['"say ""hi"""', "b"], "string", ['say "hi"', "b"]),
    "a line end in quotes": (['"a\nb"', "c"], "string", ["a\nb", "c"]),
    "a delimiter in quotes": (['"a,b"', "c"], "string", ["a,b", "c"]),
    "numbers in quotes": (['"1"', '"2"'], "int64", [1, 2]),
    "an inch mark": (['5" disk', '3" disk'], "string", ['5" disk', '3" disk']),
    "ISO dates": (["2020-02-29", "1969-12-31"], "timestamp", [day(2020, 2, 29), day(1969, 12, 31)]),
    "ISO dates and times": (
        ["2020-01-01", "2020-01-01 10:20", "2020-01-01T10:20:30.123456"], "timestamp",
        [day(2020, 1, 1), day(2020, 1, 1, 10, 20), day(2020, 1, 1, 10, 20, 30, 123456)]),
    "nanoseconds are cut": (
        ["2020-01-01T00:00:00.123456789"], "timestamp", [day(2020, 1, 1, 0, 0, 0, 123456)]),
    "mixed offsets become UTC": (
        ["2020-01-01T15:00:00Z", "2020-01-01T15:00:00+03:00", "2020-01-01T15:00:00-0330"],
        "timestamp", [day(2020, 1, 1, 15), day(2020, 1, 1, 12), day(2020, 1, 1, 18, 30)]),
    "with and without zone": (["2020-01-01T15:00:00Z", "2020-01-01T15:00:00"], "string", None),
    "no such day": (["2020-02-30", "2020-02-01"], "string", None),
    "slashed ISO": (["2020/1/5", "2020/12/31 23:59"], "timestamp",
                    [day(2020, 1, 5), day(2020, 12, 31, 23, 59)]),
    "month names": (["Jun 12 1998", "Aug 07 2001"], "timestamp",
                    [day(1998, 6, 12), day(2001, 8, 7)]),
    "month names with commas": (['"March 5, 2020"', '"sept 1, 2020"'], "timestamp",
                                [day(2020, 3, 5), day(2020, 9, 1)]),
    "day, then month name": (["12 Jun 1998", "1-Jan-70", "1-Jan-68"], "timestamp",
                             [day(1998, 6, 12), day(1970, 1, 1), day(2068, 1, 1)]),
    "dotted dates": (["31.12.2020", "1.2.2020 08:00"], "timestamp",
                     [day(2020, 12, 31), day(2020, 2, 1, 8)]),
    "month/day/year": (["1/2/2020", "12/31/2020 1:05 PM"], "timestamp",
                       [day(2020, 1, 2), day(2020, 12, 31, 13, 5)]),
    "day/month/year": (["1/2/2020", "31/12/20"], "timestamp", [day(2020, 2, 1), day(2020, 12, 31)]),
    "day or month": (["1/2/2020", "3/4/2020"], "string", ["1/2/2020", "3/4/2020"]),
    "day and month": (["13/2/2020", "2/13/2020"], "string", ["13/2/2020", "2/13/2020"]),
    "two date forms": (["2020-01-01", "Jan 2 2020"], "string", None),
    "times alone": (["10:20", "11:30"], "string", None),
    "a comma in numbers": (['"1,5"', '"2,5"'], "string", ["1,5", "2,5"]),
}


@pytest.mark.parametrize("case", INFERRED)
def test_a_text_column_takes_the_narrowest_type_of_all_its_values(
    case: str, tmp_path: Path
) -> None:
    values, dtype, expected = INFERRED[case]
    found, read, _ = column_of(values, tmp_path)
    assert found == dtype
    assert read == (values if expected is None else expected)
    backwards, again, _ = column_of(values[::-1], tmp_path)
    assert (backwards, again) == (dtype, read[::-1]), "the order of rows must not matter"


NOTED = {
    "leading zeros": (["007"], "leading zeros"),
    "beyond 64 bits": ([str(2**63)], "beyond 64 bits"),
    "beyond 2^53": ([str(2**53 + 1)], "2^53"),
    "no values": (["NA"], "no values"),
    "ambiguous dates": (["1/2/2020"], "day/month or month/day"),
    "zones": (["2020-01-01T15:00:00Z", "2020-01-01"], "without a time zone"),
    "nearly numbers": (["1"] * 20 + ["oops"], "'oops'"),
}


@pytest.mark.parametrize("case", NOTED)
def test_what_was_decided_on_the_way_is_noted(case: str, tmp_path: Path) -> None:
    values, words = NOTED[case]
    notes = column_of(values, tmp_path)[2].notes
    assert len(notes) == 1 and words in notes[0] and "'x'" in notes[0]


def test_beyond_2_to_the_53_integers_are_exact(tmp_path: Path) -> None:
    assert column_of([str(2**53 + 1), "1"], tmp_path)[1] == [2**53 + 1, 1]


def test_missing_tokens_are_replaced_by_those_named(tmp_path: Path) -> None:
    dtype, values, _ = column_of(["-", "1", "NA"], tmp_path, missing=["-"])
    assert (dtype, values) == ("string", [None, "1", "NA"])


def test_a_nan_that_is_no_missing_token_is_missing_in_a_number_column(tmp_path: Path) -> None:
    assert column_of(["nan", "1.5"], tmp_path, missing=[""])[1] == [None, 1.5]


PINNED = {
    "int": (["007", "2.0"], "int64", [7, 2]), "float": (["1", "2"], "float64", [1.0, 2.0]),
    "float32": (["0.1", "2"], "float32", [pytest.approx(0.1), 2.0]),
    "str": (["1", ""], "string", ["1", None]), "category": (["1", "2"], "string", ["1", "2"]),
    "bool": (["yes", "0", "T"], "bool", [True, False, True]),
    "datetime": (["2020-01-01", "Jan 2 2020"], "timestamp", [day(2020, 1, 1), day(2020, 1, 2)]),
}


@pytest.mark.parametrize("word", PINNED)
def test_types_pins_a_column(word: str, tmp_path: Path) -> None:
    values, dtype, expected = PINNED[word]
    found, read, _ = column_of(values, tmp_path, types={"x": word})
    assert (found, read) == (dtype, expected)


@pytest.mark.parametrize(("options", "words"), [
    ({"types": {"x": "integr"}}, ["integr", "did you mean 'integer'"]),
    ({"types": {"y": "int"}}, ["'y'", "not in the table"]),
    ({"drop": ["rwo"]}, ["'rwo'", "did you mean 'row'"]),
    ({"format": "cvs"}, ["cvs", "did you mean 'csv'"]),
    ({"delimiter": "::"}, ["one ASCII character"]),
    ({"encoding": "klingon"}, ["klingon"]),
    ({"header": "maybe"}, ["maybe"]),
    ({"max_bad_share": 2.0}, ["from 0 to 1"]),
])
def test_an_option_that_cannot_be_is_a_config_error(
    options: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        column_of(["1"], tmp_path, **options)
    assert all(word in str(caught.value) for word in words)


def test_a_few_words_among_many_numbers_are_set_aside_with_line_and_column(tmp_path: Path) -> None:
    dtype, values, dataset = column_of(
        [str(i) for i in range(1500)] + ["oops"] + ["7"] * 500, tmp_path)
    assert (dtype, len(values)) == ("int64", 2000)
    assert dataset.quarantine.count == 1 and dataset.quarantine.path is not None
    assert dataset.quarantine.reasons == {"x: 'oops' is not a whole number": 1}
    (row,) = map(json.loads, Path(dataset.quarantine.path).read_text().splitlines())
    assert (row["line"], row["column"], row["text"]) == (1502, "x", "1500,oops")


def test_pinned_rows_that_do_not_parse_stop_the_ingest_past_the_share(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"column.csv:3: column 'x': 'b' is not a whole number"):
        column_of(["1", "b"], tmp_path, types={"x": "int"})
    assert column_of(["1", "b"], tmp_path, types={"x": "int"}, max_bad_share=0.5)[1] == [1]


def test_numbers_wait_for_the_whole_file_before_a_column_is_one(tmp_path: Path) -> None:
    rows = [str(i) for i in range(200_000)]
    assert column_of([*rows, "1.5"], tmp_path)[0] == "float64"
    assert column_of([*rows, "007"], tmp_path)[0] == "string"


HEADERS = {
    "names over numbers": ("a,b\n1,2\n", ["a", "b"], 1),
    "numbers alone": ("1,2\n3,4\n", ["column_0", "column_1"], 2),
    "words over words": ("name,city\nAnn,Rome\nBob,Oslo\n", ["name", "city"], 2),
    "numbers as names": ("id,2011\na,TRUE\nb,FALSE\n", ["id", "2011"], 2),
    "a category from the first row on": ("a,x\nb,y\na,x\n", ["column_0", "column_1"], 3),
    "blank name": (",b\n1,2\n", ["Unnamed: 0", "b"], 1),
    "the same name thrice": ("a,a,a\n1,2,3\n", ["a", "a.1", "a.2"], 1),
    "a renamed name collides": ("a,a,a.1\n1,2,3\n", ["a", "a.2", "a.1"], 1),
    "blanks around names": (" a , b \n1,2\n", ["a", "b"], 1),
    "quotes around names": ('"a", "b c"\n1,2\n', ["a", "b c"], 1),
    "a line end in a name": ('"a\nb",c\n1,2\n', ["a\nb", "c"], 1),
    "semicolons": ("a;b\n1,5;2\n", ["a", "b"], 1),
    "tabs": ("a\tb\n1\t\n2\t3\n", ["a", "b"], 2),
    "pipes": ("a|b\n1|2\n", ["a", "b"], 1),
    "carets": ("a^b\n1^2\n", ["a", "b"], 1),
    "colons in times do not split": ("a,b\n10:20:30,1\n", ["a", "b"], 1),
    "one column": ("a\n1\n2\n", ["a"], 2),
    "single quotes": ("'a','b'\n'1,5','2'\n", ["a", "b"], 1),
    "blank lines anywhere": ("\n\na,b\n\n1,2\n  \n\n3,4\n\n", ["a", "b"], 2),
    "a comment above": ("# made by hand\na,b\n1,2\n", ["a", "b"], 1),
    "a number sign in a name": ("#id,b\n1,2\n", ["#id", "b"], 1),
    "Windows line ends": ("a,b\r\n1,x\r\n2,y\r\n", ["a", "b"], 2),
    "old Mac line ends": ("a,b\r1,x\r2,y\r", ["a", "b"], 2),
    "no line end at the end": ("a,b\n1,2", ["a", "b"], 1),
}


@pytest.mark.parametrize("case", HEADERS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_dialect_header_and_byte_order_marks_are_found(
    case: str, encoding: str, tmp_path: Path
) -> None:
    text, names, rows = HEADERS[case]
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    dataset = ingest(tmp_path / "t.csv", cache=tmp_path / "cache")
    assert (dataset.schema.names, dataset.rows) == (names, rows)


def test_an_encoding_that_is_named_is_used(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a,b\n1,M\u00fcller \u20ac\n".encode("cp1252"))
    dataset = ingest(tmp_path / "t.csv", cache=tmp_path / "c", encoding="cp1252")
    assert dataset.to_table().to_pylist() == [{"a": 1, "b": "M\u00fcller \u20ac"}]


def test_a_header_can_be_demanded_or_denied(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\nc,d\n")
    assert ingest(tmp_path / "t.csv", cache=tmp_path / "c", header=False).rows == 2
    (tmp_path / "n.csv").write_text("1,2\n3,4\n")
    assert ingest(tmp_path / "n.csv", cache=tmp_path / "c", header=True).schema.names == ["1", "2"]
    assert ingest(tmp_path / "t.csv", cache=tmp_path / "c", delimiter="\\t").schema.names == ["a,b"]


JSON_KINDS = {
    "numbers": (["1", "2", "null"], "int64", [1, 2, None]),
    "numbers and floats": (["1", "2.5"], "float64", [1.0, 2.5]),
    "huge integers": ([str(2**70)], "string", [str(2**70)]),
    "truth": (["true", "null", "false"], "bool", [True, None, False]),
    "strings of digits stay strings": (['"1"', '"2"'], "string", ["1", "2"]),
    "strings and numbers": (['"a"', "2", "2.50"], "string", ["a", "2", "2.50"]),
    "truth and numbers": (["true", "1"], "string", ["true", "1"]),
    "strings of dates": (['"2020-01-01"'], "timestamp", [day(2020, 1, 1)]),
    "missing tokens": (['""', '"NA"', '"x"'], "string", [None, None, "x"]),
    "all null": (["null"], "float64", [None]),
    "NaN": (["NaN", "Infinity", "1"], "float64", [None, INF, 1.0]),
}


@pytest.mark.parametrize("case", JSON_KINDS)
@pytest.mark.parametrize("form", ["lines", "array"])
def test_json_values_keep_their_kind(case: str, form: str, tmp_path: Path) -> None:
    values, dtype, expected = JSON_KINDS[case]
    records = [f'{{"x": {value}}}' for value in values]
    text = "\n".join(records) if form == "lines" else "[\n" + ",\n".join(records) + "]\n"
    (tmp_path / "t.json").write_text(text)
    dataset = ingest(tmp_path / "t.json", cache=tmp_path / "c")
    assert dataset.schema["x"].dtype == dtype
    assert dataset.to_table().column("x").to_pylist() == expected


def test_json_records_may_lack_keys(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n\n{}\n{"b": "x", "a": 2}\n')
    dataset = ingest(tmp_path / "t.jsonl", cache=tmp_path / "c")
    assert dataset.to_table().to_pylist() == [
        {"a": 1, "b": None}, {"a": None, "b": None}, {"a": 2, "b": "x"}]


def test_a_nested_json_value_is_refused_unless_dropped(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1, "b": 1}\n{"a": 2, "b": {"c": 1}}\n')
    with pytest.raises(DataError, match=r"t.jsonl:2: column 'b' holds an object") as caught:
        ingest(path, cache=tmp_path / "c")
    assert "data.drop" in str(caught.value)
    assert ingest(path, cache=tmp_path / "c", drop=["b"]).schema.names == ["a"]
