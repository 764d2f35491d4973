"""The marks that explanations are drawn with: strips of dots, hairlines, dust."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from gpupipe.evaluate.svg import Plot, Range, short, ticks

WIDE, TALL, EDGE = 640, 30, 18
"""A strip's size, and the room that is left free at its ends."""
SHADES = 5
"""Colours from a feature's lowest values to its highest: the classes v0 to v4."""
Dots = Sequence[tuple[float, str]]
"""Positions with the CSS class of each."""


def shade(rank: float | None) -> str:
    """The class of a value's rank among the others; grey for one that has none."""
    return "s7" if rank is None else f"v{min(SHADES - 1, int(rank * SHADES))}"


def widened(low: float, high: float, zero: bool = True) -> Range:
    """A range with some room, that takes in 0 where asked to."""
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.03 * (high - low) or abs(low) * 0.05 or 1.0
    return low - room, high + room


def strip(dots: Dots, span: Range, title: str, marks: Dots = (), wide: int = WIDE,
          tall: int = TALL) -> Markup:
    """Dots along a line, those at one place beside each other; ``marks`` are larger ones.

    A rule stands at 0 where the line goes through it.
    """
    def at(value: float) -> float:
        return EDGE + (value - span[0]) / (span[1] - span[0]) * (wide - 2 * EDGE)

    paths: dict[str, list[str]] = {}
    for (x, css), y in zip([(at(v), c) for v, c in dots],
                           offsets([at(v) for v, _ in dots], tall / 2 - 3), strict=True):
        paths.setdefault(css, []).append(f"M{x:.1f} {tall / 2 + y:.1f}h0")
    parts = [f'<path class="grid" d="M0 {tall / 2}H{wide}"/>']
    if span[0] <= 0 <= span[1]:
        parts.append(f'<path class="axis" d="M{at(0):.1f} 0V{tall}"/>')
    parts += [f'<path class="dust {css}" d="{"".join(path)}"/>' for css, path in paths.items()]
    parts += [f'<circle class="dot {css}" cx="{at(v):.1f}" cy="{tall / 2}" r="5.5"/>'
              for v, css in marks]
    return _svg("dotted", parts, wide, tall, title)


def axis(span: Range, label: str, percent: bool = False, wide: int = WIDE) -> Markup:
    """The axis below strips of the same range."""
    parts = []
    for value in ticks(*span, 5):
        x = EDGE + (value - span[0]) / (span[1] - span[0]) * (wide - 2 * EDGE)
        text = f"{value * 100:.4g}%" if percent else short(value)
        parts.append(f'<text class="tick" x="{x:.1f}" y="13" text-anchor="middle">{text}</text>')
    parts.append(f'<text class="axis-label" x="{wide / 2:.0f}" y="30" text-anchor="middle">'
                 f'{escape(label)}</text>')
    return _svg("dotted", parts, wide, 34, label)


def offsets(xs: Sequence[float], half: float, wide: float = 3.0) -> list[float]:
    """How far each dot goes aside, so that those at one place do not hide each other.

    Dots of one place lie on alternating sides of the line, closer together where they are many.
    """
    place = [round(x / wide) for x in xs]
    count: dict[int, int] = {}
    turn = []
    for p in place:
        turn.append(count.get(p, 0))
        count[p] = turn[-1] + 1
    step = min(wide, 2 * half / max(count.values(), default=1))
    return [((t + 1) // 2) * step * (1 if t % 2 else -1) for t in turn]


def hairlines(plot: Plot, xs: Sequence[float], lines: Sequence[Sequence[float]]) -> None:
    """Many thin lines as one path."""
    path = "".join(plot._path(xs, ys) for ys in lines)
    plot.parts.append(f'<path class="line hair" d="{path}"/>')


def dust(plot: Plot, xs: Sequence[float], ys: Sequence[float], css: str) -> None:
    """Many small dots as one path."""
    path = "".join(f"M{plot.px(x):.1f} {plot.py(y):.1f}h0" for x, y in zip(xs, ys, strict=True))
    plot.parts.append(f'<path class="dust {css}" d="{path}"/>')


def _svg(css: str, parts: Sequence[str], wide: int, tall: int, title: str) -> Markup:
    # What is put together here is numbers and text that was escaped where it was added.
    return Markup(f'<svg class="plot {css}" viewBox="0 0 {wide} {tall}" role="img" '
                  f'aria-label="{escape(title)}">{"".join(parts)}</svg>')
