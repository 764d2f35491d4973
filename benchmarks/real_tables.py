"""gpupipe as it comes, on real tables, beside plain scikit-learn and plain XGBoost.

    python benchmarks/real_tables.py --data ../shared/data --out benchmarks/results/real_tables.json
    python benchmarks/real_tables.py --data ../shared/data --only housing taxis
    python benchmarks/real_tables.py --data ../shared/data --only --adult-seeds 5

For each table, in an empty folder: ``gpupipe init SOURCE --target T``, then ``gpupipe run
pipeline.yaml --json`` with one line added in between, ``leaks: {check: warn}``: the total of a taxi
ride gives its fare away, and the rivals have it too. The rivals learn from the very rows and
columns that gpupipe's final model learned from (``predictions.parquet`` names the holdout rows,
the pipeline file the dropped columns) and predict the same holdout. Every contender is a fresh
process with one environment. Exit code 1 if one of them failed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
TABLES = {  # name: (source, target)
    "adult": ("adult/adult.data", "outcome"),
    "bank-marketing": ("bank-marketing/bank-full.csv", "y"),
    "credit-default": ("credit-default/credit.csv", "Y"),
    "telco-churn": ("telco-churn/telco.csv", "Churn"),
    "diamonds": ("diamonds/diamonds.csv", "price"),
    "housing": ("housing/housing.csv", "median_house_value"),
    "taxis": ("taxis/taxis.csv", "fare"),
    "electricity": ("electricity/electricity.csv", "class"),
    "flights": ("flights/flights-200k.arrow", "delay"),
    "birdstrikes": ("birdstrikes/birdstrikes.csv", "Effect Amount of damage"),
    "movies": ("movies/movies.json", "IMDB Rating"),
    "cookie-cats": ("cookie-cats/cookie_cats.csv", "retention_7"),
    "nycflights13": ("nycflights13/flights_100k_sample.parquet", "arr_delay"),
    "kddcup99": ("kddcup99/kddcup.data_10_percent.gz", "column_41"),
}
METRICS = {  # task: the metrics shown, and whether greater is better
    "binary": {"roc_auc": True, "log_loss": False},
    "multiclass": {"accuracy": True, "log_loss": False},
    "regression": {"root_mean_squared_error": False, "r2": True},
}
RIVALS = ("hgb", "xgb")
HGB_LEVELS = 255
"""HistGradientBoosting takes no category of more levels; wider ones go in as plain codes."""
TEXT_SHARE = 0.5
"""As gpupipe does, text with more distinct values than this share of the rows is left out."""

Result = dict[str, Any]


def measured(command: Sequence[str | Path], folder: Path) -> tuple[str, Result]:
    """Standard output of a fresh process, with its wall seconds, peak memory and exit code."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths), "OMP_WAIT_POLICY": "PASSIVE", "NO_COLOR": "1",
    }
    with (folder / "stdout").open("w+") as out, (folder / "stderr").open("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait again
        out.seek(0)
        err.seek(0)
        text, faults = out.read(), err.read()
    facts: Result = {"wall_s": round(wall, 2), "peak_mb": round(usage.ru_maxrss / 1024)}
    if process.returncode:
        facts["error"] = f"exit code {process.returncode}: {faults.strip()[-2000:]}"
    return text, facts


def gpupipe(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "gpupipe.cli", *arguments]


def bench(name: str, data: Path, rivals: Sequence[str]) -> Result:
    """One table from init to the rivals' scores."""
    source, target = TABLES[name]
    found: Result = {"table": name}
    with tempfile.TemporaryDirectory(prefix="real-tables-") as scratch:
        folder = Path(scratch)
        _, found["init"] = measured(
            gpupipe("init", data / source, "--target", target), folder)
        if "error" in found["init"]:
            return found
        with (folder / "pipeline.yaml").open("a") as file:
            file.write("leaks: {check: warn}\n")
        said, found["gpupipe"] = measured(gpupipe("run", "pipeline.yaml", "--json"), folder)
        if "error" in found["gpupipe"]:
            return found
        summary = json.loads(said)
        task = summary["task"]
        keep = ("value", "low", "high")
        found |= {
            "task": task, "rows": summary["rows"], "notes": summary["notes"],
            "rounds": rounds_of(folder),
        }
        found["gpupipe"] |= {
            "holdout": {m: {k: summary["metrics"][m][k] for k in keep} for m in METRICS[task]},
            "out_of_fold": {m: summary["cross_validation"][m]["value"] for m in METRICS[task]},
            "linear": {m: summary["baselines"]["linear"][m]["value"] for m in METRICS[task]},
            "timings": summary["timings"],
        }
        for rival in rivals:
            said, found[rival] = measured(
                [sys.executable, Path(__file__).resolve(), "--rival", rival], folder)
            if "error" not in found[rival]:
                found[rival] |= json.loads(said)
    return found


def rounds_of(folder: Path) -> int | None:
    """The number of boosting rounds of the final model."""
    bundle = json.loads((folder / "runs/latest/bundle/bundle.json").read_text())
    rounds: int | None = bundle["model"].get("rounds")
    return rounds


def rival_main(rival: str) -> None:
    """Train a rival on the split of ``runs/latest`` here, and print its holdout scores."""
    import pyarrow.parquet as pq

    from gpupipe.config import load_config
    from gpupipe.data.ingest import ingest
    from gpupipe.evaluate.scores import evaluate, paired_difference

    config = load_config(Path("pipeline.yaml"))
    data = config.data
    dataset = ingest(data.source, cache=Path("runs/.cache"), types=data.types,
                     missing=data.missing)
    predicted = pq.read_table("runs/latest/predictions.parquet").to_pandas()
    held = predicted[predicted.fold == -1]
    learned = predicted[predicted.fold >= 0]
    names = [n for n in dataset.schema.names if n != data.target and n not in data.drop]
    features = plain_features(dataset, names, rival)
    classes = [c.removeprefix("probability_") for c in predicted if c.startswith("probability_")]
    start = time.perf_counter()
    if "prediction" in predicted:
        task = "regression"
        model = estimator(rival, task).fit(features.iloc[learned.row], learned.target)
        scores = model.predict(features.iloc[held.row]).astype(float)
        ours, y = held.prediction.to_numpy(), held.target.to_numpy()
    else:
        task = "multiclass" if classes else "binary"
        # [negative, positive] where binary: gpupipe's probability is of the latter.
        labels = json.loads(Path("runs/latest/bundle/bundle.json").read_text())["classes"]
        place = {c: i for i, c in enumerate(labels)}
        codes, y = (part.target.map(place).to_numpy() for part in (learned, held))
        seen = np.unique(codes)
        model = estimator(rival, task, rare=int(np.bincount(codes)[seen].min()) < 20)
        model.fit(features.iloc[learned.row], np.searchsorted(seen, codes))
        found = model.predict_proba(features.iloc[held.row]).astype(float)
        scores = np.zeros((len(held), len(labels)))
        scores[:, seen] = found / found.sum(1, keepdims=True)
        ours = held[[f"probability_{c}" for c in classes]].to_numpy() if classes else (
            held.probability.to_numpy())
        scores = scores if classes else scores[:, 1]
    fit = time.perf_counter() - start
    shared: Any = {"resamples": 500, "seed": 0}
    wanted = list(METRICS[task])
    values = evaluate(task, y, scores, metrics=wanted, resamples=0, classes=classes)  # type: ignore[arg-type]
    print(json.dumps({
        "fit_s": round(fit, 2), "features": len(names),
        "holdout": {m: s.value for m, s in values.items()},
        "ours_minus_it": {
            m: {k: d[k] for k in ("value", "low", "high")} for m in wanted
            for d in [paired_difference(task, m, y, ours, scores, **shared).to_json()]  # type: ignore[arg-type]
        },
    }))


def plain_features(dataset: Any, names: Sequence[str], rival: str) -> Any:
    """The columns as a plain script would hand them on: categories, and numbers as they are."""
    import pandas as pd

    table = dataset.to_table(names)
    columns: dict[str, Any] = {}
    for field in dataset.schema.select(names):
        values = table.column(field.name).combine_chunks()
        if field.dtype == "string":
            column = values.to_pandas().astype("category").cat.remove_unused_categories()
            levels = len(column.cat.categories)
            if levels > max(TEXT_SHARE * column.notna().sum(), HGB_LEVELS):
                continue
            if rival == "hgb" and levels > HGB_LEVELS:
                column = column.cat.codes.where(column.notna()).astype(float)
            columns[field.name] = column
        elif field.dtype == "timestamp":
            moments = pd.to_datetime(values.to_pandas(), utc=True)
            columns[field.name] = moments.astype("datetime64[s, UTC]").astype("int64").where(
                moments.notna()).astype(float)
        else:
            columns[field.name] = values.to_pandas().astype(float)
    return pd.DataFrame(columns)


def estimator(rival: str, task: str, rare: bool = False) -> Any:
    """HistGradientBoosting's defaults, or XGBoost with 300 trees at learning rate 0.05."""
    if rival == "hgb":
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        if task == "regression":
            return HistGradientBoostingRegressor(random_state=0)
        # Its early stopping refuses classes of a row or two.
        return HistGradientBoostingClassifier(
            random_state=0, early_stopping=False if rare else "auto")
    from xgboost import XGBClassifier, XGBRegressor

    chosen = XGBRegressor if task == "regression" else XGBClassifier
    return chosen(n_estimators=300, learning_rate=0.05, max_depth=6, enable_categorical=True,
                  random_state=0)


def adult_seeds(data: Path, seeds: int) -> Iterator[Result]:
    """UCI's own train and test files, defaults only, with and without a holdout of the former."""
    for holdout in (0.2, 0):
        for seed in range(seeds):
            with tempfile.TemporaryDirectory(prefix="real-tables-") as scratch:
                folder = Path(scratch)
                (folder / "pipeline.yaml").write_text(json.dumps({
                    "data": {"source": str(data / "adult/adult.data"), "target": "outcome"},
                    "split": {"holdout": holdout}, "seed": seed}))
                _, facts = measured(gpupipe("run", "pipeline.yaml", "--json"), folder)
                result = {"holdout": holdout, "seed": seed, **facts}
                if "error" not in facts:
                    said, judged = measured(gpupipe(
                        "evaluate", "runs/latest", data / "adult/adult.test", "--json"), folder)
                    if "error" in judged:
                        result["error"] = judged["error"]
                    else:
                        metrics = json.loads(said)["metrics"]
                        result |= {m: metrics[m]["value"]
                                   for m in ("roc_auc", "accuracy", "log_loss")}
            yield result


def line(found: Result) -> list[str]:
    """Rows of the table printed for one result: one a metric."""
    failed = [f"{found['table']:<16}{who} FAILED: {found[who]['error']}"
              for who in ("init", "gpupipe", *RIVALS) if "error" in found.get(who, {})]
    if "task" not in found:
        return failed
    rows = []
    for metric, greater in METRICS[found["task"]].items():
        own = found["gpupipe"]["holdout"][metric]
        text = f"{found['table']:<16}{SHORT.get(metric, metric):<10}{number(own['value']):>10}"
        text += f"  {number(own['low']) + ' to ' + number(own['high']):<20}"
        behind = []
        for rival in RIVALS:
            it = found.get(rival, {}).get("holdout", {}).get(metric)
            text += f"{number(it):>10}"
            if it is not None:
                loss = (it - own["value"]) * (1 if greater else -1)
                if loss > (own["high"] - own["low"]) / 4:
                    behind.append(rival)
        rows.append(text + f"  {'behind ' + ', '.join(behind) if behind else ''}".rstrip())
    times = [f"{who} {found[who]['wall_s']} s, {found[who]['peak_mb']} MB"
             for who in ("gpupipe", *RIVALS) if "wall_s" in found.get(who, {})]
    return [*rows, f"{'':<16}{'; '.join(times)}", *failed]


SHORT = {"root_mean_squared_error": "rmse"}


def number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if abs(value) >= 1_000 else f"{value:.5g}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", nargs="*", choices=TABLES, default=list(TABLES))
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=list(RIVALS))
    parser.add_argument("--adult-seeds", type=int, default=0, metavar="N",
                        help="also adult's UCI files with N seeds")
    parser.add_argument("--out", type=Path, help="write everything as JSON; results of tables "
                        "that are not run again are kept")
    parser.add_argument("--rival", choices=RIVALS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rival:
        rival_main(args.rival)
        return 0
    data = args.data.resolve()
    whole: Result = {"tables": {}}
    if args.out and args.out.exists():
        whole = json.loads(args.out.read_text())
    print(f"{'table':<16}{'metric':<10}{'gpupipe':>10}  {'95 % interval':<20}"
          f"{'hgb':>10}{'xgb':>10}")
    results = []

    def save() -> None:
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(whole, indent=1) + "\n")

    for name in args.only:
        results.append(bench(name, data, args.rivals))
        whole["tables"][name] = results[-1]
        print("\n".join(line(results[-1])), flush=True)
        save()
    if args.adult_seeds:
        whole["adult_seeds"] = []
        for result in adult_seeds(data, args.adult_seeds):
            print(f"adult seed: {result}", file=sys.stderr, flush=True)
            whole["adult_seeds"].append(result)
            results.append(result)
            save()
        for holdout in (0.2, 0):
            own = [r for r in whole["adult_seeds"]
                   if r["holdout"] == holdout and "error" not in r]
            for metric in ("roc_auc", "accuracy") if own else ():
                values = [r[metric] for r in own]
                print(f"adult.test, holdout {holdout}: {metric} {statistics.mean(values):.5f} "
                      f"(sd {statistics.stdev(values) if len(values) > 1 else 0:.5f}) of "
                      f"{len(values)} seeds: {' '.join(f'{v:.4f}' for v in values)}")
    failed = [r for r in results if "error" in r or any(
        isinstance(v, dict) and "error" in v for v in r.values())]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
