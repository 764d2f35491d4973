"""Which kinds of model learn without a target, and what a pipeline file may then not say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpupipe.errors import ConfigError

if TYPE_CHECKING:
    from gpupipe.config.model import PipelineConfig

UNSUPERVISED = (
    "kmeans", "dbscan", "hdbscan", "isolation_forest", "pca", "truncated_svd", "umap",
)
"""The registered kinds whose task is ``unsupervised``."""
NEED_TARGET = ("select", "tune", "ensemble", "calibrate", "decide", "intervals")
"""Sections that choose by how well a target is predicted."""


def check_target(config: PipelineConfig) -> None:
    """ConfigError where a target is missing, or where there is none and something asks for it."""
    kind = config.model.kind
    if kind not in UNSUPERVISED:
        if config.data.target is None:
            raise _without_target(config)
        return
    fault = _with_target(config) or _without_use(config)
    if fault is not None:
        raise fault


def _without_target(config: PipelineConfig) -> ConfigError:
    if "target" in config.data.model_fields_set:
        return config.fault(("data", "target"), "'data.target': expected text, found nothing",
                            "a name that begins with a # needs quotes")
    return config.fault(("data", "target"), "'data.target' is missing", "name the column to "
                        f"predict; the kinds that need none are {', '.join(UNSUPERVISED)}",
                        key=True)


def _with_target(config: PipelineConfig) -> ConfigError | None:
    data, kind = config.data, config.model.kind
    if data.target is not None:
        return config.fault(
            ("data", "target"), f"model {kind!r} learns without a target",
            f"to keep {data.target!r} out of the features move it to data.drop; to predict it "
            "choose another model.kind",
        )
    if data.positive is not None:
        return config.fault(("data", "positive"), "a positive label is for a target, and model "
                            f"{kind!r} learns without one", "leave it out")
    if data.task != "auto":
        return config.fault(("data", "task"), f"the task of model {kind!r} is unsupervised, not "
                            f"{data.task}", "leave it out")
    return None


def _without_use(config: PipelineConfig) -> ConfigError | None:
    kind = config.model.kind
    if config.split.by == "stratified":
        return config.fault(("split", "by"), "a stratified split needs the classes of a target, "
                            f"and model {kind!r} learns without one", "random, group or time")
    if config.evaluate.slices:
        return config.fault(("evaluate", "slices"), "slices compare predictions with a target, "
                            f"and model {kind!r} learns without one", "leave them out")
    for name in NEED_TARGET:
        section = getattr(config, name)
        if section != type(section)():
            return config.fault((name,), f"{name!r} needs a target, and model {kind!r} learns "
                                "without one", "leave the section out", key=True)
    return None
