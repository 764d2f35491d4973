"""How good a model is: metrics with intervals, curves, slices and the HTML report."""

from gpupipe.evaluate.metrics import DEFAULT_METRICS, METRICS, Metric
from gpupipe.evaluate.scores import Score, evaluate, paired_difference, slice_scores

__all__ = [
    "DEFAULT_METRICS", "METRICS", "Metric", "Score", "evaluate", "paired_difference",
    "slice_scores",
]
