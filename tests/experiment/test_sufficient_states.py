"""Sums and units merge to the same bits, whatever the partitioning and the order of rows."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.data.ingest import ingest
from gpupipe.data.reader import Reader
from gpupipe.engine.local import LocalEngine
from gpupipe.engine.pandas import PandasFrames
from gpupipe.errors import DataError
from gpupipe.experiment.analyse import analyse
from gpupipe.experiment.cells import Reading, Tally
from gpupipe.experiment.config import configured
from gpupipe.experiment.gather import Gathered, gather
from gpupipe.experiment.sums import Sums, sums_of
from gpupipe.experiment.units import Pile, Units, digits_of

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("AB"), st.one_of(st.none(), FLOATS)),
    min_size=1, max_size=40,
)


def exactly(values: list[float]) -> Fraction:
    return sum(map(Fraction, values), Fraction(0))


@given(st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=30), st.data())
def test_sums_are_exact_and_merge_to_the_same_from_any_pieces(
    rows: list[tuple[float, float]], data: st.DataObject
) -> None:
    x, y = (np.array(v) for v in zip(*rows, strict=True))
    bucket = np.array([data.draw(st.integers(-1, 2)) for _ in rows])
    whole = sums_of([x, y], bucket, 3, PandasFrames())
    for b, sums in enumerate(whole):
        mine = [r for r, k in zip(rows, bucket, strict=True) if k == b]
        assert sums.n == len(mine)
        assert sums.first == (exactly([a for a, _ in mine]), exactly([b for _, b in mine]))
        assert sums.second == tuple(
            sum((Fraction(r[i]) * Fraction(r[j]) for r in mine), Fraction(0))
            for i, j in ((0, 0), (0, 1), (1, 1)))
    order = data.draw(st.permutations(range(len(rows))))
    cut = data.draw(st.integers(0, len(rows)))
    pieces = [sums_of([x[p], y[p]], bucket[p], 3, PandasFrames())
              for p in (np.array(order[:cut], int), np.array(order[cut:], int)) if len(p)]
    merged = [Sums.nothing(2)] * 3
    for piece in pieces:
        merged = [a.merge(b) for a, b in zip(merged, piece, strict=True)]
    assert merged == whole


@given(st.lists(st.tuples(st.integers(0, 4), FLOATS), min_size=1, max_size=40))
def test_a_units_sum_is_that_of_fsum_or_its_neighbour(rows: list[tuple[int, float]]) -> None:
    code, x = (np.array(v) for v in zip(*rows, strict=True))
    made = digits_of(x.astype(float), code, 5)
    values = made.values()
    for unit in range(5):
        exact = exactly([v for k, v in rows if k == unit])
        if abs(exact) < Fraction(2) ** 1023:
            near = float(exact)
            assert abs(values[unit] - near) <= math.ulp(near)


def units_of(rows: list[tuple[str, str, float | None]]) -> Units:
    column = pa.array([r[0] for r in rows]).dictionary_encode()
    arm = np.array([1 if r[1] == "A" else 2 for r in rows], np.uint64)
    value = np.array([np.nan if r[2] is None else r[2] for r in rows])
    return Units.of(column.dictionary, column.indices.to_numpy().astype(np.int64), [arm],
                    {"v": value}, ["v"])


@given(ROWS, st.data())
@settings(deadline=None)
def test_units_are_the_same_from_any_pieces_in_any_order(
    rows: list[tuple[str, str, float | None]], data: st.DataObject
) -> None:
    whole = Pile((units_of(rows),)).whole()
    shuffled = data.draw(st.permutations(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    pieces = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    pile = Pile(())
    for piece in pieces:
        if piece:
            pile = pile.merge(Pile((units_of(piece),)))
    merged = pile.whole()
    assert merged.ids.equals(whole.ids)
    assert (merged.rows == whole.rows).all()
    assert (merged.least == whole.least).all() and (merged.greatest == whole.greatest).all()
    for how in ("sum", "mean", "max", "min", "count"):
        ours, theirs = merged.value("v", how), whole.value("v", how)
        assert ours.tobytes() == theirs.tobytes(), how


def test_a_pile_holds_no_more_than_about_twice_its_units(monkeypatch) -> None:
    from gpupipe.experiment import units

    monkeypatch.setattr(units, "_LOOSE", 300)
    pile = Pile(())
    for _ in range(3):  # three rows a unit, far apart
        for start in range(0, 4_000, 100):
            rows = [(f"u{i}", "A", 1.0) for i in range(start, start + 100)]
            pile = pile.merge(Pile((units_of(rows),)))
            assert sum(map(len, pile.pieces)) <= 2 * 4_000 + 300
    whole = pile.whole()
    assert len(whole) == 4_000 and (whole.value("v", "sum") == 3).all()


def test_two_ids_with_one_hash_are_refused(monkeypatch) -> None:
    from gpupipe.experiment import units

    monkeypatch.setattr(units, "hash_strings", lambda ids: np.zeros(len(ids), np.uint64))
    with pytest.raises(DataError, match="same 64-bit hash"):
        Pile((units_of([("a", "A", 1.0)]), units_of([("b", "A", 1.0)]))).whole()


LOG = pa.table({
    "user": [f"u{i % 700}" for i in range(3_000)],
    "arm": ["A" if (i % 700) % 2 else "B" for i in range(3_000)],
    "plan": ["free" if (i % 700) % 3 else "paid" for i in range(3_000)],
    "clicks": [(i * 7919) % 13 * 0.1 for i in range(3_000)],
    "views": [1 + (i * 104729) % 5 for i in range(3_000)],
    "before": [None if i % 700 == 3 else ((i % 700) * 31 % 17) / 3 for i in range(3_000)],
    "bought": [(i * 31337) % 11 == 0 for i in range(3_000)],
})
FILE = {
    "name": "log", "unit": "user", "arm": "arm", "slices": ["plan"],
    "primary": [{"name": "ctr", "kind": "ratio", "column": "clicks", "denominator": "views",
                 "covariate": "before"}],
    "secondary": [{"name": "bought"}, {"name": "clicks", "covariate": "before"}],
}


def tallied(table: pa.Table) -> Tally:
    return gather(configured(FILE), table).tally


def test_an_experiment_is_the_same_in_any_order_and_from_any_files(tmp_path) -> None:
    import pyarrow.parquet as pq

    whole = tallied(LOG)
    order = np.random.default_rng(0).permutation(LOG.num_rows)
    shuffled = LOG.take(pa.array(order))
    assert tallied(shuffled) == whole
    for i in range(5):
        pq.write_table(shuffled.slice(i * 600, 600), tmp_path / f"{4 - i}.parquet",
                       row_group_size=97)
    assert gather(configured(FILE), str(tmp_path)).tally == whole


def test_an_analysis_is_the_same_to_the_bit_in_any_order_resamples_included() -> None:
    made = []
    for table in (LOG, LOG.take(pa.array(np.random.default_rng(1).permutation(LOG.num_rows)))):
        found = analyse(gather(configured(FILE), table), resamples=120)
        found.pop("created")
        made.append(json.dumps(found))
    assert made[0] == made[1]


def test_rows_that_are_units_give_the_sums_of_units_with_one_row() -> None:
    table = LOG.slice(0, 700)
    rows = configured({k: v for k, v in FILE.items() if k != "unit"})
    assert gather(rows, table).tally == tallied(table)


@pytest.mark.parametrize("batch_rows", [113, 1_000_000])
def test_the_size_of_batches_does_not_matter(batch_rows: int, tmp_path) -> None:
    from gpupipe.experiment.scan import Wanted, scanned

    config = configured(FILE)
    wanted = Wanted(None, "arm", None, ("plan",), ("clicks", "views", "before", "bought"), {}, (),
                    tuple(config.metrics))
    found = [scanned(Reader(ingest(LOG, cache=tmp_path), LocalEngine(2, rows)), wanted)
             for rows in (batch_rows, 1_024)]
    assert found[0] == found[1]


def test_a_missing_covariate_is_taken_to_be_the_mean() -> None:
    config = configured({"name": "x", "arm": "arm", "primary": [
        {"name": "y", "kind": "mean", "covariate": "x"}]})
    rng = np.random.default_rng(1)
    x = rng.normal(size=400)
    y = x + rng.normal(size=400)
    arm = ["A", "B"] * 200
    gaps = rng.random(400) < 0.2
    filled = np.where(gaps, x[~gaps].mean(), x)

    def estimates(covariate: np.ndarray) -> list[float]:
        table = pa.table({"arm": arm, "y": y, "x": pa.array(covariate, from_pandas=True)})
        found: Gathered = gather(config, table)
        sums = [found.tally.cells["y", "", "", a] for a in ("A", "B")]
        reading = Reading.of(found.config.primary[0], sums[0].merge(sums[1]))
        made = [reading.estimate(s) for s in sums]
        return [m.value for m in made] + [m.variance for m in made]

    assert estimates(np.where(gaps, np.nan, x)) == pytest.approx(estimates(filled), rel=1e-12)
