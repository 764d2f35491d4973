"""Small matrices with known answers, for the tests of selection."""

from __future__ import annotations

import numpy as np

from gpupipe.models import Matrix, Training, model_of
from gpupipe.models.selected import Selection
from gpupipe.select import METHODS, Methods
from gpupipe.steps import Target

TARGETS = {
    "binary": Target("binary", ("no", "yes")),
    "multiclass": Target("multiclass", ("a", "b", "c")),
    "regression": Target("regression", (), 0.0, 5.0),
}
NAMES = ("strong", "weak", "n1", "n2", "n3", "n4", "n5", "n6")
PARAMS = {"xgboost": {"n_estimators": 30, "max_depth": 3}, "linear": {}}


def problem(task: str = "binary", n: int = 3000, seed: int = 0, chunks: int = 3) -> Matrix:
    """Two features that matter and six of noise, the last one codes."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(NAMES))).astype(np.float32)
    x[:, 6] = rng.integers(0, 2, n)
    x[:, 7] = rng.integers(0, 8, n)
    signal = x[:, 0] - 0.6 * x[:, 1] + rng.normal(0, 0.7, n)
    y = {"binary": (signal > 0.3).astype(np.int64), "regression": signal.astype(float),
         "multiclass": np.digitize(signal, [-0.5, 0.8]).astype(np.int64)}[task]
    bucket = rng.integers(1, 5, n).astype(np.uint8)
    return Matrix(tuple(np.array_split(x, chunks)), y, None, NAMES,
                  (False,) * 7 + (True,), (), (), bucket)


def numbers(matrix: Matrix) -> Matrix:
    """The same, its codes taken for numbers: for families that take no codes."""
    return Matrix(matrix.chunks, matrix.target, matrix.weight, matrix.names,
                  (False,) * len(matrix.names), matrix.origins, matrix.parts, matrix.bucket)


def chosen(
    train: Matrix, *methods: tuple[str, dict] | str, task: str = "binary", kind: str = "xgboost",
    seed: int = 0, **rules,
) -> Selection:
    made = [METHODS[m].model_validate({}) if isinstance(m, str)
            else METHODS[m[0]].model_validate(m[1]) for m in methods]
    selector = Methods(tuple(made), **rules)
    return selector.choose(train, TARGETS[task], model_of(kind, PARAMS[kind]), Training(seed, 1))
