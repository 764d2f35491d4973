"""Assignment of a whole table: the arm of every row's unit, to a file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from gpupipe.checkpoints import temporary_name
from gpupipe.console import quiet, reading
from gpupipe.data.ingest import ingest
from gpupipe.errors import ConfigError, DataError
from gpupipe.experiment.assign import Assignment, Split, assign


def deal(
    split: Split, source: object, unit: str, output: Path, progress: Any = None
) -> dict[str, Any]:
    """Write unit, arm (null where it has none) and why, one row a row of ``source``.

    Answers with "rows", "arms" (rows of each), "left_out" (rows by why) and "output". ``output``
    ends in .parquet or .csv and appears when it is whole. ConfigError where the column
    is not there; DataError where a row has no id.
    """
    output = Path(output)
    if output.suffix not in (".parquet", ".csv"):
        raise ConfigError("the arms are written as .parquet or .csv", where=str(output))
    if not output.absolute().parent.is_dir():
        raise ConfigError("there is no such folder", where=str(output.parent))
    arms: Counter[str] = Counter()
    out: Counter[str] = Counter()
    with TemporaryDirectory(prefix="gpupipe-experiment-") as folder:
        with reading(progress) as report:
            table = ingest(source, cache=Path(folder), progress=report)
        field = table.schema[unit]
        if field.dtype not in ("string", "int64"):
            raise DataError(f"column {unit!r} is {field.dtype}, and an id is text or a whole "
                            "number", where=table.source)
        schema = pa.schema([(unit, pa.string() if field.dtype == "string" else pa.int64()),
                            ("arm", pa.string()), ("why", pa.string())])
        temporary = temporary_name(output.absolute())
        writer: Any = (pq.ParquetWriter if output.suffix == ".parquet" else pacsv.CSVWriter)(
            str(temporary), schema)
        try:
            with writer, quiet(progress).stage("assign", table.rows, "rows") as stage:
                known: dict[Any, Assignment] = {}
                for batch in table.stream([unit]):
                    ids = batch.column(unit).cast(schema.field(unit).type).to_pylist()
                    if None in ids:
                        raise DataError(f"a row has no {unit!r}", where=table.source,
                                        hint="a unit without an id cannot be kept in its arm")
                    dealt = [known.get(i) or known.setdefault(i, assign(i, split)) for i in ids]
                    arms.update(d.arm for d in dealt if d.arm is not None)
                    out.update(d.why for d in dealt if d.arm is None)
                    writer.write_table(pa.table(
                        [ids, [d.arm for d in dealt], [d.why for d in dealt]], schema=schema))
                    known = {} if len(known) > 1_000_000 else known
                    stage.advance(len(ids))
            temporary.replace(output)
        finally:
            temporary.unlink(missing_ok=True)
    return {"rows": table.rows, "arms": {a: arms[a] for a in split.arms},
            "left_out": dict(sorted(out.items())), "output": str(output)}
