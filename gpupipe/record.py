"""What a run writes down: the report's data, the manifest, and what the bundle says of itself."""

from __future__ import annotations

import importlib
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.bundle.store import Contents
from gpupipe.config import PipelineConfig, dump_config
from gpupipe.data.dataset import Dataset, ParquetPart
from gpupipe.judging import headline, pictures
from gpupipe.stats.quantiles import BINS, Extremes, Histogram, bin_edges
from gpupipe.steps.base import ROLES
from gpupipe.steps.graph import Graph
from gpupipe.steps.profile import MOMENTS, Profile
from gpupipe.training import Trained

LIBRARIES = ("numpy", "pandas", "pyarrow", "sklearn", "xgboost")
PICTURE_BINS = 40
TOP_LEVELS = 8
KEPT_LEVELS = 100_000
"""Levels of a column that a bundle keeps for its data contract."""


def versions() -> dict[str, str]:
    """The versions of Python, gpupipe and the libraries that numbers depend on."""
    from importlib.metadata import version

    found = {"python": platform.python_version(), "gpupipe": version("gpupipe")}
    return found | {n: str(importlib.import_module(n).__version__) for n in LIBRARIES}


def git_commit(folder: Path) -> str | None:
    """The commit of the work tree that holds ``folder``; None where there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True,
            timeout=5, check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def contents_of(trained: Trained) -> Contents:
    """The bundle of a trained pipeline: what scoring needs, and where it came from."""
    config, outcome = trained.config, trained.model
    info = {
        "name": config.name, "task": trained.target.task,
        "classes": list(trained.target.classes), "target": config.data.target,
        "target_dtype": trained.dataset.schema[config.data.target].dtype,
        "key": list(config.data.key or []), "missing": config.data.missing,
        "reader": {"format": config.data.format, "delimiter": config.data.delimiter,
                   "encoding": config.data.encoding, "header": config.data.header},
        "weight": config.data.weight, "metrics": config.evaluate.metrics,
        "split": trained.split.to_json(), "seed": config.seed, "versions": versions(),
        "data": {"fingerprint": trained.dataset.fingerprint, "rows": trained.dataset.rows},
    }
    schema = trained.dataset.schema.select(
        [f.name for f in trained.dataset.schema if f.name in set(outcome.candidate.graph.raw)]
    )
    return Contents(info, schema, outcome.candidate.graph, outcome.fitted, outcome.final)


def states_of(trained: Trained) -> dict[str, Any]:
    """The profile's states of the columns in use: ``{column: {statistic: {array: values}}}``."""
    found: dict[str, Any] = {}
    for column in [*trained.model.candidate.graph.raw, trained.config.data.target]:
        mine: dict[str, Any] = {}
        moments = trained.profile.of(column, MOMENTS)
        mine["moments"] = {"count": moments.count, "missing": moments.missing,
                           "infinite": moments.infinite, "zeros": moments.zeros,
                           "sums": moments.sums}
        for name, statistic in (("histogram", Histogram()), ("extremes", Extremes())):
            state = trained.profile.of(column, statistic)
            if state is not None:
                mine[name] = state.arrays()
        vocabulary = trained.profile.vocabulary(column)
        if vocabulary is not None and len(vocabulary.levels) <= KEPT_LEVELS:
            ranked = vocabulary.ranked()
            mine["vocabulary"] = {"levels": ranked.levels, "counts": ranked.counts}
        found[column] = mine
    return found


def manifest_of(
    trained: Trained, run_id: str, created: str, choice: dict[str, Any]
) -> dict[str, Any]:
    """Everything that says how the run came about."""
    dataset = trained.dataset
    return {
        "run": run_id, "name": trained.config.name, "created": created,
        "config": dump_config(trained.config), "engine": choice,
        "data": {"source": dataset.source, "rows": dataset.rows,
                 "columns": len(dataset.schema.fields), "fingerprint": dataset.fingerprint,
                 "schema": dataset.schema.to_json()},
        "quarantine": {"count": dataset.quarantine.count, "reasons": dataset.quarantine.reasons},
        "split": trained.split.to_json(), "scans": [list(s) for s in trained.knowledge.scans],
        "seed": trained.config.seed, "git_commit": git_commit(trained.config.base),
        "versions": versions(), "platform": platform.platform(),
        "notes": [*dataset.notes, *trained.notes],
    }


def report_of(
    trained: Trained, manifest: dict[str, Any], metrics: dict[str, Any],
    sliced: list[dict[str, Any]], plan_lines: list[str],
) -> dict[str, Any]:
    """The data of the report: `evaluate.report.Report`."""
    config, dataset, outcome = trained.config, trained.dataset, trained.model
    counts = np.sum([np.bincount(r.bucket, minlength=trained.split.buckets)
                     for r in trained.rowed.rows], axis=0)
    data: dict[str, Any] = {
        "name": config.name, "created": manifest["created"], "run_id": manifest["run"],
        "task": trained.target.task, "target": config.data.target,
        "classes": list(trained.target.classes),
        "source": {"path": dataset.source, "rows": dataset.rows,
                   "columns": len(dataset.schema.fields), "fingerprint": dataset.fingerprint},
        "split": {"by": trained.split.by, "folds": len(trained.split.folds),
                  "train": int(counts[list(trained.split.train)].sum()),
                  "holdout": int(counts[list(trained.split.holdout)].sum())},
        "plan": {"device": manifest["engine"]["device"], "engine": manifest["engine"]["kind"],
                 "lines": plan_lines},
        "timings": trained.timings.stages, "warnings": manifest["notes"],
        "profile": [column_of(trained.profile, f.name) for f in trained.profile.schema
                    if f.name != config.data.target],
        "target_profile": column_of(trained.profile, config.data.target),
        "metrics": metrics, "slices": sliced,
        "importances": [{"feature": n, "gain": v, "share": v}
                        for n, v in outcome.final.importances()],
        "model": {"kind": outcome.final.kind, "params": getattr(
            outcome.candidate.model, "params", {}), "rounds": outcome.final.rounds},
        "features": [{"step": s.name, "columns_in": list(i), "columns_out": list(o)}
                     for s, i, o in outcome.candidate.graph.stages if i or o],
        "scans": scans_of(outcome.candidate.graph, dataset.rows),
        "versions": manifest["versions"], "seed": config.seed,
    }
    if headline(metrics):
        data["curves"] = pictures(trained)
    if dataset.quarantine.count:
        data["quarantine"] = quarantine_of(dataset)
    learning = learning_of(trained)
    if learning:
        data["learning_curve"] = learning
    return data


def scans_of(graph: Graph, rows: int) -> list[dict[str, Any]]:
    """What each pass over the data is for."""
    first: dict[str, Any] = {"name": "profile", "learns": ["profile", "row hashes"], "rows": rows}
    rest = [{"name": f"scan {i}", "learns": learned, "rows": rows}
            for i, learned in enumerate(graph.levels(), 1)]
    return [first, *rest]


def quarantine_of(dataset: Dataset) -> dict[str, Any]:
    """Rows that were set aside: how many, why, and the first of them."""
    import json

    aside = dataset.quarantine
    examples = []
    if aside.path:
        with Path(aside.path).open(encoding="utf-8") as file:
            for line, _ in zip(file, range(5), strict=False):
                examples.append(json.loads(line))
    total = dataset.rows + aside.count
    return {"count": aside.count, "rows": total, "share": aside.count / total,
            "path": aside.path or "", "examples": examples,
            "reasons": [{"reason": r, "count": n} for r, n in aside.reasons.items()]}


def learning_of(trained: Trained) -> dict[str, Any] | None:
    """The mean validation loss by round over the folds."""
    curves = trained.model.curves
    if not curves or trained.model.rounds is None:
        return None
    shortest = min(len(c["valid"]) for c in curves)
    mean = np.mean([c["valid"][:shortest] for c in curves], axis=0)
    return {"metric": str(curves[0].get("metric", "loss")), "valid": mean.tolist(),
            "best": trained.model.rounds}


def column_of(profile: Profile, name: str) -> dict[str, Any]:
    """One column of the report's data section."""
    dtype = profile.schema[name].dtype
    role = next(r for r, dtypes in ROLES.items() if r != "all" and dtype in dtypes)
    column: dict[str, Any] = {"name": name, "dtype": dtype, "role": role,
                              "missing": profile.missing(name) / profile.rows}
    vocabulary = profile.vocabulary(name)
    if vocabulary is not None and not vocabulary.overflowed:
        ranked = vocabulary.ranked()
        column["distinct"] = len(ranked.levels)
        if dtype in ("string", "bool") or len(ranked.levels) <= TOP_LEVELS:
            column["top"] = [
                {"value": str(v), "count": int(n)} for v, n in zip(
                    ranked.levels.slice(0, TOP_LEVELS).to_pylist(), ranked.counts[0], strict=False)
            ]
    histogram = profile.of(name, Histogram())
    if histogram is None or not histogram.counts.any():
        return column
    extremes, moments = profile.of(name, Extremes()), profile.of(name, MOMENTS)
    low, high = float(extremes.low[0]), float(extremes.high[0])
    column |= {"min": _shown(low, dtype), "max": _shown(high, dtype),
               "mean": _shown(moments.mean(), dtype),
               "median": _shown(_median(histogram.counts[0], low, high), dtype)}
    if "top" not in column and high > low:
        column["histogram"] = _picture(histogram.counts[0], low, high)
    infinite = int(moments.infinite[0])
    if infinite:
        column["note"] = f"{infinite:,} infinite values count as missing"
    return column


def _shown(value: float, dtype: str) -> float | str:
    return str(np.datetime64(int(value), "us"))[:19] if dtype == "timestamp" else value


def _middles(low: float, high: float) -> np.ndarray:
    """The middle of each bit-pattern bin, kept within the column's range."""
    lower = bin_edges()
    upper = np.append(lower[1:], np.inf)
    with np.errstate(invalid="ignore"):
        return np.clip((np.clip(lower, low, high) + np.clip(upper, low, high)) / 2, low, high)


def _median(counts: np.ndarray, low: float, high: float) -> float:
    """The median to within a bin (a part in 128)."""
    at = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return float(_middles(low, high)[min(at, BINS - 1)])


def _picture(counts: np.ndarray, low: float, high: float) -> dict[str, list[float]]:
    """Equal-width bins for a picture, from the bit-pattern bins; far tails end in the last bin."""
    cumulative = np.cumsum(counts) / counts.sum()
    middles = _middles(low, high)
    first, last = (float(middles[min(int(np.searchsorted(cumulative, q)), BINS - 1)])
                   for q in (0.002, 0.998))
    if last <= first:
        first, last = low, high
    edges = np.linspace(first, last, PICTURE_BINS + 1)
    held = np.flatnonzero(counts)
    where = np.clip(np.searchsorted(edges, middles[held], side="right") - 1, 0, PICTURE_BINS - 1)
    sums = np.bincount(where, weights=counts[held], minlength=PICTURE_BINS)
    return {"edges": edges.tolist(), "counts": sums.tolist()}


def data_bytes(dataset: Dataset) -> int:
    """The bytes of the dataset's Parquet files; 0 for a table in memory."""
    paths = {p.path for p in dataset.parts if isinstance(p, ParquetPart)}
    return sum(Path(p).stat().st_size for p in paths)


def config_source(config: PipelineConfig) -> str | list[str]:
    """What the pipeline file names as its source, resolved."""
    found = config.sources()
    return found[0] if isinstance(config.data.source, str) else found
