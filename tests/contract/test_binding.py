"""Every use of RAPIDS, dask-cuda and XGBoost on the way of a GPU, against the real libraries.

They import without a GPU. Where they are not installed these tests are skipped, unless
``GPUPIPE_NEEDS_RAPIDS`` says that they have to be there: then it is an error.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from contract.binding import problem
from contract.calls import uses_in
from contract.machine import standing_in
from contract.pipeline import MODELS, judged_on, learn_everything, models_for, train_on
from contract.record import Use
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR

import gpupipe
from gpupipe.engine.cluster import cuda_options
from gpupipe.engine.cudf import CudfFrames
from gpupipe.engine.frames import Column
from gpupipe.engine.memory import Memory
from gpupipe.engine.pandas import PandasFrames
from gpupipe.errors import ConfigError
from gpupipe.models.cuml import PAIRS, arguments_of, trees_of
from gpupipe.models.forest import rounds_of
from gpupipe.models.trees import booster_of
from gpupipe.steps import Target
from gpupipe.steps.numeric import Log

ROOT = Path(gpupipe.__file__).parent
NEEDED = ("cudf", "cupy", "rmm", "cuml", "dask_cudf", "dask_cuda", "xgboost")
ABSENT = [name for name in NEEDED if importlib.util.find_spec(name) is None]
REQUIRED = bool(os.environ.get("GPUPIPE_NEEDS_RAPIDS"))
rapids = pytest.mark.skipif(
    bool(ABSENT) and not REQUIRED,
    reason=f"not installed here: {', '.join(ABSENT)} (pip install '.[gpu-cu13]')")


@pytest.mark.skipif(not REQUIRED, reason="RAPIDS may be missing here")
def test_rapids_is_installed():
    assert ABSENT == []


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> set[Use]:
    """What the whole pipeline uses of the libraries, on stand-ins."""
    folder = tmp_path_factory.mktemp("contract")
    with standing_in() as record:
        learn_everything(CudfFrames())
        learn_everything(CudfFrames(), ["one_hot"], kept=True)
        for task in ("binary", "multiclass", "regression"):
            judged_on(CudfFrames(), task, weighted=True)
            for model in models_for(task):
                train_on(CudfFrames(), folder, task, model)
        train_on(CudfFrames(), folder, "binary", MODELS["xgboost"],
                 memory=Memory(240 << 20, 1, 64))
    return record.uses


def problems(uses: set[Use]) -> list[str]:
    return [p for p in map(problem, sorted(uses, key=str)) if p is not None]


@rapids
def test_every_use_of_the_pipeline_is_one_that_the_libraries_have(recorded):
    assert len(recorded) > 100
    assert {use.owner.partition(".")[0] for use in recorded} == {
        "cupy", "cudf", "rmm", "xgboost", "cuml", "treelite"}
    assert problems(recorded) == []


@rapids
@pytest.mark.parametrize("planted", [
    lambda fx, a: fx.xp.errstate(over="ignore"),  # NumPy's alone
    lambda fx, a: fx.xp.add(a, 1, where=a > 0),  # a keyword that CuPy's ufuncs lack
    lambda fx, a: a.astype("int8", copy=False, device="cpu"),
    lambda fx, a: fx.xp.append(a, a, -1, None),
    lambda fx, a: fx.xp.array2string(a),  # there, but by way of the host
], ids=["name", "ufunc keyword", "method keyword", "arguments", "host"])
def test_a_planted_call_that_the_libraries_lack_is_found(planted):
    with standing_in() as record:
        fx = CudfFrames()
        array = fx.to_device(np.arange(3))
        before = set(record.uses)
        with suppress(TypeError, AttributeError):  # of NumPy: it was recorded all the same
            planted(fx, array)
        new = record.uses - before
    assert problems(new)


@rapids
def test_a_step_with_such_a_call_fails_the_contract(monkeypatch):
    """Planted in a registered step: the pipeline runs on the stand-ins, and is refused."""
    def transform(self, column, params, rows, fx):
        values = fx.numbers(column)
        return (Column("float64", fx.xp.maximum(values, 0.0, where=values > 1, out=values + 0)),)

    monkeypatch.setattr(Log, "transform", transform)
    with standing_in() as record:
        learn_everything(CudfFrames(), ["log"])
    assert [p.partition(":")[0] for p in problems(record.uses)] == [
        "cupy.maximum(_, _, out=, where=)"]


def test_a_step_that_leaves_the_device_fails_the_recorder(monkeypatch):
    def transform(self, column, params, rows, fx):
        return (Column("float64", np.asarray(fx.numbers(column)) * 2),)

    monkeypatch.setattr(Log, "transform", transform)
    learn_everything(PandasFrames(), ["log"])
    with standing_in(), pytest.raises(TypeError, match="Implicit conversion"):
        learn_everything(CudfFrames(), ["log"])


@rapids
@pytest.mark.parametrize("use", [
    Use("cudf", "cut", 1), Use("cudf.Series", "str_len"), Use("cudf.Series", "to_pandas", 0),
    Use("cudf.Series", "factorize", 0, ("na_sentinel",)), Use("cudf.Index", "map_rows", 1),
    Use("cuml.linear_model.Ridge", "__init__", 0, ("random_state",)),
    Use("dask_cuda.LocalCUDACluster", "__init__", 0, ("jit_unspil",)),
    Use("xgboost.QuantileDMatrix", "__init__", 1, ("references",)),
], ids=str)
def test_what_no_library_has_is_refused(use):
    assert problem(use) is not None


@rapids
def test_every_call_in_the_source_is_one_that_the_library_has():
    uses = {str(p.relative_to(ROOT)): set(uses_in(p.read_text())) for p in ROOT.rglob("*.py")}
    assert {path for path, found in uses.items() if found} >= {
        "engine/cudf.py", "engine/cluster.py", "models/cuml.py",
        "models/quantised.py", "models/trees.py", "models/boosting.py"}
    assert {path: problems(found) for path, found in uses.items() if problems(found)} == {}


def test_the_source_is_read_whole():
    source = ("def f(x):\n    import cupy\n    from dask_cuda import LocalCUDACluster as C\n"
              "    import cuml.linear_model as library\n"
              "    cupy.cuda.set_allocator(x)\n    library.Ridge(alpha=1.0)\n"
              "    return C(n_workers=2, **x), cupy.cuda.memory.OutOfMemoryError\n")
    assert {str(use) for use in uses_in(source)} >= {
        "cupy.cuda.set_allocator(_)", "cuml.linear_model.Ridge.__init__(alpha=)",
        "dask_cuda.LocalCUDACluster.__init__(n_workers=)", "cupy.cuda.memory.OutOfMemoryError"}


@rapids
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_the_options_of_a_cluster_are_those_of_dask_cuda(devices):
    options, _ = cuda_options(devices)
    use = Use("dask_cuda.LocalCUDACluster", "__init__", 0, tuple(sorted(options)))
    assert problem(use) is None
    assert options["n_workers"] == devices


@rapids
@pytest.mark.parametrize("estimator", [
    LogisticRegression(C=2.0, l1_ratio=0.0, tol=1e-3, max_iter=7, class_weight="balanced"),
    LogisticRegression(C=2.0, l1_ratio=0.5, solver="saga", random_state=1),
    Ridge(alpha=0.5, tol=1e-3, max_iter=9), ElasticNet(alpha=0.5, l1_ratio=0.3, random_state=3),
    SVC(C=2.0, gamma=0.3, kernel="poly", degree=2, coef0=1.0, max_iter=9, tol=0.1),
    SVR(C=2.0, gamma=0.3, epsilon=0.2), LinearSVC(dual="auto", random_state=1, max_iter=7),
    LinearSVR(dual="auto", random_state=1, epsilon=0.2),
    RandomForestClassifier(50, max_depth=4, max_leaf_nodes=9, class_weight="balanced", n_jobs=2,
                           max_samples=0.5, criterion="entropy", random_state=1),
    RandomForestRegressor(50, min_samples_leaf=3, max_features=0.4, bootstrap=False),
], ids=["logistic", "logistic net", "ridge", "net", "svc", "svr", "linear svc", "linear svr",
        "classes", "values"])
def test_a_models_arguments_are_those_of_cuml(estimator):
    kind, arguments = arguments_of(estimator)
    module = type(estimator).__module__.split(".")[1]
    use = Use(f"cuml.{module}.{kind}", "__init__", 0, tuple(sorted(arguments)))
    assert problem(use) is None


@rapids
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_treelite_model_is_read_as_treelite_means_it(task):
    import treelite

    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4)).astype(np.float32)
    y = {"binary": x[:, 0] > 0, "multiclass": np.digitize(x[:, 0], [-1, 1]),
         "regression": x[:, 0] * 100}[task]
    kind = RandomForestRegressor if task == "regression" else RandomForestClassifier
    forest = kind(20, random_state=0).fit(x, y)
    target = Target(task, tuple("abc"[: {"binary": 2, "multiclass": 3}.get(task, 0)]))
    rounds = rounds_of(trees_of(treelite.sklearn.import_model(forest)), target, np.arange(3), 20)
    found = booster_of(rounds, 4, "identity").inplace_predict(x)
    expected = forest.predict(x) if task == "regression" else forest.predict_proba(x)
    np.testing.assert_allclose(found, expected[:, 1] if task == "binary" else expected, rtol=1e-5,
                               atol=1e-6)


@pytest.mark.parametrize("estimator", [
    LogisticRegression, Ridge, ElasticNet, SVC, SVR, LinearSVC, LinearSVR, RandomForestClassifier,
    RandomForestRegressor])
def test_the_table_names_parameters_that_scikit_learn_has(estimator):
    assert set(PAIRS[estimator.__name__]) <= set(estimator().get_params())


@pytest.mark.parametrize(("estimator", "words"), [
    (LogisticRegression(warm_start=True), "warm_start=True"),
    (ElasticNet(positive=True), "positive=True"), (LinearRegression(), "LinearRegression"),
    (RandomForestRegressor(criterion="absolute_error"), "absolute_error"),
    (RandomForestClassifier(ccp_alpha=0.1), "ccp_alpha"),
    (SVC(shrinking=False), "shrinking=False"), (LinearSVC(loss="hinge"), "loss='hinge'"),
], ids=["warm start", "positive", "no pair", "criterion", "pruning", "shrinking", "hinge"])
def test_what_cuml_cannot_do_is_refused_by_name(estimator, words):
    with pytest.raises(ConfigError, match=words):
        arguments_of(estimator)
