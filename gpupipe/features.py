"""Which steps a pipeline has: those of its file, or good defaults for the model at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from gpupipe.config import PipelineConfig, validated
from gpupipe.errors import ConfigError, did_you_mean
from gpupipe.models.base import Needs
from gpupipe.stats.quantiles import Extremes, Histogram
from gpupipe.stats.tables import VOCABULARY_LIMIT
from gpupipe.steps import STEPS, Feature, Step, Target
from gpupipe.steps.graph import Graph, bind
from gpupipe.steps.pairs import ratio_name
from gpupipe.steps.profile import Profile

NATIVE_LEVELS = 32
"""A tree splits a category natively up to this many levels; above, it finds splits that fit the
noise, and target encoding is better (measured on tables with 40 to 1,500 levels)."""
ONE_HOT_LEVELS = 30
"""A model that takes no codes gets a column a level up to this many levels."""
TEXT_SHARE = 0.5
"""A text column with more distinct values than this share of its rows names rows, or is prose."""
REPEATED = 4
"""A whole number is a level too if its values have so many rows each, on average."""
ENCODED = "encoded"
"""What the name of a column that is there a second time, encoded, ends with."""
SPREAD = 1.5
"""A number is an amount that others are related to if its 95th percentile is so many times its
5th: a ratio to one that hardly differs says what the other says alone."""
MOST_AMOUNTS = 8
"""Of more amounts there would be more ratios than a search has time for."""


TAKEN_AS = ("auto", "target_encode")
OPENED: dict[str, tuple[str, str]] = {
    "numbers": TAKEN_AS, "text": TAKEN_AS, "ratios": ("none", "pairs")}
"""Choices of the default steps that a table may open: what is usual, and the other."""
DEFAULT_STEPS: dict[str, tuple[str, ...]] = {
    "encoder": ("auto", "ordinal", "one_hot", "target_encode"), **OPENED}
"""All choices of the default steps, by name; what is usual comes first."""


def repeated(features: Sequence[Feature], profile: Profile) -> list[str]:
    """The integer columns whose values come again and again: counts, grades, codes, amounts that
    stand for something."""
    return _encodable(features, profile, "int64", lambda name: (
        (profile.rows - profile.missing(name)) / REPEATED))


def levelled(features: Sequence[Feature], profile: Profile) -> list[str]:
    """The text columns of some few levels: their means have an order."""
    return _encodable(features, profile, "string", lambda name: ONE_HOT_LEVELS)


def _encodable(
    features: Sequence[Feature], profile: Profile, dtype: str, most: Callable[[str], float]
) -> list[str]:
    """The columns of a type with up to so many values, of which a second one may be encoded. One
    of two values is left out: its mean would say the same."""
    names = {f.name for f in features}
    found = []
    for f in features:
        distinct = profile.distinct(f.name) if f.dtype == dtype else None
        if distinct is not None and 2 < distinct <= most(f.name) \
                and f"{f.name}_{ENCODED}" not in names:
            found.append(f.name)
    return found


def amounts(features: Sequence[Feature], profile: Profile) -> list[str]:
    """The numbers whose ratios may say more than they do: sizes, counts, prices; never below 0,
    and spread. None where there is one alone, too many, or a name would be there twice."""
    found: list[str] = []
    for f in features:
        if f.dtype not in ("float64", "float32", "int64") or profile.distinct(f.name) == 2:
            continue
        low, histogram = profile.of(f.name, Extremes()).low[0], profile.of(f.name, Histogram())
        high = histogram.quantile(0.95)
        if low >= 0 and high > 0 and high >= SPREAD * histogram.quantile(0.05):
            found.append(f.name)
        if len(found) > MOST_AMOUNTS:
            return []
    names = [*(f.name for f in features), *(ratio_name(a, b) for a, b in combinations(found, 2))]
    return found if len(found) > 1 and len(set(names)) == len(names) else []


def steps_of(config: PipelineConfig) -> list[Step] | None:
    """The steps of a pipeline file, checked. None where the file leaves them open.

    Raises ConfigError, at the step's line, for an unknown step or parameter.
    """
    if config.features is None:
        return None
    steps = []
    for i, item in enumerate(config.features):
        ((name, params),) = item.items()
        path = ("features", i, name)
        if name not in STEPS:
            near = did_you_mean(name, list(STEPS))
            raise config.fault(
                path, f"unknown step {name!r}",
                f"did you mean {near!r}?" if near else f"the steps are {', '.join(STEPS)}",
                key=True,
            )
        steps.append(validated(STEPS[name], params or {}, config, path))
    return steps


def default_steps(
    features: Sequence[Feature], profile: Profile, needs: Needs, encoder: str = "auto",
    labelled: bool = True, levels: Sequence[str] = (), ratios: Sequence[str] = (),
) -> list[Step]:
    """Steps by type and cardinality, for what a model needs (see `models.base.Needs`).

    ``encoder`` is the step for text of few levels; auto: what suits the model. Where there is no
    target (not ``labelled``) many levels are counted instead of encoded by it. ``levels`` are
    columns whose values are encoded by the target as well (see `repeated` and `levelled`),
    ``ratios`` the numbers of which every two are divided (see `amounts`).
    """
    few: list[str] = []
    many: list[str] = []
    prose: list[str] = []
    limit = NATIVE_LEVELS if needs == "anything" else ONE_HOT_LEVELS
    constant = profile.constant()  # drop_constant takes these: no later step may name them
    for f in features:
        if f.dtype != "string" or f.name in constant:
            continue
        distinct = profile.distinct(f.name)
        present = profile.rows - profile.missing(f.name)
        if distinct is None or distinct > max(TEXT_SHARE * present, limit):
            prose.append(f.name)
        else:
            (few if distinct <= limit else many).append(f.name)
    make = _Maker()
    make("drop_constant")
    if prose:
        make("drop", columns=prose)
    if ratios:
        make("ratio", columns=list(ratios))
    if levels:
        make("copy", columns=list(levels), suffix=ENCODED)
        make("target_encode", columns=[f"{name}_{ENCODED}" for name in levels])
    if encoder == "auto":
        encoder = "ordinal" if needs == "anything" else "one_hot"
    if needs != "numbers":
        make("datetime")
        if many:
            make("target_encode", columns=many)
        if few:
            make(encoder, columns=few)
        return make.steps
    make("datetime", parts=["timestamp", "month", "day_of_week", "hour"], cyclic=True)
    holes = [f.name for f in features if f.dtype in ("float64", "float32", "int64", "bool")
             and profile.missing(f.name) > 0 and f.name not in constant]
    if holes:
        make("impute", columns=holes, indicator=True)
    make("impute", columns=["numeric", "boolean"])
    if many and not labelled:
        make("count", columns=many)
        make("log", columns=many)
    make("scale", columns=["numeric", "boolean"])
    if many and labelled:
        make("target_encode", columns=many)
    if few:
        make(encoder, columns=few)
    return make.steps


def varied(steps: Sequence[Step], choices: Mapping[str, Any]) -> list[Step]:
    """The steps with other parameters: values by ``step.parameter``.

    ConfigError for a step that is not among them.
    """
    changed = list(steps)
    for name, value in choices.items():
        step, _, param = name.partition(".")
        mine = [i for i, s in enumerate(changed) if s.name == step]
        if not mine:
            there = dict.fromkeys(s.name for s in steps)
            raise ConfigError(f"there is no step {step!r} to vary",
                              hint=f"the steps are {', '.join(there)}")
        for i in mine:
            given = changed[i].model_dump(exclude_unset=True)
            changed[i] = type(changed[i]).model_validate({**given, param: value})
    return changed


class _Maker:
    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __call__(self, name: str, **params: Any) -> None:
        self.steps.append(STEPS[name].model_validate(params))


def default_notes(features: Sequence[Feature], profile: Profile) -> list[str]:
    """What the defaults leave out, and why: text that names rows."""
    notes = []
    for f in features:
        if f.dtype != "string":
            continue
        distinct, present = profile.distinct(f.name), profile.rows - profile.missing(f.name)
        if distinct is None or distinct > max(TEXT_SHARE * present, NATIVE_LEVELS):
            count = f"more than {VOCABULARY_LIMIT:,}" if distinct is None else f"{distinct:,}"
            notes.append(
                f"column {f.name!r} is left out: {count} distinct values in {present:,} rows "
                "name rows, or are prose (cast it if it holds numbers; hash or target_encode "
                "take it as it is)"
            )
    return notes


def bind_features(
    config: PipelineConfig, features: Sequence[Feature], steps: Sequence[Step], target: Target,
    constant: frozenset[str],
) -> Graph:
    """`steps.graph.bind`, with errors placed at the step's line in the pipeline file."""
    try:
        graph = bind(features, steps, target, constant)
    except ConfigError as error:
        position = getattr(error, "position", None)
        if position is None or config.features is None:
            raise
        name = steps[position].name
        raise config.fault(
            ("features", position, name), error.message, error.hint, key=True
        ) from None
    unusable = [n.feature.name for n in graph.outputs if n.feature.dtype in ("string", "timestamp")]
    if unusable:
        raise ConfigError(
            f"the model cannot use text or timestamps as they are: {', '.join(unusable)}",
            hint="add steps that turn them into numbers (ordinal, one_hot, target_encode, "
            "datetime), or drop them",
        )
    if not graph.outputs:
        raise ConfigError("no feature is left after the steps", hint="drop fewer columns")
    return graph
