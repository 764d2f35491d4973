"""The stability index against what it is equal to, and its interval against draws."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpupipe.models.selected import Selection
from gpupipe.select import stability, summary


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 7))
def test_for_choices_of_one_size_it_is_kunchevas_consistency(seed, m, k):
    rng, d = np.random.default_rng(seed), 8
    chosen = np.zeros((m, d), bool)
    for row in chosen:
        row[rng.permutation(d)[:k]] = True
    pairs = [((a & b).sum() * d - k * k) / (k * (d - k)) for a, b in combinations(chosen, 2)]
    assert stability(chosen).value == pytest.approx(np.mean(pairs))


def test_equal_choices_are_stable_and_random_ones_are_not():
    equal = stability(np.tile([True, False, True], (5, 1)))
    assert (equal.value, equal.low, equal.high) == (1.0, 1.0, 1.0)
    assert stability(np.ones((3, 4), bool)).value == 1.0
    assert stability(np.ones((1, 4), bool)).value is None
    random = stability(np.random.default_rng(0).random((200, 50)) < 0.4)
    assert random.value == pytest.approx(0, abs=0.01)


def test_the_interval_holds_the_value_that_many_choices_tend_to():
    share = np.array([0.95, 0.9, 0.9, 0.6, 0.3, 0.1, 0.1, 0.05, 0.02, 0.02])
    mean = share.mean()
    truth = 1 - np.mean(share * (1 - share)) / (mean * (1 - mean))
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        found = stability(rng.random((60, 10)) < share)
        held += found.low <= truth <= found.high
    assert 0.91 <= held / 400 <= 0.985


def selection(kept: str, seconds: float = 1.0) -> Selection:
    step = {"method": "boruta", "in": 4, "out": len(kept), "dropped": [n for n in "abcd"
            if n not in kept], "seconds": seconds, "threshold": None, "note": "", "scores": {}}
    return Selection(tuple("abcd"), tuple(kept), tuple("abcd".index(n) for n in kept), (step,))


def test_a_summary_counts_folds_and_adds_up_what_choosing_took():
    found = summary([selection("ab"), selection("abc"), selection("b")], selection("bc", 2.0))
    assert [(f["name"], f["folds"], f["final"]) for f in found["features"]] == [
        ("b", 3, True), ("a", 2, False), ("c", 1, True), ("d", 0, False)]
    assert (found["in"], found["out"], found["out_by_fold"]) == (4, 2, [2, 3, 1])
    assert found["seconds"] == 5.0
    assert found["methods"][0] | {"seconds": 5.0} == found["methods"][0]
    assert found["methods"][0]["dropped"] == ["a", "d"]
    assert summary([], None) is None
    assert summary([], selection("a"))["stability"]["value"] is None
