"""The scikit-learn face of a pipeline: features and model behind `fit` and `predict`.

>>> from gpupipe import Pipeline
>>> from sklearn.datasets import load_iris
>>> X, y = load_iris(return_X_y=True, as_frame=True)
>>> Pipeline(model="linear").fit(X, y).predict(X[:2]).tolist()
[0, 0]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import (
    ClassifierTags,
    InputTags,
    RegressorTags,
    Tags,
    check_array,
    check_random_state,
    column_or_1d,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    _check_feature_names_in,
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from gpupipe.bundle.golden import golden_rows
from gpupipe.bundle.scoring import Bundle
from gpupipe.bundle.store import CAPS, Contents, write
from gpupipe.codec import pack, read_arrays, unpack, write_arrays
from gpupipe.config import PipelineConfig, parse_config
from gpupipe.data.ingest import ingest
from gpupipe.engine.collections import gathered, is_collection, map_rows
from gpupipe.engine.local import LocalEngine
from gpupipe.engine.machine import cores
from gpupipe.errors import ConfigError, DataError
from gpupipe.record import contents_of, states_of
from gpupipe.rows import label_of
from gpupipe.training import train
from gpupipe.workflow import GOLDEN_ROWS

TASKS = ("classification", "regression")


class Pipeline(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learned features and a model as one scikit-learn estimator.

    The same steps and models as in a pipeline file, trained on every row that `fit` is given;
    splits, searches and metrics are scikit-learn's business here.

    Parameters
    ----------
    task : "classification" or "regression". scikit-learn must know it before `fit`: it
        stratifies folds for a classifier alone.
    features : list of steps as in a pipeline file, each ``{name: {parameters}}`` or a name, such
        as ``[{"impute": {"columns": "numeric"}}, "drop_constant"]``. None: steps by type and
        cardinality, good for the model at hand.
    model : "xgboost", "linear" or another family of docs/models.md.
    model_params : the model's parameters under its library's own names. They can also be
        reached one by one, as ``model__max_depth``, in `set_params` and in a search's grid.
    random_state : int, RandomState or None. The default is 0: two fits give the same model.
    n_jobs : threads. None and -1 use every core that the process may use.
    batch_rows : rows that are worked on at once. The result does not depend on it.

    Attributes
    ----------
    classes_ : labels in ascending order, in the type of ``y`` (classification).
    n_features_in_ : columns of ``X``.
    feature_names_in_ : their names, where ``X`` had names that are text.
    feature_importances_ : float64 ``[features]``, adding up to 1, in the order of
        `get_feature_names_out`; there for models that have such.
    notes_ : what was decided about the columns and should be known (text that was left out).
    bundle_ : the `gpupipe.bundle.Bundle` that scores.

    Notes
    -----
    Missing values (None, NaN, NaT) are welcome in ``X``, and an infinity counts as missing.
    Rows of weight zero are as if they were not there. Weights reach the model; what the
    steps learn (medians, levels, encodings) does not depend on them.

    What is wrong with the data or the parameters is a ValueError, as everywhere in
    scikit-learn.
    """

    def __init__(
        self, task: str = "classification", *, features: Sequence[Any] | None = None,
        model: str = "xgboost", model_params: Mapping[str, Any] | None = None,
        random_state: Any = 0, n_jobs: int | None = None, batch_rows: int = 131_072,
    ) -> None:
        self.task = task
        self.features = features
        self.model = model
        self.model_params = model_params
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.batch_rows = batch_rows

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn the features and train the model on every row.

        Parameters
        ----------
        X : table (pandas, Polars, Arrow, anything with ``__arrow_c_stream__``) or array-like
            ``[n, features]`` of numbers, text or both.
        y : array-like ``[n]``: labels of one type, or finite numbers.
        sample_weight : array-like ``[n]`` of numbers of at least 0, or None.

        Raises ValueError or TypeError where X, y or a parameter is not fit for it.
        """
        X, y, sample_weight = (gathered(v) if is_collection(v) else v
                               for v in (X, y, sample_weight))
        table = self._table(X, reset=True)
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, table, ensure_non_negative=True)
        with _as_value_errors():
            codes = self._target(y, table.num_rows, weight)
            table = table.append_column(_free("y", table), pa.array(codes))
            if weight is not None:
                table = table.append_column(_free("sample_weight", table), pa.array(weight))
                table = table.filter(pa.array(weight > 0))
            config = self._config(table, weight is not None)
            engine = LocalEngine(_threads(self.n_jobs), config.engine.batch_rows)
            trained = train(config, ingest(table, cache=Path()), engine, baselines=False)
            contents = _labelled(contents_of(trained), self._labels())
            self.bundle_ = Bundle(contents, Path())
            self._golden = golden_rows(self.bundle_, table.slice(0, GOLDEN_ROWS))
        self.notes_ = list(trained.notes)
        arrays: dict[str, np.ndarray] = {}
        structure = pack(states_of(trained), arrays)
        # Histograms are long and mostly zeros: compressed, the estimator pickles in kilobytes.
        self._states = structure, write_arrays(arrays)
        return self

    def predict(self, X: Any) -> Any:
        """Labels in the type of `classes_`, or values (float64): ``[n]``; a Dask series of Dask."""
        check_is_fitted(self)
        if is_collection(X):
            return map_rows(X, self.predict, None, getattr(self, "classes_", None))
        if self.task == "regression":
            return self._scores(X)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    @available_if(lambda self: self.task == "classification")  # type: ignore[untyped-decorator]
    def predict_proba(self, X: Any) -> Any:
        """Class probabilities, float64 ``[n, classes]`` in the order of `classes_`."""
        check_is_fitted(self)
        if is_collection(X):
            return map_rows(X, self.predict_proba, [str(c) for c in self.classes_])
        scores = self._scores(X)
        if scores.ndim == 1:
            return np.column_stack([1 - scores, scores])
        # XGBoost's float32 shares add up to 1 within 1e-7; log_loss wants it in float64.
        return np.asarray(scores / scores.sum(axis=1, keepdims=True))

    def transform(self, X: Any) -> Any:
        """What the model sees: float32 ``[n, features]``, NaN for missing; see `set_output`.

        Rows of the training table get the encodings that new rows would get. The model
        learned from cross-fitted ones. Of a Dask data frame this is another one.
        """
        check_is_fitted(self)
        if is_collection(X):
            names = self.bundle_.feature_names
            return map_rows(X, lambda rows: np.asarray(self.transform(rows)), names,
                            np.empty((0, len(names)), np.float32))
        table = self._table(X, reset=False)
        with _as_value_errors():
            return np.asarray(self.bundle_.features(table))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy of a classifier, R² of a regressor."""
        metric = r2_score if self.task == "regression" else accuracy_score
        return float(metric(y, self.predict(X), sample_weight=sample_weight))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of what `transform` gives. ``input_features`` is checked and else not used."""
        check_is_fitted(self)
        _check_feature_names_in(self, input_features)
        return np.asarray(self.bundle_.feature_names, dtype=object)

    @property
    def feature_importances_(self) -> np.ndarray:
        """Each feature's share, ``[features]``. AttributeError for a model without such."""
        check_is_fitted(self)
        shares = dict(self.bundle_.contents.model.importances())
        if not shares:
            raise AttributeError(f"model {self.model!r} has no importances")
        return np.array([shares[name] for name in self.bundle_.feature_names])

    def save(self, path: str | Path) -> None:
        """Write a bundle to the new folder ``path``: data alone, for `gpupipe.load`.

        Raises FileExistsError where there is something of that name.
        """
        check_is_fitted(self)
        if Path(path).exists():
            raise FileExistsError(f"{path} is already there")
        structure, arrays = self._states
        states = unpack(structure, read_arrays(arrays, CAPS["states.npz"]))
        write(Path(path), self.bundle_.contents, states, self._golden)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters; where ``deep``, also ``model__NAME`` for each of ``model_params``."""
        params: dict[str, Any] = super().get_params(deep=deep)
        if deep and isinstance(self.model_params, Mapping):
            params |= {f"model__{k}": v for k, v in self.model_params.items()}
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``model__NAME`` sets one of ``model_params`` and keeps the others."""
        inner = {k: params.pop(k) for k in list(params) if k.startswith("model__")}
        super().set_params(**params)
        if inner:
            named = {k.removeprefix("model__"): v for k, v in inner.items()}
            self.model_params = {**(self.model_params or {}), **named}
        return self

    def _table(self, X: Any, *, reset: bool) -> pa.Table:
        """``X`` as an Arrow table under the names that `fit` saw, or x0, x1, ..."""
        if not hasattr(X, "__arrow_c_stream__"):
            # Object arrays keep None, so finiteness is not scikit-learn's to judge here.
            X = validate_data(self, X, reset=reset, dtype=None, ensure_all_finite=False,
                              ensure_min_samples=2 if reset else 1)
            columns = [_column(X[:, i], i) for i in range(X.shape[1])]
        else:
            with _as_value_errors():
                table = _arrow(X)
            _check_size(table, 2 if reset else 1)
            # pandas alone has column names that are no text: they count as no names at all.
            validate_data(self, X if hasattr(X, "iloc") else table, reset=reset,
                          skip_check_array=True)
            columns = table.columns
        default = [f"x{i}" for i in range(len(columns))]
        return pa.Table.from_arrays(columns, names=list(getattr(self, "feature_names_in_",
                                                                default)))

    def _target(self, y: Any, rows: int, weight: np.ndarray | None) -> np.ndarray:
        """Class codes (int64) or values (float64), ``[n]``; sets `classes_`."""
        self.__dict__.pop("classes_", None)  # of an earlier fit, on another task
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y "
                             "is None.")
        if self.task not in TASKS:
            raise ConfigError(f"task must be one of {TASKS}, found {self.task!r}")
        y = column_or_1d(check_array(y, ensure_2d=False, dtype=None, input_name="y",
                                     ensure_all_finite=True), warn=True)
        if len(y) != rows:
            check_consistent_length(np.empty(rows), y)
        if self.task == "regression":
            return np.asarray(check_array(y, ensure_2d=False, dtype=np.float64, input_name="y"))
        check_classification_targets(y)
        counted = y if weight is None else y[weight > 0]
        self.classes_ = np.unique(counted)
        if len(self.classes_) < 2:
            raise DataError(f"the classifier needs two classes at least; y has one class alone: "
                            f"{self.classes_.tolist()[0]!r}")
        return np.asarray(np.searchsorted(self.classes_, y), np.int64)

    def _labels(self) -> list[str]:
        """The classes as text, as a pipeline file's bundle would name them."""
        classes = self.classes_.tolist() if self.task == "classification" else []
        return [label_of(c) for c in classes]

    def _config(self, table: pa.Table, weighted: bool) -> PipelineConfig:
        """The pipeline file that says the same as the parameters."""
        names = table.column_names[::-1]
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(2**31)
        task = "regression"
        if self.task == "classification":
            task = "binary" if len(self.classes_) == 2 else "multiclass"
        features = list(self.features) if isinstance(self.features, tuple) else self.features
        params: Any = self.model_params if self.model_params is not None else {}
        if isinstance(params, Mapping):  # a search draws NumPy's numbers
            params = {k: v.item() if isinstance(v, np.generic) else v for k, v in params.items()}
        return parse_config({
            "data": {"source": "X", "target": names[1 if weighted else 0], "task": task,
                     "weight": names[0] if weighted else None},
            "split": {"holdout": 0.0, "folds": 0},
            "features": features, "model": {"kind": self.model, "params": params},
            "leaks": {"check": "off"},  # whoever splits for an estimator is not known to it
            "engine": {"batch_rows": self.batch_rows}, "seed": int(seed),
        })

    def _scores(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        table = self._table(X, reset=False)
        with _as_value_errors():
            return np.asarray(self.bundle_.scores(table))

    def __sklearn_tags__(self) -> Tags:
        tags: Tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags = InputTags(allow_nan=True, string=True, categorical=True)
        tags.transformer_tags.preserves_dtype = ["float32"]
        if self.task == "regression":
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        else:
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        return tags

    def _sk_visual_block_(self) -> Any:
        """For notebooks: the steps in order, then the model."""
        from sklearn.utils._repr_html.estimator import _VisualBlock

        shown = [_VisualBlock("single", name, names=name, name_details=details)
                 for name, details in [*self._shown_steps(), (self.model, self.model_params or {})]]
        return _VisualBlock("serial", shown, dash_wrapped=False)

    def _shown_steps(self) -> list[tuple[str, Any]]:
        if hasattr(self, "bundle_"):
            return [(step.name, f"{', '.join(taken)} -> {', '.join(given) or 'nothing'}")
                    for step, taken, given in self.bundle_.contents.graph.stages if taken]
        if self.features is None:
            return [("default steps", f"chosen by fit, for {self.model}")]
        return [(s, {}) if isinstance(s, str) else next(iter(s.items())) for s in self.features]


@contextmanager
def _as_value_errors() -> Iterator[None]:
    """gpupipe's own errors under the type that scikit-learn promises."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise ValueError(str(error)) from error


def _threads(n_jobs: int | None) -> int:
    """Threads by scikit-learn's count: -1 is all cores, -2 all but one."""
    if n_jobs is None:
        return cores()
    if n_jobs == 0:
        raise ConfigError("n_jobs == 0 has no meaning", hint="use None for every core")
    return n_jobs if n_jobs > 0 else max(1, cores() + 1 + n_jobs)


def _free(name: str, table: pa.Table) -> str:
    """``name``, with as many underscores as make it a new column of ``table``."""
    while name in table.column_names:
        name += "_"
    return name


def _arrow(X: Any) -> pa.Table:
    try:
        table = X if isinstance(X, pa.Table) else pa.table(X)
        # pandas puts an index behind the columns: row labels, which scikit-learn ignores.
        return table.select(range(X.shape[1])) if hasattr(X, "iloc") else table
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"X cannot be read as an Arrow table: {str(error).splitlines()[0]}",
                        hint="give every column one type and its own name") from None


def _check_size(table: pa.Table, least: int) -> None:
    """Refuse too few rows or columns in the words of `sklearn.utils.check_array`."""
    rows, columns = table.shape
    if not columns:
        raise ValueError(f"Found array with 0 feature(s) (shape={table.shape}) while a minimum "
                         "of 1 is required.")
    if rows < least:
        raise ValueError(f"Found array with {rows} sample(s) (shape={table.shape}) while a "
                         f"minimum of {least} is required.")


def _column(values: np.ndarray, position: int) -> pa.Array:
    """One column of an array; NaN, NaT and None become nulls."""
    if values.dtype != object:
        return pa.array(np.ascontiguousarray(values), from_pandas=True)
    strange = {type(v) for v in values if isinstance(v, (Mapping, Sequence, set, np.ndarray))}
    strange -= {str}
    if strange:
        raise TypeError(f"column {position} of X: argument must be a string or a real number, "
                        f"not {strange.pop().__name__!r}")
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"column {position} of X mixes types: {error}") from None


def _labelled(contents: Contents, labels: list[str]) -> Contents:
    """The contents with the labels of ``y`` in place of the codes that were trained on."""
    target = replace(contents.graph.target, classes=tuple(labels))
    return replace(contents, info={**contents.info, "classes": labels},
                   graph=replace(contents.graph, target=target))
