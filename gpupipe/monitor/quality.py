"""How good the predictions were, once labels come; and how good they seem, while they do not.

`Quality` judges the rows whose label is known by window and slice, holds the estimates without
labels against them, and looks for when the errors changed and where they are worst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gpupipe.config.monitor import MonitorConfig
from gpupipe.evaluate.explain_search import cut_of
from gpupipe.evaluate.explain_slices import worst_slices
from gpupipe.evaluate.metrics import METRICS, choose
from gpupipe.evaluate.scores import SLICE_METRICS, evaluate
from gpupipe.monitor.counts import Counts
from gpupipe.monitor.detectors import changes
from gpupipe.monitor.estimates import ESTIMATED, Estimator, cells_of
from gpupipe.monitor.judge import ALERT, INSUFFICIENT, OK, WARN, worst_of
from gpupipe.monitor.labels import Labels
from gpupipe.monitor.matured import Matured, joined
from gpupipe.monitor.reference import CONFIDENCE, PREDICTION, Reference
from gpupipe.monitor.scan import ROWS, Observed, Scan
from gpupipe.monitor.windows import Windows

TASKS = ("binary", "multiclass", "regression")
BACKTESTED = 5
"""The newest windows with labels that say whether an estimate is to be relied on."""
HELD = 0.8
"""Of these the share in which the estimate must hold."""
HOUR = 3_600_000_000


@dataclass(frozen=True)
class Quality:
    """Judges predictions by their labels, and by what they say of themselves."""

    scan: Scan
    reference: Reference
    config: MonitorConfig
    windows: Windows
    factor: int
    matured: Matured | None
    labels: Labels | None = None

    @property
    def task(self) -> Any:
        return self.scan.bundle.task

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics, the one that decides first."""
        names = self.config.metrics or self.scan.bundle.info["metrics"]
        return [m.name for m in choose(self.task, names)]

    @cached_property
    def estimator(self) -> Estimator | None:
        predicted = self.reference.predicted
        if predicted is None:
            return None
        return Estimator(self.task, predicted["judged"], self.scan.bundle.threshold)

    def found(self, observed: Observed) -> dict[str, Any]:
        """All that is told of quality, as JSON data; ``observed`` is in the windows' own cut."""
        windows = {str(w): self._window(w, observed) for w in observed.windows()}
        reliable = self._reliable(list(windows.values()))
        for own in windows.values():
            self._state(own, reliable)
        made: dict[str, Any] = {
            "metrics": self.metrics, "windows": windows, "reliable": reliable,
            "reference": dict((self.reference.predicted or {}).get("metrics") or {}),
        }
        if self.matured is not None:
            made["labels"] = self._labels(observed)
            made["changes"] = self._changes()
            made["worst_slices"] = self._worst()
        return made

    def _window(self, window: int, observed: Observed) -> dict[str, Any]:
        total = int(observed.counts[ROWS].of_group(window, 0)[1].sum())
        scored = observed.counts.get(self._scored, Counts()).of_group(window, 0)
        own: dict[str, Any] = {"rows": total, "labelled": 0, "coverage": 0.0,
                               "estimated": self._estimated(*scored)}
        mine = self._in(window)
        if len(mine):
            assert self.matured is not None
            own["labelled"], own["coverage"] = len(mine), len(mine) / max(total, 1)
            own["scores"] = self._scores(mine)
            if len(mine) >= self.config.least:
                scores = self.matured.scores[mine]
                own["backtest"] = self._estimated(*cells_of(
                    scores if scores.ndim == 1 else scores.max(axis=1)))
            own["slices"] = self._slices(mine)
        return own

    @property
    def _scored(self) -> str:
        return CONFIDENCE if self.task == "multiclass" else PREDICTION

    def _estimated(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
        if self.estimator is None or counts.sum() < self.config.least:
            return {}
        wanted = [m for m in self.metrics if m in ESTIMATED.get(self.task, self.metrics)]
        wanted = wanted or list(ESTIMATED[self.task])
        found = self.estimator.estimate(cells, counts, wanted)
        return {name: e.to_json() for name, e in found.items()}

    def _in(self, window: int) -> np.ndarray:
        if self.matured is None:
            return np.empty(0, np.int64)
        return np.flatnonzero(self.matured.window // self.factor == window)

    def _scores(self, rows: np.ndarray, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Each metric of some rows, with its interval."""
        assert self.matured is not None
        y, scores = self.matured.y[rows], self.matured.scores[rows]
        labels = None
        if self.task == "binary":
            labels = (scores > self.scan.bundle.threshold).astype(np.float64)
        if self.task != "regression":
            y = y.astype(np.int64)
        found = evaluate(
            self.task, y, scores, metrics=list(names or self.metrics), labels=labels,
            classes=self.scan.bundle.classes, confidence=1 - 2 * self.config.false_alarms,
            resamples=400, units=2048)
        return {name: s.to_json() for name, s in found.items()}

    def _slices(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """The metrics in each slice of enough rows."""
        assert self.matured is not None
        wanted = [m for m in SLICE_METRICS[self.task] if m in self.metrics] or self.metrics[:1]
        found = []
        for at, slicing in enumerate(self.scan.slicings):
            codes = self.matured.slices[rows, at] - slicing.first
            for code, name in enumerate(slicing.names):
                mine = rows[codes == code]
                if len(mine):
                    enough = len(mine) >= self.config.least
                    found.append({"slice": name, "labelled": len(mine),
                                  "state": None if enough else INSUFFICIENT,
                                  "scores": self._scores(mine, wanted) if enough else {}})
        return found

    # States ------------------------------------------------------------------------------------

    def _limits(self, name: str) -> tuple[float, float, bool] | None:
        """From where on a metric is warned of, and an alert; and whether greater is better."""
        reference = ((self.reference.predicted or {}).get("metrics") or {}).get(name)
        if reference is None:
            return None
        better = METRICS[self.task, name].greater_is_better
        step = self.config.fall * abs(reference) * (-1 if better else 1)
        return reference + step / 2, reference + step, better

    def _judged(self, name: str, low: float | None, high: float | None) -> str:
        limits = self._limits(name)
        if limits is None or low is None or high is None:
            return INSUFFICIENT
        warn, alert, better = limits
        off = [high < limit if better else low > limit for limit in (alert, warn)]
        return ALERT if off[0] else WARN if off[1] else OK

    def _state(self, own: dict[str, Any], reliable: Mapping[str, Any]) -> None:
        """The state of a window by its labels; where few are there yet, by its estimate."""
        headline, findings = self.metrics[0], []
        states = []
        if own["labelled"] >= self.config.least:
            score = own["scores"][headline]
            state = self._judged(headline, score["low"], score["high"])
            states.append(state)
            if state in (ALERT, WARN):
                findings.append(self._finding("quality", state, headline, score, None))
            for slice_ in own.get("slices", ()):
                if slice_["state"] is None:
                    score = slice_["scores"].get(headline) or {}
                    slice_["state"] = self._judged(headline, score.get("low"), score.get("high"))
                    if slice_["state"] in (ALERT, WARN):
                        findings.append(self._finding("quality", slice_["state"], headline, score,
                                                      slice_["slice"]))
        elif own["estimated"].get(headline) and reliable["reliable"] is True:
            # An estimate can warn; an alert takes labels.
            score = own["estimated"][headline]
            state = self._judged(headline, score["low"], score["high"])
            state = WARN if state == ALERT else state
            states.append(state)
            if state == WARN:
                findings.append(self._finding("estimate", state, headline, score, None))
        own["state"], own["findings"] = worst_of(states), findings

    def _finding(
        self, kind: str, state: str | None, metric: str, score: Mapping[str, Any],
        slice_: str | None,
    ) -> dict[str, Any]:
        reference = (self.reference.predicted or {}).get("metrics", {}).get(metric)
        where = f" where {slice_}" if slice_ else ""
        what = "is estimated at" if kind == "estimate" else "is"
        text = (f"{metric}{where} {what} {score['value']:.4g} ({score['low']:.4g} to "
                f"{score['high']:.4g}); out of fold it was {reference:.4g}")
        return {"state": state, "kind": kind, "measure": metric, "slice": slice_,
                "column": None, "value": score["value"], "text": text}

    def _reliable(self, windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Whether the estimates are to be relied on here: held against labels, newest windows.

        An estimate holds in a window where it lies within the interval of the metric on the same
        rows, or misses it by less than what warns.
        """
        headline = self.metrics[0]
        tested: list[bool] = []
        for own in windows:
            score = own.get("scores", {}).get(headline, {})
            estimate = own.get("backtest", {}).get(headline)
            if estimate is None or score.get("low") is None:
                continue
            limits = self._limits(headline)
            slack = 0.0 if limits is None else abs(limits[0] - limits[1]) / 2
            tested.append(score["low"] - slack <= estimate["value"] <= score["high"] + slack)
        newest = tested[-BACKTESTED:]
        held = float(np.mean(newest)) if newest else None
        return {"reliable": None if held is None else held >= HELD, "metric": headline,
                "windows": len(newest), "held": held,
                "text": "no window has labels to hold the estimate against" if held is None else
                f"{'reliable' if held >= HELD else 'not reliable'}: in {sum(newest)} of the "
                f"{len(newest)} newest windows with labels the estimate held"}

    # What became of the errors -------------------------------------------------------------------

    def _labels(self, observed: Observed) -> dict[str, Any]:
        matured, labels = self.matured, self.labels
        assert matured is not None
        rows = int(sum(observed.counts[ROWS].of_group(w, 0)[1].sum() for w in observed.windows()))
        made: dict[str, Any] = {"predictions": rows, "labelled": len(matured.y),
                                "coverage": len(matured.y) / max(rows, 1),
                                "predictions_twice": matured.twice,
                                "predictions_in_conflict": matured.torn}
        if labels is not None:
            made |= {"rows": labels.rows, "duplicates": labels.duplicates,
                     "conflicts": labels.conflicts, "examples": list(labels.examples),
                     "without_prediction": len(labels.ids) - len(matured.y) - matured.torn}
        if matured.lag is not None:
            hours = np.quantile(matured.lag, [0.5, 0.9, 1.0]) / HOUR
            made["lag_hours"] = dict(zip(("median", "p90", "greatest"), hours.tolist(),
                                         strict=True))
        return made

    @cached_property
    def errors(self) -> np.ndarray:
        """Each row's error: 1 for a wrong label, or the absolute error. In the order of time."""
        assert self.matured is not None
        y, scores = self.matured.y, self.matured.scores
        if self.task == "regression":
            return np.abs(scores - y)
        said = scores > self.scan.bundle.threshold if scores.ndim == 1 else scores.argmax(axis=1)
        return (said != y).astype(np.float64)

    def _changes(self) -> list[dict[str, Any]]:
        """When the errors changed, by ADWIN and by the Page-Hinkley test."""
        assert self.matured is not None
        found = []
        for one in changes(self.errors):
            window = int(self.matured.window[one.at]) // self.factor
            moment = int(self.matured.order[one.at])
            timed = self.windows.by == "time"
            found.append({
                "by": one.by, "row": one.at, "window": window, "before": one.before,
                "at": str(np.datetime64(moment, "us"))[:19] + "Z" if timed else str(moment),
                "after": one.after, "risen": one.risen})
        return found

    def _worst(self) -> dict[str, Any] | None:
        """The slices in which the model is worst, beyond chance: of one column or two."""
        matured = self.matured
        assert matured is not None
        if matured.sample is None or matured.sampled is None or len(matured.sampled) < 200:
            return None
        cuts = [cut_of(c, matured.sample.column(c)) for c in matured.sample.column_names]
        y, scores = matured.y[matured.sampled], matured.scores[matured.sampled]
        if self.task != "regression":
            y = y.astype(np.int64)
        return worst_slices(self.task, y, scores, cuts, shown=5)


def quality_of(
    scan: Scan, reference: Reference, config: MonitorConfig, observed: Observed, windows: Windows,
    factor: int, labels: Labels | None,
) -> dict[str, Any]:
    """What labels and estimates say of the predictions; empty where neither can be had."""
    bundle = scan.bundle
    target = bundle.info["target"]
    if bundle.task not in TASKS or target is None:
        return {}
    rows = sum(p.dataset.rows for p in scan.pieces)
    matured = joined(scan, labels, target, rows)
    return Quality(scan, reference, config, windows, factor, matured, labels).found(observed)
