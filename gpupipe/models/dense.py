"""What families that need numbers share: their matrix checked and whole, weights, importances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpupipe.engine.arrays import namespace, to_host
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError, DataError
from gpupipe.models.base import Matrix
from gpupipe.transforms.base import Target


def dense(kind: str, train: Matrix) -> Array:
    """The whole matrix, float32 ``[n, features]``, where its chunks lie.

    Raises DataError naming the features that are missing values or not encoded.
    """
    chunks = list(train.chunks)
    x = namespace(chunks[0]).concatenate(chunks)
    check_numbers(kind, x, train)
    return x


def check_numbers(kind: str, x: Array, train: Matrix) -> None:
    """DataError naming the features of a chunk that are missing values or not encoded."""
    codes = [n for n, c in zip(train.names, train.categorical, strict=True) if c]
    if codes:
        raise DataError(
            f"model {kind!r} cannot use category codes: {', '.join(codes[:5])}",
            hint="encode them: one_hot, count or target_encode",
        )
    empty = to_host(namespace(x).isnan(x).any(axis=0))
    holes = [n for n, bad in zip(train.names, empty, strict=True) if bad]
    if holes:
        raise DataError(
            f"model {kind!r} cannot use missing values, found in {', '.join(holes[:5])}"
            + (f" and {len(holes) - 5} more" if len(holes) > 5 else ""),
            hint="add an impute step: - impute: {columns: numeric, strategy: median}",
        )


def blocks(kind: str, train: Matrix, rows: int) -> Iterator[tuple[Array, slice]]:
    """The matrix in blocks of so many rows and which rows they are, however it was cut.

    What is learned block by block so does not depend on the chunks. Raises as `dense` does.
    """
    waiting: list[Array] = []
    count = start = 0
    for chunk in train.chunks:
        check_numbers(kind, chunk, train)
        waiting.append(chunk)
        count += int(chunk.shape[0])
        if count < rows:
            continue
        joined = namespace(chunk).concatenate(waiting)
        whole = count - count % rows
        for at in range(0, whole, rows):
            yield joined[at : at + rows], slice(start + at, start + at + rows)
        waiting, start, count = [joined[whole:]], start + whole, count - whole
    if count:
        yield namespace(waiting[0]).concatenate(waiting), slice(start, start + count)


def with_class_weights(
    class_weight: Any, y: np.ndarray, target: Target, weight: np.ndarray | None
) -> np.ndarray | None:
    """Weights of rows, those of their classes among them: float64 ``[n]``, or None for all 1.

    ``class_weight`` is None, ``balanced`` (each present class counts the same, as in
    scikit-learn), or weights by label; ConfigError for anything else.
    """
    if class_weight is None:
        return weight
    own = np.ones(len(y)) if weight is None else np.asarray(weight, np.float64)
    if class_weight == "balanced":
        total = np.bincount(y, weights=own, minlength=len(target.classes))
        here = total > 0
        by_class = np.divide(own.sum(), here.sum() * total, out=np.ones(len(total)), where=here)
    elif isinstance(class_weight, Mapping):
        strange = [k for k in class_weight if str(k) not in target.classes]
        if strange:
            raise ConfigError(f"class_weight names {strange[0]!r}, which is no class",
                              hint=f"the classes are {', '.join(target.classes[:10])}")
        given = {str(k): float(v) for k, v in class_weight.items()}
        by_class = np.array([given.get(c, 1.0) for c in target.classes])
    else:
        raise ConfigError(f"class_weight is balanced or weights by label, not {class_weight!r}",
                          hint="for example class_weight: balanced")
    return own * by_class[y]


def ranked(names: Sequence[str], size: np.ndarray) -> list[tuple[str, float]]:
    """Features with their share of the sizes, greatest first."""
    total = float(size.sum()) or 1.0
    named = [(n, float(v) / total) for n, v in zip(names, size, strict=True)]
    return sorted(named, key=lambda item: (-item[1], item[0]))


def linear_margins(chunk: Array, coefficients: np.ndarray, intercept: np.ndarray) -> Array:
    """``chunk @ coefficients.T + intercept``: float64 ``[n, m]``.

    Feature by feature, not as a matrix product: BLAS adds in an order that depends on how
    many rows there are, and one record must score as it does in a table.
    """
    xp = namespace(chunk)
    margin = xp.zeros((int(chunk.shape[0]), len(intercept))) + xp.asarray(intercept)
    columns = xp.ascontiguousarray(chunk.T).astype("float64")
    for column, weights in zip(columns, xp.asarray(coefficients).T, strict=True):
        margin += column[:, None] * weights
    return margin


def logistic(margin: Array) -> Array:
    """``1 / (1 + exp(-margin))`` without overflow."""
    xp = namespace(margin)
    # exp() of a large positive number would overflow; of -|m| it cannot.
    small = xp.exp(-xp.abs(margin))
    return xp.where(margin >= 0, 1 / (1 + small), small / (1 + small))


def softmax(margin: Array) -> Array:
    """Class probabilities of margins ``[n, classes]``."""
    xp = namespace(margin)
    odds = xp.exp(margin - margin.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def check_number(kind: str, params: Mapping[str, Any], name: str, least: float,
                 above: bool = False) -> None:
    """ConfigError unless a parameter is a number of at least ``least``, or ``above`` it."""
    value = params[name]
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and (
        value > least if above else value >= least)
    if not good:
        raise ConfigError(f"{name} of model {kind!r} is {value!r}",
                          hint=f"it is a number {'above' if above else 'of at least'} {least:g}")


def check_choice(kind: str, params: Mapping[str, Any], name: str, known: Sequence[Any]) -> None:
    """ConfigError unless a parameter is one of the known values."""
    if params[name] not in known:
        choices = ", ".join("null" if k is None else str(k) for k in known)
        raise ConfigError(f"{name} of model {kind!r} is {params[name]!r}",
                          hint=f"it is one of {choices}")
