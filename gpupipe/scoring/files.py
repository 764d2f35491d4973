"""`predict`: a source of any size scored to a file, or part by part to a folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from gpupipe.bundle.contributions import contribution_columns
from gpupipe.bundle.scoring import BATCH_ROWS, Bundle, load
from gpupipe.checkpoints import temporary_name
from gpupipe.config import EngineConfig
from gpupipe.data.dataset import Dataset, on_disk
from gpupipe.engine.choose import Choice, choose
from gpupipe.errors import ConfigError, DataError
from gpupipe.models.unsupervised import typed
from gpupipe.scoring.source import opened, plain
from gpupipe.steps.passes import Advance, stage


def predict(
    target: Path, source: object, output: Path, *, engine: EngineConfig | None = None,
    contributions: bool = False, progress: Any = None,
) -> dict[str, Any]:
    """Score a source of any size, batch by batch, to ``output``.

    The columns are the bundle's key (or ``row``, from 0), ``prediction``, and ``probability``
    or one ``probability_<class>`` a class; where the bundle has intervals, ``prediction_low``
    and ``prediction_high``, or for classes one ``in_set_<class>`` each; of a model that learned
    without a target, its outputs. A name that ends in .parquet or .csv is one file; one without an
    ending is a folder with a Parquet file for each part of the source, which are scored side by
    side, by the workers of a Dask cluster where ``engine`` says so. Either appears when it is
    whole, in place of what was there by its name.
    With ``contributions`` there are ``base`` and a ``contribution_<column>`` for each column.
    """
    output, engine = Path(output), engine or EngineConfig()
    if output.suffix not in (".parquet", ".csv", ""):
        raise ConfigError("expected a name that ends in .parquet or .csv, or a folder's",
                          where=str(output), hint="give --output such a name")
    if not output.absolute().parent.is_dir():
        raise ConfigError("there is no such folder", where=str(output.parent),
                          hint="make it, or give --output another name")
    choice = choose(engine.model_copy(update={"device": "cpu"}))  # bundles score on the CPU
    if choice.remote and output.suffix:
        raise ConfigError("a cluster's workers write a folder, not a file", where=str(output),
                          hint="give --output a name without an ending")
    bundle = load(target)
    with opened(bundle, source) as dataset:
        if not dataset.rows:
            raise DataError("there is no row to score")
        keys = [k for k in bundle.info["key"] if k in dataset.schema]
        with stage(progress, "predict", dataset.rows) as advance:
            if output.suffix:
                tables = dataset.stream(_columns(bundle, keys), BATCH_ROWS)
                _write_file(bundle, tables, keys, output, contributions, advance=advance)
            else:
                _write_folder(bundle, dataset, keys, output, contributions, advance, choice)
        return {"output": str(output), "rows": dataset.rows,
                "quarantined": dataset.quarantine.count,
                "quarantine": dataset.quarantine.reasons, "notes": list(dataset.notes),
                "bundle": str(bundle.path)}


def _write_file(
    bundle: Bundle, tables: Iterable[pa.Table], keys: list[str], path: Path,
    contributions: bool = False, first_row: int = 0, advance: Advance = lambda n: None,
) -> int:
    """Score tables to one file, which appears when it is whole. How many rows."""
    temporary, writer, rows = temporary_name(path), None, 0
    try:
        for table in tables:
            scored = scored_table(bundle, table, keys, first_row + rows, contributions)
            writer = writer or _writer(temporary, path.suffix, scored.schema)
            writer.write_table(scored)
            rows += table.num_rows
            advance(table.num_rows)
        assert writer is not None
        writer.close()
        temporary.replace(path)
    finally:
        if writer is not None:
            writer.close()
        temporary.unlink(missing_ok=True)
    return rows


def _write_folder(
    bundle: Bundle, dataset: Dataset, keys: list[str], output: Path, contributions: bool,
    advance: Advance, choice: Choice,
) -> None:
    """A file for each part, in a folder that takes the place of the one that is there."""
    strange = [p.name for p in sorted(output.glob("*")) if not FILE.fullmatch(p.name)]
    if output.exists() and (strange or not output.is_dir()):
        raise ConfigError(
            f"this is there already, and holds {strange[0]!r}" if strange else
            "this is there already, and is no folder", where=str(output),
            hint="give --output another name",
        )
    temporary = temporary_name(output.absolute())
    temporary.mkdir()
    try:
        with choice.opened() as (engine, _):
            if choice.remote:
                (temporary / ".source").mkdir()
                dataset = on_disk(dataset, temporary / ".source")
            starts = np.cumsum([0, *(p.rows for p in dataset.parts)]).tolist()
            engine.pin(bundle)
            part = _ScorePart(bundle, dataset, tuple(keys), tuple(starts), temporary,
                              contributions)
            for index, written in enumerate(engine.ordered(part, range(len(dataset.parts)))):
                if written != dataset.parts[index].rows:
                    raise DataError(f"part {index} changed while it was scored: "
                                    f"{written} of {dataset.parts[index].rows} rows")
                advance(written)
        shutil.rmtree(temporary / ".source", ignore_errors=True)
        for left in temporary.glob(".*"):  # what a worker was writing when it was killed
            left.unlink()
        if output.exists():
            old = temporary_name(output.absolute())
            output.rename(old)
            temporary.rename(output)
            shutil.rmtree(old)
        else:
            temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class _ScorePart:
    """Scores one part to a file, whose name is the part's: written twice, it is there once."""

    bundle: Bundle
    dataset: Dataset
    keys: tuple[str, ...]
    starts: tuple[int, ...]
    folder: Path
    contributions: bool

    def __call__(self, index: int) -> int:
        tables = self.dataset.parts[index].stream(_columns(self.bundle, list(self.keys)),
                                                  BATCH_ROWS)
        return _write_file(self.bundle, tables, list(self.keys),
                           self.folder / f"part-{index:05}.parquet", self.contributions,
                           self.starts[index])


FILE = re.compile(r"part-\d{5,}\.parquet")
"""What the files of a folder of predictions are called."""


def _columns(bundle: Bundle, keys: list[str]) -> list[str]:
    return list(dict.fromkeys([*bundle.schema.names, *keys]))


def scored_table(
    bundle: Bundle, table: pa.Table, keys: list[str], first_row: int, contributions: bool = False,
) -> pa.Table:
    """Keys and predictions of a table, as `predict` writes them."""
    scores, bounds = bundle.scored(table)
    columns: dict[str, Any] = {k: plain(table.column(k)) for k in keys}
    if not keys:
        columns["row"] = np.arange(first_row, first_row + table.num_rows)
    classes = bundle.classes
    if bundle.outputs:
        columns |= typed(bundle.outputs, scores)
    elif not classes:
        columns["prediction"] = scores
    elif scores.ndim == 1:
        columns["prediction"] = pa.array(bundle.labels(scores))
        columns["probability"] = scores
    else:
        columns["prediction"] = pa.array(bundle.labels(scores))
        columns |= {f"probability_{c}": scores[:, i] for i, c in enumerate(classes)}
    columns |= bounds_columns(bounds, classes)
    if contributions:
        columns |= contribution_columns(bundle, table, scores)
    return pa.table(columns)


def bounds_columns(bounds: np.ndarray | None, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Intervals or sets under the names of their columns; nothing where there are none."""
    if bounds is None:
        return {}
    names = [f"in_set_{c}" for c in classes] or ["prediction_low", "prediction_high"]
    return {name: bounds[:, i] for i, name in enumerate(names)}


def _writer(path: Path, suffix: str, schema: pa.Schema) -> Any:
    path.touch()  # Arrow's own error would not carry the file's name
    return (pyarrow.csv.CSVWriter if suffix == ".csv" else pq.ParquetWriter)(path, schema)
