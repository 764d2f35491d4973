"""Two sides held against each other, level by level: what was promised, and what was found.

- L1, learned: splits, vocabularies, histograms and learned numbers are equal to the bit.
- L2, made: features and the scores of one model are within so many ulps of float32.
- L3, trained: metrics of each side's own model are within a standard deviation over seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from gpupipe.parity.compare import Difference, differs, ulps, ulps_text
from gpupipe.parity.observe import Observed

FEATURE_ULPS = 1
"""A feature is rounded to float32 once, from a float64 that may itself be an ulp off."""
SCORE_ULPS = 8
"""A score is a sum of float32 leaves and a function of it."""
ROUNDING = 1e-6
"""Metrics so near to each other differ by no more than scores are rounded: where a model does not
depend on its seed, there is no standard deviation to go by."""

ALL_ROWS = "all rows"


@dataclass(frozen=True)
class Compared:
    """One thing on both sides: ``ulps`` is None where it has no such distance, or is equal."""

    what: str
    where: str
    equal: bool
    ulps: int | None = None
    found: str = ""


@dataclass(frozen=True)
class Metric:
    """One metric of each side's own model; ``seeds`` are the left's, its own seed first."""

    name: str
    left: float | None
    right: float | None
    seeds: list[float | None]
    difference: float | None
    deviation: float | None
    holds: bool


@dataclass(frozen=True)
class Level:
    """A promise, and whether it holds."""

    name: str
    title: str
    promise: str
    holds: bool
    found: str


@dataclass(frozen=True)
class Certificate:
    """What `compare` found, with what is needed to judge it.

    Attributes
    ----------
    about : name, date, task, hardware, versions, data and both sides, for people and machines.
    rows, states, params, features, scores : what was compared, each a list.
    """

    levels: tuple[Level, ...]
    rows: tuple[Compared, ...]
    states: tuple[Compared, ...]
    params: tuple[Compared, ...]
    features: tuple[Compared, ...]
    scores: tuple[Compared, ...]
    metrics: tuple[Metric, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return all(level.holds for level in self.levels)

    def to_json(self) -> dict[str, Any]:
        compared = ("levels", "rows", "states", "params", "features", "scores", "metrics")
        return {"holds": self.holds, **self.about,
                **{name: [asdict(c) for c in getattr(self, name)] for name in compared}}


def compare(
    left: Observed, right: Observed, seeds: Sequence[Mapping[str, float | None]],
    about: Mapping[str, Any] | None = None,
) -> Certificate:
    """Hold two sides against each other.

    ``seeds`` are the metrics of the left's model, trained with one seed after the other: its own
    first.
    """
    rows = (*_rows(left, right), _one("split rule", ALL_ROWS, differs(left.rule, right.rule)))
    states = _states(left, right)
    params = _params(left, right)
    features = _features(left, right)
    scores = (_scores(left, right),)
    metrics = _metrics(left, right, seeds)
    learned = [c for c in (*rows, *states, *params) if not c.equal]
    feature_ulps = _largest(features)
    score_ulps = _largest(scores)
    apart = [m for m in metrics if not m.holds]
    levels = (
        Level("L1", "Learned", "equal to the bit: splits, histograms, vocabularies, numbers",
              not learned, f"{len(learned):,} of {len(rows) + len(states) + len(params):,} differ, "
              f"the first is {_name(learned[0])}" if learned else
              f"{len(rows) + len(states) + len(params):,} compared, all equal to the bit"),
        Level("L2", "Made", f"features within {FEATURE_ULPS} ulp of float32, scores of one model "
              f"within {SCORE_ULPS}", feature_ulps <= FEATURE_ULPS and score_ulps <= SCORE_ULPS,
              f"features: {_at_most(features, feature_ulps)}; scores: "
              f"{_at_most(scores, score_ulps)}"),
        Level("L3", "Trained", f"metrics within one standard deviation over {len(seeds)} seeds",
              not apart, f"{len(apart)} of {len(metrics)} are further apart, the first is "
              f"{apart[0].name}" if apart else f"all {len(metrics)} metrics" if metrics
              else "no metric to compare: there is neither a holdout nor folds"),
    )
    return Certificate(levels, rows, states, params, features, scores, metrics, about or {})


def _rows(left: Observed, right: Observed) -> list[Compared]:
    """Key, bucket, target and weight of every row."""
    found = []
    for what, a, b in (("key", left.keys, right.keys), ("bucket", left.buckets, right.buckets),
                       ("target", left.target, right.target),
                       ("weight", left.weight, right.weight)):
        if a is None and b is None:
            continue
        difference = differs(a, b)
        if difference is not None and a is not None and b is not None and a.shape == b.shape:
            unequal = np.flatnonzero(a != b)
            if len(unequal):
                difference = Difference(f"{len(unequal):,} of {len(a):,} rows; the first is row "
                                        f"{unequal[0]:,}", difference.ulps)
        found.append(_one(f"{what} of every row", ALL_ROWS, difference))
    return found


def _states(left: Observed, right: Observed) -> tuple[Compared, ...]:
    """The profile's statistics of every column."""
    keys = dict.fromkeys([*left.states, *right.states])
    return tuple(
        _one(f"{statistic} of {column}", ALL_ROWS, _sided(left.states, right.states,
                                                            (column, statistic)))
        for column, statistic in keys
    )


def _params(left: Observed, right: Observed) -> tuple[Compared, ...]:
    """What every step learned, in every view."""
    return tuple(
        _one(f"{place.step}({place.column})", f"{place.model}, {place.view}",
             _sided(left.params, right.params, place))
        for place in dict.fromkeys([*left.params, *right.params])
    )


def _sided(left: Mapping[Any, Any], right: Mapping[Any, Any], key: Any) -> Difference | None:
    if key not in left or key not in right:
        return Difference(f"only on the {'left' if key in left else 'right'}")
    return differs(left[key], right[key])


def _features(left: Observed, right: Observed) -> tuple[Compared, ...]:
    """The sample's features, column by column."""
    found = []
    for model in dict.fromkeys([*left.features, *right.features]):
        names, a = left.features.get(model, ((), np.empty((0, 0), np.float32)))
        others, b = right.features.get(model, ((), np.empty((0, 0), np.float32)))
        if names != others or a.shape != b.shape:
            said = f"{len(a):,} rows of {len(names)} features against {len(b):,} of {len(others)}"
            found.append(Compared("features", model, False, None, said))
            continue
        found += [_floats(name, model, a[:, i], b[:, i]) for i, name in enumerate(names)]
    return tuple(found)


def _scores(left: Observed, right: Observed) -> Compared:
    a, b = left.scores, right.scores
    if a.shape != b.shape:
        return Compared("scores", "the left's model", False, None,
                        f"{list(a.shape)} against {list(b.shape)}")
    found = _floats("scores", "the left's model", a.astype(np.float32), b.astype(np.float32))
    if found.equal:
        return found
    largest = np.nanmax(np.abs(a - b))
    return Compared(found.what, found.where, False, found.ulps,
                    f"{found.found}; at most {largest:.3g} apart")


def _floats(what: str, where: str, a: np.ndarray, b: np.ndarray) -> Compared:
    """Two float32 arrays of one shape. Missing values are equal whatever their bits."""
    apart = ulps(a, b)
    if not apart.any():
        return Compared(what, where, True)
    unequal, worst = int((apart > 0).any(axis=tuple(range(1, apart.ndim))).sum()), apart.argmax()
    return Compared(what, where, False, int(apart.max()), f"{unequal:,} of {len(a):,} rows; at "
                    f"most {a.ravel()[worst]:.9g} against {b.ravel()[worst]:.9g}")


def _metrics(
    left: Observed, right: Observed, seeds: Sequence[Mapping[str, float | None]]
) -> tuple[Metric, ...]:
    found = []
    for name in dict.fromkeys([*left.metrics, *right.metrics]):
        a, b = left.metrics.get(name), right.metrics.get(name)
        over = [s.get(name) for s in seeds]
        known = [v for v in over if v is not None]
        deviation = statistics.stdev(known) if len(known) > 1 else None
        apart = None if a is None or b is None else abs(a - b)
        holds = a is b if apart is None else (
            apart <= max(deviation or 0.0, ROUNDING * max(1.0, abs(a or 0.0))))
        found.append(Metric(name, a, b, over, apart, deviation, holds))
    return tuple(found)


def _one(what: str, where: str, difference: Difference | None) -> Compared:
    if difference is None:
        return Compared(what, where, True)
    return Compared(what, where, False, difference.ulps, difference.found)


def _largest(compared: Sequence[Compared]) -> float:
    """The largest distance in ulps; infinite where something has none."""
    unequal = [c for c in compared if not c.equal]
    return max((math.inf if c.ulps is None else c.ulps for c in unequal), default=0)


def _at_most(compared: Sequence[Compared], distance: float) -> str:
    if distance == 0:
        return "equal"
    worst = next(c for c in compared if not c.equal
                 and (c.ulps == distance or distance == math.inf))
    said = ulps_text(None if distance == math.inf else int(distance))
    return f"{said} ({_name(worst)})"


def _name(compared: Compared) -> str:
    return compared.what if compared.where == ALL_ROWS else f"{compared.what} in {compared.where}"
