"""Steps on numbers: impute, scale, clip, log and bin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from gpupipe.errors import ConfigError
from gpupipe.stats.moments import Moments, MomentState
from gpupipe.stats.quantiles import (
    Extremes,
    Histogram,
    Window,
    Zoom,
    crowded,
    exact_quantile,
    narrowed,
    window_for,
)
from gpupipe.stats.state import Statistic
from gpupipe.stats.tables import Vocabulary
from gpupipe.steps.base import (
    NUMERIC,
    Evidence,
    Feature,
    Params,
    Step,
    Target,
    known_vocabulary,
    register,
)


def quantile_needs(evidence: Evidence, quantiles: Sequence[float]) -> tuple[Statistic, ...]:
    """What must be known for exact quantiles: first a histogram, then a look into its bins."""
    if evidence.everything(Histogram()) is None:
        return (Histogram(),)
    for look in _looks(evidence, quantiles):
        if isinstance(look, Zoom):
            return (look,)
        state = evidence.training(look)
        if state is None:
            return (look,)
        if None not in [exact_quantile(look, state, q) for q in quantiles]:
            return ()
    raise AssertionError("the widest window holds every value")


def exact_quantiles(evidence: Evidence, quantiles: Sequence[float]) -> list[float]:
    """The quantiles of the training rows, as NumPy's; NaN where there is no value."""
    for look in _looks(evidence, quantiles):
        state = evidence.training(look) if isinstance(look, Window) else None
        if state is not None:
            assert isinstance(look, Window)
            found = [exact_quantile(look, state, q) for q in quantiles]
            if None not in found:
                return [float(q) for q in found if q is not None]
    raise AssertionError("quantile_needs() was not heeded")


_SLACKS = (6.0, 1e3, 1e12)
"""Standard deviations of rank that a window allows for; the last one takes in everything."""


def _looks(evidence: Evidence, quantiles: Sequence[float]) -> Iterator[Window | Zoom]:
    """Windows, each wider than the one before; first, where one is crowded, what narrows it."""
    histogram = evidence.everything(Histogram())
    for slack in _SLACKS:
        window = window_for(histogram, quantiles, slack)
        if slack == _SLACKS[0] and crowded(window, histogram):
            zoom = Zoom(window.spans)
            known = evidence.everything(zoom)
            if known is None:
                yield zoom
            else:
                yield narrowed(window, known, histogram, quantiles, slack)
        else:
            yield window


@register("impute")
class Impute(Step):
    """Replace missing values.

    ``strategy`` is ``mean``, ``median``, ``most_frequent`` (the least of equals, as in
    scikit-learn's `SimpleImputer`) or ``constant`` (``fill_value``). Text takes the last
    two. With ``indicator`` a 0/1 column ``<name>_missing`` is added. A column without any
    value is filled with 0, or with ``""``.
    """

    accepts = (*NUMERIC, "string")

    columns: str | tuple[str, ...] = "numeric"
    strategy: Literal["mean", "median", "most_frequent", "constant"] = "median"
    fill_value: float | str | None = None
    indicator: bool = False

    @model_validator(mode="after")
    def _constant_has_a_value(self) -> Impute:
        if (self.strategy == "constant") != (self.fill_value is not None):
            raise ValueError("fill_value is for strategy: constant, which needs one")
        return self

    @property
    def looks(self) -> int:
        return {"constant": 0, "median": 2}.get(self.strategy, 1)

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        text = feature.dtype == "string"
        if text and self.strategy in ("mean", "median"):
            raise ConfigError(
                f"step 'impute' cannot take the {self.strategy} of text column "
                f"{feature.name!r}", hint="use strategy: most_frequent or constant for text",
            )
        if self.strategy == "constant" and text != isinstance(self.fill_value, str):
            raise ConfigError(
                f"step 'impute' cannot fill {feature.dtype} column {feature.name!r} with "
                f"{self.fill_value!r}", hint="text takes a quoted fill_value, numbers a number",
            )
        filled = Feature(feature.name, "string" if text else "float64")
        flag = Feature(f"{feature.name}_missing", "float64")
        return (filled, flag) if self.indicator else (filled,)

    def needs(self, target: Target, evidence: Evidence) -> tuple[Statistic, ...]:
        if self.strategy == "mean":
            return (Moments(),)
        if self.strategy == "median":
            return quantile_needs(evidence, (0.5,))
        return (Vocabulary(),) if self.strategy == "most_frequent" else ()

    def finalize(self, target: Target, evidence: Evidence) -> Params:
        fill: Any = self.fill_value
        if self.strategy == "mean":
            fill = evidence.training(Moments()).mean()
        elif self.strategy == "median":
            (fill,) = exact_quantiles(evidence, (0.5,))
        elif self.strategy == "most_frequent":
            levels = known_vocabulary(evidence, self.name).ranked().levels
            fill = levels[0].as_py() if len(levels) else None
        if isinstance(fill, float) and np.isnan(fill):
            fill = None
        return {"fill": float(fill) if isinstance(fill, (bool, int)) else fill}

    def derived_from(self, statistic: Statistic) -> Statistic | None:
        return statistic if isinstance(statistic, Moments) and not self.indicator else None

    def derive(self, statistic: Statistic, state: MomentState, params: Params) -> MomentState:
        """Every missing value has become one more of the fill value: sums are exact, so the
        moments of the filled column follow from the counts, and no scan is needed."""
        return state.filled(float(params["fill"] or 0.0))


@register("scale")
class Scale(Step):
    """Centre and scale: ``standard``, ``min_max`` or ``robust`` (median and quartiles).

    A column without spread is centred and divided by 1, as in scikit-learn.
    """

    accepts = NUMERIC

    columns: str | tuple[str, ...] = "numeric"
    method: Literal["standard", "min_max", "robust"] = "standard"

    @property
    def looks(self) -> int:
        return 2 if self.method == "robust" else 1

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        return (Feature(feature.name, "float64"),)

    def needs(self, target: Target, evidence: Evidence) -> tuple[Statistic, ...]:
        if self.method == "standard":
            return (Moments(squares=True),)
        if self.method == "min_max":
            return (Extremes(),)
        return quantile_needs(evidence, (0.25, 0.5, 0.75))

    def finalize(self, target: Target, evidence: Evidence) -> Params:
        if self.method == "standard":
            moments = evidence.training(Moments(squares=True))
            centre, spread = moments.mean(), moments.std()
        elif self.method == "min_max":
            state = evidence.training(Extremes())
            centre, spread = float(state.low[0]), float(state.high[0] - state.low[0])
        else:
            low, centre, high = exact_quantiles(evidence, (0.25, 0.5, 0.75))
            spread = high - low
        known = np.isfinite(centre) and np.isfinite(spread)
        return {"centre": centre if known else 0.0, "spread": spread if known and spread else 1.0}


@register("clip")
class Clip(Step):
    """Limit values to a range: given bounds, or quantiles of the training rows (winsorise).

    ``lower`` and ``upper`` are quantiles in [0, 1] with ``by: quantile`` (the default), and
    values with ``by: value``. None leaves that side open.
    """

    accepts = NUMERIC

    columns: str | tuple[str, ...] = "numeric"
    by: Literal["quantile", "value"] = "quantile"
    lower: float | None = None
    upper: float | None = None

    @model_validator(mode="after")
    def _bounds_make_sense(self) -> Clip:
        if self.lower is None and self.upper is None:
            raise ValueError("clip needs lower, upper or both")
        given = [v for v in (self.lower, self.upper) if v is not None]
        if self.by == "quantile" and not all(0 <= v <= 1 for v in given):
            raise ValueError("quantiles lie between 0 and 1 (or say by: value)")
        if len(given) == 2 and given[0] > given[1]:
            raise ValueError("lower is above upper")
        return self

    @property
    def looks(self) -> int:
        return 2 if self.by == "quantile" else 0

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        return (Feature(feature.name, "float64"),)

    def _quantiles(self) -> list[float]:
        return [v for v in (self.lower, self.upper) if v is not None]

    def needs(self, target: Target, evidence: Evidence) -> tuple[Statistic, ...]:
        return () if self.by == "value" else quantile_needs(evidence, self._quantiles())

    def finalize(self, target: Target, evidence: Evidence) -> Params:
        bounds: list[float] = self._quantiles()
        if self.by == "quantile":
            bounds = exact_quantiles(evidence, bounds)
        pairs = iter(None if np.isnan(v) else v for v in bounds)
        lower = next(pairs) if self.lower is not None else None
        upper = next(pairs) if self.upper is not None else None
        return {"lower": lower, "upper": upper}


@register("log")
class Log(Step):
    """``sign(x) * log(1 + |x|)``: log1p for what is not negative, and its mirror image."""

    accepts = NUMERIC

    columns: str | tuple[str, ...] = "numeric"

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        return (Feature(feature.name, "float64"),)


@register("bin")
class Bin(Step):
    """The number of the interval that a value falls into, 0 upwards; missing stays missing.

    ``strategy: quantile`` cuts at exact quantiles (equal cuts become one), ``uniform`` at
    equal widths. Values outside the training range fall into the end bins, as in
    scikit-learn's `KBinsDiscretizer`.
    """

    accepts = NUMERIC

    columns: str | tuple[str, ...] = "numeric"
    strategy: Literal["quantile", "uniform"] = "quantile"
    bins: Annotated[int, Field(ge=2, le=65_535)] = 10

    @property
    def looks(self) -> int:
        return 2 if self.strategy == "quantile" else 1

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        return (Feature(feature.name, "int64"),)

    def _quantiles(self) -> list[float]:
        return [float(q) for q in np.linspace(0, 1, self.bins + 1)]

    def needs(self, target: Target, evidence: Evidence) -> tuple[Statistic, ...]:
        if self.strategy == "uniform":
            return (Extremes(),)
        return quantile_needs(evidence, self._quantiles())

    def finalize(self, target: Target, evidence: Evidence) -> Params:
        if self.strategy == "quantile":
            edges = np.array(exact_quantiles(evidence, self._quantiles()))
        else:
            state = evidence.training(Extremes())
            low, high = float(state.low[0]), float(state.high[0])
            edges = np.linspace(low, high, self.bins + 1) if low <= high else np.array([np.nan])
        inner = edges[:0] if np.isnan(edges).any() else np.unique(edges)[1:-1]
        return {"edges": inner}
