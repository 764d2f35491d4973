"""What a search of values tries beside the numbers and the text: ratios of amounts, levels by
their mean."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from common.harness import Sample
from common.quick import best_names, trained_on, tried_and_taken

from gpupipe.engine.memory import Layout
from gpupipe.features import amounts
from gpupipe.prepare import Prepared
from gpupipe.steps.graph import feature_names
from gpupipe.steps.profile import take_profile

pytestmark = pytest.mark.long


def blocks(n: int = 900, seed: int = 0) -> pa.Table:
    """``value`` follows from rooms to a household; ``age`` and ``height`` stand beside them."""
    rng = np.random.default_rng(seed)
    households = rng.integers(50, 2_000, n)
    rooms = households * rng.uniform(1, 9, n)
    value = 40 * rooms / households + rng.normal(size=n) * 4 + 200
    return pa.table({
        "rooms": rooms, "households": households, "serial": np.arange(n),
        "depth": rng.uniform(60, 63, n), "loss": rng.normal(size=n), "value": value,
        "many": (value > np.median(value)).astype(np.int64),
    })


def searched(folder, *, target="value", table=None, space=None, features=None, trials=7):
    table = blocks() if table is None else table
    config = {
        "data": {"source": "t.parquet", "target": target, "drop": sorted(
            {"serial", "value", "many"} & set(table.column_names) - {target})},
        "split": {"holdout": 0, "folds": 3}, "ensemble": "none", "engine": {"workers": 1},
        "evaluate": {"baselines": [], "resamples": 10},
        "model": {"kind": "xgboost", "params": {"n_estimators": 12, "learning_rate": 0.3}},
        "tune": {"trials": trials, "space": {"max_depth": [2, 3], **(space or {})}},
    }
    if features is not None:
        config["features"] = features
    return trained_on(table, config, folder)


def test_a_search_of_values_tries_them_and_finds_what_they_say(tmp_path):
    trained = searched(tmp_path / "a")
    found = trained.chosen.found
    tried_and_taken(found, "ratios", "pairs")
    assert set(best_names(found)) == {
        "rooms", "households", "depth", "loss", "rooms_per_households"}, \
        "depth hardly differs, and a loss may be below 0"
    none = searched(tmp_path / "b", space={"features.ratios": "none"})
    assert {t.features.get("ratios", "none") for t in none.chosen.found.trials} == {"none"}
    assert none.knowledge.scans == trained.knowledge.scans, "the choice cost no scan"


def test_memory_is_laid_out_for_the_widest_matrix_of_a_search(tmp_path, monkeypatch):
    widths, layout = [], Prepared.layout

    def seen(self: Prepared, width: int, processes: int | None = None) -> Layout:
        widths.append(width)
        return layout(self, width, processes)

    monkeypatch.setattr(Prepared, "layout", seen)
    searched(tmp_path / "a", trials=2)
    assert widths == [5], "four columns, and a ratio"


def test_of_classes_they_are_tried_where_the_file_says_so(tmp_path):
    usual = searched(tmp_path / "a", target="many", trials=2)
    assert "ratios" not in usual.chosen.found.space.features
    asked = searched(tmp_path / "b", target="many", space={"features.ratios": "pairs"}, trials=2)
    last = asked.chosen.found.trials[-1]
    assert last.features["ratios"] == "pairs"
    names = feature_names(asked.chosen.found.candidates[last.number].graph,
                          asked.chosen.found.views[last.number][-1])
    assert "rooms_per_households" in dict(names)


def test_no_choice_where_the_file_has_steps_or_the_name_is_taken(tmp_path):
    own = searched(tmp_path / "a", features=[{"clip": {"columns": "loss", "upper": 0.9}}],
                   trials=2)
    assert "ratios" not in own.chosen.found.space.features
    table = blocks().append_column("rooms_per_households", pa.array(np.zeros(900)))
    taken = searched(tmp_path / "b", table=table, trials=2)
    assert "ratios" not in taken.chosen.found.space.features
    rng = np.random.default_rng(0)
    met = blocks().append_column("x_encoded", pa.array(rng.uniform(1, 9, 900))).append_column(
        "rooms_per_x", pa.array(rng.integers(0, 9, 900)))
    both = searched(tmp_path / "c", table=met, trials=2).chosen.found
    assert not both.space.features, "rooms_per_x_encoded would be there twice"


def of(**columns: pa.Array) -> list[str]:
    """The amounts among some columns."""
    sample = Sample(pa.table(columns), np.zeros(60, np.int64), np.zeros(60, np.uint8), 1)
    return amounts(sample.features, take_profile(sample.rowed().reader, target=None))


def test_which_numbers_are_amounts():
    rng = np.random.default_rng(0)
    sizes = {name: rng.uniform(1, 9, 60) for name in "abcdefghi"}
    plain = {"zeros": np.append(np.zeros(58), [3.0, 4.0]), "flag": rng.integers(0, 2, 60),
             "same": np.full(60, 2.5), "narrow": rng.uniform(60, 65, 60), "text": ["x"] * 60,
             "debt": rng.uniform(-1, 9, 60)}
    assert of(**plain, a=sizes["a"]) == [], "of one alone there is no ratio"
    assert of(**plain, a=sizes["a"], b=sizes["b"]) == ["a", "b"]
    assert of(**{n: sizes[n] for n in "abcdefgh"}) == list("abcdefgh")
    assert of(**sizes) == [], "of nine there would be 36"
    assert of(a=sizes["a"], b=sizes["b"], a_per_b=plain["text"]) == []
    twice = dict(zip(("cost", "km_per_hour", "cost_per_km", "hour"), sizes.values(), strict=False))
    assert of(**twice) == [], "cost_per_km_per_hour would be there twice"


def graded(n: int = 900, seed: int = 0) -> pa.Table:
    """``value`` rises with a ``grade``, whose names have another order; ``side`` has two."""
    rng = np.random.default_rng(seed)
    names = np.array([f"grade {c}" for c in "qwertyuiopasdfghjklz"])
    grade = rng.integers(0, 20, n)
    return pa.table({
        "grade": names[grade], "side": np.array(["left", "right"])[rng.integers(0, 2, n)],
        "size": rng.normal(size=n), "value": grade + 100 + rng.normal(size=n),
        "many": (grade + 5 * rng.normal(size=n) > 10).astype(np.int64),
    })


def test_text_of_few_levels_is_taken_in_the_order_of_its_means_as_well(tmp_path):
    found = searched(tmp_path / "a", table=graded()).chosen.found
    assert set(found.space.features) == {"text"}, "there are no two amounts"
    encoded = [t for t in found.trials if t.features.get("text") == "target_encode"]
    assert encoded and found.best in encoded
    assert best_names(found) == ["grade", "grade_encoded", "side", "size"], \
        "two levels have one order"
    asis = searched(tmp_path / "b", table=graded(), space={"features.text": "auto"}).chosen.found
    assert found.best.score > asis.best.score
    classes = searched(tmp_path / "c", table=graded(), target="many", trials=2).chosen.found
    assert "text" not in classes.space.features
