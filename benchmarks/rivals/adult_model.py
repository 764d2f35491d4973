"""The scikit-learn pipeline that the rivals in serving.py serve.

python benchmarks/rivals/adult_model.py adult.data FOLDER

Of the same kind as benchmarks/pipelines/adult_serving.yaml: the same columns one-hot and
target-encoded, numbers as they are, 500 trees of depth 6. FOLDER gets `model.joblib` for
fastapi_app.py and `mlflow`, a model of mlflow's with the signature that its pages recommend.
"""

import sys
from pathlib import Path

import joblib
import mlflow.sklearn
import pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, TargetEncoder
from xgboost import XGBClassifier

ONE_HOT = ["workclass", "marital-status", "relationship", "race", "sex"]
TARGET_ENCODED = ["education", "occupation", "native-country"]

table = pd.read_csv(sys.argv[1], skipinitialspace=True, na_values="?")
out = Path(sys.argv[2])
out.mkdir(parents=True, exist_ok=True)
y = (table.pop("outcome") == ">50K").astype(int)
text = table.select_dtypes(exclude="number").columns
table[text] = table[text].astype(object)

model = make_pipeline(
    ColumnTransformer([
        ("one_hot", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ONE_HOT),
        ("target", TargetEncoder(random_state=0), TARGET_ENCODED),
    ], remainder="passthrough"),
    # One thread: more of them only wait for each other over a row.
    XGBClassifier(n_estimators=500, max_depth=6, learning_rate=0.05, n_jobs=1),
).fit(table, y)

joblib.dump(model, out / "model.joblib")
mlflow.sklearn.save_model(
    model, out / "mlflow", pyfunc_predict_fn="predict_proba", serialization_format="cloudpickle",
    signature=infer_signature(table.dropna().head(100), model.predict_proba(table.head(100))),
)
