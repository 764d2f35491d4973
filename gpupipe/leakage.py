"""The leak linter over a pipeline that is prepared: before anything is learned, on any engine."""

from __future__ import annotations

import numpy as np

from gpupipe.data.outcomes import SURVIVAL, time_of
from gpupipe.inspect.findings import Finding, acknowledge
from gpupipe.inspect.leaks import find_leaks, gate
from gpupipe.inspect.leaks_sample import CELLS, Sample, chosen_rows, read_rows, sample_of
from gpupipe.prepare import Prepared


def lint(ready: Prepared) -> list[Finding]:
    """What is suspected of leaking, with the acknowledged marked; none with ``leaks.check: off``.

    Adds to the pipeline's notes the acknowledged names that nothing was found for.
    """
    rule = ready.config.leaks
    target = ready.config.data.target
    if rule.check == "off" or target is None:
        return []
    found, unused = acknowledge(find_leaks(_sample(ready, target)), rule.acknowledged)
    ready.notes.extend(f"leaks.acknowledged: nothing is found that is called {name!r}"
                       for name in unused)
    waiting = [f for f in found if not f.acknowledged]
    if waiting:
        ready.notes.append(
            f"the leak linter warns of {', '.join(f.name for f in waiting[:6])}"
            f"{f' and {len(waiting) - 6} more' if len(waiting) > 6 else ''}: gpupipe check says why"
        )
    return found


def checked(ready: Prepared) -> list[Finding]:
    """`lint`, and GateError where a finding stops the run."""
    found = lint(ready)
    if ready.config.leaks.check == "block":
        gate(found)
    return found


def _sample(ready: Prepared, target: str) -> Sample:
    """Rows spread over the table, as the model and the split see them."""
    config, dataset, split = ready.config, ready.reader.dataset, ready.split
    width = max(1, len(dataset.schema.fields))
    wanted = min(config.leaks.rows, max(2_000, CELLS // width))
    rows = chosen_rows(dataset.rows, wanted, config.seed)
    bucket, y = [], []
    start = 0
    for part in ready.rowed.rows:
        here = rows[(rows >= start) & (rows < start + len(part.bucket))] - start
        start += len(part.bucket)
        assert part.target is not None
        bucket.append(part.bucket[here])
        y.append(part.target[here])
    judging = split.holdout or (split.folds[-1].valid if split.folds else split.train[-1:])
    values = np.concatenate(y)
    by_time, by_group = split.by == "time", split.by == "group"
    return sample_of(
        read_rows(dataset, rows, ready.reader.engine.workers), rows, dataset.rows,
        dtypes={f.name: f.dtype for f in dataset.schema},
        features=ready.candidates[0].graph.raw, target=target,
        y=time_of(values) if ready.target.task in SURVIVAL else values,
        classes=ready.target.classes, bucket=np.concatenate(bucket),
        nowhere=split.nowhere, judging=judging, by=split.by,
        group=config.split.group or () if by_group else (),
        time=config.split.time if by_time else None,
        gap=config.split.gap_size() if by_time else 0.0,
    )
