"""`evaluate`: a trained pipeline judged on rows that have a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle.scoring import BATCH_ROWS, Bundle, load
from gpupipe.data.outcomes import RANKING
from gpupipe.decide.intervals import on_new_data
from gpupipe.errors import ConfigError, DataError, did_you_mean
from gpupipe.evaluate.scores import evaluate as score
from gpupipe.outcomes import ranked_columns, signed_column
from gpupipe.rows import label_of
from gpupipe.scoring.source import opened, plain
from gpupipe.steps.passes import stage


@dataclass(frozen=True)
class Labelled:
    """The rows of a source that have a label, as a bundle scores them.

    Attributes
    ----------
    y : class codes int ``[n]``, or values float64 ``[n]`` (see `data.outcomes`).
    prediction : as `evaluate.scores.evaluate` takes it.
    weight, bounds : sample weights or None; what `Bundle.scored` gives around the scores, or None.
    at : the rows' numbers in the source, from 0, int64 ``[n]``.
    more : further columns of these rows, as they were asked for.
    """

    y: np.ndarray
    prediction: np.ndarray
    weight: np.ndarray | None
    bounds: np.ndarray | None
    at: np.ndarray
    more: pa.Table
    quarantined: int
    notes: list[str]


def labelled(
    bundle: Bundle, source: object, more: Sequence[str] = (), *, progress: Any = None
) -> Labelled:
    """Score a source's rows that have a label, with their labels, weights and ``more`` columns.

    Raises DataError for labels that training never saw, for columns that are not there, and where
    no row has a label.
    """
    if bundle.task == "unsupervised":
        raise ConfigError("this model learned without a target: there are no labels to judge it by",
                          hint="`gpupipe show` has its metrics, `gpupipe predict` scores new rows")
    name, notes = bundle.info["target"], []
    weight_name = bundle.info["weight"]
    event, events = bundle.info.get("event"), []
    scores, bounds, targets, weights, others = [], [], [], [], []
    judging = {name: bundle.info["target_dtype"]}
    judging |= {event["column"]: event["dtype"]} if event else {}
    group = bundle.info["group"] if bundle.task == RANKING else []
    queries: list[pa.Table] = []
    with opened(bundle, source, judging) as dataset:
        extra = [*judging] + ([weight_name] if weight_name else [])
        if weight_name and weight_name not in dataset.schema:
            raise DataError(f"there is no column {weight_name!r} of weights",
                            where=dataset.source)
        for column in group:
            if column not in dataset.schema:
                raise DataError(f"there is no column {column!r} of queries", where=dataset.source)
        for column in more:
            if column not in dataset.schema:
                near = did_you_mean(column, dataset.schema.names)
                raise DataError(f"there is no column {column!r}", where=dataset.source,
                                hint=f"did you mean {near!r}?" if near else None)
        columns = list(dict.fromkeys([*bundle.schema.names, *extra, *group, *more]))
        with stage(progress, "evaluate", dataset.rows) as advance:
            for table in dataset.stream(columns, BATCH_ROWS):
                predicted, around = bundle.scored(table)
                scores.append(predicted)
                bounds += [] if around is None else [around]
                targets.append(plain(table.column(name)))
                others.append(pa.table({n: plain(table.column(n)) for n in more}))
                if group:
                    queries.append(pa.table({n: plain(table.column(n)) for n in group}))
                if event:
                    events.append(plain(table.column(event["column"])))
                if weight_name:
                    weights.append(plain(table.column(weight_name)).cast(pa.float64()))
                advance(table.num_rows)
        notes += list(dataset.notes)
        quarantined = dataset.quarantine.count
    if not scores:
        raise DataError("there is no row to judge")
    labels = pa.chunked_array([c for t in targets for c in t.chunks] or targets)
    if event:
        seen = pa.chunked_array([c for e in events for c in e.chunks])
        y = signed_column(labels, seen, (name, event["column"]), event["seen"])
    elif group:
        y = ranked_columns(labels, pa.concat_tables(queries, promote_options="permissive"), name)
    else:
        y, remarks = _encoded(bundle, labels)
        notes += remarks
    known = y >= 0 if bundle.classes else np.isfinite(y)
    if not known.any():
        raise DataError(f"no row has a value of {name!r} to judge by")
    if not known.all():
        notes.append(f"{int((~known).sum()):,} rows without {name!r} were left out")
    at = np.flatnonzero(known)
    return Labelled(
        y[known], np.concatenate(scores)[known],
        np.concatenate([w.to_numpy() for w in weights])[known] if weights else None,
        np.concatenate(bounds)[known] if bounds else None, at,
        pa.concat_tables(others, promote_options="permissive").take(at) if more else pa.table({}),
        quarantined, notes)


def evaluate(target: Path, source: object, *, progress: Any = None) -> dict[str, Any]:
    """Judge a trained pipeline on labelled data: each metric with its interval.

    Rows without a label are left out and counted. Raises DataError for labels that training
    never saw, and where there is no labelled row.
    """
    bundle = load(target)
    rows = labelled(bundle, source, progress=progress)
    p = rows.prediction
    found = score(
        bundle.task, rows.y, p, weight=rows.weight,  # type: ignore[arg-type]
        metrics=bundle.info["metrics"], classes=bundle.classes,
        labels=(p > bundle.threshold).astype(np.float64) if bundle.task == "binary" else None,
    )
    answer: dict[str, Any] = {
        "metrics": {n: s.to_json() for n, s in found.items()}, "rows": len(rows.y),
        "quarantined": rows.quarantined, "notes": rows.notes, "bundle": str(bundle.path),
    }
    if rows.bounds is not None:
        held = on_new_data(bundle.info["intervals"], rows.y, p, rows.bounds, rows.weight)
        answer["intervals"] = held
        answer["notes"].append(held["text"])
    return answer


def _encoded(bundle: Bundle, labels: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Class codes (-1 for no label) or values (NaN for none), and what was noticed.

    Labels are compared as text. Where none of a file's labels is known as it stands, blanks
    around them and a full stop after them are ignored, and that is said.
    """
    if not bundle.classes:
        return labels.cast(pa.float64()).to_numpy(), []
    encoded = labels.combine_chunks().dictionary_encode()
    found = [label_of(v) for v in encoded.dictionary.to_pylist()]
    place = {c: i for i, c in enumerate(bundle.classes)}
    notes = []
    if found and not set(found) & set(place):
        trimmed = [f.strip().removesuffix(".") for f in found]
        if set(trimmed) <= set(place):
            notes.append(f"labels such as {found[0]!r} were read as {trimmed[0]!r}")
            found = trimmed
    unknown = sorted(set(found) - set(place))
    if unknown:
        near = did_you_mean(unknown[0], bundle.classes)
        raise DataError(
            f"the labels {', '.join(map(repr, unknown[:5]))} are none of the model's classes, "
            f"{', '.join(map(repr, bundle.classes))}",
            hint=f"did you mean {near!r}?" if near else None,
        )
    codes = encoded.indices.fill_null(len(found)).to_numpy(zero_copy_only=False)
    return np.array([*(place[f] for f in found), -1], np.int64)[codes], notes
