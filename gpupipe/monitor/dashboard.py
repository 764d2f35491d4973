"""The dashboard: one self-contained page over a history, for people.

The page holds its data as JSON and a few lines of script that draw what is clicked on; the rest is
there without. Every state has a symbol beside its colour.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpupipe.checkpoints import temporary_name
from gpupipe.errors import ConfigError, DataError
from gpupipe.evaluate.report import environment
from gpupipe.evaluate.text import CONTROL
from gpupipe.monitor.alerts import read_alerts
from gpupipe.monitor.history import PICTURES, VERDICT, read_json
from gpupipe.monitor.judge import WORST, worst_of
from gpupipe.monitor.pictures import DRAWN
from gpupipe.monitor.plots import name_of, quality, runs, ticks_of, time_plot
from gpupipe.monitor.reference import PREDICTION

SYMBOLS = {"ok": "·", "warn": "▲", "alert": "✕", "insufficient": "–"}
ROWS = 100
"""Columns (and slices) that a heat map shows, those that are off first."""
TEMPLATES = Path(__file__).parents[1] / "evaluate" / "templates"


def write_dashboard(history: str | Path, output: str | Path, last: int = 60) -> dict[str, Any]:
    """Write the page of a history (whole or not at all); returns what it shows, in numbers.

    ``last`` is how many of the newest windows it shows, `DRAWN` at most. Raises DataError where
    the history holds no verdict, ConfigError where the output's folder is not there.
    """
    path = Path(output)
    if not path.absolute().parent.is_dir():
        raise ConfigError("there is no such folder", where=str(path.parent),
                          hint="make it, or give --output another name")
    shown = view(read_history(Path(history)), min(last, DRAWN))
    temporary = temporary_name(path.absolute())
    temporary.write_text(render(shown), encoding="utf-8")
    temporary.replace(path)
    return {"output": path, "windows": len(shown["windows"]), "columns": shown["counted"],
            "state": shown["verdict"]["state"],
            "alerts": len(shown["open"]) + len(shown["open_slices"])}


def read_history(folder: Path) -> dict[str, Any]:
    """What a history holds for the page: verdict, pictures, alerts."""
    if not (folder / VERDICT).exists() or not (folder / PICTURES).exists():
        raise DataError("there is no history here that a dashboard could show", where=str(folder),
                        hint="gpupipe monitor MODEL DATA --history FOLDER makes one")
    return {"verdict": read_json(folder / VERDICT), "pictures": read_json(folder / PICTURES),
            "alerts": read_alerts(folder)}


def render(shown: Mapping[str, Any]) -> str:
    """The HTML. Text may be anything: it is escaped, isolated and cut to fit."""
    script = (TEMPLATES / "dashboard.js").read_text(encoding="utf-8")
    hashed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # "<" alone could end the element that holds the data.
    data = json.dumps(shown["data"], ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    html = environment().get_template("dashboard.html").render(
        d=shown, title=f"{shown['name']} monitoring",
        script={"text": script, "hash": f"sha256-{hashed}", "data": data.replace("<", "\\u003c")})
    return CONTROL.sub("�", html).encode("utf-8", "replace").decode("utf-8")


def view(held: Mapping[str, Any], last: int) -> dict[str, Any]:
    """What the template is given."""
    verdict, alerts = held["verdict"], held["alerts"]
    windows = unbroken(verdict["windows"])[-last:]
    opened = sorted(alerts["open"].values(), key=lambda a: (a["state"] != "alert", a["key"]))
    columns = heat_map(windows, lambda c: c["slice"] is None, "column")
    slices = heat_map(windows, lambda c: c["slice"] is not None, "slice")
    return {
        "name": verdict["model"]["name"],
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), "verdict": verdict,
        "windows": [{**w, "name": name_of(w)} for w in windows], "ticks": ticks_of(windows),
        "rows": sum(w["rows"] for w in windows), "counted": len(columns["rows"]),
        "columns": {**columns, "rows": columns["rows"][:ROWS]},
        "slices": {**slices, "rows": slices["rows"][:ROWS]},
        "open": [a for a in opened if "slice" not in a["labels"]],
        "open_slices": [a for a in opened if "slice" in a["labels"]],
        "events": list(reversed(alerts["events"]))[:100],
        "pending": sum(map(len, alerts["pending"].values())),
        "predictions": prediction_plots(windows), "quality": quality(verdict, windows),
        "symbols": SYMBOLS, "states": WORST,
        "data": page_data(windows, columns["rows"][:ROWS], slices["rows"][:ROWS],
                          held["pictures"]),
    }


def unbroken(windows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The windows with those between them that have no row: a day without data is to be seen."""
    made: list[Mapping[str, Any]] = []
    for window in windows:
        if made and window["start"].endswith("Z"):
            missing = range(made[-1]["window"] + 1, window["window"])[-DRAWN:]
            first, length = dt.datetime.fromisoformat(window["start"]), _length(window)
            for number in missing:
                start = first - (window["window"] - number) * length
                made.append({"window": number, "rows": 0, "state": "insufficient", "columns": [],
                             "start": _moment(start), "end": _moment(start + length)})
        made.append(window)
    return made


def _length(window: Mapping[str, Any]) -> dt.timedelta:
    return dt.datetime.fromisoformat(window["end"]) - dt.datetime.fromisoformat(window["start"])


def _moment(at: dt.datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def heat_map(windows: Sequence[Mapping[str, Any]], chosen: Any, by: str) -> dict[str, Any]:
    """States by window of columns, or of slices (the worst of the slice's columns).

    ``{"rows": [{"name", "states": [...]}]}``: those that are most often off first, the prediction
    before all.
    """
    names = dict.fromkeys(c[by] for w in windows for c in w["columns"] if chosen(c))
    found: dict[str, list[str | None]] = {n: [None] * len(windows) for n in names}
    for i, window in enumerate(windows):
        of: dict[str, list[str]] = {}
        for column in window["columns"]:
            if chosen(column):
                of.setdefault(column[by], []).append(column["state"])
        for name, states in of.items():
            found[name][i] = worst_of(states)

    def off(name: str) -> tuple[bool, int, int]:
        return (name != PREDICTION, -found[name].count("alert"), -found[name].count("warn"))

    return {"rows": [{"name": n, "states": found[n]} for n in sorted(found, key=off)]}


def prediction_plots(windows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How far the predictions are from the out-of-fold ones, by window, with thresholds."""
    judged = [next((c for c in w["columns"] if c["column"] == PREDICTION and c["slice"] is None),
                   None) for w in windows]
    wanted = (("psi", "Population stability index"), ("wasserstein", "Wasserstein distance"),
              ("chi_squared", "Cohen's w of the labels"))
    made = []
    for name, title in wanted:
        points = [(i, c["measures"][name]) for i, c in enumerate(judged)
                  if c is not None and name in c["measures"]]
        if points:
            made.append({"title": title, "plot": _line(windows, points, title)})
    return made[:2]


def _line(
    windows: Sequence[Mapping[str, Any]], points: Sequence[tuple[int, Mapping[str, Any]]],
    title: str,
) -> Any:
    warn, alert = points[-1][1]["warn"], points[-1][1]["alert"]
    top = max(max(p["effect"] for _, p in points), alert) * 1.1
    plot = time_plot(windows, (0.0, top), f"{title} of the predictions by window")
    last = len(windows) - 0.5
    for name, at in (("warn", warn), ("alert", alert)):
        plot.rule((-0.5, at), (last, at))
        plot.note(-0.4, at, name)
    xs = [float(i) for i, _ in points]
    ys = [p["effect"] for _, p in points]
    for run in runs(xs):
        plot.line([xs[i] for i in run], [ys[i] for i in run], "s0")
    plot.points(xs, ys, "s0", 3)
    return plot.render()


def page_data(
    windows: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, Any]],
    slices: Sequence[Mapping[str, Any]], pictures: Mapping[str, Any],
) -> dict[str, Any]:
    """What the script draws from, in the order of the heat maps' rows."""
    names = [c["name"] for c in columns]
    groups = [s["name"] for s in slices]
    cells: list[list[Any]] = [[None] * len(windows) for _ in names]
    parts: list[list[list[Any]]] = [[[] for _ in windows] for _ in groups]
    place = {n: i for i, n in enumerate(names)}
    group = {n: i for i, n in enumerate(groups)}
    for i, window in enumerate(windows):
        drawn = pictures["windows"].get(str(window["window"]), {})
        for column in window["columns"]:
            own = {"s": column["state"], "n": column["rows"], "m": _measures(column),
                   "y": column.get("why"), "u": column.get("unseen")}
            if column["slice"] is not None:
                if column["slice"] in group and column["state"] in ("warn", "alert"):
                    parts[group[column["slice"]]][i].append({**own, "c": column["column"]})
            elif column["column"] in place:
                cells[place[column["column"]]][i] = {**own, "p": drawn.get(column["column"])}
    return {
        "windows": [{"name": name_of(w), "rows": w["rows"]} for w in windows],
        "columns": [{"name": n, "then": pictures["columns"].get(n)} for n in names],
        "slices": groups, "cells": cells, "parts": parts, "ticks": ticks_of(windows),
        "symbols": SYMBOLS,
    }


def _measures(column: Mapping[str, Any]) -> list[list[Any]]:
    return [[name.replace("_", " "), *(_digits(m[k]) for k in ("value", "effect", "warn", "alert",
                                                               "q")), m["state"]]
            for name, m in column["measures"].items()]


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
