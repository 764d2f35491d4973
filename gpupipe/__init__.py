"""gpupipe: from raw tables to a trained, evaluated, portable model.

>>> import gpupipe
>>> result = gpupipe.run({"data": {"source": "adult.data", "target": "outcome"}})  # doctest: +SKIP
>>> bundle = gpupipe.load(result.bundle)  # doctest: +SKIP
>>> bundle.predict_proba(table)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpupipe.bundle import Bundle
    from gpupipe.config import PipelineConfig
    from gpupipe.estimator import Pipeline as Pipeline
    from gpupipe.workflow import RunResult

__all__ = ["Bundle", "Pipeline", "cross_validate", "load", "run"]

_LAZY = {
    "Bundle": "gpupipe.bundle", "Pipeline": "gpupipe.estimator",
}


def run(
    config: PipelineConfig | Mapping[str, Any] | str | Path, data: object = None, *,
    runs: str | Path = "runs", progress: Any = None,
) -> RunResult:
    """Run a pipeline: a pipeline file's path, a mapping like one, or a `PipelineConfig`.

    Parameters
    ----------
    config : what to run.
    data : a pandas, Polars, Arrow or Dask table to use instead of ``data.source``.
    runs : the folder that holds the runs.
    """
    from gpupipe import workflow

    return workflow.run(_parsed(config, data), runs=Path(runs), source=data, progress=progress)


def cross_validate(
    config: PipelineConfig | Mapping[str, Any] | str | Path, data: object = None, *,
    runs: str | Path = "runs", progress: Any = None,
) -> dict[str, Any]:
    """Judge a pipeline by its folds alone: no final model is trained, no run is written.

    Parameters as in `run`. Returns a dict with ``metrics`` and ``baselines`` out of fold (value
    and interval each) and ``folds``, a mapping of metrics for each. ConfigError where
    ``split.folds`` is 0.
    """
    from gpupipe import workflow

    return workflow.cross_validate(_parsed(config, data), cache=Path(runs) / ".cache",
                                   source=data, progress=progress)


def load(model: str | Path) -> Bundle:
    """A trained pipeline, verified: hashes checked, golden rows replayed.

    ``model`` is a run's or a bundle's folder, or a version in a registry:
    ``REGISTRY/NAME@ALIAS``, ``REGISTRY/NAME@VERSION`` (see `registry.resolve`). Raises DataError
    where anything is not as it was written.
    """
    from gpupipe.bundle import load as load_folder
    from gpupipe.registry.names import is_reference

    if is_reference(str(model)):
        from gpupipe.registry import resolve

        return load_folder(resolve(model).path)
    return load_folder(model)


def _parsed(
    config: PipelineConfig | Mapping[str, Any] | str | Path, data: object
) -> PipelineConfig:
    from gpupipe.config import parse_config

    if data is not None and isinstance(config, Mapping):
        section = {"source": "a table in memory", **config.get("data", {})}
        config = {**config, "data": section}
    return parse_config(config)


def __getattr__(name: str) -> Any:
    # Lazy, so that `gpupipe --help` does not wait for libraries that it does not need.
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gpupipe' has no attribute {name!r}")
