"""What scoring needs of a pipeline whose model was trained on chosen features."""

from __future__ import annotations

from dataclasses import replace

from gpupipe.models.base import FittedModel
from gpupipe.models.selected import FittedSelected
from gpupipe.models.wrappers import Wrapper
from gpupipe.steps.graph import Fitted, Graph, feature_names, feature_parts


def pruned(graph: Graph, fitted: Fitted, model: FittedModel) -> tuple[Graph, FittedModel]:
    """The features that reach the model, and the model without the selection in it.

    Of features that were not chosen neither steps nor source columns are needed. They all stay
    where another model beside it sees them (that of quantiles), and where names of two features
    collided (a one-hot's ``.1``), so that they keep their names.
    """
    less, columns = _chosen(graph, fitted, model)
    if less is graph:
        return graph, without_logs(model)
    names = feature_names(less, fitted)
    whole = feature_names(graph, fitted)
    if names != [whole[c] for c in columns]:
        return graph, without_logs(model)
    return less, _bare(model)


def _chosen(graph: Graph, fitted: Fitted, model: FittedModel) -> tuple[Graph, tuple[int, ...]]:
    """The graph of the chosen features, and their columns; the graph itself where all stay."""
    selection = None
    while isinstance(model, Wrapper) and getattr(model, "quantiles", None) is None:
        if isinstance(model, FittedSelected):
            selection = model.selection
            break
        model = model.inner
    if selection is None:
        return graph, ()
    parts = feature_parts(graph, fitted)
    kept = {parts[c] for c in selection.columns}
    outputs = tuple(n for n in graph.outputs if n.feature.name in kept)
    return replace(graph, outputs=outputs), selection.columns


def _bare(model: FittedModel) -> FittedModel:
    """The model without the selection in it."""
    if isinstance(model, FittedSelected):
        return model.inner
    assert isinstance(model, Wrapper)
    return replace(model, inner=_bare(model.inner))


def without_logs(model: FittedModel) -> FittedModel:
    """The model without what selections in it went by: how long that took differs each time."""
    if isinstance(model, FittedSelected):
        return model.without_log()
    if isinstance(model, Wrapper):
        return replace(model, inner=without_logs(model.inner))
    return model
