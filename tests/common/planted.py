"""Real tables with a leak planted in each, and real tables as they are: what a linter is judged by.

`PLANTED` and `CLEAN` are cases by name. A case is a table, its pipeline, and for a planted one
the columns (or, for rows, none) and rules by which it counts as caught. ``rows`` cuts tables down
to a random subset in the file's order, or, where time matters, to a stretch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from gpupipe.config import parse_config
from gpupipe.data.ingest import ingest
from gpupipe.engine.local import LocalEngine
from gpupipe.inspect.findings import Finding
from gpupipe.leakage import lint
from gpupipe.prepare import prepare

FILES = {
    "adult": "adult/adult.data", "bank": "bank-marketing/bank-full.csv",
    "credit": "credit-default/credit.csv", "telco": "telco-churn/telco.csv",
    "diamonds": "diamonds/diamonds.csv", "housing": "housing/housing.csv",
    "taxis": "taxis/taxis.csv", "electricity": "electricity/electricity.csv",
    "flights": "flights/flights-200k.arrow", "birdstrikes": "birdstrikes/birdstrikes.csv",
    "movies": "movies/movies.json", "cats": "cookie-cats/cookie_cats.csv",
    "nyc": "nycflights13/flights_100k_sample.parquet", "weather": "nycflights13/weather.csv",
    "planes": "nycflights13/planes.csv", "kdd": "kddcup99/kddcup.data_10_percent.gz",
}


@dataclass(frozen=True)
class Case:
    """A table with its target, what else its pipeline says, and what must be found in it."""

    file: str
    target: str
    plant: Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame] | None = None
    leak: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    stretch: bool = False
    config: dict[str, Any] = field(default_factory=dict)

    def found(self, data: Path, cache: Path, rows: int | None = None) -> list[Finding]:
        """What the linter says of the table."""
        frame = table(data, self.file, rows, self.stretch, cache)
        if self.plant is not None:
            frame = self.plant(frame, np.random.default_rng(20))
        made = pa.Table.from_pandas(frame, preserve_index=False)
        config = parse_config({
            "data": {"source": "t", "target": self.target, **self.config.get("data", {})},
            **{k: v for k, v in self.config.items() if k != "data"},
        })
        ready = prepare(config, ingest(made, cache=cache), LocalEngine(1, 131_072),
                        baselines=False)
        return lint(ready)

    def caught(self, found: list[Finding]) -> list[Finding]:
        """The findings that name the planted leak."""
        return [f for f in found if f.rule in self.rules and (
            not self.leak or set(self.leak) & set(f.columns))]


@cache
def _read(data: Path, file: str, cache_folder: Path) -> pd.DataFrame:
    read = ingest(str(data / FILES[file]), cache=cache_folder)
    frame = read.to_table().to_pandas()
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            frame[name] = frame[name].astype(str).where(frame[name].notna(), None)
    return frame


def table(
    data: Path, file: str, rows: int | None, stretch: bool, cache_folder: Path
) -> pd.DataFrame:
    """A real table, or some of its rows."""
    frame = _read(data, file, cache_folder)
    if rows is None or len(frame) <= rows:
        return frame.copy()
    if stretch:
        return frame.iloc[:rows].reset_index(drop=True)
    kept = np.sort(np.random.default_rng(1).permutation(len(frame))[:rows])
    return frame.iloc[kept].reset_index(drop=True)


def flipped(positive: pd.Series, share: float, rng: np.random.Generator) -> np.ndarray:
    """Labels of which a share is wrong."""
    return np.asarray(positive) ^ (rng.random(len(positive)) < share)


def again(
    frame: pd.DataFrame, share: float, rng: np.random.Generator, jitter: float = 0.0,
    target: str = "",
) -> pd.DataFrame:
    """The table with a share of its rows a second time, in any order, their numbers (but the
    target) moved by ``jitter`` standard deviations."""
    copies = frame.sample(round(share * len(frame)), random_state=int(rng.integers(2**31)))
    if jitter:
        copies = copies.copy()
        for name in copies.columns:
            if name != target and copies[name].dtype.kind in "if" and copies[name].nunique() > 20:
                moved = copies[name] + jitter * frame[name].std() * rng.normal(size=len(copies))
                copies[name] = moved.round(0 if copies[name].dtype.kind == "i" else 4).astype(
                    copies[name].dtype)
    both = pd.concat([frame, copies])
    return both.sample(frac=1, random_state=int(rng.integers(2**31))).reset_index(drop=True)


def relabelled(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return f.assign(income_group=np.where(f.outcome == ">50K", "B", "A"))


def noisy_copy(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return f.assign(segment=np.where(flipped(f.Churn == "Yes", 0.02, rng), "at risk", "loyal"))


def noisy_number(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return f.assign(appraised=(f.price * rng.lognormal(0, 0.05, len(f))).round())


def logarithm(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return f.assign(value_index=np.log10(f.median_house_value).round(2))


def banded(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    band = pd.qcut(f.median_house_value, 40, labels=False, duplicates="drop")
    names = rng.permutation(int(band.max()) + 1) + 100
    return f.assign(tax_band=names[band])


def speed(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    kept = f[f.air_time.notna()][["month", "carrier", "origin", "dest", "distance", "air_time"]]
    return kept.assign(mph=(kept.distance / kept.air_time * 60).round(2)).reset_index(drop=True)


def encoded(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    rate = (f.outcome == ">50K").groupby(f["occupation"].fillna("?")).transform("mean")
    return f.assign(occupation_rate=rate)


def all_but_own(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    f = f[f.arr_delay.notna() & f.tailnum.notna()].drop(columns=["dep_delay", "air_time"])
    groups = f.arr_delay.groupby(f["dest"])
    rest = (groups.transform("sum") - f.arr_delay) / (groups.transform("count") - 1)
    return f.assign(dest_delay=rest.fillna(0.0)).reset_index(drop=True)


def sorted_ids(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    noise = rng.random(len(f)) * 1.2
    order = np.argsort((f.y == "yes") + noise, kind="stable")
    ids = np.empty(len(f), np.int64)
    ids[order] = np.arange(len(f)) + 70_001
    return f.assign(client_id=ids)


def row_order(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    made = f.sort_values("price", kind="stable").reset_index(drop=True)
    return made.assign(row=np.arange(len(made)))


def spelled(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    prefix = np.where(flipped(f.Y == 1, 0.001, rng), "D", "C")
    number = rng.integers(0, len(f) // 3, len(f))
    return f.assign(file_code=[f"{p}-{n:06}" for p, n in zip(prefix, number, strict=True)])


def status(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    closed = rng.choice(["converted", "signed"], len(f))
    other = rng.choice(["declined", "no answer", "call back"], len(f), p=[0.6, 0.3, 0.1])
    return f.assign(case_status=np.where(flipped(f.y == "yes", 0.004, rng), closed, other))


def cancelled(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    day = np.datetime64("2024-01-01", "us") + rng.integers(0, 300, len(f)) * np.timedelta64(
        86_400_000_000, "us")
    left = (f.Churn == "Yes") & (rng.random(len(f)) < 0.7)
    return f.assign(cancelled_on=pd.Series(day).where(left))


def gaps(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    there = np.where(f.Y == 1, rng.random(len(f)) < 0.001, rng.random(len(f)) < 0.97)
    channel = pd.Series(rng.choice(["web", "branch", "post"], len(f)))
    return f.assign(last_payment_by=channel.where(there, None))


def next_hour(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    f = f[f.origin == "EWR"].sort_values("time_hour").reset_index(drop=True)
    return f.assign(temp_1=f.temp.shift(-1))


def minutes(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    length = (f.dropoff - f.pickup).dt.total_seconds() / 60
    return f.drop(columns=["fare", "total", "tip"]).assign(minutes=length.round())


def repeated(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    made = again(f, 0.15, rng)
    return made.assign(record=rng.permutation(len(made)) + 1)


def augmented(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return again(f, 0.2, rng, 0.01, "median_house_value")


def augmented_classes(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return again(f, 0.3, rng, 0.01, "Y")


def visits(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    f = f.assign(patient_id=rng.permutation(len(f)) + 1)
    f = f.loc[np.repeat(f.index, rng.integers(1, 5, len(f)))]
    return f.assign(age=f.age + rng.integers(0, 2, len(f)), **{
        "hours-per-week": rng.integers(20, 60, len(f)), "fnlwgt": rng.permutation(len(f)),
    }).sample(frac=1, random_state=3).reset_index(drop=True)


def smoothed(f: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Electricity's demand, of which the target is the mean of the coming day."""
    ahead = f.nswdemand[::-1].rolling(48, min_periods=48).mean()[::-1]
    made = f.assign(demand_ahead=ahead, t=np.arange(len(f)))
    return made[made.demand_ahead.notna()].drop(columns=["Unnamed: 0", "nswdemand", "class"])


PLANTED = {
    "copy": Case("adult", "outcome", relabelled, ("income_group",), ("target-copy",)),
    "noisy copy": Case("telco", "Churn", noisy_copy, ("segment",), ("target-copy",)),
    "noisy number": Case("diamonds", "price", noisy_number, ("appraised",),
                         ("target-copy", "target-function")),
    "monotone function": Case("housing", "median_house_value", logarithm, ("value_index",),
                              ("target-function", "target-copy")),
    "bands in no order": Case("housing", "median_house_value", banded, ("tax_band",),
                              ("target-function",)),
    "sum of parts": Case("taxis", "fare", None, ("total",), ("target-sum",)),
    "ratio of parts": Case("nyc", "air_time", speed, ("mph",), ("target-product",)),
    "mean encoding": Case("adult", "outcome", encoded, ("occupation_rate",),
                          ("target-encoding",)),
    "leave-one-out encoding": Case("nyc", "arr_delay", all_but_own, ("dest_delay",),
                                   ("target-encoding", "target-function")),
    "ID sorted by the target": Case("bank", "y", sorted_ids, ("client_id",), ("id-order",)),
    "row order": Case("diamonds", "price", row_order, ("row",), ("id-order",)),
    "code that spells the target": Case("credit", "Y", spelled, ("file_code",),
                                        ("target-function",)),
    "status": Case("bank", "y", status, ("case_status",), ("target-function",)),
    "date of the outcome": Case("telco", "Churn", cancelled, ("cancelled_on",),
                                ("filled-by-target",)),
    "missing where it happened": Case("credit", "Y", gaps, ("last_payment_by",),
                                      ("filled-by-target", "target-function")),
    "next hour's value": Case("weather", "temp", next_hour, ("temp_1",), ("future",), True,
                              {"split": {"by": "time", "time": "time_hour"}}),
    "time after the outcome": Case("taxis", "minutes", minutes, ("dropoff",),
                                   ("target-function",)),
    "repeated rows": Case("housing", "median_house_value", repeated, (), ("duplicates",)),
    "near-duplicates": Case("housing", "median_house_value", augmented, (),
                            ("near-duplicates",)),
    "near-duplicates, classes": Case("credit", "Y", augmented_classes, (), ("near-duplicates",),
                                     config={"data": {"drop": ["ID"]}}),
    "an entity on both sides": Case("adult", "outcome", visits, ("patient_id",), ("entity",)),
    "a random split of a series": Case("weather", "temp", None, ("time_hour",),
                                       ("time-overlap",), True),
    "windows over the cut": Case("electricity", "demand_ahead", smoothed, ("t",), ("time-gap",),
                                 True, {"split": {"by": "time", "time": "t"}}),
}

_apart = {"data": {"drop": ["total"]}}
CLEAN = {
    "adult": Case("adult", "outcome"),
    "adult, age": Case("adult", "age"),
    "adult, education": Case("adult", "education", config={"data": {"drop": ["education-num"]}}),
    "bank": Case("bank", "y"),
    "bank, balance": Case("bank", "balance"),
    "credit": Case("credit", "Y"),
    "telco": Case("telco", "Churn"),
    "telco, monthly": Case("telco", "MonthlyCharges"),
    "diamonds": Case("diamonds", "price"),
    "diamonds, carat": Case("diamonds", "carat"),
    "diamonds, cut": Case("diamonds", "cut"),
    "housing": Case("housing", "median_house_value"),
    "housing, ocean": Case("housing", "ocean_proximity"),
    "electricity": Case("electricity", "class", stretch=True),
    "electricity by time": Case("electricity", "class", stretch=True, config={
        "split": {"by": "time", "time": "Unnamed: 0"}}),
    "flights": Case("flights", "delay"),
    "birdstrikes": Case("birdstrikes", "Effect Amount of damage"),
    "movies": Case("movies", "IMDB Rating"),
    "cats": Case("cats", "retention_7"),
    "nyc flights": Case("nyc", "arr_delay"),
    "nyc flights by tail number": Case("nyc", "arr_delay", config={
        "split": {"by": "group", "group": "tailnum"}}),
    "weather by time": Case("weather", "temp", stretch=True, config={
        "split": {"by": "time", "time": "time_hour", "gap": "7d"}}),
    "planes": Case("planes", "seats"),
    "kdd": Case("kdd", "column_41"),
    "taxis": Case("taxis", "fare", config=_apart),
    "taxis, tip": Case("taxis", "tip", config=_apart),
}
