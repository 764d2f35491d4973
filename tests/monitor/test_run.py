"""Monitoring from a bundle and data to a verdict: states, windows, history, exit codes."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from common.watched import log_of, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpupipe
from gpupipe.cli.outcome import call
from gpupipe.config import load_config, parse_config
from gpupipe.config.monitor import MonitorConfig
from gpupipe.errors import ConfigError, DataError
from gpupipe.monitor import monitor
from gpupipe.monitor.judge import Judge
from gpupipe.monitor.pictures import picture
from gpupipe.monitor.reference import PREDICTION, reference_of


def states(verdict, slice_=None, window=-1):
    return {c.column: c.state for c in verdict.windows[window].columns if c.slice == slice_}


def test_data_of_the_same_law_is_ok_and_predictions_are_made_where_they_are_not_logged(bundle):
    found = monitor(bundle, table(3000, 1), window="all")
    assert states(found) == dict.fromkeys(["x", "z", "s", "k", PREDICTION], "ok")
    assert (found.state, found.firing, found.code) == ("ok", False, 0)
    assert found.findings == []


def test_a_shift_is_an_alert_of_that_column_and_of_the_predictions(bundle):
    found = monitor(bundle, table(3000, 1, shift=0.5), window="all")
    assert states(found) == {"x": "alert", "z": "ok", "s": "ok", "k": "ok", PREDICTION: "alert"}
    assert found.code == 4
    assert {f["column"] for f in found.findings} == {"x", PREDICTION}


def test_no_data_is_never_ok(bundle):
    few = monitor(bundle, table(60, 1), window="all")
    assert set(states(few).values()) == {"insufficient"}
    assert few.state == "insufficient" and few.code == 0
    strict = MonitorConfig(alert_on=["alert", "insufficient"])
    assert monitor(bundle, table(60, 1), window="all", rules=strict).code == 4
    gone = monitor(bundle, table(3000, 1).drop_columns(["z"]), window="all")
    assert states(gone)["z"] == "insufficient"
    assert states(gone)[PREDICTION] == "insufficient"
    empty = table(3000, 1).set_column(1, "z", pa.nulls(3000, pa.float64()))
    assert states(monitor(bundle, empty, window="all"))["z"] == "alert"


def test_the_contract_is_held_to(bundle):
    rows = table(2000, 2)
    x = [*["?!"] * 40, *map(str, rows["x"].to_pylist()[40:])]
    broken = rows.set_column(0, "x", pa.array(x))
    broken = broken.set_column(2, "s", pa.array(["zz"] * 200 + rows["s"].to_pylist()[200:]))
    z = rows["z"].to_numpy(zero_copy_only=False).copy()
    z[:100], z[100:200] = np.inf, 1e6
    broken = broken.set_column(1, "z", pa.array(z, from_pandas=True))
    k = rows["k"].to_numpy().copy()
    k[:300] = 77
    found = monitor(bundle, broken.set_column(3, "k", pa.array(k)), window="all")
    worst = {c.column: {m.name for m in c.measures if m.state == "alert"}
             for c in found.windows[0].columns}
    assert "unfit" in worst["x"]
    assert "unseen" in worst["s"]
    assert {"infinite", "beyond_range"} <= worst["z"]
    assert "beyond_range" in worst["k"]
    s = next(c for c in found.windows[0].columns if c.column == "s")
    assert s.unseen == {"zz": 200}


@settings(max_examples=6, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 2999), min_size=1, max_size=4, unique=True), st.randoms())
def test_any_files_in_any_order_give_the_same_verdict(bundle, tmp_path_factory, cuts, chance):
    rows = table(3000, 3, shift=0.2)
    whole = monitor(bundle, rows, window="12h", time="t")
    order = np.random.default_rng(chance.randint(0, 99)).permutation(3000)
    shuffled = rows.take(pa.array(order))
    folder, edges = tmp_path_factory.mktemp("parts"), [0, *sorted(cuts), 3000]
    for i, (a, b) in enumerate(itertools.pairwise(edges)):
        pq.write_table(shuffled.slice(a, b - a), folder / f"{i}.parquet", row_group_size=700)
    parts = monitor(bundle, str(folder), window="12h", time="t")
    assert [w.to_json() for w in parts.windows] == [w.to_json() for w in whole.windows]


def test_a_log_has_its_own_time_and_a_history_reads_nothing_twice(bundle, tmp_path):
    log = tmp_path / "log"
    first, second = table(2880, 4), table(2880, 5, shift=0.6)
    second = second.set_column(5, "t", pa.array(
        second["t"].cast(pa.int64()).to_numpy() + 2 * 86_400_000_000, pa.timestamp("us")))
    for i, rows in enumerate((first, second)):
        folder = log / f"date=2023-11-{15 + 2 * i}"
        folder.mkdir(parents=True)
        pq.write_table(log_of(bundle, rows, i * 10_000), folder / "part-0.parquet")
        found = monitor(bundle, str(log), history=tmp_path / "h")
        assert found.scanned == {"files": i + 1, "new": 1, "rows": 2880}
    assert [w.state for w in found.windows] == ["ok", "ok", "alert", "alert"]
    assert [w.start[:10] for w in found.windows] == [
        f"2023-11-{d}" for d in (15, 16, 17, 18)]
    again = monitor(bundle, str(log), history=tmp_path / "h")
    assert again.scanned["new"] == 0
    assert [w.to_json() for w in again.windows] == [w.to_json() for w in found.windows]
    without = monitor(bundle, str(log))
    assert [w.to_json() for w in without.windows] == [w.to_json() for w in found.windows]
    longer = monitor(bundle, history=tmp_path / "h", window="2d")
    assert [w.rows for w in longer.windows] == [2880, 2880]
    with pytest.raises(ConfigError, match="cannot be cut"):
        monitor(bundle, history=tmp_path / "h", window="12h")
    written = json.loads((tmp_path / "h" / "verdict.json").read_text())
    assert written["state"] == "alert" and written["firing"] is True


def test_histories_of_two_machines_are_one_and_the_same_data_twice_is_refused(bundle, tmp_path):
    halves = [table(1500, 6), table(1500, 7)]
    for name, rows in zip("ab", halves, strict=True):
        pq.write_table(rows, tmp_path / f"{name}.parquet")
        monitor(bundle, str(tmp_path / f"{name}.parquet"), time="t", history=tmp_path / name)
    counts = next((tmp_path / "b" / "counts").iterdir())
    (tmp_path / "a" / "counts" / counts.name).write_bytes(counts.read_bytes())
    both = monitor(bundle, history=tmp_path / "a")
    one = monitor(bundle, [str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")], time="t")
    assert [w.to_json() for w in both.windows] == [w.to_json() for w in one.windows]
    (tmp_path / "a" / "counts" / "copy.parquet").write_bytes(counts.read_bytes())
    with pytest.raises(DataError, match="count the same data"):
        monitor(bundle, history=tmp_path / "a")


def test_slices_are_judged_apart(bundle):
    rows = table(6000, 8)
    x = rows["x"].to_numpy().copy()
    mine = np.array(rows["s"].to_pylist()) == "c"
    x[mine] += 1.0
    found = monitor(bundle, rows.set_column(0, "x", pa.array(x)), window="all",
                    rules=MonitorConfig(slices=["s", "k"]))
    assert states(found, "s=c")["x"] == "alert"
    assert states(found, "s=a")["x"] == "ok"
    assert {c.slice for c in found.windows[0].columns} >= {None, "s=b", "k=0", "k=5"}


def test_a_text_file_and_rows_as_windows(bundle, tmp_path):
    rows = table(3000, 9)
    pa.csv.write_csv(rows, tmp_path / "new.csv")
    found = monitor(bundle, str(tmp_path / "new.csv"), window="1000rows")
    assert [w.rows for w in found.windows] == [1000] * 3
    assert found.state == "ok"
    with pytest.raises(ConfigError, match="a column that says when"):
        monitor(bundle, str(tmp_path / "new.csv"), window="1d")
    with pytest.raises(DataError, match="no column 'tt'"):
        monitor(bundle, str(tmp_path / "new.csv"), window="1d", time="tt")


def test_a_bundle_without_kept_predictions_says_so(bundle, monkeypatch):
    loaded = gpupipe.load(bundle)
    reference = reference_of(loaded)
    assert 1400 < reference.columns[PREDICTION].rows < 1600  # the holdout's
    from gpupipe.monitor import reference as room

    real = room.read_states
    monkeypatch.setattr(room, "read_states", lambda folder: {
        k: v for k, v in real(folder).items() if not k.startswith("$")})
    found = monitor(bundle, table(1000, 1), window="all")
    assert states(found)[PREDICTION] == "insufficient"
    own = next(c for c in found.windows[0].columns if c.column == PREDICTION)
    assert "no out-of-fold predictions" in own.why


def test_rules_that_name_nothing_are_told_by_line(bundle, tmp_path):
    file = tmp_path / "pipeline.yaml"
    file.write_text("data: {source: t.parquet, target: y}\nmonitor:\n  slices: [sx]\n")
    with pytest.raises(ConfigError) as told:
        monitor(bundle, table(200, 1), rules=load_config(file))
    assert "pipeline.yaml:3:12" in str(told.value)
    with pytest.raises(ConfigError, match="did you mean 'psi'"):
        monitor(bundle, table(200, 1), rules=parse_config(
            {"data": {"source": "t", "target": "y"}, "monitor": {"thresholds": {"psy": {}}}}))
    with pytest.raises(ConfigError, match=r"(?s)monitor.metrics.1.*did you mean 'roc_auc'"):
        monitor(bundle, table(200, 1), rules=MonitorConfig(metrics=["accuracy", "roc_aux"]))
    with pytest.raises(ConfigError, match="nothing to judge"):
        monitor(bundle)
    with pytest.raises(DataError, match="no history here yet"):
        monitor(bundle, history=tmp_path / "none")
    with pytest.raises(ConfigError, match="below warn"):
        parse_config({"data": {"source": "t", "target": "y"}, "monitor": {
            "thresholds": {"psi": {"warn": 0.2, "alert": 0.1}}}})
    with pytest.raises(ConfigError, match="not a duration"):
        parse_config({"data": {"source": "t", "target": "y"}, "monitor": {"window": "1 month"}})


def test_thresholds_of_the_file_are_those_that_judge(bundle):
    rules = MonitorConfig.model_validate({"thresholds": {
        m: {"warn": 5.0, "alert": 9.0} for m in ("wasserstein", "psi", "jensen_shannon")} | {
        "kolmogorov_smirnov": {"warn": 0.1, "alert": 0.9}}})
    found = monitor(bundle, table(3000, 1, shift=0.5), window="all", rules=rules)
    assert states(found)["x"] == "warn" and found.code == 0
    alarming = rules.model_copy(update={"alert_on": ["warn"]})
    assert monitor(bundle, table(3000, 1, shift=0.5), window="all", rules=alarming).code == 4


def test_a_picture_has_the_shares_of_then_and_now(bundle):
    reference = reference_of(gpupipe.load(bundle))
    judge = Judge.of(reference, MonitorConfig())
    for name in ("x", "k", "s", PREDICTION):
        known = reference.columns[name]
        made = picture(judge.shapes[name], known.cells, known.counts)
        assert made is not None
        assert made["then"] == pytest.approx(made["now"])
        assert sum(made["then"]) == pytest.approx(1)
        assert len(made["then"]) == len(made["edges"]) - 1 if "edges" in made else len(
            made["labels"])


def test_the_command_ends_with_four_while_an_alert_fires(bundle, tmp_path, capfd):
    pq.write_table(table(2000, 1), tmp_path / "calm.parquet")
    pq.write_table(table(2000, 1, shift=1.0), tmp_path / "moved.parquet")
    run = str(Path(bundle).parent)
    assert call(["monitor", run, str(tmp_path / "calm.parquet"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["state"] == "ok"
    assert call(["monitor", run, str(tmp_path / "moved.parquet"), "--window", "all"]) == 4
    shown = capfd.readouterr().out
    assert "an alert fires" in shown and "Wasserstein" in shown
    assert call(["monitor", run, str(tmp_path / "calm.parquet"), "--window", "1 year"]) == 2
    assert call(["monitor", run, str(tmp_path / "none.parquet")]) == 3


def test_shuffled_parts_give_the_same_counts_file(bundle, tmp_path):
    rows = table(2000, 11)
    order = list(range(2000))
    random.Random(1).shuffle(order)
    for name, own in (("a", rows), ("b", rows.take(pa.array(order)))):
        pq.write_table(own, tmp_path / f"{name}.parquet")
        monitor(bundle, str(tmp_path / f"{name}.parquet"), time="t", history=tmp_path / name)
    tables = [pq.read_table(next((tmp_path / n / "counts").iterdir())).replace_schema_metadata()
              for n in "ab"]
    assert tables[0].equals(tables[1])


def test_values_that_crowd_in_few_bins_are_counted_finely_enough_to_see_them_move(tmp_path):
    rng = np.random.default_rng(0)

    def draw(n: int, shift: float = 0.0) -> pa.Table:
        x = rng.normal(1000 + shift, 2, n)
        return pa.table({"x": x, "flag": rng.integers(0, 2, n).astype(float),
                         "y": np.where(x + rng.normal(size=n) > 1000, "a", "b").tolist()})

    pq.write_table(draw(4000), tmp_path / "t.parquet")
    done = gpupipe.run({
        "data": {"source": str(tmp_path / "t.parquet"), "target": "y"}, "explain": False,
        "model": {"kind": "linear"}, "split": {"folds": 2},
        "evaluate": {"resamples": 10, "baselines": []}, "engine": {"workers": 1},
    }, runs=tmp_path / "runs")
    reference = reference_of(gpupipe.load(done.bundle))
    x = reference.columns["x"]
    assert type(x.coder).__name__ == "Pieces" and len(x.cells) > 100
    assert x.counts.sum() == 4000
    assert type(reference.columns["flag"].coder).__name__ == "Bins"
    assert states(monitor(done.bundle, draw(3000), window="all"))["x"] == "ok"
    moved = monitor(done.bundle, draw(3000, shift=0.6), window="all")
    assert states(moved)["x"] == "alert"
    found = next(c for c in moved.windows[0].columns if c.column == "x")
    wasserstein = next(m for m in found.measures if m.name == "wasserstein")
    assert wasserstein.value == pytest.approx(0.3, abs=0.05)
