"""Counts of what the server does, as Prometheus reads them.

Numbers live in plain dictionaries of one process, so that counting costs next to nothing. With
several processes each writes its numbers to a file now and then, and whoever is asked adds up its
own and the last ones of the others, those that have ended too: counters never fall.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
           2.5, 5.0, 10.0)
"""Upper edges of the latency histogram."""
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384)
"""Upper edges of the histogram of batches."""
SHARES = tuple(round(i / 20, 2) for i in range(1, 21))
"""Upper edges of the histogram of probabilities."""
KINDS = {
    "gpupipe_requests_total": ("counter", "Requests by route, method and status."),
    "gpupipe_request_seconds": ("histogram", "Time from the request's head to its answer."),
    "gpupipe_rows_total": ("counter", "Rows that were scored, by variant."),
    "gpupipe_batch_rows": ("histogram", "Rows that were scored together."),
    "gpupipe_rejections_total": ("counter", "Requests that were refused, by reason."),
    "gpupipe_queue_requests": ("gauge", "Requests that wait to be scored."),
    "gpupipe_connections": ("gauge", "Open connections."),
    "gpupipe_buffered_bytes": ("gauge", "Bytes of bodies being received or answered."),
    "gpupipe_unseen_values_total": ("counter", "Texts that training never saw, by column."),
    "gpupipe_nulls_total": ("counter", "Missing values, by column."),
    "gpupipe_ignored_fields_total": ("counter", "Fields of rows that are no column."),
    "gpupipe_score": ("histogram", "Scores: P(positive), the highest probability, or the value."),
    "gpupipe_model_info": ("gauge", "1 for each model in use."),
    "gpupipe_reloads_total": ("counter", "Other versions that were loaded, or refused."),
    "gpupipe_model_loaded_timestamp_seconds": ("gauge", "When the model in use was loaded."),
    "gpupipe_log_rows_total": ("counter", "Rows of the prediction log, written or dropped."),
    "gpupipe_log_errors_total": ("counter", "Writes of the prediction log that failed."),
    "gpupipe_shadow_total": ("counter", "Requests for shadow models, sent or dropped."),
    "gpupipe_worker_info": ("gauge", "1 for each process that counts."),
}
"""The metrics: kind and help."""

Key = tuple[str, tuple[tuple[str, str], ...]]


class Histogram:
    """Counts of values up to each edge, and their sum."""

    __slots__ = ("counts", "edges", "total")

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges, self.counts, self.total = tuple(edges), [0] * (len(edges) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.edges, value)] += 1
        self.total += value


class Metrics:
    """The numbers of this process.

    Parameters
    ----------
    folder : where the processes of one server leave theirs for each other; None for one process.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.counters: dict[Key, float] = defaultdict(float)
        self.gauges: dict[Key, float] = {}
        self.histograms: dict[Key, Histogram] = {}
        self._answers: dict[tuple[str, str, int], int] = defaultdict(int)
        self._latency: dict[str, Histogram] = {}
        self._scores: dict[str, Histogram] = {}

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        self.counters[name, tuple(labels.items())] += amount

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        self.gauges[name, tuple(labels.items())] = value

    def forget(self, name: str) -> None:
        """Leave out a gauge, whatever its labels."""
        for key in [k for k in self.gauges if k[0] == name]:
            del self.gauges[key]

    def histogram(self, name: str, edges: Sequence[float], /, **labels: str) -> Histogram:
        """The histogram of that name and those labels, made where there is none."""
        key = name, tuple(labels.items())
        if key not in self.histograms:
            self.histograms[key] = Histogram(edges)
        return self.histograms[key]

    def scores(
        self, variant: str, edges: tuple[float, ...], predictions: Iterable[dict[str, Any]]
    ) -> None:
        """Count the scores of a variant: P(positive), the highest probability, or the value."""
        found = self._scores.get(variant)
        if found is None or found.edges != edges:  # another version may have other edges
            found = self._scores[variant] = Histogram(edges)
            self.histograms["gpupipe_score", (("variant", variant),)] = found
        for p in predictions:
            value = p.get("probability")
            if value is None and "probabilities" in p:
                value = max(p["probabilities"].values())
            if value is None:
                value = p.get("prediction")
            if isinstance(value, (int, float)):
                found.observe(value)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer; the one call that every request makes."""
        self._answers[route, method, status] += 1
        latency = self._latency.get(route)
        if latency is None:
            latency = self._latency[route] = self.histogram("gpupipe_request_seconds", SECONDS,
                                                            route=route)
        latency.observe(seconds)

    def to_json(self) -> dict[str, Any]:
        counters = [*self.counters.items()]
        counters += [(("gpupipe_requests_total", (("route", r), ("method", m), ("code", str(c)))),
                      n) for (r, m, c), n in [*self._answers.items()]]
        return {
            "counters": counters, "gauges": [*self.gauges.items()],
            "histograms": [(k, h.edges, h.counts, h.total)
                           for k, h in list(self.histograms.items())],
        }

    def save(self, numbers: dict[str, Any]) -> None:
        """Leave `to_json` for the other processes; a full disk is passed over."""
        if self.folder is None:
            return
        path = self.folder / f"{os.getpid()}.json"
        with suppress(OSError):
            temporary = path.with_suffix(".tmp")
            temporary.write_bytes(orjson.dumps(numbers))
            temporary.replace(path)

    def text(self) -> str:
        """All processes' numbers in Prometheus' text format."""
        parts = [self.to_json()]
        if self.folder is not None:
            for path in sorted(self.folder.glob("*.json")):
                if path.stem == str(os.getpid()):
                    continue
                with suppress(OSError, ValueError):
                    part = orjson.loads(path.read_bytes())
                    if not _alive(path.stem):
                        part["gauges"] = []
                    parts.append(part)
        return exposition(parts)


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (OSError, ValueError):
        return False
    return True


def exposition(parts: Iterable[dict[str, Any]]) -> str:
    """The sums of several processes' numbers in Prometheus' text format, version 0.0.4."""
    plain: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    spread: dict[str, dict[str, tuple[Sequence[float], list[int], float]]] = defaultdict(dict)
    for part in parts:
        for (name, labels), value in [*part["counters"], *part["gauges"]]:
            key = _labels(labels)
            if name in ("gpupipe_model_info", "gpupipe_worker_info"):
                plain[name][key] = 1
            elif name == "gpupipe_model_loaded_timestamp_seconds":
                plain[name][key] = max(plain[name][key], value)
            else:
                plain[name][key] += value
        for (name, labels), edges, counts, total in part["histograms"]:
            key = _labels(labels)
            before = spread[name].get(key)
            if before is None or list(before[0]) != list(edges):
                spread[name][key] = edges, list(counts), total
            else:
                added = [a + b for a, b in zip(before[1], counts, strict=True)]
                spread[name][key] = edges, added, before[2] + total
    lines = []
    for name, (kind, about) in KINDS.items():
        if name not in plain and name not in spread:
            continue
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for key, value in plain.get(name, {}).items():
            lines.append(f"{name}{{{key}}} {_number(value)}" if key else f"{name} {_number(value)}")
        for key, (edges, counts, total) in spread.get(name, {}).items():
            lines += _histogram(name, key, edges, counts, total)
    return "\n".join(lines) + "\n"


def _histogram(
    name: str, key: str, edges: Sequence[float], counts: Sequence[int], total: float
) -> Iterable[str]:
    before, joined = 0, f"{key}," if key else ""
    for edge, count in zip([*edges, "+Inf"], counts, strict=True):
        before += count
        yield f'{name}_bucket{{{joined}le="{edge}"}} {before}'
    yield f"{name}_sum{{{key}}} {_number(total)}" if key else f"{name}_sum {_number(total)}"
    yield f"{name}_count{{{key}}} {before}" if key else f"{name}_count {before}"


def _labels(labels: Iterable[Sequence[str]]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
