"""Small inline SVG plots: a frame with axes, and marks drawn into it.

Colours are CSS classes (``s0`` to ``s7``, ``ink``, ``faint``), so that a page's light, dark and
print styles apply. Everything written is a number or escaped text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from markupsafe import Markup, escape

Range = tuple[float, float]


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) that cover ``low`` to ``high``."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low] if math.isfinite(low) else []
    power = 10 ** math.floor(math.log10(span / wanted))
    step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(span / s - wanted))
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def short(value: float) -> str:
    """A tick's label: ``0.25``, ``1,500``, ``20k``, ``3.5M``."""
    if value < 0:
        return "−" + short(-value)
    size = value
    for limit, suffix in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if size >= limit:
            unit = 1e3 if suffix == "k" else limit
            return f"{value / unit:,.3g}{suffix}" if size < 1e15 else f"{value:.2g}"
    if size and size < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


class Plot:
    """A frame of ``width`` x ``height`` whose data run over ``x`` and ``y``.

    Marks come out in the order in which they are drawn. ``title`` is what a screen reader says.
    ``x_names`` are ticks of the x axis with a name in place of a number: (place, name) each.
    """

    def __init__(
        self, x: Range, y: Range, *, title: str, x_label: str = "", y_label: str = "",
        width: int = 360, height: int = 270, x_ticks: int = 5, y_ticks: int = 5,
        percent: str = "", x_names: Sequence[tuple[float, str]] = (),
    ) -> None:
        self.x, self.y = _open(x), _open(y)
        self.title, self.width, self.height = title, width, height
        longest = max((len(_tick(v, "y" in percent)) for v in ticks(*self.y, y_ticks)), default=0)
        self.left, self.right, self.top, self.bottom = 34 + 7 * longest, 18, 10, 44
        self.parts: list[str] = []
        self._axes(x_label, y_label, x_names or [
            (v, _tick(v, "x" in percent)) for v in ticks(*self.x, x_ticks)], y_ticks, percent)

    def px(self, value: float) -> float:
        inner = self.width - self.left - self.right
        return self.left + (value - self.x[0]) / (self.x[1] - self.x[0]) * inner

    def py(self, value: float) -> float:
        inner = self.height - self.top - self.bottom
        return self.height - self.bottom - (value - self.y[0]) / (self.y[1] - self.y[0]) * inner

    def line(self, xs: Sequence[float], ys: Sequence[float], css: str) -> None:
        self.parts.append(f'<path class="line {css}" d="{self._path(xs, ys)}"/>')

    def area(self, xs: Sequence[float], ys: Sequence[float], css: str) -> None:
        """The area between a curve and the lower edge."""
        if xs:
            floor = self.y[0]
            path = self._path([*xs, xs[-1], xs[0]], [*ys, floor, floor])
            self.parts.append(f'<path class="area {css}" d="{path}Z"/>')

    def bars(self, edges: Sequence[float], heights: Sequence[float], css: str) -> None:
        """One bar between each two edges, from 0."""
        zero = self.py(max(self.y[0], 0.0))
        path = []
        for left, right, height in zip(edges[:-1], edges[1:], heights, strict=True):
            if height:
                a, b, top = self.px(left), self.px(right), self.py(height)
                gap = min(0.6, (b - a) * 0.1)
                path.append(f"M{a + gap:.1f} {zero:.1f}V{top:.1f}H{b - gap:.1f}V{zero:.1f}Z")
        self.parts.append(f'<path class="bar {css}" d="{"".join(path)}"/>')

    def points(self, xs: Iterable[float], ys: Iterable[float], css: str, radius: float = 4) -> None:
        for x, y in zip(xs, ys, strict=True):
            self.parts.append(
                f'<circle class="dot {css}" cx="{self.px(x):.1f}" cy="{self.py(y):.1f}" '
                f'r="{radius:g}"/>'
            )

    def whisker(self, x: float, low: float, high: float, css: str) -> None:
        """A vertical interval at ``x``."""
        at, a, b = self.px(x), self.py(low), self.py(high)
        self.parts.append(f'<path class="whisker {css}" d="M{at:.1f} {a:.1f}V{b:.1f}"/>')

    def rule(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """A dashed line of reference."""
        path = self._path([start[0], end[0]], [start[1], end[1]])
        self.parts.append(f'<path class="rule" d="{path}"/>')

    def note(self, x: float, y: float, text: str) -> None:
        """A few words that begin at a place, just above it."""
        self.parts.append(f'<text class="note" x="{self.px(x):.1f}" y="{self.py(y) - 4:.1f}" '
                          f'text-anchor="start">{escape(text)}</text>')

    def cells(self, counts: Sequence[Sequence[float]], css: str, shades: int = 9) -> None:
        """A 2-D histogram over the whole frame, ``counts[i][j]`` at the i-th x and j-th y.

        Shades go by the logarithm of the count, so that sparse cells can be seen.
        """
        most = max((c for row in counts for c in row), default=0)
        if not most:
            return
        wide = (self.px(self.x[1]) - self.px(self.x[0])) / len(counts)
        tall = (self.py(self.y[0]) - self.py(self.y[1])) / len(counts[0])
        paths: list[list[str]] = [[] for _ in range(shades)]
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                if count:
                    shade = min(shades - 1, int(math.log1p(count) / math.log1p(most) * shades))
                    left, top = self.left + i * wide, self.py(self.y[0]) - (j + 1) * tall
                    paths[shade].append(f"M{left:.1f} {top:.1f}h{wide:.2f}v{tall:.2f}h-{wide:.2f}z")
        for shade, path in enumerate(paths):
            if path:
                opacity = 0.18 + 0.82 * shade / (shades - 1)
                self.parts.append(
                    f'<path class="bar {css}" fill-opacity="{opacity:.2f}" d="{"".join(path)}"/>'
                )

    def render(self) -> Markup:
        # What is put together here is numbers and text that was escaped where it was added.
        return Markup(
            f'<svg class="plot" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(self.title)}"><title>{escape(self.title)}</title>'
            f'{"".join(self.parts)}</svg>'
        )

    def _path(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        steps = (f"{self.px(x):.1f} {self.py(y):.1f}" for x, y in zip(xs, ys, strict=True))
        return "M" + "L".join(steps)

    def _axes(
        self, x_label: str, y_label: str, x_names: Sequence[tuple[float, str]], y_ticks: int,
        percent: str,
    ) -> None:
        base, write = self.height - self.bottom, self.parts.append
        for value in ticks(*self.y, y_ticks):
            at, text = self.py(value), _tick(value, "y" in percent)
            write(f'<path class="grid" d="M{self.left} {at:.1f}H{self.width - self.right}"/>')
            write(f'<text class="tick" x="{self.left - 7}" y="{at + 4:.1f}" '
                  f'text-anchor="end">{text}</text>')
        for value, text in x_names:
            write(f'<text class="tick" x="{self.px(value):.1f}" y="{base + 17}" '
                  f'text-anchor="middle">{escape(text)}</text>')
        write(f'<path class="axis" d="M{self.left} {base}H{self.width - self.right}"/>')
        middle = (self.left + self.width - self.right) / 2
        write(f'<text class="axis-label" x="{middle:.0f}" y="{self.height - 6}" '
              f'text-anchor="middle">{escape(x_label)}</text>')
        if y_label:
            half = (self.top + base) / 2
            write(f'<text class="axis-label" transform="translate(12 {half:.0f}) rotate(-90)" '
                  f'text-anchor="middle">{escape(y_label)}</text>')


def spark(edges: Sequence[float] | None, counts: Sequence[float], title: str) -> Markup:
    """A histogram without axes, stretched to its box; bins of unequal width show densities."""
    n = len(counts)
    if edges is None or len(edges) != n + 1 or not edges[-1] > edges[0]:
        edges = list(range(n + 1))
    span = edges[-1] - edges[0]
    widths = [max((b - a) / span, 0.0) for a, b in pairwise(edges)]
    even = max(widths, default=1) < 1.05 * min(widths, default=1)
    heights = [c if even else (c / w if w else 0.0) for c, w in zip(counts, widths, strict=True)]
    most = max(heights, default=0) or 1
    path, left = [], 0.0
    for width, height in zip(widths, heights, strict=True):
        if height:
            tall = max(40 * height / most, 0.6)
            gap = min(0.35, width * 30)
            wide = max(width * 200 - 2 * gap, 0.3)
            path.append(f"M{left * 200 + gap:.2f} 40v-{tall:.2f}h{wide:.2f}v{tall:.2f}z")
        left += width
    return Markup(
        f'<svg class="spark" viewBox="0 0 200 40" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}"><path class="bar s0" d="{"".join(path)}"/></svg>'
    )


def _tick(value: float, percent: bool) -> str:
    return f"{value * 100:.4g}%" if percent else short(value)


def _open(span: Range) -> Range:
    """A range of some width, whatever it was given."""
    low, high = span
    if high > low:
        return span
    room = abs(low) * 0.05 or 1.0
    return low - room, high + room
