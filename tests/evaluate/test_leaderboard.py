"""The leaderboard: scikit-learn's values, exact resamples, ties as ties, luck taken off."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn import metrics as sk

from gpupipe.errors import ConfigError, DataError
from gpupipe.evaluate.draws import multinomial_counts
from gpupipe.evaluate.joint import exact, joint
from gpupipe.evaluate.leaderboard import Entry, leaderboard
from gpupipe.evaluate.metrics import METRICS
from gpupipe.evaluate.scores import evaluate, paired_difference

N = 700


def drawn(task: str, n: int = N, entries: int = 3, seed: int = 0, noise: float = 0.6):
    """A target, weights, and predictions of different quality, as float32."""
    rng = np.random.default_rng(seed)
    z, w = rng.normal(size=n), rng.integers(1, 4, n).astype(float)
    if task == "regression":
        return z + 9, w, [(z + 9 + noise * (k + 1) * rng.normal(size=n)).astype(np.float32)
                          for k in range(entries)]
    if task == "binary":
        y = (rng.random(n) < 1 / (1 + np.exp(-2 * z))).astype(np.int64)
        scores = [z + noise * (k + 1) * rng.normal(size=n) for k in range(entries)]
        return y, w, [(1 / (1 + np.exp(-s))).astype(np.float32) for s in scores]
    if task in ("survival", "hazard"):
        time = rng.exponential(size=n) + 0.01
        return np.where(rng.random(n) < 0.6, time, -time), w, [
            np.exp(np.log(time) + noise * (k + 1) * rng.normal(size=n)) for k in range(entries)]
    y = rng.integers(0, 3, n)
    odds = [np.exp(2 * np.eye(3)[y] + noise * (k + 1) * rng.normal(size=(n, 3)))
            for k in range(entries)]
    return y, w, [(o / o.sum(axis=1, keepdims=True)).astype(np.float32) for o in odds]


@pytest.mark.parametrize(("task", "name"), sorted(METRICS))
@pytest.mark.parametrize("weighted", [False, True])
def test_every_metric_has_the_value_that_evaluate_gives_it(task, name, weighted):
    y, w, predictions = drawn(task)
    w = w if weighted else None
    found = joint(task, name, y, predictions, w, resamples=20)
    told = [evaluate(task, y, p, weight=w, metrics=[name], resamples=0)[name].value
            for p in predictions]
    np.testing.assert_allclose(found.value, told, rtol=1e-12)
    assert exact(task, name, y, predictions[0], w) == pytest.approx(told[0], rel=1e-12)
    shape = (0 if METRICS[task, name].no_interval else 20, 3)
    assert found.inside.shape == found.outside.shape == shape


REFERENCES = {
    ("binary", "log_loss"): lambda y, p, w: sk.log_loss(y, p, sample_weight=w),
    ("binary", "brier_score_loss"): lambda y, p, w: sk.brier_score_loss(y, p, sample_weight=w),
    ("binary", "f1"): lambda y, p, w: sk.f1_score(y, p > 0.5, sample_weight=w),
    ("binary", "matthews_corrcoef"): lambda y, p, w: sk.matthews_corrcoef(
        y, p > 0.5, sample_weight=w),
    ("multiclass", "balanced_accuracy"): lambda y, p, w: sk.balanced_accuracy_score(
        y, p.argmax(axis=1), sample_weight=w),
    ("regression", "r2"): lambda y, p, w: sk.r2_score(y, p, sample_weight=w),
    ("regression", "mean_absolute_error"): lambda y, p, w: sk.mean_absolute_error(
        y, p, sample_weight=w),
}


@pytest.mark.parametrize(("task", "name"), REFERENCES)
def test_resamples_are_scikit_learn_s_metric_on_the_drawn_rows_and_on_those_left_out(task, name):
    y, w, predictions = drawn(task, 300)
    found = joint(task, name, y, predictions, w, resamples=15, seed=4)
    counts = multinomial_counts(np.random.default_rng(4), 15, 300)
    for j, p in enumerate(predictions):
        for r, count in enumerate(counts):
            p64, metric = p.astype(float), REFERENCES[task, name]
            assert found.inside[r, j] == pytest.approx(metric(y, p64, w * count), rel=1e-9)
            assert found.outside[r, j] == pytest.approx(metric(y, p64, w * (count == 0)), rel=1e-9)


@pytest.mark.parametrize(("name", "metric"), [
    ("roc_auc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)])
def test_ranking_metrics_vary_as_scikit_learn_s_do_over_the_same_resamples(name, metric):
    y, w, (a, b, _) = drawn("binary", 1500)
    found = joint("binary", name, y, [a, b], w, resamples=120, seed=1)
    counts = multinomial_counts(np.random.default_rng(1), 120, 1500)
    direct = np.array([[metric(y, p, sample_weight=w * c) for p in (a, b)] for c in counts])
    left = np.array([[metric(y, p, sample_weight=w * (c == 0)) for p in (a, b)] for c in counts])
    for linear, true in ((found.inside, direct), (found.outside, left)):
        spread = true.std(axis=0)
        assert (np.abs(linear - true).max(axis=0) < 0.35 * spread).all()
        apart, true_apart = linear[:, 0] - linear[:, 1], true[:, 0] - true[:, 1]
        assert np.corrcoef(apart, true_apart)[0, 1] > 0.98
        assert apart.std() == pytest.approx(true_apart.std(), rel=0.1)


@pytest.mark.parametrize(("task", "name"), [
    ("binary", "roc_auc"), ("multiclass", "accuracy"), ("regression", "median_absolute_error")])
def test_random_groups_of_many_rows_give_the_intervals_of_single_rows(task, name):
    y, w, predictions = drawn(task, 6000, 2)
    entries = [Entry(f"e{i}", "k", oof=p) for i, p in enumerate(predictions)]
    few = leaderboard(task, name, entries, y, w, units=1500, resamples=600)
    each = leaderboard(task, name, entries, y, w, units=6000, resamples=600)
    for a, b in zip(few.places, each.places, strict=True):
        assert a.score.value == pytest.approx(b.score.value, rel=1e-12)
        assert a.score.high - a.score.low == pytest.approx(b.score.high - b.score.low, rel=0.15)
    told = paired_difference(task, name, y, predictions[1].astype(float),
                             predictions[0].astype(float), weight=w, resamples=600)
    mine = few.places[1].difference
    assert mine.value == pytest.approx(told.value, rel=1e-9)
    assert mine.high - mine.low == pytest.approx(told.high - told.low, rel=0.2)


def test_columns_multiplied_in_blocks_come_to_the_same(monkeypatch):
    y, w, predictions = drawn("regression", 400, 6)
    whole = joint("regression", "median_absolute_error", y, predictions, w, resamples=30)
    monkeypatch.setattr("gpupipe.evaluate.joint.WIDTH", 300)
    parts = joint("regression", "median_absolute_error", y, predictions, w, resamples=30)
    for name in ("value", "inside", "outside"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name), rtol=1e-12)


def board_of(qualities: list[float], n: int = 4000, seed: int = 0):
    """A regression's leaderboard with errors of these sizes; one more entry has a score alone."""
    rng = np.random.default_rng(seed)
    y, common = rng.normal(size=n), rng.normal(size=n)
    entries = [Entry(f"q{q:g}", "xgboost", {"q": q}, seconds=1.0, work_units=7, oof=(
        y + q * (common + 0.05 * rng.normal(size=n))).astype(np.float32)) for q in qualities]
    entries.append(Entry("kept", "linear", score=0.3))
    fold = rng.integers(0, 4, n)
    return y, fold, leaderboard("regression", "root_mean_squared_error", entries, y, fold=fold)


def test_ties_share_a_rank_and_what_is_apart_does_not():
    y, fold, board = board_of([1.0, 0.5, 0.8, 0.5, 0.8])
    assert [p.rank for p in board.places] == [1, 1, 3, 3, 5, None]
    assert [p.entry.params.get("q") for p in board.places] == [0.5, 0.5, 0.8, 0.8, 1.0, None]
    assert board.tied == 2
    first, second, third = board.places[:3]
    assert first.difference is None
    assert second.difference.low <= 0 <= second.difference.high
    assert third.difference.low > 0  # a greater error
    for k in range(4):
        at = fold == k
        expected = sk.root_mean_squared_error(y[at], first.entry.oof[at])
        assert first.folds[k] == pytest.approx(expected, rel=1e-6)
    assert "not told apart from q0.5" in board.sentences()[0]


def test_its_json_says_all_of_an_entry_and_of_one_that_was_only_scored():
    _, _, board = board_of([0.5, 0.8])
    told = board.to_json()
    assert told["entries"][0]["params"] == {"q": 0.5} and told["entries"][0]["work_units"] == 7
    assert told["entries"][0]["deviation"] == pytest.approx(
        np.std(board.places[0].folds, ddof=1))
    last = told["entries"][-1]
    assert last["name"] == "kept" and last["rank"] is None and last["difference"] is None
    assert last["score"] == {"value": 0.3, "low": None, "high": None,
                             "note": "no interval: its predictions were not kept"}
    assert told["correction"]["candidates"] == 2 and told["correction"]["method"] == "BBC-CV"
    assert "ahead of the other 1 beyond chance" in told["sentences"][0]


def test_one_entry_has_no_rivals_and_scores_alone_no_ranks():
    y, _, (p,) = drawn("binary", entries=1)
    alone = leaderboard("binary", "roc_auc", [Entry("a", "xgboost", oof=p)], y)
    assert alone.places[0].rank == 1 and alone.luck is None and alone.sentences() == []
    scored = leaderboard("binary", "log_loss", [Entry("a", "k", score=0.4), Entry("b", "k"),
                                                Entry("c", "k", score=0.3)], y)
    assert [p.entry.name for p in scored.places] == ["c", "a", "b"]
    assert {p.rank for p in scored.places} == {None}


def test_a_metric_that_cannot_be_resampled_or_is_undefined_is_said_to_be():
    y, _, predictions = drawn("regression")
    entries = [Entry(str(i), "k", oof=p) for i, p in enumerate(predictions)]
    board = leaderboard("regression", "max_error", entries, y)
    assert board.luck is None and "no interval" in board.places[0].score.note
    assert [p.rank for p in board.places] == [1, 1, 1]
    p = np.full(50, 0.3, np.float32)
    board = leaderboard("binary", "roc_auc", [Entry("a", "k", oof=p), Entry("b", "k", oof=p)],
                        np.zeros(50, int))
    assert board.places[0].score.value is None and board.luck is None


def test_an_entry_whose_metric_is_undefined_has_no_rank_and_ties_with_nobody():
    y, w, predictions = drawn("regression", entries=2)
    low = np.full(N, -2, np.float32)  # no logarithm of it
    entries = [Entry(n, "k", oof=p) for n, p in zip("abc", [low, *predictions], strict=True)]
    board = leaderboard("regression", "root_mean_squared_log_error", entries, y, w)
    assert [(p.entry.name, p.rank) for p in board.places] == [("b", 1), ("c", 2), ("a", None)]
    assert board.places[2].difference.value is None and board.luck.candidates == 3
    assert board.luck.corrected.value == pytest.approx(board.luck.best, rel=0.02)


def test_unfit_metrics_and_predictions_are_refused():
    y, _, (p, *_) = drawn("binary")
    with pytest.raises(ConfigError, match="regression"):
        leaderboard("binary", "r2", [Entry("a", "k", oof=p)], y)
    with pytest.raises(DataError, match="do not fit"):
        leaderboard("binary", "roc_auc", [Entry("a", "k", oof=p[:-1])], y)


@pytest.mark.parametrize("metric", ["accuracy", "roc_auc"])
def test_the_correction_is_nearer_to_the_truth_than_the_best_score(metric):
    """Forty useless or weak candidates, chosen among on 150 rows, judged on 20,000 new ones."""
    naive, corrected = [], []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        skill = rng.uniform(0, 0.25, 40)

        def draw(n: int, rng: np.random.Generator = rng, skill: np.ndarray = skill):
            y = rng.integers(0, 2, n)
            margin = skill * (2 * y[:, None] - 1) + rng.normal(size=(n, 40))
            return y, 1 / (1 + np.exp(-margin))

        y, p = draw(150)
        board = leaderboard("binary", metric, [Entry(str(j), "k", oof=p[:, j]) for j in range(40)],
                            y, resamples=200)
        new_y, new_p = draw(20_000)
        chosen = int(max(board.places, key=lambda q: q.score.value).entry.name)
        truth = exact("binary", metric, new_y, new_p[:, chosen])
        naive.append(board.luck.best - truth)
        corrected.append(board.luck.corrected.value - truth)
    assert np.mean(naive) > 0.04  # the winner's curse
    assert abs(np.mean(corrected)) < 0.35 * np.mean(naive)
    assert np.abs(corrected).mean() < 0.8 * np.abs(naive).mean()


def test_a_best_that_is_always_picked_owes_nothing_to_luck():
    y, _, (good,) = drawn("binary", 3000, 1)
    entries = [Entry("a", "k", oof=good), Entry("b", "k", oof=np.full(3000, 0.5))]
    board = leaderboard("binary", "roc_auc", entries, y)
    assert board.luck.luck == pytest.approx(0, abs=1e-12)
    assert board.luck.corrected.low < board.luck.best < board.luck.corrected.high
    assert "costs nothing that could be measured" in board.sentences()[1]


def test_fifty_candidates_on_fifty_thousand_rows_take_seconds():
    y, _, predictions = drawn("binary", 50_000, 10)
    began = time.process_time()
    board = leaderboard("binary", "roc_auc",
                        [Entry(str(i), "k", oof=p) for i, p in enumerate(predictions * 5)], y)
    assert time.process_time() - began < 12  # about 1 here
    assert board.tied == 5
