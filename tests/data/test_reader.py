"""A reader decodes once what fits into memory, and gives the same columns either way."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpupipe.data.ingest import ingest
from gpupipe.data.reader import Reader
from gpupipe.engine.local import LocalEngine
from gpupipe.engine.memory import Memory

ROWS = 1_000


@pytest.fixture
def dataset(tmp_path):
    rng = np.random.default_rng(0)
    whole = pa.array(rng.integers(-200, 200, ROWS), mask=rng.random(ROWS) < 0.1)
    table = pa.table({
        "f": rng.normal(size=ROWS), "i": whole, "s": rng.choice(list("abcde"), ROWS),
        "big": rng.integers(0, 2**60, ROWS), "b": rng.random(ROWS) < 0.5,
    })
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=300)
    return ingest(str(tmp_path / "t.parquet"), cache=tmp_path / "cache")


def plain(reader, name, fx):
    """A column's values through its codes and levels, as a list."""
    out = []
    for index in range(len(reader.dataset.parts)):
        for batch in reader.batches(index, [name]):
            codes, levels = fx.factorize(batch[name])
            values = [*levels.to_pylist(), None]
            out += [values[c] for c in codes]
    return out


def read_all(reader, columns):
    return [list(reader.batches(i, columns)) for i in range(len(reader.dataset.parts))]


def test_what_is_kept_is_decoded_once_and_is_the_same(dataset):
    names = dataset.schema.names
    streaming, kept = Reader(dataset, LocalEngine(1)), Reader(dataset, LocalEngine(1, 70))
    assert kept.keep(names)
    read_all(kept, names)
    for name in names:
        assert plain(kept, name, kept.engine.fx) == plain(streaming, name, streaming.engine.fx)
    assert set(kept.decoded.values()) == {1}
    read_all(streaming, names)
    assert set(streaming.decoded.values()) == {2}


def test_shared_columns_have_one_dictionary_and_the_same_values(dataset):
    reader, fx = Reader(dataset, LocalEngine(2, 90)), LocalEngine().fx
    names = ["s", "i", "big"]
    before = {n: plain(reader, n, fx) for n in names}
    reader.keep(names)
    read_all(reader, names)
    reader.share(names)
    for name in ("s", "i"):
        batches = [b[name] for part in read_all(reader, names) for b in part]
        assert len({id(b.levels) for b in batches}) == 1
        found = [fx.lookup(b, batches[0].levels) for b in batches]
        codes = [b.values if name == "s" else b.codes for b in batches]
        assert all((f == c).all() for f, c in zip(found, codes, strict=True))
    assert {n: plain(reader, n, fx) for n in names} == before


def test_what_does_not_fit_is_streamed(dataset):
    reader = Reader(dataset, LocalEngine(1, memory=Memory(100, 1, 100)))
    assert not reader.keep(["f", "s"])
    for _ in range(3):
        read_all(reader, ["f", "s"])
    assert set(reader.decoded.values()) == {3}
    reader.share(["s"])  # nothing is kept, so there is nothing to share


def test_the_last_time_lets_go(dataset):
    reader = Reader(dataset, LocalEngine(1))
    reader.keep(["f"])
    read_all(reader, ["f"])
    for index in range(len(dataset.parts)):
        list(reader.batches(index, ["f"], last=True))
    assert set(reader.decoded.values()) == {1}
    read_all(reader, ["f"])
    assert set(reader.decoded.values()) == {2}
