"""What a method of feature selection is, and what it decides.

To add one, write a class like those of `filters.py` and decorate it with ``@register("name")``:
its fields are the parameters that a pipeline file may set, ``space`` says where a search looks
for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import erfc, sqrt
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from gpupipe.config.section import Section
from gpupipe.models.base import Matrix, Space

if TYPE_CHECKING:
    from gpupipe.select.evidence import Evidence


@dataclass(frozen=True)
class Unit:
    """What is kept or dropped as one: a feature, or all that comes of a source column.

    ``columns`` are those of the matrix; ``codes`` whether it is one column of unordered codes.
    """

    name: str
    source: str
    columns: tuple[int, ...]
    codes: bool


@dataclass(frozen=True)
class Verdict:
    """What a method decided.

    Attributes
    ----------
    keep : by unit.
    scores : what it went by, by unit; greater is better, NaN where there is none.
    threshold : what a score had to pass, where one number says it.
    note : what else should be known, for people.
    """

    keep: np.ndarray
    scores: np.ndarray
    threshold: float | None = None
    note: str = ""


class Method(Section, ABC):
    """Base of the methods: a frozen configuration that decides on evidence."""

    name: ClassVar[str]
    space: ClassVar[Space] = {}
    """Where a search looks for its parameters."""
    asks_model: ClassVar[bool] = False
    """Whether it trains the pipeline's own model to find out."""

    @abstractmethod
    def choose(self, evidence: Evidence) -> Verdict:
        """Which of ``evidence.units`` to keep."""


METHODS: dict[str, type[Method]] = {}
"""The methods that a pipeline file may name."""
C = TypeVar("C", bound=type[Method])


def register(name: str) -> Callable[[C], C]:
    """Make a method known as ``name``."""

    def decorate(cls: C) -> C:
        cls.name = name
        METHODS[name] = cls
        return cls

    return decorate


def units_of(matrix: Matrix, by_column: bool) -> tuple[Unit, ...]:
    """The units of a matrix's columns: its features, or its source columns if ``by_column``.

    Where it is not known what columns are parts of, each of them is a unit.
    """
    origins = matrix.origins or matrix.names
    names = origins if by_column else matrix.parts or matrix.names
    columns: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        columns.setdefault(name, []).append(at)
    return tuple(Unit(name, origins[at[0]], tuple(at),
                      len(at) == 1 and matrix.categorical[at[0]])
                 for name, at in columns.items())


def upper_tail(z: np.ndarray) -> np.ndarray:
    """P(Z >= z) of a standard normal, elementwise."""
    return np.array([erfc(v / sqrt(2)) / 2 for v in np.asarray(z, float)])


def discoveries(p: np.ndarray, alpha: float) -> np.ndarray:
    """Which hypotheses are rejected where a share ``alpha`` of them may be by mistake.

    Y. Benjamini and Y. Hochberg, "Controlling the False Discovery Rate", J. R. Stat. Soc. B 57,
    1995.
    """
    order = np.argsort(p, kind="stable")
    passed = np.flatnonzero(p[order] <= alpha * np.arange(1, len(p) + 1) / len(p))
    rejected = np.zeros(len(p), bool)
    rejected[order[: passed[-1] + 1 if len(passed) else 0]] = True
    return rejected


def plain(value: float) -> float | None:
    """A score for JSON: None where there is none."""
    return float(value) if np.isfinite(value) else None


