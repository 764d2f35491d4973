"""What a model family is, and the matrix it learns from.

To add a family, write a file with a class like those here and decorate it with
``@register("name")``. Parameters carry the names of the family's own library.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from gpupipe.checkpoints import NOWHERE, Checkpoints
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError, DataError, did_you_mean
from gpupipe.transforms.base import Target

Needs = Literal["anything", "ordered", "numbers"]
"""``anything``: takes missing values and category codes as they are. ``ordered``: takes missing
values, and splits by order alone, which codes have none of. ``numbers``: takes neither, and works
best when columns are of one scale."""

Payload = dict[str, Any]
"""A fitted model as plain data: JSON values, NumPy arrays, and bytes of a documented format."""


Task = Literal[
    "binary", "multiclass", "regression", "survival", "hazard", "ranking", "unsupervised"]
"""Of a time with an event, ``survival`` predicts the time and ``hazard`` the relative risk; for
``ranking`` a prediction is a score, by which the rows of a query are put in order."""
TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")
"""The tasks that predict a target; families that learn without one are in `unsupervised`."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included: whole ones if both are, ``log``-spaced."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class OneOf:
    """One of these JSON values."""

    values: tuple[Any, ...]


Space = Mapping[str, Range | OneOf]
"""Where a search looks for a family's parameters, by name."""
Starts = Sequence[Mapping[str, Any]]
"""Points of a space, each by some of its parameters; of the others it has the defaults."""


@dataclass(frozen=True)
class Matrix:
    """Features of some rows, in chunks, with what is known of the rows.

    Attributes
    ----------
    chunks : float32 arrays ``[n_i, features]``, NaN for missing; they may be made anew each
        time they are asked for.
    target : class codes (int64) or values (float64), ``[n]``; a time that is censored is
        negative, and a grade has its query's number with it (see `data.outcomes`).
    weight : float64 ``[n]`` or None.
    names : of the features, ``[features]``.
    categorical : which features are unordered codes, ``[features]``.
    origins : the source columns that features were made of, ``[features]``, where they are known;
        of what was made of several, its own name.
    parts : the encoded feature that each one is part of, ``[features]``, where it is known: the
        levels of a one-hot are parts of one.
    bucket : the split's bucket of each row, ``[n]``, where it is known: rows of one bucket belong
        together, by group or in time.
    """

    chunks: Iterable[Array]
    target: Array
    weight: Array | None
    names: tuple[str, ...]
    categorical: tuple[bool, ...]
    origins: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    bucket: Array | None = None

    @property
    def rows(self) -> int:
        return len(self.target)

    def every(self, step: int) -> Matrix:
        """Every ``step``-th row, in memory."""
        taken, row = [], 0
        for chunk in self.chunks:
            taken.append(chunk[-row % step :: step].copy())
            row += int(chunk.shape[0])
        return replace(
            self, chunks=tuple(taken),
            target=self.target[::step],
            weight=None if self.weight is None else self.weight[::step],
            bucket=None if self.bucket is None else self.bucket[::step],
        )


class FittedModel(Protocol):
    """What training leaves."""

    kind: str
    rounds: int | None
    """Boosting rounds, where the family has such."""
    curve: dict[str, Any] | None
    """Loss by round under ``train`` and ``valid``, where there was a validation part."""
    judged: Array | None
    """What `predict` gives for the validation part, where training knows it already."""

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        """P(positive) ``[n]``, class probabilities ``[n, classes]`` or values ``[n]``: float64.

        ``rounds`` uses the first so many boosting rounds.
        """
        ...

    def importances(self) -> list[tuple[str, float]]:
        """Features and what each contributes, greatest first; empty where it has no meaning."""
        ...

    def payload(self) -> Payload: ...


@dataclass(frozen=True)
class Training:
    """How to train: seed, threads, and rounds where the cross-validation has chosen them.

    ``checkpoints`` are this training's own: a long one saves what it has there. ``spill`` is
    the folder for what does not fit into memory; None where all of it does, and ``scratch`` the
    one to take where it turns out not to. With several
    ``processes`` each has some of the rows, and they train one model together. ``device`` is
    ``cpu`` or ``cuda``: where the matrix's chunks lie, and where training runs. ``watch`` is told
    of each look at the validation loss (its number, from 1, and the loss), and may end a boosting.
    """

    seed: int = 0
    threads: int = 1
    processes: int = 1
    rounds: int | None = None
    checkpoints: Checkpoints = NOWHERE
    spill: Path | None = None
    scratch: Path | None = None
    device: str = "cpu"
    watch: Callable[[int, float], bool] | None = None


class Model(Protocol):
    """A model family with its parameters."""

    kind: ClassVar[str]
    needs: ClassVar[Needs]
    tasks: ClassVar[tuple[Task, ...]]
    space: ClassVar[Space]
    """Where a search looks for its parameters."""
    starts: ClassVar[Starts]
    """Points of the space that have done well on many tables: a search tries them first."""
    of_positive: ClassVar[Space]
    """More of the space, where all values of the target are above 0; the default comes first."""

    def __init__(self, params: Mapping[str, Any]) -> None: ...

    @property
    def streams(self) -> bool:
        """Whether it learns chunk by chunk, without the whole matrix in memory.

        Mostly an attribute of the class; some families do so with some parameters alone.
        """
        ...

    @property
    def spreads(self) -> bool:
        """Whether processes with some of the rows each can train it together: such a family has
        ``ring`` and ``joined`` (see `models.ring`). An attribute of the class, or by parameters.
        """
        ...

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel: ...

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel: ...


MODELS: dict[str, type[Any]] = {}
"""The families that a pipeline file may name."""
RESTORERS: dict[str, Callable[[Payload], FittedModel]] = {}
"""By kind: what makes a fitted model of its payload. The only way from a bundle to a model."""
M = TypeVar("M", bound=type[Any])


def register(kind: str) -> Callable[[M], M]:
    """Make a family known as ``kind``, in pipeline files and bundles."""

    def decorate(cls: M) -> M:
        cls.kind = kind
        cls.starts = getattr(cls, "starts", ())
        cls.of_positive = getattr(cls, "of_positive", {})
        MODELS[kind] = cls
        RESTORERS[kind] = cls.restore
        return cls

    return decorate


def restorable(kind: str) -> Callable[[M], M]:
    """Make a fitted model that holds others known as ``kind`` in bundles; it has ``restore``."""

    def decorate(cls: M) -> M:
        RESTORERS[kind] = cls.restore
        return cls

    return decorate


def packed(model: FittedModel) -> Payload:
    """A fitted model's payload with its kind: what a bundle keeps, and `restored` takes."""
    return {"kind": model.kind, **model.payload()}


def restored(payload: Payload) -> FittedModel:
    """The model of a payload with its kind. DataError for a kind that is not registered."""
    payload = dict(payload)
    kind = payload.pop("kind")
    if kind not in RESTORERS:
        raise DataError(f"unknown model kind {kind!r}")
    return RESTORERS[kind](payload)


def layers(model: Any) -> Iterator[Any]:
    """A model, or fitted model, and what it holds (its ``inner``), and so on to the last."""
    while model is not None:
        yield model
        model = getattr(model, "inner", None)


def innermost(model: Any) -> Any:
    """The model, or fitted model, under all that wrap it: what learned from features."""
    *_, last = layers(model)
    return last


def model_of(kind: str, params: Mapping[str, Any]) -> Model:
    """The family ``kind`` with its parameters. ConfigError for unknown names."""
    if kind not in MODELS:
        near = did_you_mean(kind, list(MODELS))
        raise ConfigError(
            f"unknown model {kind!r}; there are {', '.join(MODELS)}",
            hint=f"did you mean {near!r}?" if near else None,
        )
    model: Model = MODELS[kind](params)
    return model


def check_task(kind: str, task: str) -> None:
    """ConfigError where a family has nothing for this task, naming those that have."""
    if task not in MODELS[kind].tasks:
        able = [other for other, family in MODELS.items() if task in family.tasks]
        raise ConfigError(f"model {kind!r} is not for {task} targets",
                          hint=f"take one of {', '.join(able)}")


def installed(kind: str) -> bool:
    """Whether the library is there that a family's training needs (its ``requires``)."""
    library = getattr(MODELS[kind], "requires", None)
    return library is None or importlib.util.find_spec(library) is not None


LIBRARIES = threading.Lock()
"""Held while a family's library is imported, so that no two are at once."""


def load_ahead(kind: str) -> None:
    """Begin to load a family's library, in a thread of its own, while other work goes on.

    What goes wrong there will be told by whoever needs the library.
    """
    loader = getattr(MODELS.get(kind), "library", None)
    if loader is not None:
        threading.Thread(target=_quietly, args=(loader,), name=f"load {kind}").start()


def _quietly(loader: Callable[[], Any]) -> None:
    with suppress(Exception):
        loader()


def check_params(kind: str, params: Mapping[str, Any], known: Mapping[str, str] | set[str]) -> None:
    """ConfigError with a did-you-mean where ``params`` holds a name that is not ``known``."""
    for name in params:
        if name not in known:
            near = did_you_mean(name, list(known))
            raise ConfigError(
                f"model {kind!r} has no parameter {name!r}",
                hint=f"did you mean {near!r}?" if near else f"it has {', '.join(sorted(known))}",
            )


@dataclass
class Plain:
    """The parts of `FittedModel` that a family without boosting rounds shares."""

    kind: str
    rounds: int | None = field(default=None, init=False)
    curve: dict[str, Any] | None = field(default=None, init=False)
    judged: Array | None = field(default=None, init=False)
