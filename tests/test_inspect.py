"""What `init` sees in a table, and the pipeline file that it writes."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from gpupipe.config import load_config
from gpupipe.config.source import parse
from gpupipe.data.dataset import Dataset
from gpupipe.data.ingest import ingest
from gpupipe.errors import ConfigError, DataError
from gpupipe.inspect import Inspection, columns, inspect, propose
from gpupipe.inspect.relations import auc
from gpupipe.inspect.write import pipeline_text, scalar

ROWS = 3_000


@pytest.fixture(scope="module")
def shop() -> pa.Table:
    """A made-up table in which every oddity is known, because it was put there."""
    random = np.random.default_rng(7)
    amount = np.round(random.gamma(2.0, 20.0, ROWS), 2)
    tip, toll = np.round(random.exponential(8.0, (2, ROWS)), 2)
    city = random.integers(0, 6, ROWS)
    age = random.integers(18, 80, ROWS)
    bought = random.random(ROWS) < 1 / (1 + np.exp(3 - amount / 30))
    start = datetime.datetime(2024, 1, 1)
    return pa.table({
        "order_id": [f"o{i:05d}" for i in range(ROWS)],
        "row": np.arange(10, ROWS + 10),
        "customer_id": random.integers(1_000, 1_400, ROWS),
        "placed": [start + datetime.timedelta(minutes=7 * i) for i in range(ROWS)],
        "country": ["NO"] * ROWS,
        "never": pa.nulls(ROWS, pa.float64()),
        "city": np.array(["Oslo", "Rome", "Bonn", "Bern", "Lyon", "Riga"])[city],
        "city_code": city * 7 % 11,
        "age": pa.array(age, mask=random.random(ROWS) < 0.1),
        "visits": np.where(random.random(ROWS) < 0.2, -1, random.integers(0, 40, ROWS)),
        "note": [f"call number {i} about the parcel at door {i % 97}" for i in range(ROWS)],
        "amount": amount,
        "tip": tip,
        "toll": toll,
        "total": np.round(amount + tip + toll + 1.5, 2),
        "refund": np.where(bought, random.random(ROWS) + 1, random.random(ROWS)),
        "bought": np.where(bought, "yes", "no"),
    })


@pytest.fixture(scope="module")
def dataset(shop: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return ingest(shop, cache=tmp_path_factory.mktemp("cache"))


def remarked(look: Inspection, kind: str) -> set[tuple[str, ...]]:
    return {r.columns for r in look.remarks if r.kind == kind}


def test_roles_follow_from_what_the_columns_hold(dataset):
    roles = {c.name: c.role for c in inspect(dataset, "bought").columns}
    assert roles == {
        "order_id": "id", "row": "id", "customer_id": "numeric", "placed": "datetime",
        "country": "constant", "never": "constant", "city": "categorical",
        "city_code": "numeric", "age": "numeric", "visits": "numeric", "note": "text",
        "amount": "numeric", "tip": "numeric", "toll": "numeric", "total": "numeric",
        "refund": "numeric", "bought": "boolean",
    }


def test_counts_are_exact_over_the_whole_table(dataset, shop):
    for c in inspect(dataset, "bought").columns:
        values = shop.column(c.name)
        assert c.rows == ROWS
        assert c.nulls == values.null_count
        assert c.distinct == len(values.drop_null().unique())


def test_counts_do_not_depend_on_how_the_rows_are_cut(shop, tmp_path, monkeypatch):
    whole = columns.scan(ingest(shop, cache=tmp_path))[0]
    stream = Dataset.stream
    monkeypatch.setattr(Dataset, "stream", lambda self, names=None: stream(self, names, 173))
    assert columns.scan(ingest(shop, cache=tmp_path))[0] == whole


def test_distinct_values_past_the_cap_are_not_held(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "CAP", 500)
    found = {c.name: c for c in columns.scan(ingest(shop, cache=tmp_path))[0]}
    assert found["amount"].distinct is None and found["city"].distinct == 6
    assert found["order_id"].role == "id" and found["row"].role == "id"


def test_ids_and_constants_are_dropped_with_the_reason_beside(dataset):
    look = inspect(dataset, "bought")
    assert [c.name for c in look.drops()] == ["order_id", "row", "country", "never"]
    text = pipeline_text(look, "shop.csv")
    assert '- country  # always \'NO\'' in text
    assert "- never  # always missing" in text


def test_a_column_that_predicts_almost_perfectly_is_named_and_not_dropped(dataset):
    look = inspect(dataset, "bought")
    assert ("refund",) in remarked(look, "leak")
    assert "refund" not in {c.name for c in look.drops()}
    assert "# Suspected leaks" in pipeline_text(look, "shop.csv")


def test_a_target_that_is_a_sum_of_other_columns_is_named(dataset):
    look = inspect(dataset, "amount")
    assert {frozenset(c) for c in remarked(look, "leak")} == {frozenset({"total", "tip", "toll"})}


def test_columns_that_say_the_same_are_paired(dataset):
    assert remarked(inspect(dataset, "bought"), "duplicate") == {("city", "city_code")}


def test_sentinels_codes_text_and_splits_are_suggested(dataset):
    look = inspect(dataset, "bought")
    assert remarked(look, "sentinel") == {("visits",)}
    assert ("city_code",) in remarked(look, "code")
    assert remarked(look, "text") == {("note",)}
    assert (look.time, look.group) == ("placed", "customer_id")
    text = pipeline_text(look, "shop.csv")
    assert "# split: {by: time, time: placed}" in text
    assert "# split: {by: group, group: [customer_id]}" in text


@pytest.mark.parametrize(("values", "task", "positive"), [
    (["no", "yes", "no"] * 20, "binary", "yes"),
    (["yes", "yes", "no"] * 20, "binary", "yes"),
    (["<=50K", ">50K", "<=50K"] * 20, "binary", ">50K"),
    ([0, 1, 1] * 20, "binary", 1),
    ([2, 1, 1] * 20, "binary", 2),
    ([True, False, True] * 20, "binary", True),
    (["a", "b", "c"] * 20, "multiclass", None),
    ([1, 2, 3] * 20, "multiclass", None),
    (list(range(60)), "regression", None),
    ([0.5, 1.5, 2.5] * 20, "regression", None),
])
def test_task_and_positive_label_follow_from_the_target(tmp_path, values, task, positive):
    table = pa.table({"x": np.arange(60) % 7, "t": values})
    proposed = inspect(ingest(table, cache=tmp_path), "t").target
    assert (proposed.task, proposed.positive) == (task, positive)
    assert type(proposed.positive) is type(positive)


def test_without_a_target_the_one_that_stands_out_is_taken_or_the_likely_ones_are_listed(
    dataset, shop, tmp_path
):
    named = ingest(shop.rename_columns([*shop.column_names[:-1], "churn"]), cache=tmp_path)
    assert inspect(named).target.name == "churn"
    with pytest.raises(ConfigError, match=r"likely ones: 'bought'") as caught:
        inspect(dataset)
    assert caught.value.hint == "name it: --target 'bought'"


@pytest.mark.parametrize(("target", "error", "message"), [
    ("bougth", ConfigError, "no column 'bougth'"), ("placed", ConfigError, "a timestamp"),
    ("country", DataError, "nothing to predict"), ("never", DataError, "always missing"),
    ("order_id", DataError, "3,000 distinct"),
])
def test_a_target_that_cannot_be_is_refused(dataset, target, error, message):
    with pytest.raises(error, match=message):
        inspect(dataset, target)


def test_the_file_is_written_once_and_overwritten_only_by_force(shop, tmp_path):
    source, output = tmp_path / "shop.csv", tmp_path / "pipeline.yaml"
    pa.csv.write_csv(shop, source)
    propose(str(source), "bought", output)
    config = load_config(output)
    assert (config.data.target, config.data.positive) == ("bought", "yes")
    assert len(output.read_text().splitlines()) < 50
    output.write_text("mine")
    with pytest.raises(ConfigError, match="there already"):
        propose(str(source), "bought", output)
    assert output.read_text() == "mine"
    propose(str(source), "bought", output, force=True)
    assert load_config(output) == config
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pipeline.yaml", "shop.csv"]


def test_the_source_is_written_relative_to_the_file(shop, tmp_path, monkeypatch):
    (tmp_path / "tables").mkdir()
    (tmp_path / "pipelines").mkdir()
    pa.csv.write_csv(shop, tmp_path / "tables" / "shop.csv")
    monkeypatch.chdir(tmp_path)
    propose("tables/shop.csv", "bought", Path("pipelines/p.yaml"))
    config = load_config("pipelines/p.yaml")
    assert config.data.source == "../tables/shop.csv"
    assert Path(config.sources()[0]).exists()


@given(st.text(max_size=20) | st.integers() | st.booleans())
def test_any_name_or_label_is_written_so_that_it_reads_back(value):
    raw, _ = parse(f"a: {scalar(value)}\n", "p.yaml", Path())
    assert raw == {"a": value} and type(raw["a"]) is type(value)


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=60))
def test_auc_is_scikit_learns(pairs):
    y, score = (np.array(v) for v in zip(*pairs, strict=True))
    if y.all() or not y.any():
        assert auc(y, score.astype(float)) == 0.5
    else:
        assert auc(y, score.astype(float)) == pytest.approx(roc_auc_score(y, score))


def test_odd_tables_are_looked_at_without_a_crash(tmp_path):
    for table in (
        pa.table({"t": [1.5, 2.5]}),
        pa.table({"t": [1, 2], "x": ["a", None]}),
        pa.table({"t": ["a", "b"] * 20, "nul\nline": [None] * 40, "é: {": range(40)}),
        pa.table({"t": [1.0, None] * 20, "inf": [float("inf"), 1.0, float("nan"), 2.0] * 10}),
    ):
        look = inspect(ingest(table, cache=tmp_path), "t")
        assert pipeline_text(look, "t.csv")


REAL = [
    ("adult/adult.data", "outcome", {("duplicate", "education-num"), ("sentinel", "capital-gain")}),
    ("bank-marketing/bank-full.csv", "y", {("strong", "duration"), ("sentinel", "pdays")}),
    ("credit-default/credit.csv", "Y", {("id", "ID"), ("code", "X3")}),
    ("telco-churn/telco.csv", "Churn", {("id", "customerID")}),
    ("diamonds/diamonds.csv", "price", {("sentinel", "x"), ("sentinel", "z")}),
    ("taxis/taxis.csv", "fare", {("leak", "total")}),
    ("electricity/electricity.csv", "class", {("id", "Unnamed: 0")}),
    ("movies/movies.json", "IMDB Rating", {("text", "Title"), ("leak", "IMDB Votes")}),
    ("nycflights13/flights_100k_sample.parquet", "arr_delay",
     {("constant", "year"), ("leak", "air_time"), ("strong", "dep_delay")}),
    ("cookie-cats/cookie_cats.csv", "retention_7", {("id", "userid")}),
    ("housing/housing.csv", "median_house_value", set()),
]


@pytest.mark.parametrize(("file", "target", "expected"), REAL, ids=[r[0] for r in REAL])
def test_what_is_odd_about_the_real_tables_is_found(shared_data, tmp_path, file, target, expected):
    made = propose(str(shared_data / file), target, tmp_path / "pipeline.yaml")
    found = {(r.kind, c) for r in made.inspection.remarks for c in r.columns}
    assert expected <= found
    assert load_config(made.output).data.target == target


def test_an_encoding_named_for_init_goes_into_the_file(tmp_path):
    table = tmp_path / "t.csv"
    rows = "".join(f"{'Zürich' if i % 3 else 'Genève'};{i % 7},5;{i % 2}\n" for i in range(60))
    table.write_bytes(("stadt;umsatz;y\n" + rows).encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8") as caught:
        propose(str(table), "y", tmp_path / "p.yaml")
    assert "--encoding" in str(caught.value.hint)
    made = propose(str(table), "y", tmp_path / "p.yaml", reader={"encoding": "latin-1"})
    assert load_config(tmp_path / "p.yaml").data.encoding == "latin-1"
    texts = [r.text for r in made.inspection.remarks if r.columns == ("umsatz",)]
    assert any("looks like numbers" in t for t in texts)
