"""The section of a pipeline file on monitoring: windows, measures, and what raises an alert."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gpupipe.config.check import Misfit
from gpupipe.config.section import ColumnName, ColumnNames, Section, Texts
from gpupipe.config.sinks import SinkConfig
from gpupipe.config.units import microseconds_of

State = Literal["ok", "warn", "alert", "insufficient"]


class Threshold(Section):
    """The effects from which a measure warns and alerts."""

    warn: Annotated[float, Field(ge=0)] | None = None
    """Default: the measure's own."""
    alert: Annotated[float, Field(ge=0)] | None = None
    """Default: the measure's own."""

    @model_validator(mode="after")
    def _ascending(self) -> Threshold:
        if self.warn is not None and self.alert is not None and self.alert < self.warn:
            raise Misfit(f"alert {self.alert:g} is below warn {self.warn:g}",
                         "an alert is the greater effect", "alert")
        return self


def _states(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class MonitorConfig(Section):
    """What `gpupipe monitor` looks at, and what it holds to be an alert."""

    window: str = "auto"
    """1d, 12h, 10000rows or all; auto: a day where there is a time, else all rows."""
    time: ColumnName | None = None
    """The column that says when; a prediction log has its own."""
    columns: ColumnNames | None = None
    """The columns to judge; default: all that the model takes."""
    slices: ColumnNames = []
    """Columns by whose most frequent values rows are judged apart, too."""
    measures: Texts | None = None
    """Which measures judge; default: all that fit a column."""
    thresholds: dict[str, Threshold] = {}
    """By measure, the effects from which it warns and alerts."""
    false_alarms: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """The share of windows without drift that may warn or alert of a column, at most."""
    least: Annotated[int, Field(ge=20)] = 100
    """Rows that a window (or slice) needs to be judged; with fewer it is insufficient."""
    metrics: Texts | None = None
    """Metrics of quality, where there are labels; default: those of the pipeline file's
    `evaluate.metrics`, or the task's own."""
    fall: Annotated[float, Field(gt=0)] = 0.1
    """How much worse than out of fold a metric must surely be for an alert, as a share of it;
    half of it warns."""
    alert_on: Annotated[
        list[State], BeforeValidator(_states, json_schema_input_type=str | list[str])
    ] = ["alert"]
    """The states of a window that are an alert: exit code 4."""
    last: Annotated[int, Field(ge=1)] = 1
    """How many of the newest windows with enough rows may raise it."""
    sinks: list[SinkConfig] = []
    """Where alerts are told: [{webhook: {url: https://...}}, {file: alerts.jsonl}]. They need a
    history, which keeps what was told."""

    @field_validator("window")
    @classmethod
    def _window(cls, value: str) -> str:
        rows = value.removesuffix("rows").removesuffix("row").strip().replace("_", "")
        if value not in ("auto", "all") and not (value.rstrip("s").endswith("row")
                                                 and rows.isdigit()):
            microseconds_of(value)
        return value


def check_measures(config: MonitorConfig, known: list[str], fault: Any) -> None:
    """ConfigError, by ``fault(path, message, hint)``, for a measure that there is not."""
    from gpupipe.errors import did_you_mean

    named: list[tuple[tuple[str | int, ...], str]] = [
        (("monitor", "measures", i), m) for i, m in enumerate(config.measures or ())]
    named += [(("monitor", "thresholds", m), m) for m in config.thresholds]
    for path, name in named:
        if name not in known:
            near = did_you_mean(name, known)
            raise fault(path, f"there is no measure {name!r}",
                        f"did you mean {near!r}?" if near else
                        f"the measures are {', '.join(known)}")
