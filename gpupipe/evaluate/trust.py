"""What the report says of how far its numbers can be trusted: leaderboard, looks, splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpupipe.evaluate.tracks import scale_of, track

SHOWN_ENTRIES = 15
COSTS = {"seconds": "training", "latency": "one row", "size": "bytes"}
"""What an entry may have cost, and the heading of its column."""


def trust(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the template is given; None where there is nothing to say."""
    board = metrics.get("leaderboard")
    looks, splits = metrics.get("looks"), metrics.get("split_honesty")
    if not (board or looks or splits):
        return None
    sentences = [*((board or {}).get("sentences") or []), *looked(looks)]
    return {"sentences": [text[:1].upper() + text[1:] + "." for text in sentences],
            "board": board and _board(board), "splits": splits and _splits(splits)}


def looked(looks: Mapping[str, Any] | None) -> list[str]:
    """How often the holdout was looked at, in words."""
    if not looks:
        return []
    count, models = looks["looks"], looks["pipelines"]
    times = "once" if count == 1 else f"{count:,} times"
    text = f"this holdout has been looked at {times}"
    if count > 1:
        text += f", by {models:,} different pipeline{'s' * (models > 1)}"
    if models > 1:
        text += ": whatever was chosen by it is judged too kindly by it"
    return [text]


def _board(board: Mapping[str, Any]) -> dict[str, Any]:
    entries: Sequence[Mapping[str, Any]] = board["entries"]
    scale = scale_of([e["score"] for e in entries])
    rows = [{**e, "track": track(e["score"], scale)} for e in entries]
    return {
        **board, "rows": rows[:SHOWN_ENTRIES], "more": rows[SHOWN_ENTRIES:],
        "judged": board["rows"], "by_fold": any(e["deviation"] is not None for e in entries),
        "costs": {k: v for k, v in COSTS.items() if any(e[k] is not None for e in entries)},
    }


def _splits(found: Mapping[str, Any]) -> dict[str, Any]:
    scale = scale_of([s["score"] for s in found["splits"]])
    return {**found, "splits": [{**s, "track": track(s["score"], scale)}
                                for s in found["splits"]]}
