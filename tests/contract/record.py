"""What a run used of a library: every name, with how many arguments and which keywords."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Use:
    """One way in which something of a library was used.

    Attributes
    ----------
    owner : a module or a class, by its full name: ``cupy``, ``cupy.ndarray``, ``cudf.Series``.
    name : of the function, method, operator or attribute. ``__init__`` makes a new ``owner``.
    positional : how many arguments came without a name; None where nothing was called.
    keywords : the names of the others.
    """

    owner: str
    name: str
    positional: int | None = None
    keywords: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.positional is None:
            return f"{self.owner}.{self.name}"
        arguments = ["_"] * self.positional + [f"{k}=" for k in self.keywords]
        return f"{self.owner}.{self.name}({', '.join(arguments)})"


@dataclass
class Record:
    """The uses of a run. What is used before it is `open` is the tests' own business."""

    uses: set[Use] = field(default_factory=set)
    is_open: bool = True

    def call(self, owner: str, name: str, positional: int, keywords: Iterable[str] = ()) -> None:
        if self.is_open:
            self.uses.add(Use(owner, name, positional, tuple(sorted(keywords))))

    def get(self, owner: str, name: str) -> None:
        if self.is_open:
            self.uses.add(Use(owner, name))

    @contextmanager
    def closed(self):
        """Inside, nothing is recorded."""
        before, self.is_open = self.is_open, False
        try:
            yield
        finally:
            self.is_open = before


class HostCopy(Exception):  # noqa: N818 - what happened
    """An array would have gone from the device to the host, or back, without being asked to."""
