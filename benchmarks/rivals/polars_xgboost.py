"""The fast hand-written script: Polars for the features, XGBoost's own API for the trees.

python benchmarks/rivals/polars_xgboost.py benchmarks/data/two_million.parquet

Prints one JSON object: the holdout's AUC and the seconds of every stage.
"""

import json
import sys
import time

started = time.perf_counter()

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import xgboost as xgb  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

FOLDS = 5
HOLDOUT = FOLDS  # the holdout is one more fold, which nothing learns from
SMOOTHING = 10.0

seconds: dict[str, float] = {}


def stage(name: str) -> None:
    """Book the time since the last stage ended under ``name``."""
    seconds[name] = round(time.perf_counter() - started - sum(seconds.values()), 3)


stage("import")

frame = pl.read_parquet(sys.argv[1])
stage("read")

rng = np.random.default_rng(0)
fold = rng.integers(0, FOLDS, frame.height).astype(np.int8)
fold[rng.random(frame.height) < 0.2] = HOLDOUT
frame = frame.with_columns(fold=pl.Series(fold))
learning = pl.col("fold") < HOLDOUT
stage("split")

numeric = [c for c in frame.columns if c.startswith("num_")]
categorical = [c for c in frame.columns if c.startswith(("str_", "int_"))]

train = frame.lazy().filter(learning)
median = train.select(pl.col(numeric).median()).collect().row(0, named=True)
filled = train.select(pl.col(c).fill_null(median[c]) for c in numeric)
mean = filled.mean().collect().row(0, named=True)
std = filled.std().collect().row(0, named=True)
stage("numeric_fit")

prior = train.select(pl.col("target").mean()).collect().item()


def encoding(frame: pl.DataFrame, column: str) -> pl.Series:
    """Smoothed target means; a training row's leaves its own fold out."""
    by_fold = (
        frame.group_by(column, "fold")
        .agg(n=pl.len(), s=pl.col("target").cast(pl.Int64).sum())
        .filter(learning)
    )
    total = by_fold.group_by(column).agg(pl.col("n", "s").sum())
    table = (
        total.join(pl.DataFrame({"fold": pl.Series(range(FOLDS + 1), dtype=pl.Int8)}), how="cross")
        .join(by_fold, on=[column, "fold"], how="left", suffix="_own")
        .with_columns(pl.col("n_own", "s_own").fill_null(0))
        .select(
            column,
            "fold",
            te=(
                (pl.col("s") - pl.col("s_own") + SMOOTHING * prior)
                / (pl.col("n") - pl.col("n_own") + SMOOTHING)
            ).cast(pl.Float32),
        )
    )
    rows = frame.select(column, "fold")
    joined = rows.join(table, on=[column, "fold"], how="left", maintain_order="left")
    return joined["te"].fill_null(prior).alias(column)


encoded = [encoding(frame, c) for c in categorical]
stage("target_encode")

features = frame.select(
    *[
        ((pl.col(c).fill_null(median[c]) - mean[c]) / std[c]).cast(pl.Float32)
        for c in numeric
    ],
    *encoded,
    pl.col("time").dt.hour().cast(pl.Float32).alias("hour"),
    pl.col("time").dt.weekday().cast(pl.Float32).alias("day_of_week"),
)
y = frame["target"].to_numpy()
del frame, train, encoded
held = fold == HOLDOUT
X_train = features.filter(~held)  # XGBoost reads Polars' columns without a copy
X_test = features.filter(held)
del features
stage("matrix")

data = xgb.QuantileDMatrix(X_train, y[~held], nthread=2)
del X_train
stage("quantise")

params = {
    "objective": "binary:logistic",
    "max_depth": 6,
    "learning_rate": 0.1,
    "tree_method": "hist",
    "nthread": 2,
}
model = xgb.train(params, data, num_boost_round=100)
stage("train")

auc = roc_auc_score(y[held], model.inplace_predict(X_test))
stage("evaluate")

print(json.dumps({"auc": auc, "seconds": seconds}))
