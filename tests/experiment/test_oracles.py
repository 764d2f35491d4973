"""Effects against tea-tasting, statsmodels and SciPy: means, shares, ratios, CUPED, corrections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import tea_tasting as tt
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportions_ztest
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from gpupipe.experiment.analyse import analyse
from gpupipe.experiment.config import configured
from gpupipe.experiment.corrections import corrected, sample_ratio
from gpupipe.experiment.gather import gather


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    n = 4_000
    before = rng.gamma(2, 3, n)
    views = 1 + rng.poisson(4, n)
    arm = np.where(rng.random(n) < 0.4, "new", "control")
    lift = np.where(arm == "new", 1.1, 1.0)
    return pd.DataFrame({
        "arm": arm, "before": before, "views": views,
        "views_before": 1 + rng.poisson(4, n),
        "clicks": rng.binomial(views, np.clip(0.2 * lift, 0, 1)),
        "clicks_before": rng.poisson(1.0, n),
        "spent": (before + rng.gamma(1, 2, n)) * lift,
        "bought": rng.random(n) < 0.1 * lift,
    })


def found(table: pd.DataFrame, metric: dict[str, Any], **more: Any) -> dict[str, Any]:
    config = configured({"name": "x", "arm": "arm", "arms": {"control": 0.6, "new": 0.4},
                         "primary": [metric], **more})
    made: dict[str, Any] = analyse(gather(config, table))["metrics"][0]
    return made


def of_tea(table: pd.DataFrame, metric: Any) -> Any:
    return tt.Experiment({"m": metric}, variant="arm").analyze(table, control="control")["m"]


def agrees(made: dict[str, Any], tea: Any) -> None:
    effect = made["effects"][0]
    change = effect["difference"]
    assert made["arms"]["control"]["value"] == pytest.approx(tea.control, rel=1e-9)
    assert made["arms"]["new"]["value"] == pytest.approx(tea.treatment, rel=1e-9)
    assert change["value"] == pytest.approx(tea.effect_size, rel=1e-8)
    assert change["low"] == pytest.approx(tea.effect_size_ci_lower, rel=1e-7)
    assert change["high"] == pytest.approx(tea.effect_size_ci_upper, rel=1e-7)
    assert effect["p"] == pytest.approx(tea.pvalue, rel=1e-6)
    assert effect["relative"]["value"] == pytest.approx(tea.rel_effect_size, rel=1e-8)


def test_a_mean_is_tea_tastings_and_statsmodels(table: pd.DataFrame) -> None:
    made = found(table, {"name": "spent"})
    agrees(made, of_tea(table, tt.Mean("spent")))
    new, old = (DescrStatsW(table.spent[table.arm == a]) for a in ("new", "control"))
    low, high = CompareMeans(new, old).tconfint_diff(usevar="unequal")
    change = made["effects"][0]["difference"]
    assert (change["low"], change["high"]) == pytest.approx((low, high), rel=1e-9)


def test_cuped_is_tea_tastings(table: pd.DataFrame) -> None:
    made = found(table, {"name": "spent", "covariate": "before"})
    agrees(made, of_tea(table, tt.Mean("spent", "before")))
    rho2 = np.corrcoef(table.spent, table.before)[0, 1] ** 2
    assert made["effects"][0]["cuped"]["variance_reduction"] == pytest.approx(rho2, abs=0.02)


def test_a_ratio_is_tea_tastings_with_and_without_a_covariate(table: pd.DataFrame) -> None:
    ratio = {"name": "ctr", "kind": "ratio", "column": "clicks", "denominator": "views"}
    agrees(found(table, ratio), of_tea(table, tt.RatioOfMeans("clicks", "views")))
    both = {**ratio, "covariate": "clicks_before", "covariate_denominator": "views_before"}
    agrees(found(table, both), of_tea(
        table, tt.RatioOfMeans("clicks", "views", "clicks_before", "views_before")))
    one = {**ratio, "covariate": "before"}
    agrees(found(table.assign(one=1), one), of_tea(
        table.assign(one=1), tt.RatioOfMeans("clicks", "views", "before", "one")))


def test_a_share_is_statsmodels(table: pd.DataFrame) -> None:
    made = found(table, {"name": "bought"})
    assert made["kind"] == "proportion"
    hits, n = (table.groupby("arm").bought.agg(how)[["new", "control"]].to_numpy()
               for how in ("sum", "count"))
    effect = made["effects"][0]
    z, p = proportions_ztest(hits, n)
    assert (effect["statistic"], effect["p"]) == pytest.approx((z, p), rel=1e-9)
    low, high = confint_proportions_2indep(hits[0], n[0], hits[1], n[1], method="wald")
    change = effect["difference"]
    assert (change["low"], change["high"]) == pytest.approx((low, high), rel=1e-9)


def test_rows_of_units_give_the_ratio_clustered_by_unit(table: pd.DataFrame) -> None:
    """The mean over rows, where units are dealt out: statsmodels' cluster-robust regression."""
    import statsmodels.formula.api as smf

    rng = np.random.default_rng(2)
    units = pd.DataFrame({"user": np.arange(400), "size": 1 + rng.poisson(5, 400),
                          "own": rng.normal(size=400)})
    units["arm"] = np.where(units.user % 2, "new", "control")
    rows = units.loc[units.index.repeat(units["size"])].reset_index(drop=True)
    rows["y"] = rows.own + rng.normal(size=len(rows)) + 5
    config = configured({"name": "x", "unit": "user", "arm": "arm", "primary": [
        {"name": "y", "kind": "ratio", "denominator": "rows"}]})
    effect = analyse(gather(config, rows), resamples=2_000)["metrics"][0]["effects"][0]
    rows["new"] = (rows.arm == "new").astype(float)
    fit = smf.ols("y ~ new", rows).fit(cov_type="cluster", cov_kwds={"groups": rows.user})
    assert effect["difference"]["value"] == pytest.approx(fit.params["new"], rel=1e-9)
    assert effect["standard_error"] == pytest.approx(fit.bse["new"], rel=0.01)
    width = effect["difference"]["high"] - effect["difference"]["low"]
    drawn = effect["bootstrap"]["difference"]
    assert drawn["high"] - drawn["low"] == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize("m", [1, 2, 5, 20])
def test_corrections_are_statsmodels(m: int) -> None:
    drawn = np.random.default_rng(m).random(m) ** 3
    ps = [*drawn.tolist(), *drawn[:2].tolist(), 0.0, 1.0]
    for how, theirs in (("holm", "holm"), ("benjamini-hochberg", "fdr_bh")):
        assert corrected(ps, how) == pytest.approx(multipletests(ps, method=theirs)[1])
    assert corrected(ps, "none") == ps


def test_the_ratio_of_samples_is_scipys_chi_squared() -> None:
    halves = {"a": 0.5, "b": 0.5}
    large = sample_ratio({"a": 821_588, "b": 815_482}, halves, 0.01)
    assert f"{large.p:.4e}" == "1.8218e-06" and large.ok is False
    units, shares = {"a": 700, "b": 190, "c": 110}, {"a": 0.7, "b": 0.2, "c": 0.1}
    oracle = stats.chisquare([700, 190, 110], [700, 200, 100])
    made = sample_ratio(units, shares, 0.01)
    assert (made.statistic, made.p) == pytest.approx((oracle.statistic, oracle.pvalue))
    assert sample_ratio({"a": 3, "b": 1}, halves, 0.01).ok is None


def test_the_sequential_ratio_test_is_the_ratio_of_likelihoods() -> None:
    units, shares = {"a": 5_300, "b": 4_700}, {"a": 0.5, "b": 0.5}
    mixture = stats.betabinom(10_000, 500, 500).logpmf(5_300)
    plain = stats.binom(10_000, 0.5).logpmf(5_300)
    made = sample_ratio(units, shares, 0.01, sequential=True)
    assert made.p == pytest.approx(np.exp(plain - mixture), rel=1e-6) and made.ok is False
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        seen = np.cumsum(rng.random((100, 200)) < 0.5, axis=None)[199::200]
        alarms += any(sample_ratio({"a": int(k), "b": 200 * (i + 1) - int(k)}, shares, 0.05,
                                   sequential=True).ok is False for i, k in enumerate(seen))
    assert alarms / 300 <= 0.05


def test_an_interaction_is_the_test_of_cochrans_q(table: pd.DataFrame) -> None:
    from statsmodels.stats.meta_analysis import combine_effects

    half = table.assign(plan=np.where(np.arange(len(table)) % 3, "free", "paid"))
    config = configured({"name": "x", "arm": "arm", "slices": ["plan"],
                         "primary": [{"name": "spent"}]})
    made = analyse(gather(config, half))["slices"][0]
    effects = [v["difference"]["value"] for v in made["levels"]]
    variances = [v["standard_error"] ** 2 for v in made["levels"]]
    assert made["q"] == pytest.approx(combine_effects(np.array(effects), np.array(variances)).q)
    assert made["p"] == pytest.approx(stats.chi2.sf(made["q"], 1))
