"""The story of a monitoring, top to bottom: open, scan what is new, judge every window, tell."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpupipe.bundle.scoring import Bundle, load
from gpupipe.config import EngineConfig, PipelineConfig
from gpupipe.config.monitor import MonitorConfig, check_measures
from gpupipe.engine.choose import choose
from gpupipe.errors import ConfigError, did_you_mean
from gpupipe.evaluate.metrics import choose as choose_metrics
from gpupipe.monitor.alerts import told
from gpupipe.monitor.history import PICTURES, VERDICT, History, bundle_digest, write_json
from gpupipe.monitor.judge import Judge
from gpupipe.monitor.labels import read_labels
from gpupipe.monitor.measures import MEASURES
from gpupipe.monitor.multivariate import multivariate, reference_rows
from gpupipe.monitor.pictures import pictures
from gpupipe.monitor.quality import TASKS, quality_of
from gpupipe.monitor.reference import CONFIDENCE, PREDICTION, Reference, reference_of
from gpupipe.monitor.scan import Observed, Scan, observe, slicings_of
from gpupipe.monitor.sinks import check_sinks
from gpupipe.monitor.sources import Piece, pieces_of
from gpupipe.monitor.verdict import Verdict
from gpupipe.monitor.windows import Windows


def monitor(
    bundle: str | Path | Bundle, source: object = None, *, labels: object = None,
    against: object = None, window: str | None = None, time: str | None = None,
    history: str | Path | None = None, variant: str = "champion",
    rules: PipelineConfig | MonitorConfig | None = None, progress: Any = None,
) -> Verdict:
    """Judge what comes in and goes out against what a bundle was trained on.

    Parameters
    ----------
    bundle : a bundle's or a run's folder, or a loaded bundle.
    source : a prediction log, a table, or files of either: path, glob, folder, a list of these, or
        a table in memory. None judges what the history holds.
    labels : a table of ``prediction_id`` and the target's column; data that hold the target need
        none.
    against : rows as they should be, the training data or some of it: with them all columns are
        judged together, too (see `multivariate`).
    window : ``1d``, ``12h``, ``10000rows`` or ``all``; default: the rules', or a day where there is
        a time, else all rows.
    time : the column that says when; a prediction log has its own.
    history : a folder that keeps the counts. What it holds already is not read again.
    variant : whose rows of a prediction log are judged.
    rules : the `monitor` section of a pipeline file.

    Raises
    ------
    ConfigError : a window, column or measure that cannot be.
    DataError : data or a history that cannot be read.
    """
    bundle = bundle if isinstance(bundle, Bundle) else load(bundle)
    config = rules.monitor if isinstance(rules, PipelineConfig) else rules or MonitorConfig()
    reference = reference_of(bundle)
    check_rules(config, reference, bundle.task, rules)
    if config.sinks and history is None:
        raise ConfigError("sinks need a history, which keeps what was told",
                          hint="give --history FOLDER")
    check_sinks(config.sinks)
    if source is None and history is None:
        raise ConfigError("there is nothing to judge",
                          hint="name a prediction log, a table, or a --history that holds some")
    time = time or config.time
    slicings = slicings_of(config.slices, reference)
    model = {"name": bundle.info["name"], "digest": bundle_digest(Path(bundle.path)),
             "task": bundle.task}
    with tempfile.TemporaryDirectory(prefix="gpupipe-") as cache:
        pieces = [] if source is None else pieces_of(source, bundle, Path(cache), time)
        wanted = windows_of(window or config.window, pieces, history)
        if wanted is not None and wanted.by == "time":
            check_timed(pieces)
        kept = None if history is None else History.opened(Path(history), model, wanted, slicings)
        cut = wanted or (kept.windows if kept else Windows(None, "rows"))
        finest = kept.windows if kept else cut
        factor = cut.factor(finest)
        known = kept.contents if kept else {}
        contents = [content_of(p, finest) for p in pieces]
        todo = [i for i, c in enumerate(contents)
                if c not in known and contents.index(c) == i]
        choice = choose(EngineConfig(device="cpu"))
        scan = Scan(bundle, reference, pieces, finest, slicings, choice.here(), variant)
        observed = observe(scan, todo, progress)
        if kept is not None:
            if todo:
                kept.add(observed, [contents[i] for i in todo])
            observed = kept.read()
        absent, notes = remarks(pieces, bundle, reference, observed)
        judge, observed = Judge.of(reference, config, slicings, absent), observed.recut(factor)
        known_labels = None if labels is None else read_labels(labels, bundle, Path(cache))
        whole = {}
        if against is not None:
            rows = reference_rows(against, scan, Path(cache))
            whole = multivariate(replace(scan, windows=cut), observed, rows)
        if kept is not None:
            whole = kept.with_whole(whole, cut)
        quality = quality_of(scan, reference, config, observed, cut, factor, known_labels)
        if kept is not None:
            quality = kept.with_quality(quality, cut)
        verdict = Verdict(
            model, cut.text, judge.windows(observed, cut, whole), config, notes,
            {"files": len(pieces), "new": len(todo),
             "rows": sum(pieces[i].dataset.rows for i in todo)}, quality)
    if kept is not None:
        write_json(kept.folder / VERDICT, verdict.to_json())
        write_json(kept.folder / PICTURES, pictures(judge, observed))
        base = rules.base if isinstance(rules, PipelineConfig) else Path()
        verdict = replace(verdict, alerts=told(verdict, kept.folder, config.sinks, base))
    return verdict


def check_rules(
    config: MonitorConfig, reference: Reference, task: str, rules: object
) -> None:
    """ConfigError, at its line of the file where there is one, for what the rules name in vain."""
    def fault(path: tuple[str | int, ...], message: str, hint: str | None) -> ConfigError:
        if isinstance(rules, PipelineConfig):
            return rules.fault(path, message, hint)
        return ConfigError(message, hint=hint, where=".".join(map(str, path)))

    check_measures(config, list(MEASURES), fault)
    for i, name in enumerate(config.metrics or () if task in TASKS else ()):
        try:
            choose_metrics(task, [name])  # type: ignore[arg-type]
        except ConfigError as error:
            raise fault(("monitor", "metrics", i), error.message, error.hint) from None
    names = [n for n in reference.columns if n not in (PREDICTION, CONFIDENCE)]
    for key in ("columns", "slices"):
        for i, name in enumerate(getattr(config, key) or ()):
            if name not in names:
                near = did_you_mean(name, names)
                raise fault(("monitor", key, i), f"the model takes no column {name!r}",
                            f"did you mean {near!r}?" if near else
                            f"its columns are {', '.join(names)}")
            if key == "slices" and reference.columns[name].dtype not in ("string", "bool", "int64"):
                raise fault(("monitor", key, i), f"column {name!r} is "
                            f"{reference.columns[name].dtype}", "slices are by text, whole numbers "
                            "or booleans")
            if key == "slices" and reference.columns[name].cells is None:
                raise fault(("monitor", key, i), f"column {name!r} cannot be sliced by: "
                            f"{reference.columns[name].why}", "name another column")


def windows_of(
    text: str, pieces: Sequence[Piece], history: str | Path | None
) -> Windows | None:
    """The windows that are asked for; None for those of a history that says so itself."""
    if text != "auto":
        return Windows.parse(text)
    if not pieces:
        return None
    return Windows.parse("1d" if all(p.time for p in pieces) else "all")


def check_timed(pieces: Sequence[Piece]) -> None:
    """ConfigError where a piece has no time and windows are of time."""
    for piece in pieces:
        if piece.time is None:
            raise ConfigError("windows of time need a column that says when",
                              where=piece.dataset.source,
                              hint="give --time COLUMN, or --window 10000rows")


def content_of(piece: Piece, windows: Windows) -> str:
    """What a piece is known by: of windows of rows it matters which row is its first."""
    return piece.digest if windows.by == "time" else f"{piece.digest}@{piece.first}"


def remarks(
    pieces: Sequence[Piece], bundle: Bundle, reference: Reference, observed: Observed
) -> tuple[dict[str, str], list[str]]:
    """Columns that no row has, and why; and what else the user should know."""
    absent, notes = {}, []
    for name in reference.columns:
        if name in observed.counts:
            continue
        if name in (PREDICTION, CONFIDENCE):
            absent[name] = "there are no predictions in the data"
        elif all(p.log for p in pieces):
            absent[name] = "it is not logged"
        else:
            absent[name] = "there is no such column"
    for piece in pieces:
        notes += list(piece.dataset.notes)
        if piece.dataset.quarantine.count:
            notes.append(f"{piece.dataset.quarantine.count:,} rows of {piece.dataset.source} could "
                         "not be parsed and are in no window")
    return absent, list(dict.fromkeys(notes))
