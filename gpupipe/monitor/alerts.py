"""Alerts: what a verdict raises, what of it is news, and what was told before.

An alert is known by what it is about (a column, a slice, a metric), not by its numbers. It is news
when it first fires, when its state changes, and when it is over; firing again is none. It is over
when a judged window says so: where there is nothing to judge, it stays open.

    alerts.json      in the history's folder: open alerts, the last events, what is still to send
"""

from __future__ import annotations

import datetime as dt
import fcntl
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpupipe.checkpoints import digest
from gpupipe.config.sinks import SinkConfig
from gpupipe.monitor.history import read_json, write_json
from gpupipe.monitor.judge import INSUFFICIENT
from gpupipe.monitor.sinks import Undelivered, message_of, send
from gpupipe.monitor.verdict import Verdict

ALERTS = "alerts.json"
FORMAT = 1
EVENTS = 500
"""Events that are kept, the newest."""
WAITING = 100
"""Messages that wait for a sink that is down, the newest."""
FIRES, CHANGED, RESOLVED = "fires", "changed", "resolved"
QUALITY = ("quality", "estimate")
"""Kinds of findings that are about metrics."""


def raised(verdict: Verdict) -> dict[str, dict[str, Any]]:
    """The alerts of the windows that may raise one, by key: plain data.

    Of several windows with the same alert the newest counts.
    """
    wanted, found = set(verdict.config.alert_on), {}
    numbers = {w.number: w for w in _windows(verdict)}
    matured = {w.number: w for w in verdict.matured}
    for finding in reversed(verdict.findings):
        window = (matured if finding["kind"] in QUALITY else numbers).get(finding["window"])
        if window is None or finding["state"] not in wanted:
            continue
        labels = {k: str(finding[k]) for k in ("column", "slice", "measure")
                  if finding.get(k) is not None}
        name = key_of(finding)
        found[name] = _alert(verdict, window, name, finding["state"], finding["kind"], labels,
                             finding["text"])
    for window in numbers.values():
        state = window.state
        told = any(a["window"] == window.number and a["state"] == state for a in found.values())
        if state in wanted and not told:
            text = f"the window of {window.start} is {state}: {window.rows:,} rows"
            found["window"] = _alert(verdict, window, "window", state, "window", {}, text)
    return found


def key_of(finding: Mapping[str, Any]) -> str:
    """What an alert is known by: ``column/age``, ``quality/roc_auc/plan=basic``."""
    about = [finding["kind"], finding.get("column") or finding["measure"], finding.get("slice")]
    return "/".join(str(part) for part in about if part is not None)


def _windows(verdict: Verdict) -> list[Any]:
    newest = verdict.windows[-1:]
    return [*verdict.judged, *(w for w in newest if w not in verdict.judged)]


def _alert(
    verdict: Verdict, window: Any, key: str, state: str, kind: str, labels: Mapping[str, str],
    text: str,
) -> dict[str, Any]:
    model = verdict.model
    return {"key": key, "kind": kind, "state": state, "model": model["name"],
            "digest": model["digest"], "window": window.number, "start": window.start,
            "end": window.end, "labels": dict(labels), "text": text,
            "fingerprint": digest([model["digest"], key])[:16]}


def told(
    verdict: Verdict, folder: Path, sinks: Sequence[SinkConfig] = (), base: Path = Path(),
) -> dict[str, Any]:
    """Bring the alerts of a history up to date with a verdict, and tell every sink the news.

    News are written to ``alerts.json`` before they are sent and stay there until they are
    delivered, so that a webhook that is down, or a process that is killed, loses none: the next
    call sends them, as the same bytes under the same key. What cannot be delivered is a warning.

    Returns ``{"open", "news", "sent", "pending"}``: open alerts, events of this call, messages
    that were delivered, and those that wait.
    """
    with _alone(folder):
        state = read_alerts(folder)
        news = _news(state, verdict)
        for sink in sinks:
            waiting = state["pending"].setdefault(sink.name, [])
            if news:
                waiting.append(message_of(verdict.model, news))
            if len(waiting) > WAITING:
                warnings.warn(f"{len(waiting) - WAITING} of the oldest alerts for {sink.name} are "
                              "dropped: too many wait", stacklevel=2)
                del waiting[:-WAITING]
        write_json(folder / ALERTS, state)
        sent = sum(_delivered(sink, state, folder, base) for sink in sinks)
    return {"open": list(state["open"].values()), "news": news, "sent": sent,
            "pending": sum(map(len, state["pending"].values()))}


def _news(state: dict[str, Any], verdict: Verdict) -> list[dict[str, Any]]:
    """What is new since the state, which is changed accordingly."""
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    current, opened = raised(verdict), state["open"]
    news = []
    for key, alert in current.items():
        before = opened.get(key)
        if before is None:
            news.append({"change": FIRES, "when": now, **alert, "since": now})
        elif before["state"] != alert["state"]:
            news.append({"change": CHANGED, "when": now, **alert, "since": before["since"]})
        opened[key] = {**alert, "since": now if before is None else before["since"]}
    for key in [k for k in opened if k not in current and over(k, verdict)]:
        news.append({"change": RESOLVED, "when": now, **opened.pop(key)})
    state["events"] = [*state["events"], *news][-EVENTS:]
    return news


def over(key: str, verdict: Verdict) -> bool:
    """Whether the windows that may raise it have judged what it is about."""
    kind = key.partition("/")[0]
    if kind == "window":
        return bool(verdict.judged)
    if kind == "quality":  # what labels said is not taken back by an estimate
        return any(verdict.quality_of(w).get("labelled", 0) >= verdict.config.least
                   for w in verdict.matured)
    if kind == "estimate":
        return bool(verdict.matured)
    return any(column.state != INSUFFICIENT and key == key_of(
        {"kind": kind, "column": column.column, "slice": column.slice})
        for window in verdict.judged for column in window.columns)


def _delivered(sink: SinkConfig, state: dict[str, Any], folder: Path, base: Path) -> int:
    """Send what waits for a sink, the oldest first; how many were delivered."""
    waiting, count = state["pending"][sink.name], 0
    while waiting:
        try:
            send(sink, waiting[0], base)
        except Undelivered as error:
            warnings.warn(f"alerts could not be delivered to {sink.name}: {error}; what waits "
                          f"({len(waiting)}) is kept and sent next time", stacklevel=3)
            break
        waiting.pop(0)
        count += 1
        write_json(folder / ALERTS, state)
    return count


def read_alerts(folder: Path) -> dict[str, Any]:
    """What ``alerts.json`` holds. DataError where it cannot be read."""
    path = folder / ALERTS
    if not path.exists():
        return {"format": FORMAT, "open": {}, "events": [], "pending": {}}
    return read_json(path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time tells the alerts of a history."""
    with (folder / ".alerts.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
