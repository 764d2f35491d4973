"""Target encodings are scikit-learn's, and a row's own label never reaches its own feature."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from common.harness import Sample, learned, make, values_of
from sklearn.preprocessing import TargetEncoder

from gpupipe.stats.state import Rows
from gpupipe.steps import Target

BUCKETS = 6
TRAIN = (1, 2, 3, 4)
"""Bucket 0 is a holdout, 5 is of rows that take part in nothing."""


def problem(task: str, n: int = 4000) -> tuple[Sample, Target]:
    rng = np.random.default_rng(7)
    level = rng.zipf(1.6, n) % 60
    frame = pd.DataFrame({
        "often": pd.Series([f"c{i}" for i in level % 7]).mask(rng.random(n) < 0.1),
        "rare": [f"z{i}" for i in level],
        "number": level % 11,
    })
    signal = (level % 7) / 7 + rng.normal(0, 0.5, n)
    if task == "regression":
        y = 1e4 + 100 * signal
        target = Target("regression", (), float((y.min() + y.max()) / 2),
                        float((y.max() - y.min()) / 2))
    elif task == "binary":
        y, target = (signal > 0.6).astype(np.int64), Target("binary", ("no", "yes"))
    else:
        y, target = np.digitize(signal, [0.2, 0.7]), Target("multiclass", ("a", "b", "c"))
    bucket = rng.integers(0, BUCKETS, n).astype(np.uint8)
    return Sample(pa.Table.from_pandas(frame, preserve_index=False), y, bucket, BUCKETS), target


def theirs(sample: Sample, rows: np.ndarray, smooth, task: str) -> TargetEncoder:
    kind = {"regression": "continuous"}.get(task, task)
    x, y = matrix(sample), sample.target
    return TargetEncoder(smooth=smooth, target_type=kind).fit(x[rows], y[rows])


def matrix(sample: Sample) -> np.ndarray:
    frame = sample.table.to_pandas().astype(object)
    return frame.where(frame.notna(), None).to_numpy(object)


@pytest.mark.parametrize("smooth", ["auto", 0.0, 10.0])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
class TestAgainstScikitLearn:
    def fitted(self, task, smooth):
        sample, target = problem(task)
        step = make("target_encode", columns=["often", "rare", "number"], smooth=smooth,
                    frequent=None)
        graph, fitted, knowledge = learned(sample, [step], TRAIN, target, part_rows=900,
                                           batch_rows=400)
        assert len(knowledge.scans) == 1
        return sample, graph, fitted

    def test_new_rows_are_encoded_from_the_whole_training_part(self, task, smooth):
        sample, graph, fitted = self.fitted(task, smooth)
        encoder = theirs(sample, np.isin(sample.bucket, TRAIN), smooth, task)
        found = np.column_stack(list(values_of(graph, fitted, sample.table).values()))
        np.testing.assert_allclose(found, encoder.transform(matrix(sample)), rtol=1e-10)

    def test_each_training_row_is_encoded_from_the_other_folds(self, task, smooth):
        sample, graph, fitted = self.fitted(task, smooth)
        out = values_of(graph, fitted, sample.table, Rows(sample.bucket, BUCKETS, sample.target))
        found = np.column_stack(list(out.values()))
        for bucket in range(BUCKETS):
            own = sample.bucket == bucket
            others = np.isin(sample.bucket, TRAIN) & ~own
            encoder = theirs(sample, others, smooth, task)
            np.testing.assert_allclose(found[own], encoder.transform(matrix(sample))[own],
                                       rtol=1e-10)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_rows_own_label_does_not_reach_its_own_feature(task):
    """Any label given to the rows of one fold leaves that fold's features as they were."""
    sample, target = problem(task, 600)
    step = make("target_encode", columns=["rare"], frequent=None)
    mine = sample.bucket == 2
    changed = np.where(mine, sample.target[::-1], sample.target)
    other = Sample(sample.table, changed, sample.bucket, BUCKETS)
    features = []
    for s in (sample, other):
        graph, fitted, _ = learned(s, [step], TRAIN, target)
        out = values_of(graph, fitted, s.table, Rows(s.bucket, BUCKETS, s.target))
        features.append(np.column_stack(list(out.values())))
    np.testing.assert_array_equal(features[0][mine], features[1][mine])
    assert (features[0][~mine] != features[1][~mine]).any()


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_frequent_level_is_encoded_from_all_training_rows(task):
    sample, target = problem(task)
    training = np.isin(sample.bucket, TRAIN)
    level = sample.table["rare"].to_pandas()
    often = level.map(level[training].value_counts()).fillna(0).to_numpy() >= 150
    assert 0 < often.mean() < 1
    rows = Rows(sample.bucket, BUCKETS, sample.target)
    found, crossed, whole = (
        np.column_stack(list(values_of(*learned(sample, [make(
            "target_encode", columns=["rare"], frequent=frequent)], TRAIN, target)[:2],
            sample.table, of).values()))
        for frequent, of in ((150, rows), (None, rows), (None, None)))
    np.testing.assert_array_equal(found[often], whole[often])
    np.testing.assert_array_equal(found[~often], crossed[~often])
    assert (crossed[often & training] != whole[often & training]).any()


def test_an_unseen_level_gets_the_prior_and_missing_is_a_level():
    table = pa.table({"s": ["a", "a", None, None, "b"]})
    sample = Sample(table, np.array([1, 0, 1, 1, 0]), np.ones(5, np.uint8), BUCKETS)
    graph, fitted, _ = learned(sample, [make("target_encode", smooth=0)], TRAIN)
    new = pa.table({"s": ["a", "b", "never", None]})
    assert values_of(graph, fitted, new)["s"].tolist() == [0.5, 0.0, 0.6, 1.0]


def test_missing_that_training_never_saw_gets_the_prior():
    sample = Sample(pa.table({"s": ["a", "b", "b"]}), np.array([1, 0, 1]), np.ones(3, np.uint8),
                    BUCKETS)
    graph, fitted, _ = learned(sample, [make("target_encode")], TRAIN)
    new = pa.table({"s": pa.array([None], pa.string())})
    np.testing.assert_allclose(values_of(graph, fitted, new)["s"], [2 / 3])


def test_rows_without_a_target_teach_nothing():
    sample, target = problem("binary", 500)
    unknown = np.arange(500) % 4 == 0
    with_holes = Sample(sample.table, np.where(unknown, -1, sample.target),
                        np.where(unknown, 5, sample.bucket).astype(np.uint8), BUCKETS)
    kept = with_holes.take(np.flatnonzero(~unknown))
    step = make("target_encode", columns=["often", "rare"])
    a = values_of(*learned(with_holes, [step], TRAIN, target)[:2], sample.table)
    b = values_of(*learned(kept, [step], TRAIN, target)[:2], sample.table)
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name])


def test_what_scoring_needs_is_one_table():
    sample, target = problem("multiclass", 500)
    graph, fitted, _ = learned(sample, [make("target_encode", columns=["rare"])], TRAIN, target)
    (bound,) = graph.bound
    exported = bound.step.export(fitted.params[bound.key])
    assert exported["encodings"].shape == (1, len(exported["levels"]) + 2, 3)
    assert exported["buckets"] == []


def test_a_constant_target_within_the_training_part_gives_its_value():
    sample, target = problem("binary", 200)
    ones = Sample(sample.table, np.ones(200, np.int64), sample.bucket, BUCKETS)
    graph, fitted, _ = learned(ones, [make("target_encode", columns=["rare"])], TRAIN, target)
    assert (values_of(graph, fitted, ones.table)["rare"] == 1).all()
