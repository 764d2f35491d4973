"""The fast hand-written script on a GPU: cuDF and CuPy for the features, XGBoost for the trees.

python benchmarks/rivals/cudf_xgboost.py benchmarks/data/two_million.parquet

The same features, folds and trees as polars_xgboost.py. Prints one JSON object: the holdout's AUC
and the seconds of every stage.
"""

import json
import sys
import time

started = time.perf_counter()

import cudf  # noqa: E402
import cupy  # noqa: E402
import numpy as np  # noqa: E402
import xgboost as xgb  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

FOLDS = 5
HOLDOUT = FOLDS  # the holdout is one more fold, which nothing learns from
WIDTH = FOLDS + 1
SMOOTHING = 10.0

seconds: dict[str, float] = {}


def stage(name: str) -> None:
    """Book the time since the last stage ended under ``name``, once the device is done."""
    cupy.cuda.runtime.deviceSynchronize()
    seconds[name] = round(time.perf_counter() - started - sum(seconds.values()), 3)


# XGBoost would train on the CPU without a word where there is no device.
assert cupy.cuda.runtime.getDeviceCount() > 0
stage("import")

frame = cudf.read_parquet(sys.argv[1])
stage("read")

rng = np.random.default_rng(0)
fold = rng.integers(0, FOLDS, len(frame)).astype(np.int8)
fold[rng.random(len(frame)) < 0.2] = HOLDOUT
frame["fold"] = fold
learning = frame["fold"] < HOLDOUT
fold = cupy.asarray(frame["fold"]).astype("int64")
y = cupy.asarray(frame["target"]).astype("float64")
stage("split")

numeric = [c for c in frame.columns if c.startswith("num_")]
categorical = [c for c in frame.columns if c.startswith(("str_", "int_"))]

features = []
for column in numeric:
    values = frame[column]
    known = values[learning]
    median = known.median()
    filled = known.fillna(median)
    scaled = (values.fillna(median) - filled.mean()) / filled.std()
    features.append(cupy.asarray(scaled.astype("float32")))
    del frame[column], values, known, filled, scaled
stage("numeric")

prior = float(y[fold < HOLDOUT].mean())
for column in categorical:
    # Smoothed target means as a table of level and fold; a training row's leaves its own fold out.
    codes, levels = frame[column].factorize()
    cell = codes.astype("int64") * WIDTH + fold
    shape = len(levels), WIDTH
    rows = cupy.bincount(cell, minlength=shape[0] * WIDTH).reshape(shape).astype("float64")
    sums = cupy.bincount(cell, weights=y, minlength=shape[0] * WIDTH).reshape(shape)
    rows[:, HOLDOUT] = 0
    sums[:, HOLDOUT] = 0
    others = sums.sum(axis=1, keepdims=True) - sums + SMOOTHING * prior
    means = others / (rows.sum(axis=1, keepdims=True) - rows + SMOOTHING)
    features.append(means.astype("float32").ravel()[cell])
    del frame[column], codes, cell
stage("target_encode")

moment = frame["time"].dt
features += [cupy.asarray(part.astype("float32")) for part in (moment.hour, moment.weekday)]
del frame
matrix = cupy.column_stack(features)
del features
held = fold == HOLDOUT
X_train, X_test = matrix[~held], matrix[held]
del matrix
stage("matrix")

data = xgb.QuantileDMatrix(X_train, y[~held])
del X_train
stage("quantise")

params = {
    "objective": "binary:logistic",
    "max_depth": 6,
    "learning_rate": 0.1,
    "tree_method": "hist",
    "device": "cuda",
}
model = xgb.train(params, data, num_boost_round=100)
stage("train")

scores = cupy.asnumpy(model.inplace_predict(X_test))
auc = roc_auc_score(cupy.asnumpy(y[held]), scores)
stage("evaluate")

print(json.dumps({"auc": auc, "seconds": seconds}))
