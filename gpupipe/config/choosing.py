"""The sections of a pipeline file that choose: models, features, probabilities, decisions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from gpupipe.config.check import Misfit
from gpupipe.config.section import ColumnNames, Section, Texts


class TuneConfig(Section):
    """How long to search for a better model, and where. At least one budget starts a search."""

    trials: Annotated[int, Field(ge=1)] | None = None
    """Trials at most."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """No trial is begun after so many minutes of training."""
    work_units: Annotated[int, Field(ge=1)] | None = None
    """No trial is begun after so many rows x rounds: the same on every machine."""
    models: Literal["auto"] | Texts = "auto"
    """Families to choose from; auto: the one under `model`, or, where none is named, xgboost,
    lightgbm and catboost where they are installed, forest, extra_trees (of values) and linear."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """How the next trial is proposed."""
    pruner: Literal["auto", "race", "median", "hyperband", "none"] = "auto"
    """Which trials are ended early: by a race, those behind the best of their family beyond chance;
    auto: by a race over folds, by the median over rounds."""
    prune_on: Literal["folds", "rounds"] = "folds"
    """When a trial is looked at: after folds, or after boosting rounds of the first fold."""
    objectives: Annotated[
        list[Literal["quality", "latency", "size"]], Field(min_length=1)
    ] = ["quality"]
    """What is sought: quality first; latency is that of one row, size the model's bytes."""
    parallel: Annotated[int, Field(ge=1)] = 1
    """Trials proposed together and trained side by side."""
    space: dict[str, Any] = {}
    """Ranges `[low, high]`, lists of choices, or single values, by parameter: `max_depth`,
    `linear.C`, `features.target_encode.smooth`; they replace the family's own."""

    @model_validator(mode="after")
    def _quality_first(self) -> TuneConfig:
        if self.objectives[0] != "quality" or len(set(self.objectives)) < len(self.objectives):
            raise Misfit("objectives begin with quality, each at most once",
                         "for example [quality, latency]", "objectives")
        return self

    @model_validator(mode="after")
    def _raced_over_folds(self) -> TuneConfig:
        if self.pruner == "race" and self.prune_on == "rounds":
            raise Misfit("a race is over folds: losses after some rounds do not tell who is ahead",
                         "set prune_on: folds, or pruner: median", "pruner")
        return self

    @property
    def ends_by(self) -> str:
        """The rule that ends trials early."""
        if self.pruner != "auto":
            return self.pruner
        return "race" if self.prune_on == "folds" else "median"

    @property
    def wanted(self) -> bool:
        """Whether there is anything to search."""
        budgets = (self.trials, self.minutes, self.work_units)
        return self.sampler == "grid" or any(b is not None for b in budgets)


class EnsembleConfig(Section):
    """Whether the best trials and families are put together."""

    kind: Literal["auto", "none", "blend", "stack"] = "auto"
    """auto: after a search a blend, where it is better out of fold than the best single model
    (beyond chance, if latency or size are among the objectives); blend (Caruana selection) and
    stack (a linear model of the predictions) are always made."""
    size: Annotated[int, Field(ge=2)] = 8
    """Members at most."""


class CalibrateConfig(Section):
    """Whether probabilities are corrected, from out-of-fold predictions."""

    method: Literal["none", "auto", "isotonic", "sigmoid", "beta", "temperature"] = "none"
    """auto takes the one with the least log loss out of fold, if it is better than none beyond
    chance; one that is named is applied."""


class DecideConfig(Section):
    """Which probability is enough for a yes (binary targets): one rule, chosen out of fold."""

    metric: str | None = None
    """The threshold that makes this metric best: `f1`, `matthews_corrcoef`, ..."""
    cost: dict[Literal["false_positive", "false_negative"], Annotated[float, Field(ge=0)]] | None \
        = None
    """What each mistake costs: the threshold with the least cost."""
    precision: Annotated[float, Field(gt=0, le=1)] | None = None
    """The threshold with the greatest recall at this precision or more."""
    recall: Annotated[float, Field(gt=0, le=1)] | None = None
    """The threshold with the greatest precision at this recall or more."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """This threshold: a probability above it is a yes."""

    @model_validator(mode="after")
    def _one_rule(self) -> DecideConfig:
        if len(self.rules) > 1:
            raise Misfit(f"{' and '.join(self.rules)} are {len(self.rules)} rules for one "
                         "threshold", "keep one of them", self.rules[-1])
        if self.cost is not None and not any(self.cost.values()):
            raise Misfit("no mistake costs anything",
                         "write it like `cost: {false_positive: 1, false_negative: 5}`", "cost")
        return self

    @property
    def rules(self) -> list[str]:
        """The rules that are there: one at most."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]


class IntervalsConfig(Section):
    """Conformal intervals (regression) and sets of labels (classes)."""

    coverage: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of new rows whose truth they hold; left out, there are none."""
    method: Literal["cross", "split", "cqr"] = "cross"
    """cross: from all out-of-fold errors; split: from those of the last fold, which the model then
    does not learn from; cqr: as split, around two quantiles (regression)."""
    sets: Literal["lac", "aps"] = "lac"
    """Of labels: lac, the smallest on average; aps, larger where rows are hard."""


def _method(item: Any) -> Any:
    if isinstance(item, str):
        return {"method": item}
    if not isinstance(item, dict) or not isinstance(item.get("method"), str):
        raise Misfit("a method of selection is its name, or a mapping with its name and parameters",
                     "write it like `boruta`, or `{method: boruta, rounds: 30}`")
    return item


class SelectConfig(Section):
    """Which features the model gets, chosen within each training part alone."""

    methods: Annotated[
        list[Annotated[dict[str, Any],
                       BeforeValidator(_method, json_schema_input_type=dict[str, Any] | str)]],
        BeforeValidator(lambda v: [v] if isinstance(v, (str, dict)) else v,
                        json_schema_input_type=str | dict[str, Any] | list[Any]),
    ] = []
    """Applied in order, each to what the ones before it left; none by default."""
    keep: ColumnNames = []
    """Features or columns that are never dropped, by name or glob."""
    unit: Literal["feature", "column"] = "feature"
    """What is kept or dropped as one: a feature (all levels of a one-hot), or all that comes of
    a source column."""
    rows: Annotated[int, Field(ge=100)] = 50_000
    """Training rows, at most, that are looked at."""


class LeaksConfig(Section):
    """What to do about columns and splits that give the target away."""

    check: Literal["block", "warn", "off"] = "block"
    """block: a finding that is nearly certain stops `run` and `check` (exit code 4); warn: it is
    listed; off: nothing is looked at."""
    acknowledged: Texts = []
    """Findings to let pass, by name, such as `target-sum:total+tip`; a column's name lets pass
    what is found about it alone."""
    rows: Annotated[int, Field(ge=1_000)] = 50_000
    """Rows to look at, spread over the table."""
