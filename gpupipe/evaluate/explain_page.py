"""The report's section on explanations: what the template is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.evaluate.explain_marks import axis, dust, hairlines, shade, strip, widened
from gpupipe.evaluate.figures import Figure
from gpupipe.evaluate.svg import Plot, short
from gpupipe.evaluate.text import cut

SHOWN_COLUMNS = 25
"""Columns in the table of importances."""
CLASSES = 8
"""Classes that have a colour of their own."""
DAY = 86_400e6
BASES = {"holdout": "holdout rows", "cross_validation": "out-of-fold rows",
         "training": "training rows"}
Json = Mapping[str, Any]


def explained(data: Json | None) -> dict[str, Any] | None:
    """The view of an ``explanations`` section; None where there is none."""
    if not data:
        return None
    shap, permutation = data.get("shap"), data.get("permutation")
    rows, of = data.get("rows") or 0, data.get("of") or 0
    return {
        "basis": BASES.get(str(data.get("basis")), "rows"), "notes": data.get("notes") or [],
        "rows": rows, "of": of if of > rows else None,
        "importance": _importance(shap, permutation),
        "classes": _legend(data) if shap and _several(shap) else [],
        "permutation": permutation, "shap": shap,
        "scale": _unit(data) if shap else "", "related": (data.get("related") or [])[:12],
        "swarm": _swarm(shap, _unit(data)) if shap and not _several(shap) else None,
        "dependence": [_column(data, one) for one in data.get("dependence") or []],
        "slices": data.get("slices") or {}, "mistakes": data.get("mistakes"),
        "task": data.get("task"),
    }


def _several(shap: Json) -> bool:
    return any("parts" in c for c in shap["columns"])


def _unit(data: Json) -> str:
    """What SHAP values are in, for an axis."""
    scale = (data.get("shap") or {}).get("scale", "")
    classes = data.get("classes") or []
    if scale == "target":
        return f"moves {cut(data.get('target', 'the target'), 24)} by"
    if scale.startswith("log ") and scale != "log-odds":
        return "moves the logarithm of the prediction by"
    binary = data.get("task") == "binary" and len(classes) == 2
    return f"moves the {scale} of {cut(classes[1], 20)} by" if binary else f"moves the {scale} by"


def _legend(data: Json) -> list[tuple[str, str]]:
    classes = data.get("classes") or []
    return [(f"s{i}", str(c)) for i, c in enumerate(classes[:CLASSES])]


def _importance(shap: Json | None, permutation: Json | None) -> dict[str, Any] | None:
    """One row a column: its mean SHAP value as a bar, its drop as a dot with a whisker."""
    drops = {c["column"]: c for c in (permutation or {}).get("columns") or []}
    sizes = {c["column"]: c for c in (shap or {}).get("columns") or []}
    order = list(sizes) or list(drops)
    if not order:
        return None
    most = max((c["size"] for c in sizes.values()), default=0) or 1
    known = [c for c in drops.values() if c.get("drop") is not None]
    low = min([0.0, *(c["drop"] - c["spread"] for c in known)])
    high = max([0.0, *(c["drop"] + c["spread"] for c in known)])
    span = widened(low, high)
    rows = []
    for name in order[:SHOWN_COLUMNS]:
        size, drop = sizes.get(name), drops.get(name)
        rows.append({
            "column": name, "size": size and size["size"],
            "bars": _bars(size, most) if size else [], "drop": drop and drop.get("drop"),
            "spread": drop and drop.get("spread"),
            "track": _drop(drop, span) if drop and drop.get("drop") is not None else None,
        })
    return {"rows": rows, "more": max(0, len(order) - SHOWN_COLUMNS)}


def _bars(size: Json, most: float) -> list[tuple[str, float]]:
    """(class, width in percent) of a bar, or of its parts by class."""
    if "parts" not in size:
        return [("s0", round(100 * size["size"] / most, 2))]
    shown = [(f"s{i % CLASSES}", round(100 * p / most, 2))
             for i, p in enumerate(size["parts"][:CLASSES])]
    rest = sum(size["parts"][CLASSES:])
    return [*shown, ("faint", round(100 * rest / most, 2))] if rest else shown


def _drop(drop: Json, span: tuple[float, float]) -> dict[str, Any]:
    def at(value: float) -> float:
        return round(100 * (value - span[0]) / (span[1] - span[0]), 2)

    low, high = at(drop["drop"] - drop["spread"]), at(drop["drop"] + drop["spread"])
    return {"at": at(drop["drop"]), "low": low, "width": round(high - low, 2), "ref": at(0.0),
            "off": None}


def _swarm(shap: Json, unit: str) -> dict[str, Any] | None:
    features = [f for f in shap["features"] if f.get("shap") and f["size"] > 0]
    if not features:
        return None
    values = [v for f in features for v in f["shap"]]
    span = widened(min(values), max(values))
    rows = [{
        "feature": f["feature"], "size": f["size"],
        "svg": strip([(v, shade(r)) for v, r in zip(f["shap"], f["rank"], strict=True)], span,
                     f"SHAP values of {cut(f['feature'], 40)}"),
    } for f in features]
    return {"rows": rows, "axis": axis(span, unit), "others": shap.get("others"),
            "kind": "column" if shap.get("method") == "sampled" else "feature"}


def _column(data: Json, one: Json) -> dict[str, Any]:
    """The pictures of one column: plots for numbers, strips by level for categories."""
    shown: dict[str, Any] = {"column": one["column"], "missing": one.get("missing"),
                             "at_missing": None, "figures": [], "levels": None,
                             "classes": _legend(data) if _by_class(one) else []}
    if not _by_class(one) and one.get("at_missing"):
        shown["at_missing"] = one["at_missing"][0]
    if one["numeric"]:
        shown["figures"] = _numeric(data, one)
    else:
        shown["levels"] = _levels(data, one)
    return shown


def _by_class(one: Json) -> bool:
    return bool(one["mean"]) and isinstance(one["mean"][0], list)


def _axis_of(one: Json) -> tuple[list[float], str]:
    """Positions on the x axis and its label; moments are days after the first."""
    if not one.get("moments"):
        return list(one["at"]), cut(one["column"], 40)
    return [(v - one["at"][0]) / DAY for v in one["at"]], f"days from {one['labels'][0][:10]}"


def _prediction(data: Json) -> str:
    classes = data.get("classes") or []
    if data.get("task") == "binary" and len(classes) == 2:
        return f"P({cut(classes[1], 18)})"
    return "probability" if classes else cut(data.get("target", "prediction"), 24)


def _numeric(data: Json, one: Json) -> list[Figure]:
    at, label = _axis_of(one)
    span = (min(at), max(at))
    if _by_class(one):
        by_class = [_classes(data, one, at, label, span)]
        return [*by_class, _scattered(data, one, at, label, span)] if one.get("shap") else by_class
    mean, lines = one["mean"], one.get("lines") or []
    low, high = (f([*mean, *(v for line in lines for v in line)]) for f in (min, max))
    name = _prediction(data)
    plot = Plot(span, widened(low, high, False), x_label=label, y_label=name,
                title=f"Partial dependence of {name} on {cut(one['column'], 40)}")
    hairlines(plot, at, lines)
    plot.line(at, mean, "s0 strong")
    found = [Figure("Partial dependence", plot.render(), caption=f"Mean prediction of "
                    f"{one['rows']:,} rows (thick), and {len(lines)} of them (thin), as the "
                    "column alone is changed.")]
    if lines:
        centred = [[v - line[0] for v in line] for line in lines]
        middle = [v - mean[0] for v in mean]
        low, high = (f([*middle, *(v for line in centred for v in line)]) for f in (min, max))
        plot = Plot(span, widened(low, high), x_label=label, y_label=f"change of {name}",
                    title=f"Centred ICE curves of {cut(one['column'], 40)}")
        hairlines(plot, at, centred)
        plot.rule((span[0], 0), (span[1], 0))
        plot.line(at, middle, "s0 strong")
        found.append(Figure("Centred ICE", plot.render(), caption="The same lines from one start: "
                            "where they part, the column acts together with others."))
    if one.get("shap"):
        found.append(_scattered(data, one, at, label, span))
    return found


def _dots(one: Json) -> list[tuple[float | None, float, str]]:
    """The dots of a column's SHAP values: position, value, and the colour of the class."""
    shap = one.get("shap")
    if not shap:
        return []
    series = shap["shap"] if shap["shap"] and isinstance(shap["shap"][0], list) else None
    if series is None:
        return [(x, y, "s1") for x, y in zip(shap["at"], shap["shap"], strict=True)]
    return [(x, y, f"s{c}") for c, ys in enumerate(series[:CLASSES])
            for x, y in zip(shap["at"], ys, strict=True)]


def _scattered(
    data: Json, one: Json, at: Sequence[float], label: str, span: tuple[float, float]
) -> Figure:
    first, moments = one["at"][0], one.get("moments")
    dots = [((x - first) / DAY if moments else x, y, css)
            for x, y, css in _dots(one) if x is not None]
    inside = [d for d in dots if span[0] <= d[0] <= span[1]]
    empty = [y for x, y, css in _dots(one) if x is None]
    ys = [y for _, y, _ in inside] or [0.0]
    plot = Plot(span, widened(min(ys), max(ys)), x_label=label, y_label="SHAP value",
                title=f"SHAP values of {cut(one['column'], 40)}")
    plot.rule((span[0], 0), (span[1], 0))
    for css in sorted({css for _, _, css in inside}):
        mine = [(x, y) for x, y, c in inside if c == css]
        dust(plot, [x for x, _ in mine], [y for _, y in mine], css)
    if _by_class(one):
        return Figure("SHAP values", plot.render(), [(c, n, "") for c, n in _legend(data)],
                      "A dot a row and class; its height is what the column moves the class's "
                      f"{(data.get('shap') or {}).get('scale', 'margin')} by.")
    caption = f"Each dot is a row; its height is what the column {_unit(data)}."
    if empty:
        caption += f" Where it is missing: {short(sum(empty) / len(empty))} on average."
    return Figure("SHAP values", plot.render(), caption=caption)


def _classes(
    data: Json, one: Json, at: Sequence[float], label: str, span: tuple[float, float]
) -> Figure:
    means = one["mean"][:CLASSES]
    low, high = min(map(min, means)), max(map(max, means))
    plot = Plot(span, widened(low, high, False), x_label=label, y_label="mean probability",
                title=f"Partial dependence on {cut(one['column'], 40)}")
    for (css, _), mean in zip(_legend(data), means, strict=False):
        plot.line(at, mean, css)
    legend = [(css, name, "") for css, name in _legend(data)]
    return Figure("Partial dependence", plot.render(), legend, f"Mean probability of each class "
                  f"for {one['rows']:,} rows, as the column alone is changed.")


def _levels(data: Json, one: Json) -> dict[str, Any]:
    """One row a level: the prediction for the rows if they had it, and their SHAP values."""
    several = _by_class(one)
    means = one["mean"][:CLASSES] if several else [one["mean"]]
    lines, dots = one.get("lines") or [], _dots(one)
    flat = [v for m in means for v in m] + [v for line in lines for v in line]
    probability = bool(data.get("classes"))
    span = widened(min(flat), max(flat), False)
    if probability:
        span = (max(span[0], -0.02), min(span[1], 1.02))
    moved = [y for _, y, _ in dots]
    reach = widened(min(moved), max(moved)) if moved else None
    rows = []
    for i, label in enumerate(one["labels"]):
        marks = [(m[i], f"s{c % CLASSES}") for c, m in enumerate(means)]
        row: dict[str, Any] = {
            "label": label, "share": one["share"][i], "mean": None if several else means[0][i],
            "strip": strip([(line[i], "s7") for line in lines], span,
                           f"predictions at {cut(label, 40)}", marks, 340, 24),
        }
        if reach:
            own = [(y, css) for x, y, css in dots if x == i]
            row["shap"] = strip(own, reach, f"SHAP values at {cut(label, 40)}", (), 340, 24)
        rows.append(row)
    return {
        "rows": rows, "axis": axis(span, _prediction(data), probability, 340),
        "shap_axis": axis(reach, _unit(data), False, 340) if reach else None,
        "several": several,
    }
