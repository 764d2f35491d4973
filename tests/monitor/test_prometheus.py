"""What Prometheus and Grafana are given: parsed as they parse it, and of metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from common.watched import table
from prometheus_client.parser import text_string_to_metric_families

from gpupipe.cli.outcome import call
from gpupipe.errors import ConfigError
from gpupipe.monitor import monitor, write_files, write_prometheus
from gpupipe.monitor.prometheus import FILES, METRICS, exposition
from gpupipe.serve.metrics import KINDS

NAME = re.compile(r"\bgpupipe_[a-z_]+\b")
LABELS = re.compile(r"\b(gpupipe_[a-z_]+)\{([^}]*)\}")
ONLY = {"__name__", "job", "le"}
"""Labels that Prometheus adds."""


def families(verdict):
    return {f.name: f for f in text_string_to_metric_families(exposition(verdict, 1.5e9))}


@pytest.fixture(scope="module")
def shifted(bundle, tmp_path_factory):
    from gpupipe.config.monitor import MonitorConfig

    rules = MonitorConfig(window="1d", time="t", slices=["s"])
    return monitor(bundle, table(2880, 1, shift=0.5), rules=rules,
                   history=tmp_path_factory.mktemp("history"))


def test_a_verdict_is_written_as_prometheus_reads_it(shifted):
    found = families(shifted)
    assert set(found) <= set(METRICS)
    states = {(s.labels["column"], s.labels["slice"]): s.value
              for s in found["gpupipe_monitor_column_state"].samples}
    assert states["x", ""] == 2 and states["z", ""] == 0
    assert {s for _, s in states} > {""}
    assert found["gpupipe_monitor_state"].samples[0].value == 2
    assert found["gpupipe_monitor_run_timestamp_seconds"].samples[0].value == 1.5e9
    rows = found["gpupipe_monitor_window_rows"].samples[0]
    assert rows.value == shifted.judged[-1].rows
    assert rows.labels == {"model": "pipeline", "bundle": shifted.model["digest"][:12]}
    alerts = {s.labels["alert"] for s in found["gpupipe_monitor_alert"].samples}
    assert "column/x" in alerts
    own = {m.name: m.value for m in shifted.judged[-1].columns[0].measures}
    told = {s.labels["measure"]: s.value for s in found["gpupipe_monitor_measure"].samples
            if s.labels["column"] == shifted.judged[-1].columns[0].column and not s.labels["slice"]}
    assert told == own


def test_quality_is_written_measured_and_estimated(shifted):
    found = families(shifted)
    own = shifted.quality_of(shifted.matured[-1])
    name = shifted.quality["metrics"][0]
    values = {(s.labels["metric"], s.labels["source"], s.labels["slice"]): s.value
              for s in found["gpupipe_monitor_metric"].samples}
    assert values[name, "measured", ""] == own["scores"][name]["value"]
    newest = shifted.quality_of(shifted.judged[-1])["estimated"]
    assert all(values[n, "estimated", ""] == e["value"] for n, e in newest.items())
    assert {s for _, _, s in values} > {""}
    low = {(s.labels["metric"], s.labels["source"], s.labels["slice"]): s.value
           for s in found["gpupipe_monitor_metric_low"].samples}
    assert low[name, "measured", ""] == own["scores"][name]["low"]
    assert found["gpupipe_monitor_label_coverage_ratio"].samples[0].value == 1
    reference = found["gpupipe_monitor_metric_reference"].samples
    assert {s.labels["metric"]: s.value for s in reference}[name] == \
        shifted.quality["reference"][name]
    assert found["gpupipe_monitor_metric_state"].samples


def test_the_file_is_whole_or_not_at_all(shifted, tmp_path):
    write_prometheus(shifted, tmp_path / "gpupipe.prom")
    assert [p.name for p in tmp_path.iterdir()] == ["gpupipe.prom"]
    with pytest.raises(ConfigError, match="no such folder"):
        write_prometheus(shifted, tmp_path / "none" / "gpupipe.prom")


def rules():
    return yaml.safe_load((FILES / "prometheus-rules.yaml").read_text())["groups"]


def expressions() -> list[str]:
    found = [r["expr"] for g in rules() for r in g["rules"]]
    board = json.loads((FILES / "grafana-dashboard.json").read_text())
    found += [t["expr"] for p in board["panels"] for t in p.get("targets", ())]
    found += [v["query"]["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    return found + [a["expr"] for a in board["annotations"]["list"]]


def test_every_metric_named_in_rules_and_dashboard_is_written_by_server_or_monitoring():
    known = set(METRICS)
    for name, (kind, _) in KINDS.items():
        known |= {name} if kind != "histogram" else {f"{name}_{s}" for s in
                                                     ("bucket", "sum", "count")}
    named = {n for e in expressions() for n in NAME.findall(e)}
    assert named <= known
    # And what is written is looked at: nothing is forgotten when a metric is added.
    seen = {re.sub("_(bucket|sum|count)$", "", n) for n in named}
    assert set(METRICS) - seen <= {"gpupipe_monitor_firing", "gpupipe_monitor_measure"}
    assert set(KINDS) - seen <= {"gpupipe_worker_info", "gpupipe_ignored_fields_total",
                                 "gpupipe_buffered_bytes"}


def test_labels_that_are_asked_for_are_those_of_the_metric(shifted):
    source = "".join(p.read_text() for p in (Path(__file__).parents[2] / "gpupipe" / "serve")
                     .glob("*.py"))
    own = {f.name: {k for s in f.samples for k in s.labels} for f in families(shifted).values()}
    for expression in expressions():
        for name, inside in LABELS.findall(expression):
            asked = set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", inside)) - ONLY
            if name in own:
                assert asked <= own[name], (name, asked)
            elif name not in METRICS:
                base = re.sub("_(bucket|sum|count)$", "", name)
                for label in asked:  # as in metrics.add("gpupipe_rows_total", n, variant=...)
                    assert re.search(rf'"{base}".{{0,200}}?["(, ]{label}["=]', source,
                                     re.DOTALL), (base, label)


def test_rules_are_rules_and_panels_are_panels():
    for group in rules():
        for rule in group["rules"]:
            assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert rule["annotations"]["summary"]
            assert rule["expr"].count("(") == rule["expr"].count(")")
            assert re.fullmatch(r"\d+[smhd]", rule.get("for", "1m"))
    names = [r["alert"] for g in rules() for r in g["rules"]]
    assert len(names) == len(set(names))
    board = json.loads((FILES / "grafana-dashboard.json").read_text())
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"])


def test_the_verb_writes_the_files_that_are_shipped(tmp_path, capfd):
    assert call(["monitor-files", str(tmp_path / "out"), "--json"]) == 0
    made = json.loads(capfd.readouterr().out)["files"]
    assert [Path(p).name for p in made] == ["grafana-dashboard.json", "prometheus-rules.yaml"]
    for path in made:
        assert Path(path).read_bytes() == (FILES / Path(path).name).read_bytes()
    assert write_files(tmp_path / "out") == [Path(p) for p in made]
