"""What an engine is: where the parts of a table are worked on, and by how many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from gpupipe.engine.frames import Frames
from gpupipe.engine.memory import Memory

P = TypeVar("P")
S = TypeVar("S")


class Engine(Protocol):
    """Works on the parts of a table. None knows what a step is.

    Attributes
    ----------
    fx : the frame layer that functions use where they run.
    workers : how many parts are worked on at once; a model's threads, where it trains.
    batch_rows : rows of a batch within a part.
    memory : what one process may take.
    processes : how many processes hold parts of the table.
    remote : whether functions run in other processes than this one.
    here : side-by-side work on what is in this process: the engine itself, if not ``remote``.
    there : the engine as the processes have it in which functions run.
    reliefs : what makes room where a device is full; each says whether there was any to make.
    """

    fx: Frames
    workers: int
    batch_rows: int
    memory: Memory
    processes: int
    remote: bool
    reliefs: list[Callable[[], bool]]

    @property
    def here(self) -> Engine: ...

    @property
    def there(self) -> Engine: ...

    def pin(self, value: Any) -> None:
        """Say that ``value`` is large and part of many functions: it is sent once."""
        ...

    def fold(
        self, function: Callable[[P], S], merge: Callable[[S, S], S], parts: Sequence[P],
        done: Callable[[P], None] = ...,
    ) -> S | None:
        """The merge of ``function(part)`` over all parts; None where there is no part.

        ``merge`` is associative and commutative, and may use up what it is given. ``done`` is
        told of each part, in this process.
        """
        ...

    def ordered(self, function: Callable[[P], S], parts: Iterable[P]) -> Iterator[S]:
        """Yield ``function(part)`` in the order of the parts; the next ones are made meanwhile."""
        ...

    def map(self, function: Callable[[P], S], parts: Sequence[P]) -> Iterator[tuple[int, S]]:
        """Yield ``(index, function(part))`` as parts finish."""
        ...

    def warm(self, function: Callable[[], Any]) -> None:
        """Call ``function`` in every other process that works, and do not wait for it."""
        ...

    def performance(self, stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What other processes did in each stage of a run; empty where there are none."""
        ...

    def everywhere(self, function: Callable[[], Any]) -> None:
        """Call ``function`` once in every process that works on parts."""
        ...
