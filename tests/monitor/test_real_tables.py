"""Real tables: known drift is found; estimates follow labels until they must not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import gpupipe
from gpupipe.config.monitor import MonitorConfig
from gpupipe.monitor import monitor


def trained(folder, table: pd.DataFrame, target: str, **data):
    table.to_parquet(folder / "train.parquet")
    return gpupipe.run({
        "data": {"source": str(folder / "train.parquet"), "target": target, **data},
        "model": {"kind": "xgboost", "n_estimators": 40, "max_depth": 4}, "explain": False,
        "split": {"folds": 3}, "evaluate": {"resamples": 10, "baselines": []},
    }, runs=folder / "runs").bundle


@pytest.fixture(scope="module")
def electricity(shared_data, tmp_path_factory):
    """Half-hours of the New South Wales market from 7 May 1996: the first fifth trained a model."""
    table = pd.read_csv(shared_data / "electricity" / "electricity.csv").iloc[:, 1:]
    table["time"] = (pd.Timestamp("1996-05-07")
                     + pd.to_timedelta(np.arange(len(table)) * 30, unit="min")).as_unit("us")
    first = len(table) // 5
    folder = tmp_path_factory.mktemp("electricity")
    bundle = trained(folder, table[:first], "class", drop=["time"], positive=1)
    return bundle, table[first:]


def test_the_drift_of_the_electricity_market_is_found_and_when(electricity):
    bundle, rest = electricity
    found = monitor(bundle, rest[:9000], time="time", window="28d")
    assert found.state == "alert" and found.code == 4
    states = {c.column: c.state for c in found.windows[-2].columns}
    assert states["nswprice"] == "alert"
    assert states["period"] == "ok"  # the half-hours of a day are what they were
    assert {w.start[:10] for w in found.windows} >= {"1996-12-30", "1997-01-27"}
    # The error rises, and the detectors say on which day.
    risen = [c for c in found.quality["changes"] if c["risen"]]
    assert risen and all("1996-11" <= c["at"] < "1997-06" for c in risen)
    assert found.quality["reliable"]["reliable"] is False
    assert {f["measure"] for f in found.findings if f["kind"] == "quality"} == {"roc_auc"}


def test_an_estimate_follows_the_labels_of_a_real_table_until_the_concept_drifts(
    shared_data, tmp_path
):
    table = pd.read_csv(shared_data / "credit-default" / "credit.csv")
    table = table.sample(frac=1, random_state=0)
    bundle = trained(tmp_path, table[:14_000], "Y", drop=["ID"], positive=1)
    rest = table[14_000:30_000].copy()
    rules = MonitorConfig(metrics=["roc_auc", "accuracy", "log_loss"], measures=["psi"])
    # The windows differ: the last half has the clients with high limits first.
    rest.iloc[8000:] = rest.iloc[8000:].sort_values("X1", ascending=False).to_numpy()
    calm = monitor(bundle, rest, window="2000rows", rules=rules).quality
    assert calm["reliable"]["reliable"] is True
    seen, told = (np.array([w[k]["log_loss"]["value"] for w in calm["windows"].values()])
                  for k in ("scores", "estimated"))
    assert np.corrcoef(seen, told)[0, 1] > 0.9
    assert np.abs(seen - told).max() < 0.04
    # From the fourth window on those who pay are those who did not: the inputs stay as they were.
    turned = rest.copy()
    turned.loc[turned.index[6000:], "Y"] = 1 - turned["Y"].iloc[6000:]
    planted = monitor(bundle, turned, window="2000rows", rules=rules).quality
    assert planted["reliable"]["reliable"] is False
    assert planted["windows"]["5"]["estimated"] == calm["windows"]["5"]["estimated"]
    rises = [c["row"] for c in planted["changes"] if c["by"] == "adwin" and c["risen"]]
    assert rises and 6000 <= rises[0] < 6300
