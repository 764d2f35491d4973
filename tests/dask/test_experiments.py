"""An experiment's sums made by the workers of a cluster are those made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gpupipe.config import EngineConfig
from gpupipe.engine.cluster import Cluster
from gpupipe.experiment.config import configured
from gpupipe.experiment.gather import gather


@pytest.mark.parametrize("unit", ["user", None])
def test_workers_give_the_same_sums(cluster: Cluster, tmp_path: Path, unit: str | None) -> None:
    table = pd.DataFrame({
        "user": np.arange(3_000) % 1_000, "arm": np.where(np.arange(3_000) % 2, "a", "b"),
        "y": np.random.default_rng(0).normal(size=3_000), "plan": ["x", "y", "z"] * 1_000})
    for i in range(6):
        table.iloc[i * 500 : (i + 1) * 500].to_parquet(tmp_path / f"{i}.parquet")
    config = configured({"name": "x", "arm": "arm", "unit": unit, "primary": "y",
                         "slices": ["plan"]})
    address = cluster.client.scheduler_info()["address"]
    here = gather(config, str(tmp_path))
    there = gather(config, str(tmp_path), engine=EngineConfig(kind="dask", address=address))
    assert there.tally == here.tally and there.levels == here.levels
