"""A source read as a bundle's training data was: same types, same tokens for missing."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from gpupipe.bundle.scoring import Bundle
from gpupipe.data.dataset import Dataset
from gpupipe.data.ingest import ingest_plain
from gpupipe.errors import ConfigError, DataError, did_you_mean


@contextmanager
def opened(
    bundle: Bundle, source: object, judging: Mapping[str, str] | None = None
) -> Iterator[Dataset]:
    """The source read as the training data was: same types, same tokens for missing.

    ``judging`` are the types of the columns that the model is judged by.
    """
    types: dict[str, str] = {f.name: f.dtype for f in bundle.schema}
    types |= judging or {}
    with tempfile.TemporaryDirectory(prefix="gpupipe-") as cache:
        try:
            dataset = read_as(bundle.info, source, types, Path(cache), types)
        except ConfigError:
            # A pinned column that is not there: say so as scoring would.
            dataset = read_as(bundle.info, source, types, Path(cache))
            _check_columns(bundle, dataset, judging or ())
            raise
        _check_columns(bundle, dataset, judging or ())
        yield dataset


def read_as(
    info: Mapping[str, Any], source: object, needed: Collection[str], cache: Path,
    types: Mapping[str, str] | None = None,
) -> Dataset:
    """A source read with the options of a bundle's training data (``info``), in these types.

    Columns that cannot be read and are not ``needed`` are left out.
    """
    reader = info["reader"]
    return ingest_plain(
        source, needed, cache=cache, types=dict(types or {}), missing=info["missing"],
        delimiter=reader["delimiter"], encoding=reader["encoding"], header=reader["header"],
        max_bad_share=reader["max_bad_share"])


def _check_columns(bundle: Bundle, dataset: Dataset, judging: Iterable[str]) -> None:
    """DataError where the file lacks a column of the model, or one to judge by."""
    try:
        bundle.typed(dataset.schema.select(
            [n for n in bundle.schema.names if n in dataset.schema]).to_arrow().empty_table())
    except DataError as error:
        raise DataError(error.message, hint=error.hint, where=dataset.source) from None
    for name in judging:
        if name not in dataset.schema:
            near = did_you_mean(name, dataset.schema.names)
            raise DataError(
                f"there is no column {name!r} to judge by", where=dataset.source,
                hint=f"did you mean {near!r}?" if near else
                "evaluate needs the target; predict scores data without it",
            )


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without a dictionary."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column
