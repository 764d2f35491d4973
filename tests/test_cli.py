"""The command line as a user meets it: processes, exit codes, streams."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from gpupipe.cli.outcome import call, plain
from gpupipe.config import load_config
from gpupipe.data.demo import write_demo
from gpupipe.errors import ConfigError

pytestmark = pytest.mark.long

VERBS = (
    "init", "check", "plan", "run", "cross-validate", "predict", "evaluate", "show", "doctor",
    "demo", "schema", "parity", "compare",
)
GPUPIPE = (sys.executable, "-m", "gpupipe.cli")


def run(*arguments: str, cwd: Path | None = None, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*GPUPIPE, *arguments], capture_output=True, text=True, cwd=cwd, timeout=300, **more
    )


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]):
    """`run` without the second or two that a process takes to start."""
    def answered(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        with chdir(cwd):
            code = call(list(arguments))
        return subprocess.CompletedProcess(arguments, code, *capfd.readouterr())

    return answered


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo ran, once for all tests here."""
    folder = tmp_path_factory.mktemp("demo")
    done = run("demo", "shop", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "answer.json").write_text(done.stdout)
    return folder


def test_the_demo_trains_a_good_model_and_answers_with_one_object(demo):
    text = (demo / "answer.json").read_text()
    assert text.count("\n") == 1
    answer = json.loads(text)
    auc = answer["metrics"]["roc_auc"]
    assert 0.8 < auc["low"] < auc["value"] < auc["high"] < 0.95
    assert Path(demo / answer["run"]).is_dir() and Path(demo / answer["bundle"]).is_dir()
    assert (demo / "shop" / "runs" / "latest").exists()


def test_every_verb_of_the_path_works_on_the_demo_s_run(demo, here):
    shop = demo / "shop"
    checked = here("check", "pipeline.yaml", "--json", cwd=shop)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["ok"] is True
    planned = here("plan", "pipeline.yaml", "--json", cwd=shop)
    assert planned.returncode == 0, planned.stderr
    assert isinstance(json.loads(planned.stdout), dict)
    shown = here("show", cwd=shop)
    assert shown.returncode == 0, shown.stderr
    assert "roc_auc" in shown.stdout
    judged = here("evaluate", "runs/latest", "churn.csv", "--json", cwd=shop)
    assert judged.returncode == 0, judged.stderr
    assert json.loads(judged.stdout)["metrics"]["roc_auc"]["value"] > 0.8
    for output, called in (("scores.csv", run), ("scores.parquet", here)):
        scored = called("predict", "runs/latest", "churn.csv", "--output", output, cwd=shop)
        assert scored.returncode == 0, scored.stderr
        assert (shop / output).stat().st_size > 0
    assert len((shop / "scores.csv").read_text().splitlines()) == 4_013


def test_a_run_in_the_terminal_shows_metrics_report_and_what_comes_next(demo):
    (demo / "shop" / "quick.yaml").write_text(
        "data: {source: churn.csv, target: churned, drop: [customer_id]}\n"
        "split: {folds: 0}\nmodel: {params: {n_estimators: 10}}\n"
        "evaluate: {resamples: 50, baselines: []}\nexplain: {rows: 0}\n"
    )
    done = run("run", "quick.yaml", "--runs", "more", cwd=demo / "shop")
    assert done.returncode == 0, done.stderr
    for word in ("roc_auc", "interval", "report.html", "gpupipe predict"):
        assert word in done.stdout
    assert "\x1b[" not in done.stdout + done.stderr


def test_a_metric_that_is_none_is_told_at_its_place_before_anything_is_trained(demo, here):
    shop = demo / "shop"
    (shop / "metric.yaml").write_text(
        "data: {source: churn.csv, target: churned}\nevaluate: {metrics: [log_loss, auc]}\n"
    )
    for verb in ("check", "run"):
        done = here(verb, "metric.yaml", cwd=shop)
        assert done.returncode == 2
        assert "metric.yaml:2:32: unknown metric 'auc'" in done.stderr
        assert "did you mean 'roc_auc'?" in done.stderr


def test_new_data_may_hold_columns_that_no_model_could_use_but_not_lack_what_it_needs(demo, here):
    shop = demo / "shop"
    table = pyarrow.csv.read_csv(shop / "churn.csv").slice(0, 20)
    nested = pa.array([[1, 2]] * 20)
    pq.write_table(table.append_column("tags", nested), shop / "nested.parquet")
    done = here("predict", "runs/latest", "nested.parquet", "--output", "n.csv", cwd=shop)
    assert done.returncode == 0, done.stderr
    assert "20 rows scored to n.csv" in done.stdout
    pq.write_table(table.drop_columns(["churned"]), shop / "unlabelled.parquet")
    done = here("evaluate", "runs/latest", "unlabelled.parquet", cwd=shop)
    assert done.returncode == 3
    assert "unlabelled.parquet: there is no column 'churned' to judge by" in done.stderr


def test_a_run_s_name_typed_wrong_is_answered_with_the_right_one(demo, here):
    done = here("show", "runs/lastest", cwd=demo / "shop")
    assert done.returncode == 2
    assert "did you mean 'runs/latest'?" in done.stderr


def test_data_faults_exit_with_3_and_leave_nothing_half_written(demo, here, tmp_path):
    (tmp_path / "pipeline.yaml").write_text("data: {source: missing.csv, target: y}\n")
    missing = here("run", "--json", cwd=tmp_path)
    assert missing.returncode == 3
    error = json.loads(missing.stdout)["error"]
    assert (error["kind"], error["exit_code"]) == ("DataError", 3)
    assert not list(tmp_path.glob("runs/[!.]*"))
    (tmp_path / "text.csv").write_text("only,this\n1,2\n")
    shop = demo / "shop"
    scored = here("predict", "runs/latest", str(tmp_path / "text.csv"), "--output",
                 str(tmp_path / "out.csv"), cwd=shop)
    assert scored.returncode == 3
    assert "Traceback" not in scored.stderr
    assert not list(tmp_path.glob("*out.csv*"))


def test_every_verb_has_help_with_an_example(capfd):
    for verb in VERBS:
        assert call([verb, "--help"]) == 0
        text = capfd.readouterr().out
        assert f"Example: gpupipe {verb}" in " ".join(text.split())
        assert "--json" in text and "--debug" in text


@pytest.mark.parametrize(("arguments", "code", "message", "hint"), [
    (["rnu"], 2, "No such command 'rnu'", "run"),
    (["export", "runs/latest"], 2, "No such command 'export'", "did you mean 'models export'?"),
    (["run", "--jsn"], 2, "No such option", "--json"),
    (["predict"], 2, "Missing argument", "--help"),
    (["init", "nowhere.csv", "--target", "y", "--output", "p.yaml"], 3, "no such file", None),
    (["run", "nowhere.yaml"], 2, "no such pipeline file", "gpupipe init"),
    (["show", "nowhere"], 2, "no such run", "gpupipe run"),
    (["predict", "nowhere", "x.csv"], 2, "no such run", "gpupipe run"),
])
def test_a_fault_is_one_message_and_its_exit_code(
    capfd, tmp_path, monkeypatch, arguments, code, message, hint
):
    monkeypatch.chdir(tmp_path)
    assert call(arguments) == code
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("error: ") and message in err
    assert "Traceback" not in err
    if hint:
        assert "hint: " in err and hint in err.split("hint: ")[1]
    assert call([*arguments, "--json"]) == code
    out, err = capfd.readouterr()
    error = json.loads(out)["error"]
    assert err == "" and error["exit_code"] == code and message in error["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_fault_in_the_file_shows_the_line_and_a_caret(capfd, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("data:\n  source: [brackets].csv\n  taget: y\n")
    assert call(["run", str(path)]) == 2
    path.write_text("data:\n  source: '[b].csv'\n  taget: y\n")
    capfd.readouterr()
    assert call(["run", str(path)]) == 2
    err = capfd.readouterr().err
    assert f"{path}:3:3" in err and "3 |   taget: y\n  |   ^^^^^" in err
    assert "did you mean 'target'?" in err


def test_no_arguments_show_the_help_and_version_is_told(capfd):
    assert call([]) == 0
    text = capfd.readouterr().out
    assert all(f" {verb} " in text for verb in VERBS)
    assert call(["--version"]) == 0
    assert capfd.readouterr().out.startswith("gpupipe 0.")


def test_debug_shows_the_traceback_and_only_debug(capfd, monkeypatch):
    import gpupipe.doctor

    def broken() -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(gpupipe.doctor, "diagnose", broken)
    assert call(["doctor"]) == 1
    err = capfd.readouterr().err
    assert "internal error: ZeroDivisionError: boom" in err and "Traceback" not in err
    assert call(["doctor", "--debug", "--json"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["error"]["kind"] == "ZeroDivisionError"
    assert "Traceback" in err


def test_what_libraries_print_goes_to_stderr_with_json():
    script = (
        "import os, gpupipe.doctor as d\n"
        "diagnose = d.diagnose\n"
        "def noisy():\n"
        "    os.write(1, b'noise from C ')\n"
        "    print('noise from Python')\n"
        "    return diagnose()\n"
        "d.diagnose = noisy\n"
        "from gpupipe.cli import main\n"
        "main(['doctor', '--json'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert json.loads(done.stdout)["device"] in ("cpu", "cuda")
    assert "noise from C" in done.stderr and "noise from Python" in done.stderr


def test_doctor_names_what_is_here_and_how_to_mend_what_is_not(capfd):
    code = call(["doctor", "--json"])
    answer = json.loads(capfd.readouterr().out)
    assert code == (0 if answer["healthy"] else 5)
    found = {f["what"]: f for f in answer["findings"]}
    for what in ("Python", "Cores", "Memory", "pandas", "Dask", "Dashboard", "NVIDIA driver",
                 "CUDA devices", "RAPIDS"):
        assert what in found
    if answer["device"] == "cpu":
        lacking = [f for f in found.values() if f["state"] == "missing"]
        assert lacking and any("gpupipe[gpu-cu1" in (f["mend"] or "") for f in lacking)
    assert call(["doctor"]) == code
    told = capfd.readouterr().out
    assert f"auto means {answer['device']}" in told
    assert answer["gpu"]["usable"] or f"next    {answer['gpu']['mend']}" in told


@pytest.mark.parametrize(("version", "bounds", "fits"), [
    ("3.0.6", ">=3.0,<3.1", True), ("3.1.0", ">=3.0,<3.1", False), ("2.4.6", ">=2.0,<3", True),
    ("26.10.1", "==26.10.*", True), ("26.8.0", "==26.10.*", False), ("1.0", "", True),
    ("3.2.0rc1", ">=3.2", True), ("1.4.9", "~=1.4.2", True), ("1.5", "~=1.4.2", False),
])
def test_versions_are_held_against_bounds(version, bounds, fits):
    from gpupipe.doctor import within

    assert within(version, bounds) is fits


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m gpupipe.cli schema | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.strip().endswith("0")
    assert done.stderr == ""


def test_an_interrupt_exits_with_130_and_no_traceback():
    script = (
        "import gpupipe.doctor, time, sys\n"
        "gpupipe.doctor.diagnose = lambda: (print('ready', file=sys.stderr, flush=True), "
        "time.sleep(30))\n"
        "from gpupipe.cli import main\nmain(['doctor', '--json'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None and process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert json.loads(out)["error"]["exit_code"] == 130
    assert "Traceback" not in err


def test_help_is_fast_because_nothing_heavy_is_imported():
    code = (
        "import sys\nfrom gpupipe.cli.outcome import call\ncall(['--help'])\n"
        "heavy = {'numpy', 'pandas', 'pyarrow', 'sklearn', 'xgboost', 'pydantic', 'scipy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, so that other work on the machine does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.4


BARS = """
import time
from gpupipe.console import bars
with bars().stage("scan", total=14, unit="rows") as stage:
    for _ in range(14):
        time.sleep(0.1)
        stage.advance(1)
with bars().stage("blink", total=1, unit="rows") as stage:
    stage.advance(1)
"""


def in_terminal(**environment: str) -> str:
    """What `BARS` writes to a terminal on stderr."""
    ours, theirs = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", BARS], stderr=theirs, stdout=subprocess.DEVNULL,
        env={**env, "TERM": "xterm-256color", "COLUMNS": "120", **environment},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    process.wait(timeout=20)
    os.close(ours)
    return seen.decode()


def test_a_terminal_gets_bars_with_rate_and_time_for_what_takes_over_a_second():
    text = in_terminal()
    assert "scan" in text and "14/14 rows" in text and "/s" in text and "left" in text
    assert "blink" not in text
    assert "\x1b[38;5" in text or "\x1b[3" in text


def test_no_color_is_respected_and_dumb_terminals_get_no_bars():
    text = in_terminal(NO_COLOR="1")
    assert "scan" in text and "\x1b[38;5" not in text and "\x1b[3" not in text
    assert "scan" not in in_terminal(TERM="dumb")


def test_without_a_terminal_there_are_no_bars():
    done = subprocess.run([sys.executable, "-c", BARS], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""


def test_the_demo_is_written_whole_and_never_over_the_user_s_own(tmp_path):
    pipeline = write_demo(tmp_path / "d")
    assert load_config(pipeline).data.target == "churned"
    assert write_demo(tmp_path / "d") == pipeline
    pipeline.write_text("data: {source: churn.csv, target: age}\n")
    with pytest.raises(ConfigError, match="not the demo's"):
        write_demo(tmp_path / "d")
    assert "target: age" in pipeline.read_text()
    with pytest.raises(ConfigError, match="this is a file"):
        write_demo(pipeline)


def test_the_demo_table_is_what_its_script_makes(tmp_path):
    root = Path(__file__).parents[1]
    out = tmp_path / "churn.csv"
    subprocess.run([sys.executable, root / "scripts" / "make_demo.py", out], check=True)
    assert out.read_bytes() == (root / "gpupipe" / "data" / "demo" / "churn.csv").read_bytes()


def test_any_answer_becomes_strict_json():
    import numpy as np

    data = {"a": float("nan"), "b": np.float64("inf"), "c": Path("x"), 4: (1, {2}),
            "d": np.array([1, 2]), "e": np.bool_(True)}
    assert json.loads(json.dumps(plain(data), allow_nan=False)) == {
        "a": None, "b": None, "c": "x", "4": [1, [2]], "d": [1, 2], "e": True,
    }


def test_doctor_tells_a_driver_that_programs_cannot_reach_from_none_at_all(tmp_path, monkeypatch):
    from gpupipe import doctor
    from gpupipe.engine import devices, gpu

    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 580.65.06, 81559 MiB'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(devices, "libcuda", lambda: None)
    monkeypatch.setattr(gpu, "in_container", lambda: True)
    found = {f.what: f for f in doctor.diagnose().findings}
    assert "NVIDIA H100" in found["nvidia-smi"].detail
    assert "--gpus all" in (found["NVIDIA driver"].mend or "")
    assert found["CUDA devices"].state == "missing"
    tool.write_text("#!/bin/sh\nexit 9\n")
    monkeypatch.setattr(gpu, "nvidia_cards", lambda: 2)
    found = {f.what: f for f in doctor.diagnose().findings}
    if not Path("/proc/driver/nvidia/version").exists():
        assert "not found, but 2 NVIDIA cards" in found["NVIDIA driver"].detail
        assert f"{tool} fails" in found["nvidia-smi"].detail
        assert "on the host" in (found["NVIDIA driver"].mend or "")
