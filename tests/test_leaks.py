"""The leak linter's parts against other libraries, and what a run makes of what it finds."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from common.quick import settings, small_table
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from gpupipe import workflow
from gpupipe.cli.outcome import call
from gpupipe.config import parse_config
from gpupipe.data.dataset import memory_dataset
from gpupipe.data.ingest import ingest
from gpupipe.engine.local import LocalEngine
from gpupipe.errors import ConfigError, GateError
from gpupipe.inspect.findings import RULES, Finding, acknowledge, ordered
from gpupipe.inspect.leaks_functions import level_means, side_of, within
from gpupipe.inspect.leaks_power import class_shares, crossed, kappa, mean_auc, neighbours
from gpupipe.inspect.leaks_rows import NEAREST, nearest_rows, places
from gpupipe.inspect.leaks_sample import BLOCKS, chosen_rows, ranked, read_rows
from gpupipe.inspect.leaks_time import duration
from gpupipe.inspect.relations import Side
from gpupipe.leakage import lint
from gpupipe.prepare import prepare

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=60)


def leaky(n: int = 600) -> pa.Table:
    """`small_table` with a column that repeats the label and one that nearly does."""
    table = small_table(n)
    labels = np.array(table.column("label").to_pylist())
    wrong = np.random.default_rng(5).random(n) < 0.1
    return table.append_column("state", pa.array(np.where(labels == "yes", "shut", "open"))) \
        .append_column("score", pa.array(((labels == "yes") ^ wrong).astype(float)))


def found_in(table, tmp_path, batch_rows=131_072, part_rows=None, **sections):
    dataset = ingest(table, cache=tmp_path)
    if part_rows:
        dataset = memory_dataset(dataset.to_table(), dataset.schema, dataset.fingerprint, "t",
                                 part_rows=part_rows)
    config = parse_config(settings(**sections))
    return lint(prepare(config, dataset, LocalEngine(1, batch_rows), baselines=False))


@given(LABELS)
def test_kappa_is_scikit_learns(pairs):
    first, second = np.array(pairs).T
    expected = cohen_kappa_score(first, second) if len(set(first) | set(second)) > 1 else 0.0
    assert kappa(first, second) == pytest.approx(0.0 if np.isnan(expected) else expected)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40))
def test_ranks_are_pandas(values):
    values = np.array(values)
    expected = (pd.Series(values).rank() - 0.5) / len(values)
    assert ranked(values) == pytest.approx(expected.to_numpy())


def test_what_a_group_tells_is_learned_from_the_other_half_alone():
    rng = np.random.default_rng(0)
    groups, y = rng.integers(0, 5, 200), rng.normal(size=200)
    half = np.arange(200) % 2 == 0
    means = pd.Series(y[~half]).groupby(groups[~half]).mean()
    assert crossed(groups, y, half)[half] == pytest.approx(means[groups[half]].to_numpy(), abs=0.01)
    labels = rng.integers(0, 3, 200)
    shares, told = class_shares(groups, labels, 3, half)
    most = pd.Series(labels[~half]).groupby(groups[~half]).agg(lambda v: v.value_counts().max())
    counts = [int(((groups == g) & ~half & (labels == t)).sum())
              for g, t in zip(groups[half], told[half], strict=True)]
    assert counts == most[groups[half]].tolist()
    assert mean_auc(shares[:, :2], (labels == 1).astype(np.int64), 2) == pytest.approx(
        roc_auc_score(labels == 1, shares[:, 1]))


def test_neighbours_share_all_of_an_exact_function_and_nothing_of_noise():
    rng = np.random.default_rng(0)
    x, bucket = rng.random(4_000), rng.integers(0, 5, 4_000).astype(np.uint8)
    assert neighbours(side_of(x), np.sin(9 * x), bucket) > 0.999
    assert abs(neighbours(side_of(x), rng.normal(size=4_000), bucket)) < 0.06
    half_noise = np.sin(9 * x) + np.sin(9 * x).std() * rng.normal(size=4_000)
    assert neighbours(side_of(x), half_noise, bucket) == pytest.approx(0.5, abs=0.05)
    one = np.where(x < 0.5, 0, 1).astype(np.uint8)  # one pair of neighbours straddles this split
    assert neighbours(side_of(x), np.sin(9 * x), one) == 0.0


@given(st.integers(0, 400_000), st.integers(1_000, 50_000), st.integers(0, 5))
def test_rows_looked_at_are_distinct_bounded_and_spread(total, wanted, seed):
    rows = chosen_rows(total, wanted, seed)
    assert len(rows) <= max(wanted, 0) and (np.diff(rows) > 0).all()
    if total <= wanted:
        assert rows.tolist() == list(range(total))
    else:
        assert len(rows) >= wanted - BLOCKS and rows[-1] < total
        assert np.diff(rows).max() <= 2 * total / BLOCKS


@limits(max_examples=20)
@given(st.integers(1, 200), st.sets(st.integers(0, 239)))
def test_rows_are_read_alike_from_any_parts(part_rows, rows):
    table = small_table()
    dataset = ingest(table, cache=None)
    cut = memory_dataset(dataset.to_table(), dataset.schema, "", "t", part_rows=part_rows)
    rows = np.array(sorted(rows), np.int64)
    assert read_rows(cut, rows).column("i").to_pylist() == table.column("i").take(rows).to_pylist()


@pytest.mark.parametrize("rows", [NEAREST, 63, 64, 65, 700])
def test_nearest_rows_are_scikit_learns(rows):
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=rows)
    numbers[::7] = np.nan
    sides = [side_of(numbers), side_of(rng.random(rows)),
             Side(rng.integers(0, 4, rows), 4, None)]
    points = places(sides, rng)
    assert (points == np.rint(points)).all()
    known, asked = np.arange(rows), np.arange(0, rows, 5)
    near, away = nearest_rows(points, asked, known)
    there = NearestNeighbors(n_neighbors=NEAREST).fit(points.astype(np.float64))
    assert away == pytest.approx(there.kneighbors(points[asked].astype(np.float64))[0], abs=1e-9)
    assert (near[:, 0] == asked).mean() > 0.9


@pytest.mark.parametrize("smooth", [0.0, 12.5])
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_an_encoding_made_of_all_rows_is_known_from_one_made_of_others(smooth, kind):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 40, 2_000)
    y = codes / 40 + rng.normal(size=2_000)
    y = (y > 0.5).astype(float) if kind == "classes" else y

    def encoding(values, groups):
        sums = np.bincount(groups, values, 40)
        return ((sums + smooth * values.mean()) / (np.bincount(groups, minlength=40) + smooth))

    leaked = encoding(y, codes)[codes]
    assert level_means(codes, side_of(leaked), y)
    assert level_means(codes, side_of(leaked.round(4)), y)
    others = rng.random(2_000) < 0.5
    assert not level_means(codes, side_of(encoding(y[others], codes[others])[codes]), y)


def test_within_groups_a_leave_one_out_mean_is_the_target():
    rng = np.random.default_rng(0)
    codes, y = rng.integers(0, 50, 2_000), rng.normal(size=2_000)
    counts, sums = np.bincount(codes), np.bincount(codes, y)
    rest = (sums[codes] - y) / (counts[codes] - 1)
    best = within(codes, [side_of(rest), side_of(rng.normal(size=2_000))], [y])
    assert best[0] == pytest.approx(1.0)
    assert best[1] < 0.1


@pytest.mark.parametrize(("microseconds", "written"), [
    (1e6, "1s"), (90e6, "90s"), (3 * 3600e6, "3h"), (36 * 3600e6, "36h"), (20 * 86400e6, "3w"),
])
def test_a_gap_is_written_as_the_pipeline_file_reads_it(microseconds, written):
    assert duration(microseconds) == written
    parse_config({"data": {"source": "t", "target": "y"}, "split": {"time": "t", "gap": written}})


def test_findings_are_acknowledged_by_name_or_by_their_one_column():
    found = [Finding("strong", ("a",), "warn", ""), Finding("target-sum", ("c", "b"), "block", ""),
             Finding("target-copy", ("d",), "block", "")]
    marked, unused = acknowledge(found, ["target-sum:b+c", "d", "b", "gone"])
    assert [f.acknowledged for f in marked] == [False, True, True]
    assert unused == ["b", "gone"]
    assert [f.rule for f in ordered(found)] == ["target-copy", "target-sum", "strong"]
    assert len(set(RULES)) == len(RULES)


def test_a_leak_stops_a_run_before_training_and_names_the_way_out(tmp_path):
    config = parse_config(settings())
    with pytest.raises(GateError) as raised:
        workflow.run(config, runs=tmp_path / "runs", source=leaky())
    assert raised.value.exit_code == 4
    assert "target-copy:state" in str(raised.value)
    assert "data: {drop: [state]}" in str(raised.value)
    assert [p for p in (tmp_path / "runs").iterdir() if not p.name.startswith(".")] == []


@pytest.mark.parametrize("leaks", [
    {"acknowledged": ["target-copy:state"]}, {"acknowledged": "state"}, {"check": "warn"},
])
def test_what_is_let_pass_is_recorded(tmp_path, leaks):
    config = parse_config(settings(leaks=leaks))
    done = workflow.run(config, runs=tmp_path / "runs", source=leaky())
    manifest = json.loads((done.run / "manifest.json").read_text())
    (copy,) = [f for f in manifest["leaks"]["findings"] if f["rule"] == "target-copy"]
    assert copy["name"] == "target-copy:state"
    assert copy["acknowledged"] == ("acknowledged" in leaks)
    assert copy["evidence"]["kappa"] == 1.0
    page = (done.run / "report.html").read_text()
    assert "target-copy:state" in page and 'id="leaks"' in page


def test_what_is_dropped_leaks_no_more_and_off_looks_at_nothing(tmp_path):
    drop = [*settings()["data"]["drop"], "state"]
    found = found_in(leaky(), tmp_path, data={"drop": drop})
    assert {f.name for f in found} == {"strong:f", "strong:score"}
    assert found_in(leaky(), tmp_path, leaks={"check": "off"}) == []


def test_an_acknowledged_name_that_nothing_is_found_for_is_noted(tmp_path):
    config = parse_config(settings(leaks={"acknowledged": ["state", "strong:score", "gone"]}))
    ready = prepare(config, ingest(leaky(), cache=tmp_path), LocalEngine(1, 131_072))
    lint(ready)
    assert [n for n in ready.notes if "leaks.acknowledged" in n] == [
        "leaks.acknowledged: nothing is found that is called 'gone'"]


def test_findings_do_not_depend_on_parts_and_batches(tmp_path):
    whole = [f.to_json() for f in found_in(leaky(), tmp_path)]
    assert whole == [f.to_json() for f in found_in(leaky(), tmp_path, 7, part_rows=33)]


def test_no_leak_is_told_from_a_handful_of_rows(tmp_path):
    assert found_in(leaky(90), tmp_path) == []
    few = found_in(leaky(180), tmp_path)
    assert "target-copy:state" in {f.name for f in few} and not any(f.blocks for f in few)


def test_check_lists_what_was_found_and_ends_with_four(tmp_path, monkeypatch, capfd):
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    pq.write_table(leaky(), "t.parquet")
    config = settings()
    (tmp_path / "p.yaml").write_text(json.dumps(config))
    assert call(["check", "p.yaml", "--json"]) == 4
    answer = json.loads(capfd.readouterr().out)
    assert answer["ok"] is False
    (copy,) = [f for f in answer["findings"] if f.get("rule") == "target-copy"]
    assert copy["blocks"] and copy["fix"] == "data: {drop: [state]}"
    assert call(["check", "p.yaml"]) == 4
    assert "target-copy:state (block)" in capfd.readouterr().out
    (tmp_path / "p.yaml").write_text(json.dumps(config | {"leaks": {"acknowledged": ["state"]}}))
    assert call(["check", "p.yaml", "--json"]) == 0


def test_the_estimator_leaves_leaks_to_whoever_splits():
    import gpupipe

    table = leaky().to_pandas().drop(columns=["t"])
    X, y = table[["f", "state"]], table["label"]
    assert gpupipe.Pipeline(model_params={"n_estimators": 4}).fit(X, y).score(X, y) == 1.0


@pytest.mark.parametrize("leaks", [{"check": "no"}, {"rows": 10}, {"acknowledge": []}])
def test_a_leaks_section_that_cannot_be_is_refused(leaks):
    with pytest.raises(ConfigError):
        parse_config(settings(leaks=leaks))
