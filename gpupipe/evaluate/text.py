"""How the report writes numbers, names and durations: the template's filters."""

from __future__ import annotations

import math
import re
from typing import Any

from markupsafe import Markup

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
_DASH = Markup('<span class="none" aria-label="none">–</span>')


def number(value: Any) -> Any:
    """A number to four significant digits, with thousands; text as it is; None as a dash."""
    if value is None or value == "":
        return _DASH
    if isinstance(value, bool) or not isinstance(value, int | float):
        return name_tag(value, 40)
    if not math.isfinite(value):
        return "∞" if value == math.inf else "−∞" if value == -math.inf else "not a number"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}" if size < 1e15 else f"{value:.4g}"
    return f"{value:.4g}" if size >= 1e-4 else f"{value:.2e}"


def score(value: float | None) -> Any:
    """A metric's value: four decimals below 10, else about five digits."""
    if value is None:
        return _DASH
    size = abs(value)
    if size >= 1e7 or (size and size < 1e-4):
        return f"{value:.3e}"
    return f"{value:.4f}" if size < 10 else f"{value:,.{2 if size < 100 else 1}f}"


def percent(value: float | None) -> Any:
    if value is None:
        return _DASH
    if value and abs(value) < 0.0005:
        return "<0.1%"
    return f"{value:.1%}"


def seconds(value: float | None) -> Any:
    if value is None:
        return _DASH
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 120 else f"{int(value // 60)} min {int(value % 60)} s"


def name_tag(value: Any, length: int = 60) -> Markup:
    """A name from the data: isolated from the text around it, cut to fit, whole in its title."""
    text = str(value)
    if not text.strip():
        return Markup('<i class="none">(empty)</i>')
    if len(text) <= length:
        return Markup("<bdi>{}</bdi>").format(text)
    return Markup('<bdi title="{}">{}…</bdi>').format(text[:400], text[: length - 1])
