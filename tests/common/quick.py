"""Small tables of every type, and pipelines that are trained on them in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe.bundle import store
from gpupipe.bundle.golden import golden_rows
from gpupipe.bundle.scoring import Bundle
from gpupipe.config import PipelineConfig, parse_config
from gpupipe.data.ingest import ingest
from gpupipe.engine.local import LocalEngine
from gpupipe.record import contents_of, states_of
from gpupipe.steps.graph import feature_names
from gpupipe.training import Trained, train

FEW = {"n_estimators": 4, "max_depth": 3}
TARGETS = {"binary": "label", "multiclass": "kind", "regression": "amount"}
MEMBERS = {"bundle", "config.json", "manifest.json", "metrics.json", "predictions.parquet",
           "report.html"}
"""What a run's folder holds, without explanations."""
COLUMNS = ("f", "narrow", "i", "b", "s", "t")
NUMBERS = ["f", "narrow", "i", "b"]
LEVELS = [*NUMBERS, "s"]
NO_TIME = {"drop": {"columns": "t"}}
CODES = [{"ordinal": {"columns": "s"}}, NO_TIME]
FILLED = [{"impute": {"columns": NUMBERS, "strategy": "mean"}}]
STEPS_IN_USE: dict[str, list] = {
    "impute": [{"impute": {"columns": NUMBERS, "strategy": "median", "indicator": True}},
               {"impute": {"columns": "s", "strategy": "most_frequent"}}, *CODES],
    "scale": [{"scale": {"columns": ["f"], "method": "robust"}},
              {"scale": {"columns": ["narrow", "i", "b"]}}, *CODES],
    "clip": [{"clip": {"columns": NUMBERS, "lower": 0.1, "upper": 0.8}}, *CODES],
    "log": [{"log": {"columns": NUMBERS}}, *CODES],
    "bin": [{"bin": {"columns": ["f", "narrow"], "bins": 4}},
            {"bin": {"columns": "i", "bins": 3, "strategy": "uniform"}}, *CODES],
    "one_hot": [{"one_hot": {"columns": LEVELS, "max_levels": 4}}, NO_TIME],
    "ordinal": [{"ordinal": {"columns": LEVELS, "max_levels": 5}}, NO_TIME],
    "count": [{"count": {"columns": LEVELS, "normalize": True}}, NO_TIME],
    "hash": [{"hash": {"columns": LEVELS, "buckets": 7}}, NO_TIME],
    "target_encode": [{"target_encode": {"columns": LEVELS}}, NO_TIME],
    "select": [{"select": {"columns": NUMBERS}}],
    "drop": [{"drop": {"columns": ["s", "t"]}}],
    "drop_constant": ["drop_constant", *CODES],
    "copy": [{"copy": {"columns": LEVELS}},
             {"target_encode": {"columns": [f"{name}_copy" for name in LEVELS]}}, *CODES],
    "ratio": [{"ratio": {"columns": NUMBERS}},
              {"impute": {"columns": ["f_per_i", "i"], "indicator": True}},
              {"ratio": {"columns": ["i_per_b", "narrow"]}}, *CODES],
    "cast": [{"cast": {"columns": ["i", "b", "f"], "to": "string"}},
             {"one_hot": {"columns": ["i", "b"]}}, {"hash": {"columns": "f"}}, *CODES],
    "datetime": [{"datetime": {"cyclic": True, "parts": ["month", "hour", "timestamp"]}}, CODES[0]],
}
"""For each registered step features on `small_table` that it has a part in."""
MODEL_PARAMS = {"xgboost": FEW, "lightgbm": FEW, "catboost": FEW, "forest": FEW,
                "extra_trees": FEW, "linear": {},
                "neighbours": {}, "svm": {}, "naive_bayes": {}, "constant": {}}
"""Each family that predicts a target, with parameters that train in a moment."""


def small_table(n: int = 240, seed: int = 0) -> pa.Table:
    """``n`` rows: features of every type, each with missing values, and a target a task."""
    rng = np.random.default_rng(seed)

    def column(values: Any, arrow: pa.DataType) -> pa.Array:
        return pa.array(values, arrow, mask=rng.random(n) < 0.1)

    x, words = rng.normal(size=n), np.array(["", "a", "ß", "漢字", "a b"])
    text = words[rng.integers(0, 5, n)]
    signal = x + (text == "a") + rng.normal(size=n) / 2
    return pa.table({
        "f": column(x.round(2), pa.float64()),
        "narrow": column(rng.normal(size=n).astype(np.float32), pa.float32()),
        "i": column(rng.integers(-3, 4, n), pa.int64()),
        "b": column(rng.random(n) < 0.4, pa.bool_()),
        "s": column(text.tolist(), pa.string()),
        "t": column(rng.integers(0, 10**15, n), pa.timestamp("us")),
        "label": np.where(signal > 0.3, "yes", "no").tolist(),
        "kind": np.array(["low", "middle", "high"])[np.digitize(signal, [-0.5, 0.8])].tolist(),
        "amount": signal * 10,
    })


def settings(task: str = "binary", **sections: Any) -> dict[str, Any]:
    """A pipeline on `small_table` that takes a fraction of a second."""
    target = TARGETS[task]
    others = [name for name in TARGETS.values() if name != target]
    config: dict[str, Any] = {
        "data": {"source": "t.parquet", "target": target, "drop": others},
        "split": {"holdout": 0.25, "folds": 0},
        "model": {"kind": "xgboost", "params": FEW},
        "evaluate": {"baselines": [], "resamples": 10},
        "explain": {"rows": 0},
        "engine": {"workers": 1},
    }
    for name, section in sections.items():
        merge = isinstance(section, dict) and name in config and name != "model"
        config[name] = {**config[name], **section} if merge else section
    return config


def trained_on(
    source: Any, config: PipelineConfig | dict[str, Any], cache: Path = Path("cache"),
) -> Trained:
    """Training alone: no report, no metrics."""
    made = parse_config(config)
    workers = made.engine.workers if isinstance(made.engine.workers, int) else 1
    dataset = ingest(source, cache=cache, types=made.data.types, missing=made.data.missing)
    return train(made, dataset, LocalEngine(workers, made.engine.batch_rows), baselines=False)


def write_bundle(trained: Trained, folder: Path) -> Bundle:
    """What `workflow.run` writes as a run's bundle, and the bundle before it was written."""
    contents = contents_of(trained)
    bundle = Bundle(contents, folder)
    rows = next(trained.dataset.stream(batch_rows=16))
    store.write(folder, contents, states_of(trained), golden_rows(bundle, rows))
    return bundle


def best_names(found: Any) -> list[str]:
    """The features of a search's best trial."""
    number = found.best.number
    return [n for n, _ in feature_names(found.candidates[number].graph, found.views[number][-1])]


def tried_and_taken(found: Any, choice: str, value: str) -> None:
    """A search tried the usual value of a choice first, then this one, and was better for it."""
    tried = [t.features.get(choice) for t in found.trials]
    assert tried[0] is None, "first the family as it is"
    assert value in tried
    assert found.best.features[choice] == value
    plain = max(t.score for t in found.trials
                if t.score is not None and t.features.get(choice) != value)
    assert found.best.score > plain + 0.02
