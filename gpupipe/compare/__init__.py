"""Two runs or bundles on the same rows: metrics, tests, slices, calibration, costs, changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.latency import single_row, size_of
from gpupipe.bundle.scoring import Bundle, load
from gpupipe.compare.data import rows_of
from gpupipe.compare.rows import WHERE, Paired, paired
from gpupipe.compare.significance import Significance, delong, mcnemar
from gpupipe.evaluate.curves import curves
from gpupipe.evaluate.metrics import METRICS, OF_CLASSES, choose
from gpupipe.evaluate.samples import UNITS
from gpupipe.evaluate.scores import SMALL_SLICE, Score, evaluate, paired_differences
from gpupipe.workflow import show

__all__ = ["Comparison", "compare", "compare_bundles"]

SHOWN_LEVELS = 20


@dataclass(frozen=True)
class Comparison:
    """What two runs differ in; differences are the second minus the first.

    ``found`` is plain data: ``left`` and ``right`` (run, name, created, kind), ``judged_on``,
    ``rows``, ``metrics`` (by name: both values, ``difference``, and which is ``better``: left,
    right, or None where they are not told apart), ``tests``, ``slices``, ``calibration``,
    ``latency``, ``size``, ``changed`` (keys of the pipeline files), ``around`` (data, device,
    versions) and ``sentence``.
    """

    found: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return self.found


def compare(left: Path, right: Path, *, latency: bool = True) -> Comparison:
    """Compare the runs in two folders.

    ``latency`` times single rows with both bundles' own scorer. Raises DataError where a folder is
    no run, or where the two were not judged on the same rows.
    """
    shown = [show(left), show(right)]
    manifests = [s["manifest"] for s in shown]
    prints = [m["data"]["fingerprint"] for m in manifests]
    pair = paired(Path(left), Path(right), prints[0] == prints[1])
    found = _judged(pair, [m["config"]["evaluate"] for m in manifests], manifests[0]["seed"])
    return _told(
        {"left": _about(shown[0]), "right": _about(shown[1]), **found,
         **_costs([load(folder) for folder in (left, right)], latency),
         "changed": changed(*(m["config"] for m in manifests)),
         "around": changed(*map(_around, manifests))})


def compare_bundles(
    left: Path, right: Path, source: object, *, names: tuple[str, str] | None = None,
    slices: Sequence[str] = (), metrics: Sequence[str] | None = None, latency: bool = True,
    configs: Sequence[Mapping[str, Any] | None] = (None, None), confidence: float = 0.95,
    resamples: int = 1000, seed: int = 0, progress: Any = None,
) -> Comparison:
    """Compare two bundles on the same labelled rows, which either scores as it was trained to.

    Parameters
    ----------
    source : labelled data: a file, a glob, a folder or a table.
    names : what to call the two (default: their folders).
    slices : columns of the data by whose levels the first metric is told, too.
    metrics : default: those that the bundles were made with.
    configs : their pipeline files as data, where they are known: what changed.

    Raises DataError where the two predict different things, or cannot both read every row.
    """
    bundles = [load(folder) for folder in (left, right)]
    pair = rows_of(bundles[0], bundles[1], source, slices, progress=progress)
    asked = [list(metrics) if metrics else b.info["metrics"] for b in bundles]
    rules = [{"metrics": m, "confidence": confidence, "resamples": resamples} for m in asked]
    about = [{"run": name, "folder": str(b.path), "name": b.info["name"], "created": None,
              "kind": (config or {}).get("model", {}).get("kind")}
             for name, b, config in zip(names or (str(left), str(right)), bundles, configs,
                                        strict=True)]
    known = [c for c in configs if c is not None]
    return _told({"left": about[0], "right": about[1], **_judged(pair, rules, seed),
                  **_costs(bundles, latency), "changed": changed(*known) if len(known) == 2 else [],
                  "around": changed(*({k: b.info[k] for k in ("data", "versions")}
                                      for b in bundles))})


def _judged(pair: Paired, rules: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """What the rows say: metrics, tests, slices and calibration."""
    metrics = _metrics(pair, rules, seed)
    return {
        "judged_on": pair.side, "rows": len(pair.y), "confidence": rules[0]["confidence"],
        "metrics": metrics, "tests": [t.to_json() for t in _tests(pair)],
        "slices": _slices(pair, next(iter(metrics)), rules[0], seed),
        "calibration": _calibration(pair),
    }


def _told(found: dict[str, Any]) -> Comparison:
    return Comparison({**found, "sentence": _sentence(found, next(iter(found["metrics"])))})


def _about(shown: Mapping[str, Any]) -> dict[str, Any]:
    manifest = shown["manifest"]
    return {"run": manifest["run"], "folder": shown["run"], "name": manifest["name"],
            "created": manifest["created"], "kind": manifest["config"]["model"]["kind"]}


def _metrics(pair: Paired, rules: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Every metric that either run names, of both, with the paired difference."""
    asked = [n for r in rules for n in r["metrics"] or ()]
    names = [m.name for m in choose(pair.task, asked or None)]
    options: dict[str, Any] = {"weight": pair.weight, "seed": seed,
                               **{k: rules[0][k] for k in ("confidence", "resamples")}}
    found: dict[str, Any] = {}
    for of_labels in (False, True):
        some = [n for n in names if (METRICS[pair.task, n].needs == "label") == of_labels]
        if not some:
            continue
        both = pair.predictions(some[0])
        sides = [evaluate(pair.task, pair.y, p, metrics=some, classes=pair.classes, **options)
                 for p in both]
        away = paired_differences(pair.task, some, pair.y, both[1], both[0], **options)
        found |= {n: {"left": sides[0][n].to_json(), "right": sides[1][n].to_json(),
                      "difference": away[n].to_json(), "better": better(pair, n, away[n])}
                  for n in some}
    return {n: found[n] for n in names}


def better(pair: Paired, name: str, away: Score) -> str | None:
    """Which side is the better one by the interval of "right minus left"; None: not told apart."""
    if away.low is None or away.high is None or away.low <= 0 <= away.high:
        return None
    return "right" if (away.low > 0) == METRICS[pair.task, name].greater_is_better else "left"


def _tests(pair: Paired) -> list[Significance]:
    """The classical tests that fit the task; none where rows are weighted."""
    if pair.weight is not None or pair.task not in OF_CLASSES:
        return []
    a, b = pair.left.prediction, pair.right.prediction
    labels = [(p > t).astype(int) if p.ndim == 1 else p.argmax(axis=1)
              for p, t in zip((a, b), pair.thresholds, strict=True)]
    tests = [mcnemar(*(label == pair.y for label in labels))]
    if pair.task == "binary":
        tests.insert(0, delong(pair.y, a, b))
    return [t for t in tests if t is not None]


def _slices(
    pair: Paired, lead: str, rules: Mapping[str, Any], seed: int
) -> list[dict[str, Any]]:
    """The first metric within each level of the columns that either run slices by."""
    found = []
    for column, levels in {**pair.right.slices, **pair.left.slices}.items():
        groups, left_out = by_level(levels)
        rows = [{"level": name, "rows": int(at.sum()), "small": bool(at.sum() < SMALL_SLICE),
                 **_within(pair, at, lead, rules, seed)} for name, at in groups]
        found.append({"column": column, "metric": lead, "rows": rows, "left_out": left_out})
    return found


def by_level(levels: pa.Array) -> tuple[list[tuple[str, np.ndarray]], int]:
    """The levels with most rows, at most `SHOWN_LEVELS`: their names, and where their rows are
    (bool ``[n]``). And how many levels were left out."""
    encoded = levels.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    counts = np.bincount(codes + 1, minlength=len(encoded.dictionary) + 1)
    ranked = [c for c in np.argsort(-counts, kind="stable").tolist() if counts[c]]
    found = [(encoded.dictionary[c - 1].as_py() if c else "(missing)", codes == c - 1)
             for c in ranked[:SHOWN_LEVELS]]
    return found, len(ranked) - len(found)


def _within(
    pair: Paired, at: np.ndarray, lead: str, rules: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    y, weight = pair.y[at], None if pair.weight is None else pair.weight[at]
    a, b = pair.predictions(lead, at)
    if weight is not None and not weight.sum():
        none = Score(None, note="undefined: all rows have weight 0").to_json()
        return {"left": none, "right": none, "difference": none, "better": None}
    sides = [evaluate(pair.task, y, p, weight=weight, metrics=[lead], resamples=0)[lead].to_json()
             for p in (a, b)]
    away = paired_differences(pair.task, [lead], y, b, a, weight=weight, seed=seed, resamples=500,
                              confidence=rules["confidence"], units=UNITS // 4)[lead]
    return {"left": sides[0], "right": sides[1], "difference": away.to_json(),
            "better": better(pair, lead, away)}


def _calibration(pair: Paired) -> dict[str, Any]:
    """How far predictions lie from the truth on the average: overall, and over bins of them."""
    found: dict[str, Any] = {}
    weight = np.ones(len(pair.y)) if pair.weight is None else pair.weight
    for side, kept in (("left", pair.left), ("right", pair.right)):
        mine: dict[str, Any] = {}
        if pair.task in OF_CLASSES:
            drawn = curves(pair.task, pair.y, kept.prediction, weight=pair.weight,
                           classes=pair.classes)["calibration"]
            mine["ece"] = drawn["ece"]
        if pair.task in ("binary", "regression"):
            mine["prediction_mean"] = float(np.average(kept.prediction, weights=weight))
            mine["target_mean"] = float(np.average(pair.y, weights=weight))
        found[side] = mine
    return found


def _costs(bundles: Sequence[Bundle], latency: bool) -> dict[str, Any]:
    sizes = [size_of(b.path) for b in bundles]
    found: dict[str, Any] = {"size": {"left": sizes[0], "right": sizes[1]}, "latency": None}
    if latency:
        times = single_row(bundles)
        found["latency"] = {"left": times[0], "right": times[1]}
    return found


def changed(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The dotted keys whose values differ, with both; one that is absent is None."""
    a, b = _flat(left), _flat(right)
    return [{"key": key, "left": a.get(key), "right": b.get(key)}
            for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {path: value if value != {} else None}
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{path}.{key}" if path else str(key))
    return found


def _around(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What may differ beside the pipeline file."""
    data, engine = manifest["data"], manifest["engine"]
    return {
        "data": {"fingerprint": data["fingerprint"], "rows": data["rows"],
                 "columns": data["columns"]},
        "device": engine["device"], "engine": engine["kind"], "platform": manifest["platform"],
        "commit": manifest["git_commit"], "versions": manifest["versions"],
    }


def _sentence(found: Mapping[str, Any], lead: str) -> str:
    one = found["metrics"][lead]
    names = {side: found[side]["run"] for side in ("left", "right")}
    title, away = lead, one["difference"]
    span = "" if away["low"] is None else f" ({away['low']:+.4g} to {away['high']:+.4g})"
    told = "undefined" if away["value"] is None else f"{away['value']:+.4g}{span}"
    where = f"on {found['rows']:,} rows ({WHERE[found['judged_on']]})"
    if one["better"] is None:
        return f"the two are not told apart by {title} {where}: {told}"
    return f"{names[one['better']]} is better by {title} {where}: {told}"
