"""The proof with a GPU: what it says without one, and that it works, by rehearsal and stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gpupipe
from gpupipe.engine.gpu import look

ROOT = Path(gpupipe.__file__).parents[1]
STAND_INS = {
    "cudf.py": "from pandas import *\n",
    "cupy.py": "from types import SimpleNamespace\n"
               "from numpy import *\n"
               "asnumpy = asarray\n"
               "cuda = SimpleNamespace(runtime=SimpleNamespace(\n"
               "    deviceSynchronize=lambda: None, getDeviceCount=lambda: 1))\n",
}
"""pandas and NumPy under the names of what they stand for."""


minute = pytest.mark.skipif(not os.environ.get("GPUPIPE_SLOW"),
                            reason="a minute: set GPUPIPE_SLOW=1")


def check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "gpu_check.py", "--out", folder, "--tables", folder,
         *arguments], capture_output=True, text=True, timeout=300,
    )


@pytest.mark.skipif(look().usable, reason="there is a GPU here")
def test_without_a_gpu_it_ends_at_once_with_5_and_the_doctor_s_words(tmp_path):
    done = check(tmp_path / "out")
    assert done.returncode == 5, done.stderr
    for word in ("NVIDIA driver", "RAPIDS", "next    ", "auto means cpu"):
        assert word in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@minute
def test_a_rehearsal_goes_through_all_of_it(tmp_path):
    done = check(tmp_path, "--rehearse", "--rows", "20_000", "--trees", "4", "--budget", "250")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert found["passed"] and found["rehearsal"]
    assert [p["name"] for p in found["parity"]] == ["breast_cancer", "wine", "diabetes"]
    assert [p["name"] for p in found["benchmark"]] == ["table", "gpu", "gpu", "cpu"]
    runs = found["benchmark"][1:]
    assert len({r["facts"]["auc"] for r in runs}) == 1  # the same engine three times
    assert all(0 < r["facts"]["preprocessing_s"] < r["facts"]["wall_s"] for r in runs)
    assert {p["name"] for p in found["ratios"]} == {
        "preprocessing, cpu / gpu", "end to end, cpu / gpu", "AUC"}
    page = (tmp_path / "gpu_check.html").read_text()
    assert "rehearsal" in page and "did not pass" not in page
    assert (tmp_path / "parity" / "wine" / "certificate.html").exists()


def test_what_the_budget_has_no_time_for_does_not_pass_and_the_rest_is_written(tmp_path):
    done = check(tmp_path, "--rehearse", "--rows", "1_000", "--budget", "0.5")
    assert done.returncode == 4, done.stderr
    found = json.loads((tmp_path / "gpu_check.json").read_text())
    assert not found["passed"]
    assert {p["found"] for p in found["parity"]} == {"there was no time left for it"}
    assert "did not pass" in (tmp_path / "gpu_check.html").read_text()


@pytest.mark.slow
@minute
def test_the_cudf_rival_learns_what_the_polars_one_learns(tmp_path):
    """On stand-ins: the calls that it makes of cuDF and CuPy, pandas and NumPy have as well."""
    table = tmp_path / "t.parquet"
    subprocess.run([sys.executable, ROOT / "scripts" / "make_data.py", "--rows", "60_000", "--out",
                    table], check=True, capture_output=True)
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(text)
    rivals = {}
    for name in ("cudf", "polars"):
        done = subprocess.run(
            [sys.executable, ROOT / "benchmarks" / "rivals" / f"{name}_xgboost.py", table],
            capture_output=True, text=True, timeout=200, env={"PYTHONPATH": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        rivals[name] = json.loads(done.stdout.splitlines()[-1])
    # The same rows and features; their numbers differ in the last bits, and so a tree may.
    assert rivals["cudf"]["auc"] == pytest.approx(rivals["polars"]["auc"], abs=2e-3)
    assert set(rivals["cudf"]["seconds"]) >= {"read", "numeric", "target_encode", "matrix", "train"}
