"""The verdict of a monitoring: what was found, whether an alert fires, and what to tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpupipe.config.monitor import MonitorConfig
from gpupipe.monitor.judge import ALERT, INSUFFICIENT, WARN, Judged, Window, worst_of
from gpupipe.monitor.measures import MEASURES
from gpupipe.monitor.reference import CONFIDENCE, PREDICTION

FIRING = 4
"""The exit code while an alert fires."""


@dataclass(frozen=True)
class Verdict:
    """What a monitoring found.

    Attributes
    ----------
    model : name, version and digest of the bundle.
    windows : every window, in order.
    quality : by window number, what labels say of the predictions; empty without labels.
    state : the worst of the newest windows with enough rows (`MonitorConfig.last` of them).
    firing : whether that state, or the newest window's, is one that raises an alert.
    findings : what is not ok, the newest window first, as JSON data.
    alerts : what `alerts.told` gave, where there is a history.
    """

    model: Mapping[str, Any]
    cut: str
    windows: Sequence[Window]
    config: MonitorConfig
    notes: Sequence[str] = ()
    scanned: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    alerts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def judged(self) -> list[Window]:
        """The newest windows with enough rows: those that may raise an alert, the newest last."""
        enough = [w for w in self.windows if self.state_of(w) != INSUFFICIENT]
        return enough[-self.config.last:]

    @property
    def matured(self) -> list[Window]:
        """The newest windows whose quality was judged: labels come late, so they may be older."""
        known = [w for w in self.windows if self.quality_of(w).get("state", INSUFFICIENT)
                 != INSUFFICIENT]
        return known[-self.config.last:]

    def quality_of(self, window: Window) -> Mapping[str, Any]:
        """What is known of a window's quality; empty where nothing is."""
        found: Mapping[str, Any] = (self.quality.get("windows") or {}).get(str(window.number), {})
        return found

    def state_of(self, window: Window) -> str:
        """A window's state, its quality included."""
        return worst_of([window.state, self.quality_of(window).get("state", INSUFFICIENT)])

    @property
    def state(self) -> str:
        return worst_of([*(self.state_of(w) for w in self.judged),
                         *(self.quality_of(w)["state"] for w in self.matured)])

    @property
    def firing(self) -> bool:
        states = {self.state_of(w) for w in self.judged}
        states |= {self.quality_of(w)["state"] for w in self.matured}
        states |= {self.state_of(self.windows[-1])} if self.windows else {INSUFFICIENT}
        return bool(states & set(self.config.alert_on))

    @property
    def code(self) -> int:
        """The exit code: 4 while an alert fires, else 0."""
        return FIRING if self.firing else 0

    @property
    def findings(self) -> list[dict[str, Any]]:
        found = []
        for window in reversed(self.windows):
            for column in window.columns:
                if column.state in (ALERT, WARN):
                    found.append(finding(window, column))
            found += [{"window": window.number, "start": window.start, **f}
                      for f in self.quality_of(window).get("findings", ())]
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain data: what ``verdict.json`` holds, and what ``retrain`` and ``promote`` read."""
        return {
            "format": 1, "state": self.state, "firing": self.firing, "exit_code": self.code,
            "model": dict(self.model), "window": self.cut,
            "false_alarms": self.config.false_alarms, "alert_on": list(self.config.alert_on),
            "judged": [w.number for w in self.judged],
            "matured": [w.number for w in self.matured], "findings": self.findings,
            "windows": [{**w.to_json(), "overall": self.state_of(w)} for w in self.windows],
            "quality": dict(self.quality), "scanned": dict(self.scanned),
            "notes": list(self.notes),
        }


def finding(window: Window, column: Judged) -> dict[str, Any]:
    """A column that is not ok, with the measure that says so and a sentence."""
    worst = column.worst
    assert worst is not None
    what = {PREDICTION: "the predictions", CONFIDENCE: "the predictions' confidence"}.get(
        column.column, column.column)
    where = f" where {column.slice}" if column.slice else ""
    text = (f"{what}{where}: {MEASURES[worst.name].title} {worst.value:.3g} (without noise "
            f"{worst.effect:.3g}; q = {worst.q:.2g})")
    if worst.name == "unseen" and column.unseen:
        text += ": " + ", ".join(map(repr, list(column.unseen)[:3]))
    return {"window": window.number, "start": window.start, "state": column.state,
            "kind": "prediction" if column.column in (PREDICTION, CONFIDENCE) else "column",
            "column": column.column, "slice": column.slice, "measure": worst.name,
            "value": worst.value, "effect": worst.effect, "q": worst.q, "text": text}
