"""Where a search looks, as a pipeline file says it."""

from __future__ import annotations

import optuna
import pytest

from gpupipe.config import parse_config
from gpupipe.errors import ConfigError
from gpupipe.models import MODELS, OneOf, Range, model_of
from gpupipe.tune.space import dimension, families_of, space_of


def config(tune: dict, **sections):
    return parse_config({"data": {"source": "t.csv", "target": "y"}, "tune": tune, **sections})


@pytest.mark.parametrize(("given", "own", "expected"), [
    ([1, 5], None, Range(1, 5)),
    ([0.01, 1.0], Range(0.1, 0.2, log=True), Range(0.01, 1.0, log=True)),
    ([1, 5], OneOf((1, 2)), OneOf((1, 5))),
    ([1, 2, 3], None, OneOf((1, 2, 3))),
    ({"low": 1e-3, "high": 1.0, "log": True}, None, Range(1e-3, 1.0, log=True)),
    ({"choices": [0.5, 2]}, Range(0, 1), OneOf((0.5, 2))),
    ("gblinear", None, OneOf(("gblinear",))),
    ([True, False], None, OneOf((True, False))),
])
def test_a_dimension(given, own, expected):
    assert dimension(given, own) == expected


@pytest.mark.parametrize("given", [[], [5, 1], {"low": 1}, {"low": 0, "high": 1, "log": True},
                                   {"low": "a", "high": 2}, {"choices": []}])
def test_a_dimension_that_is_none(given):
    with pytest.raises(ConfigError):
        dimension(given, None)


def test_a_named_family_is_searched_alone():
    assert families_of(config({"trials": 1}, model={"kind": "linear"}), "binary") == ["linear"]
    assert "xgboost" in families_of(config({"trials": 1}), "binary")
    assert families_of(config({"trials": 1, "models": ["linear", "xgboost", "linear"]}),
                       "regression") == ["linear", "xgboost"]


def test_parameters_of_the_model_are_fixed():
    space = space_of(config({"trials": 1}, model={"kind": "xgboost", "params": {"max_depth": 4}}),
                     "binary")
    assert "max_depth" not in space.families["xgboost"]
    assert space.plain("xgboost").params == {"max_depth": 4}
    trial = optuna.trial.FixedTrial(space.nearest("xgboost"))
    assert space.suggest(trial).params["max_depth"] == 4


def test_a_dimension_that_clashes_with_what_is_fixed_is_left_out(monkeypatch):
    """``l1_ratio`` says nothing beside a penalty that is a lasso."""
    shares = OneOf((0.0, 0.5, 1.0))
    monkeypatch.setattr(MODELS["linear"], "space", {**MODELS["linear"].space, "l1_ratio": shares})
    plain = space_of(config({"trials": 1}, model={"kind": "linear"}), "binary")
    assert plain.families["linear"]["l1_ratio"] == shares
    model = {"kind": "linear", "params": {"penalty": "l1"}}
    space = space_of(config({"trials": 1}, model=model), "binary")
    assert "l1_ratio" not in space.families["linear"]
    assert "C" in space.families["linear"]


@pytest.mark.parametrize(("space", "message"), [
    ({"max_dept": [1, 3]}, "has no parameter 'max_dept'"),
    ({"forrest.max_depth": [1, 3]}, "not a family of this search"),
    ({"features.scal.method": ["a", "b"]}, "unknown step 'scal'"),
    ({"features.scale.metod": ["a", "b"]}, "has no parameter 'metod'"),
    ({"features.scale.method": ["standard", "no such"]}, "cannot be 'no such'"),
    ({"features.encoder": ["onehot"]}, "unknown encoder"),
])
def test_a_space_that_does_not_fit(space, message):
    with pytest.raises(ConfigError, match=message) as told:
        space_of(config({"trials": 1, "space": space}, model={"kind": "xgboost"}), "binary")
    assert "tune.space" in str(told.value)


@pytest.mark.parametrize("models", ["xgbost", ["linear", "nothing"]])
def test_an_unknown_family(models):
    with pytest.raises(ConfigError, match="unknown model"):
        families_of(config({"trials": 1, "models": models}), "binary")


def test_a_grid_is_every_point_of_what_is_named():
    space = space_of(config({"sampler": "grid", "models": ["xgboost", "linear"], "space": {
        "xgboost.max_depth": [2, 3, 4], "linear.C": {"choices": [0.1, 1.0]}}}), "binary")
    points = space.grid()
    assert len(points) == 5
    assert {"model": "linear", "linear.C": 0.1} in points
    ranged = space_of(config({"sampler": "grid", "space": {"max_depth": [2, 4]}}), "binary")
    with pytest.raises(ConfigError, match="a grid needs lists"):
        ranged.grid()


@pytest.mark.parametrize("kind", MODELS)
def test_every_family_can_be_built_anywhere_in_its_space(kind):
    """The defaults' nearest point lies in the space, and the ends of every range are taken."""
    space = MODELS[kind].space
    for name, where in space.items():
        ends = (where.low, where.high) if isinstance(where, Range) else where.values
        for value in ends:
            model_of(kind, {name: value})


@pytest.mark.parametrize("kind", ["xgboost", "lightgbm", "catboost"])
def test_two_numbers_are_a_range_of_learning_rates(kind):
    """A family's own is one value: a search holds it, and a file may still give a range."""
    fixed = space_of(config({"trials": 1}, model={"kind": kind}), "binary")
    assert fixed.families[kind]["learning_rate"] == Range(0.1, 0.1, log=True)
    tune = {"trials": 1, "space": {"learning_rate": [0.02, 0.3]}}
    ranged = space_of(config(tune, model={"kind": kind}), "binary")
    assert ranged.families[kind]["learning_rate"] == Range(0.02, 0.3, log=True)


def test_a_target_above_0_opens_losses_that_are_for_such():
    kinds = ["xgboost", "lightgbm", "catboost", "extra_trees"]
    plain = space_of(config({"trials": 1}), "regression")
    opened = space_of(config({"trials": 1}), "regression", positive=True)
    assert not any("objective" in s for s in plain.families.values())
    assert {k for k, s in opened.families.items() if "objective" in s} == set(kinds[:3])
    assert set(kinds) <= set(families_of(config({"trials": 1}), "regression"))
    assert "extra_trees" not in families_of(config({"trials": 1}), "binary")
    more = [p for p in opened.starts() if p not in plain.starts()
            and any(p.get(f"{k}.objective") for k in kinds)]
    assert [(p["model"], p[f"{p['model']}.objective"]) for p in more] == [
        ("xgboost", "reg:tweedie"), ("lightgbm", "tweedie"), ("catboost", "LogRMSE")]
    for point in more:
        proposal = opened.suggest(optuna.trial.FixedTrial(point))
        assert model_of(proposal.kind, proposal.params).given["objective"]
    assert len(opened.starts()) == len(plain.starts()) + 3


@pytest.mark.parametrize("tune, sections", [
    ({"trials": 1}, {"model": {"kind": "xgboost", "params": {"objective": "count:poisson"}}}),
    ({"sampler": "grid", "space": {"max_depth": {"choices": [3, 4]}}},
     {"model": {"kind": "xgboost"}}),
])
def test_what_the_file_says_of_the_loss_holds(tune, sections):
    space = space_of(config(tune, **sections), "regression", positive=True)
    assert "objective" not in space.families["xgboost"]
    own = space_of(config({"trials": 1, "space": {"objective": {"choices": ["reg:gamma"]}}},
                          model={"kind": "xgboost"}), "regression", positive=True)
    assert own.families["xgboost"]["objective"] == OneOf(("reg:gamma",))


@pytest.mark.parametrize("kind", [k for k, m in MODELS.items() if m.starts])
def test_starts_lie_in_the_space(kind):
    """A search proposes them as they are: none is moved to the nearest point."""
    space = space_of(config({"trials": 1}, model={"kind": kind}), "binary")
    for start, point in zip(MODELS[kind].starts, space.starts(), strict=True):
        assert {f"{kind}.{name}": value for name, value in start.items()}.items() <= point.items()
        assert point == space.nearest(kind, start)
        assert model_of(kind, space.suggest(optuna.trial.FixedTrial(point)).params)


def test_what_a_table_opens_is_tried_alone_and_all_at_once():
    tune = {"trials": 1, "models": ["linear", "xgboost", "lightgbm"]}
    usual = {"features.numbers": "auto", "features.text": "auto", "features.ratios": "none"}
    other = {"features.numbers": "target_encode", "features.text": "target_encode",
             "features.ratios": "pairs"}
    names = [n.removeprefix("features.") for n in other]
    plain = space_of(config(tune), "regression").starts()
    points = space_of(config(tune), "regression", names, positive=True).starts()
    for kind, loss, alone in (("xgboost", "reg:tweedie", ["numbers", "ratios"]),
                              ("lightgbm", "tweedie", ["text"])):
        mine = [p for p in points if p["model"] == kind]
        first, name = mine[0], f"{kind}.objective"
        assert mine[:3] == [p | usual | {name: None} for p in plain if p["model"] == kind]
        assert mine[3:] == [
            *(first | {f"features.{n}": other[f"features.{n}"]} for n in alone),
            first | {name: loss}, first | other | {name: loss}]
    # What one table alone opens comes with every family.
    points = space_of(config(tune), "binary", ("numbers",)).starts()
    assert [p["features.numbers"] for p in points] == ["auto"] * 6 + ["target_encode"] * 2


def test_starts_of_several_families_take_turns_and_none_comes_twice():
    tune = {"trials": 1, "models": ["xgboost", "linear", "lightgbm"]}
    points = space_of(config(tune), "binary").starts()
    assert [p["model"] for p in points] == ["xgboost", "lightgbm"] * 3
    narrow = {name: {"choices": [0]} for name in MODELS["lightgbm"].space}
    narrow |= {"learning_rate": 0.1, "num_leaves": 31, "min_child_samples": 20,
               "subsample": 0.9, "colsample_bytree": 0.9}
    tune = {"trials": 1, "models": "lightgbm", "space": narrow}
    assert len(space_of(config(tune), "binary").starts()) == 1
