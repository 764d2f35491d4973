"""The prediction log, file by file and row group by row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gpupipe.bundle.scoring import BATCH_ROWS
from gpupipe.data.sources import reading, resolve
from gpupipe.errors import DataError

FEATURE = "feature:"
"""What a raw column is called by in the log."""
NEEDED = ("prediction_id", "unit_id", "model", "version", "shadow", "score", "prediction")
ANSWER = (*NEEDED, "probabilities")


@dataclass(frozen=True)
class LogFile:
    """A file of the log: its columns and how many rows it has."""

    path: Path
    schema: pa.Schema
    rows: int

    @property
    def names(self) -> list[str]:
        return list(self.schema.names)

    @property
    def features(self) -> list[str]:
        """The raw columns that it has, without their prefix."""
        return [n.removeprefix(FEATURE) for n in self.names if n.startswith(FEATURE)]

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Its rows, at most `BATCH_ROWS` at a time: what was answered and the features, or
        ``columns``."""
        wanted = [n for n in self.names if n in ANSWER or n.startswith(FEATURE)] \
            if columns is None else list(columns)
        with reading(self.path), pq.ParquetFile(self.path) as file:
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(BATCH_ROWS, [group], wanted):
                    yield pa.Table.from_batches([batch]).select(wanted)


def log_files(log: str | Path) -> list[LogFile]:
    """The files of a log, in order of their paths. DataError for one that is no part of a log."""
    found = []
    for file in resolve(log):
        path = file.path
        with path.open("rb") as opened:
            if opened.read(4) != b"PAR1":
                raise DataError("this is no prediction log: expected Parquet files",
                                where=str(path), hint="name the folder that the server logs to")
        with reading(path), pq.ParquetFile(path) as parquet:
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
        lacking = [n for n in NEEDED if n not in schema.names]
        if lacking:
            raise DataError(f"this is no prediction log: it lacks {', '.join(map(repr, lacking))}",
                            where=str(path), hint="name the folder that the server logs to")
        found.append(LogFile(path, schema, rows))
    return found
