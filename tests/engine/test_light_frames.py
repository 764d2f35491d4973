"""Frames of NumPy and Arrow alone give every step the bits that pandas' do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from common.harness import learned, make, random_sample
from common.quick import STEPS_IN_USE
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe.engine.frames import CALENDAR_PARTS, Block, Column, NumpyFrames
from gpupipe.engine.pandas import PandasFrames
from gpupipe.steps import STEPS
from gpupipe.transforms import TRANSFORMS, StoredStep
from gpupipe.transforms.graph import Batch

SAMPLE = random_sample(300, seed=1)
NUMBERS = ["f", "wild", "narrow", "i", "big", "b"]
CONFIGS = {
    "impute": {"columns": [*NUMBERS, "s"], "strategy": "most_frequent"},
    "scale": {"columns": NUMBERS}, "clip": {"columns": NUMBERS, "lower": 0.1, "upper": 0.9},
    "log": {"columns": NUMBERS}, "bin": {"columns": NUMBERS, "bins": 4},
    "one_hot": {"columns": [*NUMBERS, "s"], "max_levels": 3},
    "ordinal": {"columns": [*NUMBERS, "s"]}, "count": {"columns": [*NUMBERS, "s"]},
    "hash": {"columns": [*NUMBERS, "s"]}, "target_encode": {"columns": [*NUMBERS, "s"]},
    "copy": {"columns": [*NUMBERS, "s"], "suffix": "too"},
    "cast": {"columns": NUMBERS, "to": "string"},
    "ratio": {"columns": NUMBERS},
    "datetime": {"parts": list(CALENDAR_PARTS), "cyclic": True},
}


def test_every_step_that_transforms_is_tried_here():
    assert set(CONFIGS) == set(TRANSFORMS)
    assert set(STEPS_IN_USE) - set(TRANSFORMS) == {"select", "drop", "drop_constant"}


@pytest.mark.parametrize("name", CONFIGS)
def test_both_frames_give_the_same_bits(name):
    graph, fitted, _ = learned(SAMPLE, [make(name, **CONFIGS[name])], train=(0, 1, 2))
    table = pa.table({n: c.dictionary_encode() if pa.types.is_string(c.type) else c
                      for n, c in zip(SAMPLE.table.column_names, SAMPLE.table.columns,
                                      strict=True)})
    outs = []
    for fx in (PandasFrames(), NumpyFrames()):
        columns = {f.name: fx.column(fx.frame(table), f.name, f.dtype) for f in SAMPLE.features}
        batch = Batch(columns, None, fx)
        outs.append([batch.value(node, fitted) for node in graph.outputs])
    for mine, theirs in zip(*outs, strict=True):
        if isinstance(mine, Block):
            assert mine.values.tobytes() == theirs.values.tobytes()
        elif mine.dtype == "string":
            assert _texts(mine) == _texts(theirs)
        else:
            fx = NumpyFrames()
            assert fx.numbers(mine).tobytes() == fx.numbers(theirs).tobytes()


def _texts(column: Column) -> list:
    levels = [*column.levels.to_pylist(), None]
    return [levels[code] for code in column.values]


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.integers(-(2**55), 2**55), min_size=1, max_size=20))
def test_calendars_agree_before_1970_and_far_after(values):
    column = Column("timestamp", np.array(values, np.int64))
    for part in CALENDAR_PARTS:
        mine, theirs = (fx.calendar(column, part) for fx in (NumpyFrames(), PandasFrames()))
        assert mine.values.tolist() == theirs.values.tolist(), part


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_stored_step_knows_the_settings_of_its_step_and_their_values(name):
    fields = set(STEPS[name].model_fields) - {"columns"}
    assert set(TRANSFORMS[name].settings) == fields
    step = make(name, **CONFIGS[name])
    again = StoredStep.of(name, step.stored())
    assert (again.key, again.stored()) == (step.key, step.stored())
