"""How a loaded bundle scores one record: by the compiled row path, if that gives the same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.bundle.tables import records_table
from gpupipe.data.schema import Schema
from gpupipe.scorer.rows import RowPath, Unfit, held_against

if TYPE_CHECKING:
    from gpupipe.bundle.scoring import Bundle


@dataclass(frozen=True)
class Rows:
    """How a bundle scores one record.

    Attributes
    ----------
    path : the compiled row path; None where rows go the batch path.
    how, why : as of `Bundle.row_path`.
    plain : from a record to its prediction, where that is a label and its probability, or a value.
    """

    path: RowPath | None
    how: str
    why: str
    plain: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


def rows_of(bundle: Bundle, records: Sequence[dict[str, Any]] = ()) -> Rows:
    """The row path of a bundle, if it scores ``records``, and what they become without some of
    their values, to the last bit as the batch path does."""
    contents, bounded = bundle.contents, bundle.coverage is not None
    try:
        path = RowPath(contents.schema, contents.graph, contents.fitted, contents.model, bounded)
        tried = [*records, *_odd(records, bundle.schema)]
        differs = held_against(path, tried, lambda r: bundle.scored(
            records_table(r, bundle.schema))) if tried else ""
        if tried and not differs and not np.array_equal(
                path.features(tried), bundle.features(records_table(tried, bundle.schema)),
                equal_nan=True):
            differs = "features of the rows tried differ"
    except Unfit:
        differs = "a value of the golden rows is not plainly of its type"
    except Exception as error:  # whatever it is, the batch path has no part in it
        differs = f"rows cannot be compiled: {error!r}"[:300]
    if differs:
        return Rows(None, "batch", differs)
    if path.many is not None and not _as_many(bundle, path, tried):
        path.many = None
    return Rows(path, path.how, path.why, _plain_of(bundle, path))


def _as_many(bundle: Bundle, path: RowPath, records: Sequence[dict[str, Any]]) -> bool:
    """Whether the tables for many rows score these to the last bit as the model itself."""
    if not records or path.many is None:
        return not records
    table, predict = records_table(records, bundle.schema), bundle.contents.model.predict
    one, other = (np.concatenate(bundle.by_pieces(table, lambda m: np.asarray(predict(m)), first))
                  for first in (path.many.scores, None))
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


def _odd(records: Sequence[dict[str, Any]], schema: Schema) -> Iterator[dict[str, Any]]:
    """Records like these without a value, one column after another, and of levels never seen."""
    for i, field in enumerate(schema if records else ()):
        record = dict(records[i % len(records)])
        yield record | {field.name: None}
        if field.dtype == "string":
            yield record | {field.name: "\0 never seen"}
        elif field.dtype in ("float64", "int64"):
            yield record | {field.name: -987_654_321}
    if records:
        yield dict.fromkeys(schema.names)


def _plain_of(bundle: Bundle, path: RowPath) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    classes, threshold, scored = bundle.classes, bundle.threshold, path.scored
    if bundle.outputs or bundle.coverage is not None or len(classes) > 2:
        return lambda record: bundle.described(*scored(record))[0]
    if not classes:
        return lambda record: {"prediction": float(scored(record)[0][0])}

    def two(record: Mapping[str, Any]) -> dict[str, Any]:
        p = float(scored(record)[0][0])
        return {"prediction": classes[p > threshold], "probability": p}
    return two
