"""A bundle scores as the pipeline did that was trained, to the last bit, in any process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from common.quick import (
    COLUMNS,
    MODEL_PARAMS,
    STEPS_IN_USE,
    settings,
    small_table,
    trained_on,
    write_bundle,
)

import gpupipe
import gpupipe.errors
from gpupipe.bundle.store import CAPS, read_states
from gpupipe.codec import pack, read_arrays, unpack, write_arrays
from gpupipe.config.unsupervised import UNSUPERVISED
from gpupipe.models import MODELS
from gpupipe.models.base import TASKS
from gpupipe.record import PREDICTED
from gpupipe.stats.tables import Vocabulary
from gpupipe.steps import STEPS
from gpupipe.steps.graph import params_digest

TABLE = small_table()
NEW = small_table(97, seed=1).select(list(COLUMNS))


def test_every_registered_step_and_model_is_tried_here():
    assert set(STEPS_IN_USE) == set(STEPS)
    # those that learn without a target are tried in tests/test_unsupervised.py
    assert set(MODELS) == set(MODEL_PARAMS) | set(UNSUPERVISED)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", STEPS_IN_USE)
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_every_step_comes_back_to_the_last_bit(name, task, tmp_path):
    if task != "binary" and name not in ("target_encode", "one_hot"):
        task = "regression"  # only a target encoding looks at the target
    trained = trained_on(TABLE, settings(task, features=STEPS_IN_USE[name]))
    before = write_bundle(trained, tmp_path / "bundle")
    after = gpupipe.load(tmp_path / "bundle")
    assert after.feature_names == before.feature_names
    assert same_bits(after.features(NEW), before.features(NEW))
    assert same_bits(after.scores(NEW), before.scores(NEW))
    assert any(name == b.step.name for b in before.contents.graph.bound) or name in (
        "select", "drop", "drop_constant")
    for mine, theirs in zip(before.contents.graph.bound, after.contents.graph.bound, strict=True):
        kept = mine.step.export(before.contents.fitted.params[mine.key])
        assert mine.key == theirs.key
        assert params_digest(kept) == params_digest(after.contents.fitted.params[theirs.key])


each_model_and_task = pytest.mark.parametrize(
    ("kind", "task"), [(kind, task) for kind in MODEL_PARAMS for task in MODELS[kind].tasks
                       if task in TASKS])


@each_model_and_task
def test_every_model_comes_back_to_the_last_bit(kind, task, tmp_path):
    config = settings(task, model={"kind": kind, "params": MODEL_PARAMS[kind]},
                      split={"folds": 2})
    trained = trained_on(TABLE, config)
    before = write_bundle(trained, tmp_path / "bundle")
    after = gpupipe.load(tmp_path / "bundle")
    assert after.task == task and after.classes == before.classes
    assert same_bits(after.scores(NEW), before.scores(NEW))
    if task == "regression":
        assert after.predict(NEW).dtype == np.float64
        with pytest.raises(gpupipe.errors.DataError, match="no probabilities"):
            after.predict_proba(NEW)
    else:
        shares = after.predict_proba(NEW)
        assert shares.shape == (97, len(after.classes))
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
        assert set(after.predict(NEW)) <= set(after.classes)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A bundle with one of everything in it."""
    folder = tmp_path_factory.mktemp("made") / "bundle"
    steps = [{"impute": {"columns": "f", "indicator": True}},
             {"target_encode": {"columns": "i"}}, {"one_hot": {"columns": ["s", "b"]}},
             {"datetime": {}}]
    write_bundle(trained_on(TABLE, settings("multiclass", features=steps)), folder)
    return folder


def test_a_fresh_process_gives_the_same_bits(made):
    bundle = gpupipe.load(made)
    code = (
        "import sys, gpupipe\nfrom common.quick import COLUMNS, small_table\n"
        "bundle = gpupipe.load(sys.argv[1])\n"
        "new = small_table(97, seed=1).select(list(COLUMNS))\n"
        "print(bundle.features(new).tobytes().hex(), bundle.scores(new).tobytes().hex())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(made)], capture_output=True, text=True,
                          check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [bundle.features(NEW).tobytes().hex(),
                                   bundle.scores(NEW).tobytes().hex()]


def test_families_of_numbers_are_scored_without_scikit_learn(tmp_path):
    kinds = ["linear", "neighbours", "svm", "naive_bayes"]
    bundles = [write_bundle(trained_on(TABLE, settings("multiclass", model={"kind": kind})),
                            tmp_path / kind) for kind in kinds]
    code = (
        "import sys\nfor name in ('sklearn', 'scipy.optimize', 'lightgbm', 'catboost'):\n"
        "    sys.modules[name] = None\n"
        "import gpupipe\n"
        "import pyarrow.parquet as pq\n"
        "new = pq.read_table(sys.argv[1])\n"
        "for folder in sys.argv[2:]:\n"
        "    print(gpupipe.load(folder).scores(new).tobytes().hex())\n"
    )
    pq.write_table(NEW, tmp_path / "new.parquet")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "new.parquet"),
         *(str(tmp_path / kind) for kind in kinds)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [b.scores(NEW).tobytes().hex() for b in bundles]


def test_two_runs_alike_write_the_same_bytes(made, tmp_path):
    steps = json.loads((made / "bundle.json").read_text())["features"]["steps"]
    assert steps
    again = [tmp_path / "a", tmp_path / "b"]
    for folder, workers in zip(again, (1, 2), strict=True):
        config = settings(split={"folds": 2}, engine={"workers": workers, "batch_rows": 50})
        write_bundle(trained_on(TABLE, config), folder)
    for name in CAPS:
        assert (again[0] / name).read_bytes() == (again[1] / name).read_bytes(), name


def test_the_states_of_every_column_come_back(made):
    states = read_states(made)
    assert states.pop(PREDICTED)["of"] == "holdout"  # there are no folds
    assert set(states) == {"f", "i", "s", "b", "t", "narrow", "kind"}
    text = states["s"]["vocabulary"]
    expected = TABLE.column("s").value_counts().to_pylist()
    counts = dict(zip(text["levels"].to_pylist(), text["counts"][0].tolist(), strict=True))
    assert counts == {e["values"]: e["counts"] for e in expected if e["values"] is not None}
    assert Vocabulary and states["f"]["moments"]["count"].sum() == TABLE.num_rows - (
        TABLE.column("f").null_count)


@pytest.mark.parametrize("value", [
    None, True, 3, -1.5, float("nan"), float("inf"), "ß\x00", [1, [2.5, None]], {"a": {"b": []}},
    np.float32(0.1), np.int64(7), b"\x00\xff", {"$array": "mine"}, {"$float": "nan"},
])
def test_plain_data_comes_back_through_json(value):
    arrays: dict[str, np.ndarray] = {}
    written = json.loads(json.dumps(pack(value, arrays), allow_nan=False))
    back = unpack(written, read_arrays(write_arrays(arrays), 1 << 20))
    wanted = value.item() if isinstance(value, np.generic) else value
    assert back == wanted or (back != back and wanted != wanted)


@pytest.mark.parametrize("array", [
    pa.array(["", "a\x00b", "漢字", "a" * 1000]), pa.array([], pa.string()),
    pa.array([-(2**63), 2**63 - 1]), pa.array([0.1, 5e-324, 1e300]), pa.array([True, False]),
    np.arange(6.0, dtype=np.float32).reshape(2, 3), np.empty((0, 4)), np.array([[1, 2], [3, 4]]).T,
    np.array([True, False]), np.array([2**63], np.uint64), pa.array([None, "a", "", None]),
    pa.array([2**62, None]), pa.array([None, 1.5]), pa.array([True, None, False]),
], ids=str)
def test_arrays_come_back_to_the_last_bit(array):
    arrays: dict[str, np.ndarray] = {}
    written = json.loads(json.dumps(pack({"x": array}, arrays)))
    back = unpack(written, read_arrays(write_arrays(arrays), 1 << 20))["x"]
    if isinstance(array, pa.Array):
        assert back.equals(array) and back.type == array.type
    else:
        assert same_bits(back, array)


@pytest.mark.parametrize("value", [object(), {1, 2},
                                   pa.array([1], pa.int8()), np.array([object()])])
def test_what_a_bundle_cannot_hold_is_refused_when_it_is_written(value):
    arrays: dict[str, np.ndarray] = {}
    with pytest.raises((TypeError, ValueError)):
        pack(value, arrays)
        write_arrays(arrays)
