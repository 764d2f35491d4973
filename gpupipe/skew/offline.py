"""Logged features beside an offline table's values for the same key."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.data.dataset import Dataset
from gpupipe.data.normalise import logical_type
from gpupipe.data.schema import ARROW_TYPES
from gpupipe.data.sources import head_of, resolve
from gpupipe.errors import DataError, did_you_mean
from gpupipe.scoring import read_as
from gpupipe.skew.log import FEATURE, LogFile

EXAMPLES = 5
"""Differing values that are shown of a feature."""
TYPED = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")
"""How files begin that have types of their own: Parquet and Arrow."""


@dataclass
class _Compared:
    """One feature's differences so far."""

    rows: int = 0
    differ: int = 0
    greatest: float | None = None
    examples: list[dict[str, Any]] = field(default_factory=list)


def compared_with(
    files: Sequence[LogFile], source: str | Path, key: str, info: Mapping[str, Any],
    tolerance: float,
) -> dict[str, Any]:
    """Each logged feature beside the table's value for the same key; shadow rows are left out.

    ``info`` is the bundle's, for how text is read. Returns ``rows`` (compared), ``unmatched``
    (rows whose key the table has not), ``absent`` (features that it has not), ``differs``, and
    for each of ``features`` the rows compared, how many ``differ``, their ``share``, the
    ``greatest`` difference of numbers (seconds, of times) and some ``examples``.

    Raises DataError for a table without the key, with a key twice, or without any key of the log.
    """
    types = _feature_types(files)
    where = FEATURE + key if key in types else "unit_id"
    wanted = {n: t for n, t in types.items() if n != key}
    keys = _logged_keys(files, where)
    if not len(keys):
        raise DataError(f"no row of the log has a {where!r} to find it by in the table",
                        hint="serve with `unit: COLUMN`, or name another --key")
    with tempfile.TemporaryDirectory(prefix="gpupipe-") as cache:
        dataset = _opened(source, key, wanted, types, info, Path(cache))
        columns = [n for n in wanted if n in dataset.schema]
        if not columns:
            raise DataError("the table has none of the logged features", where=dataset.source)
        table = _rows_of(dataset, key, columns, keys)
    counted, rows, unmatched = {c: _Compared() for c in columns}, 0, 0
    for file in files:
        present = [c for c in columns if FEATURE + c in file.names]
        if not present or where not in file.names:
            continue
        read = dict.fromkeys(["prediction_id", "shadow", where, *(FEATURE + c for c in present)])
        for batch in file.batches(list(read)):
            batch = batch.filter(pc.invert(pc.fill_null(batch.column("shadow"), False)))
            at = pc.index_in(_text(batch.column(where)), table.column(key).combine_chunks())
            matched = pc.is_valid(at)
            found, at = batch.filter(matched), at.filter(matched)
            rows, unmatched = rows + found.num_rows, unmatched + batch.num_rows - found.num_rows
            for name in present:
                _compare(counted[name], found, where, FEATURE + name,
                         table.column(name).take(at), tolerance)
    if not rows:
        raise DataError(f"the table has no row for any {where!r} of the log, such as "
                        f"{keys[0].as_py()!r}", where=dataset.source, hint="is it the right --key?")
    return {
        "source": dataset.source, "key": key, "log_key": where, "rows": rows,
        "unmatched": unmatched, "absent": [n for n in wanted if n not in columns],
        "tolerance": tolerance, "differs": any(c.differ for c in counted.values()),
        "features": [{"name": n, "rows": c.rows, "differ": c.differ,
                      "share": c.differ / c.rows if c.rows else 0.0, "greatest": c.greatest,
                      "examples": c.examples} for n, c in counted.items()],
    }


def _feature_types(files: Sequence[LogFile]) -> dict[str, str]:
    """The logged features and their types. DataError where two files disagree."""
    found: dict[str, str] = {}
    for file in files:
        for name in file.features:
            arrow = file.schema.field(FEATURE + name).type
            dtype = logical_type(arrow)
            if dtype is None or found.setdefault(name, dtype) != dtype:
                raise DataError(
                    f"column {FEATURE + name!r} is {arrow}, expected {found.get(name, 'a scalar')}",
                    where=str(file.path), hint="compare the files of one model at a time")
    return found


def _logged_keys(files: Sequence[LogFile], where: str) -> pa.Array:
    """The distinct keys of the log, as text."""
    found = pa.array([], pa.string())
    for file in files:
        if where in file.names:
            for batch in file.batches([where]):
                own = _text(batch.column(where)).drop_null().unique()
                found = pa.chunked_array([found, own]).unique()
    return found


def _opened(
    source: str | Path, key: str, wanted: Mapping[str, str], types: Mapping[str, str],
    info: Mapping[str, Any], cache: Path,
) -> Dataset:
    """The table, its columns read in the types of the log."""
    needed = [key, *wanted]
    dataset = read_as(info, source, needed, cache)
    if key not in dataset.schema:
        near = did_you_mean(key, dataset.schema.names)
        raise DataError(f"there is no column {key!r} of keys", where=dataset.source,
                        hint=f"did you mean {near!r}?" if near else "see --key")
    if head_of(resolve(source)[0].path).startswith(TYPED):
        return dataset
    # Text is read in the types of the log: "007" is no number where the log has it as text.
    pins = {n: t for n, t in {**wanted, key: types.get(key, "string")}.items()
            if n in dataset.schema and dataset.schema[n].dtype != t}
    return read_as(info, source, needed, cache, pins) if pins else dataset


def _rows_of(dataset: Dataset, key: str, columns: list[str], keys: pa.Array) -> pa.Table:
    """The rows of the log's keys, the key as text. DataError for a key that is there twice."""
    found = []
    for table in dataset.stream([key, *columns]):
        table = table.set_column(0, key, _text(table.column(key)))
        found.append(_decoded(table.filter(pc.is_in(table.column(key), keys))))
    whole = pa.concat_tables(found)
    counts = whole.column(key).value_counts()
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise DataError(f"{len(twice):,} keys have more than one row, such as "
                        f"{twice[0]['values'].as_py()!r}", where=dataset.source,
                        hint="one row a key: take those of the time that was served")
    return whole


def _decoded(table: pa.Table) -> pa.Table:
    for i, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(i, table.field(i).name, column.cast(column.type.value_type))
    return table


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of keys as text."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.string())


def _compare(
    counted: _Compared, rows: pa.Table, where: str, name: str, offline: pa.ChunkedArray,
    tolerance: float,
) -> None:
    """Count a batch's differences of one feature."""
    logged = rows.column(name)
    differ, apart = _differences(logged, offline, tolerance)
    counted.rows += len(differ)
    counted.differ += int(differ.sum())
    if apart is not None and np.isfinite(apart).any():
        counted.greatest = max(counted.greatest or 0.0, float(np.nanmax(apart)))
    for i in np.flatnonzero(differ)[: EXAMPLES - len(counted.examples)].tolist():
        counted.examples.append({
            "key": rows.column(where)[i].as_py(), "logged": logged[i].as_py(),
            "offline": offline[i].as_py(), "prediction_id": rows.column("prediction_id")[i].as_py(),
        })


def _differences(
    logged: pa.ChunkedArray, offline: pa.ChunkedArray, tolerance: float
) -> tuple[np.ndarray, np.ndarray | None]:
    """Which rows differ (null equals null and NaN), and by how much where both are numbers."""
    kinds = [logical_type(c.type) for c in (logged, offline)]
    if kinds[0] == kinds[1] == "timestamp":
        logged, offline = (c.cast(pa.timestamp("us")).cast(pa.int64()) for c in (logged, offline))
    elif "string" in kinds or "timestamp" in kinds:
        logged, offline = (c.cast(pa.string()) for c in (logged, offline))
    elif kinds[0] != kinds[1]:
        # What the model would have seen: the table's numbers in the type of the log.
        target = ARROW_TYPES["float32" if kinds[0] == "float32" else "float64"]
        logged, offline = (c.cast(target, safe=False) for c in (logged, offline))
    sides = [_present(c) for c in (logged, offline)]
    both = sides[0] & sides[1]
    equal = pc.fill_null(pc.equal(logged, offline), False).to_numpy()
    differ = np.where(both, ~equal, sides[0] != sides[1])
    if pa.types.is_string(logged.type) or pa.types.is_boolean(logged.type):
        return differ, None
    a, b = (np.where(both, c.fill_null(0).to_numpy().astype(np.float64), np.nan)
            for c in (logged, offline))
    with np.errstate(invalid="ignore"):
        apart = np.where(a == b, 0.0, np.abs(a - b))
        if tolerance:
            differ &= ~(apart <= tolerance * np.maximum(np.abs(a), np.abs(b)))
    return differ, apart / 1e6 if kinds[0] == kinds[1] == "timestamp" else apart


def _present(column: pa.ChunkedArray) -> np.ndarray:
    valid: np.ndarray = column.is_valid().to_numpy()
    if pa.types.is_floating(column.type):
        valid = valid & ~pc.fill_null(pc.is_nan(column), True).to_numpy()
    return valid
