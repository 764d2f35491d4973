"""Measures against SciPy, and their p-values against draws without drift."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from gpupipe.engine.frames import Column
from gpupipe.engine.pandas import PandasFrames
from gpupipe.monitor.cells import ABOVE, FIRST, MISSING, UNSEEN, Bins, Levels
from gpupipe.monitor.measures import MEASURES, greater
from gpupipe.monitor.pairs import EXPECTED, Pair, Shape
from gpupipe.monitor.reference import Known

FX = PandasFrames()


def numbers(values: np.ndarray, name: str = "x") -> Known:
    coder = Bins(float(values.min()), float(values.max()))
    cells, counts = np.unique(coder.cells(Column("float64", values), FX), return_counts=True)
    return Known(name, "float64", coder, cells, counts, len(values))


def pair_of(reference: Known, values: np.ndarray, **special: int) -> Pair:
    cells, counts = np.unique(reference.coder.cells(Column("float64", values), FX),
                              return_counts=True)
    extra = sorted(special.items())
    return Pair(Shape(reference), np.array([*(int(k[1:]) for k, _ in extra), *cells]),
                np.array([*(v for _, v in extra), *counts]))


def levels(then: list[int], now: list[int], unseen: int = 0) -> Pair:
    import pyarrow as pa

    coder = Levels(pa.array([str(i) for i in range(len(then))]))
    counts = np.array(then)
    known = Known("s", "string", coder, FIRST + np.arange(len(then)), counts, int(counts.sum()),
                  once=int((counts == 1).sum()))
    return Pair(Shape(known), np.array([UNSEEN, *(FIRST + np.arange(len(now)))]),
                np.array([unseen, *now]))


@pytest.fixture(scope="module")
def both() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.normal(10, 2, 8000), rng.normal(10.2, 2.1, 3000)


def test_kolmogorov_smirnov_is_scipy_s_but_for_the_bins(both):
    then, now = both
    found = MEASURES["kolmogorov_smirnov"].compute(pair_of(numbers(then), now))
    expected = stats.ks_2samp(then, now, method="asymp")
    # Bins of a relative width of 2^-7 hide a little of the greatest difference.
    assert found.value == pytest.approx(expected.statistic, abs=0.01)
    assert found.value <= expected.statistic


def test_wasserstein_is_scipy_s_in_deviations(both):
    then, now = both
    found = MEASURES["wasserstein"].compute(pair_of(numbers(then), now))
    expected = stats.wasserstein_distance(then, now) / then.std()
    assert found.value == pytest.approx(expected, rel=0.06)


def test_divergence_and_psi_are_those_of_the_groups(both):
    then, now = both
    pair = pair_of(numbers(then), now)
    r, c = (a + 0.5 for a in pair.groups)
    assert len(r) == 10
    assert MEASURES["jensen_shannon"].compute(pair).value == pytest.approx(
        jensenshannon(r, c, base=2), rel=1e-9)
    p, q = r / r.sum(), c / c.sum()
    assert MEASURES["psi"].compute(pair).value == pytest.approx(
        sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True)))


def test_chi_squared_is_scipy_s_with_rare_levels_as_one():
    pair = levels([500, 300, 190, 4, 3, 3], [240, 160, 80, 10, 6, 4])
    r, c = pair.groups
    assert len(r) == 4 and r.sum() == 1000 and c.sum() == 500
    expected = stats.chi2_contingency(np.array([r, c]), correction=False)
    found = MEASURES["chi_squared"].compute(pair)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.value == pytest.approx(math.sqrt(expected.statistic * (1 / 500 + 1 / 1000)))


def test_all_levels_rare_leave_nothing_to_compare():
    assert MEASURES["chi_squared"].compute(levels([1] * 200, [1] * 120)) is None


def test_no_group_is_expected_to_have_few_rows():
    rng = np.random.default_rng(0)
    for _ in range(50):
        then, now = rng.integers(0, 30, (2, rng.integers(5, 60))) + rng.integers(0, 2)
        pair = levels([*then, 400], [*now, 150], int(rng.integers(0, 9)))
        r, c = pair.groups
        expected = np.outer([r.sum(), c.sum()], (r + c) / (r + c).sum())
        assert expected.min() >= EXPECTED or len(r) == 1


def test_the_area_under_a_bridge_has_the_moments_of_simulated_ones(both):
    then, _ = both
    shape = Shape(numbers(then))
    within = shape.within(0.01)
    mean, variance = within.area
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(800):
        pair = pair_of(shape.known, rng.choice(then, 2000))
        cells, f, g = pair.functions
        drawn.append(np.abs(f - g)[:-1] @ np.diff(within.points(cells)) / within.deviation
                     * math.sqrt(2000))
    assert np.mean(drawn) == pytest.approx(mean, rel=0.05)
    assert np.var(drawn) == pytest.approx(variance, rel=0.2)


@pytest.mark.parametrize("name", ["wasserstein", "kolmogorov_smirnov", "psi"])
@pytest.mark.parametrize("law", ["normal", "lognormal", "rounded"])
def test_p_values_without_drift_are_no_smaller_than_they_should_be(name, law):
    rng = np.random.default_rng(7)
    draw = {"normal": lambda n: rng.normal(50, 9, n), "lognormal": lambda n: rng.lognormal(0, 2, n),
            "rounded": lambda n: rng.poisson(3, n).astype(float)}[law]
    shape = Shape(numbers(draw(20_000)))
    p = []
    for _ in range(400):
        # Reference and window are both new each time, but the reference's noise is the least.
        p.append(MEASURES[name].compute(Pair(shape, *_counted(shape, draw(1000)))).p)
    for level, most in ((0.05, 0.085), (0.01, 0.0275)):  # three deviations above the level
        assert np.mean(np.array(p) <= level) <= most


def _counted(shape: Shape, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.unique(shape.known.coder.cells(Column("float64", values), FX), return_counts=True)


def test_effects_without_drift_are_about_zero_where_plain_values_are_not(both):
    then, _ = both
    rng = np.random.default_rng(3)
    pair = pair_of(numbers(then), rng.choice(then, 300))
    for name in ("psi", "jensen_shannon", "kolmogorov_smirnov", "wasserstein"):
        found = MEASURES[name].compute(pair)
        assert found.effect < MEASURES[name].warn
        assert found.effect < found.value


def test_the_share_test_is_the_exact_one_or_wider():
    for a, n, b, m in ((3, 1000, 0, 30_000), (9, 500, 20, 8000), (1, 100, 0, 100),
                       (460, 1000, 350, 1000), (900, 1000, 800, 1000), (40, 100_000, 10, 100_000)):
        exact = stats.hypergeom.sf(a - 1, n + m, a + b, n)
        assert exact * 0.999 <= greater(a, n, b, m)
        assert math.log(greater(a, n, b, m)) <= 0.5 * math.log(exact)


def test_values_beyond_the_range_are_expected_as_often_as_new_extremes(both):
    then, _ = both
    known = numbers(then)
    few, many = ({f"_{ABOVE}": k} for k in (2, 60))
    now = np.random.default_rng(2).choice(then, 4000)
    found = [MEASURES["beyond_range"].compute(pair_of(known, now, **k)) for k in (few, many)]
    assert found[0].p > 0.1
    assert found[1].p < 1e-10 and found[1].effect == pytest.approx(60 / 4000 - 2 / 8001)
    # Of 4,000 and 8,000 rows the greatest is a new one's with a chance of a third.
    one = MEASURES["beyond_range"].compute(pair_of(known, now, **{f"_{ABOVE}": 1}))
    assert one.p == pytest.approx(2 / 3, rel=1e-3)


def test_unseen_text_is_expected_as_often_as_values_came_once():
    usual = levels([500] * 10 + [1] * 50, [100] * 10, 10)
    assert MEASURES["unseen"].compute(usual).p > 0.05
    closed = levels([505] * 10, [100] * 10, 10)
    assert MEASURES["unseen"].compute(closed).p < 1e-6


def test_fewer_gaps_are_a_change_as_well(both):
    then, now = both
    known = numbers(then)
    gappy = Known("x", "float64", known.coder, known.cells, known.counts, 10_000, 2000)
    for gaps in (0, 1500):
        found = MEASURES["missing"].compute(pair_of(gappy, now, **{f"_{MISSING}": gaps}))
        assert found.p < 1e-9 and found.effect > 0.1
