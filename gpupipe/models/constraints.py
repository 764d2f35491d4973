"""Constraints on trees by name: directions that the prediction may take, features that may meet.

A name is a feature's, or that of the source column that features were made of; what was made of
several columns goes by its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.errors import ConfigError, did_you_mean
from gpupipe.models.base import Matrix


def check_monotone(kind: str, given: Any) -> None:
    """ConfigError unless it is a mapping of names to -1, 0 or 1."""
    if not isinstance(given, Mapping) or any(
        isinstance(v, bool) or v not in (-1, 0, 1) for v in given.values()
    ):
        raise ConfigError(
            f"monotone_constraints of model {kind!r} maps names to 1 (the prediction never falls "
            f"as the feature grows), -1 (it never rises) or 0, found {given!r}",
            hint="write it like {age: 1, distance: -1}",
        )


def check_interaction(kind: str, given: Any) -> None:
    """ConfigError unless it is a list of lists of names."""
    if not _is_list(given) or not all(
        _is_list(g) and all(isinstance(n, str) for n in g) for g in given
    ):
        raise ConfigError(
            f"interaction_constraints of model {kind!r} is a list of groups of names, and only "
            f"features of one group meet on a path, found {given!r}",
            hint="write it like [[age, income], [city, distance]]",
        )


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def monotone(given: Mapping[str, int], train: Matrix) -> list[int]:
    """For each feature -1, 0 or 1.

    A name that a feature has is that feature's alone; a source column's means every feature
    that was made of it. ConfigError for unknown names and for unordered codes.
    """
    found = [0] * len(train.names)
    for name, direction in given.items():
        own = [i for i, n in enumerate(train.names) if n == name]
        for i in own or _of_column(name, train, "monotone_constraints"):
            if train.categorical[i] and direction:
                raise ConfigError(
                    f"monotone_constraints: {train.names[i]!r} holds codes without an order",
                    hint="encode it as a number, by target_encode or count, or leave it out",
                )
            found[i] = int(direction)
    return found


def interaction(given: Sequence[Sequence[str]], train: Matrix) -> list[list[int]]:
    """Groups of feature numbers. A name means the feature, and all that a column became.

    ConfigError for unknown names.
    """
    groups = []
    for group in given:
        members: set[int] = set()
        for name in group:
            own = {i for i, n in enumerate(train.names) if n == name}
            made = {i for i, n in enumerate(train.origins) if n == name}
            members |= own | made or set(_of_column(name, train, "interaction_constraints"))
        groups.append(sorted(members))
    return groups


def _of_column(name: str, train: Matrix, parameter: str) -> list[int]:
    """The features made of a source column."""
    found = [i for i, n in enumerate(train.origins) if n == name]
    if not found:
        known = list(dict.fromkeys((*train.names, *train.origins)))
        near = did_you_mean(name, known)
        raise ConfigError(
            f"{parameter} names {name!r}, which is neither a feature nor a column that features "
            "are made of",
            hint=f"did you mean {near!r}?" if near else f"there are {', '.join(known[:20])}",
        )
    return found
