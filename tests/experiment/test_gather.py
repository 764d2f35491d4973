"""What comes in: prediction logs, outcomes in another table, crossovers, gaps, several arms."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpupipe.errors import ConfigError, DataError
from gpupipe.experiment.analyse import analyse
from gpupipe.experiment.config import configured
from gpupipe.experiment.gather import Gathered, gather
from gpupipe.experiment.workflow import analyse as run_analysis
from gpupipe.serve.predictions import SCHEMA


def gathered(table: Any, primary: Any = "y", **more: Any) -> Gathered:
    options = {k: more.pop(k) for k in ("outcomes", "on", "engine") if k in more}
    return gather(configured({"name": "x", "arm": "arm", "primary": primary, **more}), table,
                  **options)


def table_of(n: int = 400, seed: int = 0, **columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame({"user": [f"u{i}" for i in range(n)], "arm": ["a", "b"] * (n // 2),
                         "y": rng.normal(5, 1, n)}).assign(**columns)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A server's prediction log: several requests a user, shadow predictions, two days."""
    folder = tmp_path / "log"
    for day in (1, 2):
        n = 900
        user = np.arange(n) % 300
        place = folder / f"date=2026-11-0{day}"
        place.mkdir(parents=True)
        pq.write_table(pa.table({
            "prediction_id": [f"p{day}-{i}" for i in range(n)],
            "request_id": [f"r{day}-{i}" for i in range(n)],
            "unit_id": [None if i % 100 == 99 else f"u{u}" for i, u in enumerate(user)],
            "time": pa.array([dt.datetime(2026, 11, day, 12, 0, i % 60, tzinfo=dt.UTC)
                              for i in range(n)], pa.timestamp("us", tz="UTC")),
            "model": ["m"] * n, "version": ["1"] * n,
            "variant": np.where(user % 2, "challenger", "champion"),
            "shadow": [i >= 600 for i in range(n)],
            "score": (user % 7) / 10 + day / 100,
            "probabilities": pa.nulls(n, pa.list_(pa.float64())), "prediction": ["yes"] * n,
        }, schema=SCHEMA), place / "part-0.parquet")
    return folder


def test_a_servers_log_is_read_by_its_own_columns(log: Path) -> None:
    found = gather(configured({"name": "x", "primary": {"name": "score", "aggregate": "mean"}}),
                   str(log))
    assert found.config.unit == "unit_id" and found.arms == ("champion", "challenger")
    assert found.rows["rows"] == 1_800
    assert found.rows["elsewhere"] == 600  # shadow predictions
    assert found.rows["no unit"] == 12
    assert sum(found.tally.units.values()) == 297
    # Each user's mean over the requests of both days.
    frame = pq.read_table(log).to_pandas()
    frame = frame[~frame.shadow & frame.unit_id.notna()]
    means = frame.groupby("unit_id").agg(arm=("variant", "first"), score=("score", "mean"))
    for arm in found.arms:
        sums = found.tally.cells["score", "", "", arm]
        assert float(sums.first[0]) / sums.n == pytest.approx(means[means.arm == arm].score.mean())


def test_outcomes_are_joined_by_the_unit_or_by_the_prediction(log: Path, tmp_path: Path) -> None:
    by_user = tmp_path / "orders.parquet"
    pd.DataFrame({"unit_id": [f"u{i}" for i in range(0, 300, 3)] * 2,
                  "spent": 10.0}).to_parquet(by_user)
    spent = {"name": "spent", "missing": "zero", "kind": "mean"}
    found = gather(configured({"name": "x", "primary": spent}), str(log), outcomes=str(by_user))
    spent_in = {a: found.tally.cells["spent", "", "", a] for a in found.arms}
    # 50 of each bought twice for 10; u99, u199 and u299 never had an id.
    assert {a: (s.n, int(s.first[0])) for a, s in spent_in.items()} == {
        "champion": (150, 1_000), "challenger": (147, 980)}
    by_row = tmp_path / "labels.parquet"
    pd.DataFrame({"prediction_id": [f"p1-{i}" for i in range(300)],
                  "churned": [i % 4 == 0 for i in range(300)]}).to_parquet(by_row)
    found = gather(configured({"name": "x", "primary": "churned"}), str(log),
                   outcomes=str(by_row), on="prediction_id")
    assert found.config.primary[0].kind == "proportion"
    hits = {a: int(found.tally.cells["churned", "", "", a].first[0]) for a in found.arms}
    units = [i for i in range(300) if i % 100 != 99 and i % 4 == 0]
    assert hits == {"champion": len(units), "challenger": 0}
    assert not found.tally.missing


def test_the_models_own_score_of_the_time_before_is_a_covariate(
    log: Path, tmp_path: Path
) -> None:
    before = tmp_path / "before"
    before.mkdir()
    table = pq.read_table(log, partitioning=None)
    # What the score goes by, but for the day, and a little noise.
    old = (np.arange(table.num_rows) % 300 % 7) / 10
    old = old + np.random.default_rng(0).normal(0, 0.02, len(old))
    table = table.set_column(table.schema.get_field_index("score"), "score", pa.array(old))
    pq.write_table(table, before / "part-0.parquet")
    metric = {"name": "score", "aggregate": "mean", "kind": "mean", "covariate": "score"}
    config = configured({"name": "x", "primary": metric})
    found = analyse(gather(config, str(log), before=str(before)))
    (made,) = found["metrics"]
    assert made["covariate"] == "before:score"
    assert made["effects"][0]["cuped"]["variance_reduction"] > 0.99
    with pytest.raises(ConfigError, match="no metric has a covariate"):
        gather(configured({"name": "x", "primary": "score"}), str(log), before=str(before))
    with pytest.raises(ConfigError, match="no column 'scoer'"):
        gather(configured({"name": "x", "primary": {"name": "score", "covariate": "scoer"}}),
               str(log), before=str(before))


def test_the_files_of_a_log_may_have_features_of_their_own(log: Path) -> None:
    (first, second) = sorted(log.rglob("*.parquet"))
    for file, feature in ((first, "feature:age"), (second, "feature:city")):
        table = pq.read_table(file, partitioning=None)
        table = table.append_column(feature, pa.array(["x"] * table.num_rows))
        pq.write_table(table.append_column("feature:plan", pa.array(["p"] * table.num_rows)), file)
    score = {"name": "score", "aggregate": "mean"}
    found = gather(configured({"name": "x", "primary": score, "slices": ["feature:plan"]}),
                   str(log))
    assert found.rows["rows"] == 1_800 and found.levels == {"feature:plan": ("p",)}
    with pytest.raises(DataError, match="'feature:age' is not the string"):
        gather(configured({"name": "x", "primary": score, "slices": ["feature:age"]}), str(log))


def test_different_outcomes_of_one_prediction_are_told(log: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.parquet"
    pd.DataFrame({"prediction_id": ["p1-0", "p1-0", "p1-1", "p1-1"],
                  "churned": [1, 0, 1, 1]}).to_parquet(labels)
    found = gather(configured({"name": "x", "primary": "churned"}), str(log),
                   outcomes=str(labels), on="prediction_id")
    assert any("2 values of 'prediction_id' have several outcomes, 1 of them different" in n
               for n in found.notes)
    with pytest.raises(ConfigError, match="both tables have a column 'score'"):
        gather(configured({"name": "x", "primary": "score"}), str(log), on="prediction_id",
               outcomes=pa.table({"prediction_id": ["p1-0"], "score": [1.0]}))


def test_units_in_several_arms_are_left_out_and_told() -> None:
    table = pd.concat([table_of(), pd.DataFrame({"user": ["u0", "u1"], "arm": ["b", "b"],
                                                 "y": [9.0, 9.0]})])
    found = gathered(table, unit="user")
    assert found.crossovers == 1 and found.examples == ("u0",)
    assert found.tally.units == {"a": 199, "b": 200}
    assert found.several_rows == 1 and any("several rows" in n for n in found.notes)
    assert any("1 units (0.25%) were seen in several arms" in r for r in analyse(found)["remarks"])


def test_rows_of_no_arm_or_of_another_are_counted() -> None:
    table = table_of()
    table.loc[:9, "arm"] = None
    table.loc[10:14, "arm"] = "c"
    found = gathered(table, arms={"a": 0.5, "b": 0.5}, unit="user")
    assert found.rows["no arm"] == 10 and found.rows["other arm"] == 5
    assert sum(found.tally.units.values()) == 385
    assert gathered(table).arms == ("a", "b", "c")


def test_where_and_slices_take_the_levels_as_they_are_written() -> None:
    table = table_of(live=[True, True, False, False] * 100, size=[1, 2, 3, 4] * 100)
    found = gathered(table, where={"live": True}, slices=["size"], unit="user")
    assert found.rows["elsewhere"] == 200 and found.levels == {"size": ("1", "2")}
    mixed = pd.concat([table_of(plan="x"), table_of(plan="y").iloc[:10]])
    assert gathered(mixed, slices=["plan"], unit="user").levels["plan"] == ("x", "(several)")
    gaps = table_of(plan=["x", None, None, "x"] * 100)
    for unit in ("user", None):
        more = {} if unit is None else {"unit": unit}
        assert set(gathered(gaps, slices=["plan"], **more).levels["plan"]) == {"x", "(missing)"}


def test_missing_values_are_left_out_or_zero_and_unequal_gaps_are_told() -> None:
    table = table_of(4_000)
    table.loc[(table.arm == "b") & (table.index % 10 < 5), "y"] = np.nan
    found = gathered(table)
    assert found.tally.cells["y", "", "", "b"].n < 2_000
    assert found.tally.missing == {("y", "b"): 2_000 - found.tally.cells["y", "", "", "b"].n}
    assert any("missing for unequal shares" in r for r in analyse(found)["remarks"])
    zero = gathered(table, {"name": "y", "missing": "zero"})
    assert zero.tally.cells["y", "", "", "b"].n == 2_000 and not zero.tally.missing


@pytest.mark.parametrize(("table", "metric", "why"), [
    (table_of(20), "y", "10 units in a, and it takes 30"),
    (table_of(400, z=7.5), "z", "the same for all units"),
    (table_of(400, z=0), "z", "0 of 200 units in a"),
    (table_of(400, z=np.nan), "z", "no value"),
    (table_of(400, z=[np.nan, 1.5] * 200), "z", "no value"),
    (table_of(400, z=np.inf), "z", "no value"),
])
def test_too_little_is_insufficient_data_and_never_a_nan(
    table: pd.DataFrame, metric: str, why: str
) -> None:
    found = analyse(gathered(table, metric))
    (effect,) = found["metrics"][0]["effects"]
    assert effect["state"] == "insufficient data" and why in effect["why"]
    assert found["verdicts"]["b"]["state"] == "insufficient data"
    from gpupipe.experiment.page import render

    html = render(found)
    assert "Not enough data" in html and "nan" not in html.lower().replace("nant", "")


def test_a_control_of_about_zero_has_no_relative_effect() -> None:
    rng = np.random.default_rng(0)
    found = analyse(gathered(table_of(400, y=rng.normal(0, 1, 400))))
    (effect,) = found["metrics"][0]["effects"]
    assert effect["relative"] is None and effect["difference"]["value"] != 0


def test_a_rise_of_a_negative_control_is_positive() -> None:
    rng = np.random.default_rng(0)
    table = table_of(2_000)
    table["y"] = rng.normal(-10, 1, 2_000) + 2 * (table.arm == "b")
    (effect,) = analyse(gathered(table))["metrics"][0]["effects"]
    assert effect["state"] == "better"
    for key in ("relative", "fieller"):
        found = effect[key]
        assert 0.18 < found["low"] < found["value"] < found["high"] < 0.22


def test_three_arms_are_each_held_against_the_control_and_corrected_together() -> None:
    rng = np.random.default_rng(4)
    arm = np.array(["old", "x", "y"])[np.arange(6_000) % 3]
    table = pd.DataFrame({"arm": arm, "y": rng.normal(5, 1, 6_000) + 0.1 * (arm == "x")})
    found = analyse(gathered(table, control="old"))
    (metric,) = found["metrics"]
    ps = {e["arm"]: e["p"] for e in metric["effects"]}
    corrected = {e["arm"]: e["p_corrected"] for e in metric["effects"]}
    assert corrected["x"] == pytest.approx(2 * ps["x"]) and corrected["y"] == ps["y"]
    assert found["verdicts"]["x"]["state"] == "better"
    assert found["verdicts"]["y"]["state"] == "no difference shown"


def test_guardrails_hold_are_broken_or_stay_open() -> None:
    rng = np.random.default_rng(9)
    table = table_of(8_000)
    lower = np.where(table.arm == "b", 0.9, 1.0)
    table = table.assign(same=rng.normal(10, 1, 8_000), drop=rng.normal(10, 1, 8_000) * lower,
                         wild=rng.normal(10, 30, 8_000), slow=rng.normal(10, 1, 8_000) / lower)
    guards = [{"name": n, "relative_margin": 0.05} for n in ("same", "drop", "wild")]
    guards += [{"name": "slow", "margin": 0.2, "better": "lower"}]
    found = analyse(gathered(table, guardrails=guards))
    states = {m["name"]: m["effects"][0]["non_inferiority"]["state"]
              for m in found["metrics"][1:]}
    assert states == {"same": "holds", "drop": "broken", "wild": "not shown", "slow": "broken"}
    assert found["verdicts"]["b"]["state"] == "guardrail broken"


def test_a_non_inferiority_test_is_statsmodels() -> None:
    from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

    table = table_of(600, seed=3)
    found = analyse(gathered(table, guardrails=[{"name": "g", "column": "y", "margin": 0.1}]))
    guard = found["metrics"][1]["effects"][0]["non_inferiority"]
    new, old = (DescrStatsW(table.y[table.arm == a]) for a in ("b", "a"))
    _, p, _ = CompareMeans(new, old).ttest_ind("larger", usevar="unequal", value=-0.1)
    assert guard["p"] == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize(("table", "options", "error", "says"), [
    (table_of(), {"arms": {"a": 0.5, "z": 0.5}}, DataError, "no row is in arm 'z'"),
    (table_of(arm="a"), {}, DataError, "only a"),
    (table_of(), {"slices": ["user"]}, DataError, "too many for arms or slices"),
    (table_of(), {"unit": "usr"}, ConfigError, "no column 'usr'"),
    (table_of(), {"primary": {"name": "y", "kind": "proportion"}}, DataError, "neither 0 nor 1"),
    (table_of().iloc[:0], {}, DataError, "rows"),
    (table_of(), {"where": {"arm": "q"}, "unit": "user"}, DataError, "2 arms|two arms|none"),
])
def test_what_cannot_be_an_experiment_is_refused(
    table: pd.DataFrame, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        gathered(table, **options)


def test_a_sequence_leaves_out_less_than_a_single_look() -> None:
    found = run_analysis(table_of(4_000), given={"arm": "arm", "metrics": ["y"],
                                                 "sequential": True})
    (effect,) = found["metrics"][0]["effects"]
    width = effect["difference"]["high"] - effect["difference"]["low"]
    assert width > effect["fixed"]["high"] - effect["fixed"]["low"]
    assert effect["p"] > effect["fixed"]["p"] and found["tuning"] == 5_000
