"""What a cluster's workers did, stage by stage: Dask's own record of tasks, added up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

KINDS = {"compute": "working", "transfer": "moving data", "deserialize": "unpacking",
         "disk-read": "reading from disk", "disk-write": "writing to disk"}


def by_stage(
    stages: Sequence[Mapping[str, Any]], tasks: Iterable[Mapping[str, Any]], workers: int,
    threads: int,
) -> list[dict[str, Any]]:
    """For each stage in which tasks ran: how many, and what workers' seconds went into.

    Parameters
    ----------
    stages : name, ``started`` (seconds since 1970) and ``seconds`` of each.
    tasks : as `distributed.Client.get_task_stream` gives them.
    workers, threads : of the cluster, and of each worker.

    Returns
    -------
    Mappings of ``stage``, ``seconds``, ``tasks``, ``workers`` (that had any), seconds by kind
    (see `KINDS`), ``busy`` (the share of all threads' time in which they worked) and
    ``moved_bytes``.
    """
    known, found = list(tasks), []
    for stage in stages:
        first, last = stage["started"], stage["started"] + stage["seconds"]
        mine = [t for t in known if first <= _end(t) <= last + 0.05]
        if not mine:
            continue
        spent = dict.fromkeys(KINDS.values(), 0.0)
        for task in mine:
            for part in task["startstops"]:
                if part["action"] in KINDS:
                    spent[KINDS[part["action"]]] += part["stop"] - part["start"]
        capacity = max(stage["seconds"] * workers * threads, 1e-9)
        found.append({
            "stage": stage["stage"], "seconds": stage["seconds"], "tasks": len(mine),
            "workers": len({t["worker"] for t in mine}),
            **{kind: round(s, 4) for kind, s in spent.items()},
            "busy": round(min(spent["working"] / capacity, 1.0), 4),
            "moved_bytes": sum(int(t.get("nbytes") or 0) for t in mine),
        })
    return found


def lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same in words."""
    return [
        f"{s['stage']}: {s['tasks']} tasks on {s['workers']} "
        f"{'worker' if s['workers'] == 1 else 'workers'}, {s['busy']:.0%} busy; "
        f"{s['working']:.1f} s working, {s['moving data']:.1f} s moving data"
        for s in found
    ]


def _end(task: Mapping[str, Any]) -> float:
    return max((float(p["stop"]) for p in task["startstops"]), default=0.0)
