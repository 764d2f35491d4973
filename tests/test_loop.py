"""The whole loop as one script: train, serve, monitor, alert, retrain, experiment, promote."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpupipe.registry import Registry

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> tuple[str, Path]:
    """What the script printed, and its folder."""
    folder = tmp_path_factory.mktemp("loop")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "loop.py"), "--folder", str(folder),
         "--customers", "1000"], capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout, folder


def test_the_calm_days_are_ok_and_the_drift_is_an_alert_that_the_webhook_gets(told):
    out, folder = told
    calm, drift, labels = (re.search(rf"\n{n}\. .*?(?=\n\d\. |\Z)", out, re.DOTALL)[0]
                           for n in (2, 3, 4))
    assert calm.count(": ok") == 2 and "exit code 0" in calm
    assert drift.count(": alert") == 2 and "exit code 4" in drift
    assert "it answered 503 then 200" in drift and "'family'" in drift
    assert "critical: roc_auc is" in labels
    events = [json.loads(line) for line in (folder / "alerts.jsonl").read_text().splitlines()]
    assert {e["change"] for e in events} == {"fires"}
    assert {"column/plan", "quality/roc_auc"} <= {e["key"] for e in events}


def test_the_challenger_is_registered_tested_and_promoted_while_the_server_runs(told):
    out, folder = told
    registry = Registry(folder / "models")
    assert registry.aliases("churn") == {"champion": 2, "challenger": 2}
    moves = [(e.alias, e.before, e.version) for e in registry.history("churn")]
    assert moves == [("champion", None, 1), ("challenger", None, 2), ("champion", 1, 2)]
    assert registry.alias("churn", "challenger").gates["passed"]
    assert "again: done before" in out
    assert "better\n" in out
    assert "the server answered with version 1, and now with 2" in out
    for page in ("dashboard.html", "verdict.html"):
        assert (folder / page).stat().st_size > 10_000
