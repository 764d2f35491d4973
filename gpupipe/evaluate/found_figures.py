"""The report's figures of what was found without a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

from gpupipe.evaluate.figures import Figure
from gpupipe.evaluate.svg import Plot, short

Json = Mapping[str, Any]
COLOURS = 8
DOT = 1.6


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.04
    return low - room, high + room


def _scatter(data: Json, groups: Sequence[tuple[str, list[int]]], title: str,
             labels: tuple[str, str]) -> Plot:
    """Dots at ``x`` and ``y``, in the colour of their group."""
    plot = Plot(_span(data["x"]), _span(data["y"]), title=title, x_label=labels[0],
                y_label=labels[1])
    for css, rows in groups:
        plot.points([data["x"][i] for i in rows], [data["y"][i] for i in rows], css, DOT)
    return plot


def _axes(data: Json) -> tuple[str, str]:
    shares = [*data["shares"], 0.0][:2]
    return (f"first principal component ({shares[0]:.0%})",
            f"second principal component ({shares[1]:.0%})")


def _clusters(data: Json) -> Figure:
    names = sorted(set(data["cluster"]))
    groups = [("faint" if c < 0 else f"s{c % COLOURS}",
               [i for i, mine in enumerate(data["cluster"]) if mine == c]) for c in names]
    legend = [(css, "noise" if c < 0 else f"cluster {c}", "")
              for c, (css, _) in zip(names, groups, strict=True)][:COLOURS + 1]
    plot = _scatter(data, groups, "Clusters on two principal components", _axes(data))
    return Figure("Clusters", plot.render(), legend, f"{len(data['x']):,} rows; in brackets the "
                  "share of the features' variance that a component explains.")


def _sizes(rows: Sequence[Json]) -> Figure:
    top = max(r["share"] for r in rows)
    first, last = rows[0]["cluster"], rows[-1]["cluster"]
    plot = Plot((first - 0.5, last + 0.5), (0, top * 1.08), title="Cluster sizes",
                x_label="cluster (−1 is noise)" if first < 0 else "cluster",
                y_label="share of the rows", x_ticks=min(len(rows), 12), percent="y")
    for r in rows:
        at = r["cluster"]
        plot.bars([at - 0.36, at + 0.36], [r["share"]],
                  "faint" if at < 0 else f"s{at % COLOURS}")
    few = min(rows, key=lambda r: r["rows"])
    return Figure("Cluster sizes", plot.render(), caption=f"{len(rows)} groups; the smallest has "
                  f"{few['rows']:,} rows.")


def _anomalies(data: Json) -> Figure:
    groups = [(css, [i for i, mine in enumerate(data["flag"]) if mine == flag])
              for css, flag in (("s0", False), ("s1", True))]
    plot = _scatter(data, groups, "Anomalies on two principal components", _axes(data))
    flagged = sum(data["flag"])
    return Figure("Anomalies", plot.render(), [("s0", "ordinary", ""), ("s1", "anomaly", "")],
                  f"{flagged:,} of {len(data['x']):,} rows are flagged.")


def _histogram(data: Json) -> Figure:
    top = max(data["counts"], default=1) or 1
    plot = Plot((0.0, 1.0), (0, top * 1.05), title="Distribution of anomaly scores",
                x_label="anomaly score", y_label="rows")
    plot.bars(data["edges"], data["counts"], "s0")
    threshold = data["threshold"]
    plot.rule((threshold, 0), (threshold, top * 1.05))
    return Figure("Anomaly scores", plot.render(), caption=f"Rows above {short(threshold)} are "
                  "flagged; 0.5 is what a row without structure around it gets.")


def _explained(ratio: Sequence[float]) -> Figure:
    total = list(accumulate(ratio))
    at = list(range(1, len(ratio) + 1))
    plot = Plot((0.5, len(ratio) + 0.5), (0, 1.0), title="Explained variance",
                x_label="component", y_label="share of the variance",
                x_ticks=min(len(ratio), 10), percent="y")
    plot.bars([i + 0.5 for i in range(len(ratio) + 1)], ratio, "s1")
    plot.line(at, total, "s0")
    if len(ratio) <= 40:
        plot.points(at, total, "s0", 2.5)
    return Figure("Explained variance", plot.render(),
                  [("s1", "each component", ""), ("s0", "together", "")],
                  f"{len(ratio)} components explain {total[-1]:.1%} of the training rows' "
                  "variance.")


def _components(data: Json) -> Figure:
    plot = _scatter(data, [("s0", list(range(len(data["x"]))))], "The first two components",
                    ("component 0", "component 1"))
    return Figure("Components", plot.render(), caption=f"{len(data['x']):,} rows.")


MAKERS: dict[str, Callable[[Any], Figure]] = {
    "cluster_scatter": _clusters, "cluster_sizes": _sizes, "anomaly_scatter": _anomalies,
    "anomaly_histogram": _histogram, "explained_variance_ratio": _explained,
    "component_scatter": _components,
}
"""By the entry of ``curves`` that each draws."""
