"""The report's account of calibration, threshold and intervals: a sentence, a table, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpupipe.evaluate.figures import UNIT, Figure
from gpupipe.evaluate.metrics import METRICS
from gpupipe.evaluate.svg import Plot, short
from gpupipe.evaluate.text import score

Json = Mapping[str, Any]
NAMES = {"log_loss": "log loss", "brier_score_loss": "Brier score",
         "ece": "expected calibration error", "cost": "mean cost of a row"}


@dataclass(frozen=True)
class Account:
    """One of them. ``rows`` are texts, under ``columns``; the first of a row is its heading."""

    title: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Sequence[Figure]


def accounts(data: Json) -> list[Account]:
    """What there is of the report's ``calibration``, ``decision`` and ``intervals``."""
    makers = {"calibration": _calibration, "decision": _decision, "intervals": _intervals}
    return [make(data[name]) for name, make in makers.items() if data.get(name)]


def _calibration(found: Json) -> Account:
    rows = []
    parts = {"out of fold": found["out_of_fold"], "holdout": found.get("holdout")}
    for part, one in parts.items():
        for name in ("log_loss", "brier_score_loss", "ece") if one else ():
            gain = one["difference"].get(name) or {}
            rows.append([f"{NAMES[name]}, {part}", score(one["before"][name]),
                         score(one["after"][name]), _change(gain)])
    shown = found.get("holdout") or found["out_of_fold"]
    title = found["method"] if found["applied"] else "none"
    return Account(f"Calibration: {title}", found["text"],
                   ["loss", "before", "after", "change"], rows,
                   [_reliability(shown, "holdout" if found.get("holdout") else "out of fold")])


def _change(difference: Json) -> str:
    value, low, high = (difference.get(k) for k in ("value", "low", "high"))
    if value is None:
        return ""
    return f"{value:+.3g}" if low is None else f"{value:+.3g} ({low:+.3g} to {high:+.3g})"


def _reliability(found: Json, part: str) -> Figure:
    plot = Plot(UNIT, UNIT, title="Calibration before and after",
                x_label="predicted probability", y_label="observed share")
    plot.rule((0, 0), (1, 1))
    for side, css in (("before", "s1"), ("after", "s0")):
        bins = found["curves"][side]["bins"]
        for b in bins:
            plot.whisker(b["predicted"], b["low"], b["high"], css)
        plot.line([b["predicted"] for b in bins], [b["observed"] for b in bins], f"{css} thin")
        plot.points([b["predicted"] for b in bins], [b["observed"] for b in bins], css)
    legend = [(css, side, f"{found[side]['ece']:.4f}") for css, side in
              (("s1", "before"), ("s0", "after"))]
    return Figure("Before and after", plot.render(), legend,
                  f"The {part} rows; beside each name its mean gap.")


def _decision(found: Json) -> Account:
    rows = []
    for name, one in (found.get("brings") or {}).items():
        rows.append([_named(name), score(one["usual"]), score(one["chosen"]),
                     _change(one["difference"])])
    drawn = [_swept(found)] if found.get("curve") else []
    return Account(f"Threshold: {found['threshold']:.4g}", found["text"],
                   ["out of fold", "at 0.5", "at the threshold", "change"], rows, drawn)


def _named(name: str) -> str:
    known = METRICS.get(("binary", name))
    return known.title if known else NAMES.get(name, name)


def _swept(found: Json) -> Figure:
    at, chosen = found["curve"]["threshold"], found["threshold"]
    series = found["curve"]["values"]
    defined = [v for values in series.values() for v in values if v is not None]
    room = (max(defined) - min(defined)) * 0.05 or 0.05
    span = min(defined) - room, max(defined) + room
    plot = Plot(UNIT, span, title="By threshold", x_label="threshold",
                y_label=_named(found["lead"]) if len(series) == 1 else "")
    plot.rule((chosen, span[0]), (chosen, span[1]))
    for i, values in enumerate(series.values()):
        known = [(x, v) for x, v in zip(at, values, strict=True) if v is not None]
        plot.line([x for x, _ in known], [v for _, v in known], f"s{i}")
    plot.points([chosen], [found["best"][found["lead"]]], "s0")
    legend = [(f"s{i}", _named(n), f"{found['best'][n]:.4g}") for i, n in enumerate(series)]
    theory = found.get("theory")
    also = "" if theory is None else f" Of exact probabilities it would be {theory:.4g}."
    return Figure("By threshold", plot.render(), legend,
                  f"The out-of-fold rows; chosen: {chosen:.4g}.{also}")


def _intervals(found: Json) -> Account:
    sets = found.get("sets") is not None
    size = "number of labels" if sets else "width"
    rows = [["promised coverage", f"{found['coverage']:.4g}"],
            [f"measured coverage, {found['measured_on']}",
             f"{found['measured']:.4f} ± {found['standard_error']:.4f}"],
            ["rows measured", f"{found['rows']:,}"],
            ["rows that the margin comes from", f"{found['calibration_rows']:,}"],
            [f"mean {size}", score(found["mean_size"])],
            [f"median {size}", score(found["median_size"])]]
    if not sets:
        beyond = "quantiles" if found["method"] == "cqr" else "prediction"
        rows.append([f"reach beyond the {beyond}", score(found["margin"])])
    rows += [[f"rows with {k} label{'' if k == 1 else 's'}", f"{share:.1%}"]
             for k, share in enumerate(found.get("sizes") or ()) if share > 0]
    return Account(f"{'Sets' if sets else 'Intervals'}: {found['method']}", found["text"],
                   ["", "value"], rows,
                   [_coverage(found), _sizes(found["deciles"], f"mean {size}")])


def _coverage(found: Json) -> Figure:
    deciles, promised = found["deciles"], found["coverage"]
    ends = [d["measured"] + side * 2 * d["standard_error"] for d in deciles for side in (-1, 1)]
    low = max(0.0, min(*ends, promised) - 0.02)
    high = min(1.0, max(*ends, promised) + 0.02)
    plot = Plot((0.5, 10.5), (low, high), title="Coverage by decile",
                x_label="tenth of the rows, by prediction", y_label="covered", x_ticks=10,
                percent="y")
    plot.rule((0.5, promised), (10.5, promised))
    for d in deciles:
        plot.whisker(d["decile"], max(low, d["measured"] - 2 * d["standard_error"]),
                     min(high, d["measured"] + 2 * d["standard_error"]), "s0")
    plot.points([d["decile"] for d in deciles], [d["measured"] for d in deciles], "s0")
    least = min(deciles, key=lambda d: d["measured"])
    return Figure("Coverage by decile", plot.render(), caption="With two standard errors. What is "
                  f"promised holds over all rows; the least, {least['measured']:.1%}, is of "
                  f"tenth {least['decile']}.")


def _sizes(deciles: Sequence[Json], label: str) -> Figure:
    top = max(d["mean_size"] for d in deciles) or 1
    plot = Plot((0.5, 10.5), (0, top * 1.08), title=f"{label} by decile",
                x_label="tenth of the rows, by prediction", y_label=label, x_ticks=10)
    for d in deciles:
        plot.bars([d["decile"] - 0.36, d["decile"] + 0.36], [d["mean_size"]], "s0")
    sizes = [d["mean_size"] for d in deciles]
    return Figure("Size by decile", plot.render(), caption=f"From {short(min(sizes))} to "
                  f"{short(max(sizes))}.")
