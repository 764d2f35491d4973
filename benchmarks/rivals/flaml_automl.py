"""FLAML on a table, for so many seconds.

python benchmarks/rivals/flaml_automl.py TRAIN TEST TARGET TASK SECONDS SEED OUT

TRAIN, TEST and OUT are Parquet files; OUT gets one column, `prediction`: P(the second class in
sorted order), or the value. All is at its defaults but the budget, the metric and the seed.
"""

import sys

import numpy as np
import pandas as pd
from flaml import AutoML

train, test, target, task, seconds, seed, out = sys.argv[1:]
learned, unseen = pd.read_parquet(train), pd.read_parquet(test)
for column in learned.columns.drop(target):
    if learned[column].dtype == object or str(learned[column].dtype).startswith("str"):
        levels = pd.Index(learned[column].dropna().unique())
        learned[column] = pd.Categorical(learned[column], levels)
        unseen[column] = pd.Categorical(unseen[column], levels)
y = learned.pop(target)
unseen = unseen.drop(columns=target)
model = AutoML()
if task == "regression":
    model.fit(learned, y, task="regression", metric="rmse", time_budget=float(seconds),
              seed=int(seed), verbose=0)
    found = model.predict(unseen)
else:
    classes = np.sort(y.unique())
    model.fit(learned, (y == classes[1]).astype(int), task="classification", metric="roc_auc",
              time_budget=float(seconds), seed=int(seed), verbose=0)
    found = model.predict_proba(unseen)[:, 1]
pd.DataFrame({"prediction": np.asarray(found, dtype=float)}).to_parquet(out)
