"""The HTML report: one self-contained page from one JSON-able dict.

`Report` is that dict. Every key is optional but ``name`` and ``task``: a section whose data are
missing is left out. Text may be anything (it is escaped, isolated and cut to fit); numbers may be
None, which is shown as a dash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from jinja2 import ChainableUndefined, Environment, FileSystemLoader

from gpupipe.evaluate.clusters import is_better as found_better
from gpupipe.evaluate.decisions import accounts
from gpupipe.evaluate.explain_page import explained
from gpupipe.evaluate.figures import figures
from gpupipe.evaluate.metrics import DEFAULT_METRICS, METRICS, Task
from gpupipe.evaluate.svg import short, spark
from gpupipe.evaluate.text import CONTROL, cut, name_tag, number, percent, score, seconds
from gpupipe.evaluate.tracks import scale_of, track
from gpupipe.evaluate.trust import trust

SHOWN_COLUMNS = 60
SHOWN_FEATURES = 25


class ScoreJson(TypedDict, total=False):
    """`Score.to_json()`; ``note`` starts with "undefined" where value is None."""

    value: float | None
    low: float | None
    high: float | None
    note: str


class Source(TypedDict, total=False):
    path: str
    rows: int
    columns: int
    fingerprint: str


class Split(TypedDict, total=False):
    by: str
    train: int
    holdout: int
    folds: int


class Plan(TypedDict, total=False):
    device: str
    engine: str
    lines: list[str]


class Timing(TypedDict, total=False):
    stage: str
    seconds: float
    rows: int


class Quarantine(TypedDict, total=False):
    """``reasons``: {"reason", "count"}; ``examples``: {"line", "reason", "text"}."""

    count: int
    rows: int
    share: float
    path: str
    reasons: list[dict[str, Any]]
    examples: list[dict[str, Any]]


class Histogram(TypedDict, total=False):
    """``edges`` has one more than ``counts``; at most some 60 bins, best of equal width.

    ``ends`` is what to write under the first and last edge, where not the numbers (dates).
    """

    edges: list[float]
    counts: list[float]
    ends: list[str]


class Level(TypedDict):
    value: str
    count: int


class Column(TypedDict, total=False):
    """One column's profile. ``missing`` is a share; ``min`` ... may be numbers or text (dates)."""

    name: str
    dtype: str
    role: str
    missing: float
    distinct: int
    min: float | str
    max: float | str
    mean: float | str
    median: float | str
    histogram: Histogram
    top: list[Level]
    note: str


Scores = dict[str, ScoreJson]


class Scored(TypedDict, total=False):
    """``baselines`` and ``differences`` (model minus baseline) are by the baseline's name."""

    model: Scores
    baselines: dict[str, Scores]
    differences: dict[str, Scores]
    rows: int


class Metrics(TypedDict, total=False):
    """``cross_validation`` scores the out-of-fold predictions; ``folds`` has one dict a fold.

    ``confidence`` is the intervals' (default 0.95). ``leaderboard`` is `Leaderboard.to_json`,
    ``looks`` what `looks.counted` gives, ``split_honesty`` what `honesty.side_by_side` gives.
    """

    confidence: float
    holdout: Scored
    cross_validation: Scored
    folds: list[dict[str, float | None]]
    training: Scored
    leaderboard: dict[str, Any]
    looks: dict[str, Any]
    split_honesty: dict[str, Any]


class Importance(TypedDict, total=False):
    feature: str
    gain: float
    share: float


class Slices(TypedDict):
    """``rows`` as from `slice_scores`."""

    column: str
    rows: list[dict[str, Any]]


class Model(TypedDict, total=False):
    kind: str
    params: dict[str, Any]
    rounds: int


class Features(TypedDict, total=False):
    """One step: the columns that it takes and those that it makes."""

    step: str
    columns_in: list[str]
    columns_out: list[str]


class Scan(TypedDict, total=False):
    """One pass over the data: what learns in it."""

    name: str
    learns: list[str]
    rows: int


class Learning(TypedDict, total=False):
    """``train`` and ``valid`` have a value ``every`` so many rounds; ``best`` counts from 1."""

    metric: str
    train: list[float]
    valid: list[float]
    every: int
    best: int


class Report(TypedDict, total=False):
    name: str
    created: str
    run_id: str
    task: Task
    target: str
    classes: list[str]
    event: dict[str, str] | None  # `outcomes.event_of`
    headline: str
    source: Source
    split: Split
    plan: Plan
    timings: list[Timing]
    warnings: list[str]
    quarantine: Quarantine
    profile: list[Column]
    target_profile: Column
    metrics: Metrics
    curves: dict[str, Any]
    calibration: dict[str, Any]
    decision: dict[str, Any]
    intervals: dict[str, Any]
    importances: list[Importance]
    slices: list[Slices]
    explanations: dict[str, Any]
    model: Model
    leaks: list[dict[str, Any]]  # the linter's findings, `Finding.to_json()`
    features: list[Features]
    scans: list[Scan]
    selection: dict[str, Any]  # from `select.summary`
    learning_curve: Learning
    versions: dict[str, str]
    seed: int


def render_report(data: Report) -> str:
    """The page. The metric named by ``headline`` (default: the task's first) leads it."""
    html = environment().get_template("report.html").render(view(data))
    return CONTROL.sub("�", html).encode("utf-8", "replace").decode("utf-8")


def view(data: Report) -> dict[str, Any]:
    """What the template is given: the data, and the few things worked out from them."""
    metrics = data.get("metrics") or {}
    basis, label = (metrics.get("holdout") or {}), "holdout"
    if not basis.get("model"):
        basis, label = (metrics.get("cross_validation") or {}), "out-of-fold"
    if not basis.get("model"):
        basis, label = (metrics.get("training") or {}), "training"
    headline = data.get("headline") or DEFAULT_METRICS[data["task"]][0]
    shown, rest = _columns(data)
    importances = sorted(data.get("importances") or [], key=lambda i: -(i.get("share") or 0))
    timings = data.get("timings") or []
    return {
        "r": {key: value for key, value in data.items() if value is not None},
        "hero": _comparison(data["task"], headline, basis) if basis.get("model") else None,
        "confidence": f"{100 * metrics.get('confidence', 0.95):g}%",
        "basis": basis,
        "basis_label": label,
        "table": [_comparison(data["task"], name, basis) for name in basis.get("model") or {}],
        "baselines": list(basis.get("baselines") or {}),
        "cv": (metrics.get("cross_validation") or {}).get("model") or {},
        "folds": _folds(data["task"], metrics.get("folds") or []),
        "trust": trust(metrics),
        "explained": explained(data.get("explanations")),
        "figures": figures(data.get("curves") or {}, data.get("learning_curve")),
        "confusion": _confusion((data.get("curves") or {}).get("confusion")),
        "accounts": accounts(data),
        "columns": shown,
        "other_columns": rest,
        "importances": importances[:SHOWN_FEATURES],
        "other_importances": importances[SHOWN_FEATURES:],
        "total_seconds": sum(t.get("seconds") or 0 for t in timings),
        "slices": [_slice(data["task"], one, basis.get("model") or {})
                   for one in data.get("slices") or []],
    }


def _comparison(task: Task, name: str, basis: Scored) -> dict[str, Any]:
    """One metric: the model and its baselines on one scale, as shares of the track's width."""
    known = METRICS.get((task, name))
    greater = known.greater_is_better if known else found_better(name)
    entries = [("model", (basis.get("model") or {}).get(name) or {})]
    entries += [(b, s.get(name) or {}) for b, s in (basis.get("baselines") or {}).items()]
    scale = scale_of([score for _, score in entries])
    differences = [
        (b, s[name]) for b, s in (basis.get("differences") or {}).items()
        if (s.get(name) or {}).get("value") is not None
    ]
    return {
        "name": name,
        "title": _title(task, name),
        "better": None if greater is None else "higher" if greater else "lower",
        "model": entries[0][1],
        "entries": [{"name": n, "score": s, "track": track(s, scale)} for n, s in entries],
        "differences": differences,
    }


def _title(task: Task, name: str) -> str:
    known = METRICS.get((task, name))
    return known.title if known else name.replace("_", " ")


def _folds(task: Task, folds: list[dict[str, float | None]]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for fold in folds for name in fold)
    rows = []
    for name in names:
        values = [fold.get(name) for fold in folds]
        known = [v for v in values if v is not None]
        mean = sum(known) / len(known) if known else None
        spread = None
        if mean is not None and len(known) > 1:
            spread = math.sqrt(sum((v - mean) ** 2 for v in known) / (len(known) - 1))
        rows.append({"title": _title(task, name), "values": values, "mean": mean, "spread": spread})
    return rows


def _columns(data: Report) -> tuple[list[dict[str, Any]], list[Column]]:
    """The columns that get a card, the most important ones where there are many, and the rest."""
    profile = data.get("profile") or []
    names = [str(c.get("name", "")) for c in profile]
    share = dict.fromkeys(names, 0.0)
    longest = sorted((n for n in share if n), key=len, reverse=True)
    for one in data.get("importances") or []:
        feature = str(one.get("feature", ""))
        # A feature made from a column starts with its name ("sex_Male", "day__month").
        owner = feature if feature in share else next(
            (n for n in longest if feature.startswith(n)), None)
        if owner is not None:
            share[owner] += one.get("share") or 0
    order = list(range(len(profile)))
    if len(profile) > SHOWN_COLUMNS:
        order.sort(key=lambda i: -share[names[i]])
    kept = sorted(order[:SHOWN_COLUMNS]) if not any(share.values()) else order[:SHOWN_COLUMNS]
    cards = [_card(profile[i], share[names[i]]) for i in kept]
    chosen = set(kept)
    return cards, [c for i, c in enumerate(profile) if i not in chosen]


def _card(column: Column, share: float = 0.0) -> dict[str, Any]:
    histogram, top = column.get("histogram"), column.get("top") or []
    most = max((level["count"] for level in top), default=0) or 1
    return {
        "column": column,
        "share": share,
        "spark": spark(histogram["edges"], histogram["counts"], "distribution")
        if histogram and histogram.get("counts") else None,
        "ends": histogram.get("ends") or (histogram["edges"][0], histogram["edges"][-1])
        if histogram else None,
        "top": [{**level, "width": round(100 * level["count"] / most, 1)} for level in top[:5]],
        "more": max(0, (column.get("distinct") or 0) - 5) if top else 0,
    }


def _confusion(data: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not data:
        return None
    rows = []
    for name, counts in zip(data["classes"], data["counts"], strict=True):
        total = sum(counts)
        shares = [c / total if total else None for c in counts]
        rows.append({"name": name, "total": total,
                     "cells": list(zip(counts, shares, strict=True))})
    return {"classes": data["classes"], "rows": rows, "dense": len(rows) > 10}


def _slice(task: Task, data: Slices, whole: Scores) -> dict[str, Any]:
    rows = data["rows"]
    names = list(rows[0]["scores"]) if rows else []
    lead = names[0] if names else ""
    scale = scale_of([r["scores"].get(lead) or {} for r in rows] + [whole.get(lead) or {}])
    reference = track(whole.get(lead) or {}, scale) or {}
    tracks = [track(r["scores"].get(lead) or {}, scale) for r in rows]
    return {
        "column": data["column"],
        "names": names,
        "titles": [_title(task, n) for n in names],
        "means": bool(rows) and "target_mean" in rows[0],
        "covered": bool(rows) and "coverage" in rows[0],
        "rows": [{**r, "track": t and {**t, "ref": reference.get("at")}}
                 for r, t in zip(rows, tracks, strict=True)],
    }


@cache
def environment() -> Environment:
    """The templates, with the filters that write numbers and names."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates", encoding="utf-8"),
        autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, score=score, percent=percent, seconds=seconds, tag=name_tag, short=short,
        card=_card, cut=cut,
    )
    return environment
