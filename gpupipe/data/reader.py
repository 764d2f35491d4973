"""Reading a dataset: its batches as columns on the device, decoded once where memory allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from gpupipe.data.batches import Columns, batches
from gpupipe.data.dataset import Dataset
from gpupipe.engine.frames import Column
from gpupipe.engine.local import LocalEngine


@dataclass
class Reader:
    """The batches of a dataset, for any number of scans.

    Where the decoded columns fit into the engine's memory, the first scan keeps them and no
    later one decodes anything; where they do not, every scan streams what it needs.

    Attributes
    ----------
    decoded : how often each column of each part was decoded, by (part, column).
    """

    dataset: Dataset
    engine: LocalEngine
    decoded: Counter[tuple[int, str]] = field(default_factory=Counter)
    _kept: dict[str, dict[int, list[Column]]] = field(default_factory=dict)

    def keep(self, columns: Sequence[str]) -> bool:
        """Keep these columns from the next scan of all of them on, if they fit. Whether they do."""
        dtypes = [self.dataset.schema[c].dtype for c in columns]
        if self.engine.memory.keeps(self.dataset.rows, dtypes):
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
                    part.pop(index)
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
            self._kept[name][index] = of_part

    def share(self, columns: Sequence[str]) -> None:
        """Give each of these columns, where it is kept, one dictionary for all its batches."""
        parts = len(self.dataset.parts)
        whole = [c for c in columns if c in self._kept and len(self._kept[c]) == parts]
        todo = [c for c in whole if not _share_already(self._of(c))]
        for at, shared in self.engine.map(lambda c: self.engine.fx.share(self._of(c)), todo):
            batches = iter(shared)
            for part in self._kept[todo[at]].values():
                part[:] = [next(batches) for _ in part]

    def keep_only(self, columns: Sequence[str]) -> None:
        """Forget all but these columns; the others are streamed if they are asked for again."""
        self._kept = {name: kept for name, kept in self._kept.items() if name in columns}

    def _of(self, column: str) -> list[Column]:
        return [batch for part in self._kept[column].values() for batch in part]


def _share_already(batches: Sequence[Column]) -> bool:
    """Whether all batches have the same dictionary."""
    answers = batches[0].answers if batches else None
    return answers is not None and all(b.answers is answers for b in batches)
