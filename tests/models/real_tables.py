"""Matrices of real tables, for comparing families with their library: numbers, on one scale."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from gpupipe.models import Matrix
from gpupipe.steps import Target

TABLES = {
    "binary": ("adult/adult.data", "outcome", None, ["no", "yes"]),
    "multiclass": ("diamonds/diamonds.csv", "cut", ["price", "carat", "depth", "table", "x"],
                   ["Fair", "Good", "Ideal", "Premium", "Very Good"]),
    "regression": ("housing/housing.csv", "median_house_value", None, []),
}


def real(folder: Path, task: str, rows: int = 600, weighted: bool = False,
         chunks: int = 3, skip: int = 0) -> tuple[Matrix, Target]:
    """Some rows of a real table, with its numeric columns standardised as float32."""
    path, label, columns, classes = TABLES[task]
    table = _read(folder / path).iloc[skip : skip + rows].copy()
    y = table.pop(label)
    numbers = table[columns] if columns else table.select_dtypes("number")
    x = numbers.to_numpy(np.float64)
    x = ((x - x.mean(axis=0)) / x.std(axis=0)).astype(np.float32)
    if task == "regression":
        target, codes = Target("regression", (), 0.0, 5e5), y.to_numpy(np.float64)
    else:
        labels = {">50K": "yes", "<=50K": "no"} if task == "binary" else {}
        target = Target(task, tuple(classes))
        codes = y.map(lambda v: classes.index(labels.get(v, v))).to_numpy(np.int64)
    weight = np.random.default_rng(2).uniform(0.5, 2, len(x)) if weighted else None
    names = tuple(map(str, numbers.columns))
    return Matrix(tuple(np.array_split(x, chunks)), codes, weight, names,
                  (False,) * x.shape[1]), target


@lru_cache
def _read(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, skipinitialspace=True)
    return table.sample(4000, random_state=1).dropna()


def joined(matrix: Matrix) -> np.ndarray:
    """The whole matrix as float64, as scikit-learn gets it."""
    return np.concatenate(list(matrix.chunks)).astype(np.float64)
