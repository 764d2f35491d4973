"""Where work runs is decided from the table, the machine and what was asked, and told."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from gpupipe.config import EngineConfig
from gpupipe.engine import choose as module
from gpupipe.engine import cluster
from gpupipe.engine.choose import (
    GPU_BATCH_ROWS,
    MANY_ROWS,
    SMALL_ROWS,
    THREADS,
    choose,
)
from gpupipe.engine.cluster import KEPT, cuda_options
from gpupipe.engine.devices import Device
from gpupipe.engine.gpu import Finding, Gpu
from gpupipe.engine.local import BATCH_ROWS
from gpupipe.engine.machine import cores
from gpupipe.engine.performance import by_stage, lines
from gpupipe.errors import ConfigError, EnvironmentFault

GIB = 1 << 30
CARDS = (Device("a card", 80 * GIB, (9, 0)), Device("a smaller card", 40 * GIB, (8, 0)))


@pytest.fixture
def machine(monkeypatch):
    """Gives the machine so many GPUs, and RAPIDS or not."""
    def give(count: int, rapids: bool = True) -> None:
        found = Finding("RAPIDS", "ok" if rapids else "missing", "as told",
                        None if rapids else "pip install it")
        monkeypatch.setattr(module, "cuda_devices", lambda: count)
        monkeypatch.setattr(module, "_gpu", lambda: Gpu(CARDS[:count], (found,)))

    return give


def test_without_a_gpu_it_is_this_process_with_all_cores(machine):
    machine(0)
    choice = choose(EngineConfig())
    assert (choice.device, choice.kind, choice.workers) == ("cpu", "local", cores())
    assert choice.batch_rows == BATCH_ROWS and "no CUDA device" in choice.why


@pytest.mark.parametrize(("rows", "device"), [
    (SMALL_ROWS - 1, "cpu"), (SMALL_ROWS, "cuda"), (None, "cuda"),
])
def test_a_gpu_is_taken_where_the_table_is_worth_it(machine, rows, device):
    machine(1)
    choice = choose(EngineConfig(), rows)
    assert (choice.device, choice.kind) == (device, "local")
    assert choice.batch_rows == (BATCH_ROWS if device == "cpu" else GPU_BATCH_ROWS)
    if device == "cuda":
        assert "a card" in choice.why and choice.limit == int(0.8 * 80 * GIB)
    else:
        assert "99,999 rows" in choice.why
    assert choose(EngineConfig(device="cuda"), rows).device == "cuda"
    assert choose(EngineConfig(device="cpu"), rows).device == "cpu"


@pytest.mark.parametrize(("rows", "kind"), [(MANY_ROWS - 1, "local"), (MANY_ROWS, "dask")])
def test_several_gpus_are_taken_where_the_table_is_large(machine, rows, kind):
    machine(2)
    choice = choose(EngineConfig(), rows)
    assert (choice.kind, choice.device) == (kind, "cuda")
    assert choice.limit == int(0.8 * 40 * GIB)  # the smaller one's
    assert choose(EngineConfig(kind="local"), rows).kind == "local"
    assert choose(EngineConfig(kind="dask", device="cuda"), 10).workers == 2


def test_more_workers_than_gpus_are_refused(machine):
    machine(2)
    with pytest.raises(EnvironmentFault, match="there are 2 GPUs"):
        choose(EngineConfig(kind="dask", workers=3, device="cuda"))


def test_a_gpu_that_cannot_be_used_is_told_and_refused_where_it_was_asked_for(machine):
    machine(1, rapids=False)
    choice = choose(EngineConfig())
    assert choice.device == "cpu" and "the GPU cannot be used: RAPIDS" in choice.why
    with pytest.raises(EnvironmentFault) as error:
        choose(EngineConfig(device="cuda"))
    assert "pip install it" in str(error.value.hint)


def test_a_cluster_of_processes_shares_the_machine(machine):
    machine(0)
    choice = choose(EngineConfig(kind="dask", workers=2, memory="8GiB"))
    assert (choice.workers, choice.threads) == (2, max(1, cores() // 2))
    assert choice.limit == 4 * GIB and choice.memory.workers == choice.threads
    assert choose(EngineConfig(kind="dask")).workers == max(1, cores() // THREADS)


def test_the_options_of_a_gpu_cluster_have_reasons():
    one, why_one = cuda_options(1)
    four, why_four = cuda_options(4)
    assert one["n_workers"] == 1 and four["n_workers"] == 4
    assert one["rmm_release_threshold"] == KEPT and one["enable_cudf_spill"] is True
    assert one["protocol"] == "tcp" and any("nobody to talk to" in w for w in why_one)
    assert any("one a GPU" in w for w in why_four)


def test_what_workers_did_is_added_up_by_stage():
    def task(worker: str, start: float, stop: float, action: str = "compute") -> dict:
        return {"worker": worker, "nbytes": 10, "key": "k",
                "startstops": [{"action": action, "start": start, "stop": stop}]}

    stages = [{"stage": "profile", "started": 100.0, "seconds": 4.0},
              {"stage": "report", "started": 104.5, "seconds": 1.0}]
    found = by_stage(stages, [task("a", 100, 103), task("b", 101, 102),
                              task("b", 102, 103, "transfer"), task("a", 99.0, 99.5)], 2, 1)
    assert [f["stage"] for f in found] == ["profile"]
    (profile,) = found
    assert (profile["tasks"], profile["workers"], profile["moved_bytes"]) == (3, 2, 30)
    assert (profile["working"], profile["moving data"], profile["busy"]) == (4.0, 1.0, 0.5)
    assert lines(found) == ["profile: 3 tasks on 2 workers, 50% busy; 4.0 s working, "
                            "1.0 s moving data"]


def test_a_local_engine_has_no_address(machine):
    machine(0)
    with pytest.raises(ConfigError, match="names a cluster"):
        choose(EngineConfig(kind="local", address="tcp://127.0.0.1:1"))


@pytest.mark.parametrize(("text", "starts"), [
    ("gpupipe.run(config)", False), ("if __name__ == '__main__':\n    run()", True),
])
def test_a_script_without_a_guard_is_told_and_does_not_hang(text, starts, tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(text)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__file__=str(script)))
    if starts:
        cluster._check_main()
        return
    with pytest.raises(EnvironmentFault, match="imported again") as error:
        cluster._check_main()
    assert "__main__" in str(error.value.hint) and error.value.where == str(script)
