"""How the report writes numbers, names and durations: the template's filters."""

from __future__ import annotations

import math
import re
from typing import Any

from jinja2 import Undefined
from markupsafe import Markup

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")
_DASH = Markup('<span class="none" aria-label="none">–</span>')


def _absent(value: Any) -> bool:
    return value is None or isinstance(value, Undefined)


def number(value: Any) -> Any:
    """A number to four significant digits, with thousands; text as it is; None as a dash."""
    if _absent(value) or value == "":
        return _DASH
    if isinstance(value, bool) or not isinstance(value, int | float):
        return name_tag(value, 40)
    if math.isnan(value):
        return "not a number"
    if value < 0:
        return f"−{number(-value)}"
    if value == math.inf:
        return "∞"
    if value == int(value) and value < 1e15:
        return f"{int(value):,}"
    if value >= 1000:
        return f"{value:,.0f}" if value < 1e15 else f"{value:.4g}"
    return f"{value:.4g}" if value >= 1e-4 else f"{value:.2e}"


def score(value: Any) -> Any:
    """A metric's value: four decimals below 10, else about five digits."""
    if _absent(value):
        return _DASH
    size = abs(value)
    if size < 1e-12:
        return "0.0000"
    if size >= 1e7 or size < 1e-4:
        text = f"{value:.3e}"
    else:
        text = f"{value:.4f}" if size < 10 else f"{value:,.{2 if size < 100 else 1}f}"
    return text.replace("-", "−", 1) if value < 0 else text


def percent(value: Any) -> Any:
    if _absent(value):
        return _DASH
    if value and abs(value) < 0.0005:
        return "<0.1%"
    return f"{value:.1%}"


def seconds(value: Any) -> Any:
    if _absent(value):
        return _DASH
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 120 else f"{int(value // 60)} min {int(value % 60)} s"


def name_tag(value: Any, length: int = 60) -> Markup:
    """A name from the data: isolated from the text around it, cut to fit, whole in its title."""
    text = "" if value is None else str(value)
    if not text.strip():
        return Markup('<i class="none">(empty)</i>')
    if len(text) <= length:
        return Markup("<bdi>{}</bdi>").format(text)
    return Markup('<bdi title="{}">{}…</bdi>').format(text[:400], text[: length - 1])


def cut(value: Any, length: int) -> str:
    """Text of at most ``length`` characters, for where markup cannot stand."""
    text = str(value)
    return text if len(text) <= length else text[: length - 1] + "…"
