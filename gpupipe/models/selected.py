"""A model that gets some of the features: those that were chosen on its own training rows.

The choice is part of training. Each fold, and the final model, chooses anew on its training
matrix alone, so that predictions out of fold judge the choice as they judge the model. Who
chooses is a `Selector` (`gpupipe.select`); scoring needs none of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, cast

import numpy as np

from gpupipe.checkpoints import Checkpoints, digest
from gpupipe.engine.frames import Array
from gpupipe.models.base import (
    FittedModel,
    Matrix,
    Model,
    Needs,
    Payload,
    Space,
    Task,
    Training,
    packed,
    restorable,
    restored,
)
from gpupipe.models.wrappers import Picked, taken
from gpupipe.transforms.base import Target


@dataclass(frozen=True)
class Selection:
    """Which features were chosen, and on what grounds.

    Attributes
    ----------
    features : every feature there was to choose from: a one-hot's levels are one.
    kept : those that were chosen, in the same order.
    columns : their columns in the matrix, ascending.
    steps : of each method what it did: ``method``, ``in``, ``out``, ``dropped``, ``seconds``,
        ``scores`` by feature, ``threshold`` and ``note``: JSON data.
    """

    features: tuple[str, ...]
    kept: tuple[str, ...]
    columns: tuple[int, ...]
    steps: tuple[dict[str, Any], ...] = ()

    @property
    def seconds(self) -> float:
        """What choosing took."""
        return float(sum(step["seconds"] for step in self.steps))

    def to_json(self) -> dict[str, Any]:
        return {"features": list(self.features), "kept": list(self.kept),
                "columns": list(self.columns), "steps": list(self.steps)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Selection:
        return cls(tuple(data["features"]), tuple(data["kept"]),
                   tuple(int(c) for c in data["columns"]), tuple(data["steps"]))


class Selector(Protocol):
    """Who chooses features."""

    @property
    def rules(self) -> list[dict[str, Any]]:
        """What it goes by, as JSON data."""
        ...

    @property
    def asks_model(self) -> bool:
        """Whether its choice depends on the model that is going to be trained."""
        ...

    def choose(self, train: Matrix, target: Target, model: Model, how: Training) -> Selection:
        """The features for ``model``, chosen on ``train`` alone."""
        ...


@dataclass(frozen=True)
class Selected:
    """A family that is trained on the features that ``selector`` chooses for it."""

    inner: Model
    selector: Selector
    kind: ClassVar[str] = "selected"
    spreads: ClassVar[bool] = False
    """A process that has some of the rows alone would choose other features than the rest."""

    @property
    def needs(self) -> Needs:
        return self.inner.needs

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.inner.tasks

    @property
    def streams(self) -> bool:
        return self.inner.streams

    @property
    def space(self) -> Space:
        return self.inner.space

    @property
    def rounds(self) -> int | None:
        """Exactly so many rounds, where the inner model's parameters say so."""
        return getattr(self.inner, "rounds", None)

    @property
    def params(self) -> dict[str, Any]:
        """What a trained model follows from: the model's parameters and the selection's rules."""
        return {"model": self.inner.kind, "params": getattr(self.inner, "params", {}),
                "select": self.selector.rules}

    def fit(
        self, train: Matrix, valid: Matrix | None, target: Target, how: Training
    ) -> FittedModel:
        """Choose features on ``train``, and train the inner model on them.

        ``valid`` has no say in the choice. A choice that was saved by a killed training of the
        same rows is taken again.
        """
        scope = self._scope(how.checkpoints)
        saved = scope.load("selection")
        if saved is None:
            selection = self.selector.choose(train, target, self.inner, how)
            scope.save("selection", selection.to_json())
        else:
            selection = Selection.from_json(saved)
        inner = self.inner.fit(
            columns_of(train, selection.columns),
            None if valid is None else columns_of(valid, selection.columns), target, how,
        )
        return FittedSelected.of(inner, selection, train.names)

    def _scope(self, checkpoints: Checkpoints) -> Checkpoints:
        """The checkpoints of the choice: whatever the model, where it does not ask the model."""
        asked = [self.inner.kind, getattr(self.inner, "params", {})]
        return checkpoints.given(
            model=digest([self.selector.rules, *(asked if self.selector.asks_model else [])])
        )

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        return FittedSelected.restore(payload)


def selected(model: Model, selector: Selector) -> Model:
    """``model`` on the features that ``selector`` chooses."""
    return cast(Model, Selected(model, selector))


@restorable("selected")
@dataclass
class FittedSelected(Picked):
    """A fitted model that sees the chosen columns of the matrix, and why they were chosen.

    ``names`` are those of the whole matrix. What is known of rounds, curve and judged rows is
    the inner model's.
    """

    selection: Selection
    names: tuple[str, ...]
    kind: str = field(default="selected", init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.curve, self.judged = self.inner.curve, self.inner.judged

    @classmethod
    def of(
        cls, inner: FittedModel, selection: Selection, names: tuple[str, ...]
    ) -> FittedSelected:
        return cls(inner, np.array(selection.columns, np.int64), selection, names)

    def importances(self) -> list[tuple[str, float]]:
        """The inner model's; 0 for what was not chosen."""
        found = self.inner.importances()
        chosen = set(self.selection.columns)
        rest = sorted(n for i, n in enumerate(self.names) if i not in chosen)
        return [*found, *((name, 0.0) for name in rest)] if found else []

    def payload(self) -> Payload:
        return {"selection": self.selection.to_json(), "names": list(self.names),
                "model": packed(self.inner)}

    @classmethod
    def restore(cls, payload: Payload) -> FittedModel:
        selection, names = Selection.from_json(payload["selection"]), tuple(payload["names"])
        if not all(0 <= c < len(names) for c in selection.columns):
            raise ValueError("a selection names columns that its matrix does not have")
        return cls.of(restored(payload["model"]), selection, names)

    def without_log(self) -> FittedSelected:
        """The same model without what the choice went by: how long it took differs each time."""
        return replace(self, selection=replace(self.selection, steps=()))


def selections_of(folds: Iterable[tuple[FittedModel, Any]]) -> list[Selection]:
    """The selections of folds' models; empty where none chose features."""
    return [m.selection for m, _ in folds if isinstance(m, FittedSelected)]


def columns_of(matrix: Matrix, columns: Sequence[int]) -> Matrix:
    """Some columns of a matrix; of one that is streamed, a stream."""
    return replace(
        matrix, chunks=_Columns(matrix.chunks, tuple(columns)),
        names=tuple(matrix.names[c] for c in columns),
        categorical=tuple(matrix.categorical[c] for c in columns),
        origins=tuple(matrix.origins[c] for c in columns) if matrix.origins else (),
        parts=tuple(matrix.parts[c] for c in columns) if matrix.parts else (),
    )


@dataclass(frozen=True)
class _Columns:
    """Some columns of chunks, taken when they are asked for."""

    chunks: Iterable[Array]
    columns: tuple[int, ...]

    def __iter__(self) -> Iterator[Array]:
        return (taken(chunk, np.array(self.columns, np.int64)) for chunk in self.chunks)
