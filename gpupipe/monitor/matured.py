"""The rows whose label is known: predictions joined to labels that came later.

`joined` reads all pieces of the data, part by part; each prediction counts once, and one that was
logged with several scores not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gpupipe.engine.frames import Column, Frames
from gpupipe.errors import DataError
from gpupipe.monitor.cells import fitted
from gpupipe.monitor.labels import ID, Labels, codes_of
from gpupipe.monitor.scan import Rows, Scan, arrow_table

SAMPLE = 100_000
"""Rows whose columns are kept, to find the slices in which the model is worst."""


@dataclass(frozen=True)
class Matured:
    """Rows with a label, in the order of time (then of ids): each ``[n]``.

    Attributes
    ----------
    ids : uint64 hashes of the predictions' ids, each once; None where labels are in the data.
    lag : microseconds from prediction to label; None where labels have no time.
    sample, sampled : the raw columns of some rows, and which rows.
    twice, torn : predictions logged again with the same score; ids with several scores, left out.
    """

    window: np.ndarray
    order: np.ndarray
    y: np.ndarray
    scores: np.ndarray
    slices: np.ndarray
    ids: np.ndarray | None = None
    lag: np.ndarray | None = None
    sample: pa.Table | None = None
    sampled: np.ndarray | None = None
    twice: int = 0
    torn: int = 0


@dataclass(frozen=True)
class _Joined:
    """What one part gives: arrays as those of `Matured`, and the sample with the ids."""

    arrays: Mapping[str, np.ndarray]
    sample: pa.Table


@dataclass(frozen=True)
class Join:
    """Joins the labels to the rows of a part."""

    scan: Scan
    labels: Labels | None
    target: str
    rate: float

    def __call__(self, part: tuple[int, int]) -> list[_Joined]:
        piece, fx = self.scan.pieces[part[0]], self.scan.engine.fx
        if self.labels is not None and not piece.has(ID):
            raise DataError(f"the data have no column {ID!r} to join the labels by",
                            where=piece.dataset.source, hint="give data with the ids that the "
                            "labels have, or data that hold the labels themselves")
        if self.labels is None and not piece.has(self.target):
            return []
        found = []
        for rows in self.scan.batches(part, (ID, self.target)):
            if rows.scores is None:
                continue
            ids = None
            if ID in rows.also:  # an id of digits is the same as a number and as text
                ids = fx.to_host(fx.hash64(fitted(rows.also[ID], "string", fx)[0]))
            y, when = self._labelled(rows, ids, fx)
            shape = rows.scores if rows.scores.ndim == 1 else rows.scores[:, 0]
            kept = np.flatnonzero(~np.isnan(y) & ~np.isnan(shape))
            order = fx.to_host(rows.order)
            arrays = {"window": fx.to_host(rows.window), "order": order, "y": y,
                      "scores": rows.scores,
                      "slices": np.stack([fx.to_host(s) for s in rows.slices], axis=1)
                      if rows.slices else np.empty((len(y), 0), np.int64)}
            if self.labels is not None:
                assert ids is not None
                arrays["ids"] = ids
                if when is not None:
                    arrays["lag"] = when - order
            arrays = {k: a[kept] for k, a in arrays.items()}
            mark = ids if ids is not None else fx.to_host(_mix(order))
            drawn = kept[(mark[kept] >> np.uint64(11)) < np.uint64(int(self.rate * 2**53))]
            arrays["drawn"] = np.isin(kept, drawn)
            found.append(_Joined(arrays, self._sample(rows, drawn, fx)))
        return found

    def _labelled(
        self, rows: Rows, ids: np.ndarray | None, fx: Frames
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if self.labels is not None:
            assert ids is not None
            return self.labels.of(ids)
        return codes_of(_arrow(rows.also[self.target], fx), self.scan.bundle), None

    def _sample(self, rows: Rows, drawn: np.ndarray, fx: Frames) -> pa.Table:
        bundle = self.scan.bundle
        if any(c not in rows.columns for c in bundle.schema.names):
            return pa.table({})
        table = arrow_table(rows.columns, bundle, fx).take(pa.array(drawn))
        return table.cast(pa.schema([
            pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type)
            for f in table.schema]))


def joined(
    scan: Scan, labels: Labels | None, target: str, rows: int
) -> Matured | None:
    """The rows of all pieces that have a label and a prediction. None where there are none."""
    parts = [(i, p) for i, piece in enumerate(scan.pieces)
             for p in range(len(piece.dataset.parts))]
    join = Join(scan, labels, target, min(1.0, SAMPLE / max(rows, 1)))
    found = [j for _, part in sorted(scan.engine.map(join, parts)) for j in part]
    if not found or not sum(len(j.arrays["y"]) for j in found):
        return None
    arrays = {k: np.concatenate([j.arrays[k] for j in found]) for k in found[0].arrays}
    sample = pa.concat_tables([j.sample for j in found], promote_options="permissive")
    place = np.full(len(arrays["y"]), -1)
    drawn = arrays.pop("drawn")
    place[drawn] = np.arange(int(drawn.sum()))
    tie = arrays["ids"] if "ids" in arrays else arrays["order"]
    score = arrays["scores"] if arrays["scores"].ndim == 1 else arrays["scores"][:, 0]
    order = np.lexsort((score, tie, arrays["order"]))
    order, twice, torn = _once(order, arrays.get("ids"), score)
    arrays = {k: a[order] for k, a in arrays.items()}
    place = place[order]
    sampled = np.flatnonzero(place >= 0)
    table = sample.take(pa.array(place[sampled])) if sample.num_columns else None
    return Matured(**arrays, sample=table, sampled=sampled, twice=twice, torn=torn)


def _once(
    order: np.ndarray, ids: np.ndarray | None, score: np.ndarray
) -> tuple[np.ndarray, int, int]:
    """Each id once, the first of its rows; ids with several scores are left out."""
    if ids is None:
        return order, 0, 0
    by_id = order[np.argsort(ids[order], kind="stable")]
    own = ids[by_id]
    first = np.append(True, own[1:] != own[:-1])
    starts = np.flatnonzero(first)
    agree = np.minimum.reduceat(score[by_id], starts) == np.maximum.reduceat(score[by_id], starts)
    sizes = np.diff(np.append(starts, len(by_id)))
    kept = np.zeros(len(ids), bool)
    kept[by_id[starts[agree]]] = True
    return order[kept[order]], int((sizes[agree] - 1).sum()), int((~agree).sum())


def _mix(order: np.ndarray) -> np.ndarray:
    from gpupipe.engine.hashing import mix64

    return np.asarray(mix64(np.asarray(order, np.int64).view(np.uint64), np))


def _arrow(column: Column, fx: Frames) -> pa.ChunkedArray:
    """A column of the file's own as an Arrow array."""
    values = fx.to_host(column.values)
    if column.levels is not None:
        return pa.chunked_array([column.levels.take(pa.array(
            values.astype(np.int64), mask=values < 0))])
    mask = fx.to_host(fx.is_missing(column))
    return pa.chunked_array([pa.array(values, mask=mask)])
