"""Where a search looks: which families, their parameters, and the parameters of the steps.

A dimension is called ``family.parameter``, ``features.step.parameter`` or
``select.method.parameter``. What the family is
chosen first, and only its own dimensions are asked for.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gpupipe.config import PipelineConfig
from gpupipe.errors import ConfigError, did_you_mean
from gpupipe.features import DEFAULT_STEPS, OPENED
from gpupipe.models import MODELS, OneOf, Range, Space, Task, model_of
from gpupipe.models.base import installed
from gpupipe.select import SELECT, Methods, selector_of
from gpupipe.steps import STEPS

FAMILY = "model"
"""The dimension that is asked for first."""
AUTO = ("xgboost", "lightgbm", "catboost", "forest", "extra_trees", "linear")
"""The families of a search that names none, as far as their libraries are installed."""
OF_VALUES = ("extra_trees",)
"""Those of them that are for values alone there: a mean of random cuts is smooth, as values often
are."""


@dataclass(frozen=True)
class Proposal:
    """What one trial tries: a family, its parameters, and the steps' parameters by
    ``step.parameter`` (or of `features.DEFAULT_STEPS`, see `prepare.Binder.graph`)."""

    kind: str
    params: Mapping[str, Any]
    features: Mapping[str, Any]


@dataclass(frozen=True)
class SearchSpace:
    """Families with their spaces, what is fixed of each, and the space of the steps."""

    families: Mapping[str, Space]
    fixed: Mapping[str, Mapping[str, Any]]
    features: Space

    def suggest(self, trial: Any) -> Proposal:
        """What an Optuna trial proposes."""
        kinds = list(self.families)
        kind = trial.suggest_categorical(FAMILY, kinds) if len(kinds) > 1 else kinds[0]
        params = {name: _suggested(trial, f"{kind}.{name}", where)
                  for name, where in self.families[kind].items()}
        steps = {name: _suggested(trial, f"features.{name}", where)
                 for name, where in self.features.items()}
        return Proposal(kind, {**self.fixed.get(kind, {}), **params}, steps)

    def plain(self, kind: str) -> Proposal:
        """The family as it is without a search."""
        return Proposal(kind, self.fixed.get(kind, {}), {})

    def nearest(self, kind: str, start: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The point of the space that is nearest to `plain`, or to a ``start``: what a sampler
        is told of it."""
        own = getattr(model_of(kind, self.fixed.get(kind, {})), "params", {})
        known = {**own, **(start or {})}
        point = {} if len(self.families) == 1 else {FAMILY: kind}
        point |= {f"{kind}.{name}": _nearest(where, known.get(name))
                  for name, where in self.families[kind].items()}
        return point | {f"features.{name}": _nearest(where, None)
                        for name, where in self.features.items()}

    def starts(self) -> list[dict[str, Any]]:
        """The points that are tried before others, each once: those nearest to the families'
        own, the first one of every family, then the second ones. Each family's first one comes
        once more with all other values at once of what the table has opened (numbers and text
        that are encoded, ratios, losses of a target above 0). Alone each loss comes with its
        family, and each choice of the steps, which is any family's, with one of them."""
        began = [kind for kind in self.families if MODELS[kind].starts]
        steps = _others({f"features.{n}": self.features.get(n) for n in OPENED})
        own = []
        for turn, kind in enumerate(began):
            space = self.families[kind]
            points = [self.nearest(kind, start) for start in MODELS[kind].starts]
            losses = _others({f"{kind}.{n}": space.get(n) for n in MODELS[kind].of_positive})
            at_once = {n: v for other in (*steps, *losses) for n, v in other.items()}
            points += [points[0] | other
                       for other in (*steps[turn::len(began)], *losses, at_once)]
            own.append(points)
        points = [p for turn in itertools.zip_longest(*own) for p in turn if p is not None]
        return [p for i, p in enumerate(points) if p not in points[:i]]

    def grid(self) -> list[dict[str, Any]]:
        """Every point, family by family. ConfigError for a range: it has no end."""
        points = []
        for kind, space in self.families.items():
            named = {f"{kind}.{n}": w for n, w in space.items()}
            named |= {f"features.{n}": w for n, w in self.features.items()}
            for name, where in named.items():
                if isinstance(where, Range):
                    raise ConfigError(
                        f"a grid needs lists: {name} is a range, {where.low:g} to {where.high:g}",
                        hint=f"name its values (`{name}: {{choices: [...]}}`), or take "
                        "`sampler: tpe`",
                    )
            own = {} if len(self.families) == 1 else {FAMILY: kind}
            for values in itertools.product(*(w.values for w in named.values()
                                              if isinstance(w, OneOf))):
                points.append(own | {n: _plain(v) for n, v in zip(named, values, strict=True)})
        return points

    def to_json(self) -> dict[str, Any]:
        """For the digest of a search and for people."""
        def shown(space: Space) -> dict[str, Any]:
            return {n: [w.low, w.high, w.log] if isinstance(w, Range) else list(w.values)
                    for n, w in space.items()}
        return {"families": {k: shown(s) for k, s in self.families.items()},
                "fixed": {k: dict(v) for k, v in self.fixed.items()},
                "features": shown(self.features)}


def space_of(
    config: PipelineConfig, task: Task, opened: Sequence[str] = (), positive: bool = False
) -> SearchSpace:
    """The space of a pipeline's search. ``opened`` are the choices of the default steps that the
    table opens (`prepare.Binder.opened`), unless the file says what to take. With ``positive``
    the target's values are all above 0, and families may take losses that are for such.

    Raises ConfigError, at the line of the pipeline file, for a family that is not there or does
    not take the task, for a parameter that no family or step has, and for an unfit value.
    """
    kinds = families_of(config, task)
    own = {config.model.kind: dict(config.model.params)}
    wanted = config.tune.space
    families: dict[str, dict[str, Range | OneOf]] = {}
    for kind in kinds:
        fixed = own.get(kind, {})
        # A grid is of what the file names; the families' own ranges have no end.
        base: Space = {}
        if config.tune.sampler != "grid":
            base = {**MODELS[kind].space, **(MODELS[kind].of_positive if positive else {})}
        families[kind] = {n: w for n, w in base.items() if _goes_with(kind, fixed, n, w)}
    features: dict[str, Range | OneOf] = {}
    for key, given in wanted.items():
        room, _, rest = key.partition(".")
        try:
            if room == "select":
                features[SELECT + rest] = _selection_dimension(config, rest, given)
            else:
                _place(key, given, families, features)
        except ConfigError as error:
            raise config.fault(("tune", "space", key), error.message, error.hint) from None
    for name in opened:
        features.setdefault(name, OneOf(OPENED[name]))
    return SearchSpace(families, own, features)


def _goes_with(kind: str, fixed: Mapping[str, Any], name: str, where: Range | OneOf) -> bool:
    """Whether a family takes a dimension beside what is fixed of it, all the way."""
    try:
        if name in getattr(model_of(kind, fixed), "given", fixed):
            return False
        for value in _ends(where):
            model_of(kind, {**fixed, name: value})
    except ConfigError:
        return False
    return True


def families_of(config: PipelineConfig, task: Task) -> list[str]:
    """The families that are searched, in order."""
    named = config.tune.models
    if named == "auto":
        if "kind" in config.model.model_fields_set:
            return [config.model.kind]
        return [k for k in AUTO
                if k in MODELS and task in MODELS[k].tasks and installed(k)
                and (task == "regression" or k not in OF_VALUES)]
    kinds = list(dict.fromkeys([named] if isinstance(named, str) else named))
    for kind in kinds:
        if kind not in MODELS:
            near = did_you_mean(kind, list(MODELS))
            raise config.fault(
                ("tune", "models"), f"unknown model {kind!r}; there are {', '.join(MODELS)}",
                f"did you mean {near!r}?" if near else None)
        if task not in MODELS[kind].tasks:
            raise config.fault(
                ("tune", "models"), f"model {kind!r} does not take a {task} target",
                f"it is for {' and '.join(MODELS[kind].tasks)}")
    return kinds


def _place(
    key: str, given: Any, families: dict[str, dict[str, Range | OneOf]],
    features: dict[str, Range | OneOf],
) -> None:
    """Put what the file says of one dimension where it belongs."""
    room, _, rest = key.partition(".")
    if room == "features":
        features[rest] = _step_dimension(rest, given)
        return
    kinds = [room] if rest and room in families else list(families)
    name = rest if rest and room in families else key
    if rest and room not in families:
        raise ConfigError(f"{room!r} is not a family of this search",
                          hint=f"it has {', '.join(families)}; steps are features.<step>.<param>")
    placed = False
    refusal: ConfigError | None = None
    for kind in kinds:
        where = dimension(given, MODELS[kind].space.get(name))
        try:
            for value in _ends(where):
                model_of(kind, {name: value})
        except ConfigError as error:
            refusal = refusal or error
            continue
        families[kind][name] = where
        placed = True
    if not placed:
        assert refusal is not None
        raise refusal


def _step_dimension(rest: str, given: Any) -> Range | OneOf:
    where = dimension(given, None)
    if rest in DEFAULT_STEPS:
        for value in _ends(where):
            if value not in DEFAULT_STEPS[rest]:
                raise ConfigError(f"unknown {rest} {value!r}",
                                  hint=f"one of {DEFAULT_STEPS[rest]}")
        return where
    name, _, param = rest.partition(".")
    if name not in STEPS:
        near = did_you_mean(name, list(STEPS))
        raise ConfigError(f"unknown step {name!r}", hint=f"did you mean {near!r}?" if near else
                          f"the steps are {', '.join(STEPS)}")
    if param not in STEPS[name].model_fields:
        known = [n for n in STEPS[name].model_fields if n != "columns"]
        raise ConfigError(f"step {name!r} has no parameter {param!r}",
                          hint=f"it has {', '.join(known)}")
    for value in _ends(where):
        try:
            STEPS[name].model_validate({param: value})
        except ValidationError as error:
            reasons = [e["msg"] for e in error.errors() if e["loc"][:1] == (param,)]
            if reasons:
                raise ConfigError(f"{rest} cannot be {value!r}: {reasons[0]}") from None
    return where


def _selection_dimension(config: PipelineConfig, rest: str, given: Any) -> Range | OneOf:
    selector = selector_of(config) or Methods(())
    where = dimension(given, selector.space.get(rest))
    for value in _ends(where):
        selector.with_params({rest: value})
    return where


def dimension(given: Any, own: Range | OneOf | None) -> Range | OneOf:
    """What a pipeline file says of a dimension: ``[low, high]`` is a range, any other list
    choices, ``{low, high, log}`` and ``{choices}`` say it in full, another value is fixed."""
    if isinstance(given, Mapping):
        if set(given) == {"choices"} and isinstance(given["choices"], list) and given["choices"]:
            return OneOf(tuple(given["choices"]))
        if {"low", "high"} <= set(given) <= {"low", "high", "log"}:
            return _range(given["low"], given["high"], bool(given.get("log", False)))
        raise ConfigError(f"expected low and high (and log), or choices; found {sorted(given)}")
    if isinstance(given, list):
        if not given:
            raise ConfigError("expected [low, high] or a list of values, found an empty list")
        if len(given) == 2 and all(map(_is_number, given)) and not isinstance(own, OneOf):
            return _range(given[0], given[1], isinstance(own, Range) and own.log and given[0] > 0)
        return OneOf(tuple(given))
    return OneOf((given,))


def _range(low: Any, high: Any, log: bool) -> Range:
    if not (_is_number(low) and _is_number(high)) or not low < high:
        raise ConfigError(f"expected two numbers, the lower one first; found {low!r}, {high!r}")
    if log and low <= 0:
        raise ConfigError(f"a log range begins above 0, this one at {low:g}")
    return Range(low, high, log)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _ends(where: Range | OneOf) -> Sequence[Any]:
    return (where.low, where.high) if isinstance(where, Range) else where.values


def _whole(where: Range) -> bool:
    return isinstance(where.low, int) and isinstance(where.high, int)


def _others(choices: Mapping[str, Range | OneOf | None]) -> list[dict[str, Any]]:
    """Every value of some choices but the usual one, which comes first, by itself."""
    return [{name: _plain(value)} for name, where in choices.items()
            if isinstance(where, OneOf) for value in where.values[1:]]


def _suggested(trial: Any, name: str, where: Range | OneOf) -> Any:
    if isinstance(where, OneOf):
        if len(where.values) == 1:
            return where.values[0]
        plain = [_plain(v) for v in where.values]
        return where.values[plain.index(trial.suggest_categorical(name, plain))]
    if _whole(where):
        return trial.suggest_int(name, int(where.low), int(where.high), log=where.log)
    return trial.suggest_float(name, where.low, where.high, log=where.log)


def _nearest(where: Range | OneOf, value: Any) -> Any:
    """The value itself as far as the dimension holds it; its middle where nothing is known."""
    if isinstance(where, OneOf):
        return _plain(value if value in where.values else where.values[0])
    if not _is_number(value):
        value = (where.low * where.high) ** 0.5 if where.log else (where.low + where.high) / 2
    value = min(max(value, where.low), where.high)
    return round(value) if _whole(where) else float(value)


def _plain(value: Any) -> Any:
    """A choice as Optuna takes it: plain values as they are, all else as JSON text."""
    simple = value is None or isinstance(value, (bool, int, float, str))
    return value if simple else json.dumps(value, sort_keys=True)
