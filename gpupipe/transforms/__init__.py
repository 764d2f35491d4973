"""What steps do to a batch: all that scoring needs of them, without what learning needs.

A step of a pipeline file (`gpupipe.steps`) says what it learns; what it does with that is a
function here, of plain data. So a bundle is read and scored with NumPy and Arrow alone.
"""

from gpupipe.transforms import categorical, numeric, pairs, structure
from gpupipe.transforms.base import TRANSFORMS, Feature, StoredStep, Target

__all__ = [
    "TRANSFORMS", "Feature", "StoredStep", "Target", "categorical", "numeric", "pairs",
    "structure",
]
