"""Two sides are held against each other, and whatever is planted on one of them is found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from common.quick import settings, small_table

from gpupipe import parity as room
from gpupipe.cli.outcome import call
from gpupipe.config import EngineConfig, PipelineConfig, parse_config
from gpupipe.engine.local import LocalEngine
from gpupipe.engine.pandas import PandasFrames
from gpupipe.errors import ConfigError
from gpupipe.parity.certificate import FEATURE_ULPS, SCORE_ULPS, Certificate, compare
from gpupipe.parity.observe import Observed, Place, metrics_of, observe
from gpupipe.parity.page import render_certificate
from gpupipe.training import retrain, train
from gpupipe.workflow import ingested

pytestmark = pytest.mark.long

ONE = EngineConfig(workers=1)
TWO = EngineConfig(workers=2, batch_rows=37)
STEPS = [{"impute": {"columns": "numeric", "strategy": "mean", "indicator": True}},
         {"scale": {"columns": "numeric"}}, {"target_encode": {"columns": "categorical"}},
         {"datetime": {"columns": "datetime"}}]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> PipelineConfig:
    folder = tmp_path_factory.mktemp("parity")
    pq.write_table(small_table(600), folder / "t.parquet", row_group_size=150)
    made = settings(split={"folds": 2}, features=STEPS, data={"source": str(folder / "t.parquet")},
                    evaluate={"baselines": ["linear"]},
                    model={"kind": "xgboost", "params": {"n_estimators": 12, "max_depth": 3}})
    return parse_config(made)


def side(config: PipelineConfig, engine: LocalEngine, cache: Path, *like: Any) -> Observed:
    return observe(train(config, ingested(config, cache, None, None), engine), "cpu", *like)


@pytest.fixture(scope="module")
def observed(config, tmp_path_factory) -> Observed:
    return side(config, LocalEngine(1), tmp_path_factory.mktemp("cache"))


SEEDS: list[Mapping[str, float | None]] = [{"roc_auc": 0.80}, {"roc_auc": 0.81}, {"roc_auc": 0.79}]


def levels(certificate: Certificate) -> str:
    """``LLL`` where all three levels hold; a dot for one that does not."""
    return "".join("L" if level.holds else "." for level in certificate.levels)


def test_engines_that_differ_in_workers_and_batches_are_equal_to_the_bit(config, tmp_path):
    found = room.parity(config, ONE, TWO, seeds=2, cache=tmp_path)
    assert found.holds
    compared = [*found.rows, *found.states, *found.params, *found.features, *found.scores]
    assert all(c.equal for c in compared)
    assert {c.where for c in found.params} == {
        f"{m}, {v}" for m in ("model", "linear") for v in ("final", "fold 1", "fold 2")}
    assert {"scale(f)", "impute(f)", "target_encode(s)"} <= {c.what for c in found.params}
    assert found.about["fingerprints"]["left"] == found.about["fingerprints"]["right"]
    assert [m.difference for m in found.metrics] == [0.0] * len(found.metrics)


@pytest.mark.skipif(find_spec("distributed") is None, reason="Dask is not installed")
def test_local_and_dask_learn_and_make_the_same_to_the_bit(config, tmp_path):
    found = room.parity(config, ONE, EngineConfig(kind="dask", workers=2), seeds=2, cache=tmp_path)
    assert levels(found)[:2] == "LL"
    assert all(c.equal for c in [*found.rows, *found.states, *found.params, *found.features,
                                 *found.scores])
    assert found.about["right"]["engine"]["kind"] == "dask"
    assert "distributed" in found.about["versions"]


def test_a_real_table_is_equal_to_the_bit_on_two_engines(shared_data, tmp_path):
    source = shared_data / "adult" / "adult.test"
    config = parse_config({
        "data": {"source": str(source), "target": "outcome", "positive": ">50K."},
        "split": {"folds": 2}, "model": {"params": {"n_estimators": 6}},
        "evaluate": {"baselines": ["linear"], "metrics": ["roc_auc", "log_loss"]},
    })
    left = EngineConfig(workers=1, batch_rows=5_000)
    found = room.parity(config, left, EngineConfig(workers=2, batch_rows=50_000), seeds=2,
                        cache=tmp_path)
    assert found.holds
    assert all(c.equal for c in [*found.rows, *found.states, *found.params, *found.features,
                                 *found.scores])
    assert len(found.params) > 30 and found.about["data"]["rows"] > 16_000
    assert {m.name for m in found.metrics} == {"roc_auc", "log_loss"}


# Planted differences --------------------------------------------------------------------------


def changed_param(observed: Observed, place: Place, name: str, value: Any) -> Observed:
    params = {**observed.params, place: {**observed.params[place], name: value}}
    return replace(observed, params=params)


def next_float(value: Any) -> Any:
    """The same number, array or list, an ulp up (the first one, where there are several)."""
    if isinstance(value, float):
        return float(np.nextafter(value, np.inf))
    if isinstance(value, np.ndarray):
        made = value.copy()
        made.flat[0] = np.nextafter(made.flat[0], np.inf)
        return made
    return [next_float(value[0]), *value[1:]]


def floats_of(observed: Observed) -> list[tuple[Place, str]]:
    """The params that hold floating-point numbers."""
    found = []
    for place, params in observed.params.items():
        for name, value in params.items():
            first = value[0] if isinstance(value, (list, tuple)) and value else value
            floating = isinstance(first, float) or (
                isinstance(value, np.ndarray) and value.size and value.dtype.kind == "f")
            if floating and not np.isnan(np.asarray(value).flat[0]):
                found.append((place, name))
    return found


def test_nothing_differs_from_itself(observed):
    found = compare(observed, observed, [observed.metrics] * 2)
    assert levels(found) == "LLL"
    assert not any(c.found for c in [*found.rows, *found.states, *found.params])


def test_one_ulp_in_any_learned_number_is_found_by_name(observed):
    places = floats_of(observed)
    assert {p.step for p, _ in places} >= {"impute", "scale", "target_encode"}
    for place, name in places:
        other = changed_param(observed, place, name, next_float(observed.params[place][name]))
        found = compare(observed, other, [observed.metrics] * 2)
        assert levels(found) == ".LL"
        (only,) = [c for c in found.params if not c.equal]
        assert only.what == f"{place.step}({place.column})"
        assert only.where == f"{place.model}, {place.view}"
        assert only.ulps == 1 and only.found.startswith(f"{name}: ")
        assert only.what in found.levels[0].found


def test_one_row_in_another_bucket_is_found_with_its_number(observed):
    buckets = observed.buckets.copy()
    buckets[123] ^= 1
    found = compare(observed, replace(observed, buckets=buckets), [observed.metrics] * 2)
    assert levels(found) == ".LL"
    (only,) = [c for c in found.rows if not c.equal]
    assert only.what == "bucket of every row"
    assert only.found == "1 of 600 rows; the first is row 123"


@pytest.mark.parametrize(("ulps", "holds"), [(FEATURE_ULPS, True), (FEATURE_ULPS + 1, False)])
def test_a_feature_may_be_as_far_off_as_is_promised_and_no_further(observed, ulps, holds):
    names, values = observed.features["model"]
    moved = values.copy()
    at = 0, int(np.flatnonzero(np.isfinite(values[0]))[0])
    for _ in range(ulps):
        moved[at] = np.nextafter(moved[at], np.float32(np.inf))
    other = replace(observed, features={**observed.features, "model": (names, moved)})
    found = compare(observed, other, [observed.metrics] * 2)
    assert levels(found) == ("LLL" if holds else "L.L")
    (only,) = [c for c in found.features if not c.equal]
    assert (only.what, only.ulps) == (names[at[1]], ulps)


def test_a_feature_that_is_missing_on_one_side_alone_is_found(observed):
    names, values = observed.features["model"]
    holed = values.copy()
    holed[5, 0] = np.nan
    other = replace(observed, features={**observed.features, "model": (names, holed)})
    found = compare(observed, other, [observed.metrics] * 2)
    assert levels(found) == "L.L" and "missing" in found.levels[1].found


@pytest.mark.parametrize(("ulps", "holds"), [(SCORE_ULPS, True), (SCORE_ULPS + 1, False)])
def test_scores_may_be_as_far_off_as_is_promised_and_no_further(observed, ulps, holds):
    scores = observed.scores.astype(np.float32)
    for _ in range(ulps):
        scores[7] = np.nextafter(scores[7], np.float32(1))
    other = replace(observed, scores=scores.astype(np.float64))
    found = compare(observed, other, [observed.metrics] * 2)
    assert levels(found) == ("LLL" if holds else "L.L")
    assert found.scores[0].ulps == ulps


@pytest.mark.parametrize(("right", "holds"), [(0.809, True), (0.8101, False), (0.7899, False)])
def test_a_metric_may_be_a_standard_deviation_over_seeds_away(observed, right, holds):
    left = replace(observed, metrics={"roc_auc": 0.80})
    found = compare(left, replace(observed, metrics={"roc_auc": right}), SEEDS)
    assert levels(found) == ("LLL" if holds else "LL.")
    assert found.metrics[0].deviation == pytest.approx(0.01)
    assert found.metrics[0].seeds == [0.80, 0.81, 0.79]


def test_what_one_side_lacks_is_found(observed):
    place = next(iter(observed.params))
    fewer = {p: v for p, v in observed.params.items() if p != place}
    found = compare(observed, replace(observed, params=fewer), [observed.metrics] * 2)
    assert [c.found for c in found.params if not c.equal] == ["only on the left"]
    states = dict(list(observed.states.items())[1:])
    found = compare(replace(observed, states=states), observed, [observed.metrics] * 2)
    assert [c.found for c in found.states if not c.equal] == ["only on the right"]


class Faulty(PandasFrames):
    """A frame library that gets one number wrong by one ulp: the last bit of the largest."""

    def numbers(self, column: Any) -> Any:
        values = super().numbers(column)
        if values.dtype == np.float64 and len(values) and column.dtype == "float64":
            values = values.copy()
            largest = np.nanargmax(values)
            values[largest] = np.nextafter(values[largest], np.inf)
        return values


def test_a_frame_library_that_is_off_by_an_ulp_is_found(config, observed, tmp_path):
    faulty = LocalEngine(1, fx=Faulty())
    other = side(config, faulty, tmp_path, observed.model, observed.keys)
    found = compare(observed, other, [observed.metrics] * 2)
    assert not found.levels[0].holds
    assert "Moments of f" in {c.what for c in found.states if not c.equal}
    assert "scale(f)" in {c.what for c in found.params if not c.equal}


# Seeds, sides, pages ----------------------------------------------------------------------------


def test_another_seed_trains_another_model_on_the_same_rows_and_numbers(config, tmp_path):
    params = {"n_estimators": 12, "subsample": 0.5}
    random = config.model_copy(update={"model": config.model.model_copy(
        update={"params": params})})
    trained = train(random, ingested(random, tmp_path, None, None), LocalEngine(1))
    again, same = retrain(trained, 1), retrain(trained, 0)
    assert again.split is trained.split and again.model.fitted is trained.model.fitted
    assert metrics_of(same) == metrics_of(trained)
    assert metrics_of(again) != metrics_of(trained)


def test_the_sides_are_cpu_and_gpu_where_there_is_one_and_else_local_and_dask(monkeypatch):
    monkeypatch.setattr(room, "cuda_devices", lambda: 0)
    assert room.sides() == ("local", "dask")
    monkeypatch.setattr(room, "cuda_devices", lambda: 1)
    assert room.sides() == ("cpu", "cuda")
    assert room.sides("local", "dask") == ("local", "dask")
    engine = EngineConfig(memory="2GiB", batch_rows=9)
    made = room.engine_of("cuda", engine)
    assert (made.device, made.kind, made.memory, made.batch_rows) == ("cuda", "local", "2GiB", 9)
    with pytest.raises(ConfigError, match="no side"):
        room.sides("gpu")
    with pytest.raises(ConfigError, match="both sides are 'cpu'"):
        room.sides("cpu", "cpu")


def test_the_page_and_the_json_say_the_same(config, tmp_path):
    found = room.parity(config, ONE, TWO, names=("one", "<two>"), seeds=2, cache=tmp_path / "c")
    data, page = room.write(found, tmp_path / "out")
    told = json.loads(data.read_text())
    assert told["holds"] is True and [v["holds"] for v in told["levels"]] == [True] * 3
    assert told["data"]["rows"] == 600 and told["hardware"]["cores"] >= 1
    html = page.read_text()
    assert "parity holds" in html and "<two>" not in html and "&lt;two&gt;" in html
    assert "http" not in html.replace("http-equiv", "") and "<script" not in html
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "certificate.html", "certificate.json"]


def test_a_page_of_differences_names_them(observed, config, tmp_path):
    about = room.parity(config, ONE, TWO, seeds=2, cache=tmp_path).about
    place, name = floats_of(observed)[0]
    other = changed_param(observed, place, name, next_float(observed.params[place][name]))
    html = render_certificate(compare(observed, other, [observed.metrics] * 2, about))
    assert "parity does not hold" in html and "1 ulp" in html and place.step in html


def test_the_command_ends_with_4_where_a_level_does_not_hold(config, monkeypatch, tmp_path, capfd):
    (tmp_path / "p.yaml").write_text(json.dumps({
        "data": {**config.data.model_dump(include={"source", "target", "drop"})},
        "split": {"folds": 0}, "model": {"kind": "constant"}, "evaluate": {"baselines": []},
    }))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(room.SIDES, "dask", {"workers": 2, "batch_rows": 40})  # no cluster here
    arguments = ["parity", "p.yaml", "--left", "local", "--right", "dask", "--seeds", "2"]
    assert call(arguments) == 0
    assert "parity holds: parity/certificate.html" in capfd.readouterr().out
    measured = room.observe

    def planted(*given: Any) -> Observed:
        found = measured(*given)
        return found if len(given) < 3 or given[2] is None else replace(
            found, buckets=found.buckets ^ 1)

    monkeypatch.setattr(room, "observe", planted)
    assert call([*arguments, "--json"]) == 4
    answer = json.loads(capfd.readouterr().out)
    assert answer["holds"] is False and answer["levels"][0]["holds"] is False
    assert "bucket of every row" in answer["levels"][0]["found"]
    assert call([*arguments[:-1], "1"]) == 2
