"""How a monitoring looks in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpupipe.console import say, table

if TYPE_CHECKING:
    from gpupipe.monitor import Verdict

SHOWN = 20
"""Windows and findings that are shown; --json has all."""
GREATEST = 5
"""Changes of the error that are shown."""
STYLES = {"ok": "green", "warn": "yellow", "alert": "bold red", "insufficient": "dim"}


def verdict(found: Verdict) -> None:
    """The windows, what is not ok, and whether an alert fires."""
    windows = found.windows[-SHOWN:]
    if len(found.windows) > SHOWN:
        say(f"{len(found.windows) - SHOWN:,} earlier windows are not shown", "dim")
    table(["window", "rows", "state", "alert", "warn", "ok", "insufficient", "most off"],
          [_row(found, w) for w in windows], f"windows of {found.cut}")
    quality(found.quality, {w.number: w.start for w in found.windows})
    told = found.findings
    if told:
        table(["window", "state", "finding"],
              [[f["start"], f["state"], f["text"]] for f in told[:SHOWN]], "findings")
    if len(told) > SHOWN:
        say(f"{len(told) - SHOWN:,} more findings are not shown", "dim")
    for note in found.notes:
        say(f"note    {note}", "yellow")
    for event in found.alerts.get("news", ())[:SHOWN]:
        say(f"news    {event['change']}: {event['text']}")
    if found.alerts.get("pending"):
        say(f"waiting {found.alerts['pending']} messages of alerts for their sinks", "yellow")
    say(f"state   {found.state}", STYLES[found.state])
    if found.firing:
        say("an alert fires", STYLES["alert"])


def _row(found: Verdict, window: Any) -> list[object]:
    whole = [c for c in window.columns if c.slice is None]
    counts = [sum(c.state == s for c in whole) for s in ("alert", "warn", "ok", "insufficient")]
    off = [c for s in ("alert", "warn") for c in whole if c.state == s]
    names = ", ".join(c.column for c in off[:3])
    return [window.start, window.rows, found.state_of(window), *counts, names]


def quality(found: Mapping[str, Any], starts: Mapping[int, str]) -> None:
    """What labels and estimates say of the predictions."""
    windows: Mapping[str, Any] = found.get("windows") or {}
    if not any(w["labelled"] or w["estimated"] for w in windows.values()):
        return
    metric = found["metrics"][0]
    rows = []
    for number, own in sorted(windows.items(), key=lambda item: int(item[0]))[-SHOWN:]:
        score, estimate = ((own.get(k) or {}).get(metric) or {} for k in ("scores", "estimated"))
        rows.append([starts.get(int(number), number), own["labelled"], f"{own['coverage']:.0%}",
                     score.get("value"), span(score), estimate.get("value"), span(estimate),
                     own["state"]])
    table(["window", "labelled", "coverage", metric, "interval", "estimated", "interval ", "state"],
          rows, "quality")
    say(f"estimate {found['reliable']['text']}")
    told = [c for c in found.get("changes") or () if c["by"] == "adwin"]
    great = sorted(told, key=lambda c: -abs(c["after"] - c["before"]))[:GREATEST]
    for one in sorted(great, key=lambda c: c["row"]):
        word = "rose" if one["risen"] else "fell"
        say(f"change  at {one['at']} the error {word} from {one['before']:.4g} to "
            f"{one['after']:.4g}")
    if len(told) > len(great):
        say(f"{len(told) - len(great):,} lesser changes are not shown", "dim")
    for one in (found.get("worst_slices") or {}).get("slices", ())[:3]:
        where = ", ".join(f"{p['column']}={p['level']}" for p in one["parts"])
        say(f"worst   {where}: loss {one['value']:.4g}, elsewhere {one['rest']:.4g} "
            f"({one['rows']:,} rows)")
    labels = found.get("labels") or {}
    if labels.get("conflicts"):
        say(f"note    {labels['conflicts']:,} predictions have several labels, and are left out: "
            + ", ".join(labels["examples"]), "yellow")
    if labels.get("lag_hours"):
        say(f"lag     half of the labels came within {labels['lag_hours']['median']:.3g} hours, "
            f"nine tenths within {labels['lag_hours']['p90']:.3g}")


def span(measured: Mapping[str, Any]) -> str | None:
    """An interval as text; None where there is none."""
    low, high = measured.get("low"), measured.get("high")
    return None if low is None or high is None else f"{low:.4g} – {high:.4g}"
