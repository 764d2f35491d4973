"""How a monitoring looks in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpupipe.console import say, table

if TYPE_CHECKING:
    from gpupipe.monitor import Verdict

SHOWN = 20
"""Windows and findings that are shown; --json has all."""
STYLES = {"ok": "green", "warn": "yellow", "alert": "bold red", "insufficient": "dim"}


def verdict(found: Verdict) -> None:
    """The windows, what is not ok, and whether an alert fires."""
    windows = found.windows[-SHOWN:]
    if len(found.windows) > SHOWN:
        say(f"{len(found.windows) - SHOWN:,} earlier windows are not shown", "dim")
    table(["window", "rows", "state", "alert", "warn", "ok", "insufficient", "most off"],
          [_row(found, w) for w in windows], f"windows of {found.cut}")
    told = found.findings
    if told:
        table(["window", "state", "finding"],
              [[f["start"], f["state"], f["text"]] for f in told[:SHOWN]], "findings")
    if len(told) > SHOWN:
        say(f"{len(told) - SHOWN:,} more findings are not shown", "dim")
    for note in found.notes:
        say(f"note    {note}", "yellow")
    say(f"state   {found.state}", STYLES[found.state])
    if found.firing:
        say("an alert fires", STYLES["alert"])


def _row(found: Verdict, window: Any) -> list[object]:
    whole = [c for c in window.columns if c.slice is None]
    counts = [sum(c.state == s for c in whole) for s in ("alert", "warn", "ok", "insufficient")]
    off = [c for s in ("alert", "warn") for c in whole if c.state == s]
    names = ", ".join(c.column for c in off[:3])
    return [window.start, window.rows, found.state_of(window), *counts, names]
