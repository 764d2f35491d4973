"""What a sampler proposes, and in which order."""

from __future__ import annotations

from collections import Counter

import pytest

from gpupipe.config import parse_config
from gpupipe.models import MODELS
from gpupipe.tune.samplers import Sampler
from gpupipe.tune.space import space_of
from gpupipe.tune.trial import Trial

FAMILIES = ["xgboost", "lightgbm", "linear"]


def proposed(count: int, seed: int = 0, **tune):
    """The first proposals of a sampler that is told that all trials are alike."""
    settings = parse_config({"data": {"source": "t.csv", "target": "y"},
                             "tune": {"trials": count, "models": FAMILIES, **tune}})
    sampler = Sampler(settings.tune, space_of(settings, "binary"), True, seed, 5)
    found = []
    for number in range(count):
        handle, proposal = sampler.ask(number)
        found.append(proposal)
        trial = Trial.of(number, proposal)
        trial.score = 0.5
        sampler.tell(handle, trial, ["quality"])
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_families_as_they_are_then_starts_then_turns(sampler):
    found = proposed(45, sampler=sampler)
    assert [(p.kind, p.params) for p in found[:3]] == [(k, {}) for k in FAMILIES]
    assert [p.kind for p in found[3:9]] == ["xgboost", "lightgbm"] * 3
    assert [p.params["learning_rate"] for p in found[3:9]] == [0.1] * 6
    taken = Counter(p.kind for p in found[9:])
    sizes = {k: len(MODELS[k].space) for k in FAMILIES}
    for kind, size in sizes.items():
        assert abs(taken[kind] - 36 * size / sum(sizes.values())) <= 1


def test_the_same_seed_proposes_the_same_and_another_one_does_not():
    assert proposed(20) == proposed(20)
    assert proposed(20) != proposed(20, seed=1)
