"""The selection of a pipeline file: its methods, one after the other."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.config import PipelineConfig, validated
from gpupipe.config.source import Origin
from gpupipe.errors import ConfigError, did_you_mean
from gpupipe.models.base import Matrix, Model, OneOf, Range, Training
from gpupipe.models.selected import Selection, selected
from gpupipe.select.base import METHODS, Method, Unit, Verdict, plain, units_of
from gpupipe.select.evidence import gathered
from gpupipe.steps.base import Target
from gpupipe.steps.graph import Graph

SELECT = "selection."
"""What a trial's parameters of methods begin with, among those of steps."""


@dataclass(frozen=True)
class Methods:
    """A `models.selected.Selector`: methods in order, each on what the ones before it left.

    Attributes
    ----------
    keep : names of features or source columns, or globs, that are never dropped.
    constrained : names that the model's parameters hold: its features are not dropped either.
    by_column : whether all that comes of a source column is kept or dropped together.
    rows : the evidence is of at most so many training rows.
    """

    methods: tuple[Method, ...]
    keep: tuple[str, ...] = ()
    constrained: frozenset[str] = frozenset()
    by_column: bool = False
    rows: int = 50_000

    @property
    def rules(self) -> list[dict[str, Any]]:
        every: dict[str, Any] = {"keep": list(self.keep), "by_column": self.by_column,
                                 "rows": self.rows, "constrained": sorted(self.constrained)}
        return [every, *({"method": m.name, **m.model_dump(mode="json")} for m in self.methods)]

    @property
    def asks_model(self) -> bool:
        return any(m.asks_model for m in self.methods)

    @property
    def space(self) -> dict[str, Range | OneOf]:
        """Where a search looks for the methods' parameters, by ``method.parameter``."""
        return {f"{m.name}.{name}": found for m in self.methods for name, found in m.space.items()}

    def with_params(self, params: Mapping[str, Any]) -> Methods:
        """The same methods with other parameters, by ``method.parameter``.

        Raises ConfigError for a name that no method here has, and for a value that does not fit.
        """
        given: dict[str, dict[str, Any]] = {}
        known = [f"{m.name}.{p}" for m in self.methods for p in type(m).model_fields]
        for name, value in params.items():
            if name not in known:
                near = did_you_mean(name, known)
                raise ConfigError(f"no method under select has a parameter {name!r}",
                                  hint=f"did you mean {near!r}?" if near
                                  else f"there are {', '.join(known)}")
            method, _, parameter = name.partition(".")
            given.setdefault(method, {})[parameter] = value
        nowhere = Origin(Path())
        return replace(self, methods=tuple(
            validated(type(m), {**m.model_dump(), **given.get(m.name, {})}, nowhere,
                      ("select", m.name)) for m in self.methods))

    def fixed(self, unit: Unit, names: Sequence[str]) -> bool:
        """Whether a unit is never dropped; ``names`` are those of the matrix's columns."""
        own = {unit.name, unit.source}
        return any(fnmatchcase(name, pattern) for name in own for pattern in self.keep) or bool(
            self.constrained & (own | {names[c] for c in unit.columns}))

    def choose(self, train: Matrix, target: Target, model: Model, how: Training) -> Selection:
        """The features of ``train`` that every method keeps, and what each of them did."""
        units = units_of(train, self.by_column)
        start = time.perf_counter()
        fixed = frozenset(u.name for u in units if self.fixed(u, train.names))
        evidence = gathered(train, units, fixed, target, model, how, self.rows)
        steps = []
        for method in self.methods:
            left = evidence.units
            verdict = method.choose(evidence)
            kept = _kept(left, verdict, fixed)
            now = time.perf_counter()
            steps.append(_step(method, left, kept, verdict, now - start))
            start = now
            evidence = evidence.of([u for u, k in zip(left, kept, strict=True) if k])
        return Selection(tuple(u.name for u in units), tuple(u.name for u in evidence.units),
                         tuple(sorted(c for u in evidence.units for c in u.columns)),
                         tuple(steps))


def _kept(units: Sequence[Unit], verdict: Verdict, fixed: frozenset[str]) -> np.ndarray:
    """What stays after a verdict: never nothing."""
    kept = verdict.keep | np.array([u.name in fixed for u in units])
    if not kept.any():
        best = np.where(np.isnan(verdict.scores), -np.inf, verdict.scores)
        kept[int(np.argmax(best))] = True
    return kept


def _step(
    method: Method, units: tuple[Unit, ...], kept: np.ndarray, verdict: Verdict, seconds: float
) -> dict[str, Any]:
    """What a method did, as JSON data."""
    note = verdict.note
    if not verdict.keep.any():
        none = "no feature passed, and the best one is kept" if kept.sum() == 1 else \
            "no feature passed but those under select.keep"
        note = f"{note}; {none}" if note else none
    return {
        "method": method.name, "in": len(units), "out": int(kept.sum()),
        "dropped": [u.name for u, k in zip(units, kept, strict=True) if not k],
        "seconds": round(seconds, 4), "threshold": verdict.threshold, "note": note,
        "scores": {u.name: plain(s) for u, s in zip(units, verdict.scores, strict=True)},
    }


def selector_of(config: PipelineConfig) -> Methods | None:
    """The selection of a pipeline file, checked; None where it has none.

    Raises ConfigError, at the method's place, for an unknown method or parameter.
    """
    section, methods = config.select, []
    for i, item in enumerate(section.methods):
        path = ("select", "methods", i)
        name = str(item["method"])
        if name not in METHODS:
            near = did_you_mean(name, list(METHODS))
            raise config.fault(
                (*path, "method"), f"unknown method of selection {name!r}",
                f"did you mean {near!r}?" if near else f"there are {', '.join(METHODS)}",
            )
        given = {k: v for k, v in item.items() if k != "method"}
        methods.append(validated(METHODS[name], given, config, path))
    if not methods:
        return None
    return Methods(tuple(methods), tuple(section.keep), by_column=section.unit == "column",
                   rows=section.rows)


def selecting(
    config: PipelineConfig, model: Model, graph: Graph, params: Mapping[str, Any] | None = None
) -> Model:
    """``model`` on the features that the pipeline file has chosen for it; itself without such.

    ``params`` are other parameters of the methods, by ``method.parameter``. Raises ConfigError
    for a name under ``select.keep`` that no feature has.
    """
    selector = selector_of(config)
    if selector is None:
        return model
    selector = replace(selector.with_params(params or {}), constrained=constrained_by(model))
    names = list(dict.fromkeys(
        n for node in graph.outputs for n in (node.feature.name, node.origin)))
    for i, pattern in enumerate(selector.keep):
        if not any(fnmatchcase(name, pattern) for name in names):
            near = did_you_mean(pattern, names)
            raise config.fault(
                ("select", "keep", i), f"select.keep: no feature is called {pattern!r}",
                f"did you mean {near!r}?" if near else f"there are {', '.join(names[:20])}",
            )
    return selected(model, selector)


def constrained_by(model: Model) -> frozenset[str]:
    """The features and columns that a model's parameters name."""
    params = getattr(model, "params", {})
    groups = params.get("interaction_constraints") or []
    return frozenset(params.get("monotone_constraints") or {}) | {n for g in groups for n in g}
