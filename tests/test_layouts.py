"""One fingerprint for any layout of a table: files, order, batches, formats and encodings.

On every real table a few random layouts are compared here, of 8,000 rows at most; with
``GPUPIPE_SLOW=1`` it is fifty layouts of the whole tables (some minutes).
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from gpupipe import training
from gpupipe.config import parse_config
from gpupipe.data.dataset import Dataset
from gpupipe.data.ingest import MISSING, ingest
from gpupipe.data.reader import Reader
from gpupipe.engine.local import LocalEngine
from gpupipe.stats.tables import VOCABULARY_LIMIT

TABLES = {  # name: (source, target), as in benchmarks/real_tables.py
    "adult": ("adult/adult.data", "outcome"),
    "bank-marketing": ("bank-marketing/bank-full.csv", "y"),
    "credit-default": ("credit-default/credit.csv", "Y"),
    "telco-churn": ("telco-churn/telco.csv", "Churn"),
    "diamonds": ("diamonds/diamonds.csv", "price"),
    "housing": ("housing/housing.csv", "median_house_value"),
    "taxis": ("taxis/taxis.csv", "fare"),
    "electricity": ("electricity/electricity.csv", "class"),
    "flights": ("flights/flights-200k.arrow", "delay"),
    "birdstrikes": ("birdstrikes/birdstrikes.csv", "Effect Amount of damage"),
    "movies": ("movies/movies.json", "IMDB Rating"),
    "cookie-cats": ("cookie-cats/cookie_cats.csv", "retention_7"),
    "nycflights13": ("nycflights13/flights_100k_sample.parquet", "arr_delay"),
    "kddcup99": ("kddcup99/kddcup.data_10_percent.gz", "column_41"),
}
SAMPLE = 8_000
"""Rows of a table in the default suite, at most."""
FEW, MANY = 4, 50
"""Layouts of a table, by default and with ``GPUPIPE_SLOW=1``."""
each_table = pytest.mark.parametrize("name", TABLES)

PAYLOADS = {  # NaNs: quiet, negative, with a payload, signalling
    np.dtype("float64"): np.array([0x7FF8 << 48, 0xFFF8 << 48, (0x7FF8 << 48) + 12345,
                                   (0x7FF0 << 48) + 1, 2**64 - 1], np.uint64),
    np.dtype("float32"): np.array([0x7FC00000, 0xFFC00000, 0x7FC01234, 0x7F800001, 2**32 - 1],
                                  np.uint32),
}
STRANGE = ["never seen", "-1", "ünbenutzt", "\U0001f409"]
"""Dictionary entries that no row has."""


def learned(
    source: Any, config: dict[str, Any], cache: Path, engine: LocalEngine | None = None,
    keep: bool = True, baselines: bool = True,
) -> dict[str, str]:
    """The fingerprint as training makes it, which ends there: no model is trained.

    With ``keep`` decoded columns stay in memory between scans; else each scan streams them.
    """
    dataset = source if isinstance(source, Dataset) else ingest(source, cache=cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_train_all", lambda *given: None)
        if not keep:
            patch.setattr(Reader, "keep", lambda reader, columns: False)
        made = training.train(parse_config(config), dataset, engine or LocalEngine(1),
                              baselines=baselines)
    return made.fingerprint


def pipeline(target: str, **sections: Any) -> dict[str, Any]:
    """The default steps and baselines on all columns, leaks included, in three folds."""
    data = {"source": "given", "target": target, **sections.pop("data", {})}
    return {"data": data, "split": {"folds": 3}, "leaks": {"check": "off"}, **sections}


# How a column is stored.

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(),
            pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
TEXTS = [pa.string(), pa.large_string(), pa.string_view()]


def kinds_of(values: pa.ChunkedArray) -> list[pa.DataType]:
    """The types that hold a column of one of gpupipe's types without loss."""
    kind, t = values.type, pa.types
    if t.is_string(kind):
        most = 2 * (len(values.unique()) + len(STRANGE))  # see `reencoded`
        codes = [i for i in INTEGERS if most <= 2 ** (8 * i.bit_width // 8 - 1)]
        return TEXTS + [pa.dictionary(codes[0], text) for text in TEXTS[:2]] + [
            pa.dictionary(i, pa.string()) for i in codes]
    if t.is_integer(kind):
        low, high = pc.min_max(values).as_py().values()
        fits = [i for i in INTEGERS if low is None or (
            np.iinfo(i.to_pandas_dtype()).min <= low
            and high <= np.iinfo(i.to_pandas_dtype()).max)]
        return [*fits, pa.dictionary(pa.int32(), fits[0])]
    if t.is_timestamp(kind):
        ticks = values.cast(pa.int64()).drop_null().to_numpy()
        units = ["us"] + ["ns"] * bool((np.abs(ticks) < 2**63 // 1_000).all())
        units += [u for u, per in (("ms", 1_000), ("s", 1_000_000)) if not (ticks % per).any()]
        found = [pa.timestamp(unit, zone) for unit in units for zone in (None, "UTC")]
        return found + [pa.date32()] * (not (ticks % 86_400_000_000).any())
    return [kind]


def stored(values: pa.Array, kind: pa.DataType, rng: np.random.Generator,
           pool: pa.Array | None = None, unsound: bool = False) -> pa.Array:
    """A column's values as ``kind``; zeros and missing floats are disguised."""
    if pa.types.is_floating(kind):
        return disguised(values, rng)
    if pa.types.is_dictionary(kind):
        return reencoded(values, kind, rng, values[:0] if pool is None else pool, unsound)
    return values.cast(kind)


def disguised(values: pa.Array, rng: np.random.Generator) -> pa.Array:
    """The same floats: any sign for 0, and null or any NaN where a value is missing."""
    floats = values.to_numpy(zero_copy_only=False).copy()
    floats[(floats == 0) & (rng.random(len(floats)) < rng.choice([0, 0.5, 1]))] = -0.0
    missing = np.isnan(floats)
    payloads = PAYLOADS[floats.dtype]
    floats.view(payloads.dtype)[missing] = rng.choice(payloads, missing.sum())
    null = missing & (rng.random(len(floats)) < rng.choice([0, 0.5, 1]))
    return pa.array(floats, mask=null, from_pandas=False)


def reencoded(values: pa.Array, kind: pa.DictionaryType, rng: np.random.Generator,
              pool: pa.Array, unsound: bool) -> pa.Array:
    """A dictionary in any order, with some of ``pool`` that no row here has.

    An ``unsound`` one holds every value twice: Arrow allows it.
    """
    encoded = values.dictionary_encode()
    levels = encoded.dictionary
    unused = pool.filter(pc.invert(pc.is_in(pool, levels)))
    unused = unused.filter(pa.array(rng.random(len(unused)) < rng.choice([0, 0.5, 1]), pa.bool_()))
    null = encoded.is_null().to_numpy(zero_copy_only=False)
    codes = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    levels = pa.concat_arrays([levels, unused])
    if unsound:
        codes += len(levels) * rng.integers(0, 2, len(codes))
        levels = pa.concat_arrays([levels, levels])
    order = rng.permutation(len(levels))
    place = np.argsort(order)
    codes = place[codes] if len(levels) else codes
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, kind.index_type, mask=null),
        levels.take(pa.array(order)).cast(kind.value_type),
    )


# How a table is stored.

@dataclass(frozen=True)
class Layout:
    """A table in one of its layouts, how to work on it, and both in words."""

    source: Any
    engine: LocalEngine
    keep: bool
    words: str


class Layouts:
    """Random layouts of one table of gpupipe's types, text not encoded, in up to ``most`` files."""

    def __init__(self, table: pa.Table, most: int) -> None:
        self.table = table
        self.most = most
        self.kinds = {name: kinds_of(table[name]) for name in table.column_names}
        self.pools = {
            field.name: pa.concat_arrays(
                [values := table[field.name].drop_null().unique(),
                 (strange := pa.array(STRANGE)).filter(pc.invert(pc.is_in(strange, values)))])
            for field in table.schema if pa.types.is_string(field.type)
        }
        self.hive = [name for name in table.column_names if self._spells(name)]

    def _spells(self, name: str) -> bool:
        """Whether folders can be named after a column's values, and still be told its type."""
        values = self.table[name].unique().drop_null()
        if not 2 <= len(values) <= min(self.most, 12):
            return False
        if pa.types.is_int64(values.type):
            return True
        texts = values.to_pylist()
        return pa.types.is_string(values.type) and all(
            len(t) > 1 and t[0].isalpha() and t not in MISSING
            and t.lower() not in ("true", "false", "inf", "infinity") for t in texts)

    def make(self, rng: np.random.Generator, folder: Path) -> Layout:
        """A layout, in ``folder`` if it is one of files."""
        table, order = self._ordered(rng)
        store = rng.choice(["memory", "parquet", "parquet", "feather", "stream"]
                           + ["hive"] * bool(self.hive))
        source, words = getattr(self, f"_{store}")(table, rng, folder)
        rows = table.num_rows
        workers = int(rng.integers(1, 4))
        batch = int(np.exp(rng.uniform(np.log(max(rows / 16, 1)), np.log(131_072))))
        keep = bool(rng.integers(2))
        words = (f"{words}, {order}, {workers} workers, batches of {batch}, "
                 + ("kept" if keep else "streamed"))
        return Layout(source, LocalEngine(workers, batch), keep, words)

    def _ordered(self, rng: np.random.Generator) -> tuple[pa.Table, str]:
        table, rows = self.table, self.table.num_rows
        how = rng.choice(["as it was", "reversed", "sorted", "shuffled", "shuffled"])
        if how == "as it was":
            return table, str(how)
        if how == "sorted":
            by = str(rng.choice(table.column_names))
            return table.take(pc.sort_indices(table, [(by, "descending")])), f"sorted by {by!r}"
        order = rng.permutation(rows) if how == "shuffled" else np.arange(rows)[::-1]
        return table.take(pa.array(order)), str(how)

    def _chosen(self, rng: np.random.Generator) -> dict[str, pa.DataType]:
        return {name: kinds[rng.integers(len(kinds))] for name, kinds in self.kinds.items()}

    def _stored(self, piece: pa.Table, kinds: dict[str, pa.DataType], rng: np.random.Generator,
                unsound: bool = False) -> pa.Table:
        columns = {name: stored(whole(piece[name]), kinds[name], rng, self.pools.get(name),
                                unsound) for name in piece.column_names}
        return pa.table(columns)

    def _memory(self, table: pa.Table, rng: np.random.Generator, folder: Path) -> tuple[Any, str]:
        """In memory, each column in chunks of its own."""
        kinds, unsound, columns = self._chosen(rng), bool(rng.integers(2)), {}
        for name in table.column_names:
            chunks = [self._stored(piece, kinds, rng, unsound)[name].chunks
                      for piece in pieces(table.select([name]), rng, 8)]
            columns[name] = pa.chunked_array([c for own in chunks for c in own], kinds[name])
        return pa.table(columns), f"in memory as {kinds}{' with unsound dictionaries' * unsound}"

    def _parquet(self, table: pa.Table, rng: np.random.Generator, folder: Path) -> tuple[Any, str]:
        for number, piece in enumerate(cut := pieces(table, rng, self.most)):
            self._write_parquet(piece, rng, folder / f"{number}.parquet", len(cut))
        return str(folder), f"{len(cut)} Parquet files"

    def _hive(self, table: pa.Table, rng: np.random.Generator, folder: Path) -> tuple[Any, str]:
        """Parquet files in folders that are named after the values of one column."""
        by = str(rng.choice(self.hive))
        for value in (values := table[by].unique()):
            mine = pc.equal(table[by], value) if value.is_valid else pc.is_null(table[by])
            spelt = quote(str(value), safe="") if value.is_valid else "__HIVE_DEFAULT_PARTITION__"
            own = folder / f"{quote(by, safe='')}={spelt}"
            own.mkdir()
            rest = table.filter(mine).drop_columns([by])
            for number, piece in enumerate(cut := pieces(rest, rng, 2)):
                self._write_parquet(piece, rng, own / f"{number}.parquet", len(cut) * len(values))
        return str(folder), f"Parquet partitioned by {by!r}"

    def _write_parquet(self, piece: pa.Table, rng: np.random.Generator, path: Path,
                       files: int) -> None:
        names = piece.column_names
        some = [name for name in names if rng.integers(2)]
        pq.write_table(
            self._stored(piece, self._chosen(rng), rng), path,
            row_group_size=1 + piece.num_rows // int(rng.integers(1, 2 + self.most // (4 * files))),
            use_dictionary=[True, False, some][rng.integers(3)],
            compression=str(rng.choice(["none", "snappy", "gzip", "zstd", "lz4", "brotli"])),
            data_page_size=int(rng.choice([1_000, 1 << 20])),
            version=str(rng.choice(["1.0", "2.4", "2.6"])), store_schema=bool(rng.integers(2)),
        )

    def _feather(self, table: pa.Table, rng: np.random.Generator, folder: Path) -> tuple[Any, str]:
        for number, piece in enumerate(cut := pieces(table, rng, self.most // 2)):
            pa.feather.write_feather(
                self._stored(piece, self._chosen(rng), rng, bool(rng.integers(2))),
                folder / f"{number}.{rng.choice(['feather', 'arrow'])}",
                compression=str(rng.choice(["uncompressed", "lz4", "zstd"])),
                chunksize=int(rng.integers(1 + piece.num_rows // 8, 2 + piece.num_rows)),
            )
        return str(folder), f"{len(cut)} Feather files"

    def _stream(self, table: pa.Table, rng: np.random.Generator, folder: Path) -> tuple[Any, str]:
        """Arrow streams: each batch brings its own dictionaries."""
        for number, piece in enumerate(cut := pieces(table, rng, 4)):
            kinds = self._chosen(rng)
            tables = [self._stored(p, kinds, rng) for p in pieces(piece, rng, 8)]
            with pa.ipc.new_stream(folder / f"{number}.arrows", tables[0].schema) as out:
                for one in tables:
                    out.write_table(one)
        return str(folder), f"{len(cut)} Arrow streams"


def pieces(table: pa.Table, rng: np.random.Generator, most: int) -> list[pa.Table]:
    """The table cut at random places into up to ``most`` pieces; some may be empty."""
    count = round(2 ** rng.uniform(0, np.log2(most)))
    cuts = [0, *np.sort(rng.integers(0, table.num_rows + 1, count - 1)).tolist(), table.num_rows]
    return [table.slice(a, b - a) for a, b in itertools.pairwise(cuts)]


def whole(values: pa.ChunkedArray) -> pa.Array:
    found = values.combine_chunks()
    return found if isinstance(found, pa.Array) else pa.concat_arrays(found.chunks)


# The real tables.

def differences(
    name: str, shared: Path, scratch: Path, layouts: int, most: int, rows: int | None,
) -> Iterator[str]:
    """What differs from the fingerprint of the table as it came, in words, layout by layout."""
    source, target = TABLES[name]
    config = pipeline(target)
    original = ingest(str(shared / source), cache=scratch / "cache")
    table = original.to_table().cast(original.schema.to_arrow())
    if rows is not None and rows < table.num_rows:
        chosen = np.random.default_rng(0).choice(table.num_rows, rows, replace=False)
        table = table.take(pa.array(np.sort(chosen)))
        original = ingest(table, cache=scratch / "cache")
    baselines = rows is None  # their quantiles and moments take most of the time
    expected = learned(original, config, scratch, baselines=baselines)
    made = Layouts(table, most)
    for number in range(layouts):
        folder = scratch / str(number)
        folder.mkdir()
        layout = made.make(np.random.default_rng([number, *name.encode()]), folder)
        found = learned(layout.source, config, scratch / f"{number} cache", layout.engine,
                        layout.keep, baselines)
        yield from (f"layout {number}, {layout.words}: {part}" for part in expected
                    if found[part] != expected[part])
        for used in (folder, scratch / f"{number} cache"):
            shutil.rmtree(used, ignore_errors=True)


@each_table
def test_a_real_table_has_one_fingerprint_in_a_few_layouts(name, shared_data, tmp_path):
    assert not list(differences(name, shared_data, tmp_path, FEW, 8, SAMPLE))


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("GPUPIPE_SLOW"), reason="minutes: set GPUPIPE_SLOW=1")
@each_table
def test_a_whole_real_table_has_one_fingerprint_in_fifty_layouts(name, shared_data, tmp_path):
    assert not list(differences(name, shared_data, tmp_path, MANY, 64, None))


# Each leak by itself, on a small table.

ROWS = 150
WORDS = [  # in the order of their code points; many a collation has another
    "", "Z", "a", "a b", "e\u0301", "z", "ß", "ä", "é", "ı", "я", "漢字", "\uffff", "\U0001f600",
]


def small() -> pa.Table:
    """Columns that a layout could show in, each with missing values, and targets of each type."""
    rng = np.random.default_rng(0)

    def holes(values: Any, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind, mask=rng.random(ROWS) < 0.1)

    def words(choice: list[str]) -> np.ndarray:
        return np.array(choice, object)[rng.integers(0, len(choice), ROWS)]

    mostly_zero = np.where(rng.random(ROWS) < 0.6, 0, rng.normal(size=ROWS).round(1))
    return pa.table({
        "zeros": holes(mostly_zero, pa.float64()),
        "narrow": holes(np.abs(mostly_zero), pa.float32()),
        "signs": holes(rng.integers(-1, 2, ROWS), pa.float64()),
        "amount": holes(rng.integers(-2, 3, ROWS), pa.float64()),
        "small": holes(rng.integers(0, 5, ROWS), pa.int64()),
        "large": holes(rng.integers(-2**40, 2**60, ROWS), pa.int64()),
        "kind": holes(rng.integers(0, 3, ROWS), pa.int64()),
        "text": holes(words(WORDS), pa.string()), "few": holes(words(["b", "a", "é"]), pa.string()),
        "label": holes(words(["Ja", "no"]), pa.string()),
    })


SMALL = small()
FLOATS = ("zeros", "narrow", "signs", "amount")
WHOLE_NUMBERS = ("small", "large", "kind")
TEXT = ("text", "few", "label")
GROUPS = (FLOATS, WHOLE_NUMBERS, TEXT)
"""Columns of a type; the last is the target."""
STEPS: dict[tuple[str, ...], list[dict[str, Any]]] = {
    FLOATS: [
        {"impute": {"columns": ["zeros", "narrow"], "strategy": "median", "indicator": True}},
        {"clip": {"columns": ["zeros"], "lower": 0.3, "upper": 0.95}},
        {"scale": {"columns": ["zeros"]}}, {"cast": {"columns": ["signs"], "to": "string"}},
        {"target_encode": {"columns": ["signs"]}},
    ],
    WHOLE_NUMBERS: [
        {"impute": {"columns": ["small"], "strategy": "most_frequent"}},
        {"target_encode": {"columns": ["small"]}},
        {"bin": {"columns": ["large"], "bins": 4}}, {"one_hot": {"columns": ["large"]}},
    ],
    TEXT: [
        {"impute": {"columns": ["few"], "strategy": "most_frequent"}},
        {"ordinal": {"columns": ["few"]}}, {"target_encode": {"columns": ["text"]}},
    ],
}


def small_print(
    source: Any, columns: tuple[str, ...], cache: Path = Path("cache"), keep: bool = True,
    batch: int = 100, steps: list[dict[str, Any]] | None = None,
) -> dict[str, str]:
    """The fingerprint of a layout of some columns of `small`."""
    config = pipeline(columns[-1], features=steps or STEPS[columns])
    return learned(source, config, cache, LocalEngine(2, batch), keep, baselines=False)


def small_with(columns: tuple[str, ...],
               change: Callable[[pa.Array], pa.Array | pa.ChunkedArray] = lambda values: values,
               *names: str) -> pa.Table:
    """These columns of `small`, with a change to those of some ``names``, or to all."""
    return pa.table({c: change(whole(SMALL[c])) if c in (names or columns) else SMALL[c]
                     for c in columns})


@cache
def expected(columns: tuple[str, ...]) -> dict[str, str]:
    return small_print(small_with(columns), columns)


def written(table: pa.Table, store: str, folder: Path) -> Any:
    """The table itself, or the path of a file of it."""
    path = folder / f"table.{store}"
    if store == "memory":
        return table
    if store == "parquet":
        pq.write_table(table, path, row_group_size=60)
    elif store == "feather":
        pa.feather.write_feather(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as out:
            out.write_table(table)
    return str(path)


@pytest.mark.parametrize("columns", GROUPS)
def test_anything_but_the_layout_shows(columns):
    table, known = small_with(columns), expected(columns)
    assert set(known) == {"all", "profile", "split", "steps"}
    first, *others = zip(*table.to_pydict().values(), strict=True)
    other = 1 + next(i for i, row in enumerate(others)
                     if all(a != b for a, b in zip(first, row, strict=True)))
    order = np.arange(ROWS)
    order[[0, other]] = other, 0
    for name in columns:  # two rows exchange what they hold in it
        moved = small_with(columns, lambda a, order=order: a.take(pa.array(order)), name)
        assert small_print(moved, columns)["all"] != known["all"], name
    for other in (table.slice(1), pa.concat_tables([table, table.slice(0, 1)])):
        found = small_print(other, columns)
        assert found["all"] != known["all"] and found["profile"] != known["profile"]


def test_text_has_the_order_of_its_code_points():
    assert sorted(WORDS) == WORDS
    table = small_with(TEXT)
    for order in ("ascending", "descending"):
        ordered = table.take(pc.sort_indices(table, [("text", order)]))
        for batch, keep in ((7, True), (7, False), (1_000, True)):
            assert small_print(ordered, TEXT, keep=keep, batch=batch) == expected(TEXT)
    # Text is not normalised: these two look the same, and are two categories.
    composed = small_with(TEXT, lambda a: pc.replace_substring(a, "e\u0301", "é"), "text")
    assert small_print(composed, TEXT)["profile"] != expected(TEXT)["profile"]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("share", [0.5, 1])
def test_zero_has_no_sign(keep, share):
    rng = np.random.default_rng(1)

    def negative(values: pa.Array) -> pa.Array:
        floats = values.to_numpy(zero_copy_only=False)
        some = (floats == 0) & (rng.random(len(floats)) < share)
        assert some.sum() > 5
        return pa.array(np.where(some, floats.dtype.type(-0.0), floats), from_pandas=True)

    for batch in (17, 1_000):
        found = small_print(small_with(FLOATS, negative), FLOATS, keep=keep, batch=batch)
        assert found == expected(FLOATS)


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.parametrize("store", ["memory", "parquet"])
@pytest.mark.parametrize("which", [[0], [1], [3], [0, 1, 2, 3, 4]])
def test_a_missing_float_is_null_or_any_nan(store, which, tmp_path):
    def no_nulls(values: pa.Array) -> pa.Array:
        floats = values.to_numpy(zero_copy_only=False).copy()
        payloads, at = PAYLOADS[floats.dtype][which], np.flatnonzero(np.isnan(floats))
        floats.view(payloads.dtype)[at] = payloads[np.arange(len(at)) % len(payloads)]
        made = pa.array(floats, from_pandas=False)
        assert len(at) and made.null_count == 0 and np.isnan(made.to_numpy()[at]).all()
        return made

    source = written(small_with(FLOATS, no_nulls), store, tmp_path)
    assert small_print(source, FLOATS) == expected(FLOATS)


@pytest.mark.parametrize("store", ["memory", "parquet", "feather"])
@pytest.mark.parametrize("kind", INTEGERS, ids=str)
def test_whole_numbers_have_no_width(store, kind, tmp_path):
    def narrow(values: pa.Array) -> pa.Array:
        return values.cast(kind)

    def encoded(values: pa.Array) -> pa.Array:
        return values.cast(kind).dictionary_encode().cast(pa.dictionary(pa.int8(), kind))

    for stored_as in (narrow, encoded):
        table = small_with(WHOLE_NUMBERS, stored_as, "small", "kind")
        found = small_print(written(table, store, tmp_path), WHOLE_NUMBERS, tmp_path / "c")
        assert found == expected(WHOLE_NUMBERS), stored_as


DICTIONARIES: dict[str, Callable[[list[str]], list[str | None]]] = {
    "reordered": lambda own: own[::-1],
    "with unused entries": lambda own: ["\uffff~", *own, "unused", "Z~"],
    "with entries twice": lambda own: [*own, *own[::-1]],
    "with a null": lambda own: [own[0], None, *own[1:]],
}


@pytest.mark.parametrize(("how", "store"), [
    (how, store) for how in DICTIONARIES for store in ("memory", "parquet", "feather", "arrows")
    if (how, store) != ("with a null", "parquet")  # Arrow writes none
])
def test_text_has_no_dictionary(how, store, tmp_path):
    for index, text, keep in ((pa.int8(), pa.string(), True), (pa.int32(), pa.string(), True),
                              (pa.int32(), pa.string(), False),
                              (pa.uint16(), pa.large_string(), True)):
        def encoded(values: pa.Array, index: Any = index, text: Any = text) -> pa.Array:
            levels = DICTIONARIES[how](values.drop_null().unique().to_pylist())
            places = {w: [i for i, v in enumerate(levels) if v == w] for w in levels}
            codes = [None if w not in places else places[w][i % len(places[w])]
                     for i, w in enumerate(values.to_pylist())]  # a null, too, has its places
            return pa.DictionaryArray.from_arrays(pa.array(codes, index), pa.array(levels, text))

        source = written(small_with(TEXT, encoded), store, tmp_path)
        found = small_print(source, TEXT, tmp_path / "c", keep)
        assert found == expected(TEXT), (index, text, keep)


def chunked(*levels: list[str | None]) -> Callable[[pa.Array], pa.ChunkedArray]:
    """Encodes a column in as many chunks as there are dictionaries given."""
    def encode(values: pa.Array) -> pa.ChunkedArray:
        size = -(-len(values) // len(levels))
        return pa.chunked_array([
            pa.DictionaryArray.from_arrays(
                pc.index_in(values.slice(i * size, size), pa.array(own, pa.string())),
                pa.array(own, pa.string()))
            for i, own in enumerate(levels)])

    return encode


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("batch", [7, 1_000])
def test_chunks_may_have_dictionaries_of_their_own(keep, batch):
    table = small_with(TEXT, chunked(["a", "b", "é"], ["x", "é", "b", "a"], ["é", "a", "b"]), "few")
    found = small_print(table, TEXT, keep=keep, batch=batch)
    assert found == expected(TEXT)


def test_chunks_may_have_dictionaries_of_their_own_with_nulls():
    table = small_with(TEXT, chunked(["a", "b", "é", None], [None, "é", "b", "a"]), "few")
    assert small_print(table, TEXT) == expected(TEXT)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("store", ["memory", "parquet"])
def test_entries_that_no_row_has_are_not_cast(keep, store, tmp_path):
    codes = pa.array(np.random.default_rng(2).integers(0, 3, ROWS), pa.int32())
    steps = [{"cast": {"columns": ["few"], "to": "float64"}}, {"scale": {"columns": ["few"]}},
             {"ordinal": {"columns": ["text"]}}]

    def found(*levels: str) -> dict[str, str]:
        column = pa.DictionaryArray.from_arrays(codes, pa.array(levels))
        source = written(small_with(TEXT, lambda values: column, "few"), store, tmp_path)
        return small_print(source, TEXT, keep=keep, steps=steps)

    assert found("1", "20", "-3", "unused") == found("1", "20", "-3")


def test_entries_that_no_row_has_do_not_count_against_a_vocabulary_s_limit():
    def encoded(values: pa.Array) -> pa.Array:
        own = values.dictionary_encode()
        unused = pa.array(np.arange(VOCABULARY_LIMIT)).cast(pa.string())
        return pa.DictionaryArray.from_arrays(
            own.indices, pa.concat_arrays([own.dictionary, unused]))

    table = small_with(TEXT, encoded, "text")
    assert small_print(table, TEXT, keep=False) == expected(TEXT)
