"""AutoGluon's medium preset.

python benchmarks/rivals/autogluon_tabular.py TRAIN TEST TARGET TASK SECONDS SEED OUT

The arguments and the output are those of flaml_automl.py. All is at its defaults but the preset,
the budget and the metric; AutoGluon fixes its own seeds.
"""

import sys
import tempfile

import numpy as np
import pandas as pd
from autogluon.tabular import TabularPredictor

train, test, target, task, seconds, seed, out = sys.argv[1:]
learned, unseen = pd.read_parquet(train), pd.read_parquet(test)
binary = task != "regression"
with tempfile.TemporaryDirectory() as folder:
    model = TabularPredictor(
        label=target, path=folder, problem_type="binary" if binary else "regression",
        eval_metric="roc_auc" if binary else "root_mean_squared_error", verbosity=1,
    ).fit(learned, presets="medium_quality", time_limit=float(seconds))
    unseen = unseen.drop(columns=target)
    found = (model.predict_proba(unseen)[np.sort(learned[target].unique())[1]] if binary
             else model.predict(unseen))
    pd.DataFrame({"prediction": np.asarray(found, dtype=float)}).to_parquet(out)
