"""Training-serving skew: what a service answered, beside the batch path and the offline table.

`log` reads the prediction log, `versions` finds the bundles that answered, `paths` scores its rows
again, `offline` compares the logged features with a table's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.errors import ConfigError, DataError
from gpupipe.skew.log import FEATURE, LogFile, log_files
from gpupipe.skew.offline import compared_with
from gpupipe.skew.paths import Rescored
from gpupipe.skew.versions import Answering, answering
from gpupipe.steps.passes import stage

__all__ = ["skew"]


def skew(
    reference: str | Path, log: str | Path, *, name: str | None = None,
    source: str | Path | None = None, key: str | None = None, tolerance: float = 0.0,
    source_tolerance: float = 0.0, progress: Any = None,
) -> dict[str, Any]:
    """Score the requests of a prediction log again, and say what differs.

    Parameters
    ----------
    reference : a bundle's or run's folder, ``REGISTRY/NAME@ALIAS_OR_VERSION``, or ``REGISTRY/NAME``
        for each version that the log names.
    log : a prediction log with features: its folder, or files of it.
    name : what the log calls the model, where that is not the registry's name for it.
    source : a table of the features as they lie offline, one row a key.
    key : its column of keys; in the log the feature of that name, or else ``unit_id``.
    tolerance : how far scores and features of the two paths may be apart; they are equal to the
        bit, so 0.
    source_tolerance : how far a logged number may be from the table's, relative to the larger.

    Returns
    -------
    ``differs``, ``rows`` (of the log), ``versions``: for each ``rows``, and ``score``,
    ``prediction`` and ``features`` with rows compared, how many ``differ`` and the ``greatest``
    difference; ``other``: rows of other versions, by version; ``source``: as `compared_with`.

    Raises DataError for what is no log, has no features, or has no row of the model; ConfigError
    for a source without a key.
    """
    if (source is None) != (key is None):
        raise ConfigError("a source is compared by a key, and a key needs a source",
                          hint="--source TABLE --key COLUMN")
    for option, value in (("tolerance", tolerance), ("source_tolerance", source_tolerance)):
        if not 0 <= value < float("inf"):
            raise ConfigError(f"{option} must be 0 or more, not {value:g}")
    files = log_files(log)
    if not any(f.features for f in files):
        raise DataError("this log has no features, so there is nothing to score again",
                        where=str(log), hint="serve with `log: {path: ..., features: true}`, or "
                        "name files of a time when features were logged")
    models = answering(reference, name)
    found: dict[tuple[str, str], Rescored] = {}
    other: dict[tuple[str, str], dict[str, Any]] = {}
    total = sum(f.rows for f in files)
    with stage(progress, "skew", total) as advance:
        for file in files:
            for table in file.batches():
                for pair, rows in _by_version(table):
                    _take(pair, rows, file, models, found, other, tolerance)
                advance(table.num_rows)
    versions = [{"model": m, "version": v, **r.to_json()} for (m, v), r in sorted(found.items())]
    if not any(v["score"]["rows"] for v in versions):
        raise DataError(f"no row of this log can be scored again by {reference}", where=str(log),
                        hint=_why_none(other, versions))
    answer: dict[str, Any] = {
        "log": str(log), "rows": total, "tolerance": tolerance, "versions": versions,
        "other": [{"model": m, "version": v, **o} for (m, v), o in sorted(other.items())],
        "source": None,
    }
    if source is not None and key is not None:
        bundle = next(iter(found.values())).bundle
        answer["source"] = compared_with(files, source, key, bundle.info, source_tolerance)
    answer["differs"] = any(v["differs"] for v in versions) or bool(
        answer["source"] and answer["source"]["differs"])
    return answer


def _by_version(table: pa.Table) -> list[tuple[tuple[str, str], pa.Table]]:
    """The rows of each model and version that a batch has."""
    pairs = table.select(["model", "version"]).group_by(["model", "version"]).aggregate([])
    found = []
    for row in pairs.to_pylist():
        pair = row["model"], row["version"]
        if pairs.num_rows == 1:
            return [((str(pair[0]), str(pair[1])), table)]
        mask = pc.and_(*(_is(table.column(c), v)
                         for c, v in zip(("model", "version"), pair, strict=True)))
        found.append(((str(pair[0]), str(pair[1])), table.filter(mask)))
    return found


def _is(column: pa.ChunkedArray, value: str | None) -> Any:
    return pc.is_null(column) if value is None else pc.fill_null(pc.equal(column, value), False)


def _take(
    pair: tuple[str, str], rows: pa.Table, file: LogFile, models: Answering,
    found: dict[tuple[str, str], Rescored], other: dict[tuple[str, str], dict[str, Any]],
    tolerance: float,
) -> None:
    bundle, why = models.bundle(*pair)
    if bundle is None:
        counted = other.setdefault(pair, {"rows": 0, "why": why})
        counted["rows"] += rows.num_rows
        return
    scored = found.setdefault(pair, Rescored(bundle, tolerance))
    if missing := [c for c in bundle.schema.names if FEATURE + c not in file.names]:
        scored.without(rows.num_rows, missing)
    else:
        scored.add(rows, str(file.path))


def _why_none(other: Mapping[tuple[str, str], Mapping[str, Any]], versions: list[Any]) -> str:
    if versions:
        return f"its files lack the features {', '.join(map(repr, versions[0]['lacking'][:5]))}"
    held = "; ".join(f"{o['rows']:,} rows of {m} version {v}: {o['why']}"
                     for (m, v), o in list(other.items())[:5])
    return f"it has {held}" if held else "it has no rows"
