"""Late labels, metrics by window, estimates without labels, and when and where errors changed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from common.watched import log_of, table
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, roc_auc_score

import gpupipe
from gpupipe.config.monitor import MonitorConfig
from gpupipe.errors import DataError
from gpupipe.monitor import monitor
from gpupipe.monitor.detectors import Adwin, PageHinkley, changes
from gpupipe.monitor.estimates import Estimator, cells_of
from gpupipe.monitor.labels import read_labels
from gpupipe.monitor.reference import reference_of

DAY = 86_400_000_000


def labels_of(rows: pa.Table, first: int = 0) -> pa.Table:
    return pa.table({"prediction_id": [f"p{first + i}" for i in range(rows.num_rows)],
                     "y": rows["y"]})


@pytest.fixture(scope="module")
def logged(bundle, tmp_path_factory):
    """A log of three days, and all its labels."""
    rows = table(3 * 1440, 21)
    path = tmp_path_factory.mktemp("logged") / "log.parquet"
    pq.write_table(log_of(bundle, rows), path)
    return path, rows


def test_metrics_of_each_window_are_scikit_learn_s(bundle, logged):
    path, rows = logged
    found = monitor(bundle, str(path), labels=labels_of(rows)).quality
    scores, truth = gpupipe.load(bundle).scores(rows), np.array(rows["y"].to_pylist()) == "yes"
    for k, own in enumerate(found["windows"].values()):
        day = slice(1440 * k, 1440 * (k + 1))
        assert own["coverage"] == 1.0 and own["labelled"] == 1440
        for name, expected in (("roc_auc", roc_auc_score(truth[day], scores[day])),
                               ("log_loss", log_loss(truth[day], scores[day]))):
            score = own["scores"][name]
            assert score["value"] == pytest.approx(expected)
            assert score["low"] < expected < score["high"]
        assert own["state"] == "ok"
    assert found["labels"]["labelled"] == 3 * 1440


def test_the_same_labels_again_change_nothing_and_conflicts_are_told(bundle, logged, tmp_path):
    path, rows = logged
    labels = labels_of(rows)
    other = labels.slice(0, 10).set_column(1, "y", pa.array(
        ["no" if v == "yes" else "yes" for v in labels["y"].slice(0, 10).to_pylist()]))
    unknown = pa.table({"prediction_id": ["q1", "q2"], "y": ["yes", None]})
    mixed = pa.concat_tables([labels, labels.slice(100, 50), other, unknown])
    order = pa.array(np.random.default_rng(0).permutation(mixed.num_rows))
    once = monitor(bundle, str(path), labels=mixed).quality
    again = monitor(bundle, str(path), labels=mixed.take(order)).quality
    assert once == again
    told = once["labels"]
    assert (told["duplicates"], told["conflicts"], told["labelled"]) == (50, 10, 4320 - 10)
    assert told["without_prediction"] == 1 and len(told["examples"]) == 5
    twice = tmp_path / "twice"
    twice.mkdir()
    for name in "ab":  # a server that logged the same predictions twice
        pq.write_table(pq.read_table(path), twice / f"{name}.parquet")
    found = monitor(bundle, str(twice), labels=labels).quality
    assert found["labels"]["predictions_twice"] == 4320
    assert found["labels"]["labelled"] == 4320


def test_late_labels_have_a_lag_and_a_coverage(bundle, logged):
    path, rows = logged
    labels = labels_of(rows.slice(0, 2000))
    came = rows["t"].slice(0, 2000).cast(pa.int64()).to_numpy() + 5 * 3_600_000_000
    labels = labels.append_column("labelled_at", pa.array(came, pa.timestamp("us")))
    found = monitor(bundle, str(path), labels=labels).quality
    assert found["labels"]["coverage"] == pytest.approx(2000 / 4320)
    assert found["labels"]["lag_hours"] == {"median": 5.0, "p90": 5.0, "greatest": 5.0}
    assert [w["labelled"] for w in found["windows"].values()] == [1440, 560, 0]


def test_labels_without_ids_or_of_no_class_are_refused(bundle, logged, tmp_path):
    _, rows = logged
    with pytest.raises(DataError, match="prediction_id"):
        monitor(bundle, rows, labels=labels_of(rows), window="all")
    with pytest.raises(DataError, match="none of the model's classes"):
        read_labels(pa.table({"prediction_id": ["a"], "y": ["maybe"]}), gpupipe.load(bundle),
                    tmp_path)
    with pytest.raises(DataError, match="no column 'y'"):
        read_labels(pa.table({"prediction_id": ["a"], "z": ["yes"]}), gpupipe.load(bundle),
                    tmp_path)


def test_a_table_that_holds_the_target_needs_no_labels(bundle):
    rows = table(3000, 22)
    found = monitor(bundle, rows, window="1500rows")
    truth = np.array(rows["y"].to_pylist()) == "yes"
    said = gpupipe.load(bundle).scores(rows) > 0.5
    own = found.quality["windows"]["1"]["scores"]["accuracy"]["value"]
    assert own == pytest.approx(accuracy_score(truth[1500:], said[1500:]))


def flipped(rows: pa.Table, share: float, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    turned = rng.random(rows.num_rows) < share
    y = [("no" if v == "yes" else "yes") if t else v
         for v, t in zip(rows["y"].to_pylist(), turned, strict=True)]
    return rows.set_column(4, "y", pa.array(y))


def test_the_estimate_follows_the_inputs_and_not_the_concept(bundle):
    rules = MonitorConfig(metrics=["accuracy", "roc_auc", "log_loss"])
    calm = [table(1440, 30 + i, shift=s) for i, s in enumerate((0.0, 0.0, 0.8, 0.8))]
    # The law of y given x stays while x moves: labels are made anew of the shifted x.
    rng = np.random.default_rng(1)
    moved = []
    for rows in calm:
        p = gpupipe.load(bundle).scores(rows)
        y = np.where(rng.random(len(p)) < p, "yes", "no")
        moved.append(rows.set_column(4, "y", pa.array(y.tolist())))
    found = monitor(bundle, pa.concat_tables(moved), window="1440rows", rules=rules).quality
    for own in found["windows"].values():
        for name in ("accuracy", "roc_auc", "log_loss"):
            score, estimate = own["scores"][name], own["estimated"][name]
            assert estimate["low"] <= score["value"] <= estimate["high"]
    assert found["reliable"]["reliable"] is True
    broken = [*moved[:2], *(flipped(m, 0.45, i) for i, m in enumerate(moved[:3]))]
    found = monitor(bundle, pa.concat_tables(broken), window="1440rows", rules=rules).quality
    assert found["reliable"]["reliable"] is False
    assert "not reliable" in found["reliable"]["text"]
    assert [w["state"] for w in found["windows"].values()] == ["ok", "ok"] + ["alert"] * 3
    risen = [c for c in found["changes"] if c["by"] == "adwin" and c["risen"]]
    assert len(risen) == 1 and 2880 <= risen[0]["row"] <= 2880 + 1000
    assert any(c["by"] == "page_hinkley" and 2880 <= c["row"] <= 4320 for c in found["changes"])


def test_without_labels_an_unreliable_estimate_says_nothing(bundle, logged):
    path, _ = logged
    found = monitor(bundle, str(path)).quality
    assert found["reliable"]["reliable"] is None
    assert {w["state"] for w in found["windows"].values()} == {"insufficient"}
    assert all(w["estimated"]["roc_auc"]["value"] > 0.5 for w in found["windows"].values())


def test_a_slice_that_went_wrong_is_found_by_itself(bundle):
    rows = table(6000, 40)
    mine = np.array(rows["s"].to_pylist()) == "c"
    turned = flipped(rows, 0.6)["y"].to_pylist()
    y = [t if m else v for t, m, v in zip(turned, mine, rows["y"].to_pylist(), strict=True)]
    found = monitor(bundle, rows.set_column(4, "y", pa.array(y)), window="all",
                    rules=MonitorConfig(slices=["s"]))
    slices = {s["slice"]: s["state"] for s in found.quality["windows"]["0"]["slices"]}
    assert slices["s=c"] == "alert" and slices["s=a"] == "ok"
    worst = found.quality["worst_slices"]["slices"][0]
    assert {"column": "s", "level": "c"} in worst["parts"]
    assert found.code == 0 or found.state in ("alert", "warn")


def test_the_history_keeps_what_labels_said(bundle, logged, tmp_path):
    path, rows = logged
    first = monitor(bundle, str(path), labels=labels_of(rows), history=tmp_path / "h")
    later = monitor(bundle, str(path), history=tmp_path / "h")
    assert later.quality["windows"] == first.quality["windows"]
    assert later.quality["labels"] == first.quality["labels"]


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_estimates_of_other_tasks_follow_the_labels(tmp_path, task):
    rng = np.random.default_rng(2)

    def draw(n: int, shift: float) -> pa.Table:
        x, z = rng.normal(size=n) + shift, rng.normal(size=n)
        if task == "regression":
            y = 3 * x + z * np.exp(x / 2)
        else:
            y = np.array(["low", "mid", "high"])[np.digitize(x + rng.logistic(size=n), [-0.5, 1])]
        return pa.table({"x": x, "z": rng.normal(size=n), "y": y.tolist()})

    pq.write_table(draw(6000, 0.0), tmp_path / "t.parquet")
    done = gpupipe.run({
        "data": {"source": str(tmp_path / "t.parquet"), "target": "y"}, "explain": False,
        "model": {"kind": "linear"}, "split": {"folds": 3, "holdout": 0},
        "evaluate": {"resamples": 10, "baselines": []}, "engine": {"workers": 1},
    }, runs=tmp_path / "runs")
    name = "mean_absolute_error" if task == "regression" else "accuracy"
    found = monitor(done.bundle, pa.concat_tables([draw(2000, s) for s in (0.0, 0.0, 0.7, 0.7)]),
                    window="2000rows", rules=MonitorConfig(metrics=[name])).quality
    values = [(w["scores"][name]["value"], w["estimated"][name]["value"])
              for w in found["windows"].values()]
    assert all(b == pytest.approx(a, rel=0.12) for a, b in values)
    if task == "regression":
        assert values[3][1] > 1.2 * values[0][1]
        reference = reference_of(gpupipe.load(done.bundle))
        estimator = Estimator("regression", reference.predicted["judged"])
        residual = np.array([1.0, 2.0])
        assert mean_absolute_error(residual, [0, 0]) == 1.5
        assert estimator.estimate(*cells_of(np.array([])), [name]) == {}


# Detectors --------------------------------------------------------------------------------------


def stream(seed: int, *means: float, n: int = 1500) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([(rng.random(n) < m).astype(float) for m in means])


def test_adwin_finds_a_change_soon_and_hardly_ever_where_there_is_none():
    detector = Adwin()
    found = [i for i, v in enumerate(stream(3, 0.2, 0.5).tolist()) if detector.update(v)]
    assert found and 1500 < found[0] < 1700
    assert detector.mean == pytest.approx(0.5, abs=0.06)
    false = 0
    for seed in range(20):
        detector = Adwin()
        false += any(detector.update(v) for v in stream(100 + seed, 0.3).tolist())
    assert false <= 1


@pytest.mark.parametrize(("made", "adwin", "page_hinkley"), [
    (stream(0, 0.2, 0.5), 1599, 1626), (stream(1, 0.3, 0.42, n=3000), 3359, 3227),
    (stream(2, 0.1, 0.4, 0.1), 1535, 1617), (stream(3, 0.3, n=6000), None, None),
])
def test_the_first_change_is_found_where_river_0_26_finds_it(made, adwin, page_hinkley):
    for detector, expected in ((Adwin(), adwin), (PageHinkley(), page_hinkley)):
        assert next((i for i, v in enumerate(made.tolist()) if detector.update(v)),
                    None) == expected


def test_adwin_s_window_has_the_mean_and_variance_of_its_numbers():
    detector, values = Adwin(), stream(5, 0.3, n=700)
    for v in values.tolist():
        assert not detector.update(v)
    assert detector.width == 700 and detector.mean == pytest.approx(values.mean())
    assert detector.variance == pytest.approx(((values - values.mean()) ** 2).sum())
    assert sum((1 << k) * len(r) for k, r in enumerate(detector.rows)) == 700


def test_page_hinkley_by_hand():
    detector = PageHinkley(delta=0.0, threshold=2.0, alpha=1.0, grace=1)
    # Means 0, 0, 1/3, 1/2, 3/5 of 0, 0, 1, 1, 1: the sum is 2/3, 7/6, 47/30, ...
    seen = [detector.update(v) for v in (0.0, 0.0, 1.0, 1.0, 1.0)]
    assert seen == [False] * 5
    assert detector.total == pytest.approx(2 / 3 + 1 / 2 + 2 / 5)
    assert [detector.update(v) for v in (1.0, 1.0)] == [False, True]
    assert detector.n == 0


def test_changes_are_told_once_with_the_means_about_them():
    told = [c for c in changes(stream(6, 0.1, 0.4, 0.1)) if c.by == "adwin"]
    assert [c.risen for c in told] == [True, False]
    assert told[0].before == pytest.approx(0.1, abs=0.03)
    assert told[0].after == pytest.approx(0.4, abs=0.06)
    assert changes(np.zeros(0)) == []
    assert changes(np.zeros(500)) == []
