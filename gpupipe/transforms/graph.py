"""The graph of a pipeline's features: which step makes which column from which.

A node is a raw column, or one output of a step on another node; of a step that takes columns
by twos, on two. Two nodes with the same history are the same node, whichever part of the
pipeline asked for them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from gpupipe.engine.frames import Block, Column, Frames
from gpupipe.engine.hashing import text_parts
from gpupipe.stats.state import Rows
from gpupipe.transforms.base import Feature, Output, Params, Target


class AnyStep(Protocol):
    """A step of a pipeline file, or one that was read from a bundle (`base.StoredStep`)."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str:
        """Name and settings in one text: equal for equal steps."""
        ...

    def stored(self) -> dict[str, Any]:
        """The settings as JSON data."""
        ...

    def transform(
        self, column: Column, params: Params, rows: Rows | None, fx: Frames, *others: Column
    ) -> tuple[Output, ...]: ...

    def export(self, params: Params) -> Params: ...


@dataclass(frozen=True)
class Bound:
    """A step on one column, or on several: what it learns, it learns of the first one.

    ``key`` is its whole history, without what was learned.
    """

    step: AnyStep
    input: Node
    others: tuple[Node, ...] = ()

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.input, *self.others)

    @property
    def column(self) -> str:
        """What it works on, for people."""
        return " and ".join(node.feature.name for node in self.inputs)

    @cached_property
    def key(self) -> str:
        return f"{_together([node.key for node in self.inputs])}|{self.step.key}"


@dataclass(frozen=True)
class Node:
    """A column: raw (``made_by`` is None), or output ``slot`` of a bound step."""

    feature: Feature
    made_by: Bound | None = None
    slot: int = 0

    @cached_property
    def key(self) -> str:
        if self.made_by is None:
            return json.dumps(self.feature.name)
        return f"{self.made_by.key}#{self.slot}"

    @cached_property
    def raws(self) -> tuple[str, ...]:
        """The names of the source columns that this one comes from, each once."""
        if self.made_by is None:
            return (self.feature.name,)
        return tuple(dict.fromkeys(name for node in self.made_by.inputs for name in node.raws))

    @property
    def origin(self) -> str:
        """The source column that this one comes from; where a step on several columns made it,
        or what it was made of, the name that it had then."""
        if self.made_by is None or self.made_by.others:
            return self.feature.name
        return self.made_by.input.origin


def _together(keys: list[str]) -> str:
    """One key of several: their hash, lest keys double in length wherever columns meet."""
    if len(keys) == 1:
        return keys[0]
    return hashlib.sha256("&".join(keys).encode()).hexdigest()


@dataclass(frozen=True)
class Graph:
    """The features that reach the model, in order, and the steps on their way."""

    outputs: tuple[Node, ...]
    target: Target
    stages: tuple[tuple[AnyStep, tuple[str, ...], tuple[str, ...]], ...] = ()
    """For people: each step with the names it took and the names it gave."""

    @cached_property
    def bound(self) -> tuple[Bound, ...]:
        """Every step on every column, inputs before what is made of them."""
        seen: dict[str, Bound] = {}

        def visit(node: Node) -> None:
            if node.made_by is not None and node.made_by.key not in seen:
                for each in node.made_by.inputs:
                    visit(each)
                seen[node.made_by.key] = node.made_by

        for node in self.outputs:
            visit(node)
        return tuple(seen.values())

    @property
    def raw(self) -> list[str]:
        """The source columns needed, each once."""
        return list(dict.fromkeys(name for node in self.outputs for name in node.raws))


@dataclass
class Fitted:
    """What the steps of a graph learned on one training part: params by `Bound.key`."""

    params: dict[str, Params] = field(default_factory=dict)
    _identity: dict[str, str] = field(default_factory=dict)

    def learned(self, bound: Bound) -> bool:
        return bound.key in self.params

    def ready(self, node: Node) -> bool:
        """Whether the node can be computed: every step on its way has learned."""
        return node.made_by is None or (
            self.learned(node.made_by) and all(map(self.ready, node.made_by.inputs))
        )

    def identity(self, node: Node) -> str:
        """A name for the node's values: equal wherever history and learned numbers are."""
        if node.made_by is None:
            return node.key
        return f"{self.identity_of(node.made_by)}#{node.slot}"

    def identity_of(self, bound: Bound) -> str:
        known = self._identity.get(bound.key)
        if known is None:
            digest = params_digest(self.params[bound.key])
            inputs = _together([self.identity(node) for node in bound.inputs])
            text = f"{inputs}|{bound.key}|{digest}"
            known = hashlib.sha256(text.encode()).hexdigest()
            self._identity[bound.key] = known
        return known


@dataclass
class Batch:
    """One batch of rows: its source columns, and every column made of them so far."""

    columns: Mapping[str, Column]
    rows: Rows | None
    fx: Frames
    memo: dict[str, tuple[Output, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def value(self, node: Node, fitted: Fitted) -> Output:
        """The node's column, computed at most once for all who ask."""
        if node.made_by is None:
            return self.columns[node.feature.name]
        bound = node.made_by
        key = fitted.identity_of(bound)
        if key not in self.memo:
            first, *others = (self.column(node, fitted) for node in bound.inputs)
            self.memo[key] = bound.step.transform(
                first, fitted.params[bound.key], self.rows, self.fx, *others
            )
        return self.memo[key][node.slot]

    def column(self, node: Node, fitted: Fitted) -> Column:
        """The same of a node that is one column, and no block."""
        column = self.value(node, fitted)
        assert isinstance(column, Column)
        return column


def feature_names(graph: Graph, fitted: Fitted) -> list[tuple[str, bool]]:
    """Name and ``categorical`` of each column of the matrix, in order.

    A name that a one-hot makes and that is there already gets ``.1``, ``.2``, ... as a name
    that comes twice in a text file does.
    """
    names: list[tuple[str, bool]] = []
    for node in graph.outputs:
        if node.feature.dtype == "block":
            assert node.made_by is not None
            levels = fitted.params[node.made_by.key]["names"]
            names.extend((f"{node.feature.name}_{level}", False) for level in levels)
        else:
            names.append((node.feature.name, node.feature.categorical))
    taken, again, seen = {n for n, _ in names}, [], set()
    for name, categorical in names:
        own, count = name, 0
        while own in seen or (count and own in taken):
            count += 1
            own = f"{name}.{count}"
        seen.add(own)
        again.append((own, categorical))
    return again


def feature_origins(graph: Graph, fitted: Fitted) -> tuple[str, ...]:
    """The source column that each column of the matrix was made of, in order; where it was made
    of several, the feature that they became."""
    return tuple(node.origin for node in _nodes(graph, fitted))


def feature_sources(graph: Graph, fitted: Fitted) -> tuple[tuple[str, ...], ...]:
    """The source columns that each column of the matrix was made of, in order: most have one."""
    return tuple(node.raws for node in _nodes(graph, fitted))


def feature_parts(graph: Graph, fitted: Fitted) -> tuple[str, ...]:
    """The feature that each column of the matrix is part of: a one-hot's levels are one."""
    return tuple(node.feature.name for node in _nodes(graph, fitted))


def _nodes(graph: Graph, fitted: Fitted) -> Iterator[Node]:
    """The node behind each column of the matrix, in order."""
    for node in graph.outputs:
        count = 1
        if node.feature.dtype == "block":
            assert node.made_by is not None
            count = len(fitted.params[node.made_by.key]["names"])
        for _ in range(count):
            yield node


def matrix(graph: Graph, fitted: Fitted, batch: Batch) -> Any:
    """The model's features for one batch: a float32 array ``[n, features]``, NaN for missing."""
    xp = batch.fx.xp
    out = xp.empty((len(batch), len(feature_names(graph, fitted))), dtype="float32")
    at = 0
    for node in graph.outputs:
        value = batch.value(node, fitted)
        if isinstance(value, Block):
            out[:, at : at + value.values.shape[1]] = value.values
            at += value.values.shape[1]
        else:
            out[:, at] = batch.fx.numbers(value)
            at += 1
    return out


def params_digest(params: Params) -> str:
    """A hash of learned numbers by their bits."""
    digest = hashlib.sha256()
    for name in sorted(params):
        value = params[name]
        digest.update(name.encode() + b"=")
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str}{value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
        elif isinstance(value, pa.Array):
            digest.update(str(value.type).encode())
            for item in _array_bytes(value):
                digest.update(item)
        else:
            digest.update(json.dumps(value, sort_keys=True).encode())
        digest.update(b";")
    return digest.hexdigest()


def _array_bytes(array: pa.Array) -> Iterator[bytes]:
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        data, offsets = text_parts(array)
        yield array.is_null().to_numpy(zero_copy_only=False).tobytes()
        yield offsets.tobytes()
        yield data.tobytes()
    else:
        yield repr(array.to_pylist()).encode()
