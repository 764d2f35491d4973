"""A pipeline's graph before any data: selectors resolved, columns named, looks counted.

The graph itself is in `gpupipe.transforms.graph`: a bundle has one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from gpupipe.errors import ConfigError
from gpupipe.steps.base import Feature, NoEvidence, Step, Target, select
from gpupipe.transforms.graph import (
    Batch,
    Bound,
    Fitted,
    Graph,
    Node,
    feature_names,
    feature_origins,
    feature_parts,
    matrix,
    params_digest,
)

__all__ = [
    "Batch",
    "Bound",
    "Fitted",
    "Graph",
    "Node",
    "bind",
    "feature_names",
    "feature_origins",
    "feature_parts",
    "levels",
    "matrix",
    "params_digest",
    "scanned",
    "step_of",
]


def step_of(bound: Bound) -> Step:
    """The step of a pipeline file behind a bound one: what can learn."""
    return cast(Step, bound.step)


def levels(graph: Graph) -> list[list[str]]:
    """What each scan learns, for `plan`: a list of ``step(column)`` a scan.

    A quantile takes two looks, but of a raw column the profile has already taken the
    first. (Where the training rows are unlike the rest, a scan more may be needed.)
    """
    depth: dict[str, int] = {}
    scans: list[list[str]] = []

    def known_after(*nodes: Node) -> int:
        return max(0 if n.made_by is None else depth[n.made_by.key] for n in nodes)

    for bound in graph.bound:
        raw = bound.input.made_by is None
        looks = min(step_of(bound).looks, 1) if raw else step_of(bound).looks
        first = known_after(scanned(graph, bound))
        depth[bound.key] = max(known_after(*bound.inputs), first + looks)
        scans += [[] for _ in range(first + looks - len(scans))]
        for scan in scans[first : first + looks]:
            scan.append(f"{bound.step.name}({bound.column})")
    return scans


def scanned(graph: Graph, bound: Bound) -> Node:
    """The node whose values a step learns from: its input, or what that follows from."""
    node, needs = bound.input, step_of(bound).needs(graph.target, NoEvidence())
    while needs and node.made_by is not None:
        sources = [step_of(node.made_by).derived_from(n) for n in needs]
        if None in sources:  # as of a step that takes several columns
            break
        node, needs = node.made_by.input, tuple(s for s in sources if s is not None)
    return node


def bind(
    features: Sequence[Feature], steps: Sequence[Step], target: Target,
    constant: frozenset[str] = frozenset(),
) -> Graph:
    """Resolve every selector and name every column, before any data is read.

    Parameters
    ----------
    features : the raw columns, without target and key.
    steps : in the order of the pipeline file.
    constant : raw columns with a single value, for ``drop_constant``.

    Raises
    ------
    ConfigError : a selector that selects nothing, a step on a type it does not take, two
        columns of one name. Its ``position`` attribute is the index of the step.
    """
    current: dict[str, Node] = {f.name: Node(f) for f in features}
    stages = []
    for position, step in enumerate(steps):
        try:
            current, taken, given = _apply(step, current, target, constant)
        except ConfigError as error:
            error.position = position  # type: ignore[attr-defined]
            raise
        stages.append((step, taken, given))
    return Graph(tuple(current.values()), target, tuple(stages))


def _apply(
    step: Step, current: dict[str, Node], target: Target, constant: frozenset[str]
) -> tuple[dict[str, Node], tuple[str, ...], tuple[str, ...]]:
    chosen = select(step.columns, [n.feature for n in current.values()])
    whole = "all" in ([step.columns] if isinstance(step.columns, str) else step.columns)
    result: dict[str, Node] = {}
    taken: list[str] = []
    given: list[str] = []
    names = {f.name for f in chosen}

    def add(node: Node) -> None:
        if node.feature.name in result:
            raise ConfigError(
                f"step {step.name!r} makes a second column named {node.feature.name!r}",
                hint="name every two columns once, or rename the column that is called so"
                if node.made_by is not None and node.made_by.others else
                "rename the source column, or drop one of the two",
            )
        result[node.feature.name] = node

    for f in chosen:
        if f.dtype not in step.accepts and not whole:
            why = (
                "it was one-hot encoded by an earlier step" if f.dtype == "block"
                else f"it is {f.dtype}"
            )
            raise ConfigError(
                f"step {step.name!r} cannot take column {f.name!r}: {why}, expected "
                f"{' or '.join(step.accepts)}",
                hint="select other columns, or cast this one before this step",
            )
    combined = step.combined([f for f in chosen if f.dtype in step.accepts])
    for name, node in current.items():
        f = node.feature
        structural = getattr(step, "keeps", None)
        if structural is not None:
            if structural(name, name in names, node.made_by is None and name in constant):
                add(node)
            else:
                taken.append(name)
        elif combined is None and name in names and f.dtype in step.accepts:
            taken.append(name)
            bound = Bound(step, node)
            for slot, feature in enumerate(step.outputs(f, target)):
                add(Node(feature, bound, slot))
                given.append(feature.name)
        else:
            add(node)
    for together, feature in combined or ():
        first, *others = (current[f.name] for f in together)
        add(Node(feature, Bound(step, first, tuple(others))))
        given.append(feature.name)
        taken += [f.name for f in together if f.name not in taken]
    return result, tuple(taken), tuple(given)
