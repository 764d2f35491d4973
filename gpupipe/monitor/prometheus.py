"""What a monitoring found, as Prometheus reads it from a file (node_exporter's textfile collector).

Numbers are of the newest window that has enough rows. States are numbers, so that rules can compare
them: 2 alert, 1 warn, 0 ok, -1 insufficient. `files` has rules and a Grafana dashboard over these
metrics and over the server's.
"""

from __future__ import annotations

import calendar
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpupipe.checkpoints import temporary_name
from gpupipe.errors import ConfigError
from gpupipe.monitor.judge import ALERT, INSUFFICIENT, OK, WARN, Window
from gpupipe.monitor.verdict import Verdict

STATES = {ALERT: 2, WARN: 1, OK: 0, INSUFFICIENT: -1}
FILES = Path(__file__).parent / "files"
"""Rules and dashboard, as they are shipped."""
METRICS = {
    "gpupipe_monitor_state": "State of the newest windows: 2 alert, 1 warn, 0 ok, -1 insufficient.",
    "gpupipe_monitor_firing": "1 while an alert fires, else 0.",
    "gpupipe_monitor_column_state": "State of a column (and slice), numbered likewise.",
    "gpupipe_monitor_measure": "A measure of a column, as the terminal shows it.",
    "gpupipe_monitor_effect": "The same without a finite sample's noise; held against thresholds.",
    "gpupipe_monitor_window_rows": "Rows of the window.",
    "gpupipe_monitor_window_end_timestamp_seconds": "When the window ends; windows of time only.",
    "gpupipe_monitor_metric": "A metric of quality, measured by labels or estimated without.",
    "gpupipe_monitor_metric_low": "The lower end of its interval.",
    "gpupipe_monitor_metric_high": "The upper end of its interval.",
    "gpupipe_monitor_metric_reference": "The metric out of fold, when the model was trained.",
    "gpupipe_monitor_metric_state": "State of a metric, numbered likewise.",
    "gpupipe_monitor_label_coverage_ratio": "Share of the window's predictions that have a label.",
    "gpupipe_monitor_label_lag_seconds": "Median time from a prediction to its label.",
    "gpupipe_monitor_alert": "1 for every open alert.",
    "gpupipe_monitor_undelivered_messages": "Messages of alerts that wait for a sink.",
    "gpupipe_monitor_run_timestamp_seconds": "When the monitoring ran.",
}
"""All that is written: name and help. All are gauges."""

Sample = tuple[str, float | None, Mapping[str, str]]


def write_prometheus(verdict: Verdict, path: Path) -> None:
    """Write the metrics of a verdict: whole or not at all. ConfigError where no folder is there."""
    if not path.absolute().parent.is_dir():
        raise ConfigError("there is no such folder", where=str(path.parent),
                          hint="make it: the textfile collector's --collector.textfile.directory")
    # The collector reads *.prom, and must never see half a file.
    temporary = temporary_name(path.absolute())
    temporary.write_text(exposition(verdict), encoding="utf-8")
    temporary.replace(path)


def write_files(folder: Path) -> list[Path]:
    """Put the rules for Prometheus and the dashboard for Grafana into a folder, made if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for source in sorted(FILES.iterdir()):
        if source.suffix in (".yaml", ".json"):
            temporary = temporary_name(folder / source.name)
            shutil.copyfile(source, temporary)
            made.append(temporary.replace(folder / source.name))
    return made


def exposition(verdict: Verdict, now: float | None = None) -> str:
    """The metrics in Prometheus' text format, version 0.0.4."""
    own = {"model": str(verdict.model["name"]), "bundle": str(verdict.model["digest"])[:12]}
    lines: dict[str, list[str]] = defaultdict(list)
    for name, value, labels in samples(verdict, time.time() if now is None else now):
        if value is not None:
            about = ",".join(f'{k}="{_escaped(v)}"' for k, v in {**own, **labels}.items())
            lines[name].append(f"{name}{{{about}}} {float(value)!r}")
    text = [line for name, about in METRICS.items() if name in lines
            for line in (f"# HELP {name} {about}", f"# TYPE {name} gauge", *lines[name])]
    return "\n".join(text) + "\n"


def samples(verdict: Verdict, now: float) -> Iterator[Sample]:
    """Every number: name, value (None: it is left out), labels."""
    yield "gpupipe_monitor_run_timestamp_seconds", round(now, 3), {}
    yield "gpupipe_monitor_state", STATES[verdict.state], {}
    yield "gpupipe_monitor_firing", float(verdict.firing), {}
    yield "gpupipe_monitor_undelivered_messages", verdict.alerts.get("pending"), {}
    for alert in verdict.alerts.get("open", ()):
        about = {k: alert["labels"].get(k, "") for k in ("column", "metric", "slice")}
        yield "gpupipe_monitor_alert", 1, {"alert": alert["key"], "state": alert["state"], **about}
    if verdict.judged:
        yield from _of_window(verdict.judged[-1])
        yield from _of_quality(verdict, verdict.judged[-1])
        lag = (verdict.quality.get("labels") or {}).get("lag_hours")
        yield "gpupipe_monitor_label_lag_seconds", None if lag is None else lag["median"] * 3600, {}


def _of_window(window: Window) -> Iterator[Sample]:
    yield "gpupipe_monitor_window_rows", window.rows, {}
    if window.end.endswith("Z"):
        moment = calendar.timegm(time.strptime(window.end, "%Y-%m-%dT%H:%M:%SZ"))
        yield "gpupipe_monitor_window_end_timestamp_seconds", moment, {}
    for column in window.columns:
        labels = {"column": column.column, "slice": column.slice or ""}
        yield "gpupipe_monitor_column_state", STATES[column.state], labels
        for m in column.measures:
            yield "gpupipe_monitor_measure", m.value, {**labels, "measure": m.name}
            yield "gpupipe_monitor_effect", m.effect, {**labels, "measure": m.name}


def _of_quality(verdict: Verdict, newest: Window) -> Iterator[Sample]:
    """Metrics: measured in the newest window that labels judge, estimated in the newest of all."""
    own = verdict.quality_of(newest)
    yield "gpupipe_monitor_label_coverage_ratio", own.get("coverage"), {}
    for name, score in own.get("estimated", {}).items():
        yield from _score(name, score, "estimated", "")
    for name, value in verdict.quality.get("reference", {}).items():
        if name in verdict.quality["metrics"]:
            yield "gpupipe_monitor_metric_reference", value, {"metric": name}
    if not verdict.matured:
        return
    own, headline = verdict.quality_of(verdict.matured[-1]), verdict.quality["metrics"][0]
    yield "gpupipe_monitor_metric_state", STATES[own["state"]], {"metric": headline, "slice": ""}
    for name, score in own.get("scores", {}).items():
        yield from _score(name, score, "measured", "")
    for part in own.get("slices", ()):
        yield "gpupipe_monitor_metric_state", STATES[part["state"] or INSUFFICIENT], {
            "metric": headline, "slice": part["slice"]}
        for name, score in part["scores"].items():
            yield from _score(name, score, "measured", part["slice"])


def _score(name: str, score: Mapping[str, Any], source: str, slice_: str) -> Iterator[Sample]:
    labels = {"metric": name, "source": source, "slice": slice_}
    for end, key in (("", "value"), ("_low", "low"), ("_high", "high")):
        yield f"gpupipe_monitor_metric{end}", score.get(key), labels


def _escaped(value: Any) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
