"""Published figures, to the digits given, and the distributions against SciPy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import NormalIndPower

from gpupipe.experiment.distributions import chi2_tail, normal_tail, t_quantile, t_tail
from gpupipe.experiment.effects import Estimate, critical, difference, fieller, relative
from gpupipe.experiment.power import (
    Design,
    detectable,
    detectable_share,
    power_of,
    power_of_proportions,
    sequential_size,
    size_of_means,
    size_of_non_inferiority,
    size_of_proportions,
)
from gpupipe.experiment.sequential import always_valid_errors, always_valid_p, nu_of


def share(successes: int, n: int) -> Estimate:
    p = successes / n
    return Estimate(n, p, p * (1 - p), proportion=True)


def test_welch() -> None:
    found = difference(Estimate(3407, 0.41, 3.9**2), Estimate(3461, 0.70, 6.2**2), 0.05)
    assert (round(found.low, 5), round(found.high, 5)) == (0.04538, 0.53462)
    assert round(found.p, 5) == 0.02016


def test_sample_size_by_arcsines() -> None:
    assert round(size_of_proportions(0.10, 0.11, Design()), 1) == 14_744.1


def test_the_sequential_interval() -> None:
    """Sequential tuning 5000, relative effect by the delta method, variance p(1 - p)."""
    control, treatment = share(1396, 3000), share(2422, 3461)
    found = relative(control, treatment)
    half = always_valid_errors(found.n, 0.05, 5000) * math.sqrt(found.squared_error)
    assert round(found.value, 5) == 0.50386
    assert (round(found.value - half, 5), round(found.value + half, 5)) == (0.40098, 0.60675)


def test_the_sequence_is_gavi_with_its_own_nu() -> None:
    n, nu = 6461, nu_of(5000, 0.05)
    gavi = math.sqrt((n + nu) / n * math.log((n + nu) / (nu * 0.05**2)))
    assert always_valid_errors(n, 0.05, 5000) == pytest.approx(gavi, rel=1e-12)


@given(st.floats(0.5, 6), st.floats(200, 1e6), st.floats(100, 1e6))
def test_the_always_valid_p_is_below_alpha_where_the_interval_leaves_out_zero(
    z: float, n: float, tuning: float
) -> None:
    inside = always_valid_errors(n, 0.05, tuning) > z
    assert (always_valid_p(z, n, 0.05, tuning) > 0.05) == inside


def test_the_sequence_is_about_tightest_where_it_is_tuned() -> None:
    widths = {t: always_valid_errors(20_000, 0.05, t) for t in (2_000, 20_000, 200_000)}
    assert min(widths, key=widths.__getitem__) == 20_000


@pytest.mark.parametrize("df", [1, 2, 3.5, 30, 1e4, 1e6, 1e8, math.inf])
def test_students_t_is_scipys(df: float) -> None:
    t = stats.t(df) if math.isfinite(df) else stats.norm()
    for at in (-3.0, 0.0, 0.1, 1, 2, 5, 20):
        assert t_tail(at, df) == pytest.approx(t.sf(at), rel=1e-8)
    for p in (0.025, 0.5, 0.9, 0.975, 0.9999):
        assert t_quantile(p, df) == pytest.approx(t.ppf(p), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("df", [1, 2, 7, 50, 1000])
def test_chi_squared_is_scipys(df: int) -> None:
    for x in (0.01, 1, 5, 40, 300, 1100):
        assert chi2_tail(x, df) == pytest.approx(stats.chi2.sf(x, df), rel=1e-10)
    assert normal_tail(30) == pytest.approx(stats.norm.sf(30), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.02, 0.9), st.floats(0.005, 0.05), st.floats(0.2, 5), st.floats(0.5, 0.95))
def test_sizes_are_those_of_statsmodels(
    control: float, rise: float, ratio: float, power: float
) -> None:
    design = Design(0.05, power, ratio)
    h = 2 * (math.asin(math.sqrt(control + rise)) - math.asin(math.sqrt(control)))
    oracle = NormalIndPower()
    n = size_of_proportions(control, control + rise, design)
    # Statsmodels counts significance of the wrong sign, too: nothing at these powers.
    assert n == pytest.approx(oracle.solve_power(h, None, 0.05, power, ratio), rel=1e-3)
    assert power_of_proportions(control, control + rise, n, design) == pytest.approx(
        oracle.power(h, n, 0.05, ratio), rel=1e-9)
    means = size_of_means(0.1, 4.0, design)
    assert means == pytest.approx(oracle.solve_power(0.05, None, 0.05, power, ratio), rel=1e-3)
    assert detectable(4.0, means, design) == pytest.approx(0.1)
    assert detectable_share(control, n, design) == pytest.approx(rise, rel=1e-6)
    assert power_of(0.1, 4.0, means, design) == pytest.approx(power, abs=1e-3)


def test_non_inferiority_takes_the_units_that_show_a_gain_of_the_margin() -> None:
    assert size_of_non_inferiority(0.02, 0.09, Design()) == pytest.approx(
        2 * 0.09 * (stats.norm.ppf(0.975) + stats.norm.ppf(0.8)) ** 2 / 0.02**2)


def test_the_sequential_sizes_are_those_of_a_simulation() -> None:
    """5,000 random walks with the very looks of the formula."""
    design, effect, variance = Design(), 0.1, 1.0
    size = sequential_size(effect, variance, design, looks=60)
    fixed = 2 * size_of_means(effect, variance, design)
    assert fixed < size.maximal < 2.5 * fixed
    assert size.expected < size.maximal and size.expected < size.expected_null <= size.maximal
    steps = np.linspace(200, size.maximal, 60)
    bounds = np.array([always_valid_errors(n, 0.05, fixed) for n in steps])
    rng = np.random.default_rng(3)
    for drift, expected in ((effect / 2, size.expected), (0.0, size.expected_null)):
        moves = rng.standard_normal((5_000, 60)) * np.sqrt(np.diff(steps, prepend=0))
        walk = np.cumsum(moves, axis=1) + drift * steps
        out = np.abs(walk) / np.sqrt(steps) > bounds
        stopped = np.where(out.any(axis=1), steps[out.argmax(axis=1)], steps[-1])
        assert stopped.mean() == pytest.approx(expected, rel=0.02)
        if drift:
            assert out.any(axis=1).mean() >= 0.79
        else:
            assert out.any(axis=1).mean() <= 0.05


@given(st.integers(30, 500), st.integers(30, 500), st.floats(0.2, 0.8), st.floats(0.2, 0.8))
def test_fieller_holds_the_ratios_that_are_not_refused(
    n: int, m: int, p: float, q: float
) -> None:
    control, treatment = (
        Estimate(n, p, p * (1 - p)), Estimate(m, q, q * (1 - q)))
    errors = critical(control, treatment, 0.05)
    found = fieller(control, treatment, errors)
    if found is None:
        assert control.value**2 <= errors**2 * control.squared_error
        return
    for end in found:
        r = end + 1
        gap = abs(treatment.value - r * control.value)
        error = math.sqrt(treatment.squared_error + r * r * control.squared_error)
        assert gap == pytest.approx(errors * error, rel=1e-6)
