"""The dashboard's plots over windows, and what it shows of quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.evaluate.metrics import METRICS
from gpupipe.evaluate.svg import Plot

LABELS = 9
"""Windows whose names stand under an axis."""
SHOWN = 4
"""Metrics that are drawn."""


def name_of(window: Mapping[str, Any]) -> str:
    """A window in words: its day, its hour, or its rows."""
    start, end = window["start"], window["end"]
    if not start.endswith("Z"):
        return "all rows" if start == "all" else f"rows {int(start):,} to {int(end):,}"
    return start[:10] if start[11:] == end[11:] == "00:00:00Z" else start[:16].replace("T", " ")


def ticks_of(windows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for some windows, empty for the others."""
    every = max(1, -(-len(windows) // LABELS))
    return [_short(w) if i % every == 0 else "" for i, w in enumerate(windows)]


def _short(window: Mapping[str, Any]) -> str:
    name = name_of(window)
    if window["start"].endswith("Z"):
        return name[5:]
    return name if name == "all rows" else f"{int(window['start']):,}"


def time_plot(
    windows: Sequence[Mapping[str, Any]], y: tuple[float, float], title: str, percent: str = ""
) -> Plot:
    """A plot whose x axis is the windows, numbered from 0."""
    names = [(float(i), t) for i, t in enumerate(ticks_of(windows)) if t]
    return Plot((-0.5, len(windows) - 0.5), y, title=title, x_names=names[::2] if len(
        names) > 5 else names, width=520, height=230, y_ticks=4, percent=percent)


def runs(xs: Sequence[float]) -> list[list[int]]:
    """Stretches of neighbouring windows: a line does not bridge a gap."""
    found: list[list[int]] = []
    for i, x in enumerate(xs):
        if found and x == xs[i - 1] + 1:
            found[-1].append(i)
        else:
            found.append([i])
    return found


def quality(
    verdict: Mapping[str, Any], windows: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Metrics by window, labels, changes and worst slices; None where nothing is known of them."""
    found = verdict["quality"]
    by = [(found.get("windows") or {}).get(str(w["window"]), {}) for w in windows]
    if not any(own.get("scores") or own.get("estimated") for own in by):
        return None
    labels = found.get("labels") or {}
    lag = labels.get("lag_hours")
    total = sum(own.get("rows", 0) for own in by)
    labelled = sum(own.get("labelled", 0) for own in by)
    newest: Mapping[str, Any] = next((own for own in reversed(by) if own.get("slices")), {})
    return {
        "plots": [_metric(verdict["model"]["task"], name, windows, by,
                          found.get("reference", {}).get(name))
                  for name in found["metrics"][:SHOWN]],
        "coverage": labelled / total if total else 0.0, "labelled": labelled,
        "covered": _coverage(windows, by) if labelled else None,
        "lag": None if lag is None else hours(lag["median"]),
        "late": None if lag is None else hours(lag["p90"]),
        "labels": labels, "reliable": found["reliable"], "changes": found.get("changes") or [],
        "worst": found.get("worst_slices"), "slices": newest.get("slices") or [],
        "headline": found["metrics"][0],
    }


def hours(value: float) -> str:
    """A time in words: minutes, hours or days."""
    if value < 2:
        return f"{value * 60:.0f} min"
    return f"{value:.0f} h" if value < 72 else f"{value / 24:.1f} d"


def _metric(
    task: Any, name: str, windows: Sequence[Mapping[str, Any]], by: Sequence[Mapping[str, Any]],
    reference: float | None,
) -> dict[str, Any]:
    """A metric by window: measured by labels, estimated without, and as it was out of fold."""
    known = METRICS.get((task, name))
    title = known.title if known else name.replace("_", " ")
    sides = {"scores": "s0", "estimated": "s1"}
    points = {side: [(float(i), own[side][name]) for i, own in enumerate(by)
                     if (own.get(side) or {}).get(name, {}).get("value") is not None]
              for side in sides}
    ends = [v for side in points.values() for _, s in side
            for v in (s["value"], s.get("low"), s.get("high")) if v is not None]
    ends += [] if reference is None else [reference]
    if not ends:
        return {"title": title, "plot": None, "estimated": False}
    room = (max(ends) - min(ends)) * 0.08 or 0.01
    plot = time_plot(windows, (min(ends) - room, max(ends) + room), f"{title} by window")
    if reference is not None:
        plot.rule((-0.5, reference), (len(windows) - 0.5, reference))
        plot.note(-0.4, reference, "out of fold")
    for side, css in sides.items():
        shift = 0.12 if side == "estimated" else 0.0
        xs, ys = [x + shift for x, _ in points[side]], [s["value"] for _, s in points[side]]
        for x, (_, s) in zip(xs, points[side], strict=True):
            if s.get("low") is not None and s.get("high") is not None:
                plot.whisker(x, s["low"], s["high"], css)
        for run in runs([x for x, _ in points[side]]):
            plot.line([xs[i] for i in run], [ys[i] for i in run],
                      f"{css} dash" if side == "estimated" else css)
        plot.points(xs, ys, css, 3.2)
    better = None if known is None else "higher" if known.greater_is_better else "lower"
    return {"title": title, "better": better, "plot": plot.render(),
            "estimated": bool(points["estimated"]), "measured": bool(points["scores"])}


def _coverage(
    windows: Sequence[Mapping[str, Any]], by: Sequence[Mapping[str, Any]]
) -> Any:
    plot = time_plot(windows, (0.0, 1.0), "Share of predictions that have a label, by window",
                     percent="y")
    edges = [i - 0.5 for i in range(len(windows) + 1)]
    plot.bars(edges, [own.get("coverage") or 0.0 for own in by], "s0 half")
    return plot.render()
