"""The experiment file: what is asked, of whom, by which metrics, and what counts as an answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from gpupipe.config.check import Misfit, validated
from gpupipe.config.section import ColumnName, ColumnNames, Section
from gpupipe.config.source import KeyPath, Origin, plain
from gpupipe.errors import ConfigError
from gpupipe.experiment.assign import Layer, Split

Correction = Literal["holm", "benjamini-hochberg", "none"]
Share = Annotated[float, Field(gt=0, lt=1)]


class MetricConfig(Section):
    """A number that every unit has."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    """What it is called."""
    kind: Literal["auto", "mean", "proportion", "ratio"] = "auto"
    """auto: a proportion where there is nothing but 0 and 1, else a mean."""
    column: ColumnName | None = None
    """Where it stands; left out: the column of its name."""
    denominator: ColumnName | None = None
    """For a ratio: the sum of `column` over the sum of this one; `rows` counts rows."""
    aggregate: Literal["auto", "sum", "mean", "max", "min", "count"] = "auto"
    """How several rows of a unit become one; auto: sum, and max for a proportion."""
    missing: Literal["drop", "zero"] = "drop"
    """What a unit without a value is: left out, or 0."""
    better: Literal["higher", "lower"] = "higher"
    """Which way is better."""
    covariate: ColumnName | None = None
    """Known before the experiment, such as the model's score: what it explains is taken away."""
    covariate_denominator: ColumnName | None = None
    """For a covariate that is a ratio."""
    effect: Annotated[float, Field(gt=0)] | None = None
    """The least difference that would matter."""
    relative_effect: Annotated[float, Field(gt=0)] | None = None
    """The same as a share of the control's value: 0.02 is 2 %."""
    baseline: float | None = None
    """What it is without the experiment, for a plan without data."""
    deviation: Annotated[float, Field(gt=0)] | None = None
    """Its standard deviation between units; of a proportion it follows from the baseline."""
    margin: Annotated[float, Field(gt=0)] | None = None
    """For a guardrail: a loss as great as this has to be ruled out."""
    relative_margin: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The same as a share of the control's value."""

    @model_validator(mode="after")
    def _fits(self) -> MetricConfig:
        for one, other in (("effect", "relative_effect"), ("margin", "relative_margin")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise Misfit(f"{one!r} and {other!r} say the same thing", "keep one of them", other)
        if (self.kind == "ratio") != (self.denominator is not None):
            raise Misfit(
                f"{self.name!r}: a ratio has a denominator, and nothing else has one",
                "- {name: clicks_per_view, kind: ratio, column: clicks, denominator: views}",
            )
        if self.covariate_denominator is not None and self.covariate is None:
            raise Misfit(f"{self.name!r} has a covariate's denominator and no covariate",
                         "give the covariate, too", "covariate_denominator")
        if self.kind == "proportion" and self.aggregate in ("sum", "mean", "count"):
            raise Misfit(f"{self.name!r}: the {self.aggregate} of several rows is no proportion",
                         "use max (ever) or min (always)", "aggregate")
        return self

    @property
    def source(self) -> str:
        """The column that it is made of."""
        return self.column or self.name

    def columns(self) -> list[str]:
        """All columns that it is made of."""
        names = (self.source, self.denominator, self.covariate, self.covariate_denominator)
        return [n for n in names if n is not None and n != "rows"]


class LayerConfig(Section):
    """A part of the units, for experiments that must not meet."""

    name: Annotated[str, Field(min_length=1)]
    """The layer's name: experiments of one layer divide its units."""
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Where this experiment's range begins."""
    end: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Where it ends."""


class HorizonConfig(Section):
    """When it ends."""

    units: Annotated[int, Field(ge=2)] | None = None
    """Units of all arms together."""
    until: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")] | None = None
    """The last day, as 2026-11-30."""


class CorrectionsConfig(Section):
    """How p-values are corrected for there being several."""

    primary: Correction = "holm"
    """Over the primary metrics and arms: a false answer is a wrong decision."""
    secondary: Correction = "benjamini-hochberg"
    """Over the secondary metrics and arms: some false finds among many are bearable."""
    slices: Correction = "holm"
    """Over the tests of whether slices differ."""


def _one_or_many(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    return [{"name": v} if isinstance(v, str) else v for v in items]


Metrics = Annotated[
    list[MetricConfig],
    BeforeValidator(_one_or_many, json_schema_input_type=str | dict[str, Any] | list[Any]),
]


def _texts(value: Any) -> Any:
    """Names of arms and levels as text: YAML gives 1, true and A."""
    if isinstance(value, dict):
        return {level_text(k): v for k, v in value.items()}
    return value


class ExperimentConfig(Section):
    """A whole experiment file."""

    name: Annotated[str, Field(pattern=r"^\w[\w .-]{0,79}$")]
    """What it is called; also the salt, unless another one is given."""
    hypothesis: str = ""
    """What is expected, and why, in a sentence or two."""
    unit: ColumnName | None = None
    """The column that names the unit that is dealt out; left out: every row is a unit."""
    arm: ColumnName = "variant"
    """The column that says in which arm a row is."""
    arms: Annotated[dict[str, Share], BeforeValidator(_texts)] | None = None
    """Arm -> planned share: {control: 0.5, treatment: 0.5}; the first is the control."""
    control: str | None = None
    """The arm that the others are held against, where it is not the first."""
    salt: str | None = None
    """What makes this experiment's dealing its own."""
    exposure: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The share of units that takes part."""
    layer: LayerConfig | None = None
    exclude: list[str | int] = []
    """Units that never take part."""
    primary: Annotated[Metrics, Field(min_length=1)]
    """The metric that decides, or several."""
    secondary: Metrics = []
    """Metrics that help to understand."""
    guardrails: Metrics = []
    """Metrics that must not get worse by their margin or more."""
    slices: ColumnNames = []
    """Columns, known before the experiment, within which the effect is looked at, too."""
    where: dict[str, str | int | bool] = {}
    """The rows that count: {shadow: false}."""
    alpha: Share = 0.05
    """The probability of a false find; the intervals' confidence is 1 - alpha."""
    power: Share = 0.8
    """The probability of finding the effect where it is there."""
    look: Literal["fixed", "sequential"] = "fixed"
    """Once at the end, or as often as one likes."""
    tuning: Annotated[float, Field(gt=0)] | None = None
    """For sequential looks: where intervals are tightest, in units; default: horizon, or 5,000."""
    srm_alpha: Share = 0.01
    """Below this p-value the arms' sizes do not fit their shares, and there is no verdict."""
    corrections: CorrectionsConfig = CorrectionsConfig()
    horizon: HorizonConfig = HorizonConfig()

    _origin: Origin = PrivateAttr(default_factory=lambda: Origin(Path.cwd()))

    @field_validator("secondary", "guardrails", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        return [] if value is None else value

    @model_validator(mode="after")
    def _fits(self) -> ExperimentConfig:
        names = [m.name for m in self.metrics]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise Misfit(f"two metrics are called {twice!r}", "give one another name and `column`")
        for metric in self.guardrails:
            if metric.margin is None and metric.relative_margin is None:
                raise Misfit(
                    f"the guardrail {metric.name!r} has no margin",
                    "say how great a loss has to be ruled out: relative_margin: 0.02",
                    "guardrails",
                )
        if self.arms is not None:
            try:
                self.split()
            except ConfigError as error:
                raise Misfit(error.message, error.hint, "arms") from None
            if self.control is not None and self.control not in self.arms:
                raise Misfit(f"the control {self.control!r} is none of the arms",
                             f"the arms are {', '.join(self.arms)}", "control")
        return self

    @property
    def metrics(self) -> list[MetricConfig]:
        """All of them, the primary first."""
        return [*self.primary, *self.secondary, *self.guardrails]

    def split(self) -> Split:
        """How units are dealt out. ConfigError where no arms are given."""
        if self.arms is None:
            raise ConfigError("no arms are given", hint="arms: {control: 0.5, treatment: 0.5}")
        own = self.layer
        layer = None if own is None else Layer(own.name, own.start, own.end)
        return Split(self.salt or self.name, self.arms, self.exposure, layer,
                     tuple(str(u) for u in self.exclude))

    def fault(
        self, path: KeyPath, message: str, hint: str | None = None, *, key: bool = False
    ) -> ConfigError:
        """An error that stands where ``path`` stands in the file."""
        return self._origin.fault(path, message, hint, key=key)


def level_text(value: Any) -> str:
    """An arm or a slice's level as it is written everywhere: True, 3, 2.5, gate_30."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def configured(raw: Mapping[str, Any], origin: Origin | None = None) -> ExperimentConfig:
    """A configuration from plain data. ConfigError at the first fault."""
    origin = origin or Origin(Path.cwd())
    config = validated(ExperimentConfig, plain(raw, (), origin), origin)
    config._origin = origin
    return config
