"""One scan, every fold: what is learned for fold k is what fold k's rows alone would teach."""

from __future__ import annotations

from collections import Counter

import pytest
from common.harness import BINARY, digests, make, random_sample
from common.test_every_step import CHAINS, EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.steps.graph import bind
from gpupipe.steps.scan import View, learn

WHAT = [*EXAMPLES, *CHAINS]


@settings(max_examples=30, deadline=None)  # an example fits a whole table once a fold
@given(data=st.data())
def test_fold_params_of_one_scan_are_those_of_separate_honest_fits(data):
    """Random table, steps, number of folds, holdout and layout: equal to the last bit."""
    name = data.draw(st.sampled_from(WHAT), "steps")
    folds = data.draw(st.integers(2, 6), "folds")
    holdout = data.draw(st.booleans(), "holdout")
    n = data.draw(st.integers(1, 120), "rows")
    sample = random_sample(n, data.draw(st.integers(0, 2**32 - 1), "seed"), folds + holdout,
                           data.draw(st.sampled_from([0.0, 0.3, 0.9]), "missing"))
    chain = CHAINS[name] if name in CHAINS else [
        (name, data.draw(st.sampled_from(EXAMPLES[name]), "parameters"))]
    graph = bind(sample.features, [make(s, **c) for s, c in chain], BINARY)
    train = tuple(range(int(holdout), folds + int(holdout)))
    views = [View("final", train)]
    views += [View(f"fold {k}", tuple(b for b in train if b != k)) for k in train]
    source = sample.rowed(
        part_rows=data.draw(st.integers(1, n), "part rows"),
        batch_rows=data.draw(st.integers(1, n), "batch rows"),
        workers=data.draw(st.sampled_from([1, 3]), "workers"),
        kept=data.draw(st.booleans(), "kept"),
    )
    together, _ = learn([graph], views, source)
    for v, view in enumerate(views):
        own = sample.training(view.train)
        if own.table.num_rows == 0:
            continue  # there is nothing to fit alone
        alone, _ = learn([graph], [view], own.rowed())
        assert digests(together[0][v]) == digests(alone[0][0]), view.name


@pytest.mark.parametrize("folds", [0, 2, 6])
@pytest.mark.parametrize("name", WHAT)
def test_every_part_is_read_once_a_scan_however_many_folds_there_are(name, folds):
    """The reader counts what it decodes: no column of a part more often than scans need it."""
    buckets = max(folds, 1)
    sample = random_sample(120, 5, buckets)
    if name in CHAINS:
        graphs = [bind(sample.features, [make(s, **c) for s, c in CHAINS[name]], BINARY)]
    else:
        graphs = [bind(sample.features, [make(name, **c)], BINARY) for c in EXAMPLES[name]]
    train = tuple(range(buckets))
    views = [View("final", train)]
    views += [View(f"fold {k}", tuple(b for b in train if b != k)) for k in range(folds)]
    source = sample.rowed(part_rows=37, batch_rows=20)
    _, knowledge = learn(graphs, views, source)
    parts = range(len(source.dataset.parts))
    asked = Counter((part, column) for scan in knowledge.scans for column in scan for part in parts)
    assert source.reader.decoded == asked
    _, once = learn(graphs, views[:1], sample.rowed(part_rows=37, batch_rows=20))
    # A fold's quantile may lie outside the first window: then, and only then, one look more.
    assert len(once.scans) <= len(knowledge.scans) <= len(once.scans) + 1

    kept = sample.rowed(part_rows=37, batch_rows=20, kept=True)
    learn(graphs, views, kept)
    assert set(kept.reader.decoded.values()) == {1}
