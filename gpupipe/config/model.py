"""The typed content of a pipeline file. Everything has a default but the source and target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from gpupipe.config.check import Misfit, validated
from gpupipe.config.choosing import (
    CalibrateConfig,
    DecideConfig,
    EnsembleConfig,
    IntervalsConfig,
    LeaksConfig,
    SelectConfig,
    TuneConfig,
)
from gpupipe.config.explain import Explain, ExplainConfig
from gpupipe.config.monitor import MonitorConfig
from gpupipe.config.section import ColumnName, ColumnNames, Section, Texts, short
from gpupipe.config.source import KeyPath, Origin, plain, read
from gpupipe.config.units import bytes_of, microseconds_of
from gpupipe.config.unsupervised import check_target
from gpupipe.errors import ConfigError, did_you_mean

TYPES = {
    "float32": "float32", "float64": "float64", "float": "float64", "double": "float64",
    "int64": "int64", "int": "int64", "integer": "int64", "bool": "bool", "boolean": "bool",
    "string": "string", "str": "string", "text": "string", "category": "string",
    "timestamp": "timestamp", "datetime": "timestamp", "date": "timestamp",
}
"""What `data.types` may say, and the column type that it means."""


def _type(value: Any) -> Any:
    if not isinstance(value, str) or value.lower() in TYPES:
        return TYPES[value.lower()] if isinstance(value, str) else value
    near = did_you_mean(value, list(TYPES))
    raise Misfit(
        f"unknown column type {value!r}",
        f"did you mean {near!r}?" if near else f"the types are {', '.join(TYPES)}",
    )


class DataConfig(Section):
    """What comes in."""

    source: Annotated[
        list[Annotated[str, Field(min_length=1)]], Field(min_length=1)
    ] | Annotated[str, Field(min_length=1)]
    """A file, a glob, a folder, or a list of them; relative to the pipeline file."""
    target: ColumnName | None = None
    """The column to predict; required, but for a model that learns without one."""
    positive: str | int | float | bool | None = None
    """The label that counts as positive (binary targets); default: the rarer one. With an
    event column, the label that says that the event was seen."""
    drop: ColumnNames = []
    """Columns to leave out; globs such as "cost_*" are fine."""
    key: ColumnNames | None = None
    """Columns that name a row; default: the whole row."""
    types: dict[str, Annotated[str, BeforeValidator(_type)]] = {}
    """Column types that override what was inferred: float, int, bool, string, timestamp."""
    missing: Texts | None = None
    """Texts that mean a missing value; default: the usual ones."""
    weight: ColumnName | None = None
    """A column of sample weights."""
    event: ColumnName | None = None
    """A column that says whether the event was seen by the time in the target, or is censored."""
    format: Literal["auto", "csv", "parquet", "arrow", "json"] = "auto"
    """How the source is stored; default: by its name and first bytes."""
    delimiter: Annotated[str, Field(min_length=1)] = "auto"
    """The character between fields of a CSV file, or "tab"."""
    encoding: Annotated[str, Field(min_length=1)] = "auto"
    """The text encoding of a CSV file."""
    header: bool | Literal["auto"] = "auto"
    """Whether a CSV file's first row holds the names."""
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.001
    """The share of rows that may fail to parse before the run stops."""
    task: Literal["auto", "binary", "multiclass", "regression"] = "auto"
    """What to predict; default: by the target's type and values."""

    @field_validator("delimiter")
    @classmethod
    def _one_character(cls, value: str) -> str:
        value = "\t" if value in ("tab", "\\t") else value
        if value != "auto" and len(value) != 1:
            raise Misfit(f"a delimiter is one character, found {value!r}", 'or "auto", or "tab"')
        return value

    @model_validator(mode="after")
    def _target_stays(self) -> DataConfig:
        if self.target in self.drop:
            raise Misfit(f"the target {self.target!r} cannot be dropped", key="drop")
        if self.weight is not None and self.weight == self.target:
            raise Misfit("the target cannot be the weight too", key="weight")
        if self.event in (self.target, self.weight) and self.event is not None:
            raise Misfit(f"the event {self.event!r} is the target or the weight too",
                         "the target is the time; the event says whether it was seen", "event")
        if self.event is not None and self.target is None:
            raise Misfit("an event belongs to a time", "set data.target to the column of times",
                         "event")
        if self.event is not None and self.task != "auto":
            raise Misfit("with an event the task is survival", "leave data.task out", "task")
        return self


class SplitConfig(Section):
    """Which rows train, and which only judge."""

    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """The share of rows that no training sees; 0 for none."""
    folds: Annotated[int, Field(ge=0)] = 5
    """Folds of the cross-validation; 0 for none."""
    by: Literal["auto", "random", "stratified", "group", "time"] = "auto"
    """How rows are dealt out; auto: group or time where set, else stratified for classes."""
    group: ColumnNames | None = None
    """Columns whose equal values stay together."""
    time: ColumnName | None = None
    """The column to cut at; the newest rows are the holdout."""
    gap: str | float | None = None
    """Left out between training and judging: a duration (7d, 12h) or a number."""
    honesty: bool | Literal["auto"] = "auto"
    """Whether the model is also judged under a random, a group and a time split, on a sample;
    auto: where the data have groups or a time."""

    @field_validator("folds")
    @classmethod
    def _not_one(cls, value: int) -> int:
        if value == 1:
            raise Misfit("one fold would leave nothing to train on", "2 or more, or 0 for none")
        return value

    @field_validator("gap")
    @classmethod
    def _duration(cls, value: str | float | None) -> str | float | None:
        if isinstance(value, str):
            microseconds_of(value)
        elif value is not None and value < 0:
            raise Misfit(f"a gap is at least 0, found {value}")
        return value

    @model_validator(mode="after")
    def _columns_given(self) -> SplitConfig:
        if self.by == "group" and not self.group:
            raise Misfit("by: group needs the column to group by", "set split.group", "by")
        if self.by == "time" and not self.time:
            raise Misfit("by: time needs the column to cut at", "set split.time", "by")
        if self.group and self.time and self.by == "auto":
            raise Misfit("both group and time are set", "say which with split.by", "time")
        if self.gap is not None and not self.time:
            raise Misfit("a gap needs split.time", "set split.time, or drop the gap", "gap")
        return self

    def gap_size(self) -> float:
        """The gap in microseconds (a duration), or in the column's units; 0 where none."""
        gap = self.gap
        return float(microseconds_of(gap)) if isinstance(gap, str) else float(gap or 0)


class ModelConfig(Section):
    """What learns."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})

    kind: str = "xgboost"
    """A registered family: docs/models.md has them all."""
    params: dict[str, Any] = {}
    """Its parameters, under its library's own names; they may stand beside `kind` too."""

    @model_validator(mode="before")
    @classmethod
    def _beside(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("params") or {}, dict):
            return value
        own = {k: v for k, v in value.items() if k in cls.model_fields
               or did_you_mean(str(k), list(cls.model_fields))}
        beside = {k: v for k, v in value.items() if k not in own}
        params = own.get("params") or {}
        for name in beside:
            if name in params:
                raise Misfit(f"{name!r} stands under params and beside it", "keep one", name)
        return {**own, "params": {**params, **beside}} if beside else value


class EvaluateConfig(Section):
    """How the model is judged."""

    metrics: Texts | None = None
    """Metrics by scikit-learn's names; default: the usual ones of the task."""
    slices: ColumnNames = []
    """Columns to judge by, value for value."""
    baselines: Texts = ["linear", "constant"]
    """Models to show beside this one."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """The level of the intervals."""
    resamples: Annotated[int, Field(ge=1)] = 1000
    """Bootstrap resamples behind each interval."""


class EngineConfig(Section):
    """Where it runs."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto chooses and says why; cuda fails where there is no GPU."""
    kind: Literal["auto", "local", "dask"] = "auto"
    """One process, or a cluster."""
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Worker processes or threads."""
    memory: str = "auto"
    """The memory that may be used: 2GiB, 500MB."""
    address: str | None = None
    """The address of a running Dask scheduler."""
    batch_rows: Annotated[int, Field(ge=1)] | None = None
    """Rows in a batch; the results do not depend on it. Left out, it suits the device."""

    @field_validator("memory")
    @classmethod
    def _size(cls, value: str) -> str:
        if value != "auto":
            bytes_of(value)
        return value


def _step(item: Any) -> Any:
    if isinstance(item, str):
        return {item: None}
    if not isinstance(item, dict) or len(item) != 1:
        raise Misfit(
            "a step is one key, the step's name, with its parameters",
            "write it like `- impute: {columns: numeric}`; each step begins with its own `-`",
        )
    ((name, params),) = item.items()
    if params is not None and not isinstance(params, dict):
        raise Misfit(
            f"expected the parameters of {name!r} as a mapping, found {params!r}",
            f"write it like `- {name}: {{columns: ...}}`", name,
        )
    return item


class PipelineConfig(Section):
    """A whole pipeline file."""

    name: Annotated[str, Field(pattern=r"^\w[\w .-]{0,79}$")] = "pipeline"
    """What reports call it."""
    data: DataConfig
    """At least `data: {source: table.csv, target: outcome}`."""
    split: SplitConfig = SplitConfig()
    features: list[
        Annotated[dict[str, dict[str, Any] | None],
                  BeforeValidator(_step, json_schema_input_type=dict[str, Any] | str)]
    ] | None = None
    """Steps in order, each `name: {parameters}`; default: by type, for the model at hand."""
    select: Annotated[SelectConfig, short("methods")] = SelectConfig()
    model: ModelConfig = ModelConfig()
    tune: TuneConfig = TuneConfig()
    ensemble: Annotated[EnsembleConfig, short("kind")] = EnsembleConfig()
    calibrate: Annotated[CalibrateConfig, short("method")] = CalibrateConfig()
    decide: DecideConfig = DecideConfig()
    intervals: IntervalsConfig = IntervalsConfig()
    leaks: LeaksConfig = LeaksConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    explain: Explain = ExplainConfig()
    monitor: MonitorConfig = MonitorConfig()
    engine: EngineConfig = EngineConfig()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Everything random comes from it."""

    _origin: Origin = PrivateAttr(default_factory=lambda: Origin(Path.cwd()))

    @property
    def base(self) -> Path:
        """The folder that relative paths start from: the pipeline file's, or the current one."""
        return self._origin.base

    def sources(self) -> list[str]:
        """The sources, relative ones resolved against `base`; URLs as they are."""
        named = [self.data.source] if isinstance(self.data.source, str) else self.data.source
        return [s if "://" in s else str(self.base / Path(s).expanduser()) for s in named]

    def fault(
        self, path: KeyPath, message: str, hint: str | None = None, *, key: bool = False
    ) -> ConfigError:
        """An error that stands where ``path``, such as ("features", 0, "impute"), stands.

        From a file it carries file:line:column and the source line with a caret (under the
        key where ``key``, else under the value); from Python, the dotted path.
        """
        return self._origin.fault(path, message, hint, key=key)


def load_config(path: str | Path) -> PipelineConfig:
    """The pipeline file at ``path``. Raises ConfigError that names file, line and column."""
    raw, origin = read(Path(path))
    return _configure(raw, origin)


def parse_config(config: PipelineConfig | Mapping[str, Any] | str | Path) -> PipelineConfig:
    """A configuration from a mapping (relative paths: the current folder) or a file's path."""
    if isinstance(config, PipelineConfig):
        return config
    if isinstance(config, (str, Path)):
        return load_config(config)
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"expected a mapping or the path of a pipeline file, found a {type(config).__name__}"
        )
    origin = Origin(Path.cwd())
    return _configure(plain(config, (), origin), origin)


def dump_config(config: PipelineConfig) -> dict[str, Any]:
    """The whole configuration as plain JSON data, defaults included, in a fixed order."""
    return config.model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """JSON Schema of the pipeline file, for editors."""
    schema = PipelineConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _configure(raw: dict[str, Any], origin: Origin) -> PipelineConfig:
    config = validated(PipelineConfig, raw, origin)
    config._origin = origin
    check_target(config)
    return config
