"""Trees by bit masks add up to what XGBoost predicts, to the last bit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.models import ubj
from gpupipe.models.forests import forest_of
from gpupipe.models.native import StoredBooster
from gpupipe.scorer import quick
from gpupipe.scorer.links import link_of, margins_of
from gpupipe.scorer.quick import Quick, Untabled, _cuts

RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 6)).astype(np.float32)
X[:, 3] = RNG.integers(0, 30, 600)
X[RNG.random(X.shape) < 0.1] = np.nan
NEW = RNG.normal(size=(80, 6)) * RNG.choice([1, 1e-3, 1e3], (80, 1))
NEW[:, 3] = RNG.integers(0, 40, 80)
NEW[RNG.random(NEW.shape) < 0.1] = np.nan
NEW[:4, 0] = [1e300, -1e300, 3.4028235677973366e38, 3.4028234e38]
TYPES = ["q", "q", "q", "c", "q", "q"]
COUNTS = RNG.integers(0, 5, 600)
LABELS = {
    "binary:logistic": (COUNTS > 2, {}), "reg:logistic": (RNG.random(600), {}),
    "reg:squarederror": (COUNTS, {}), "reg:pseudohubererror": (COUNTS, {}),
    "count:poisson": (COUNTS, {"num_parallel_tree": 2, "subsample": 0.5}),
    "reg:gamma": (COUNTS + 1.0, {}), "reg:tweedie": (COUNTS, {}),
    "survival:cox": (RNG.normal(size=600), {}), "rank:pairwise": (COUNTS, {}),
    "reg:quantileerror": (COUNTS, {"quantile_alpha": [0.1, 0.9]}),
    "multi:softprob": (COUNTS % 3, {"num_class": 3}),
}


def booster_of(objective: str, **params) -> xgboost.Booster:
    y, more = LABELS[objective]
    data = xgboost.DMatrix(X, np.asarray(y, np.float32), feature_types=TYPES,
                           enable_categorical=True)
    if objective.startswith("rank"):
        data.set_group([60] * 10)
    return xgboost.train({"objective": objective, "max_depth": 5, "nthread": 1,
                          "max_cat_to_onehot": 4, **more, **params}, data, 12)


@pytest.mark.parametrize("objective", LABELS)
@pytest.mark.parametrize("rounds", [12, 5])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_margins_and_predictions_are_xgboosts_own(objective, rounds):
    raw = bytes(booster_of(objective).save_raw("ubj"))
    forest, stored = forest_of(raw, 6), StoredBooster(raw, 6)
    base = np.broadcast_to(margins_of(objective, forest.base), forest.groups)
    table = Quick(forest, int(forest.ends[rounds]), base)
    link, known = link_of(objective), NEW.astype(np.float32)
    margins = stored.inplace_predict(known, (0, rounds), "margin")
    predicted = stored.inplace_predict(known, (0, rounds))
    for i, row in enumerate(NEW.tolist()):
        found = table.margins([s.at(row[f]) for f, s in table.splits.items()])
        assert found.tobytes() == np.atleast_1d(margins[i]).tobytes()
        assert link(found).tobytes() == np.atleast_1d(predicted[i]).tobytes()


@settings(max_examples=200, deadline=None)
@given(threshold=st.floats(width=32, allow_nan=False), value=st.floats(allow_nan=False))
def test_a_float64_is_cut_where_its_float32_would_be(threshold, value):
    cut = float(_cuts(np.array([threshold], np.float32))[0])
    with np.errstate(over="ignore"):
        for x in (value, cut, np.nextafter(cut, -np.inf), np.nextafter(cut, np.inf), threshold):
            assert (x >= cut) == (np.float32(x) >= np.float32(threshold)), x


def test_trees_that_do_not_fit_are_refused_in_words(monkeypatch):
    deep = forest_of(bytes(booster_of("reg:squarederror", max_depth=12,
                                      min_child_weight=0).save_raw("ubj")), 6)
    with pytest.raises(Untabled, match="leaves, more than 64"):
        Quick(deep, len(deep.root), np.zeros(1))
    monkeypatch.setattr(quick, "BUDGET", 1 << 10)
    small = forest_of(bytes(booster_of("reg:squarederror").save_raw("ubj")), 6)
    with pytest.raises(Untabled, match="MiB"):
        Quick(small, len(small.root), np.zeros(1))


@pytest.mark.parametrize("params", [{}, {"booster": "dart", "rate_drop": 0.5}])
@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob", "reg:gamma"])
def test_a_stored_booster_predicts_as_the_package_does(objective, params):
    whole = booster_of(objective, **params)
    stored = StoredBooster(bytes(whole.save_raw("ubj")), 6)
    for chunk in (X, X[:1], X[::3], np.asfortranarray(X)):
        for kind in ("value", "margin"):
            for rounds in ((0, 0), (0, 4)):
                expected = whole.inplace_predict(chunk, iteration_range=rounds,
                                                 predict_type=kind)
                found = stored.inplace_predict(chunk, rounds, kind)
                assert found.shape == expected.shape and found.tobytes() == expected.tobytes()
    assert stored.inplace_predict(X[:0]).shape[0] == 0
    assert stored.num_boosted_rounds() == 12  # asked of the package
    again = pickle.loads(pickle.dumps(stored))
    assert again.inplace_predict(X).tobytes() == stored.inplace_predict(X).tobytes()


def damaged(change) -> bytes:
    model = ubj.read(bytes(booster_of("reg:squarederror").save_raw("ubj")))
    change(model["learner"], model["learner"]["gradient_booster"]["model"])
    return ubj.written(model)


def first(name: str, at: int, value: int):
    def change(learner, content) -> None:
        array = content["trees"][0][name]
        array = content["trees"][0][name] = array.copy()
        array[at] = value
    return change


@pytest.mark.parametrize("change", [
    first("left_children", 0, 1_000_000), first("left_children", 1, 0),
    first("right_children", 0, 1), first("left_children", 2, -7), first("parents", 1, 2),
    first("split_indices", 0, 6), first("split_indices", 0, -1),
    lambda learner, content: content["trees"][0].update(
        split_type=1 - content["trees"][0]["split_type"]),
    lambda learner, content: content["trees"].pop(),
    lambda learner, content: content["tree_info"].__setitem__(0, 9),
    lambda learner, content: content["iteration_indptr"].__setitem__(3, 99),
    lambda learner, content: content["trees"][0].pop("split_type"),
    lambda learner, content: content["trees"][0].update(base_weights=np.zeros(1, np.float32)),
    lambda learner, content: content["trees"][0]["tree_param"].update(num_nodes="-3"),
    lambda learner, content: learner["learner_model_param"].update(num_feature="4000000000"),
    lambda learner, content: learner["learner_model_param"].update(num_class="x"),
    lambda learner, content: learner["learner_model_param"].update(base_score="[nan]"),
    lambda learner, content: learner["gradient_booster"].update(name="gblinear"),
    lambda learner, content: learner.pop("objective"),
], ids=range(19))
def test_bytes_that_are_no_trees_never_reach_the_library(change):
    with pytest.raises(ValueError, match="model"):
        StoredBooster(damaged(change), 6)


def test_any_cut_and_any_flipped_bit_is_read_or_refused():
    raw = bytes(booster_of("reg:squarederror").save_raw("ubj"))
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(raw), 300).tolist():
        flipped = bytearray(raw)
        flipped[at] ^= 1 << int(rng.integers(8))
        for data in (raw[:at], bytes(flipped)):
            try:
                forest_of(data, 6)
            except ValueError:
                continue
    for odd in (b"", b"{", b"[" * 100_000, b"[#L" + b"\x7f" * 8, b"[$U#L" + b"\x7f" * 8, b"Sx"):
        with pytest.raises(ValueError, match=r"model|length"):
            forest_of(odd, 6)
