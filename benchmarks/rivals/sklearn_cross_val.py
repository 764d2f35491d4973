"""The pipeline of sklearn_pipeline.py in scikit-learn's five-fold ``cross_val_score``.

python benchmarks/rivals/sklearn_cross_val.py benchmarks/data/two_million.parquet

Prints one JSON object: the mean AUC of the folds, the seconds of every stage, and how often the
features were fitted and applied. ``preprocess`` is a part of ``total_cross_val``: the features'
``fit_transform`` on the training folds and their ``transform`` on the validation folds.
"""

import json
import sys
import time

started = time.perf_counter()

import pandas as pd  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.model_selection import StratifiedKFold, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, StandardScaler, TargetEncoder  # noqa: E402
from xgboost import XGBClassifier  # noqa: E402

seconds: dict[str, float] = {}


def stage(name: str) -> None:
    """Book the time since the last stage ended under ``name``."""
    seconds[name] = round(time.perf_counter() - started - sum(seconds.values()), 3)


def time_parts(frame: pd.DataFrame) -> pd.DataFrame:
    moment = frame["time"].dt
    return pd.DataFrame({"hour": moment.hour, "day_of_week": moment.dayofweek})


class TimedColumnTransformer(ColumnTransformer):
    """Books its seconds with the class, since every fold works with a clone."""

    spent: dict[str, list[float]] = {"fit_transform": [], "transform": []}  # noqa: RUF012

    def fit_transform(self, X, y=None, **params):
        begun = time.perf_counter()
        made = super().fit_transform(X, y, **params)
        self.spent["fit_transform"].append(time.perf_counter() - begun)
        return made

    def transform(self, X, **params):
        begun = time.perf_counter()
        made = super().transform(X, **params)
        self.spent["transform"].append(time.perf_counter() - begun)
        return made


stage("import")

X = pd.read_parquet(sys.argv[1])
stage("read")

y = X.pop("target")
numeric = [c for c in X if c.startswith("num_")]
categorical = [c for c in X if c.startswith(("str_", "int_"))]
features = TimedColumnTransformer(
    [
        ("numeric", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numeric),
        ("categorical", TargetEncoder(target_type="binary"), categorical),
        ("time", FunctionTransformer(time_parts), ["time"]),
    ]
)
model = XGBClassifier(
    n_estimators=100, max_depth=6, learning_rate=0.1, tree_method="hist", n_jobs=2
)
scores = cross_val_score(
    make_pipeline(features, model), X, y, scoring="roc_auc", error_score="raise",
    cv=StratifiedKFold(5, shuffle=True, random_state=0),
)  # fmt: skip
stage("total_cross_val")

spent = TimedColumnTransformer.spent
seconds |= {name: round(sum(each), 3) for name, each in spent.items()}
seconds["preprocess"] = round(sum(map(sum, spent.values())), 3)
print(json.dumps({"auc": float(scores.mean()), "seconds": seconds,
                  "calls": {name: len(each) for name, each in spent.items()}}))  # fmt: skip
