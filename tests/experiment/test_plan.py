"""Sizes from a plan's file and from the past: shares of arms, ratios, covariates, guardrails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.power import NormalIndPower

from gpupipe.errors import ConfigError
from gpupipe.experiment.config import configured
from gpupipe.experiment.gather import gather_past
from gpupipe.experiment.plan import bases, sized


def planned(primary: Any, past: pd.DataFrame | None = None, **more: Any) -> dict[str, Any]:
    """The sizes of the plan, and its configuration under "config"."""
    config = configured({"name": "x", "arms": {"a": 0.5, "b": 0.5}, "primary": primary, **more})
    tally = None
    if past is not None:
        config, tally = gather_past(config, past)
    made, sizes = sized(config, bases(config, tally))
    return {**sizes, "config": made}


def the_past(n: int = 5_000) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    before, views = rng.normal(size=n), 1 + rng.poisson(4, n)
    return pd.DataFrame({"user": np.arange(n) // 2, "before": before, "views": views,
                         "y": 10 + before + rng.normal(size=n),
                         "clicks": rng.binomial(views, 0.2)})


def test_unequal_arms_take_more_units_as_statsmodels_says() -> None:
    metric = {"name": "p", "kind": "proportion", "baseline": 0.1, "effect": 0.01}
    found = planned(metric, arms={"a": 0.8, "b": 0.2})
    h = 2 * (np.arcsin(np.sqrt(0.11)) - np.arcsin(np.sqrt(0.10)))
    control = NormalIndPower().solve_power(h, None, 0.05, 0.8, ratio=0.25)
    assert found["units"] == pytest.approx(control / 0.8, abs=1)
    assert planned(metric)["units"] == 29_489
    assert found["config"].horizon.units == found["units"]


def test_the_past_gives_baselines_and_the_covariates_gain() -> None:
    past = the_past()
    plain = planned({"name": "y", "relative_effect": 0.01}, past)["metrics"][0]
    assert plain["baseline"] == pytest.approx(past.y.mean(), rel=1e-12)
    assert plain["deviation"] == pytest.approx(past.y.std(), rel=1e-12)
    assert plain["effect"] == pytest.approx(0.01 * past.y.mean())
    less = planned({"name": "y", "relative_effect": 0.01, "covariate": "before"}, past)
    rho2 = np.corrcoef(past.y, past.before)[0, 1] ** 2
    assert less["metrics"][0]["variance_reduction"] == pytest.approx(rho2, rel=1e-9)
    assert less["units"] == pytest.approx(plain["units"] * (1 - rho2), abs=2)


def test_a_ratio_is_sized_by_its_logged_variance_of_units() -> None:
    past = the_past()
    metric = {"name": "ctr", "kind": "ratio", "column": "clicks", "denominator": "views",
              "effect": 0.01}
    found = planned(metric, past, unit="user")["metrics"][0]
    units = past.groupby("user")[["clicks", "views"]].sum()
    rate = units.clicks.sum() / units.views.sum()
    spread = ((units.clicks - rate * units.views) / units.views.mean()).std()
    assert found["baseline"] == pytest.approx(rate)
    assert found["deviation"] == pytest.approx(spread, rel=1e-9)


def test_several_metrics_and_arms_are_planned_at_a_part_of_alpha() -> None:
    metrics = [{"name": n, "baseline": 0.0, "deviation": 1.0, "kind": "mean", "effect": 0.1}
               for n in ("y", "z")]
    found = planned(metrics, arms={"a": 0.4, "b": 0.3, "c": 0.3})
    assert found["family"] == 4 and len(found["metrics"]) == 4
    assert {m["alpha"] for m in found["metrics"]} == {0.0125}
    none = planned(metrics, arms={"a": 0.4, "b": 0.3, "c": 0.3}, corrections={"primary": "none"})
    assert none["units"] < found["units"]


def test_guardrails_and_sequences_take_their_own_number_of_units() -> None:
    metric = {"name": "y", "baseline": 10.0, "deviation": 2.0, "kind": "mean", "effect": 0.2}
    guard = {"name": "g", "column": "y", "baseline": 10.0, "deviation": 2.0, "kind": "mean",
             "relative_margin": 0.01}
    fixed = planned(metric, guardrails=[guard])
    by_name = {m["metric"]: m for m in fixed["metrics"]}
    # (1 + 0.99^2) instead of 2, and half the effect.
    assert by_name["g"]["units"] == pytest.approx(
        by_name["y"]["units"] * 4 * (1 + 0.99**2) / 2, rel=1e-3)
    assert fixed["units"] == by_name["g"]["units"]
    always = planned(metric, look="sequential")
    (row,) = always["metrics"]
    assert row["fixed_units"] == by_name["y"]["units"] < row["units"]
    assert row["expected_units"] < row["units"]
    assert always["config"].tuning == row["fixed_units"]


def test_what_can_be_found_with_a_given_number_of_units() -> None:
    metric = {"name": "y", "baseline": 10.0, "deviation": 2.0, "kind": "mean", "effect": 0.2}
    units = planned(metric)["units"]
    (row,) = planned(metric, horizon={"units": units * 4})["metrics"]
    assert row["detectable"] == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize(("metric", "why"), [
    ({"name": "y", "effect": 0.1}, "variance is not known"),
    ({"name": "y", "baseline": 5.0, "deviation": 1.0}, "no effect is given"),
    ({"name": "y", "baseline": 0.0, "deviation": 1.0, "relative_effect": 0.1}, "baseline is 0"),
])
def test_what_is_not_known_is_told(metric: dict[str, Any], why: str) -> None:
    found = planned(metric)
    assert found["units"] is None and why in found["metrics"][0]["why"]


def test_a_share_past_one_and_a_plan_without_arms_are_refused() -> None:
    with pytest.raises(ConfigError, match="share has to lie between 0 and 1"):
        planned({"name": "p", "kind": "proportion", "baseline": 0.95, "effect": 0.1})
    with pytest.raises(ConfigError, match="names its arms"):
        planned({"name": "p", "baseline": 0.5, "effect": 0.1}, arms=None)
