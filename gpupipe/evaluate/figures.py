"""The report's figures: each turns one entry of the ``curves`` section into a titled plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from gpupipe.evaluate.svg import Plot, short
from gpupipe.evaluate.text import cut

UNIT = (0.0, 1.0)
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A plot with its heading, a legend of (CSS class, name, value), and one line below."""

    title: str
    svg: Markup
    legend: list[tuple[str, str, str]] = field(default_factory=list)
    caption: str = ""


def figures(curves: Json, learning: Json | None) -> list[Figure]:
    """The figures for whatever ``curves`` holds, in the order of a reader's questions."""
    from gpupipe.evaluate.found_figures import MAKERS

    makers: dict[str, Callable[[Any], Figure]] = {
        "roc": _roc, "precision_recall": _precision_recall, "calibration": _calibration,
        "score_histogram": _scores, "gain": _gain, "predicted_actual": _predicted,
        "residual_predicted": _residual, "residual_histogram": _residuals, "deciles": _deciles,
        **MAKERS,
    }
    found = [make(curves[name]) for name, make in makers.items() if curves.get(name)]
    if learning and (learning.get("train") or learning.get("valid")):
        found.append(_learning(learning))
    return found


def _roc(series: Sequence[Json]) -> Figure:
    plot = Plot(UNIT, UNIT, title="ROC curve", x_label="false positive rate",
                y_label="true positive rate")
    plot.rule((0, 0), (1, 1))
    if len(series) == 1:
        plot.area(series[0]["fpr"], series[0]["tpr"], "s0")
    for i, one in reversed(list(enumerate(series))):
        plot.line(one["fpr"], one["tpr"], f"s{i % 8}")
    legend = [(f"s{i % 8}", str(one["name"]), f"{one['auc']:.3f}") for i, one in enumerate(series)]
    if len(series) == 1:
        return Figure("ROC", plot.render(), caption=f"Area {series[0]['auc']:.4f}; a coin has 0.5.")
    return Figure("ROC, each class against the rest", plot.render(), legend,
                  "The area beside each name; a coin has 0.5.")


def _precision_recall(data: Json) -> Figure:
    plot = Plot(UNIT, UNIT, title="Precision-recall curve", x_label="recall", y_label="precision")
    plot.rule((0, data["base_rate"]), (1, data["base_rate"]))
    plot.area(data["recall"], data["precision"], "s0")
    plot.line(data["recall"], data["precision"], "s0")
    return Figure("Precision and recall", plot.render(),
                  caption=f"A coin's precision is the base rate, {data['base_rate']:.1%}.")


def _calibration(data: Json) -> Figure:
    plot = Plot(UNIT, UNIT, title="Calibration", x_label="predicted probability",
                y_label="observed share")
    plot.rule((0, 0), (1, 1))
    bins = data["bins"]
    for b in bins:
        plot.whisker(b["predicted"], b["low"], b["high"], "s0")
    plot.line([b["predicted"] for b in bins], [b["observed"] for b in bins], "s0 thin")
    plot.points([b["predicted"] for b in bins], [b["observed"] for b in bins], "s0")
    rows = [b["rows"] for b in bins]
    count = f"{min(rows):,} to {max(rows):,}" if min(rows) < max(rows) else f"{rows[0]:,}"
    return Figure("Calibration", plot.render(), caption=f"{len(bins)} bins of {count} rows with "
                  f"95% Wilson intervals; mean gap {data['ece']:.4f}.")


def _scores(data: Json) -> Figure:
    shares = []
    for one in data["series"]:
        total = sum(one["counts"]) or 1
        shares.append([c / total for c in one["counts"]])
    top = max((v for s in shares for v in s), default=1) or 1
    plot = Plot(UNIT, (0, top * 1.05), title="Scores by class", x_label="predicted probability",
                y_label="share of the class", percent="y")
    for share, css in zip(shares, ("s1", "s0"), strict=False):
        plot.bars(data["edges"], share, f"{css} half")
    named = zip(("s1", "s0"), data["series"], strict=False)
    return Figure("Scores", plot.render(), [(css, str(one["name"]), "") for css, one in named])


def _gain(data: Json) -> Figure:
    plot = Plot(UNIT, UNIT, title="Gain curve", x_label="share of rows, best scored first",
                y_label="share of positives found", percent="xy")
    plot.rule((0, 0), (1, 1))
    base = data.get("base_rate", 0)
    if base:
        plot.rule((0, 0), (base, 1))
    plot.area(data["share"], data["found"], "s0")
    plot.line(data["share"], data["found"], "s0")
    tenth = data["found"][10]
    return Figure("Gain", plot.render(), caption=f"The top 10% of rows hold {tenth:.1%} of the "
                  f"positives: a lift of {data['lift'][10]:.2f}.")


def _predicted(data: Json) -> Figure:
    span = tuple(data["x"])
    plot = Plot(span, tuple(data["y"]), title="Actual against predicted", x_label="predicted",
                y_label="actual")
    plot.cells(data["counts"], "s0")
    plot.rule((span[0], span[0]), (span[1], span[1]))
    return Figure("Actual against predicted", plot.render(), caption=_outside(data))


def _residual(data: Json) -> Figure:
    plot = Plot(tuple(data["x"]), tuple(data["y"]), title="Residuals against predictions",
                x_label="predicted", y_label="predicted − actual")
    plot.cells(data["counts"], "s0")
    plot.rule((data["x"][0], 0), (data["x"][1], 0))
    return Figure("Residuals", plot.render(), caption=_outside(data))


def _residuals(data: Json) -> Figure:
    top = max(data["counts"], default=1) or 1
    span = (data["edges"][0], data["edges"][-1])
    plot = Plot(span, (0, top * 1.05), title="Distribution of residuals",
                x_label="predicted − actual", y_label="rows")
    plot.bars(data["edges"], data["counts"], "s0")
    plot.rule((0, 0), (0, top * 1.05))
    return Figure("Distribution of residuals", plot.render(), caption=_outside(data))


def _outside(data: Json) -> str:
    share = data.get("outside", 0)
    return f"{share:.2%} of the rows lie outside the frame." if share > 0 else ""


def _deciles(rows: Sequence[Json]) -> Figure:
    top = max((r["absolute_error"] for r in rows), default=1) or 1
    plot = Plot((0.5, len(rows) + 0.5), (0, top * 1.08), title="Mean absolute error by decile",
                x_label="tenth of the rows, by prediction", y_label="mean absolute error",
                x_ticks=len(rows))
    for r in rows:
        at = r["decile"]
        plot.bars([at - 0.36, at + 0.36], [r["absolute_error"]], "s0")
    first, last = rows[0], rows[-1]
    return Figure("Error by decile", plot.render(), caption=f"Bias {short(first['bias'])} in the "
                  f"lowest tenth, {short(last['bias'])} in the highest.")


def _learning(data: Json) -> Figure:
    named = [(css, name, data[key]) for css, key, name in
             (("s1", "train", "training rows"), ("s0", "valid", "held-out fold")) if data.get(key)]
    points, every = max(len(values) for _, _, values in named), data.get("every") or 1
    # The first rounds fall far; the plot shows what comes after a twentieth of them.
    shown = [v for _, _, values in named for v in values[points // 20 :]]
    low, high = min(shown), max(shown)
    room = (high - low) * 0.06
    plot = Plot((0, points * every), (low - room, high + room), title="Learning curve",
                x_label="boosting round", y_label=cut(data.get("metric") or "loss", 30))
    for css, _, values in named:
        step = max(1, len(values) // 300)
        at = [i for i in range(0, len(values), step) if low - room <= values[i] <= high + room]
        plot.line([(i + 1) * every for i in at], [values[i] for i in at], css)
    best = data.get("best")
    caption = ""
    if best is not None:
        plot.rule((best, low - room), (best, high + room))
        caption = f"Best at round {best:,}."
        values = data.get("valid") or []
        if 0 < best <= len(values) * every and best % every == 0:
            plot.points([best], [values[best // every - 1]], "s0")
    legend = [(css, name, "") for css, name, _ in named]
    return Figure("Learning curve", plot.render(), legend, caption)
