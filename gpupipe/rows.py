"""What the pipeline file says about rows and columns: which features, which target, which split."""

from __future__ import annotations

import fnmatch
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.config import PipelineConfig
from gpupipe.data.dataset import Dataset
from gpupipe.data.outcomes import SURVIVAL
from gpupipe.data.split import Split, hash_split, place_of, time_split
from gpupipe.engine.frames import width_of
from gpupipe.errors import ConfigError, DataError, did_you_mean
from gpupipe.evaluate.clusters import choose as choose_found
from gpupipe.evaluate.metrics import choose
from gpupipe.models import MODELS
from gpupipe.outcomes import special_task, survival_targets
from gpupipe.steps import Feature, Target
from gpupipe.steps.profile import Profile, target_range
from gpupipe.steps.scan import PartRows


def dropped(config: PipelineConfig, dataset: Dataset) -> list[str]:
    """The columns that ``data.drop`` names, by name or glob."""
    names = [*dataset.schema.names, *dataset.left_out]
    found: list[str] = []
    for i, pattern in enumerate(config.data.drop):
        hits = [n for n in names if n == pattern] or fnmatch.filter(names, pattern)
        if not hits:
            near = did_you_mean(pattern, names)
            raise config.fault(
                ("data", "drop", i), f"there is no column {pattern!r} to drop",
                f"did you mean {near!r}?" if near else f"the columns are {', '.join(names)}",
            )
        found.extend(hits)
    return found


def raw_features(config: PipelineConfig, dataset: Dataset) -> list[Feature]:
    """The columns that steps may use: all but target, event, weight, key and the dropped ones."""
    data = config.data
    apart = {data.target, data.weight, data.event, *(data.key or ()), *dropped(config, dataset)}
    found = [Feature(f.name, f.dtype) for f in dataset.schema if f.name not in apart]
    if not found:
        raise ConfigError("no column is left to learn from", hint="drop fewer columns")
    return found


def check_columns(config: PipelineConfig, dataset: Dataset) -> None:
    """Every column that the config names must be there."""
    target = config.data.target
    named: list[tuple[tuple[str | int, ...], str]] = (
        [] if target is None else [(("data", "target"), target)])
    named += [(("data", "key", i), k) for i, k in enumerate(config.data.key or ())]
    named += [(("split", "group", i), g) for i, g in enumerate(config.split.group or ())]
    named += [(("evaluate", "slices", i), s) for i, s in enumerate(config.evaluate.slices)]
    for section, name in (("data", "weight"), ("data", "event"), ("split", "time")):
        value = getattr(getattr(config, section), name)
        named += [((section, name), value)] if value is not None else []
    for path, column in named:
        if column not in dataset.schema:
            near = did_you_mean(column, dataset.schema.names)
            raise config.fault(
                path, f"there is no column {column!r} in {dataset.source}",
                f"did you mean {near!r}?" if near
                else f"the columns are {', '.join(dataset.schema.names)}",
            )
    for path, column in (p for p in named if p[0] in (("data", "weight"), ("split", "time"))):
        dtype = dataset.schema[column].dtype
        fine = ("float64", "float32", "int64") + (("timestamp",) if path[0] == "split" else ())
        if dtype not in fine:
            raise config.fault(path, f"column {column!r} is {dtype}, expected {' or '.join(fine)}",
                               f"set data.types: {{{column}: {fine[-1]}}} if it holds such values")


def check_metrics(config: PipelineConfig, target: Target) -> None:
    """Every metric that the file names must be one of the target's task."""
    kind = config.model.kind
    for i, name in enumerate(config.evaluate.metrics or ()):
        try:
            if target.task == "unsupervised":
                choose_found(MODELS[kind].finds, [name])
            else:
                choose(target.task, [name])  # type: ignore[arg-type]
        except ConfigError as error:
            raise config.fault(("evaluate", "metrics", i), error.message, error.hint) from None


def split_columns(config: PipelineConfig) -> tuple[list[str] | None, str | None]:
    by = split_kind(config, None)
    return (config.split.group if by == "group" else None,
            config.split.time if by == "time" else None)


def split_kind(config: PipelineConfig, target: Target | None) -> str:
    """The kind of split that ``by: auto`` means here."""
    if config.split.by != "auto":
        return config.split.by
    if config.split.group:
        return "group"
    if config.split.time:
        return "time"
    return "stratified" if target is not None and target.classes else "random"


def find_target(config: PipelineConfig, profile: Profile) -> tuple[Target, list[str]]:
    """Task, classes and positive label, by the rules of docs/pipeline-file.md."""
    special = special_task(config)
    name = config.data.target
    if name is None:
        return Target("unsupervised"), []
    dtype = profile.schema[name].dtype
    notes = []
    missing = profile.missing(name)
    if missing == profile.rows:
        raise DataError(f"target {name!r} has no value in any row")
    if missing:
        notes.append(f"{missing:,} rows have no target {name!r} and take part in nothing")
    levels, values = _levels(profile, name)
    task: str = special or config.data.task
    if task == "auto":
        if dtype == "timestamp":
            raise config.fault(("data", "target"), f"target {name!r} is a timestamp",
                               "choose a column of numbers or labels")
        if dtype in ("float64", "float32"):
            task = "regression"
        elif values is not None and len(values) <= 2:
            task = "binary"
        else:
            task = "multiclass" if dtype == "string" or (
                values is not None and len(values) <= 20) else "regression"
    if task == "regression" or special:
        if dtype == "string":
            raise config.fault(("data", "target"), f"target {name!r} is text, and a {task} task "
                               "needs numbers", f"set data.types: {{{name}: float}}")
        centre, reach = target_range(profile, name)
        if reach == 0:
            raise DataError(f"target {name!r} has the same value in every row")
        return Target(task, (), centre, reach), notes
    if dtype in ("float64", "float32"):
        raise config.fault(("data", "target"), f"target {name!r} is {dtype}; classes are text, "
                           "whole numbers or booleans", f"set data.types: {{{name}: int}}, or "
                           "data.task: regression")
    if values is None or levels is None:
        raise config.fault(("data", "target"), f"target {name!r} has too many distinct values "
                           f"for a {task} task", "is it an ID? choose another column, or set "
                           "data.task: regression")
    if len(values) < 2:
        raise DataError(f"target {name!r} has one class alone: {label_of(values[0])!r}",
                        hint="a classifier needs at least two classes")
    labels = [label_of(v) for v in values]
    if task == "binary":
        if len(values) != 2:
            raise config.fault(("data", "task"), f"a binary target has 2 labels, found "
                               f"{len(values)}: {', '.join(labels[:8])}")
        labels = _ordered(config, labels, dtype, levels)
    elif config.data.positive is not None:
        raise config.fault(("data", "positive"), f"target {name!r} has {len(labels)} classes; "
                           "a positive label is for two")
    rare = [f"{label!r} ({n})" for label, n in zip(labels, levels, strict=True) if n < 10]
    if rare and task == "multiclass":
        notes.append(f"rare classes with fewer than 10 rows: {', '.join(rare[:8])}")
    return Target(task, tuple(labels)), notes


def _levels(profile: Profile, name: str) -> tuple[list[int] | None, list[Any] | None]:
    """Counts and values of the target's levels, ascending; None where they are not counted."""
    state = profile.vocabulary(name)
    if state is None or state.overflowed:
        return None, None
    pairs = [(v, int(n)) for v, n in zip(state.levels.to_pylist(), state.counts[0], strict=True)
             if v is not None]
    return [n for _, n in pairs], [v for v, _ in pairs]


def label_of(value: Any) -> str:
    """A class label as text: what reports, predictions and configs call it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _ordered(
    config: PipelineConfig, labels: list[str], dtype: str, counts: list[int]
) -> list[str]:
    """[negative, positive]: as named, else the greater number, else the rarer text."""
    positive = config.data.positive
    if positive is None:
        swap = dtype == "string" and counts[0] < counts[1]
        return labels[::-1] if swap else labels
    wanted = label_of(positive)
    if wanted not in labels:
        near = did_you_mean(wanted, labels)
        raise config.fault(
            ("data", "positive"), f"target {config.data.target!r} has no label {wanted!r}; it has "
            f"{' and '.join(map(repr, labels))}", f"did you mean {near!r}?" if near else None,
        )
    return labels if labels[1] == wanted else labels[::-1]


def split_rows(
    config: PipelineConfig, profile: Profile, target: Target
) -> tuple[Split, tuple[PartRows, ...]]:
    by, rule, seed = split_kind(config, target), config.split, config.seed
    narrow = width_of(-1, len(target.classes))
    if target.task == "unsupervised":  # every row takes part, and there is nothing to predict
        ys = [np.zeros(len(f.key), np.int8) for f in profile.facts]
    else:
        ys = [encode_target(f.target, target) for f in profile.facts]
    if target.task in SURVIVAL:
        ys = survival_targets(config, profile, ys)
    known = [y >= 0 if target.classes else np.isfinite(y) for y in ys]
    weights = [_weight(config, f.weight, k) for f, k in zip(profile.facts, known, strict=True)]
    if by == "time":
        assert rule.time is not None
        places: list[np.ndarray] = [f.time for f in profile.facts if f.time is not None]
        split = time_split(places, known, rule.holdout, rule.folds, rule.gap_size(), rule.time,
                           seed)
        groups = [np.where(k, 0, -1) for k in known]
    else:
        keys = [f.group if by == "group" and f.group is not None else f.key
                for f in profile.facts]
        places = [place_of(k, seed) for k in keys]
        layered = by == "stratified" and bool(target.classes)
        groups = [np.where(k, y if layered else 0, -1).astype(narrow)
                  for k, y in zip(known, ys, strict=True)]
        classes = len(target.classes) if layered else 1
        split = hash_split(by, places, groups, classes, rule.holdout, rule.folds, seed)
    rows = tuple(
        PartRows(split.assign(p, g), y, w)
        for p, g, y, w in zip(places, groups, ys, weights, strict=True)
    )
    if config.data.weight is not None:
        _check_weights(config.data.weight, split, rows)
    return split, rows


def _check_weights(name: str, split: Split, rows: tuple[PartRows, ...]) -> None:
    """DataError where every row that some model would learn from weighs nothing."""
    total = np.zeros(split.buckets)
    for r in rows:
        total += np.bincount(r.bucket, weights=r.weight, minlength=split.buckets)
    for part in (split.train, *(f.train for f in split.folds)):
        if total[list(part)].sum() == 0:
            raise DataError(f"data.weight: column {name!r} is 0 in every row to learn from",
                            hint="a row of weight 0 is as if it were not there")


def encode_target(found: tuple[np.ndarray, pa.Array] | None, target: Target) -> np.ndarray:
    """Class codes (narrow, -1 for no or an unknown label) or values (float64, NaN for none)."""
    assert found is not None
    codes, levels = found
    if not target.classes:
        values = levels.cast(pa.float64()).to_numpy(zero_copy_only=False)
        values = np.where(np.isfinite(values), values, np.nan)
        return np.append(values, np.nan)[codes]
    place = {label: i for i, label in enumerate(target.classes)}
    table = [place.get(label_of(v), -1) for v in levels.to_pylist()]
    return np.array([*table, -1], width_of(-1, len(target.classes)))[codes]


def _weight(
    config: PipelineConfig, weight: np.ndarray | None, known: np.ndarray
) -> np.ndarray | None:
    if weight is None:
        return None
    bad = ~np.isfinite(weight) | (weight < 0)
    if (bad & known).any():
        raise DataError(
            f"data.weight: column {config.data.weight!r} is missing or negative in "
            f"{int((bad & known).sum()):,} rows", hint="a weight is a number of at least 0",
        )
    return np.where(known, weight, 0.0)
