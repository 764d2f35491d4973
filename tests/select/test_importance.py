"""Permutation importance, recursive elimination and Boruta: noise goes, what matters stays."""

from __future__ import annotations

import numpy as np
import pytest
from problems import NAMES, PARAMS, TARGETS, chosen, numbers, problem
from scipy.stats import binom, false_discovery_control, norm
from sklearn.metrics import log_loss, mean_squared_error

from gpupipe.models import Matrix, Training, model_of
from gpupipe.select.base import discoveries, units_of, upper_tail
from gpupipe.select.boruta import _Tally, tail
from gpupipe.select.evidence import gathered, losses, mean_and_error

EVERY = ["permutation", "recursive", "boruta"]
QUICK = {"permutation": {}, "recursive": {"drop": 0.4, "within": 2.0},
         "boruta": {"rounds": 14, "trees": 20}}


def evidence_of(train: Matrix, kind: str = "xgboost", rows: int = 50_000, task: str = "binary"):
    return gathered(train, units_of(train, False), frozenset(), TARGETS[task],
                    model_of(kind, PARAMS[kind]), Training(0, 1), rows)


@pytest.mark.parametrize("task", list(TARGETS))
@pytest.mark.parametrize("method", EVERY)
def test_noise_is_dropped_and_what_matters_is_kept(method, task):
    found = chosen(problem(task), (method, QUICK[method]), task=task)
    assert {"strong", "weak"} <= set(found.kept)
    assert len(found.kept) <= 3
    assert found.steps[0]["in"] == 8
    assert sorted([*found.kept, *found.steps[0]["dropped"]]) == sorted(NAMES)


@pytest.mark.parametrize("method", ["permutation", "recursive"])
def test_a_linear_model_is_asked_as_well(method):
    found = chosen(numbers(problem()), (method, QUICK[method]), kind="linear")
    assert {"strong", "weak"} <= set(found.kept) and len(found.kept) <= 3


@pytest.mark.parametrize("method", EVERY)
def test_the_same_seed_gives_the_same_choice_in_any_chunks(method):
    found = [chosen(problem(n=1200, chunks=c), (method, QUICK[method]), seed=5) for c in (1, 1, 6)]
    facts = [(f.kept, f.steps[0]["scores"], f.steps[0]["note"]) for f in found]
    assert facts[0] == facts[1] == facts[2]


def test_judges_are_whole_buckets_and_never_learn():
    train = problem()
    evidence = evidence_of(train)
    seen = set()
    for turn in range(4):
        learn, judge = evidence.parts(turn)
        assert not set(train.bucket[learn]) & set(train.bucket[judge])
        assert sorted([*learn, *judge]) == list(range(3000))
        seen |= set(train.bucket[judge])
    assert seen == {1, 2, 3, 4}
    assert set(train.bucket[evidence.parts()[1]]) == {4}  # of a time split, the newest


def test_without_buckets_a_fifth_of_the_rows_judges():
    train = problem()
    plain = Matrix(train.chunks, train.target, None, train.names, train.categorical)
    learn, judge = evidence_of(plain).parts()
    assert 0.17 < len(judge) / 3000 < 0.23 and not set(learn) & set(judge)
    again = evidence_of(plain).parts(1)[1]
    assert 0.1 < np.isin(again, judge).mean() < 0.3


def test_evidence_is_of_so_many_rows_spread_over_all():
    train = problem()
    evidence = evidence_of(train, rows=700)
    assert len(evidence.y) == 600
    np.testing.assert_array_equal(evidence.host, np.concatenate(train.chunks)[::5])
    np.testing.assert_array_equal(evidence.matrix.bucket, train.bucket[::5])
    np.testing.assert_array_equal(evidence.low, np.concatenate(train.chunks).min(axis=0))


@pytest.mark.parametrize("task", list(TARGETS))
def test_losses_are_scikit_learns(task):
    rng = np.random.default_rng(0)
    if task == "regression":
        y, p = rng.normal(size=200), rng.normal(size=200)
        expected = mean_squared_error(y, p)
    else:
        count = len(TARGETS[task].classes)
        y, p = rng.integers(0, count, 200), rng.dirichlet(np.ones(count), 200)
        expected = log_loss(y, p)
        p = p[:, 1] if task == "binary" else p
    assert losses(p, y, TARGETS[task]).mean() == pytest.approx(expected)


def test_the_error_of_a_mean_is_the_usual_one_and_weights_count():
    values = np.random.default_rng(0).normal(3, 2, 500)
    mean, error = mean_and_error(values, np.ones(500))
    assert (mean, error) == pytest.approx((values.mean(), values.std(ddof=1) / np.sqrt(500)))
    doubled = mean_and_error(values, np.where(values > 3, 2.0, 1.0))[0]
    assert doubled == pytest.approx(np.average(values, weights=np.where(values > 3, 2, 1)))


def test_tails_and_the_false_discovery_rate():
    z = np.array([-1.0, 0, 1.6, 3])
    np.testing.assert_allclose(upper_tail(z), norm.sf(z))
    for seed in range(20):
        p = np.random.default_rng(seed).random(12) ** 4
        expected = false_discovery_control(p, method="bh") <= 0.05
        assert discoveries(p, 0.05).tolist() == expected.tolist()
    assert not discoveries(np.array([0.06, 0.9]), 0.05).any()


@pytest.mark.parametrize(("n", "hits"), [(1, 0), (5, 5), (20, 13), (100, 40)])
def test_the_coins_tail_is_scipys(n, hits):
    assert tail(n, hits) == pytest.approx(binom.sf(hits - 1, n, 0.5))


def test_a_tally_decides_as_the_binomial_test_with_bonferronis_correction_does():
    tally, rounds = _Tally(3, 0.01), 0
    while tally.open.any():
        tally.add(np.array([True, False, rounds % 2 == 0])[~tally.rejected])
        rounds += 1
        if rounds == 9:
            # 3 * 2^-9 < 0.01 <= 3 * 2^-8
            assert tally.confirmed.tolist() == [True, False, False]
            assert tally.rejected.tolist() == [False, True, False]
            break
        assert not tally.confirmed.any()
    assert tally.hits.tolist() == [9, 0, 5]


def test_a_feature_that_matters_only_with_another_is_found():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 6)).astype(np.float32)
    y = ((x[:, 0] * x[:, 1] + rng.normal(0, 0.3, 4000)) > 0).astype(np.int64)
    train = Matrix((x,), y, None, tuple("abcdef"), (False,) * 6)
    kept = chosen(train, ("boruta", QUICK["boruta"])).kept
    assert {"a", "b"} <= set(kept) and len(kept) <= 3
    assert "a" not in chosen(train, "mutual_information", keep=("f",)).kept


def test_recursive_elimination_never_drops_what_is_to_be_kept():
    found = chosen(problem(), ("recursive", {"drop": 0.5}), keep=("n3",))
    assert {"strong", "n3"} <= set(found.kept)
    sizes = [int(s) for s in found.steps[0]["note"].split("sets of ")[1].split(" were")[0]
             .split(", ")]
    assert sizes[0] == 8 and sizes[-1] == 1 and sizes == sorted(sizes, reverse=True)


def test_methods_work_on_what_the_ones_before_them_left():
    found = chosen(problem(), ("mutual_information", {"k": 4}), "permutation")
    assert [(s["method"], s["in"]) for s in found.steps] == [
        ("mutual_information", 8), ("permutation", 4)]
    assert found.steps[1]["out"] == len(found.kept) <= 3
    assert all(s["seconds"] > 0 for s in found.steps)
