"""The prediction log: what was answered, by which model, as Parquet.

    LOG/date=2026-01-31/part-00001766-....parquet

The columns are ``prediction_id``, ``request_id``, ``unit_id``, ``time`` (UTC), ``model``,
``version``, ``variant``, ``shadow``, ``score`` (P(positive), or the value of a regression),
``probabilities`` (of more than two classes), ``prediction`` (the label), and, where asked for,
``feature:NAME`` for every raw column. A thread writes; answers never wait for it.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gpupipe.data.schema import ARROW_TYPES
from gpupipe.serve.metrics import Metrics
from gpupipe.serve.models import Model

SCHEMA = pa.schema([
    ("prediction_id", pa.string()), ("request_id", pa.string()), ("unit_id", pa.string()),
    ("time", pa.timestamp("us", "UTC")), ("model", pa.string()), ("version", pa.string()),
    ("variant", pa.string()), ("shadow", pa.bool_()), ("score", pa.float64()),
    ("probabilities", pa.list_(pa.float64())), ("prediction", pa.string()),
])
FEATURE = "feature:"
HELD = 20
"""Rows that are kept while they cannot be written: so many times what is written at once."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One request's rows and what was answered."""

    time: float
    request_id: str
    units: Sequence[str | None] | str | None
    model: Model
    shadow: bool
    predictions: Sequence[dict[str, Any]]
    rows: Any


def score_of(prediction: dict[str, Any]) -> float | None:
    """The one number of a prediction: None where there are more classes than two."""
    if "probability" in prediction:
        return float(prediction["probability"])
    value = prediction.get("prediction")
    return float(value) if "probabilities" not in prediction and isinstance(
        value, (int, float)) else None


def table_of(entries: Sequence[Answered], features: bool) -> pa.Table:
    """Entries as rows of the log; ``features`` adds the raw columns in the bundle's types."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for entry in entries:
        n, model = len(entry.predictions), entry.model
        moment = datetime.fromtimestamp(entry.time, UTC)
        units = entry.units
        columns["prediction_id"] += [p["id"] for p in entry.predictions]
        columns["request_id"] += [entry.request_id] * n
        columns["unit_id"] += [units] * n if units is None or isinstance(units, str) else units
        columns["time"] += [moment] * n
        columns["model"] += [model.name] * n
        columns["version"] += [model.version] * n
        columns["variant"] += [model.variant] * n
        columns["shadow"] += [entry.shadow] * n
        for p in entry.predictions:
            columns["score"].append(score_of(p))
            columns["probabilities"].append(
                [float(v) for v in p["probabilities"].values()] if "probabilities" in p else None)
            label = p.get("prediction")
            columns["prediction"].append(label if isinstance(label, str) else None)
    table = pa.table(columns, schema=SCHEMA)
    if not features:
        return table
    tables = [_features(e) for e in entries]
    raw = pa.concat_tables(tables, promote_options="permissive")
    for name, column in zip(raw.column_names, raw.columns, strict=True):
        table = table.append_column(FEATURE + name, column)
    return table


def _features(entry: Answered) -> pa.Table:
    """The raw columns of an entry, without those that the model does not know."""
    schema = entry.model.bundle.schema
    if isinstance(entry.rows, pa.Table):
        typed = entry.model.bundle.typed(entry.rows)
        return typed.cast(schema.to_arrow())
    return pa.Table.from_arrays(
        [pa.array([r[f.name] for r in entry.rows], ARROW_TYPES[f.dtype]) for f in schema],
        names=schema.names)


class PredictionLog:
    """Keeps what was answered and has a thread write it.

    Parameters
    ----------
    folder : the log's folder; made where it is not there.
    features : whether raw columns are logged.
    every : seconds between writes.
    rows : rows that are written at once, sooner than that.
    tell : takes a line of what went wrong.
    """

    def __init__(
        self, folder: Path, features: bool, every: float, rows: int, metrics: Metrics,
        tell: Callable[[str], None],
    ) -> None:
        self.folder, self.features, self.every, self.rows = folder, features, every, rows
        self.metrics, self.tell = metrics, tell
        self.failing: str | None = None
        self._entries: deque[Answered] = deque()
        self._added = self._taken = 0  # rows; each is changed by one thread alone
        self._numbers = 0
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, entry: Answered) -> None:
        """Keep one request's rows; drop them, counted, where too many are kept already."""
        n = len(entry.predictions)
        if self._added - self._taken + n > self.rows * HELD:
            self.metrics.add("gpupipe_log_rows_total", n, outcome="dropped")
            return
        self._added += n
        self._entries.append(entry)
        if self._added - self._taken >= self.rows:
            self._wake.set()

    def close(self) -> None:
        """Write what is left."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self.every)
            self._wake.clear()
            self.flush()
            if self.failing and not self._stopping:
                self._wake.wait(min(self.every, 1.0))
        self.flush()

    def flush(self) -> None:
        """Write what is kept, a file for each day and each set of columns."""
        groups: dict[tuple[str, Any], list[Answered]] = {}
        for _ in range(len(self._entries)):
            entry = self._entries.popleft()
            day = time.strftime("%Y-%m-%d", time.gmtime(entry.time))
            columns = entry.model.bundle.schema if self.features else None
            groups.setdefault((day, columns), []).append(entry)
        for (day, _), group in groups.items():
            n = sum(len(e.predictions) for e in group)
            try:
                self._write(day, table_of(group, self.features))
            except Exception as error:  # whatever it is, the thread goes on
                self.metrics.add("gpupipe_log_errors_total")
                if self.failing is None:
                    self.tell(f"the prediction log cannot be written: {error}")
                self.failing = str(error)
                self._entries.extendleft(reversed(group))
                continue
            if self.failing is not None:
                self.tell("the prediction log is written again")
            self.failing = None
            self._taken += n
            self.metrics.add("gpupipe_log_rows_total", n, outcome="written")

    def _write(self, day: str, table: pa.Table) -> None:
        folder = self.folder / f"date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"part-{int(time.time()):010}-{os.getpid()}-{self._numbers}-{secrets.token_hex(4)}"
        self._numbers += 1
        temporary = folder / f".{name}.tmp"
        try:
            pq.write_table(table, temporary, compression="zstd")
            temporary.rename(folder / f"{name}.parquet")
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
