"""Scripts: they do what they say, on a workstation, in a container and as a cluster."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import dask
import pytest
import yaml
from distributed import Client

from gpupipe.config import parse_config

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SHELL = sorted((ROOT / "scripts").glob("*.sh"))
each_shell_script = pytest.mark.parametrize("script", SHELL, ids=lambda p: p.name)
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


def run_script(name: str, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
    script = str(ROOT / "scripts" / name)
    command = [sys.executable, script] if name.endswith(".py") else ["bash", script]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})}
    return subprocess.run([*command, *options], env=environment, capture_output=True, text=True,
                          timeout=60, **more)


def test_every_script_of_the_user_says_what_it_does():
    names = [p.name for p in (ROOT / "scripts").iterdir() if p.suffix in (".py", ".sh")]
    for name in set(names) - {"make_demo.py"}:  # that one is for the package's own table
        said = run_script(name, "--help")
        assert said.returncode == 0, said.stderr
        assert said.stdout.lower().startswith("usage:")
        assert name in said.stdout


@each_shell_script
def test_a_shell_script_parses_and_stops_at_faults(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert "set -euo pipefail" in script.read_text()
    assert os.access(script, os.X_OK)


@pytest.mark.skipif(not shutil.which("shellcheck", path=TOOLS), reason="it is not installed")
@each_shell_script
def test_shellcheck_finds_nothing(script):
    subprocess.run(["shellcheck", script], check=True, env={**os.environ, "PATH": TOOLS})


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    file = tmp_path / "my data" / "pipeline.yaml"
    file.parent.mkdir()
    file.write_text("data: {source: t.csv, target: y}\n")
    return file


def only(folder: Path, **programs: str) -> dict[str, str]:
    """A PATH with the system's usual tools, and these programs beside them."""
    folder.mkdir()
    for tool in ("bash", "basename", "cat", "dirname", "grep", "id", "sed"):
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    for name, text in programs.items():
        program = folder / name
        program.write_text(f"#!/usr/bin/env bash\n{text}\n")
        program.chmod(0o755)
    return {"PATH": str(folder)}


ENGINE = """
printf '%s\\n' "$*" >> "$LOG"
case "$1 $2" in
    "image inspect") exit 1 ;;
    "info --format") echo '{"nvidia":{},"runc":{}}' ;;
esac
"""
SMI = "echo '| NVIDIA-SMI 570.1   Driver Version: 570.1   CUDA Version: 12.8 |'"


def test_a_pipeline_runs_in_the_cpu_image_as_the_caller(tmp_path, pipeline):
    log, data = tmp_path / "log", tmp_path / "data"
    data.mkdir()
    path = only(tmp_path / "bin", docker=ENGINE)
    done = run_script("run_container.sh", "--data", str(data), str(pipeline), "--json",
                      env={**path, "LOG": str(log)})
    assert done.returncode == 0, done.stderr
    assert "device: cpu" in done.stderr
    *_, build, run = log.read_text().splitlines()
    image = f"gpupipe:{VERSION}-cpu"
    assert build == f"build --tag {image} --file {DOCKER / 'Dockerfile.cpu'} {ROOT}"
    folder = pipeline.parent
    assert run == (
        f"run --rm --volume {data}:{data}:ro --user {os.getuid()}:{os.getgid()} --env HOME=/tmp "
        f"--volume {folder}:{folder} --workdir {folder} {image} run pipeline.yaml --json"
    )


@pytest.mark.parametrize(("chosen", "cuda"), [({}, "12"), ({"CUDA": "13"}, "13")])
def test_a_pipeline_runs_in_the_image_for_the_drivers_cuda(tmp_path, pipeline, chosen, cuda):
    path = only(tmp_path / "bin", **{"docker": ENGINE, "nvidia-smi": SMI})
    done = run_script("run_container.sh", str(pipeline),
                      env={**path, **chosen, "LOG": str(tmp_path / "log")})
    assert done.returncode == 0, done.stderr
    assert f"device: cuda (CUDA {cuda})" in done.stderr
    *_, build, run = (tmp_path / "log").read_text().splitlines()
    assert f"--file {DOCKER / 'Dockerfile'} --build-arg CUDA={cuda}" in build
    assert "--gpus all --group-add conda" in run


def test_a_gpu_that_the_engine_cannot_reach_is_told(tmp_path, pipeline):
    engine = ENGINE.replace('"nvidia":{},', "")
    path = only(tmp_path / "bin", **{"docker": engine, "nvidia-smi": SMI})
    done = run_script("run_container.sh", str(pipeline),
                      env={**path, "LOG": str(tmp_path / "log")})
    assert done.returncode == 0, done.stderr
    assert "NVIDIA Container Toolkit" in done.stderr
    assert "--gpus" not in (tmp_path / "log").read_text()


def test_without_a_container_engine_the_error_names_the_fix(tmp_path, pipeline):
    done = run_script("run_container.sh", str(pipeline), env=only(tmp_path / "bin"))
    assert done.returncode == 5
    assert "neither docker nor podman" in done.stderr
    assert "scripts/run_workstation.sh" in done.stderr
    silent = only(tmp_path / "silent", docker="exit 1")
    done = run_script("run_container.sh", str(pipeline), env=silent)
    assert done.returncode == 5
    assert "does not answer" in done.stderr


def test_a_pipeline_file_that_is_not_there_is_a_fault_of_usage(tmp_path):
    done = run_script("run_container.sh", str(tmp_path / "none.yaml"))
    assert (done.returncode, "none.yaml" in done.stderr) == (2, True)


def test_a_workstation_looks_plans_and_runs(tmp_path, pipeline):
    path = only(tmp_path / "bin", gpupipe='echo "$@"')
    done = run_script("run_workstation.sh", str(pipeline), "--runs", "r", "--json", env=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"run {pipeline} --runs r --json\n"
    said = [x for x in done.stderr.splitlines() if x and not x.startswith("==")]
    assert said == ["doctor", f"plan {pipeline} --runs r"]
    assert "No GPU answers" in done.stderr
    broken = only(tmp_path / "broken", gpupipe='[ "$1" != doctor ] || exit 5')
    assert run_script("run_workstation.sh", str(pipeline), env=broken).returncode == 5


def test_a_benchmark_gets_its_options_and_a_place_for_its_results(tmp_path):
    benchmark = load("scripts/benchmark.py")
    for name in benchmark.NAMES:
        assert benchmark.script(name).is_file()
        assert benchmark.about(name).split(maxsplit=1)[1:]
    out, options = benchmark.results("five_fold", ["--runs", "1"])
    assert out.parent == Path("runs", "benchmarks")
    assert options == ["--out", str(out), "--runs", "1"]
    assert benchmark.results("five_fold", ["--out=a.json"]) == (Path("a.json"), ["--out=a.json"])
    done = run_script("benchmark.py", "five_fold", "--only", "nobody", cwd=tmp_path)
    assert done.returncode == 2
    assert "five_fold.py: error" in done.stderr
    assert "results" not in done.stdout


# Clusters ------------------------------------------------------------------------------------


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def started(*options: str, stop: signal.Signals, until: str) -> Iterator[dict[str, str]]:
    """What `start_cluster.py` prints up to a line. At the end it is sent ``stop``, as a terminal
    does, to all its processes at once, and must end well, soon and without a traceback."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "start_cluster.py"), "--device", "cpu", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    watch = threading.Timer(30, process.kill)
    watch.start()
    try:
        assert process.stdout
        said: dict[str, str] = {}
        for line in process.stdout:
            name, _, rest = line.strip().partition(" ")
            said[name] = rest.strip()
            if name == until:
                break
        yield said
        began = time.monotonic()
        if stop == signal.SIGINT:
            os.killpg(process.pid, stop)
        else:
            process.send_signal(stop)
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert time.monotonic() - began < 15
        assert "Traceback" not in errors
    finally:
        watch.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_cluster_of_this_machine_works_and_ends_with_its_workers(stop):
    with started("--workers", "1", "--memory", "1GiB", stop=stop, until="Ctrl-C") as said:
        assert said["dashboard"].startswith("http://127.0.0.1:")
        assert "1.0 GiB" in said["workers"]
        engine = yaml.safe_load(said["pipeline"])["engine"]
        config = parse_config({"data": {"source": "t.csv", "target": "y"}, "engine": engine})
        assert (config.engine.kind, config.engine.address) == ("dask", said["address"])
        with Client(said["address"], set_as_default=False) as client:
            assert client.submit(sum, [1, 2]).result() == 3
            workers = client.run(os.getpid)
            assert len(workers) == 1
    for pid in workers.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_scheduler_and_workers_that_join_it(monkeypatch, capsys):
    health = load("docker/health.py")
    with started("--scheduler", "--port", "0", "--dashboard-port", "0", stop=signal.SIGTERM,
                 until="Ctrl-C") as scheduler:
        address = scheduler["address"]
        host, port = re.fullmatch(  # type: ignore[union-attr]
            r"http://(.+):(\d+)/status", scheduler["dashboard"]).groups()
        monkeypatch.setattr(health, "PORT", int(port))
        assert health.main("scheduler") == 0
        assert health.main("worker", host) == 1
        with started("--worker", address, "--workers", "1", stop=signal.SIGINT,
                     until="workers") as worker, Client(address, set_as_default=False) as client:
            assert worker["joins"] == address
            client.wait_for_workers(1, timeout=30)
            assert client.submit(sum, [1, 2]).result() == 3
            assert health.main("worker", host) == 0
            # Dask's commands run under the engine's settings.
            key = "distributed.scheduler.work-stealing"
            assert client.run_on_scheduler(dask.config.get, key) is False
            (profiled,) = client.run(dask.config.get, "distributed.worker.profile.enabled").values()
            assert profiled is False
    assert health.main("scheduler") == 1
    assert "no scheduler answers" in capsys.readouterr().out


@pytest.mark.parametrize(("options", "code", "said"), [
    (["--device", "cuda"], 5, "gpupipe doctor"),
    (["--workers", "0"], 2, "whole number"),
    (["--memory", "3x"], 2, "2GiB"),
    (["--scheduler", "--worker", "tcp://a:1"], 2, "not allowed"),
])
def test_what_a_cluster_cannot_be_is_told(options, code, said, monkeypatch, capsys):
    script = load("scripts/start_cluster.py")
    monkeypatch.setattr(script, "cuda_devices", lambda: 0)
    monkeypatch.setattr(sys, "argv", ["start_cluster.py", *options])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        script.main()
    signal.signal(signal.SIGTERM, handler)
    assert ended.value.code == code
    assert said in capsys.readouterr().err


@pytest.mark.skipif(not importlib.util.find_spec("dask_cuda"), reason="dask-cuda is not installed")
def test_the_flags_of_gpu_workers_are_those_of_dask_cuda():
    from dask_cuda.cli import worker

    known = {o for parameter in worker.params for o in parameter.opts}
    flags = load("scripts/start_cluster.py").cuda_flags(2)
    assert {"--rmm-async", "--enable-cudf-spill"} <= set(flags) <= known
    assert {"--death-timeout", "--preload", "--host"} <= known
