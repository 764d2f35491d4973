"""The whole of a pipeline, on any frame layer: every step, learning, folds, models, scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from common.harness import BINARY, Sample, digests, make, random_sample
from common.quick import FEW, settings, small_table
from common.test_every_step import CHAINS, EXAMPLES

from gpupipe.config import parse_config
from gpupipe.data.ingest import ingest
from gpupipe.data.reader import Reader
from gpupipe.engine.arrays import to_host
from gpupipe.engine.frames import Frames
from gpupipe.engine.local import LocalEngine
from gpupipe.evaluate.metrics import Task
from gpupipe.evaluate.scores import evaluate
from gpupipe.models import MODELS as FAMILIES
from gpupipe.steps import Target
from gpupipe.steps.graph import bind, matrix
from gpupipe.steps.profile import take_profile
from gpupipe.steps.scan import Rowed, View, learn
from gpupipe.training import Trained, train

VIEWS = [View("final", (0, 1, 2)), View("fold", (0, 2)), View("one bucket", (3,))]
REGRESSION = Target("regression", (), 0.5, 3.0)
SAMPLE = random_sample(120, seed=11)


def with_frames(rowed: Rowed, fx: Frames) -> Rowed:
    """The same rows, worked on by another frame layer."""
    rowed.engine.fx = fx
    return rowed


def rowed_on(sample: Sample, fx: Frames, kept: bool = False) -> Rowed:
    """The sample in parts and batches on a frame layer; ``kept``: its text on one dictionary."""
    made = with_frames(sample.rowed(part_rows=70, batch_rows=40), fx)
    if kept:
        reader, names = made.reader, made.dataset.schema.names
        assert reader.keep(names)
        for index in range(len(made.dataset.parts)):
            list(reader.batches(index, names))
        reader.share([f.name for f in made.dataset.schema if f.dtype == "string"])
    return made


@dataclass
class Learned:
    """What a frame layer gave: digests of states and params, and outputs on the host."""

    states: dict[str, bytes] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    matrices: dict[str, np.ndarray] = field(default_factory=dict)

    def assert_equal(self, expected: Learned) -> None:
        """To the last bit."""
        assert self.states == expected.states
        assert self.params == expected.params
        assert self.matrices.keys() == expected.matrices.keys()
        for label, values in expected.matrices.items():
            np.testing.assert_array_equal(self.matrices[label], values, err_msg=label)


def learn_everything(fx: Frames, names: list[str] | None = None, kept: bool = False) -> Learned:
    """Every registered step and chain of steps, in three views, on a table of every type."""
    found = Learned()
    source = rowed_on(SAMPLE, fx, kept)
    profile = take_profile(Reader(source.dataset, source.engine), target="i", key=["s", "f"],
                           group=["many"], time="t", weight="f")
    for (statistic, column), state in profile.states.items():
        found.states[f"{column} {statistic!r}"] = state_bytes(state)
    facts = profile.facts[0]
    found.matrices["facts"] = np.column_stack(
        [facts.key, facts.group, facts.time.view("uint64"), facts.weight.view("uint64")])
    for name in names or [*EXAMPLES, *CHAINS]:
        chains = [CHAINS[name]] if name in CHAINS else [[(name, c)] for c in EXAMPLES[name]]
        for i, chain in enumerate(chains):
            for target in (BINARY, REGRESSION) if name == "target_encode" else (BINARY,):
                _learn_chain(found, f"{name} {i} {target.task}", chain, target, source, fx)
    return found


def _learn_chain(
    found: Learned, label: str, chain: list[Any], target: Target, source: Rowed, fx: Frames
) -> None:
    graph = bind(SAMPLE.features, [make(n, **c) for n, c in chain], target)
    if target.task == "regression":
        source = Rowed(source.reader, tuple(
            type(r)(r.bucket, r.target * 1.75 - 0.3, r.weight) for r in source.rows), 4)
    fitted, _ = learn([graph], VIEWS, source)
    found.params[label] = [digests(f) for f in fitted[0]]
    usable = type(graph)(tuple(n for n in graph.outputs
                               if n.feature.dtype not in ("string", "timestamp")), target)
    if usable.outputs:
        found.matrices[label] = np.concatenate([
            fx.to_host(matrix(usable, fitted[0][0], batch))
            for index in range(len(source.rows))
            for batch, _ in source.batches(index, graph.raw)
        ])


def state_bytes(state: Any) -> bytes:
    """A canonical state's arrays and levels, as bytes."""
    return repr({
        name: value.tobytes() if isinstance(value, np.ndarray)
        else value.to_pylist() if hasattr(value, "to_pylist") else value
        for name, value in state.canonical().arrays().items()
    }).encode()


MODELS: dict[str, dict[str, Any]] = {
    "xgboost": {"kind": "xgboost", "params": FEW},
    "linear": {"kind": "linear", "params": {"class_weight": "balanced"}},
    "net": {"kind": "linear", "params": {"l1_ratio": 0.5, "C": 0.5}},
    "lasso": {"kind": "linear", "params": {"penalty": "l1", "alpha": 0.1}},
    "neighbours": {"kind": "neighbours", "params": {"weights": "distance"}},
    "svm": {"kind": "svm", "params": {"class_weight": "balanced"}},
    "poly": {"kind": "svm", "params": {"kernel": "poly", "degree": 2, "coef0": 1.0}},
    "linear svm": {"kind": "svm", "params": {"kernel": "linear"}},
    "gaussian": {"kind": "naive_bayes"},
    "bernoulli": {"kind": "naive_bayes", "params": {"distribution": "bernoulli"}},
    "forest": {"kind": "forest", "params": {"n_estimators": 20, "max_depth": 6}},
    "constant": {"kind": "constant"},
}


def models_for(task: str) -> list[dict[str, Any]]:
    """Those of `MODELS` that know the task."""
    return [m for m in MODELS.values() if task in FAMILIES[m["kind"]].tasks]


def train_on(fx: Frames, folder: Path, task: str, model: dict[str, Any], **engine: Any) -> Trained:
    """A pipeline from a Parquet file to predictions, with holdout, folds and weights."""
    table = small_table(200).append_column("w", [np.linspace(0.2, 3, 200)])
    path = folder / "t.parquet"
    if not path.exists():
        pq.write_table(table, path, row_group_size=90)
    weighted = {} if model["kind"] == "constant" else {"data": {"weight": "w"}}
    config = parse_config(settings(task, model=model, split={"folds": 2}, **weighted))
    dataset = ingest(str(path), cache=folder / "cache")
    local = LocalEngine(1, 64, engine.get("memory"))
    local.fx = fx
    return train(config, dataset, local, baselines=False, scratch=folder)


def judged_on(fx: Frames, task: Task, weighted: bool) -> dict[str, dict[str, Any]]:
    """Every metric of random predictions that lie where the frame layer's arrays lie."""
    rng, n = np.random.default_rng(7), 500
    weight = fx.to_device(rng.random(n)) if weighted else None
    classes = {"binary": ["a", "b"], "multiclass": ["a", "b", "c"], "regression": []}[task]
    y = rng.integers(0, len(classes), n) if classes else rng.normal(size=n) + 5
    p = rng.random((n, len(classes))) if task == "multiclass" else rng.random(n)
    p = p / p.sum(axis=1, keepdims=True) if task == "multiclass" else p
    scores = evaluate(task, fx.to_device(y), fx.to_device(p), weight=weight, classes=classes,
                      resamples=50)
    return {name: score.to_json() for name, score in scores.items()}


def predictions(trained: Trained) -> np.ndarray:
    """All that was predicted, side by side."""
    outcome = trained.model
    return np.concatenate([to_host(a).ravel() for a in (outcome.holdout, outcome.oof)])
