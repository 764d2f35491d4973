"""Whether a challenger may take the champion's place: rules, and what they say of the two.

    gates:
      metric: roc_auc          # the bundle's first one, where none is named
      mode: no_worse           # or better
      margin: 0.005            # in the metric's unit
      slices: [plan, region]
      calibration: true
      latency: 1.5             # times the champion's
      drift: drift/verdict.json

Every gate is decided by the paired intervals of `compare` on the same labelled rows:

- **metric**: with ``better`` the whole interval of the difference lies above ``margin``; with
  ``no_worse`` above ``-margin`` (non-inferiority: Piaggio et al. 2012, JAMA 308(24), box 1).
- **slices**: no level of a slice is worse than by ``slice_margin`` beyond chance: of k levels each
  is held to the confidence 1 - (1 - confidence) / k (Bonferroni), so that many levels raise no
  more false alarms than one.
- **calibration**: log loss, for classes, is not worse beyond chance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from gpupipe.bundle.latency import single_row
from gpupipe.bundle.scoring import Bundle
from gpupipe.compare import by_level
from gpupipe.compare.data import rows_of
from gpupipe.compare.rows import Paired
from gpupipe.config.check import validated
from gpupipe.config.section import ColumnNames, Section
from gpupipe.config.source import dotted, read
from gpupipe.errors import ConfigError, DataError
from gpupipe.evaluate.metrics import METRICS, OF_CLASSES, choose
from gpupipe.evaluate.samples import UNITS
from gpupipe.evaluate.scores import SMALL_SLICE, Score, paired_differences

RESAMPLES = 1000
TAIL = 20
"""So many resamples, on average, lie beyond each end of an interval, at the least."""
MOST_RESAMPLES = 20_000
LATENCY_CALLS = 400
PASSING_STATES = ("ok", "warn")


class Gates(Section):
    """The rules; see the module for what they mean."""

    metric: str | None = None
    """The metric that decides; left out: the champion's first one."""
    mode: Literal["better", "no_worse"] = "better"
    """The challenger has to be better, or not worse than by the margin."""
    margin: float = Field(0.0, ge=0)
    """By how much, in the metric's unit."""
    slices: ColumnNames = []  # noqa: RUF012 - pydantic copies it
    """Columns of the data in whose levels it may not be worse."""
    slice_margin: float = Field(0.0, ge=0)
    """By how much it may be worse in a level before that counts."""
    calibration: bool = True
    """Classes: log loss may not be worse beyond chance."""
    latency: float | None = Field(1.5, gt=0)
    """How many times the champion's median time for one row is allowed; null: any."""
    drift: str | None = None
    """A verdict of `gpupipe monitor`, a JSON file, which may not raise an alert."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of the intervals."""


@dataclass(frozen=True)
class Gate:
    """One gate: what it asks, what was found, and whether it passed (None: it could not be asked,
    which ``found`` explains and which holds nothing up)."""

    name: str
    asks: str
    found: str
    passed: bool | None


@dataclass(frozen=True)
class Verdict:
    """All gates of a challenger against a champion (None: there was none to be held against)."""

    challenger: int
    champion: int | None
    rows: int | None
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        return all(g.passed is not False for g in self.gates)

    def to_json(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self), "gates": [asdict(g) for g in self.gates]}


def read_gates(path: Path | None, **flags: Any) -> Gates:
    """The rules in a YAML file under ``gates:``; ``flags`` that are not None go before them.

    Raises ConfigError, located, for a file or a flag that is no rule.
    """
    given = {k: v for k, v in flags.items() if v is not None and v != []}
    if path is None:
        return validated(Gates, given, _Flags())
    if not path.exists():
        raise ConfigError("there is no such file of gates", where=str(path),
                          hint="gates: {mode: no_worse, margin: 0.005}")
    sections, origin = read(path)
    strange = [name for name in sections if name != "gates"]
    if strange or "gates" not in sections:
        raise origin.fault((strange[0],) if strange else (), "expected one section, 'gates'",
                           "gates: {mode: no_worse, margin: 0.005}", key=True)
    rules = validated(Gates, sections["gates"], origin, ("gates",))
    found = rules.model_dump(exclude_unset=True)
    if rules.drift is not None:  # relative to the file, as in a pipeline file
        found["drift"] = str(origin.base / rules.drift)
    return validated(Gates, found | given, _Flags())


class _Flags:
    """Where a fault in the command line stands."""

    def fault(
        self, path: tuple[str | int, ...], message: str, hint: str | None = None, *,
        key: bool = False,
    ) -> ConfigError:
        return ConfigError(f"{dotted(path)}: {message}", hint=hint)


def judged(
    rules: Gates, challenger: Bundle, champion: Bundle | None, source: object | None, *,
    numbers: tuple[int, int | None], progress: Any = None,
) -> Verdict:
    """Hold a challenger against the champion on labelled data.

    ``numbers`` are the versions of the two. Without a champion the gates of one model alone are
    asked. Raises ConfigError where there is a champion and no data, DataError as
    `compare.data.rows_of` does.
    """
    gates: list[Gate] = []
    rows = None
    if champion is not None:
        if source is None:
            raise ConfigError("the gates hold the challenger against the champion on labelled "
                              "data, and none was named", hint="--data labelled.parquet")
        pair = rows_of(champion, challenger, source, rules.slices, progress=progress)
        rows = len(pair.y)
        metric = _metric(rules, champion)
        gates += [_overall(rules, pair, metric), *_sliced(rules, pair, metric)]
        if rules.calibration:
            gates.append(_calibration(rules, pair))
        if rules.latency is not None:
            gates.append(_latency(rules.latency, champion, challenger))
    else:
        gates.append(Gate("metric", "better than the champion", "there is no champion yet", None))
    if rules.drift is not None:
        gates.append(_drift(Path(rules.drift)))
    return Verdict(*numbers, rows, tuple(gates))


def _metric(rules: Gates, champion: Bundle) -> str:
    task: Any = champion.task
    asked = [rules.metric] if rules.metric else champion.info["metrics"]
    return choose(task, asked)[0].name


def _overall(rules: Gates, pair: Paired, metric: str) -> Gate:
    away = _ahead(pair, metric, rules.confidence)
    bound = rules.margin if rules.mode == "better" else -rules.margin
    less = rules.mode == "no_worse"
    by = f" by more than {rules.margin:g}" if rules.margin else ""
    asks = f"{metric}: {'not behind' if less else 'ahead'}{by}, {rules.confidence:.0%} sure"
    if away.low is None:
        return Gate("metric", asks, away.note or "no interval", False)
    ahead = away.low > bound if rules.mode == "better" else away.low >= bound
    return Gate("metric", asks, _told(away), bool(ahead))


def _sliced(rules: Gates, pair: Paired, metric: str) -> Iterator[Gate]:
    """A gate for each column: its worst level, and how many could not be judged."""
    levels = [(column, *by_level(values)) for column, values in pair.left.slices.items()]
    judged = sum(at.sum() >= SMALL_SLICE for _, groups, _ in levels for _, at in groups)
    sure = 1 - (1 - rules.confidence) / max(judged, 1)
    for column, groups, left_out in levels:
        found = [(name, _ahead(pair, metric, sure, at)) for name, at in groups
                 if at.sum() >= SMALL_SLICE]
        known = [(name, away) for name, away in found if away.high is not None]
        aside = len(groups) - len(known) + left_out
        rest = f"; not judged, for too few rows or one class: {aside:,}" if aside else ""
        more = f" by more than {rules.slice_margin:g}" if rules.slice_margin else ""
        asks = f"{metric}: in no level behind{more} beyond chance"
        if not known:
            yield Gate(f"slice {column}", asks, f"no level could be judged{rest}", None)
            continue
        behind = [n for n, away in known
                  if away.high is not None and away.high < -rules.slice_margin]
        name, worst = min(known, key=lambda k: k[1].high or 0.0)
        yield Gate(f"slice {column}", asks,
                   f"{len(behind)} of {len(known)} levels behind; the worst is {name!r}: "
                   f"{_told(worst)}{rest}", not behind)


def _calibration(rules: Gates, pair: Paired) -> Gate:
    asks = "log_loss: not behind beyond chance"
    if pair.task not in OF_CLASSES:
        return Gate("calibration", asks, f"a {pair.task} has no probabilities", None)
    away = _ahead(pair, "log_loss", rules.confidence)
    if away.high is None:
        return Gate("calibration", asks, away.note or "no interval", False)
    return Gate("calibration", asks, _told(away), away.high >= 0)


def _latency(limit: float, champion: Bundle, challenger: Bundle) -> Gate:
    theirs, mine = single_row([champion, challenger], calls=LATENCY_CALLS)
    ratio = mine["median"] / theirs["median"]
    return Gate("latency", f"one row: at most {limit:g} times the champion's time",
                f"{ratio:.2f} times: {mine['median'] * 1e6:,.0f} us, the champion "
                f"{theirs['median'] * 1e6:,.0f} us (medians of {mine['calls']} calls in turn)",
                ratio <= limit)


def _drift(path: Path) -> Gate:
    asks = "drift: no alert"
    try:
        verdict = json.loads(path.read_bytes())
        state, firing = verdict["state"], verdict.get("firing", False)
    except OSError as error:
        raise ConfigError(f"the drift verdict cannot be read: {error.strerror or error}",
                          where=str(path), hint="`gpupipe monitor` writes one") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError("expected a JSON object with a 'state'", where=str(path),
                        hint="`gpupipe monitor` writes one") from None
    if state == "insufficient":
        return Gate("drift", asks, f"{path}: too few rows to say", False)
    return Gate("drift", asks, f"{path}: {state}{', an alert fires' if firing else ''}",
                state in PASSING_STATES and firing is False)


def _ahead(pair: Paired, metric: str, sure: float, part: np.ndarray | None = None) -> Score:
    """How much better the challenger is, whichever way the metric goes, with its interval."""
    at: Any = slice(None) if part is None else part
    champion, challenger = pair.predictions(metric, at)
    weight = None if pair.weight is None else pair.weight[at]
    if weight is not None and not weight.sum():
        return Score(None, note="undefined: all rows have weight 0")
    needed = int(2 * TAIL / (1 - sure))
    away = paired_differences(
        pair.task, [metric], pair.y[at], challenger, champion, weight=weight, confidence=sure,
        resamples=min(max(RESAMPLES, needed), MOST_RESAMPLES),
        units=UNITS if part is None else UNITS // 4)[metric]
    if METRICS[pair.task, metric].greater_is_better or away.value is None:
        return away
    value, low, high = (None if v is None else -v for v in (away.value, away.high, away.low))
    return Score(value, low, high, away.note)


def _told(away: Score) -> str:
    span = "" if away.low is None or away.high is None else \
        f" ({away.low:+.4g} to {away.high:+.4g})"
    return "undefined" if away.value is None else f"{away.value:+.4g}{span}"
