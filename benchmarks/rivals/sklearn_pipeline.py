"""The pandas + scikit-learn + XGBoost script that a good data scientist writes.

python benchmarks/rivals/sklearn_pipeline.py benchmarks/data/two_million.parquet

Prints one JSON object: the holdout's AUC and the seconds of every stage.
"""

import json
import sys
import time

started = time.perf_counter()

import pandas as pd  # noqa: E402
from sklearn.compose import ColumnTransformer  # noqa: E402
from sklearn.impute import SimpleImputer  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402
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


stage("import")

frame = pd.read_parquet(sys.argv[1])
stage("read")

y = frame.pop("target")
X_train, X_test, y_train, y_test = train_test_split(frame, y, test_size=0.2, random_state=0)
del frame
stage("split")

numeric = [c for c in X_train if c.startswith("num_")]
categorical = [c for c in X_train if c.startswith(("str_", "int_"))]
features = ColumnTransformer(
    [
        ("numeric", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numeric),
        ("categorical", TargetEncoder(target_type="binary"), categorical),
        ("time", FunctionTransformer(time_parts), ["time"]),
    ]
)
F_train = features.fit_transform(X_train, y_train)
stage("fit_transform")

model = XGBClassifier(
    n_estimators=100, max_depth=6, learning_rate=0.1, tree_method="hist", n_jobs=2
)
model.fit(F_train, y_train)
stage("train")

F_test = features.transform(X_test)
stage("transform_holdout")

auc = roc_auc_score(y_test, model.predict_proba(F_test)[:, 1])
stage("evaluate")

print(json.dumps({"auc": auc, "seconds": seconds}))
