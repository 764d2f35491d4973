"""The comparison of two runs as a page for people."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpupipe.checkpoints import temporary_name
from gpupipe.compare.rows import WHERE
from gpupipe.errors import ConfigError
from gpupipe.evaluate.page import Card, Mark, Page, Section, Table, render_page
from gpupipe.evaluate.text import number, seconds

MARKS = {"left": "left", "right": "right", None: "not told apart"}
FACTS = {
    "ece": "gap of predicted and observed shares, over bins",
    "prediction_mean": "mean prediction", "target_mean": "mean target",
}


def write_page(found: Mapping[str, Any], path: Path) -> None:
    """Write the page (whole or not at all). ConfigError where its folder is not there."""
    if not path.absolute().parent.is_dir():
        raise ConfigError("there is no such folder", where=str(path.parent),
                          hint="make it, or give --page another name")
    temporary = temporary_name(path.absolute())
    temporary.write_text(render_comparison(found), encoding="utf-8")
    temporary.replace(path)


def render_comparison(found: Mapping[str, Any]) -> str:
    """The HTML page."""
    lead, one = next(iter(found["metrics"].items()))
    left, right = found["left"], found["right"]
    level = f"{100 * found['confidence']:g}%"
    return render_page(Page(
        "comparison", f"{left['name']} and {right['name']}",
        dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        f"Two runs on the same {found['rows']:,} rows, {WHERE[found['judged_on']]}. Differences "
        f"are the second minus the first, with paired {level} intervals.",
        _verdict(one["better"]),
        [_card("left", left), _card("right", right),
         Card(lead, _verdict(one["better"]), "The run's first metric on the same rows.",
              found["sentence"][:1].upper() + found["sentence"][1:] + ".")],
        [("rows", f"{found['rows']:,}"), *((f"{t['name']}, p", f"{t['p']:.3g}")
                                           for t in found["tests"])],
        [
            Section("metrics", "Metrics", [_metrics(found["metrics"]), *_tests(found["tests"])]),
            *([Section("slices", "Slices", [_sliced(s) for s in found["slices"]],
                       "Where one is better than the other. Slices of fewer than 30 rows say "
                       "little.")] if found["slices"] else []),
            Section("costs", "Calibration and costs",
                    [Table("", ("", "left", "right"), facts(found))]),
            Section("changed", "What changed", [
                _changes("Pipeline file", found["changed"]),
                _changes("Around it", found["around"])]),
        ],
    ))


def _verdict(better: str | None) -> Mark:
    return Mark(f"{better} is better", True) if better else Mark("not told apart")


def _card(side: str, about: Mapping[str, Any]) -> Card:
    return Card(about["name"], Mark(side), f"{about['kind']}, of {about['created']}.",
                about["run"])


def _value(score: Mapping[str, Any] | None) -> Any:
    return (score or {}).get("value")


def _span(score: Mapping[str, Any]) -> str | None:
    low, high = score.get("low"), score.get("high")
    return None if low is None or high is None else f"{number(low)} to {number(high)}"


def _row(name: str, one: Mapping[str, Any], *more: Any) -> tuple[Any, ...]:
    mark = Mark(MARKS[one["better"]], True if one["better"] else None)
    return (name, *more, _value(one["left"]), _value(one["right"]), _value(one["difference"]),
            _span(one["difference"]), mark)


def _metrics(metrics: Mapping[str, Any]) -> Table:
    return Table("", ("metric", "left", "right", "right − left", "interval", "better"),
                 [_row(name, one) for name, one in metrics.items()])


def _tests(tests: Sequence[Mapping[str, Any]]) -> list[Table]:
    if not tests:
        return []
    return [Table("Classical tests", ("test", "metric", "statistic", "p", "of"),
                  [(t["name"], t["metric"], t["statistic"], t["p"], t["about"]) for t in tests])]


def _sliced(sliced: Mapping[str, Any]) -> Table:
    more = sliced["left_out"]
    return Table(f"{sliced['metric']} by {sliced['column']}",
                 (sliced["column"], "rows", "left", "right", "right − left", "interval", "better"),
                 [_row(r["level"], r, r["rows"]) for r in sliced["rows"]],
                 f"and {more:,} more levels, with fewer rows" if more else "")


def facts(found: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Calibration, latency and size: what, left, right."""
    calibration = found["calibration"]
    rows: list[tuple[str, Any, Any]] = [
        (FACTS[k], calibration["left"][k], calibration["right"][k]) for k in calibration["left"]
    ]
    times = found["latency"]
    if times:
        for k, name in (("median", "median"), ("p95", "95th percentile")):
            left, right = (seconds_of(times[side][k]) for side in ("left", "right"))
            rows.append((f"one row, {name}", left, right))
    return [*rows, ("bundle, bytes", found["size"]["left"], found["size"]["right"])]


def seconds_of(value: float) -> str:
    """A short time, to a hundredth of a millisecond."""
    return f"{1000 * value:.2f} ms" if value < 1 else str(seconds(value))


def _changes(title: str, changes: Sequence[Mapping[str, Any]]) -> Table:
    return Table(title, ("key", "left", "right"),
                 [(c["key"], shown_value(c["left"]), shown_value(c["right"])) for c in changes],
                 "" if changes else "Nothing.")


def shown_value(value: Any) -> str:
    """A value of a pipeline file as the comparison writes it."""
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)
