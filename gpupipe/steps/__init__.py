"""How columns become features: the steps, and the fused scan in which they learn."""

from gpupipe.steps import categorical, numeric, pairs, structure, target
from gpupipe.steps.base import STEPS, Feature, Step, Target

__all__ = [
    "STEPS", "Feature", "Step", "Target", "categorical", "numeric", "pairs", "structure", "target",
]
