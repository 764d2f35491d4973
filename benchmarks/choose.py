"""A search with ``tune: {trials: 50}`` beside FLAML and AutoGluon, given the same minutes.

    python benchmarks/choose.py --data ../shared/data --out benchmarks/results/choose.json \
        --flaml VENV/bin/python --autogluon VENV/bin/python

For each table and seed: a tenth of the rows is set aside (of adult: its own test file; of a table
in ten folds: the fold whose number the seed is, so that every row is set aside once), gpupipe
runs on the others with everything at its defaults but ``tune``, and the rivals get as many seconds
as its whole run took, one after the other on the same machine. Each rival has a virtual
environment of its own (``pip install "flaml[automl]" catboost pyarrow``; ``pip install
"autogluon.tabular[lightgbm,catboost,xgboost]"``); one that is not named is left out. Results are
written after every contender, and those that are there already are not made again.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score, root_mean_squared_error

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Table:
    """A table: where it is, its target, and the figure to hold against (AUC, or RMSE).

    Of two files the second is set aside, unless the table is cut into ``folds``.
    """

    files: tuple[str, ...]
    target: str
    positive: str | None = None
    drop: tuple[str, ...] = ()
    published: str = ""
    reading: dict[str, Any] = field(default_factory=dict)
    folds: int | None = None

    @property
    def task(self) -> str:
        return "regression" if self.positive is None else "binary"

    def read(self, path: Path) -> pd.DataFrame:
        """The labelled rows of one file."""
        rows = pd.read_csv(path, **self.reading).drop(columns=list(self.drop), errors="ignore")
        rows = rows[rows[self.target].notna()].reset_index(drop=True)
        if self.positive is not None:  # the labels of adult's test file end in a full stop
            rows[self.target] = rows[self.target].astype(str).str.rstrip(".")
        return rows


ADULT = Table(("adult/adult.data", "adult/adult.test"), "outcome", ">50K", (),
              "UCI test file: .9269 XGBoost, .9264 LightGBM tuned, .9273 CatBoost",
              {"skipinitialspace": True, "na_values": "?"})
DIAMONDS = Table(("diamonds/diamonds.csv",), "price", None, (),
                 "10-fold, 1 h, 8 cores: 506.1 AutoGluon, 520.1 FLAML")
TABLES = {
    "adult": ADULT,
    "adult-10-fold": replace(ADULT, folds=10, published=(
        "10-fold, 1 h, 8 cores: .9329 LightAutoML, .9320 AutoGluon, .9314 FLAML")),
    "bank-marketing": Table(("bank-marketing/bank-full.csv",), "y", "yes", (),
                            "10-fold, 1 h, 8 cores: .9413 AutoGluon, .9376 FLAML",
                            {"sep": ";"}),
    "diamonds": DIAMONDS,
    "diamonds-10-fold": replace(DIAMONDS, folds=10),
    "housing": Table(("housing/housing.csv",), "median_house_value", None, (),
                     "5-fold, XGBoost: 45,919"),
    "credit-default": Table(("credit-default/credit.csv",), "Y", "1", ("ID",),
                            "5-fold: .782 HGB"),
    "telco-churn": Table(("telco-churn/telco.csv",), "Churn", "Yes", ("customerID",),
                         "5-fold: .834 HGB", {"na_values": [" "]}),
}


def halves(name: str, data: Path, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows to learn from, and those that are set aside."""
    table = TABLES[name]
    parts = [table.read(data / file) for file in table.files]
    if len(parts) == 2 and not table.folds:
        return parts[0], parts[1]
    whole = pd.concat(parts, ignore_index=True)
    if table.folds:
        aside = np.random.default_rng(0).permutation(len(whole)) % table.folds == seed
    else:
        aside = np.random.default_rng(seed).permutation(len(whole)) < len(whole) // 10
    return whole[~aside].reset_index(drop=True), whole[aside].reset_index(drop=True)


def ours(table: Table, folder: Path, seed: int, trials: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The predictions of a gpupipe run, and what it says of itself."""
    config = {
        "data": {"source": str(folder / "train.parquet"), "target": table.target},
        "split": {"holdout": 0}, "tune": {"trials": trials}, "seed": seed,
    }
    if table.positive is not None:
        config["data"]["positive"] = table.positive
    (folder / "pipeline.json").write_text(json.dumps(config))
    script = (
        "import json, sys, gpupipe, pyarrow.parquet as pq\n"
        "done = gpupipe.run(json.load(open('pipeline.json')))\n"
        "bundle = gpupipe.load(done.bundle)\n"
        "import numpy as np\n"
        "np.save('prediction.npy', bundle.scores(pq.read_table('test.parquet')))\n"
        "m = json.load(open(done.run / 'manifest.json'))\n"
        "json.dump({'model': m['model'], 'work_units': m['search']['work_units'],\n"
        "           'ensemble': m['search']['ensemble'], 'out_of_fold': done.metrics},\n"
        "          open('facts.json', 'w'), default=str)\n"
    )
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=folder, check=True,
                   env=os.environ | {"PYTHONPATH": paths}, capture_output=True)
    return np.load(folder / "prediction.npy"), json.loads((folder / "facts.json").read_text())


def rival(python: str, script: str, table: Table, folder: Path, seed: int, seconds: float
          ) -> np.ndarray:
    """The predictions of a rival in its own environment."""
    subprocess.run(
        [python, "-W", "ignore", str(HERE / "rivals" / script), "train.parquet", "test.parquet",
         table.target, table.task, f"{seconds:.0f}", str(seed), "rival.parquet"],
        cwd=folder, check=True, capture_output=True, timeout=4 * seconds + 300)
    return pd.read_parquet(folder / "rival.parquet")["prediction"].to_numpy()


def score(table: Table, test: pd.DataFrame, prediction: np.ndarray) -> float:
    """AUC, or the root mean squared error."""
    if table.task == "regression":
        return float(root_mean_squared_error(test[table.target], prediction))
    return float(roc_auc_score(test[table.target] == table.positive, prediction))


def tell(name: str, results: list[dict[str, Any]]) -> None:
    """Print a table's results: means over the seeds, and how far ahead of each rival we are."""
    table = TABLES[name]
    scores: dict[str, dict[int, float]] = {}
    for r in results:
        scores.setdefault(r["contender"], {})[r["seed"]] = r["score"]
    print(f"\n{name}  ({table.published})")
    for contender, found in scores.items():
        values = list(found.values())
        seconds = statistics.mean(r["seconds"] for r in results if r["contender"] == contender)
        line = (f"  {contender:10} {statistics.mean(values):.5g} (sd {spread(values):.2g}), "
                f"{len(values)} seeds, {seconds:.0f} s")
        both = sorted(found.keys() & scores.get("gpupipe", {}).keys())
        if contender != "gpupipe" and both:
            sign = -1 if table.task == "regression" else 1
            ahead = [sign * (scores["gpupipe"][k] - found[k]) for k in both]
            error = spread(ahead) / len(ahead) ** 0.5
            line += f"; gpupipe ahead by {statistics.mean(ahead):.2g} +- {error:.2g}"
        print(line)


def spread(values: list[float]) -> float:
    """The standard deviation; NaN of one value."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "choose.json")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--flaml", help="the Python of FLAML's environment")
    parser.add_argument("--autogluon", help="the Python of AutoGluon's environment")
    args = parser.parse_args()
    rivals = {"flaml": (args.flaml, "flaml_automl.py"),
              "autogluon": (args.autogluon, "autogluon_tabular.py")}
    results: list[dict[str, Any]] = json.loads(args.out.read_text()) if args.out.exists() else []

    def known(**about: Any) -> dict[str, Any] | None:
        return next((r for r in results if about.items() <= r.items()), None)

    def keep(**result: Any) -> None:
        results.append(result)
        temporary = args.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(results, indent=1))
        temporary.replace(args.out)
        print({k: v for k, v in result.items() if k != "facts"}, flush=True)

    seeds = {name: TABLES[name].folds or args.seeds for name in args.only}
    for seed in range(max(seeds.values())):
        for name in args.only:
            if seed >= seeds[name]:
                continue
            table = TABLES[name]
            train, test = halves(name, args.data, seed)
            with tempfile.TemporaryDirectory() as at:
                folder = Path(at)
                train.to_parquet(folder / "train.parquet")
                test.to_parquet(folder / "test.parquet")
                about = {"table": name, "seed": seed, "trials": args.trials}
                mine = known(**about, contender="gpupipe")
                if mine is None:
                    start, load = time.perf_counter(), os.getloadavg()[0]
                    prediction, facts = ours(table, folder, seed, args.trials)
                    mine = {**about, "contender": "gpupipe", "score": score(
                        table, test, prediction), "seconds": time.perf_counter() - start,
                        "load_before": load, "facts": facts}
                    keep(**mine)
                for contender, (python, script) in rivals.items():
                    if python is None or known(**about, contender=contender):
                        continue
                    start, load = time.perf_counter(), os.getloadavg()[0]
                    prediction = rival(python, script, table, folder, seed, mine["seconds"])
                    keep(**about, contender=contender, score=score(table, test, prediction),
                         seconds=time.perf_counter() - start, load_before=load)
    for name in args.only:
        tell(name, [r for r in results if r["table"] == name and r["trials"] == args.trials])
    return 0


if __name__ == "__main__":
    sys.exit(main())
