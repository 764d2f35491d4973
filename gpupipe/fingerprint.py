"""One hash of everything that was learned before training, free of the data's layout.

The same rows in one file or in sixty-four, in any order, in row groups and batches of any
size, by one worker or by many, give the same fingerprint: what it covers is made of integers
that merge (`stats`) and of functions of a row alone (`data.split`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.data.split import Split
from gpupipe.engine.hashing import combine64
from gpupipe.steps.graph import Fitted, Graph, params_digest
from gpupipe.steps.profile import Profile
from gpupipe.steps.scan import PartRows


def fingerprint(
    profile: Profile, split: Split, rows: Sequence[PartRows], graphs: Sequence[Graph],
    fitted: Sequence[Sequence[Fitted]],
) -> dict[str, str]:
    """Hashes of the profile, the split and the steps' params, and ``all`` over the three.

    ``fitted[g][v]`` is what graph g learned in view v; all folds count.
    """
    found = {
        "profile": _digest({f"{key}|{statistic!r}": params_digest(state.arrays())
                            for (statistic, key), state in profile.states.items()}),
        "split": _digest({"rule": split.to_json(), "rows": _rows(profile, rows)}),
        "steps": _digest({
            f"{v}|{bound.key}": params_digest(own.params[bound.key])
            for graph, views in zip(graphs, fitted, strict=True)
            for v, own in enumerate(views) for bound in graph.bound
        }),
    }
    return {"all": _digest(found), **found}


def _rows(profile: Profile, rows: Sequence[PartRows]) -> str:
    """Which key is in which bucket, whatever the order: a sum of hashes, modulo 2^64."""
    total = np.uint64(0)
    with np.errstate(over="ignore"):
        for facts, mine in zip(profile.facts, rows, strict=True):
            pairs = combine64(facts.key, mine.bucket.astype(np.uint64), np)
            total += pairs.sum(dtype=np.uint64)
    return f"{int(total):016x}"


def _digest(parts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
