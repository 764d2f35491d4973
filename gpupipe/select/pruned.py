"""What scoring needs of a pipeline whose model was trained on chosen features."""

from __future__ import annotations

from dataclasses import replace

from gpupipe.models.base import FittedModel
from gpupipe.models.selected import FittedSelected
from gpupipe.steps.graph import Fitted, Graph, feature_names, feature_parts


def pruned(graph: Graph, fitted: Fitted, model: FittedModel) -> tuple[Graph, FittedModel]:
    """The features that reach the model, and the model under the selection.

    Of features that were not chosen neither steps nor source columns are needed. Where names
    of two features collided (a one-hot's ``.1``), all stay, so that they keep their names.
    """
    if not isinstance(model, FittedSelected):
        return graph, model
    parts, columns = feature_parts(graph, fitted), model.selection.columns
    chosen = {parts[c] for c in columns}
    less = replace(graph, outputs=tuple(n for n in graph.outputs if n.feature.name in chosen))
    names = [name for name, _ in feature_names(less, fitted)]
    if names == [model.names[c] for c in columns]:
        return less, model.inner
    return graph, model.without_log()
