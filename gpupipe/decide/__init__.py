"""What is made of predictions: calibrated probabilities, decisions, intervals.

All of it is learned from out-of-fold predictions, and judged on folds that it was not learned
from.
"""

from gpupipe.decide.finish import Finished, check_choices, finish

__all__ = ["Finished", "check_choices", "finish"]
