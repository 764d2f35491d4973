"""Reading a dataset: its batches as columns on the device, decoded once where memory allows."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gpupipe.data.batches import Columns, batches
from gpupipe.data.dataset import Dataset
from gpupipe.engine.attach import attach
from gpupipe.engine.base import Engine
from gpupipe.engine.frames import Column


@dataclass
class Reader:
    """The batches of a dataset, for any number of scans.

    Where the decoded columns fit into the engine's memory, the first scan keeps them and no
    later one decodes anything; where they do not, every scan streams what it needs.

    Where the engine works in other processes, each of them has a reader of its own, which keeps
    the parts that it read: this one, sent there, becomes that one (see `engine.attach`).

    Attributes
    ----------
    decoded : how often each column of each part was decoded, by (part, column).
    """

    dataset: Dataset
    engine: Engine
    decoded: Counter[tuple[int, str]] = field(default_factory=Counter)
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    _kept: dict[str, dict[int, list[Column]]] = field(default_factory=dict)
    _full: bool = False

    def __post_init__(self) -> None:
        self.engine.there.reliefs.append(self.let_go)

    def let_go(self) -> bool:
        """Let go of the columns that are kept, to be streamed from now on. Whether there were."""
        kept, self._kept, self._full = self._kept, {}, True
        return any(kept.values())

    def keep(self, columns: Sequence[str]) -> bool:
        """Keep these columns from the next scan of all of them on, if they fit. Whether they do."""
        dtypes = [self.dataset.schema[c].dtype for c in columns]
        if not self._full and self.engine.memory.keeps(self.dataset.rows, dtypes):
            self._kept = {c: {} for c in columns}
        return bool(self._kept)

    @property
    def keeps(self) -> bool:
        """Whether any columns are kept."""
        return bool(self._kept)

    def batches(
        self, index: int, columns: Sequence[str], last: bool = False
    ) -> Iterator[Columns]:
        """The batches of part ``index``, in order. The ``last`` time it is let go."""
        if all(index in self._kept.get(c, ()) for c in columns):
            kept = [self._kept[c][index] for c in columns]
            if last:
                for part in self._kept.values():
                    part.pop(index, None)
            for together in zip(*kept, strict=True):
                yield dict(zip(columns, together, strict=True))
            return
        fx, schema = self.engine.fx, self.dataset.schema
        # A part is kept as one scan cut it: where the batches end depends on the columns read.
        keeping = [c for c in columns if c in self._kept] if set(self._kept) <= set(columns) else []
        read: dict[str, list[Column]] = {c: [] for c in keeping}
        rows = self.engine.batch_rows
        for batch in batches(self.dataset.parts[index], columns, schema, rows, fx):
            for name, of_part in read.items():
                of_part.append(fx.narrow(batch[name]))
            yield batch
        self.decoded.update((index, c) for c in columns)
        for name, of_part in read.items():
            if name in self._kept:  # or they were let go meanwhile
                self._kept[name][index] = of_part

    def share(self, columns: Sequence[str]) -> None:
        """Give each of these columns, where it is kept, one dictionary for all its batches.

        All that are kept in one process, that is: where there are others, they have their own.
        """
        self.engine.everywhere(_Share(self, tuple(columns)))

    def share_here(self, columns: Sequence[str]) -> None:
        """`share`, in this process."""
        kept = [c for c in columns if self._kept.get(c)]
        todo = [c for c in kept if not _share_already(self._of(c))]
        for at, shared in self.engine.map(lambda c: self.engine.fx.share(self._of(c)), todo):
            batches = iter(shared)
            for part in self._kept[todo[at]].values():
                part[:] = [next(batches) for _ in part]

    def keep_only(self, columns: Sequence[str]) -> None:
        """Forget all but these columns; the others are streamed if they are asked for again."""
        self._kept = {name: kept for name, kept in self._kept.items() if name in columns}

    def _of(self, column: str) -> list[Column]:
        return [batch for part in self._kept[column].values() for batch in part]

    def __reduce__(self) -> tuple[Any, ...]:
        return attach, (Reader, (self.dataset, self.engine.there), self.token, tuple(self._kept))

    def attached(self, kept: Sequence[str]) -> Reader:
        """The same, once it keeps these columns and no others."""
        for name in [n for n in self._kept if n not in kept]:
            self._kept.pop(name, None)
        for name in () if self._full else kept:
            self._kept.setdefault(name, {})
        return self


@dataclass(frozen=True)
class _Share:
    """`Reader.share` in the process where it is called."""

    reader: Reader
    columns: tuple[str, ...]

    def __call__(self) -> None:
        self.reader.share_here(self.columns)

def _share_already(batches: Sequence[Column]) -> bool:
    """Whether all batches have the same dictionary."""
    answers = batches[0].answers if batches else None
    return answers is not None and all(b.answers is answers for b in batches)
