"""Reports of models really trained on the real tables, to test and to look at.

    python tests/evaluate/sample_report.py ../shared/data OUT_FOLDER
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost as xgb
from sklearn.compose import make_column_transformer
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from gpupipe.evaluate import evaluate, paired_difference, slice_scores
from gpupipe.evaluate.curves import curves
from gpupipe.evaluate.metrics import DEFAULT_METRICS
from gpupipe.evaluate.report import Column, Report, render_report

ADULT = ["age", "workclass", "fnlwgt", "education", "education-num", "marital-status",
         "occupation", "relationship", "race", "sex", "capital-gain", "capital-loss",
         "hours-per-week", "native-country", "outcome"]


def adult(data: Path, rounds: int = 200, resamples: int = 1000,
          rows: int | None = None) -> Report:
    table = pd.read_csv(data / "adult" / "adult.data", names=ADULT, header=0, skipinitialspace=True,
                        na_values="?")
    return build("adult-income", "binary", table[:rows], "outcome", ["<=50K", ">50K"],
                 ["sex", "race", "education"], "adult/adult.data", rounds, resamples)


def cut(data: Path, rounds: int = 120, resamples: int = 1000,
        rows: int | None = None) -> Report:
    table = pd.read_csv(data / "diamonds" / "diamonds.csv")
    classes = ["Fair", "Good", "Very Good", "Premium", "Ideal"]
    return build("diamonds-cut", "multiclass", table[:rows], "cut", classes, ["color", "clarity"],
                 "diamonds/diamonds.csv", rounds, resamples)


def price(data: Path, rounds: int = 200, resamples: int = 1000,
          rows: int | None = None) -> Report:
    table = pd.read_csv(data / "diamonds" / "diamonds.csv")
    return build("diamonds-price", "regression", table[:rows], "price", [], ["cut", "color"],
                 "diamonds/diamonds.csv", rounds, resamples)


def profile(values: pd.Series, role: str) -> Column:
    column: Column = {
        "name": values.name, "role": role, "missing": float(values.isna().mean()),
        "distinct": int(values.nunique()),
        "dtype": "float64" if values.dtype.kind == "f" else
        "int64" if values.dtype.kind == "i" else "string",
    }
    if values.dtype.kind in "if" and column["distinct"] > 2:
        counts, edges = np.histogram(values.dropna(), 36)
        column |= {"min": float(values.min()), "max": float(values.max()),
                   "mean": float(values.mean()), "median": float(values.median()),
                   "histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}
    else:
        top = values.value_counts().head(8)
        column["top"] = [{"value": str(v), "count": int(n)} for v, n in top.items()]
    return column


def build(name: str, task: str, table: pd.DataFrame, target: str, classes: list[str],
          sliced: list[str], path: str, rounds: int, resamples: int) -> Report:
    timings = []

    def timed(stage, started, rows):
        timings.append({"stage": stage, "seconds": time.perf_counter() - started, "rows": rows})

    start = time.perf_counter()
    rng = np.random.default_rng(0)
    held = rng.random(len(table)) < 0.2
    y = table[target]
    y = y.map({c: i for i, c in enumerate(classes)}) if classes else y.astype(float)
    y = y.to_numpy()
    X = table.drop(columns=target)
    text = [c for c in X if X[c].dtype.kind not in "if"]
    for c in text:
        X[c] = X[c].astype("category")
    rest = np.flatnonzero(~held)
    valid = np.zeros(len(table), bool)
    valid[rest[rng.random(len(rest)) < 0.15]] = True
    fit = ~held & ~valid
    timed("ingest", start, len(table))

    start = time.perf_counter()
    params = {"n_estimators": rounds, "max_depth": 6, "learning_rate": 0.1, "n_jobs": 2,
              "enable_categorical": True, "early_stopping_rounds": 30, "random_state": 0}
    make = xgb.XGBRegressor if task == "regression" else xgb.XGBClassifier
    model = make(**params)
    model.fit(X[fit], y[fit], eval_set=[(X[fit], y[fit]), (X[valid], y[valid])], verbose=False)
    timed("train", start, int(fit.sum()))
    start = time.perf_counter()
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", min_frequency=20), text),
        (StandardScaler(), [c for c in X if c not in text]))
    linear = make_pipeline(encode, Ridge() if task == "regression"
                           else LogisticRegression(max_iter=1000, C=0.1))
    some = np.flatnonzero(fit)[:8000]
    linear.fit(X.iloc[some], y[some])
    dummy = DummyRegressor() if task == "regression" else DummyClassifier(strategy="prior")
    dummy.fit(X[fit], y[fit])
    timed("baselines", start, len(some))

    def predict(one, rows=held):
        if task == "regression":
            return one.predict(X[rows]).astype(float)
        p = one.predict_proba(X[rows]).astype(float)
        return p[:, 1] if task == "binary" else p / p.sum(1, keepdims=True)

    start = time.perf_counter()
    truth, scored = y[held], predict(model)
    others = {"linear": predict(linear), "constant": predict(dummy)}
    scores = {n: {m: s.to_json() for m, s in evaluate(
        task, truth, p, classes=classes or None, resamples=resamples).items()}
        for n, p in {"model": scored, **others}.items()}
    headline = DEFAULT_METRICS[task][0]
    differences = {n: {headline: paired_difference(
        task, headline, truth, scored, p, resamples=resamples).to_json()}
        for n, p in others.items()}
    slices = []
    for c in sliced:
        codes, levels = pd.factorize(X[held][c])
        slices.append({"column": c, "rows": slice_scores(
            task, truth, scored, codes, [str(v) for v in levels], resamples=resamples // 2)})
    drawn = curves(task, truth, scored, classes=classes or None)
    timed("evaluate", start, int(held.sum()))

    gains = model.get_booster().get_score(importance_type="total_gain")
    total = sum(gains.values())
    history = list(model.evals_result().values())
    metric = next(iter(history[0]))
    holdout = {"model": scores.pop("model"), "baselines": scores, "differences": differences,
               "rows": int(held.sum())}
    fifth = rng.integers(0, 5, len(truth))
    folds = [{m: s.value for m, s in evaluate(
        task, truth[fifth == k], scored[fifth == k], resamples=0).items()} for k in range(5)]
    within = {m: s.to_json() for m, s in evaluate(
        task, y[valid], predict(model, valid), resamples=resamples).items()}
    return {
        "name": name, "created": "2026-03-14 09:26 UTC", "run_id": "20260314-092653-1f3a",
        "task": task, "target": target, "classes": classes, "headline": headline,
        "source": {"path": path, "rows": len(table), "columns": table.shape[1],
                   "fingerprint": "b2c5d4e0a1f09c77"},
        "split": {"by": "stratified", "train": int((~held).sum()), "holdout": int(held.sum()),
                  "folds": 5},
        "plan": {"device": "cpu", "engine": "local", "lines": [
            "1 scan learns vocabularies, histograms and splits",
            f"matrix of {len(rest):,} x {X.shape[1]} in memory"]},
        "timings": timings,
        "warnings": [f"{c} is nearly unique: it may be an identifier" for c in X
                     if X[c].nunique() > 0.2 * len(X)],
        "quarantine": {"count": 2, "rows": len(table), "share": 2 / len(table),
                       "path": "runs/latest/quarantine.csv",
                       "reasons": [{"reason": "13 fields, expected 15", "count": 2}],
                       "examples": [{"line": 917, "reason": "13 fields, expected 15",
                                     "text": "39, State-gov, 77516, Bachelors"}]},
        "profile": [profile(table[c], "categorical" if c in text else "numeric") for c in X],
        "target_profile": profile(table[target], "target"),
        "metrics": {"holdout": holdout, "cross_validation": {"model": within},
                    "folds": folds},
        "curves": drawn,
        "importances": [{"feature": f, "gain": g, "share": g / total} for f, g in gains.items()],
        "slices": slices,
        "model": {"kind": "xgboost", "params": params, "rounds": model.best_iteration + 1},
        "features": [{"step": "categorical", "columns_in": text, "columns_out": text},
                     {"step": "numeric", "columns_in": [c for c in X if c not in text],
                      "columns_out": [c for c in X if c not in text]}],
        "scans": [{"name": "scan 1", "rows": len(table),
                   "learns": ["vocabularies", "histograms", "split thresholds"]}],
        "learning_curve": {"metric": metric, "train": history[0][metric],
                           "valid": history[1][metric], "best": model.best_iteration + 1},
        "versions": {"gpupipe": "0.1.0", "xgboost": xgb.__version__, "pandas": pd.__version__,
                     "numpy": np.__version__},
        "seed": 0,
    }


if __name__ == "__main__":
    source, out = Path(sys.argv[1]), Path(sys.argv[2])
    for make in (adult, cut, price):
        (out / f"{make.__name__}.html").write_text(render_report(make(source)), encoding="utf-8")
