"""What a run writes down: the report's data, the manifest, and what the bundle says of itself."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.bundle.store import Contents
from gpupipe.checkpoints import library_versions
from gpupipe.config import PipelineConfig, dump_config
from gpupipe.data.dataset import Dataset
from gpupipe.decide.predicted import TASKS, Judged, predicted_states
from gpupipe.describe import column_of
from gpupipe.evaluate.clusters import METRICS
from gpupipe.judging import headline, pictures
from gpupipe.models.base import innermost, layers
from gpupipe.models.selected import FittedSelected
from gpupipe.outcomes import event_of
from gpupipe.select import pruned, summary
from gpupipe.stats.quantiles import Extremes, Histogram, Zoom
from gpupipe.stats.state import Rows
from gpupipe.steps.graph import Graph, levels
from gpupipe.steps.profile import MOMENTS
from gpupipe.steps.scan import Rowed
from gpupipe.training import Trained
from gpupipe.unsupervised import finds_of

PREDICTED = "$prediction"
"""Under what name a bundle keeps the states of predictions, beside those of columns."""
FEW_BINS = 32
"""Up to so many neighbouring bins a column's values are counted more finely."""
KEPT_LEVELS = 100_000
"""Levels of a column that a bundle keeps for its data contract."""


def versions() -> dict[str, str]:
    """The versions of Python, gpupipe and the libraries that numbers depend on."""
    from importlib.metadata import version

    found = {"python": platform.python_version(), "gpupipe": version("gpupipe")}
    return found | {name.replace("scikit-learn", "sklearn"): number
                    for name, number in library_versions().items()}


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
        "target_dtype": None if config.data.target is None
        else trained.dataset.schema[config.data.target].dtype,
        "key": list(config.data.key or []), "missing": config.data.missing,
        "reader": {"format": config.data.format, "delimiter": config.data.delimiter,
                   "encoding": config.data.encoding, "header": config.data.header,
                   "max_bad_share": config.data.max_bad_share},
        "weight": config.data.weight, "event": event_of(config, trained.profile),
        "group": config.split.group, "metrics": config.evaluate.metrics,
        "split": trained.split.to_json(), "seed": config.seed, "versions": versions(),
        "data": {"fingerprint": trained.dataset.fingerprint, "rows": trained.dataset.rows},
        **trained.finished.kept(),
    }
    graph, model = pruned(outcome.candidate.graph, outcome.fitted, trained.final)
    schema = trained.dataset.schema.select(
        [f.name for f in trained.dataset.schema if f.name in set(graph.raw)]
    )
    return Contents(info, schema, graph, outcome.fitted, model)


def states_of(trained: Trained) -> dict[str, Any]:
    """The profile's states of the columns in use: ``{column: {statistic: {array: values}}}``."""
    found: dict[str, Any] = {}
    outcome, target = trained.model, trained.config.data.target
    graph, _ = pruned(outcome.candidate.graph, outcome.fitted, trained.final)
    pieces = _pieces(trained, graph.raw)
    for column in [*graph.raw, *([] if target is None else [target])]:
        mine: dict[str, Any] = {}
        moments = trained.profile.of(column, MOMENTS)
        mine["moments"] = {"count": moments.count, "missing": moments.missing,
                           "infinite": moments.infinite, "zeros": moments.zeros,
                           "sums": moments.sums}
        histogram = trained.profile.of(column, Histogram())
        if histogram is not None:
            held = np.flatnonzero(histogram.counts[0])  # few of the 65,536 bins
            mine["histogram"] = {"bins": held, "counts": histogram.counts[0, held]}
        extremes = trained.profile.of(column, Extremes())
        if extremes is not None:
            mine["extremes"] = extremes.arrays()
        vocabulary = trained.profile.vocabulary(column)
        if vocabulary is not None and len(vocabulary.levels) <= KEPT_LEVELS:
            ranked = vocabulary.ranked()
            mine["vocabulary"] = {"levels": ranked.levels, "counts": ranked.counts}
        if column in pieces:
            mine["pieces"] = pieces[column]
        found[column] = mine
    return found | _predicted(trained)


def _pieces(trained: Trained, columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Finer counts of the columns of numbers whose values crowd in few neighbouring bins.

    One more pass, over these columns alone: a histogram of bins of a relative width of 2^-7 has
    nothing to say of values near 1,000 that differ by 1.
    """
    profile, spans = trained.profile, dict[str, tuple[int, int]]()
    for column in columns:
        histogram, vocabulary = profile.of(column, Histogram()), profile.vocabulary(column)
        listed = vocabulary is not None and not vocabulary.overflowed
        if histogram is None or listed or profile.schema[column].dtype == "timestamp":
            continue
        held = np.flatnonzero(histogram.counts[0])
        if 0 < len(held) <= FEW_BINS and int(np.diff(held).max(initial=1)) <= 2:
            spans[column] = (int(held[0]), int(held[-1]))
    if not spans:
        return {}
    counts = trained.rowed.engine.fold(_CountPieces(trained.rowed, spans), _added,
                                       range(len(trained.rowed.rows))) or {}
    return {c: {"span": list(spans[c]), "counts": n} for c, n in counts.items()}


@dataclass(frozen=True)
class _CountPieces:
    """Counts one part's values by the pieces of each column's span of bins."""

    rowed: Rowed
    spans: Mapping[str, tuple[int, int]]

    def __call__(self, index: int) -> dict[str, np.ndarray]:
        fx, total = self.rowed.engine.fx, dict[str, np.ndarray]()
        for batch, _ in self.rowed.batches(index, list(self.spans)):
            rows = Rows(fx.xp.zeros(len(batch), dtype="int64"), 1)
            total = _added(total, {
                c: Zoom((span,)).partial([batch.columns[c]], rows, fx).counts[0, 0]
                for c, span in self.spans.items()})
        return total


def _added(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {c: a[c] + n if c in a else n for c, n in b.items()} or a


def _predicted(trained: Trained) -> dict[str, Any]:
    """The states of the predictions that no training saw, under `PREDICTED`; else nothing.

    How they are distributed is told by the holdout, whose predictions are the final model's own;
    how good they are by the out-of-fold rows, which are more. Either stands in for the other.
    """
    outcome, task = trained.model, trained.target.task
    sides = [Judged(of, trained.target_of(buckets)[0], prediction)
             for of, buckets, prediction in (
                 ("out_of_fold", trained.oof_buckets, outcome.oof),
                 ("holdout", trained.split.holdout, outcome.holdout))
             if task in TASKS and prediction is not None and len(prediction)]
    return {} if not sides else {PREDICTED: predicted_states(
        task, sides[0], sides[-1], list(trained.target.classes), trained.config.evaluate.metrics,
        trained.finished.threshold)}


def manifest_of(
    trained: Trained, run_id: str, created: str, choice: dict[str, Any]
) -> dict[str, Any]:
    """Everything that says how the run came about."""
    dataset, final = trained.dataset, trained.final
    return {
        "run": run_id, "name": trained.config.name, "created": created,
        "config": dump_config(trained.config), "engine": choice,
        "data": {"source": dataset.source, "rows": dataset.rows,
                 "columns": len(dataset.schema.fields), "fingerprint": dataset.fingerprint,
                 "schema": dataset.schema.to_json()},
        "quarantine": {"count": dataset.quarantine.count, "reasons": dataset.quarantine.reasons},
        "split": trained.split.to_json(), "scans": [list(s) for s in trained.knowledge.scans],
        "fingerprint": trained.fingerprint,
        "seed": trained.config.seed, "git_commit": git_commit(trained.config.base),
        "versions": versions(), "platform": platform.platform(),
        "notes": [*dataset.notes, *trained.notes],
        "model": {"kind": innermost(final).kind, "params": trained.params,
                  "rounds": final.rounds},
        "selection": summary(trained.model.selections, next(
            (m.selection for m in layers(final) if isinstance(m, FittedSelected)), None)),
        "search": None if trained.chosen is None else trained.chosen.to_json(),
        "leaks": {"check": trained.config.leaks.check,
                  "findings": [f.to_json() for f in trained.findings]},
    }


def report_of(
    trained: Trained, manifest: dict[str, Any], metrics: dict[str, Any],
    sliced: list[dict[str, Any]], explained: dict[str, Any], plan_lines: list[str],
) -> dict[str, Any]:
    """The data of the report: `evaluate.report.Report`."""
    config, dataset, outcome = trained.config, trained.dataset, trained.model
    counts = np.sum([np.bincount(r.bucket, minlength=trained.split.buckets)
                     for r in trained.rowed.rows], axis=0)
    data: dict[str, Any] = {
        "name": config.name, "created": manifest["created"], "run_id": manifest["run"],
        "task": trained.target.task, "target": config.data.target,
        "classes": list(trained.target.classes), "event": event_of(config, trained.profile),
        "queries": ", ".join(config.split.group or ()),
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
        "metrics": metrics, "slices": sliced, "explanations": explained,
        "importances": [{"feature": n, "gain": v, "share": v}
                        for n, v in trained.final.importances()],
        "model": manifest["model"], "selection": manifest["selection"],
        "features": [{"step": s.name, "columns_in": list(i), "columns_out": list(o)}
                     for s, i, o in outcome.candidate.graph.stages if i or o],
        "scans": scans_of(outcome.candidate.graph, dataset.rows),
        "versions": manifest["versions"], "seed": config.seed, **trained.finished.to_json(),
    }
    if config.data.target is not None:
        data["target_profile"] = column_of(trained.profile, config.data.target)
    if trained.target.task == "unsupervised":
        data["headline"] = next(iter(headline(metrics).get("model") or METRICS[finds_of(trained)]))
    if trained.config.leaks.check != "off":
        data["leaks"] = manifest["leaks"]["findings"]
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
            for i, learned in enumerate(levels(graph), 1)]
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
    longest = max(len(c["valid"]) for c in curves)
    mean = np.mean([[*c["valid"], *[c["valid"][-1]] * (longest - len(c["valid"]))]
                    for c in curves], axis=0)
    return {"metric": str(curves[0].get("metric", "loss")), "valid": mean.tolist(),
            "every": int(curves[0].get("every", 1)), "best": trained.model.rounds}


def config_source(config: PipelineConfig) -> str | list[str]:
    """What the pipeline file names as its source, resolved."""
    found = config.sources()
    return found[0] if isinstance(config.data.source, str) else found
