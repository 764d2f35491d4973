"""Values with their intervals on one scale, as shares of a track's width."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def scale_of(scores: list[Mapping[str, Any]]) -> tuple[float, float] | None:
    """A range that shows the first score's interval: what is too far away is left outside."""
    spans = [[v for v in (s.get("value"), s.get("low"), s.get("high"))
              if v is not None and math.isfinite(v)] for s in scores]
    spans = [span for span in spans if span]
    if not spans:
        return None
    lead = spans[0]

    def far(span: list[float]) -> float:
        return float(max(abs(v - lead[0]) for v in span))

    spans.sort(key=far)
    while len(spans) > 2 and max(lead) - min(lead) < 0.06 * far(spans[-1]) > 0.09 * far(spans[-2]):
        spans.pop()
    low, high = min(map(min, spans)), max(map(max, spans))
    room = (high - low) * 0.07 or abs(low) * 0.02 or 1.0
    return low - room, high + room


def track(score: Mapping[str, Any], scale: tuple[float, float] | None) -> dict[str, Any] | None:
    """Where a score lies on a track, in percent of its width; ``off`` if it lies outside."""
    value = score.get("value")
    if value is None or scale is None:
        return None
    if not scale[0] <= value <= scale[1]:
        return {"off": "left" if value < scale[0] else "right"}

    def at(v: float | None) -> float:
        v = value if v is None else v
        return min(max(round(100 * (v - scale[0]) / (scale[1] - scale[0]), 2), 0.0), 100.0)

    low, high = at(score.get("low")), at(score.get("high"))
    return {"at": at(value), "low": low, "width": round(max(high - low, 0), 2), "off": None}
