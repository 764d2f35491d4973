"""The history: a folder of counts, so that windows can be judged and cut anew without the data.

    history.json             what it is of: the bundle's digest, the windows it keeps, the slices
    counts/<digest>.parquet  what one run counted, and of which contents (in the file's metadata)
    quality.json             what labels said of each window, when they were last given
    multivariate.json        what was found of all columns together, likewise
    verdict.json             the newest verdict over all of it
    pictures.json            bars of every column and window of it, for the dashboard
    alerts.json              the open alerts, and what is still to send (see `alerts`)

A row of a counts file says how many rows of a window and slice lie in a cell of a column:
``window`` (the window's number), ``slice`` (its name, or null for all rows), ``column``,
``cell``, ``count``; and ``name`` for a value that the reference has not (its ``cell`` is null).
Files are only added. What a file counts is known by content, so that the same data again adds
nothing; files of several machines can lie in one folder.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpupipe.checkpoints import digest, temporary_name
from gpupipe.errors import DataError
from gpupipe.monitor.counts import Counts, Names
from gpupipe.monitor.measures import Found
from gpupipe.monitor.scan import Observed, Slicing
from gpupipe.monitor.windows import Windows

FORMAT = 1
ABOUT, COUNTS, VERDICT, QUALITY = "history.json", "counts", "verdict.json", "quality.json"
WHOLE = "multivariate.json"
PICTURES = "pictures.json"
CONTENTS = b"gpupipe.contents"
SCHEMA = pa.schema([
    ("window", pa.int64()), ("slice", pa.dictionary(pa.int32(), pa.string())),
    ("column", pa.dictionary(pa.int32(), pa.string())), ("cell", pa.int32()),
    ("count", pa.int64()), ("name", pa.string()),
])


@dataclass(frozen=True)
class History:
    """A folder of counts.

    Attributes
    ----------
    windows : the windows whose counts it keeps.
    slicings : the slices whose counts it keeps.
    contents : the contents that were counted, and in which file.
    """

    folder: Path
    windows: Windows
    slicings: Sequence[Slicing]
    contents: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def opened(
        cls, folder: Path, model: Mapping[str, Any], windows: Windows | None,
        slicings: Sequence[Slicing],
    ) -> History:
        """The history in a folder, which is made where it is not there.

        DataError where it is of another bundle, or of other slices, or damaged.
        """
        cut = windows or Windows(None, "rows")
        own = {"format": FORMAT, "model": dict(model), "window": cut.text,
               "slices": [n for s in slicings for n in s.names]}
        path = folder / ABOUT
        if not path.exists() and windows is None:
            raise DataError("there is no history here yet", where=str(folder),
                            hint="name the data to begin it with")
        if not path.exists():
            (folder / COUNTS).mkdir(parents=True, exist_ok=True)
            write_json(path, own)
        there = read_json(path)
        if there.get("format") != FORMAT:
            raise DataError(f"the history is of format {there.get('format')!r}, and this version "
                            f"reads {FORMAT}", where=str(folder))
        for key, what in (("model", "bundle"), ("slices", "slices")):
            mine = own[key]["digest"] if key == "model" else own[key]  # type: ignore[index]
            theirs = there[key]["digest"] if key == "model" else there[key]
            if mine != theirs:
                raise DataError(f"the history is of another {what}" if key == "model" else
                                f"the history has other {what}", where=str(folder),
                                hint="keep a history folder for each bundle and set of slices")
        contents: dict[str, str] = {}
        for file in sorted((folder / COUNTS).glob("*.parquet")):
            for content in _contents(file):
                if content in contents:
                    raise DataError(
                        f"{file.name} and {contents[content]} count the same data",
                        where=str(folder), hint="delete one of the two")
                contents[content] = file.name
        return cls(folder, Windows.parse(there["window"]), slicings, contents)

    def add(self, observed: Observed, contents: Sequence[str]) -> None:
        """Keep what was counted of some contents; they are not among those that it has."""
        name = digest(sorted(contents))[:24] + ".parquet"
        path = self.folder / COUNTS / name
        table = table_of(observed, self.slicings).replace_schema_metadata(
            {CONTENTS: json.dumps(sorted(contents))})
        temporary = temporary_name(path)
        pq.write_table(table, temporary, compression="zstd")
        temporary.replace(path)

    def with_quality(self, found: dict[str, Any], windows: Windows) -> dict[str, Any]:
        """What labels said, with what they said before of windows that have none now.

        Labels need their predictions beside them, so this is kept as it was found, by the
        windows' length.
        """
        path = self.folder / QUALITY
        kept = read_json(path) if path.exists() else {}
        before = kept.get(windows.text, {})
        for number, own in (before.get("windows") or {}).items():
            new = found.get("windows", {}).get(number)
            if new is None or new["labelled"] < own["labelled"]:
                found.setdefault("windows", {})[number] = own
        for key in ("labels", "changes", "worst_slices", "metrics", "reference", "reliable"):
            if before.get(key) is not None and (not found.get(key) or (
                    key == "reliable" and found[key]["reliable"] is None)):
                found[key] = before[key]
        if found:
            write_json(path, {**kept, windows.text: plain(found)})
        return found

    def with_whole(
        self, found: Mapping[int, Mapping[str, Found]], windows: Windows
    ) -> dict[int, dict[str, Found]]:
        """What `multivariate` found, with what it found before in windows not given now."""
        path = self.folder / WHOLE
        kept = read_json(path) if path.exists() else {}
        mine = dict(kept.get(windows.text, {}))
        mine |= {str(w): {m: [f.value, f.effect, f.p] for m, f in own.items()}
                 for w, own in found.items()}
        if found:
            write_json(path, {**kept, windows.text: mine})
        return {int(w): {m: Found(*map(float, v)) for m, v in own.items()}
                for w, own in mine.items()}

    def read(self) -> Observed:
        """All that it holds."""
        found = Observed()
        for file in sorted((self.folder / COUNTS).glob("*.parquet")):
            found = found.merge(observed_of(pq.read_table(file), self.slicings, str(file)))
        return found


def table_of(observed: Observed, slicings: Sequence[Slicing]) -> pa.Table:
    """Counts as a table of `SCHEMA`."""
    slices = pa.array(["", *(n for s in slicings for n in s.names)], pa.string())
    tables = []
    for column, counts in sorted(observed.counts.items()):
        n = len(counts.keys)
        index = pa.array(counts.slice.astype(np.int32), mask=counts.slice == 0)
        tables.append(pa.table([
            counts.window, pa.DictionaryArray.from_arrays(index, slices), _named(column, n),
            counts.cell.astype(np.int32), counts.counts, pa.nulls(n, pa.string()),
        ], schema=SCHEMA))
    for column, names in sorted(observed.names.items()):
        items = sorted(names.of.items())
        n = len(items)
        index = pa.nulls(n, pa.int32())
        tables.append(pa.table([
            np.array([w for (w, _), _ in items], np.int64),
            pa.DictionaryArray.from_arrays(index, slices), _named(column, n),
            pa.nulls(n, pa.int32()), np.array([k for _, k in items], np.int64),
            pa.array([v for (_, v), _ in items], pa.string()),
        ], schema=SCHEMA))
    return pa.concat_tables(tables).unify_dictionaries() if tables else SCHEMA.empty_table()


def observed_of(table: pa.Table, slicings: Sequence[Slicing], where: str) -> Observed:
    """What a table of `SCHEMA` counts. DataError where it is none."""
    try:
        table = table.cast(SCHEMA)
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"this is no file of counts: {error}", where=where) from None
    slices = {n: i for i, n in enumerate((n for s in slicings for n in s.names), 1)}
    counts: dict[str, Counts] = {}
    names: dict[str, Names] = {}
    column = table.column("column").combine_chunks()
    codes = column.indices.to_numpy(zero_copy_only=False)
    named = table.column("name").is_valid().to_numpy()
    slice_ = table.column("slice").combine_chunks()
    known = np.array([0, *(slices.get(n, 0) for n in slice_.dictionary.to_pylist())], np.int64)
    of_row = known[slice_.indices.fill_null(-1).to_numpy(zero_copy_only=False) + 1]
    arrays = {c: table.column(c).to_numpy() for c in ("window", "count")}
    cell = table.column("cell").fill_null(0).to_numpy()
    for code, name in enumerate(column.dictionary.to_pylist()):
        mine = (codes == code) & ~named
        if mine.any():
            counts[name] = Counts.of(arrays["window"][mine], of_row[mine], cell[mine],
                                     arrays["count"][mine])
        mine = (codes == code) & named
        if mine.any():
            texts = table.column("name").filter(pa.array(mine)).to_pylist()
            keys = zip(arrays["window"][mine].tolist(), texts, strict=True)
            names[name] = Names(dict(zip(keys, arrays["count"][mine].tolist(), strict=True)))
    return Observed(counts, names)


def _named(column: str, n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), pa.array([column]))


def _contents(file: Path) -> list[str]:
    try:
        metadata = pq.read_schema(file).metadata or {}
        return list(json.loads(metadata[CONTENTS]))
    except (KeyError, ValueError, OSError, pa.ArrowException) as error:
        raise DataError(f"this is no file of counts: {error!r}", where=str(file),
                        hint="the history's folder is damaged; delete this file") from None


def bundle_digest(folder: Path) -> str:
    """What a bundle is known by: the SHA-256 of its list of hashes."""
    return hashlib.sha256((folder / "hashes.json").read_bytes()).hexdigest()


def plain(value: Any) -> Any:
    """JSON data without numbers that are not finite: null in their place."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, data: Any) -> None:
    """Write JSON by way of a temporary name."""
    temporary = temporary_name(path)
    temporary.write_text(json.dumps(plain(data), ensure_ascii=False, allow_nan=False,
                                    indent=1) + "\n",
                         encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. DataError where it is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"this cannot be read: {error}", where=str(path)) from None
    if not isinstance(data, dict):
        raise DataError("this is no JSON object", where=str(path))
    return data
