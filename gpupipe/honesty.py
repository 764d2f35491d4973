"""The metric under other splits of the rows: at random, by group, in the order of time.

A random split asks how a model does on more rows of the same kind. Where rows come in groups (a
patient, a shop) or in time, new rows are of new groups and of a later time, and a random split
answers kindly: the model has seen their neighbours. So the same model is trained on a sample of
the rows under each split that the data allow, and the scores stand side by side. Everything is
learned anew from the sample, the steps included; the holdout takes no part.

In the order of time the first folds learn from few rows, which alone makes a score worse. So the
same is done with the rows in an order drawn at random, and time is held against that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.config import PipelineConfig
from gpupipe.config.choosing import (
    CalibrateConfig,
    DecideConfig,
    EnsembleConfig,
    IntervalsConfig,
    LeaksConfig,
    TuneConfig,
)
from gpupipe.config.model import ModelConfig, SplitConfig
from gpupipe.data.ingest import ingest
from gpupipe.data.outcomes import RANKING
from gpupipe.engine.choose import choose as choose_engine
from gpupipe.engine.hashing import combine64, hash_strings, mix64
from gpupipe.errors import DataError
from gpupipe.evaluate.metrics import METRICS, choose
from gpupipe.evaluate.scores import Score, evaluate
from gpupipe.evaluate.text import score as written
from gpupipe.inspect.columns import looks_like_id
from gpupipe.models import MODELS
from gpupipe.training import Trained, train

ROWS, FOLDS, ROUNDS = 20_000, 3, 200
"""What a comparison may cost: rows of the sample, folds, boosting rounds."""
LEAST_GROUPS = 20
GROUP_ROWS = (2, 1_000)
"""Rows a group, on the average, of a column that is taken for one without being named."""
TIMELY = ("time", "timestamp", "date", "day")
ROUND_NAMES = ("n_estimators", "num_boost_round", "iterations", "early_stopping_rounds")


@dataclass(frozen=True)
class Kind:
    """A way to split: its name in the report, and the pipeline's ``split`` for it."""

    by: str
    name: str
    split: SplitConfig


def side_by_side(trained: Trained) -> dict[str, Any] | None:
    """The first metric of the trained model under each split; None where there is one alone.

    ``split.honesty`` decides: ``true`` notes it where there is neither group nor time, ``auto``
    says nothing then.

    Returns
    -------
    ``metric``, ``title``, ``rows`` of the sample, ``splits`` (each ``by``, ``name``, ``score``,
    ``rows`` judged), ``left_out`` (``name``, ``why``), ``sentence`` and ``about``.
    """
    rule = trained.config.split
    if rule.honesty is False or trained.target.task in ("unsupervised", RANKING):
        return None
    usable = _usable(trained)
    group, time = _group(trained, usable), _time(trained, usable)
    if group is None and time is None:
        if rule.honesty is True:
            trained.notes.append(
                "split.honesty: no column looks like a group (a name in _id whose values come "
                "back) or like the rows' time; name one with split.group or split.time")
        return None
    table = _sample(trained, usable, group)
    order = _free_name(table)
    if time is not None:
        table = table.append_column(order, pa.array(_random_order(table.num_rows, trained)))
    (metric, *_) = choose(trained.target.task, trained.config.evaluate.metrics)  # type: ignore[arg-type]
    splits, left_out = [], []
    with TemporaryDirectory(prefix="gpupipe-") as folder:
        for kind in _kinds(rule, group, time, order):
            try:
                splits.append(_judged(trained, table, kind, metric.name, Path(folder)))
            except DataError as error:
                left_out.append({"by": kind.by, "name": kind.name, "why": error.message})
    found = {"metric": metric.name, "title": metric.title, "rows": table.num_rows,
             "splits": splits, "left_out": left_out}
    return {**found, "sentence": sentence(found), "about": _about(trained, table.num_rows)}


def sentence(found: dict[str, Any]) -> str:
    """The scores in one line, and which of them to expect."""
    by = {s["by"]: s for s in found["splits"]}
    told = [f"{s['name']} {written(s['score']['value'])}" for s in found["splits"]]
    text = f"{found['metric']} by how the rows are split: {', '.join(told)}"
    text += "".join(f"; not {one['name']} ({one['why']})" for one in found["left_out"])
    for kind, kindly, new in (("group", "random", "groups"), ("time", "shuffled", "moments")):
        if _worse(found["metric"], by.get(kindly), by.get(kind)):
            text += f"; where new rows are of new {new}, expect what it is {by[kind]['name']}"
    return text


def _worse(metric: str, one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Whether the other score is worse beyond both intervals."""
    if one is None or other is None:
        return False
    a, b = one["score"], other["score"]
    if a["low"] is None or b["low"] is None:
        return False
    greater = next(m for (_, name), m in METRICS.items() if name == metric).greater_is_better
    return bool(b["high"] < a["low"] if greater else b["low"] > a["high"])


def _about(trained: Trained, rows: int) -> str:
    rounds = _rounds(trained)
    most = f" and {rounds:,} rounds" if rounds else ""
    return (f"The same model, trained anew under each split on the same {rows:,} rows outside the "
            f"holdout, with {FOLDS} folds{most}. In an order each fold is judged by a model of the "
            "rows before it, so time is to be read against the order drawn at random.")


def _usable(trained: Trained) -> np.ndarray:
    """Which rows take part: those with a target outside the holdout; bool, in row order."""
    apart = [*trained.split.holdout, trained.split.nowhere]
    return np.concatenate([~np.isin(r.bucket, apart) for r in trained.rowed.rows])


def _column(trained: Trained, name: str) -> pa.ChunkedArray:
    pieces = [t.column(name) for t in trained.dataset.stream([name])]
    plain = [c.cast(c.type.value_type) if pa.types.is_dictionary(c.type) else c for c in pieces]
    return pa.chunked_array([chunk for c in plain for chunk in c.chunks], plain[0].type)


def _group(trained: Trained, usable: np.ndarray) -> tuple[tuple[str, ...], np.ndarray] | None:
    """The group's columns, and a hash of each row's group: as named, else the first that fits."""
    config, schema = trained.config, trained.dataset.schema
    if config.split.group:
        return tuple(config.split.group), _hashed(trained, config.split.group)
    for field in schema:
        if field.name == config.data.target or field.dtype not in ("string", "int64"):
            continue
        if looks_like_id(field.name):
            hashed = _hashed(trained, [field.name])
            groups = len(np.unique(hashed[usable]))
            if groups >= LEAST_GROUPS and GROUP_ROWS[0] <= usable.sum() / groups <= GROUP_ROWS[1]:
                return (field.name,), hashed
    return None


def _hashed(trained: Trained, columns: Sequence[str]) -> np.ndarray:
    """A uint64 hash of each row's values; a missing one is a value like any other."""
    total: np.ndarray | None = None
    for name in columns:
        encoded = _column(trained, name).combine_chunks().dictionary_encode()
        codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
        texts = encoded.dictionary.cast(pa.string())
        own = np.append(hash_strings(texts), np.uint64(0))[codes]
        total = own if total is None else combine64(total, own, np)
    assert total is not None
    return total


def _time(trained: Trained, usable: np.ndarray) -> str | None:
    """The column of the rows' time: as named, else one that is called so and rises row by row."""
    config = trained.config
    if config.split.time:
        return config.split.time
    for field in trained.dataset.schema:
        timely = field.dtype == "timestamp" or (
            field.name.lower() in TIMELY and field.dtype != "string")
        if timely and field.name != config.data.target:
            values = _column(trained, field.name)
            ticks = values.cast(pa.int64()) if field.dtype == "timestamp" else values
            numbers = ticks.cast(pa.float64(), safe=False).to_numpy()
            steps = np.diff(numbers)
            if len(steps) and np.isfinite(numbers).all() and (steps >= 0).all() and steps.any():
                return field.name
    return None


def _sample(
    trained: Trained, usable: np.ndarray, group: tuple[tuple[str, ...], np.ndarray] | None
) -> pa.Table:
    """About `ROWS` of the usable rows, whole groups where there are such, by their hash alone."""
    hashes = np.concatenate([f.key for f in trained.profile.facts]) if group is None else group[1]
    share = min(1.0, ROWS / max(int(usable.sum()), 1))
    drawn = (mix64(hashes ^ np.uint64(0x9FB21C651E98DF25), np) >> np.uint64(32)) < share * 2**32
    taken, at, pieces = usable & drawn, 0, []
    for table in trained.dataset.stream():
        mine = taken[at : at + table.num_rows]
        at += table.num_rows
        if mine.any():
            pieces.append(table.filter(pa.array(mine)).unify_dictionaries())
    if not pieces:
        return trained.dataset.schema.to_arrow().empty_table()
    return pa.concat_tables(pieces, promote_options="permissive")


def _kinds(
    rule: SplitConfig, group: tuple[tuple[str, ...], np.ndarray] | None, time: str | None,
    order: str,
) -> list[Kind]:
    def split(by: str, **more: Any) -> SplitConfig:
        return SplitConfig(holdout=0.0, folds=FOLDS, by=by, honesty=False, **more)  # type: ignore[arg-type]

    kinds = [Kind("random", "random", split("random"))]
    if group is not None:
        names = list(group[0])
        kinds.append(Kind("group", f"by {' and '.join(names)}", split("group", group=names)))
    if time is not None:
        gap = rule.gap if rule.time == time else None
        kinds.append(Kind("time", f"in the order of {time}", split("time", time=time, gap=gap)))
        kinds.append(Kind("shuffled", "in an order drawn at random", split("time", time=order)))
    return kinds


def _free_name(table: pa.Table) -> str:
    """A column's name that the table does not have."""
    name = "drawn order"
    while name in table.column_names:
        name += "_"
    return name


def _random_order(rows: int, trained: Trained) -> np.ndarray:
    return np.random.default_rng(trained.config.seed).permutation(rows).astype(np.float64)


def _rounds(trained: Trained) -> int | None:
    rounds = trained.model.rounds
    return None if rounds is None else min(rounds, ROUNDS)


def _config(trained: Trained, split: SplitConfig, extra: Sequence[str]) -> PipelineConfig:
    """The pipeline of the model that was trained, under another split; nothing is searched."""
    config, model = trained.config, trained.model.candidate.model
    kind, params = config.model.kind, dict(config.model.params)
    if model.kind in MODELS:
        kind, params = model.kind, dict(getattr(model, "given", getattr(model, "params", {})))
    rounds = _rounds(trained)
    if rounds is not None:
        params = {k: v for k, v in params.items() if k not in ROUND_NAMES}
        params["n_estimators"] = rounds
    drop = [*config.data.drop, *extra]
    return config.model_copy(update={
        "data": config.data.model_copy(update={"drop": drop}), "split": split,
        "model": ModelConfig(kind=kind, params=params), "tune": TuneConfig(),
        "ensemble": EnsembleConfig(kind="none"), "calibrate": CalibrateConfig(),
        "decide": DecideConfig(), "intervals": IntervalsConfig(), "leaks": LeaksConfig(check="off"),
    })


def _judged(
    trained: Trained, table: pa.Table, kind: Kind, metric: str, cache: Path
) -> dict[str, Any]:
    """The metric of the out-of-fold rows of the sample under one split."""
    extra = [n for n in table.column_names if n not in trained.dataset.schema]
    config = _config(trained, kind.split, extra)
    dataset = ingest(table, cache=cache, types=config.data.types, missing=config.data.missing)
    local = config.engine.model_copy(update={"kind": "local", "address": None})
    engine = choose_engine(local, dataset.rows).here()
    again = train(config, dataset, engine, baselines=False, final=False, scratch=cache)
    if again.target.classes != trained.target.classes:
        raise DataError("a class has no row in the sample")
    y, weight = again.target_of(again.oof_buckets)
    assert again.model.oof is not None
    rules = config.evaluate
    found: Score = evaluate(
        again.target.task, y, again.model.oof, weight=weight, metrics=[metric],  # type: ignore[arg-type]
        confidence=rules.confidence, resamples=rules.resamples, seed=config.seed,
    )[metric]
    return {"by": kind.by, "name": kind.name, "score": found.to_json(), "rows": len(y)}
