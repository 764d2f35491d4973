"""Counts are integers: any partitioning, any order, one after another or merged, is the same."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.engine.frames import Column
from gpupipe.engine.pandas import PandasFrames
from gpupipe.monitor.cells import (
    FIRST,
    INFINITE,
    MISSING,
    UNSEEN,
    Bins,
    Levels,
    Pieces,
    Values,
    fitted,
)
from gpupipe.monitor.counts import NAMES, Counts, Groups, Names, counted, equal, together

FX = PandasFrames()
ROWS = 400


def rows_of(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(-3, 40, ROWS), rng.integers(1, 5, ROWS), rng.integers(0, 90, ROWS)


def state(window: np.ndarray, slices: np.ndarray, cell: np.ndarray) -> Counts:
    return together(counted(cell, 90, Groups.of(window, [slices]), FX)) if len(cell) else Counts()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9), st.lists(st.integers(0, ROWS), max_size=5), st.randoms())
def test_any_partitioning_in_any_order_gives_the_same_counts(seed, cuts, random):
    arrays = rows_of(seed)
    whole = state(*arrays)
    order = np.random.default_rng(random.randint(0, 99)).permutation(ROWS)
    shuffled = [a[order] for a in arrays]
    edges = [0, *sorted(cuts), ROWS]
    parts = [state(*(a[i:j] for a in shuffled)) for i, j in itertools.pairwise(edges)]
    random.shuffle(parts)
    merged = Counts()
    for part in parts:
        merged = merged.merge(part)
    assert equal(merged, whole)
    assert whole.counts.sum() == 2 * ROWS  # once in all rows, once in a slice


def test_counts_are_those_of_numpy():
    window, slices, cell = rows_of(3)
    found = state(window, slices, cell)
    for w in np.unique(window):
        cells, counts = found.of_group(int(w), 0)
        expected = np.unique(cell[window == w], return_counts=True)
        np.testing.assert_array_equal(cells, expected[0])
        np.testing.assert_array_equal(counts, expected[1])
        mine = (window == w) & (slices == 2)
        np.testing.assert_array_equal(found.of_group(int(w), 2)[1],
                                      np.unique(cell[mine], return_counts=True)[1])


@given(st.integers(0, 9), st.integers(1, 7))
@settings(max_examples=20, deadline=None)
def test_windows_cut_anew_from_counts_are_those_of_the_rows(seed, factor):
    window, slices, cell = rows_of(seed)
    assert equal(state(window, slices, cell).recut(factor),
                 state(window // factor, slices, cell))


def test_many_windows_are_counted_by_sorting_as_few_are_by_arrays(monkeypatch):
    window, slices, cell = rows_of(1)
    dense = state(window, slices, cell)
    monkeypatch.setattr("gpupipe.monitor.counts.DENSE", 1)
    assert equal(state(window, slices, cell), dense)


@given(st.lists(st.lists(st.integers(0, 400), max_size=300), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_names_that_are_kept_do_not_depend_on_the_order(parts):
    levels = pa.array([f"v{i}" for i in range(401)])

    def names(codes: list[int]) -> Names:
        return Names.found(np.array(codes, int), levels, np.zeros(len(codes), int))

    whole = names([c for part in parts for c in part])
    merged = Names()
    for part in reversed(parts):
        merged = merged.merge(names(part))
    assert merged.of == whole.of
    assert len(whole.of) <= NAMES


def test_cells_keep_the_order_of_numbers_and_tell_gaps_apart():
    values = np.array([-np.inf, -5.0, -0.1, 0.0, 2.5, np.nan, 1e9])
    column = Column("float64", values)
    bins = Bins(-5.0, 2.5)
    cells = bins.cells(column, FX)
    assert cells[0] == INFINITE and cells[5] == MISSING
    kept = cells[[1, 2, 3, 4, 6]]
    assert (np.diff(kept) > 0).all() and kept.min() >= FIRST
    below, above = bins.beyond(column, FX)
    assert below.sum() == 0 and above.tolist().index(True) == 6
    np.testing.assert_allclose(bins.middles(kept[:4]), values[1:5], rtol=1 / 128)


def test_whole_numbers_lie_at_their_value_or_between_two():
    known = Values(np.array([1, 3, 10]))
    cells = known.cells(Column("int64", np.array([0, 1, 2, 3, 4, 10, 11])), FX)
    assert [known.name(c) for c in cells] == [
        "below 1", "1", "between 1 and 3", "3", "between 3 and 10", "10", "above 10"]
    assert (np.diff(cells) > 0).all()
    np.testing.assert_allclose(known.middles(cells), [1, 1, 2, 3, 6.5, 10, 10])


def test_pieces_cut_a_crowded_span_into_equal_parts():
    pieces = Pieces(1000.0, 1001.0, 1000.0, 1000.9, 100)
    cells = pieces.cells(Column("float64", np.array([999.0, 1000.0, 1000.504, 1001.0, 1002.0])),
                         FX)
    assert (cells - FIRST).tolist() == [0, 1, 51, 101, 101]
    np.testing.assert_allclose(pieces.middles(cells), [1000, 1000.005, 1000.505, 1001, 1001])


def test_text_lies_at_its_place_or_is_unseen():
    levels = Levels(pa.array(["b", "a"]))
    column = Column("string", np.array([0, 1, -1, 2]), None, pa.array(["a", "b", "new"]))
    assert levels.cells(column, FX).tolist() == [FIRST + 1, FIRST, MISSING, UNSEEN]


def test_what_does_not_fit_the_type_is_counted_and_what_can_be_read_is_read():
    text = Column("string", np.array([0, 1, 2, -1]), None, pa.array(["1.5", " 2 ", "two"]))
    column, unfit = fitted(text, "float64", FX)
    np.testing.assert_array_equal(column.values, [1.5, 2.0, np.nan, np.nan])
    assert unfit.tolist() == [False, False, True, False]
    column, unfit = fitted(text, "int64", FX)
    assert unfit.tolist() == [True, False, True, False]
    assert column.values[1] == 2
    column, unfit = fitted(Column("float64", np.array([1.0, 1.5, np.nan])), "int64", FX)
    assert unfit.tolist() == [False, True, False]
    column, unfit = fitted(Column("int64", np.array([7, 7, 8])), "string", FX)
    assert unfit is None and column.levels.to_pylist() == ["7", "8"]
    _, unfit = fitted(Column("timestamp", np.array([1, 2])), "float64", FX)
    assert unfit.tolist() == [True, True]
